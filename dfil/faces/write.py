"""Writing the crops of a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import numpy as np

from dfil.faces.boxes import cut_square
from dfil.faces.crops import crops_path
from dfil.faces.frame import Frame
from dfil.faces.grid import LIMITS, Limits, blocks, needed, plan_patches, to_grid
from dfil.system.errors import DataError
from dfil.system.files import atomic

HEADER = 128  # bytes of an .npy header for a (N, P, P, 3) array
Plan = tuple[np.ndarray, np.ndarray, float]  # boxes (n, 4) in source pixels, valid (n,), scale


class TooLittleError(DataError):
    """What was kept of a frame is less than its patch needs."""


class TrackWriter:
    """Writes the patches of one track: `add` or `leave_out` for each of its valid frames, rising.

    at: place in `numbers` of the frame that is to be added next. kept: places of those that were
    added. count: frames of the video, to be set before the end.
    """

    def __init__(
        self, file: BinaryIO, path: Path, plan: Plan, source: tuple[int, int], limits: Limits
    ):
        boxes_n4, valid_n, self.scale = plan
        self.path, self.source, self._file = path, source, file
        p, q, k = blocks(self.scale)
        if abs(p / (q * k) - self.scale) > 1e-9:
            raise DataError(
                f"{path}: scale {self.scale} is none that `plan_scale` gives; take {p / (q * k)}."
            )
        self.grid = tuple(-(-n // (q * k)) * p if p < q * k else n for n in source)
        self.numbers = np.flatnonzero(valid_n)
        self.boxes = (boxes_n4[self.numbers] * self.scale).astype(np.float32)
        planned = plan_patches(self.numbers, self.boxes, limits, self.grid)
        self.origins, self.side, self._shown = planned
        self.at = self.checksum = self.count = 0
        self.kept: list[int] = []
        file.write(bytes(HEADER))  # the number of frames is known only at the end

    @property
    def next(self) -> int | None:
        """Number of the frame that is to be added next."""
        return int(self.numbers[self.at]) if self.at < len(self.numbers) else None

    def leave_out(self) -> None:
        """The next frame is not there."""
        self.at += 1

    def add(self, part_hwc: np.ndarray, corner: tuple[int, int] = (0, 0)) -> None:
        """The next frame, or the part of it at `corner` (`needed`); RGB uint8. Raises
        TooLittleError if snippets could show more."""
        grid_hwc, (x0, y0) = to_grid(part_hwc, corner, self.source, self.scale)
        height, width = grid_hwc.shape[:2]
        shown = np.clip(self._shown[self.at] + [-1, -1, 1, 1], 0, [*self.grid, *self.grid])
        if (shown[:2] < (x0, y0)).any() or (shown[2:] > (x0 + width, y0 + height)).any():
            raise TooLittleError(
                f"{self.path}: frame {self.next} was kept from {x0}, {y0} with {width} x"
                f" {height} pixels, too little for {shown}."
            )
        ox, oy = self.origins[self.at]
        patch_hwc = np.ascontiguousarray(cut_square(grid_hwc, ox - x0, oy - y0, self.side))
        self.checksum = crc32(patch_hwc, self.checksum)
        self._file.write(patch_hwc)
        self.kept.append(self.at)
        self.at += 1

    def finish(self, sidecar: BinaryIO) -> None:
        """Say in both files what they hold."""
        self._file.seek(0)
        shape = (len(self.kept), self.side, self.side, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        if (size := self._file.tell()) != HEADER:
            raise DataError(
                f"{self.path}: this numpy writes headers of {size} bytes, not {HEADER}; use numpy"
                " 1.26 to 2.x."
            )
        frames, origins, boxes = (a[self.kept] for a in (self.numbers, self.origins, self.boxes))
        video = {"scale": self.scale, "grid": self.grid, "source": self.source}
        arrays = {"frames": frames, "origins": origins, "boxes": boxes}
        np.savez(sidecar, **arrays, **video, count=self.count)


@contextmanager
def track_writer(
    path: Path, plan: Plan, source: tuple[int, int], limits: Limits = LIMITS
) -> Iterator[TrackWriter]:
    """A TrackWriter; its two files are there, complete, when the block ends well, else neither.

    path: of the .npy. plan: for at least as many frames as will come. source: (width, height).
    """
    with atomic(path.with_suffix(".npz")) as sidecar, atomic(path) as patches:
        with open(patches, "wb") as file, open(sidecar, "wb") as beside:
            writer = TrackWriter(file, path, plan, source, limits)
            yield writer
            writer.finish(beside)


def write_crops(
    folder: Path,
    video_id: str,
    frames: Iterable[np.ndarray | Frame],
    plans: Sequence[Plan],
    limits: Limits = LIMITS,
) -> dict:
    """Write the crops of a video whose boxes are known; the frames are gone through once, for all
    tracks.

    plans: for at least as many frames as there are, and they may turn out to be fewer. Returns
    `described` and frames. Raises VideoError or whatever else `frames` raises, leaving nothing
    behind.
    """
    count, writers = 0, []
    with ExitStack() as stack:
        for number, frame in enumerate(frames):
            frame = frame if isinstance(frame, Frame) else Frame.of(frame)
            if not writers:
                source = frame.width, frame.height
                for k, plan in enumerate(plans):
                    path = crops_path(folder, video_id, k)
                    writers.append(stack.enter_context(track_writer(path, plan, source, limits)))
                parts = [needed(*plan[:2], source, 1 / plan[2], limits) for plan in plans]
            count = number + 1
            for writer, part_n4 in zip(writers, parts, strict=True):
                writer.count = count
                if writer.next == number and frame.lost:
                    writer.leave_out()
                elif writer.next == number:
                    x0, y0, x1, y1 = part_n4[number].tolist()
                    writer.add(frame.rgb(x0, y0, x1, y1), (x0, y0))
    return {**described(folder, writers), "frames": count}


def described(folder: Path, writers: Sequence[TrackWriter]) -> dict:
    """What the index says of finished tracks: crops (relative file), patch (P), faces, tracks,
    checksum; and bytes, of all of them."""
    largest, checksum = writers[0], writers[0].checksum
    if len(writers) > 1:
        checksum = crc32(b"".join(w.checksum.to_bytes(4, "little") for w in writers))
    return {
        "crops": largest.path.relative_to(folder).as_posix(),
        "patch": largest.side,
        "checksum": f"{checksum:08x}",
        "faces": len(largest.kept),
        "tracks": len(writers),
        "bytes": sum(3 * writer.side**2 * len(writer.kept) for writer in writers),
    }
