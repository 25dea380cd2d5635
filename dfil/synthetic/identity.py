"""Who is in the picture: outer identity (head, skin, hair, clothes, room) and inner identity (eyes,
brows, nose, mouth).

The two are drawn independently. A face swap puts one person's inner face into another person's
head, and because every real person is such a random combination as well, the combination alone
gives nothing away. Lengths are in units of the head's half width, x to the right and y down;
colours are RGB between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dfil.synthetic.fields import generator

SKIN_TONES = np.float32(
    [(240, 205, 185), (226, 184, 156), (205, 158, 126), (168, 120, 90), (128, 88, 66)]
) / np.float32(255)
HAIR_COLOURS = (
    *((0.09, 0.07, 0.06), (0.20, 0.13, 0.09), (0.36, 0.23, 0.13)),
    *((0.62, 0.47, 0.28), (0.45, 0.20, 0.10), (0.55, 0.54, 0.53)),
)
IRIS_COLOURS = (
    *((0.25, 0.15, 0.08), (0.35, 0.22, 0.10), (0.25, 0.38, 0.50)),
    *((0.30, 0.40, 0.25), (0.12, 0.08, 0.06)),
)


@dataclass(frozen=True)
class Outer:
    """Everything around the inner face."""

    seed: int
    number: int
    half_width_px: float  # the unit of length, in pixels of the frame
    height: float  # centre to crown and centre to chin
    depth: float
    chin: float  # exponent of the lower outline: small is pointed, large is square
    taper: float
    skin: np.ndarray
    hair: np.ndarray
    hairline: float
    parting: float
    fringe: float
    volume: float
    sideburn: float
    long_hair: bool
    cloth: np.ndarray
    wall: np.ndarray
    light: np.ndarray  # direction towards the light
    ambient: float


@dataclass(frozen=True)
class Inner:
    """Features of the inner face."""

    seed: int
    number: int
    eye_x: float
    eye_y: float
    eye_width: float
    lid_up: float
    lid_down: float
    eye_tilt: float
    iris: np.ndarray
    brow_y: float
    brow_width: float
    brow_thickness: float
    brow_arch: float
    brow_ink: float
    nose_width: float
    nose_y: float
    nose_height: float
    mouth_y: float
    mouth_width: float
    lip_up: float
    lip_down: float
    lip: np.ndarray  # tint relative to the skin
    fold: float
    beard: float
    blush: float


def outer_identity(seed: int, number: int) -> Outer:
    """Outer identity of person `number`."""
    rng = generator(seed, number, "outer identity")
    tone = float(rng.uniform(0, len(SKIN_TONES) - 1.001))
    i, share = int(tone), tone % 1
    skin = (SKIN_TONES[i] * (1 - share) + SKIN_TONES[i + 1] * share) * rng.uniform(0.96, 1.04, 3)
    shape = dict(half_width_px=(58, 67), height=(1.30, 1.42), depth=(1.10, 1.25), chin=(2.3, 3.1))
    shape = _drawn(rng, **shape, taper=(0.12, 0.26))
    hair = HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))] * rng.uniform(0.85, 1.15, 3)
    cut = dict(hairline=(-0.92, -0.70), parting=(-0.12, 0.12), fringe=(0.01, 0.05))
    cut = _drawn(rng, **cut, volume=(1.05, 1.14), sideburn=(0.0, 0.45))
    return Outer(
        seed=seed,
        number=number,
        skin=skin.astype(np.float32),
        hair=hair.astype(np.float32),
        long_hair=bool(rng.random() < 0.45),
        cloth=_muted(rng.uniform(0.08, 0.75, 3)),
        wall=_muted(rng.uniform(0.25, 0.80, 3)),
        light=np.float32([rng.uniform(-0.55, 0.55), rng.uniform(-0.6, -0.3), 1.0]),
        ambient=float(rng.uniform(0.50, 0.62)),
        **shape,
        **cut,
    )


def inner_identity(seed: int, number: int) -> Inner:
    """Inner identity of person `number`, independent of the same person's outer identity."""
    rng = generator(seed, number, "inner identity")
    eyes = dict(eye_x=(0.39, 0.45), eye_y=(-0.03, 0.03), eye_width=(0.19, 0.225))
    eyes |= dict(lid_up=(0.36, 0.50), lid_down=(0.20, 0.30), eye_tilt=(-0.14, 0.08))
    eyes = _drawn(rng, **eyes)
    iris = np.float32(IRIS_COLOURS[rng.integers(len(IRIS_COLOURS))])
    rest = dict(brow_y=(-0.33, -0.26), brow_width=(0.24, 0.30), brow_thickness=(0.030, 0.055))
    rest |= dict(brow_arch=(0.02, 0.08), brow_ink=(0.25, 0.45))
    rest |= dict(nose_width=(0.13, 0.18), nose_y=(0.47, 0.56), nose_height=(0.20, 0.30))
    rest |= dict(mouth_y=(0.80, 0.88), mouth_width=(0.30, 0.38))
    rest |= dict(lip_up=(0.16, 0.27), lip_down=(0.24, 0.38))
    rest = _drawn(rng, **rest)
    lip = np.float32([rng.uniform(*r) for r in ((0.74, 0.95), (0.45, 0.68), (0.48, 0.70))])
    last = _drawn(rng, fold=(0.03, 0.14), beard=(-0.5, 0.30), blush=(0.0, 0.08))
    last["beard"] = max(0.0, last["beard"])
    return Inner(seed=seed, number=number, iris=iris, lip=lip, **eyes, **rest, **last)


def _drawn(rng: np.random.Generator, **ranges: tuple[float, float]) -> dict[str, float]:
    """A number from each range, in this order."""
    return {name: float(rng.uniform(*limits)) for name, limits in ranges.items()}


def _muted(colour: np.ndarray, saturation: float = 0.45) -> np.ndarray:
    return (saturation * colour + (1 - saturation) * colour.mean()).astype(np.float32)
