"""Other cameras than the renderer's own, put behind it: light, colour, focus and sensor noise of a
whole clip.

A camera knows a target's number and nothing about labels: a real clip and its fakes get the same
treatment, down to the grain.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

POOL = 96  # the grain of a frame is a random window of one larger image of noise
# Sensors interpolate colours, so that the noise of neighbouring pixels is not independent.
GRAIN = cv2.getGaussianKernel(5, 0.5)


@dataclass(frozen=True)
class Camera:
    """gain: exposure, in linear terms of the pixel values. gamma: above 1 darkens the middle tones.
    tint: factors of R, G and B. blur: standard deviation in pixels of a lens that is out of focus.
    noise: standard deviation of the sensor's noise, of 255."""

    gain: float = 1.0
    gamma: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    noise: float = 0.0

    @classmethod
    def drawn(cls, rng: np.random.Generator, **ranges: tuple[float, float]) -> Camera:
        """A camera drawn from a range per field, in their order; a lens below 0 is sharp."""
        drawn = {}
        for name, limits in ranges.items():
            drawn[name] = rng.uniform(*limits, 3) if name == "tint" else float(rng.uniform(*limits))
        drawn |= dict(tint=tuple(map(float, drawn["tint"])), blur=max(0.0, drawn["blur"]))
        return cls(**drawn)

    def shoot(self, frames_thwc: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What the camera makes of uint8 RGB frames (T, H, W, 3): uint8 of the same shape. rng
        draws the grain."""
        frames, height, width, _ = frames_thwc.shape
        level = 255 * self.gain * (np.arange(256) / 255) ** self.gamma
        table = np.clip(level[:, None] * np.array(self.tint), 0, 255).astype(np.float32)[None]
        grain = rng.standard_normal((height + POOL, width + POOL, 3), dtype=np.float32)
        grain = cv2.sepFilter2D(grain, -1, GRAIN, GRAIN)
        grain *= np.float32(self.noise / (GRAIN**2).sum())  # the filter divides it by that
        shot = np.empty_like(frames_thwc)
        for t in range(frames):
            image = frames_thwc[t]
            if self.blur:
                image = cv2.GaussianBlur(image, (0, 0), self.blur)
            image = cv2.LUT(image, table)
            dy, dx = rng.integers(0, POOL, 2)
            # The half makes truncation to uint8 round.
            image += grain[dy : dy + height, dx : dx + width] + np.float32(0.5)
            shot[t] = np.clip(image, 0, 255, out=image)
        return shot
