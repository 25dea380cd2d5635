"""The pixel grid that all crops of a person lie on, and how much of each frame they need.

A frame is brought to the grid block by block: first shrunk by a whole number k as long as that
leaves it twice too large (means of squares), then bilinearly from q by q to p by p pixels. The
scale is p / (k q). Blocks are independent of each other, and with p a power of two all weights are
exact. So a part of a frame gets the very pixels that all of it would, and only what is near the
face is resized.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from dfil.faces.boxes import reached, runs, square_union, window_squares

MARGIN = 1.3  # the crop is the square box times 1.3; the paper does not say
TYPICAL = 4  # frames of the snippet whose box sets a video's scale
BLOCK = 64  # pixels: the largest block that is resized by itself; half of it at scales above 1/2


class Limits(NamedTuple):
    """The longest snippet in frames (16 for the baselines that take so many; the paper's has 4) and
    the largest margin that a store can serve."""

    reach: int = 16
    margin: float = 1.5


LIMITS = Limits()


def plan_scale(boxes_n4: np.ndarray, valid_n: np.ndarray, size: int) -> float:
    """Grid pixels per source pixel at which the median snippet box (4 frames, margin 1.3) is about
    `size` wide; never above 1."""
    boxes_n4, found = boxes_n4[valid_n], []
    for at, n in runs(np.flatnonzero(valid_n)):
        found.append(window_squares(boxes_n4[at : at + n], min(TYPICAL, n), MARGIN))
    squares_n4 = np.concatenate(found)
    side = float(np.median(squares_n4[:, 2] - squares_n4[:, 0]))
    p, q, k = blocks(min(1.0, size / max(side, 1.0)))
    return p / (q * k)


def blocks(scale: float) -> tuple[int, int, int]:
    """p, q, k of the scale p / (k q) next to this one, p <= q <= 2 p.

    q k / p stays below k + 1, so that the blocks of that scale are these again.
    """
    k = max(1, int(1 / scale + 1e-6))
    p = max(1, min(16, 2 ** int(np.log2(max(1, BLOCK / 2 / k)))))
    q = max(p, round(p / (scale * k)))
    return (p, q, k) if q * k < p * (k + 1) else blocks(1 / (k + 1))


def to_grid(
    part_hwc: np.ndarray, corner: tuple[int, int], source: tuple[int, int], scale: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """A part of a frame on the grid, and where its corner lies there; blocks that the part holds
    incompletely are left out. Where the frame itself ends inside a block, its edge is repeated.

    corner: x, y of the part in the frame. source: (width, height) of the frame.
    """
    (p, q, k), (x0, y0) = blocks(scale), corner
    block = q * k
    if block == p:
        return part_hwc, corner
    ends = np.array(corner) + part_hwc.shape[1::-1]
    right, bottom = (-n % block if end == n else 0 for n, end in zip(source, ends, strict=True))
    if right or bottom:
        part_hwc = cv2.copyMakeBorder(part_hwc, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    left, top = -x0 % block, -y0 % block
    wide, high = (part_hwc.shape[1] - left) // block, (part_hwc.shape[0] - top) // block
    grid_hwc = part_hwc[top : top + high * block, left : left + wide * block]
    if k > 1:
        grid_hwc = cv2.resize(grid_hwc, (wide * q, high * q), interpolation=cv2.INTER_AREA)
    if p < q:  # at scales of 1/2 to 1 bilinear weights do not reach over a block's border either
        grid_hwc = cv2.resize(grid_hwc, (wide * p, high * p), interpolation=cv2.INTER_LINEAR)
    return grid_hwc, ((x0 + left) // block * p, (y0 + top) // block * p)


def snippet_square(boxes_n4: np.ndarray, margin: float = MARGIN) -> tuple[int, int, int]:
    """square_union in whole pixels: x0, y0, side."""
    x0, y0, side = (int(np.floor(v + 0.5)) for v in square_union(boxes_n4, margin))
    return x0, y0, max(1, side)


def resized(cut_hwc: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """A square as wide as a model takes it; written to `out` if given."""
    if len(cut_hwc) == size:
        return cut_hwc if out is None else np.copyto(out, cut_hwc)
    # Up to a factor of two bilinear interpolation still reads every pixel, in a fifth of the time.
    method = cv2.INTER_AREA if len(cut_hwc) > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(cut_hwc, (size, size), dst=out, interpolation=method)


def placed(
    patch_hwc: np.ndarray, x0: float, y0: float, side: float, size: int, out=None
) -> np.ndarray:
    """The square of a patch between the pixels, as wide as a model takes it; beyond the patch its
    edge is repeated. Written to `out` if given."""
    k = max(1, int(side / size))  # means of squares first, as long as they leave it wide enough
    if k > 1:
        high, wide = (n // k for n in patch_hwc.shape[:2])
        whole_hwc = patch_hwc[: high * k, : wide * k]
        patch_hwc = cv2.resize(whole_hwc, (wide, high), interpolation=cv2.INTER_AREA)
    step = side / size
    at_x, at_y = ((at + step / 2) / k - 0.5 for at in (x0, y0))  # centre of the first pixel
    place_23 = np.float64([[step / k, 0, at_x], [0, step / k, at_y]])
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    return cv2.warpAffine(patch_hwc, place_23, (size, size), dst=out, **how)


def needed(
    boxes_n4: np.ndarray,
    valid_n: np.ndarray,
    source: tuple[int, int],
    pixel: float | np.ndarray,
    limits: Limits,
) -> np.ndarray:
    """The part of each frame, int (n, 4) in source pixels, from which its patch can be cut.

    pixel: source pixels, (n,) or one number, that one grid pixel may have at most; the scale itself
    need not be known yet. Around what snippets can show lies room for the blocks on its border and
    for rounding.
    """
    pixel = np.asarray(pixel, float)
    block = np.where(pixel < 2, BLOCK / 2, np.maximum(BLOCK, 2 * pixel))
    slack = np.broadcast_to(block + 4 * pixel, len(boxes_n4))[:, None]
    bound = reached(boxes_n4, valid_n, *limits)
    part = np.concatenate([np.floor(bound[:, :2] - slack), np.ceil(bound[:, 2:] + slack)], 1)
    return np.clip(part, 0, [*source, *source]).astype(int)


def plan_patches(
    frames_n: np.ndarray, boxes_n4: np.ndarray, limits: Limits, grid: tuple[int, int]
) -> tuple[np.ndarray, int, np.ndarray]:
    """Integer origins (N, 2) and the side P of patches that hold the square of every window of up
    to `reach` consecutive frames as far as it lies in the picture, and what of the picture those
    squares show per frame, (N, 4). grid: (width, height) of the picture.

    Beyond the picture a square shows its edge repeated, which the patch's edge gives as well.

    A window's square need not hold the squares of the windows inside it (a tall box at the edge of
    a wide union), so all lengths are gone through.
    """
    low, high = np.full((len(frames_n), 2), np.inf), np.full((len(frames_n), 2), -np.inf)
    for start, count in runs(frames_n):
        for length in range(1, min(limits.reach, count) + 1):
            squares = window_squares(boxes_n4[start : start + count], length, limits.margin)
            for offset in range(length):  # the windows in which a frame is at place `offset`
                at = slice(start + offset, start + offset + len(squares))
                low[at] = np.minimum(low[at], squares[:, :2])
                high[at] = np.maximum(high[at], squares[:, 2:])
    low, high = np.clip(low, 0, grid), np.clip(high, 0, grid)
    side = int(np.ceil((high - low).max())) + 4  # for the rounding of squares and of origins
    side = min(side, max(grid))
    room = np.array(grid) - side  # below 0 where the whole height or width is kept
    origins = np.floor((low + high) / 2 - side / 2).astype(np.int64)
    origins = np.clip(origins, np.minimum(room, 0), np.maximum(room, 0))
    return origins, side, np.concatenate([low, high], 1)
