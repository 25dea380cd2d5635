"""The crop store: face crops of whole datasets, lossless, from which any snippet is cut without
decoding anything.

A snippet of T consecutive frames is cut with ONE box, the square union of its frames' boxes, so
that the crop itself moves nothing inside a snippet. Which box that is depends on where the snippet
starts, so crops cannot be cut beforehand. What is stored instead:

- Each person of each video (a track; track 0 is the largest) has one scale s <= 1, at which the
  typical snippet box is about `size` pixels wide. Frames are resized by it block by block: first
  shrunk by a whole number k as long as that leaves them twice too large (means of squares), then
  bilinearly from q by q to p by p pixels; s = p / (k q). Blocks are independent of each other, and
  with p a power of two all weights are exact. So a part of a frame gets the very pixels that all of
  it would, only what is near the face is resized, and all frames lie on one pixel grid.
- Per frame a patch of P x P pixels is cut from that grid at integer origin, large enough for the
  box of every snippet of up to `reach` frames which this frame is part of, at margins up to
  `store_margin`. Outside the picture the edge is repeated; what no snippet can show need not be the
  picture's.
- A snippet is then the same square of the grid cut from each of its frames' patches, resized once
  to what the model takes.

    meta.json                settings, whether the data are synthetic, a digest of the index
    index.parquet            one row per video, also of those without crops (status, reason)
    crops/<video_id>.npy     patches (N, P, P, 3) uint8 RGB of track 0, read by memory map;
                             <video_id>@1.npy: of track 1, ...
    crops/<video_id>.npz     frames (N,), origins (N, 2), boxes (N, 4), scale, grid (w, h),
                             source (w, h), count; likewise
    crops/<video_id>.json    the row of the index

Disk: 3 P^2 bytes per frame and track. Measured with dlib boxes, P is 1.3 to 1.5 times `size` at
store_margin 1.5, and 1.1 to 1.3 times at 1.3. At size 64 a clip of 48 frames takes 1.2 MB. At size
224, by the numbers of videos (FF++ at both qualities, 500 frames each):

                              MB a video   FF++   Celeb-DF   DFDC preview   WildDeepfake
    all frames, margin 1.5           145   1450        950            760            550 GB
    4 x 16 frames, margin 1.3         14    140         91             73             70 GB

Built-in clips are short and get the first, real videos the second (settings.COMPACT).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pandas as pd

from dfil.faces.boxes import cut_square, reached, runs, square_union, window_squares
from dfil.faces.frame import Frame
from dfil.faces.video import decode
from dfil.system.errors import DataError, MachineError, machine_fault
from dfil.system.files import atomic

MARGIN = 1.3  # the paper's crop: the square box times 1.3
STORE_MARGIN = 1.5
REACH = 16  # frames: the longest snippet, for the baselines that take 16 frames; the paper's has 4
TYPICAL = 4  # frames of the snippet whose box sets a video's scale
OPEN_VIDEOS = 128  # memory maps that one store keeps; a process often has 1024 descriptors
HEADER = 128  # bytes of an .npy header for a (N, P, P, 3) array
BLOCK = 64  # pixels: the largest block that is resized by itself; half of it at scales above 1/2
COLUMNS = (
    "dataset video_id label manipulation compression split target boxes_from path masks frames"
    " faces status reason crops patch checksum tracks rule person seen"
).split()
NUMBERS = "label frames faces patch tracks seen".split()  # of COLUMNS; all others are text
META = {"dataset": str, "size": int, "detector": str, "tracks": str, "reach": int}
META |= {"store_margin": int | float, "synthetic": bool}
# Which tracks are stored -> how a video's score comes from theirs.
RULES = {"largest": "largest", "all": "max"}


class CropStore:
    """A finished store, for reading. `store.open(video_id).snippet(first, T=4, size=224)`.

    index: DataFrame, a row per video with the columns COLUMNS (label 1 = fake; frames: in the file;
    faces: with a usable box in track 0; status "ok", "no face", "too short", "unreadable" or
    "failed", and the reason in words; tracks: how many are stored; rule: how the video's score
    comes from its tracks, "largest" = track 0 is all there is, "max" = the maximum over tracks;
    person: whom intervals and tests count as one, empty if not known; seen: frames in which track
    0's face was found, of which `faces` were kept).
    meta: dict with dataset, size, detector, store_margin, reach, synthetic (bool),
    synthetic_setting, digest, ...

    Cheap to pickle and safe in forked or spawned workers: files are opened on first use in each
    process and closed again, the least recently used first. Raises DataError if the folder holds no
    finished store.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if (
            not (self.folder / "meta.json").is_file()
            or not (self.folder / "index.parquet").is_file()
        ):
            raise DataError(
                f"{self.folder} holds no finished crop store; make one with `dfil preprocess`."
            )
        self.meta: dict = read_meta(self.folder / "meta.json")
        with reading(self.folder / "index.parquet") as file:
            self.index: pd.DataFrame = pd.read_parquet(file)
            for name, value in (("person", ""), ("seen", self.index["faces"])):
                if name not in self.index:  # an index of an earlier release
                    self.index[name] = value
            if lacks := [name for name in COLUMNS if name not in self.index]:
                raise ValueError(f"it lacks the columns {', '.join(lacks)}")
            self.index = self.index.astype(dict.fromkeys(NUMBERS, "int64"))
            for name in COLUMNS:
                self.index[name].tolist()  # Arrow finds broken text only when it is looked at
            if not self.index["video_id"].is_unique:
                raise ValueError("it names a video twice")
        self._row_of = {video_id: i for i, video_id in enumerate(self.index["video_id"])}
        self._open: OrderedDict[tuple[str, int], Crops] = OrderedDict()

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}

    def open(self, video_id: str, track: int = 0) -> Crops:
        """The crops of one track of a video, 0 for the largest. Raises DataError if the store lacks
        the video or has no such crops."""
        if (video_id, track) in self._open:
            self._open.move_to_end((video_id, track))
            return self._open[video_id, track]
        row = self._row(video_id)
        if row["status"] != "ok":
            raise DataError(
                f"{video_id} has no crops in {self.folder} ({row['status']}: {row['reason']});"
                " take videos with status ok."
            )
        if not 0 <= track < row["tracks"]:
            raise DataError(
                f"{video_id} has the tracks 0 to {row['tracks'] - 1} in {self.folder}, no track"
                f" {track}; take one of these."
            )
        path = track_path(self.folder / row["crops"], track)
        crops = Crops(path, reach=self.meta["reach"], store_margin=self.meta["store_margin"])
        self._open[video_id, track] = crops
        if len(self._open) > OPEN_VIDEOS:
            self._open.popitem(last=False)
        return crops

    def mask_snippet(
        self,
        video_id: str,
        first: int,
        T: int,
        size: int,
        margin: float = MARGIN,
        stride: int = 1,
        track: int = 0,
    ) -> np.ndarray:
        """Ground truth of the forged region for the same square as `snippet`: (T, size, size) bool;
        see `mask_snippets`."""
        return self.mask_snippets(video_id, [first], T, size, margin, stride, track)[0]

    def mask_snippets(
        self,
        video_id: str,
        starts: Sequence[int],
        T: int,
        size: int,
        margin: float = MARGIN,
        stride: int = 1,
        track: int = 0,
    ) -> np.ndarray:
        """`mask_snippet` of every first frame in `starts`, which may be in any order and overlap:
        (U, T, size, size) bool.

        Decodes the mask video once, from its start to the last frame wanted; meant for figures and
        evaluation, not for training.
        Raises DataError if the video has no masks or they end before the snippets do.
        """
        path = self._row(video_id)["masks"]
        if not path:
            raise DataError(
                f"{video_id} has no mask video; masks exist for the fakes of trees that ship them."
            )
        crops = self.open(video_id, track)
        squares = [crops.square(int(first), T, margin, stride) for first in starts]
        numbers_ut = np.asarray(starts, int)[:, None] + stride * np.arange(T)
        masks_uthw, last = (
            np.empty((*numbers_ut.shape, size, size), bool),
            numbers_ut.max(initial=0),
        )
        for number, frame in enumerate(decode(path)):
            places = np.argwhere(numbers_ut == number)
            if len(places):
                grid_hwc, _ = to_grid(frame.rgb(), (0, 0), crops.source, crops.scale)
            for u, t in places:
                masks_uthw[u, t] = resized(cut_square(grid_hwc, *squares[u]), size)[..., 0] > 127
            if number == last:
                return masks_uthw
        raise DataError(
            f"{path} ends before frame {last}; the mask video is shorter than its video."
        )

    def _row(self, video_id: str) -> pd.Series:
        if video_id not in self._row_of:
            raise DataError(
                f"No video {video_id!r} in the crop store {self.folder}; see the column video_id"
                " of its index."
            )
        return self.index.iloc[self._row_of[video_id]]


