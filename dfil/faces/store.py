"""The crop store: face crops of whole datasets, lossless, from which any snippet is cut without decoding anything.

A snippet of T consecutive frames is cut with ONE box, the square union of its frames' boxes, so that the crop itself moves nothing
inside a snippet. Which box that is depends on where the snippet starts, so crops cannot be cut beforehand. What is stored instead:

- Each video has one scale s <= 1. Whole frames are resized by it (INTER_AREA), so that the typical snippet box is about `size`
  pixels wide; all frames of a video lie on one pixel grid, and neighbouring frames are never resampled differently.
- Per frame a patch of P x P pixels is cut from that grid at integer origin, large enough for the box of every snippet of up to
  `reach` frames which this frame is part of, at margins up to `store_margin`. Outside the picture the edge is repeated.
- A snippet is then the same square of the grid cut from each of its frames' patches, resized once to what the model takes.

    <folder>/meta.json                 settings, whether the data are synthetic, a digest of the index
    <folder>/index.parquet             one row per video, also of those without crops (status, reason)
    <folder>/crops/<video_id>.npy      patches (N, P, P, 3) uint8 RGB, read by memory map
    <folder>/crops/<video_id>.npz      frames (N,), origins (N, 2), boxes (N, 4), scale, grid (w, h), source (w, h), count
    <folder>/crops/<video_id>.json     the row of the index

Disk: 3 P^2 bytes per frame. Measured with dlib boxes, P is 1.3 to 1.5 times `size` at store_margin 1.5, and 1.1 to 1.3 times at 1.3.
At size 64 a clip of 48 frames takes 1.2 MB. At size 224 a frame takes about 0.27 MB (P = 300), so a video of FaceForensics++ with
500 frames takes 135 MB and one of its qualities (5000 videos) 0.7 TB. Where that is too much, preprocess with `stretches`, which keeps
evenly spaced stretches of consecutive frames: eight of 16 frames are 35 MB per video and 0.17 TB for a quality.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pandas as pd

from dfil.errors import DataError
from dfil.faces.boxes import runs, square_union, window_squares
from dfil.faces.video import read_frames
from dfil.files import atomic

MARGIN = 1.3  # the paper's crop: the square box times 1.3
STORE_MARGIN = 1.5
REACH = 16  # frames: the longest snippet, for the baselines that take 16 frames; the paper's has 4
TYPICAL = 4  # frames of the snippet whose box sets a video's scale
OPEN_VIDEOS = 128  # memory maps that one store keeps; each costs a file descriptor and a process often has 1024
HEADER = 128  # bytes of an .npy header for a (N, P, P, 3) array
COLUMNS = (
    "dataset video_id label manipulation compression split target boxes_from path masks frames faces status reason crops patch checksum"
).split()


class CropStore:
    """A finished store, for reading. `store.open(video_id).snippet(first, T=4, size=224)`.

    index: DataFrame, a row per video with the columns COLUMNS (label 1 = fake; frames: in the file; faces: with a usable box;
    status "ok", "no face", "too short", "unreadable" or "failed", and the reason in words).
    meta: dict with dataset, size, detector, store_margin, reach, synthetic (bool), synthetic_setting, digest, ...

    Cheap to pickle and safe in forked or spawned workers: files are opened on first use in each process and closed again,
    the least recently used first. Raises DataError if the folder holds no finished store.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "meta.json").is_file() or not (self.folder / "index.parquet").is_file():
            raise DataError(f"{self.folder} holds no finished crop store; make one with `dfil preprocess`.")
        self.meta: dict = json.loads((self.folder / "meta.json").read_text())
        self.index: pd.DataFrame = pd.read_parquet(self.folder / "index.parquet")
        self._row_of = {video_id: i for i, video_id in enumerate(self.index["video_id"])}
        self._open: OrderedDict[str, Crops] = OrderedDict()

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}

    def open(self, video_id: str) -> Crops:
        """The crops of one video. Raises DataError if the store lacks the video or has no crops of it."""
        if video_id in self._open:
            self._open.move_to_end(video_id)
            return self._open[video_id]
        row = self._row(video_id)
        if row["status"] != "ok":
            raise DataError(f"{video_id} has no crops in {self.folder} ({row['status']}: {row['reason']}); take videos with status ok.")
        crops = Crops(self.folder / row["crops"], reach=self.meta["reach"], store_margin=self.meta["store_margin"])
        self._open[video_id] = crops
        if len(self._open) > OPEN_VIDEOS:
            self._open.popitem(last=False)
        return crops

    def mask_snippet(self, video_id: str, first: int, T: int, size: int, margin: float = MARGIN, stride: int = 1) -> np.ndarray:
        """Ground truth of the forged region for the same square as `snippet`: (T, size, size) bool.

        Decodes the mask video from its start at each call; meant for figures and evaluation, not for training.
        Raises DataError if the video has no masks or they end before the snippet does.
        """
        path = self._row(video_id)["masks"]
        if not path:
            raise DataError(f"{video_id} has no mask video; masks exist for the fakes of trees that ship them.")
        crops = self.open(video_id)
        square = crops.square(first, T, margin, stride)
        wanted = range(first, first + (T - 1) * stride + 1, stride)
        masks = []
        for number, frame_hwc in enumerate(read_frames(path)):
            if number in wanted:
                grid_hwc = cv2.resize(frame_hwc, crops.grid, interpolation=cv2.INTER_AREA)
                masks.append(_resize(_cut(grid_hwc, *square), size)[..., 0] > 127)
                if len(masks) == T:
                    return np.stack(masks)
        raise DataError(f"{path} ends before frame {wanted[-1]}; the mask video is shorter than its video.")

    def _row(self, video_id: str) -> pd.Series:
        if video_id not in self._row_of:
            raise DataError(f"No video {video_id!r} in the crop store {self.folder}; see the column video_id of its index.")
        return self.index.iloc[self._row_of[video_id]]


