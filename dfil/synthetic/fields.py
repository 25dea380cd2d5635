"""Small image helpers that every part of the renderer uses. All arrays are float32."""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from dfil.synthetic.settings import SIZE


def generator(seed: int, number: int, purpose: str) -> np.random.Generator:
    """Independent random stream for one purpose of one identity or clip, so that adding a draw in
    one place moves no other."""
    return np.random.default_rng([seed, number, zlib.crc32(purpose.encode())])


def ramp(x, width):
    """Soft step from 0 to 1, `width` wide and centred on x = 0."""
    return np.clip(x * (1 / width) + 0.5, 0, 1)


def bump(x, y, cx, cy, sx, sy):
    """Gaussian bump of height 1 at (cx, cy) with half-widths (sx, sy)."""
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def noise(
    rng: np.random.Generator, shape_hw: tuple[int, int], cell_hw: tuple[float, float]
) -> np.ndarray:
    """Smooth noise image of mean 0 and variance 1 whose cells measure `cell_hw` pixels."""
    (h, w), (cell_h, cell_w) = shape_hw, cell_hw
    coarse = rng.standard_normal((int(h / cell_h) + 3, int(w / cell_w) + 3), dtype=np.float32)
    fine = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
    mean, deviation = cv2.meanStdDev(fine)
    return (fine - np.float32(mean.item())) * np.float32(1 / deviation.item())


def halve(image: np.ndarray) -> np.ndarray:
    """Image at half the resolution, area averaged."""
    h, w = image.shape[:2]
    return cv2.resize(np.ascontiguousarray(image), (w // 2, h // 2), interpolation=cv2.INTER_AREA)


def double(image: np.ndarray) -> np.ndarray:
    """Image at twice the resolution, bilinear."""
    h, w = image.shape[:2]
    return cv2.resize(image, (2 * w, 2 * h), interpolation=cv2.INTER_LINEAR)


def over(image_hwc: np.ndarray, colour_hwc: np.ndarray, alpha_hw: np.ndarray) -> None:
    """Composite a layer onto an image in place."""
    image_hwc += (colour_hwc - image_hwc) * alpha_hw[..., None]


def place(layer: np.ndarray, dx: float, dy: float, scale: float = 1.0) -> np.ndarray:
    """SIZE x SIZE view of a larger layer, moved by a sub-pixel offset, scaled about its centre."""
    centre = layer.shape[0] / 2
    corner = SIZE / 2 - scale * centre
    matrix = np.array([[scale, 0, corner + dx], [0, scale, corner + dy]], np.float32)
    how = dict(flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.warpAffine(layer, matrix, (SIZE, SIZE), **how)
