"""Videos of two people side by side of whom one is forged, for some seconds: what can be pointed at
with the truth known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfil.synthetic.codec import encode
from dfil.synthetic.fields import generator
from dfil.synthetic.render import render_target
from dfil.synthetic.settings import FPS, METHODS, RENDERER, SETTINGS
from dfil.system.files import atomic

FIRST = 100_000  # from this number on: people whom no tree shows
SETTING, QUALITY = "ff-like", "c23"


@dataclass(frozen=True)
class Scene:
    """What is true of one video: who is forged (0 left, 1 right), how, and in which seconds."""

    path: Path
    person: int
    manipulation: str
    first_second: float
    last_second: float


def scene(number: int, folder: Path, seconds: float = 6.0, forged: float = 2.0) -> Scene:
    """Write <folder>/two-people-<number>.mp4, its name more exactly, if it is not there as today's
    renderer draws it, and say what is true of it.

    Sides and manipulations come in turn, the forged stretch (`forged` seconds) lies anywhere.
    """
    setting = SETTINGS[SETTING]
    frames, length = round(seconds * FPS), round(forged * FPS)
    first = int(generator(0, FIRST + number, "forged stretch").integers(0, frames - length + 1))
    person, method = number % 2, METHODS[number // 2 % len(METHODS)]
    name = f"two-people-{number}-{frames}-{length}-r{RENDERER}.mp4"
    path = Path(folder) / name
    if not path.is_file():
        one = FIRST + 4 * number  # and the three that follow
        (real,) = render_target(one, one + 1, setting, methods=(), frames=frames)
        how = {"methods": (method,), "frames": frames, "span": (first, first + length)}
        _, fake = render_target(one + 2, one + 3, setting, **how)
        shown = [real.frames_thwc, fake.frames_thwc]
        shown = shown if person else shown[::-1]
        with atomic(path) as temporary:
            temporary.write_bytes(encode(np.concatenate(shown, 2), **setting.coding(QUALITY)))
    return Scene(path, person, method, first / FPS, (first + length) / FPS)
