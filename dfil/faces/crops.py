"""The crops of one track of one video, for reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dfil.faces.boxes import cut_square, runs, square_union
from dfil.faces.grid import LIMITS, MARGIN, Limits, placed, resized, snippet_square
from dfil.system.errors import DataError, MachineError, machine_fault


@contextmanager
def reading(path: Path) -> Iterator[Path]:
    """Whatever a damaged file of the store leads to, as a DataError of one line that names it.

    NumPy, zipfile, Arrow and json raise what the bytes happen to lead to, so no list of errors
    would be complete. Raises MachineError where the disk is at fault.
    """
    try:
        yield path
    except Exception as error:
        if isinstance(error, OSError) and (fault := machine_fault(error)):
            raise MachineError(fault) from error
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"{path} is damaged or of another version ({why}); run `dfil preprocess` again."
        ) from error


def crops_path(folder: Path, video_id: str, track: int = 0) -> Path:
    """The patches of a video's track."""
    return folder / "crops" / f"{video_id}{f'@{track}' if track else ''}.npy"


class Crops:
    """frames (N,): the native frame numbers that are there; boxes (N, 4): the faces on the video's
    grid; scale: grid pixels per source pixel; grid, source: (width, height); count: frames of the
    video; runs: (first frame number, how many) of each stretch of consecutive frames.

    Raises DataError where the files are damaged.
    """

    def __init__(self, path: Path, limits: Limits = LIMITS):
        self.path, self.limits = Path(path), limits
        self._patches: np.ndarray | None = None
        with reading(self.path.with_suffix(".npz")) as file:
            with np.load(file, allow_pickle=False) as sidecar:
                arrays = [sidecar[name] for name in ("frames", "origins", "boxes")]
                self.frames, self.origins, self.boxes = arrays
                self.scale, self.count = float(sidecar["scale"]), int(sidecar["count"])
                self.grid, self.source = (tuple(sidecar[n].tolist()) for n in ("grid", "source"))
            n = len(self.frames)
            kinds = [(array.shape, array.dtype.kind) for array in arrays]
            if kinds != [((n,), "i"), ((n, 2), "i"), ((n, 4), "f")]:
                raise TypeError("its arrays are of other shapes or types")
            inside = n and 0 <= self.frames[0] <= self.frames[-1] < self.count
            if not (inside and (np.diff(self.frames) > 0).all()):
                raise ValueError("its frames are none that can be")
            if not (np.isfinite(self.boxes).all() and 0 < self.scale <= 1):
                raise ValueError("its boxes or scale are none that can be")
        self.runs = [(int(self.frames[at]), length) for at, length in runs(self.frames)]

    @property
    def longest(self) -> tuple[int, int]:
        """The longest of `runs`, the first of equals: first frame number, how many."""
        return max(self.runs, key=lambda run: run[1])

    def shared_runs(self, other: Crops, at_least: int) -> list[tuple[int, int]]:
        """`runs` of the frames that both have, as a fake may be shorter than its real; own ones if
        none of those is as long as `at_least`."""
        if other is self or self.runs == other.runs:
            return self.runs
        both = np.intersect1d(self.frames, other.frames)
        shared = [(int(both[at]), length) for at, length in runs(both)]
        return shared if any(length >= at_least for _, length in shared) else self.runs

    @property
    def patches(self) -> np.ndarray:
        """(N, P, P, 3) uint8 RGB, mapped from the file."""
        if self._patches is None:
            with reading(self.path) as file:
                patches = np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
                n, side = len(self.frames), patches.shape[-2:-1]
                if (patches.shape, patches.dtype) != ((n, *side, *side, 3), np.uint8):
                    raise ValueError(f"it holds {patches.dtype} of shape {patches.shape}")
                centres = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
                centres = np.clip(centres, 0, self.grid) - self.origins  # of patches in the picture
                if not ((centres >= 0) & (centres <= side)).all():
                    raise ValueError("its faces lie outside its patches")
            self._patches = patches
        return self._patches

    def snippet(
        self,
        first: int,
        T: int,
        size: int,
        margin: float = MARGIN,
        box: str = "snippet",
        stride: int = 1,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Frames first, first + stride, ... as crops: (T, size, size, 3) uint8 RGB.

        first: native frame number. box: "snippet" cuts every frame with the square union of all
        boxes from the first frame to the last (those between, at stride > 1, included); "frame"
        cuts each with its own box; "exact" too, and to fractions of a pixel, so that rounding moves
        nothing. Shrinking to less than half takes INTER_AREA, all else
        INTER_LINEAR. out: where to write, shaped as the result. Raises DataError if a frame is not
        there, margin exceeds the store's, or a snippet with one box is longer than `reach`.
        """
        at = self._places(first, T, margin, stride, any_length=box != "snippet")
        if box not in ("snippet", "frame", "exact"):
            raise DataError(f"Unknown box {box!r}; choose snippet, frame or exact.")
        crops_thwc = np.empty((T, size, size, 3), np.uint8) if out is None else out
        square = snippet_square(self.boxes[at.start : at.stop], margin)
        for crop_hwc, n in zip(crops_thwc, at, strict=True):
            own_14, (ox, oy) = self.boxes[n : n + 1], self.origins[n]
            if box == "exact":
                x0, y0, side = square_union(own_14, margin)
                placed(self.patches[n], x0 - ox, y0 - oy, side, size, out=crop_hwc)
                continue
            x0, y0, side = snippet_square(own_14, margin) if box == "frame" else square
            resized(cut_square(self.patches[n], x0 - ox, y0 - oy, side), size, out=crop_hwc)
        return crops_thwc

    def square(
        self, first: int, T: int, margin: float = MARGIN, stride: int = 1
    ) -> tuple[int, int, int]:
        """The snippet's square on the video's grid: x0, y0, side. Divided by `scale` it is in
        pixels of the source."""
        at = self._places(first, T, margin, stride)
        return snippet_square(self.boxes[at.start : at.stop], margin)

    def _places(
        self, first: int, T: int, margin: float, stride: int, any_length: bool = False
    ) -> range:
        """Where a snippet's frames lie in the arrays, after making sure that they are there."""
        span = (T - 1) * stride + 1
        last = first + span - 1
        if T < 1 or stride < 1 or (span > self.limits.reach and not any_length):
            raise DataError(
                f"{self.path}: a snippet may span 1 to {self.limits.reach} frames, not {span};"
                " preprocess with a larger reach."
            )
        if not 0 < margin <= self.limits.margin:
            raise DataError(
                f"{self.path}: margin {margin} exceeds the stored {self.limits.margin};"
                " preprocess with a larger store_margin."
            )
        start = int(np.searchsorted(self.frames, first))
        there = self.frames[start : start + span]
        if len(there) < span or (there[0], there[-1]) != (first, last):
            raise DataError(
                f"{self.path}: frames {first} to {last} are not all there; take a window inside one"
                " of its runs."
            )
        return range(start, start + span, stride)
