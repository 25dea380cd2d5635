"""What changes in time: pose and light, expression, and the nuisances that make a fake
inconsistent.

Natural motion is smooth (sums of a few slow sinusoids). The nuisances are small errors of a
forger's re-rendering: where the inner face is put and how it is coloured (Deepfakes), where its
landmarks fall (FaceSwap), how far the expression is off (Face2Face), how the mouth's texture comes
out (NeuralTextures). Real clips carry them too, drawn once per clip; a fake redraws its own in
every frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dfil.synthetic.fields import generator, ramp
from dfil.synthetic.settings import FPS, METHODS

# Where FaceSwap's landmark offsets act: eyes, brows, nose, corners of the mouth (half head widths).
LANDMARKS_XY = (
    *((-0.42, 0), (0.42, 0), (-0.42, -0.27), (0.42, -0.27)),
    *((0, 0.42), (-0.33, 0.8), (0.33, 0.8)),
)

# Standard deviation of each nuisance before the setting's strength. One law for real and fake
# clips.
SIGMA = {
    # shift x, y; rotation; log scale; RGB gain
    "Deepfakes": np.float32([0.022, 0.022, 0.030, 0.025, 0.016, 0.016, 0.016]),
    # x and y offset of each landmark
    "FaceSwap": np.full(2 * len(LANDMARKS_XY), 0.026, np.float32),
    # mouth, smile, brow, lid, shade of the lower face
    "Face2Face": np.float32([0.07, 0.22, 0.30, 0.08, 0.025]),
    # mouth, width, gain, three texture modes
    "NeuralTextures": np.float32([0.06, 0.05, 0.03, 0.022, 0.022, 0.022]),
}


@dataclass(frozen=True)
class Motion:
    """Pose, gaze and light of a clip, each of shape (T,): angles in radians, shifts in pixels, the
    rest relative."""

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    scale: np.ndarray
    gaze_x: np.ndarray
    gaze_y: np.ndarray
    light_x: np.ndarray
    gain: np.ndarray


@dataclass(frozen=True)
class Expression:
    """Opening of mouth and lids (0 to about 1), smile and brow (about -1 to 1), each (T,)."""

    mouth: np.ndarray
    smile: np.ndarray
    brow: np.ndarray
    lid: np.ndarray


def motion(seed: int, number: int, frames: int) -> Motion:
    """Natural motion of clip `number`: slow sway with a faster, smaller tremble on top."""
    rng = generator(seed, number, "motion")
    wave = _waves(rng, frames)
    return Motion(
        yaw=wave(0.14, 0.1, 0.5) + wave(0.04, 0.6, 1.6) + rng.uniform(-0.15, 0.15),
        pitch=wave(0.06, 0.1, 0.5) + wave(0.04, 0.8, 2.0) + rng.uniform(-0.06, 0.06),
        roll=wave(0.05, 0.1, 0.4) + wave(0.012, 0.6, 1.6) + rng.uniform(-0.05, 0.05),
        shift_x=wave(5, 0.1, 0.4) + wave(1.2, 0.8, 2.0) + rng.uniform(-10, 10),
        shift_y=wave(3, 0.1, 0.4) + wave(1.2, 0.8, 2.0) + rng.uniform(-6, 6),
        scale=1 + wave(0.015, 0.1, 0.3),
        gaze_x=np.clip(wave(0.16, 0.1, 0.6), -0.35, 0.35),
        gaze_y=np.clip(wave(0.06, 0.1, 0.6), -0.15, 0.15),
        light_x=wave(0.10, 0.05, 0.3),
        gain=1 + wave(0.03, 0.05, 0.4),
    )


def expression(seed: int, number: int, frames: int, *, purpose: str = "expression") -> Expression:
    """Talking, smiling and blinking of clip `number`. The four signals are independent of each
    other; so are other purposes' signals."""
    rng = generator(seed, number, purpose)
    wave = _waves(rng, frames)
    talk = ramp(wave(1, 0.2, 0.7) + 0.5, 1.0)
    mouth = np.clip(0.30 + wave(0.24, 2.0, 4.5), 0, 0.75) * talk
    smile = np.clip(wave(0.35, 0.1, 0.5) + rng.uniform(-0.2, 0.5), -0.4, 1.0)
    brow = wave(0.5, 0.1, 0.7)
    lid = np.full(frames, rng.uniform(0.86, 1.05))
    blink = rng.uniform(0, 50)  # frame of the first blink
    while blink < frames:
        lid *= 1 - 0.97 * np.exp(-(((np.arange(frames) - blink) / 2.0) ** 2))
        blink += rng.uniform(45, 110)
    return Expression(mouth, smile, brow, lid)


def nuisances(
    seed: int,
    number: int,
    frames: int,
    strength: dict[str, float],
    *,
    moving: str = "",
    tau: float = 0.0,
) -> dict[str, np.ndarray]:
    """The nuisances theta of one clip, per method an array of shape (T, K).

    The vector of the method `moving` follows theta_t = sigma * (sqrt(1 - tau^2) * g + tau * e_t)
    with g drawn once and e_t in every frame; all others stay at sigma * g. A single frame's theta
    is N(0, sigma^2) either way, whatever tau is.
    """
    theta = {}
    for method in METHODS:
        rng = generator(seed, number, f"nuisances of {method}")
        sigma = SIGMA[method] * np.float32(strength[method])
        once = rng.standard_normal(len(sigma), dtype=np.float32)
        each = rng.standard_normal((frames, len(sigma)), dtype=np.float32)
        share = np.float32(tau if method == moving else 0.0)
        theta[method] = sigma * (np.sqrt(1 - share**2) * once + share * each)
    return theta


def _waves(rng: np.random.Generator, frames: int) -> Callable[[float, float, float], np.ndarray]:
    """A drawer of band-limited signals (T,) with standard deviation about their amplitude."""

    def wave(amplitude: float, lo_hz: float, hi_hz: float, terms: int = 5) -> np.ndarray:
        hz, phase = rng.uniform(lo_hz, hi_hz, (terms, 1)), rng.uniform(0, 2 * np.pi, (terms, 1))
        angle = 2 * np.pi * hz * np.arange(frames) / FPS + phase
        return amplitude * np.sqrt(2 / terms) * np.sin(angle).sum(0)

    return wave
