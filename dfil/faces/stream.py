"""Snippets of a video whose people are known, cut while it is decoded once more; nothing is stored.

They have the very pixels that a crop store would give. In clips so long that every frame has its
own box they are those up to a grey level; up to a few where the face is twice as wide as the model
takes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from dfil.faces.boxes import cut_square, square_union
from dfil.faces.frame import Frame
from dfil.faces.grid import LIMITS, MARGIN, blocks, placed, resized, snippet_square, to_grid


@dataclass
class _Snippet:
    person: int
    start: int
    scale: float
    # of each frame, on the person's grid; of long snippets between its pixels
    squares: list[tuple[int, int, int]] | list[tuple[float, float, float]]
    clip_thwc: np.ndarray = field(repr=False, default=None)


def stream_snippets(
    frames: Iterable[Frame],
    wanted: Mapping[int, tuple[np.ndarray, float, Iterable[int]]],
    T: int,
    stride: int,
    size: int,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Person, first frame and pixels (T, size, size, 3) uint8 RGB of each snippet, as they end.

    wanted: per person boxes (n, 4) in source pixels, scale (`plan_scale`) and first frames of the
    snippets, in which every frame has a box.
    """
    span = (T - 1) * stride + 1
    coming: list[_Snippet] = []
    for person, (boxes_n4, scale, starts) in wanted.items():
        for start in map(int, starts):
            on_grid = (boxes_n4[start : start + span] * scale).astype(np.float32)
            if span > LIMITS.reach:  # as SnippetDataset cuts what is so long
                squares = [square_union(own_14, MARGIN) for own_14 in on_grid[:, None]]
            else:
                squares = [snippet_square(on_grid)] * span
            coming.append(_Snippet(person, start, scale, squares))
    coming.sort(key=lambda s: -s.start)
    running: list[_Snippet] = []
    for number, frame in enumerate(frames):
        while coming and coming[-1].start == number:
            running.append(coming.pop())
            running[-1].clip_thwc = np.empty((T, size, size, 3), np.uint8)
        for snippet in running:
            t, between = divmod(number - snippet.start, stride)
            if not between:
                square, out = snippet.squares[number - snippet.start], snippet.clip_thwc[t]
                if span > LIMITS.reach:
                    _place(frame, snippet.scale, square, size, out)
                else:
                    resized(_cut(frame, snippet.scale, square), size, out=out)
        for snippet in [s for s in running if s.start + span == number + 1]:
            running.remove(snippet)
            yield snippet.person, snippet.start, snippet.clip_thwc
        if not coming and not running:
            return


def _place(
    frame: Frame, scale: float, square: tuple[float, float, float], size: int, out: np.ndarray
) -> None:
    """A square between the pixels, from whole pixels around it."""
    x0, y0, side = square
    x, y = math.floor(x0) - 2, math.floor(y0) - 2
    placed(_cut(frame, scale, (x, y, math.ceil(side) + 5)), x0 - x, y0 - y, side, size, out=out)


def _cut(frame: Frame, scale: float, square: tuple[int, int, int]) -> np.ndarray:
    """A square of a frame's grid, from the blocks that it lies on."""
    p, q, k = blocks(scale)
    x, y, side = square
    source, at, block = np.array([frame.width, frame.height]), np.array([x, y]), q * k
    low = np.clip(at // p, 0, (source - 1) // block) * block
    high = np.minimum(np.maximum(-(-(at + side) // p) * block, low + block), source)
    corner, part_hwc = tuple(low.tolist()), frame.rgb(*low.tolist(), *high.tolist())
    grid_hwc, (gx, gy) = to_grid(part_hwc, corner, source, scale)
    return cut_square(grid_hwc, x - gx, y - gy, side)
