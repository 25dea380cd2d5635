"""Who is in the picture: outer identity (head, skin, hair, clothes, room) and inner identity (eyes, brows, nose, mouth).

The two are drawn independently. A face swap puts one person's inner face into another person's head, and because every real person
is such a random combination as well, the combination alone gives nothing away.
Lengths are in units of the head's half width, x to the right and y down; colours are RGB between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dfil.synthetic.fields import generator

SKIN_TONES = (
    np.array(
        [(240, 205, 185), (226, 184, 156), (205, 158, 126), (168, 120, 90), (128, 88, 66)],
        np.float32,
    )
    / 255
)
HAIR_COLOURS = (
    (0.09, 0.07, 0.06),
    (0.20, 0.13, 0.09),
    (0.36, 0.23, 0.13),
    (0.62, 0.47, 0.28),
    (0.45, 0.20, 0.10),
    (0.55, 0.54, 0.53),
)
IRIS_COLOURS = (
    (0.25, 0.15, 0.08),
    (0.35, 0.22, 0.10),
    (0.25, 0.38, 0.50),
    (0.30, 0.40, 0.25),
    (0.12, 0.08, 0.06),
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

    def u(lo, hi):
        return float(rng.uniform(lo, hi))

    tone = u(0, len(SKIN_TONES) - 1.001)
    i, share = int(tone), tone % 1
    skin = (SKIN_TONES[i] * (1 - share) + SKIN_TONES[i + 1] * share) * rng.uniform(0.96, 1.04, 3)
    return Outer(
        seed=seed,
        number=number,
        half_width_px=u(58, 67),
        height=u(1.30, 1.42),
        depth=u(1.10, 1.25),
        chin=u(2.3, 3.1),
        taper=u(0.12, 0.26),
        skin=skin.astype(np.float32),
        hair=(HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))] * rng.uniform(0.85, 1.15, 3)).astype(
            np.float32
        ),
        hairline=u(-0.92, -0.70),
        parting=u(-0.12, 0.12),
        fringe=u(0.01, 0.05),
        volume=u(1.05, 1.14),
        sideburn=u(0.0, 0.45),
        long_hair=bool(rng.random() < 0.45),
        cloth=_muted(rng.uniform(0.08, 0.75, 3)),
        wall=_muted(rng.uniform(0.25, 0.80, 3)),
        light=np.array([u(-0.55, 0.55), u(-0.6, -0.3), 1.0], np.float32),
        ambient=u(0.50, 0.62),
    )


def inner_identity(seed: int, number: int) -> Inner:
    """Inner identity of person `number`, independent of the same person's outer identity."""
    rng = generator(seed, number, "inner identity")

    def u(lo, hi):
        return float(rng.uniform(lo, hi))

    return Inner(
        seed=seed,
        number=number,
        eye_x=u(0.39, 0.45),
        eye_y=u(-0.03, 0.03),
        eye_width=u(0.19, 0.225),
        lid_up=u(0.36, 0.50),
        lid_down=u(0.20, 0.30),
        eye_tilt=u(-0.14, 0.08),
        iris=np.array(IRIS_COLOURS[rng.integers(len(IRIS_COLOURS))], np.float32),
        brow_y=u(-0.33, -0.26),
        brow_width=u(0.24, 0.30),
        brow_thickness=u(0.030, 0.055),
        brow_arch=u(0.02, 0.08),
        brow_ink=u(0.25, 0.45),
        nose_width=u(0.13, 0.18),
        nose_y=u(0.47, 0.56),
        nose_height=u(0.20, 0.30),
        mouth_y=u(0.80, 0.88),
        mouth_width=u(0.30, 0.38),
        lip_up=u(0.16, 0.27),
        lip_down=u(0.24, 0.38),
        lip=np.array([u(0.74, 0.95), u(0.45, 0.68), u(0.48, 0.70)], np.float32),
        fold=u(0.03, 0.14),
        beard=max(0.0, u(-0.5, 0.30)),
        blush=u(0.0, 0.08),
    )


def _muted(colour: np.ndarray, saturation: float = 0.45) -> np.ndarray:
    return (saturation * colour + (1 - saturation) * colour.mean()).astype(np.float32)
