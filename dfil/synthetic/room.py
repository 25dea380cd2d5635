"""All around the head that never changes within a clip: wall, torso, hair that hangs behind."""

from __future__ import annotations

import cv2
import numpy as np

from dfil.synthetic.fields import generator, noise, over, ramp
from dfil.synthetic.identity import Outer
from dfil.synthetic.settings import SIZE

MARGIN = 20  # layers are larger than the frame, so that they can be moved
_N = SIZE + 2 * MARGIN


def wall(o: Outer) -> np.ndarray:
    """Background (SIZE, SIZE, 3)."""
    rng = generator(o.seed, o.number, "wall")
    yy, xx = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    texture = 1
    for strength, cell in ((0.12, 90), (0.05, 14), (0.02, 3)):
        texture = texture + strength * _noise(rng, cell, cell, SIZE)
    image = o.wall * texture[..., None]
    for _ in range(rng.integers(1, 5)):  # pictures, shelves, windows
        (x0, y0), (w, h) = rng.integers(-40, SIZE, 2), rng.integers(40, 180, 2)
        alpha = 0.8 * ramp(xx - x0, 4) * ramp(x0 + w - xx, 4)
        alpha = alpha * ramp(yy - y0, 4) * ramp(y0 + h - yy, 4)
        colour = rng.uniform(0.15, 0.85, 3).astype(np.float32)
        colour = colour * (1 + 0.05 * _noise(rng, 20, 6, SIZE))[..., None]
        over(image, colour, alpha)
    return cv2.GaussianBlur(image, (0, 0), 1.5)


def torso(o: Outer) -> tuple[np.ndarray, np.ndarray]:
    """Shoulders, neck and clothes: colour (N, N, 3) and coverage (N, N)."""
    rng = generator(o.seed, o.number, "torso")
    unit, centre = o.half_width_px, _N / 2
    yy, xx = np.mgrid[0:_N, 0:_N].astype(np.float32) - np.float32(centre)
    ax = np.abs(xx)
    slope = 1.72 * unit + (xx / (2.3 * unit)) ** 2 * 0.55 * unit - 12
    shoulders = ramp(yy - slope, 3) * ramp(2.6 * unit - ax, 30)
    collar = ramp(1.95 * unit - 1.2 * ax - yy, 4) * (ax < 1.3 * 0.62 * unit)
    shoulders *= 1 - collar
    neck = ramp(0.62 * unit + 0.12 * np.clip(yy - unit, 0, 99) - ax, 3)
    neck = neck * ramp(yy, 3) * ramp(1.95 * unit - yy, 12)
    weave = 1 + 0.10 * _noise(rng, 25, 25) + 0.05 * _noise(rng, 3, 3)
    weave = weave - 0.2 * np.exp(-((xx / (0.5 * unit)) ** 2))
    round_neck = 0.22 * (xx / (0.62 * unit)) ** 2
    shadow = 0.30 * np.exp(-(((yy - 1.30 * unit) / (0.3 * unit)) ** 2))
    skin = o.skin * np.clip(0.80 - round_neck - shadow, 0.2, 1)[..., None]
    colour = skin + (o.cloth * weave[..., None] - skin) * shoulders[..., None]
    return colour, np.maximum(shoulders, neck)


def back_hair(o: Outer) -> tuple[np.ndarray, np.ndarray] | None:
    """Long hair behind the head: colour (N, N, 3) and coverage (N, N); None for short hair."""
    if not o.long_hair:
        return None
    rng = generator(o.seed, o.number, "back hair")
    yy, xx = (np.mgrid[0:_N, 0:_N].astype(np.float32) - np.float32(_N / 2)) / o.half_width_px
    crown = np.sqrt(np.clip(1 - (np.clip(-yy, 0, 9) / (1.05 * o.height)) ** 2, 0, 1))
    half_width = 1.16 * o.volume - 0.10 * np.clip(yy, 0, 2) ** 2 + 0.04 * _noise(rng, 30, 400)
    alpha = ramp(half_width * crown - np.abs(xx), 0.08)
    alpha = alpha * ramp(1.75 - yy + 0.06 * _noise(rng, 400, 6), 0.2) * ramp(yy + 1.2, 0.4)
    strands = np.clip(0.62 + 0.18 * _noise(rng, 60, 2.5) + 0.1 * _noise(rng, 60, 10), 0.15, 2)
    return o.hair * strands[..., None], alpha


def _noise(rng, cell_h, cell_w, n=_N):
    return noise(rng, (n, n), (cell_h, cell_w))