class Crops:
    """The patches of one video.

    frames (N,): the native frame numbers that are there; boxes (N, 4): the faces on the video's
    grid; scale: grid pixels per source pixel; grid, source: (width, height); runs: (first frame
    number, how many) of each stretch of consecutive frames.
    """

    def __init__(self, path: Path, reach: int = REACH, store_margin: float = STORE_MARGIN):
        self.path, self.reach, self.store_margin = Path(path), reach, store_margin
        self._patches: np.ndarray | None = None
        with reading(self.path.with_suffix(".npz")) as file:
            with np.load(file, allow_pickle=False) as sidecar:
                names = ("frames", "origins", "boxes")
                self.frames, self.origins, self.boxes = (sidecar[name] for name in names)
                self.scale, self.count = float(sidecar["scale"]), int(sidecar["count"])
                self.grid, self.source = (tuple(sidecar[n].tolist()) for n in ("grid", "source"))
            n = len(self.frames)
            shapes = self.frames.shape, self.origins.shape, self.boxes.shape
            rising = n and self.frames[0] >= 0 and (np.diff(self.frames) > 0).all()
            if shapes != ((n,), (n, 2), (n, 4)) or not rising or self.frames[-1] >= self.count:
                raise ValueError("its frames do not fit its boxes")
            kinds = self.frames.dtype.kind + self.origins.dtype.kind + self.boxes.dtype.kind
            if kinds != "iif":
                raise TypeError("its arrays are of other types")
            if not (np.isfinite(self.boxes).all() and 0 < self.scale <= 1):
                raise ValueError("boxes or scale are no numbers that can be")
        self.runs = [(int(self.frames[at]), length) for at, length in runs(self.frames)]

    @property
    def longest(self) -> tuple[int, int]:
        """The longest of `runs`, the first of equals: first frame number, how many."""
        return max(self.runs, key=lambda run: run[1])

    @property
    def patches(self) -> np.ndarray:
        """(N, P, P, 3) uint8 RGB, mapped from the file."""
        if self._patches is None:
            with reading(self.path) as file:
                patches = np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
                n, side = len(self.frames), patches.shape[-2:-1]
                if (patches.shape, patches.dtype) != ((n, *side, *side, 3), np.uint8):
                    raise ValueError(f"it holds {patches.dtype} of shape {patches.shape}")
                centres = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 - self.origins
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
        cuts each with its own box. Shrinking to less than half takes INTER_AREA, all else
        INTER_LINEAR. out: where to write, shaped as the result. Raises DataError if a frame is not
        there, the snippet is longer than `reach`, or margin exceeds the store's.
        """
        start = self._position(first, T, margin, stride)
        if box not in ("snippet", "frame"):
            raise DataError(f"Unknown box {box!r}; choose snippet or frame.")
        span = self.boxes[start : start + (T - 1) * stride + 1]
        crops_thwc = np.empty((T, size, size, 3), np.uint8) if out is None else out
        square = whole_pixels(square_union(span, margin))
        for t in range(T):
            x0, y0, side = (
                square
                if box == "snippet"
                else whole_pixels(square_union(span[t * stride][None], margin))
            )
            ox, oy = self.origins[start + t * stride]
            cut_hwc = self.patches[
                start + t * stride, y0 - oy : y0 - oy + side, x0 - ox : x0 - ox + side
            ]
            resized(cut_hwc, size, out=crops_thwc[t])
        return crops_thwc

    def square(
        self, first: int, T: int, margin: float = MARGIN, stride: int = 1
    ) -> tuple[int, int, int]:
        """The snippet's square on the video's grid: x0, y0, side. Divided by `scale` it is in
        pixels of the source."""
        start = self._position(first, T, margin, stride)
        return whole_pixels(square_union(self.boxes[start : start + (T - 1) * stride + 1], margin))

    def _position(self, first: int, T: int, margin: float, stride: int) -> int:
        """Where frame `first` lies in the arrays, after making sure that the snippet is there."""
        span = (T - 1) * stride + 1
        if T < 1 or stride < 1 or span > self.reach:
            raise DataError(
                f"{self.path}: a snippet may span 1 to {self.reach} frames, not {span};"
                " preprocess with a larger reach."
            )
        if not 0 < margin <= self.store_margin:
            raise DataError(
                f"{self.path}: margin {margin} exceeds the stored {self.store_margin};"
                " preprocess with a larger store_margin."
            )
        start = int(np.searchsorted(self.frames, first))
        end = start + span - 1
        if (
            end >= len(self.frames)
            or self.frames[start] != first
            or self.frames[end] != first + span - 1
        ):
            raise DataError(
                f"{self.path}: frames {first} to {first + span - 1} are not all there; take a"
                " window inside one of its runs."
            )
        return start


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


def read_meta(path: Path) -> dict:
    """meta.json of a store. Raises DataError where it is damaged."""
    with reading(path):
        meta = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in META.items():
            if not isinstance(meta[name], kind):
                raise TypeError(f"{name} is {meta[name]!r:.50}")
    return meta


def read_row(path: Path) -> dict:
    """The row of one video's file. Raises DataError where it is damaged."""
    with reading(path):
        row = json.loads(path.read_text(encoding="utf-8"))
        row = {"person": "", "seen": row["faces"], **row}  # of an earlier release
        for name in COLUMNS:
            kind = int if name in NUMBERS else str
            if not isinstance(row[name], kind) or kind is int and not 0 <= row[name] < 2**40:
                raise ValueError(f"{name} is {row[name]!r:.50}")
    return row


