"""What happens to files: bytes lost, doubled or changed; JSON with a node of another type."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path


def injured(content: bytes, rng: random.Random) -> bytes:
    """Bytes with one of the injuries that files get on their way."""
    place = rng.randrange(len(content) + 1)
    stop = min(len(content), place + rng.randrange(1, 40))
    noise = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
    text = content.decode("latin-1")
    digits = [n for n, letter in enumerate(text) if letter in string.digits] or [0]
    digit = rng.choice(digits)
    options = (
        lambda: content[:place],
        lambda: content[:place] + content[stop:],
        lambda: content[:stop] + content[place:],
        lambda: content[:place] + noise + content[place:],
        lambda: content[:place] + noise + content[place + len(noise) :],
        lambda: content[:place] + bytes(rng.randrange(1, 999)) + content[place:],
        lambda: b"",
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-8-sig"),
        lambda: content[:place] + "Zoë".encode("latin-1") + content[place:],
        lambda: content[:digit] + b"9" * rng.choice((30, 5000)) + content[digit:],
        lambda: content[:digit] + b"-1e999" + content[digit + 1 :],
        lambda: b"<!DOCTYPE html><html><body>Sign in</body></html>",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        lambda: b"[" * 10**5 + content,
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: content * 2,
    )
    return rng.choice(options)()


def other_value(rng: random.Random):
    """A value of a type that nobody expects there."""
    values = (None, True, 0, -1, 10**30, 1e308, "", "FAKE", "real ", "no", [], [[]], {}, {"a": {}})
    return rng.choice(
        (*values, "../x.mp4", "/etc/passwd", "a\0b", "\ud800", "x" * 10**5, ["a", "b"])
    )


def changed(value, rng: random.Random):
    """JSON with one node replaced, dropped or doubled."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return other_value(rng)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, value = rng.choice(list(keys)), value.copy()
    chance = rng.random()
    if chance < 0.15:
        del value[key]
    elif chance < 0.3 and isinstance(value, dict):
        value[rng.choice(("../y.mp4", "", "z", key.upper(), f"{key} "))] = value[key]
    elif chance < 0.3:
        value.append(value[key])
    else:
        value[key] = changed(value[key], rng)
    return value


def spoil(path: Path, rng: random.Random) -> None:
    """Injure a list: its JSON, if it is some, or its bytes."""
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.5:
        text = json.dumps(changed(json.loads(content), rng))
        if rng.random() < 0.2:  # a key that is given twice
            text = text[:-1] + ', "again": {}, "again": {}}' if text.endswith("}") else text
        path.write_text(text)
    else:
        for _ in range(rng.randrange(1, 3)):
            content = injured(content, rng)
        path.write_bytes(content)
