"""Boxes: how far two agree, the squares that snippets are cut from, and how far those can reach.

A box is x0, y0, x1, y1 in pixels, x to the right, y down, x1 and y1 exclusive.
"""

from __future__ import annotations

import cv2
import numpy as np

MAX_GAP = 12  # frames: farther apart, two detections say nothing about the frames between them


def iou(a_n4: np.ndarray, b_m4: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of a with every box of b: (n, m)."""
    low = np.maximum(a_n4[:, None, :2], b_m4[None, :, :2])
    high = np.minimum(a_n4[:, None, 2:4], b_m4[None, :, 2:4])
    shared = np.maximum(high - low, 0).prod(-1)
    return shared / np.maximum(_area(a_n4)[:, None] + _area(b_m4)[None] - shared, 1e-9)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes; in plain numbers, which for one pair is ten times as
    fast as `iou`."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a[:4].tolist(), b[:4].tolist()
    wide, high = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
    shared = max(0.0, wide) * max(0.0, high)
    both = max(0.0, ax1 - ax0) * max(0.0, ay1 - ay0) + max(0.0, bx1 - bx0) * max(0.0, by1 - by0)
    return shared / max(both - shared, 1e-9)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Pixels between the centres of two boxes."""
    return float(np.hypot(*((a[:2] + a[2:4]) / 2 - (b[:2] + b[2:4]) / 2)))


def square_union(boxes_n4: np.ndarray, margin: float = 1.3) -> tuple[float, float, float]:
    """The square around the union of the boxes, `margin` times as wide, same centre: x0, y0, side
    (one box per snippet, x 1.3: our reading)."""
    x0, y0 = boxes_n4[:, 0].min(), boxes_n4[:, 1].min()
    x1, y1 = boxes_n4[:, 2].max(), boxes_n4[:, 3].max()
    side = margin * max(x1 - x0, y1 - y0)
    return float((x0 + x1 - side) / 2), float((y0 + y1 - side) / 2), float(side)


def window_squares(boxes_n4: np.ndarray, length: int, margin: float = 1.3) -> np.ndarray:
    """square_union of all windows of `length` neighbours, as corners: (n - length + 1, 4)."""
    view = np.lib.stride_tricks.sliding_window_view
    windows = view(boxes_n4, length, axis=0)  # (n - length + 1, 4, length)
    low, high = windows[:, :2].min(-1), windows[:, 2:].max(-1)
    half = margin * (high - low).max(-1, keepdims=True) / 2
    centre = (low + high) / 2
    return np.concatenate([centre - half, centre + half], -1)


def reached(boxes_n4: np.ndarray, valid_n: np.ndarray, reach: int, margin: float) -> np.ndarray:
    """A bound on what the squares of all windows of up to `reach` frames that a frame can be part
    of reach: (n, 4), zero where not valid.

    Let X and Y be the sides of the union of all boxes up to reach - 1 frames away. A window's
    square is margin times as wide as the longer side of its own union. If that is its width, the
    square stands out of it by (margin - 1) / 2 of a width of at most X; otherwise by margin / 2 of
    a height of at most Y from a centre that is half the frame's own width inside.
    """
    low = np.where(valid_n[:, None], boxes_n4[:, :2], np.inf)
    high = np.where(valid_n[:, None], boxes_n4[:, 2:4], -np.inf)
    pad = ((reach - 1, reach - 1), (0, 0))
    view = np.lib.stride_tricks.sliding_window_view
    low = view(np.pad(low, pad, constant_values=np.inf), 2 * reach - 1, axis=0).min(-1)[valid_n]
    high = view(np.pad(high, pad, constant_values=-np.inf), 2 * reach - 1, axis=0).max(-1)[valid_n]
    union, own = high - low, (boxes_n4[:, 2:4] - boxes_n4[:, :2])[valid_n]
    out = np.maximum((margin - 1) / 2 * union, margin / 2 * union[:, ::-1] - own / 2)
    bound = np.zeros((len(boxes_n4), 4))
    bound[valid_n] = np.concatenate([low - out, high + out], 1)
    return bound


def runs(frames_n: np.ndarray) -> list[tuple[int, int]]:
    """Maximal stretches of consecutive numbers in a rising sequence: (position of the first, how
    many)."""
    if not len(frames_n):
        return []
    starts = np.r_[0, np.flatnonzero(np.diff(frames_n) != 1) + 1]
    return [
        (int(a), int(b - a)) for a, b in zip(starts, np.r_[starts[1:], len(frames_n)], strict=True)
    ]


def cut_square(frame_hwc: np.ndarray, x0: int, y0: int, side: int) -> np.ndarray:
    """The square of a picture (H, W) or (H, W, 3); outside the picture its edge is repeated."""
    height, width = frame_hwc.shape[:2]
    # A square that lies outside altogether shows nothing but the nearest edge.
    left, right = (min(max(at, 0), width - 1) for at in (x0, x0 + side - 1))
    top, bottom = (min(max(at, 0), height - 1) for at in (y0, y0 + side - 1))
    inside_hwc = frame_hwc[top : bottom + 1, left : right + 1]
    if inside_hwc.shape[:2] == (side, side):
        return inside_hwc
    before = min(max(-y0, 0), side - len(inside_hwc)), min(max(-x0, 0), side - inside_hwc.shape[1])
    after = side - len(inside_hwc) - before[0], side - inside_hwc.shape[1] - before[1]
    return cv2.copyMakeBorder(
        inside_hwc, before[0], after[0], before[1], after[1], cv2.BORDER_REPLICATE
    )


def _area(boxes_n4: np.ndarray) -> np.ndarray:
    size_n2 = np.maximum(boxes_n4[:, 2:4] - boxes_n4[:, :2], 0)
    return size_n2[:, 0] * size_n2[:, 1]