def track_path(path: Path, track: int) -> Path:
    """The file of a track beside that of track 0."""
    return path.with_name(f"{path.stem}@{track}{path.suffix}") if track else path


def plan_scale(boxes_n4: np.ndarray, valid_n: np.ndarray, size: int) -> float:
    """Grid pixels per source pixel at which the median snippet box (4 frames, margin 1.3) is about
    `size` wide; never above 1."""
    sides = [
        np.diff(_windows(boxes_n4[a : a + n], TYPICAL, MARGIN)[:, ::2], axis=1)
        for a, n in _valid_runs(valid_n)
    ]
    p, q, k = blocks(min(1.0, size / max(float(np.median(np.concatenate(sides))), 1.0)))
    return p / (q * k)


def blocks(scale: float) -> tuple[int, int, int]:
    """p, q, k of the scale p / (q k) next to this one: pictures are shrunk k times, then brought
    from q to p pixels, p <= q <= 2 p.

    q k / p stays below k + 1, so that the blocks of that scale are these again.
    """
    k = max(1, int(1 / scale + 1e-6))
    p = max(1, min(16, 2 ** int(np.log2(max(1, BLOCK / 2 / k)))))
    q = max(p, round(p / (scale * k)))
    return (p, q, k) if q * k < p * (k + 1) else blocks(1 / (k + 1))


