"""Partially forged clips for Figure 5: a tree of FaceForensics++'s layout in which a fake is forged only from one frame to another.

    <root>/truth.json    {video id: {"frames": n, "forged": [[first, stop], ...]}}; everything else as in ffpp_tree.py

The people are those of another synthetic tree's test split, so that a model trained on that tree has never seen them. Every person gets
short spans with some manipulations and long ones with the others. Frames outside the span equal the real clip's before encoding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dfil.datasets import MARK, ffpp, synthetic_setting
from dfil.errors import DataError
from dfil.files import atomic
from dfil.synthetic.codec import encode
from dfil.synthetic.ffpp_tree import MASK_CRF
from dfil.synthetic.fields import generator
from dfil.synthetic.render import SWAPS, render_target
from dfil.synthetic.settings import Setting

SPANS = {"short": (8, 12), "long": (16, 24)}  # forged frames, least and most
TRUTH = "truth.json"
REST = 4  # frames of a clip that stay real at least


def write_partial(
    root: str | Path, like: str | Path, *, manipulations: Sequence[str] = SWAPS, quality: str = "c23", most: int = 0, progress: bool = True
) -> Path:
    """Write the tree `root` with the setting, the clip length and the test people of the synthetic tree `like`, and return it.

    manipulations: by default the two face swaps, which is what DFDC's forgeries are. most: take the first so many people, 0 for all.
    Clips that are already there are kept. Raises DataError if `like` is not a synthetic tree or `root` was made with other parameters.
    """
    root, made = Path(root), synthetic_setting(like)
    if made is None:
        raise DataError(f"{like} holds real data; partially forged clips are rendered for the people of a synthetic tree only")
    setting, frames, seed = Setting(**made["setting"]), made["frames"], made["seed"]
    pairs = [(int(a), int(b)) for a, b in ffpp.read_splits(like).get("test", [])]
    people = [both for a, b in pairs for both in ((a, b), (b, a))]
    people = people[:most] if most else people
    tests = sorted({tuple(sorted(pair)) for pair in people})
    spans = {
        (target, source, method): forged_span(seed, target, method, kind_of(place, i), frames)
        for place, (target, source) in enumerate(people)
        for i, method in enumerate(manipulations)
    }
    parameters = made | {"partial": {kind: list(limits) for kind, limits in SPANS.items()}, "manipulations": list(manipulations)}
    _claim(root / MARK, parameters | {"people": [list(pair) for pair in people], "quality": quality})
    _write(root / "splits" / "test.json", json.dumps([[f"{a:03d}", f"{b:03d}"] for a, b in tests]).encode())
    truth = {f"{quality}/{m}/{t:03d}_{s:03d}": {"frames": frames, "forged": [list(span)]} for (t, s, m), span in spans.items()}
    _write(root / TRUTH, (json.dumps(truth, indent=1) + "\n").encode())
    for target, source in tqdm(people, desc="partially forged clips", unit="person", disable=None if progress else True):
        for i, method in enumerate(manipulations):
            _write_clips(root, target, source, method, setting, frames, seed, spans[target, source, method], quality, real=i == 0)
    return root


def kind_of(place: int, method: int) -> str:
    """ "short" or "long", in turn over people and manipulations, so that both kinds see all people and all manipulations."""
    return list(SPANS)[(place + method) % len(SPANS)]


def forged_span(seed: int, target: int, method: str, kind: str, frames: int) -> tuple[int, int]:
    """First forged frame and the one after the last, drawn for one clip; at least REST frames stay real."""
    rng = generator(seed, target, f"{kind} span of {method}")
    low, high = SPANS[kind]
    length = int(rng.integers(min(low, frames - REST), min(high, frames - REST) + 1))
    first = int(rng.integers(0, frames - length + 1))
    return first, first + length


def truth(root: str | Path) -> dict[str, np.ndarray]:
    """Per video id whether each frame is forged, bool (frames,). Raises DataError if the tree has no such file."""
    path = Path(root) / TRUTH
    if not path.is_file():
        raise DataError(f"{path} is not there; write the tree again with write_partial")
    found = {}
    for video_id, line in json.loads(path.read_text()).items():
        found[video_id] = np.zeros(line["frames"], bool)
        for first, stop in line["forged"]:
            found[video_id][first:stop] = True
    return found


def _write_clips(root, target, source, method, setting, frames, seed, span, quality, real):
    """One fake with its mask, and the real clip if `real`; nothing is rendered if all of them are there."""
    fake, stem = root / "manipulated_sequences" / method, f"{target:03d}_{source:03d}.mp4"
    paths = {method: fake / quality / "videos" / stem, "masks": fake / "masks" / "videos" / stem}
    if real:
        paths["real"] = root / "original_sequences" / "youtube" / quality / "videos" / f"{target:03d}.mp4"
    if all(path.exists() for path in paths.values()):
        return
    original, forged = render_target(target, source, setting, methods=(method,), frames=frames, seed=seed, span=span)
    for kind, path in paths.items():
        if kind == "masks":
            _write(path, encode(forged.masks_thw, MASK_CRF, "veryfast"))
        else:
            _write(path, encode((original if kind == "real" else forged).frames_thwc, setting.crf[quality], setting.preset))


def _claim(marker: Path, parameters: dict) -> None:
    """Write the mark of a synthetic tree, or make sure that the one that is there says the same."""
    if marker.is_file():
        if json.loads(marker.read_text()) != json.loads(json.dumps(parameters)):
            raise DataError(f"{marker.parent} holds partially forged clips with other parameters; delete it or choose another folder")
    elif marker.parent.exists() and any(marker.parent.iterdir()):
        raise DataError(f"{marker.parent} is not empty and no tree of partially forged clips; choose another folder")
    else:
        _write(marker, (json.dumps(parameters, indent=1) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)
