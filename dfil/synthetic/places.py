"""Backgrounds beside the plain wall of `room`: the stage of an interview and somebody's living
room. RGB between 0 and 1, float32."""

from __future__ import annotations

import cv2
import numpy as np

from dfil.synthetic.fields import noise, ramp


def stage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A lit backdrop far out of focus: two colours from top to bottom, a printed panel and discs of
    light, (height, width, 3)."""
    yy, xx = _grid(height, width)
    top, bottom = rng.uniform(0.05, 0.55, (2, 3)).astype(np.float32)
    share = ramp(yy - height * np.float32(rng.uniform(0.3, 0.7)), height * 0.8)[..., None]
    image = top + (bottom - top) * share
    x0, w = rng.integers(-60, width), rng.integers(60, 200)
    panel = 0.7 * ramp(xx - x0, 8) * ramp(x0 + w - xx, 8)
    image += (rng.uniform(0.2, 0.9, 3).astype(np.float32) - image) * panel[..., None]
    for _ in range(rng.integers(6, 20)):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, 0.7 * height), rng.uniform(5, 16)
        disc = ramp(radius - np.hypot(xx - np.float32(cx), yy - np.float32(cy)), 3)
        light = (rng.uniform(0.5, 1.0, 3) * rng.uniform(0.2, 0.7)).astype(np.float32)
        image += light * disc[..., None]
    return cv2.GaussianBlur(np.clip(image, 0, 1), (0, 0), 2.5)


def living_room(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wallpaper with a window, shelves and a skirting board, in focus, (height, width, 3)."""
    yy, xx = _grid(height, width)
    colour = rng.uniform(0.30, 0.85, 3)
    image = np.ones((height, width, 1), np.float32)
    image = (0.5 * colour + 0.5 * colour.mean()).astype(np.float32) * image
    stripes = np.sin(xx * np.float32(2 * np.pi / rng.uniform(10, 40)))
    paper = 1 + rng.uniform(0.02, 0.10) * stripes + 0.06 * noise(rng, (height, width), (60, 60))
    image *= paper[..., None].astype(np.float32)
    for _ in range(max(1, width // 160)):
        ranges = (0, width), (0, height / 3), (50, 140), (60, 160)
        x0, y0, w, h = (rng.uniform(*limits) for limits in ranges)
        inside = ramp(xx - x0, 2) * ramp(x0 + w - xx, 2) * ramp(yy - y0, 2) * ramp(y0 + h - yy, 2)
        if rng.random() < 0.4:  # a window, brighter than the wall, with a cross
            cross = (np.abs(xx - x0 - w / 2) < 2.5) | (np.abs(yy - y0 - h / 2) < 2.5)
            sky = np.array([0.80, 0.88, 0.95]) - 0.2 * (yy / height)[..., None]
            content = np.where(cross[..., None], 0.75, sky)
        else:  # a shelf: books side by side
            books = rng.uniform(0.1, 0.8, (64, 3))[(xx / rng.uniform(5, 9)).astype(int) % 64]
            content = books * np.where((yy - y0) % (h / 3) < 4, 0.4, 1.0)[..., None]
        image += (content.astype(np.float32) - image) * inside[..., None].astype(np.float32)
    skirting = ramp(yy - height * 0.92, 2)[..., None]
    image += (np.float32(0.85) * image.max() - image) * skirting
    return cv2.GaussianBlur(np.clip(image, 0, 1).astype(np.float32), (0, 0), 1.0)


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    return yy, xx