def to_grid(
    part_hwc: np.ndarray, corner: tuple[int, int], source: tuple[int, int], scale: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """A part of a frame on the video's grid, and where its corner lies there; blocks that the part
    holds incompletely are left out.

    corner: x, y of the part in the frame. source: (width, height) of the frame. Where the frame
    itself ends inside a block, its edge is repeated. Each block's pixels depend on the block alone,
    whatever part it comes in.
    """
    (p, q, k), (x0, y0) = blocks(scale), corner
    block = q * k
    if block == p:
        return part_hwc, corner
    height, width = part_hwc.shape[:2]
    right, bottom = (
        -n % block if at + extent == n else 0
        for n, at, extent in zip(source, corner, (width, height), strict=True)
    )
    if right or bottom:
        part_hwc = cv2.copyMakeBorder(part_hwc, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    left, top = -x0 % block, -y0 % block
    wide, high = (part_hwc.shape[1] - left) // block, (part_hwc.shape[0] - top) // block
    grid_hwc = part_hwc[top : top + high * block, left : left + wide * block]
    if k > 1:
        grid_hwc = cv2.resize(grid_hwc, (wide * q, high * q), interpolation=cv2.INTER_AREA)
    if (
        p < q
    ):  # bilinear weights at scales of 1/2 to 1 do not reach over the border of a block either
        grid_hwc = cv2.resize(grid_hwc, (wide * p, high * p), interpolation=cv2.INTER_LINEAR)
    return grid_hwc, ((x0 + left) // block * p, (y0 + top) // block * p)


def needed(
    boxes_n4: np.ndarray,
    valid_n: np.ndarray,
    source: tuple[int, int],
    pixel: float | np.ndarray,
    reach: int,
    margin: float,
) -> np.ndarray:
    """The part of each frame, int (n, 4) in source pixels, from which its patch can be cut.

    pixel: source pixels, (n,) or one number, that one grid pixel may have at most; the scale itself
    need not be known yet. Around what snippets can show lies room for the blocks on its border and
    for rounding.
    """
    pixel = np.asarray(pixel, float)
    block = np.where(pixel < 2, BLOCK / 2, np.maximum(BLOCK, 2 * pixel))
    slack = np.broadcast_to(block + 4 * pixel, len(boxes_n4))[:, None] * [-1, -1, 1, 1]
    bound = reached(boxes_n4, valid_n, reach, margin) + slack
    return np.clip(
        np.concatenate([np.floor(bound[:, :2]), np.ceil(bound[:, 2:])], 1), 0, [*source, *source]
    ).astype(int)


def plan_patches(
    frames_n: np.ndarray, boxes_n4: np.ndarray, reach: int, margin: float
) -> tuple[np.ndarray, int, np.ndarray]:
    """Integer origins (N, 2) and the side P of patches that hold the square of every window of up
    to `reach` consecutive frames, and what those squares reach per frame, (N, 4).

    A window's square need not hold the squares of the windows inside it (a tall box at the edge of
    a wide union), so all lengths are gone through.
    """
    low, high = np.full((len(frames_n), 2), np.inf), np.full((len(frames_n), 2), -np.inf)
    for start, count in runs(frames_n):
        for length in range(1, min(reach, count) + 1):
            squares = window_squares(boxes_n4[start : start + count], length, margin)
            for offset in range(length):  # the windows in which a frame is at place `offset`
                at = slice(start + offset, start + offset + len(squares))
                low[at] = np.minimum(low[at], squares[:, :2])
                high[at] = np.maximum(high[at], squares[:, 2:])
    side = (
        int(np.ceil((high - low).max())) + 4
    )  # two pixels on each side for the rounding of squares and of origins
    return (
        np.floor((low + high) / 2 - side / 2).astype(np.int64),
        side,
        np.concatenate([low, high], 1),
    )


class TooLittleError(DataError):
    """What was kept of a frame is less than its patch needs."""


class TrackWriter:
    """Writes the patches and the sidecar of one track, frame by frame in rising order; both files
    appear complete or not at all.

    path: of the .npy. boxes_n4, valid_n: in source pixels, for at least as many frames as will
    come. source: (width, height). Use as a context manager: `add` for each valid frame, then
    `finish`; without `finish` nothing is left behind.
    """

    def __init__(
        self,
        path: Path,
        boxes_n4: np.ndarray,
        valid_n: np.ndarray,
        scale: float,
        source: tuple[int, int],
        reach: int = REACH,
        store_margin: float = STORE_MARGIN,
    ):
        self.path, self.scale, self.source = path, scale, source
        p, q, k = blocks(scale)
        if abs(p / (q * k) - scale) > 1e-9:
            raise DataError(
                f"{path}: scale {scale} is none that `plan_scale` gives; take {p / (q * k)}."
            )
        self.grid = tuple(-(-n // (q * k)) * p if p < q * k else n for n in source)
        self.numbers = np.flatnonzero(valid_n)
        self.boxes = (boxes_n4[self.numbers] * scale).astype(np.float32)
        self.origins, self.side, self._shown = plan_patches(
            self.numbers, self.boxes, reach, store_margin
        )
        self.at = self.checksum = 0  # place in `numbers` of the frame that is to be added next
        self.kept: list[int] = []  # places of those that were added
        self._files = ExitStack()

    def __enter__(self) -> TrackWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._files.enter_context(_replacing(self.path))
        self._file.write(bytes(HEADER))  # the number of frames is known only at the end
        return self

    def __exit__(self, *error) -> None:
        if error == (None, None, None) and not self._file.closed:
            error = (DataError, DataError(f"{self.path} was not finished"), None)
        self._files.__exit__(*error)

    @property
    def next(self) -> int | None:
        """Number of the frame that is to be added next."""
        return int(self.numbers[self.at]) if self.at < len(self.numbers) else None

    @property
    def written(self) -> int:
        """How many frames were added."""
        return len(self.kept)

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

    def finish(self, count: int) -> None:
        """count: frames in the file."""
        self._file.seek(0)
        shape = (self.written, self.side, self.side, 3)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        if self._file.tell() != HEADER:
            raise DataError(
                f"{self.path}: this numpy writes headers of {self._file.tell()} bytes, not"
                f" {HEADER}; use numpy 1.26 to 2.x."
            )
        self._files.close()
        with _replacing(self.path.with_suffix(".npz")) as file:
            arrays = {
                "frames": self.numbers[self.kept],
                "origins": self.origins[self.kept],
                "boxes": self.boxes[self.kept],
                "scale": self.scale,
            }
            np.savez(file, **arrays, grid=self.grid, source=self.source, count=count)


def write_crops(
    folder: Path,
    video_id: str,
    frames: Iterable[np.ndarray | Frame],
    tracks: Sequence[tuple[np.ndarray, np.ndarray, float]],
    reach: int = REACH,
    store_margin: float = STORE_MARGIN,
) -> dict:
    """Write the patches and sidecars of a video whose boxes are known; the frames are gone through
    once, for all tracks.

    tracks: per track boxes (n, 4) in source pixels, valid (n,) and scale; for at least as many
    frames as there are, and they may turn out to be fewer. Returns `described` and frames. Raises
    VideoError or whatever else `frames` raises, leaving nothing behind.
    """
    count, writers = 0, []
    with ExitStack() as stack:
        for count, frame in enumerate(frames, start=1):
            if not writers:
                source = (
                    (frame.width, frame.height)
                    if isinstance(frame, Frame)
                    else (frame.shape[1], frame.shape[0])
                )
                for k, (boxes_n4, valid_n, scale) in enumerate(tracks):
                    path = track_path(crops_path(folder, video_id), k)
                    writers.append(
                        stack.enter_context(
                            TrackWriter(path, boxes_n4, valid_n, scale, source, reach, store_margin)
                        )
                    )
                parts = [needed(b, v, source, 1 / s, reach, store_margin) for b, v, s in tracks]
            for writer, part_n4 in zip(writers, parts, strict=True):
                if writer.next == count - 1:
                    if getattr(frame, "lost", False):
                        writer.leave_out()
                    elif isinstance(frame, Frame):
                        x0, y0, x1, y1 = (int(v) for v in part_n4[count - 1])
                        writer.add(frame.rgb(x0, y0, x1, y1), (x0, y0))
                    else:
                        writer.add(frame)
        for writer in writers:
            writer.finish(count)
    return {**described(folder, writers), "frames": count}


def described(folder: Path, writers: Sequence[TrackWriter]) -> dict:
    """What the index says of finished tracks: crops (relative file), patch (P), faces, tracks,
    checksum; and bytes, of all of them."""
    checksum = 0
    for writer in writers:
        checksum = (
            crc32(writer.checksum.to_bytes(4, "little"), checksum)
            if len(writers) > 1
            else writer.checksum
        )
    largest = writers[0]
    return {
        "crops": largest.path.relative_to(folder).as_posix(),
        "patch": largest.side,
        "checksum": f"{checksum:08x}",
        "faces": largest.written,
        "tracks": len(writers),
        "bytes": sum(3 * writer.side**2 * writer.written for writer in writers),
    }


def crops_path(folder: Path, video_id: str) -> Path:
    """The patches of a video's track 0."""
    return folder / "crops" / f"{video_id}.npy"


def write_index(folder: Path, meta: Mapping) -> CropStore:
    """Collect the rows of all videos into index.parquet and meta.json, and open the store."""
    rows = []
    for path in sorted((folder / "crops").rglob("*.json")):
        try:
            rows.append(read_row(path))
        except DataError as error:  # of a video that this call was not about
            print(f"{error} It is left out of the index.", file=sys.stderr, flush=True)
    index = pd.DataFrame([{name: row[name] for name in COLUMNS} for row in rows], columns=COLUMNS)
    index = index.astype(dict.fromkeys(NUMBERS, "int64"))
    # The digest stands for the contents: paths, also those in reasons, differ between machines, and
    # who a video shows changes no pixel.
    contents = (
        index.drop(columns=["path", "masks", "reason", "person", "seen"])
        .sort_values("video_id")
        .to_json(orient="records")
    )
    with _replacing(folder / "index.parquet") as file:
        index.to_parquet(file, index=False)
    write_json(
        folder / "meta.json", {**meta, "digest": hashlib.sha256(contents.encode()).hexdigest()}
    )
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


def whole_pixels(square: tuple[float, float, float]) -> tuple[int, int, int]:
    x0, y0, side = square
    return int(np.floor(x0 + 0.5)), int(np.floor(y0 + 0.5)), max(1, int(np.floor(side + 0.5)))


def resized(cut_hwc: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    if len(cut_hwc) == size:
        return cut_hwc if out is None else np.copyto(out, cut_hwc)
    # Up to a factor of two bilinear interpolation still reads every pixel, and takes a fifth of the
    # time.
    method = cv2.INTER_AREA if len(cut_hwc) > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(cut_hwc, (size, size), dst=out, interpolation=method)