class Crops:
    """The patches of one video.

    frames (N,): the native frame numbers that are there; boxes (N, 4): the faces on the video's grid; scale: grid pixels per
    source pixel; grid, source: (width, height); runs: (first frame number, how many) of each stretch of consecutive frames.
    """

    def __init__(self, path: Path, reach: int = REACH, store_margin: float = STORE_MARGIN):
        self.path, self.reach, self.store_margin = Path(path), reach, store_margin
        self._patches: np.ndarray | None = None
        try:
            with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as sidecar:
                self.frames, self.origins, self.boxes = sidecar["frames"], sidecar["origins"], sidecar["boxes"]
                self.scale, self.count = float(sidecar["scale"]), int(sidecar["count"])
                self.grid, self.source = tuple(sidecar["grid"].tolist()), tuple(sidecar["source"].tolist())
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.path.with_suffix('.npz')} cannot be read ({error}); run `dfil preprocess` again.") from error
        self.runs = [(int(self.frames[at]), length) for at, length in runs(self.frames)]

    @property
    def patches(self) -> np.ndarray:
        """(N, P, P, 3) uint8 RGB, mapped from the file."""
        if self._patches is None:
            try:
                self._patches = np.load(self.path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
            except (OSError, ValueError) as error:
                raise DataError(f"{self.path} cannot be read ({error}); run `dfil preprocess` again.") from error
        return self._patches

    def snippet(self, first: int, T: int, size: int, margin: float = MARGIN, box: str = "snippet", stride: int = 1) -> np.ndarray:
        """Frames first, first + stride, ... as crops: (T, size, size, 3) uint8 RGB.

        first: native frame number. box: "snippet" cuts every frame with the square union of all boxes from the first frame to the
        last (those between, at stride > 1, included); "frame" cuts each with its own box. Shrinking takes INTER_AREA, enlarging
        INTER_LINEAR. Raises DataError if a frame is not there, the snippet is longer than `reach`, or margin exceeds the store's.
        """
        start = self._position(first, T, margin, stride)
        if box not in ("snippet", "frame"):
            raise DataError(f"Unknown box {box!r}; choose snippet or frame.")
        span = self.boxes[start : start + (T - 1) * stride + 1]
        crops_thwc = np.empty((T, size, size, 3), np.uint8)
        square = _whole(square_union(span, margin))
        for t in range(T):
            x0, y0, side = square if box == "snippet" else _whole(square_union(span[t * stride][None], margin))
            ox, oy = self.origins[start + t * stride]
            cut_hwc = self.patches[start + t * stride, y0 - oy : y0 - oy + side, x0 - ox : x0 - ox + side]
            _resize(cut_hwc, size, out=crops_thwc[t])
        return crops_thwc

    def square(self, first: int, T: int, margin: float = MARGIN, stride: int = 1) -> tuple[int, int, int]:
        """The snippet's square on the video's grid: x0, y0, side. Divided by `scale` it is in pixels of the source."""
        start = self._position(first, T, margin, stride)
        return _whole(square_union(self.boxes[start : start + (T - 1) * stride + 1], margin))

    def _position(self, first: int, T: int, margin: float, stride: int) -> int:
        """Where frame `first` lies in the arrays, after making sure that the snippet is there."""
        span = (T - 1) * stride + 1
        if T < 1 or stride < 1 or span > self.reach:
            raise DataError(f"{self.path}: a snippet may span 1 to {self.reach} frames, not {span}; preprocess with a larger reach.")
        if not 0 < margin <= self.store_margin:
            raise DataError(f"{self.path}: margin {margin} exceeds the stored {self.store_margin}; preprocess with a larger store_margin.")
        start = int(np.searchsorted(self.frames, first))
        end = start + span - 1
        if end >= len(self.frames) or self.frames[start] != first or self.frames[end] != first + span - 1:
            raise DataError(f"{self.path}: frames {first} to {first + span - 1} are not all there; take a window inside one of its runs.")
        return start


def plan_scale(boxes_n4: np.ndarray, valid_n: np.ndarray, size: int) -> float:
    """Grid pixels per source pixel at which the median snippet box (4 frames, margin 1.3) is `size` wide; never above 1."""
    sides = [np.diff(_windows(boxes_n4[a : a + n], TYPICAL, MARGIN)[:, ::2], axis=1) for a, n in _valid_runs(valid_n)]
    return float(min(1.0, size / max(np.median(np.concatenate(sides)), 1.0)))


def plan_patches(frames_n: np.ndarray, boxes_n4: np.ndarray, reach: int, margin: float) -> tuple[np.ndarray, int]:
    """Integer origins (N, 2) and the side P of patches that hold the square of every window of up to `reach` consecutive frames.

    A window's square need not hold the squares of the windows inside it (a tall box at the edge of a wide union), so all lengths
    are gone through.
    """
    low, high = np.full((len(frames_n), 2), np.inf), np.full((len(frames_n), 2), -np.inf)
    for start, count in runs(frames_n):
        for length in range(1, min(reach, count) + 1):
            squares = window_squares(boxes_n4[start : start + count], length, margin)
            for offset in range(length):  # the windows in which a frame is at place `offset`
                at = slice(start + offset, start + offset + len(squares))
                low[at] = np.minimum(low[at], squares[:, :2])
                high[at] = np.maximum(high[at], squares[:, 2:])
    side = int(np.ceil((high - low).max())) + 4  # two pixels on each side for the rounding of squares and of origins
    return np.floor((low + high) / 2 - side / 2).astype(np.int64), side


def write_crops(
    folder: Path,
    video_id: str,
    frames_hwc: Iterable[np.ndarray],
    boxes_n4: np.ndarray,
    valid_n: np.ndarray,
    scale: float,
    reach: int = REACH,
    store_margin: float = STORE_MARGIN,
) -> dict:
    """Write the patches and the sidecar of one video; returns crops (relative file), patch (P), checksum, frames and faces.

    boxes_n4, valid_n: in source pixels, for at least as many frames as `frames_hwc` has; the frames are gone through once and
    may turn out to be fewer. Both files appear complete or not at all.
    """
    path = folder / "crops" / f"{video_id}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.flatnonzero(valid_n)
    grid = source = origins = None
    side = checksum = written = count = 0
    with _replacing(path) as file:
        file.write(bytes(HEADER))  # the number of frames is known only at the end
        for count, frame_hwc in enumerate(frames_hwc, start=1):
            if source is None:
                source = frame_hwc.shape[1], frame_hwc.shape[0]
                grid = tuple(max(1, round(n * scale)) for n in source)
                ratio = np.divide(grid, source)
                boxes_n4 = (boxes_n4[numbers] * np.tile(ratio, 2)).astype(np.float32)
                origins, side = plan_patches(numbers, boxes_n4, reach, store_margin)
            if written < len(numbers) and numbers[written] == count - 1:
                if grid != source:
                    frame_hwc = cv2.resize(frame_hwc, grid, interpolation=cv2.INTER_AREA)
                patch = _cut(frame_hwc, *origins[written], side).tobytes()
                checksum = crc32(patch, checksum)
                file.write(patch)
                written += 1
        file.seek(0)
        shape = (written, side, side, 3)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        if file.tell() != HEADER:
            raise DataError(f"{path}: this numpy writes array headers of {file.tell()} bytes, not {HEADER}; use numpy 1.26 to 2.x.")
    with _replacing(path.with_suffix(".npz")) as file:
        kept = slice(written)
        arrays = {"frames": numbers[kept], "origins": origins[kept], "boxes": boxes_n4[kept], "scale": scale}
        np.savez(file, **arrays, grid=grid, source=source, count=count)
    relative = path.relative_to(folder).as_posix()
    return {"crops": relative, "patch": side, "checksum": f"{checksum:08x}", "frames": count, "faces": written}


def write_index(folder: Path, meta: Mapping) -> CropStore:
    """Collect the rows of all videos into index.parquet and meta.json, and open the store."""
    rows = [json.loads(path.read_text()) for path in sorted((folder / "crops").rglob("*.json"))]
    index = pd.DataFrame([{name: row[name] for name in COLUMNS} for row in rows], columns=COLUMNS)
    index = index.astype({"label": "int64", "frames": "int64", "faces": "int64", "patch": "int64"})
    # The digest stands for the contents: paths, also those in reasons, differ from machine to machine.
    contents = index.drop(columns=["path", "masks", "reason"]).sort_values("video_id").to_json(orient="records")
    with _replacing(folder / "index.parquet") as file:
        index.to_parquet(file, index=False)
    write_json(folder / "meta.json", {**meta, "digest": hashlib.sha256(contents.encode()).hexdigest()})
    return CropStore(folder)


def write_json(path: Path, value: Mapping) -> None:
    """Write a JSON file in one step."""
    with _replacing(path) as file:
        file.write(json.dumps(value, indent=1, default=str).encode())


@contextmanager
def _replacing(path: Path) -> Iterator:
    """A binary file that takes its place only when all of it is written."""
    with atomic(path) as part, open(part, "wb") as file:
        yield file


def _windows(boxes_n4: np.ndarray, length: int, margin: float) -> np.ndarray:
    return window_squares(boxes_n4, min(length, len(boxes_n4)), margin)


def _valid_runs(valid_n: np.ndarray) -> list[tuple[int, int]]:
    numbers = np.flatnonzero(valid_n)
    return [(int(numbers[at]), count) for at, count in runs(numbers)]


def _whole(square: tuple[float, float, float]) -> tuple[int, int, int]:
    x0, y0, side = square
    return int(np.floor(x0 + 0.5)), int(np.floor(y0 + 0.5)), max(1, int(np.floor(side + 0.5)))


def _cut(frame_hwc: np.ndarray, x0: int, y0: int, side: int) -> np.ndarray:
    """The square of a picture; outside the picture its edge is repeated."""
    height, width = frame_hwc.shape[:2]
    if x0 >= 0 and y0 >= 0 and x0 + side <= width and y0 + side <= height:
        return frame_hwc[y0 : y0 + side, x0 : x0 + side]
    rows = np.clip(np.arange(y0, y0 + side), 0, height - 1)
    columns = np.clip(np.arange(x0, x0 + side), 0, width - 1)
    return frame_hwc[rows[:, None], columns]


def _resize(cut_hwc: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    if len(cut_hwc) == size:
        return cut_hwc if out is None else np.copyto(out, cut_hwc)
    method = cv2.INTER_AREA if len(cut_hwc) > size else cv2.INTER_LINEAR
    return cv2.resize(cut_hwc, (size, size), dst=out, interpolation=method)
