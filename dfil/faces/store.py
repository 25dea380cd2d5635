"""The crop store: face crops of whole datasets, lossless, from which any snippet is cut without
decoding anything.

A snippet of T consecutive frames is cut with ONE box, the square union of its frames' boxes, so
that the crop itself moves nothing inside a snippet. Which box that is depends on where the snippet
starts, so crops cannot be cut beforehand. What is stored instead:

- Each person of each video (a track; track 0 is the largest) has one scale s <= 1, at which the
  typical snippet box is about `size` pixels wide, and so one pixel grid for all frames (grid.py).
- Per frame a patch of P x P pixels is cut from that grid at an integer origin, large enough for the
  box of every snippet of up to `reach` frames which this frame is part of, at margins up to
  `store_margin`. Outside the picture the edge is repeated when a snippet is cut, and so not kept;
  what no snippet can show need not be the picture's.
- A snippet is then the same square of the grid cut from each of its frames' patches, resized once
  to what the model takes.

    meta.json                settings, whether the data are synthetic, digests of the index
    index.parquet            one row per video of the tree, also of those without crops (status,
                             reason); not of those that the tree held once
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

Built-in clips are short and get the first, real videos the second (settings.COMPACT). Lossless
codecs, on four real videos with patches of 246 pixels (`dfil bench data --clips FOLDER`), by core
milliseconds to read a clip of 4 snippets, of which a GPU's training step takes about 13:

                                        size   FF++   all four   read
    all frames, raw                     1.00    970       2130    2.2
    all frames, H.264 of RGB, qp 0       .29    280        620    154
    4 x 16, raw                         1.00    116        340    2.2
    4 x 16, PNG                          .43     50        144     28
    4 x 16, zlib of differences          .35     41        120     52
    4 x 16, lzma of differences          .32     37        107    142
    4 x 16, H.264 of RGB, qp 0           .29     34         98    154

So patches are raw: nothing else reads faster than one GPU's step in one process. Kept as 4 x 16,
16 synthetic clips of 160 frames get scores that differ from those with all frames by .031 on
average, by -.004 +- .026 in one direction; drawing other snippets of all frames changes them by
.040. The AUC is 1.000 both ways.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dfil.datasets.ffpp import ACTORS, OF_ACTORS
from dfil.faces.boxes import cut_square
from dfil.faces.crops import Crops, crops_path, reading
from dfil.faces.grid import MARGIN, Limits, resized, to_grid
from dfil.faces.video import decode
from dfil.system.errors import DataError
from dfil.system.files import atomic

OPEN_VIDEOS = 128  # memory maps that one store keeps; a process often has 1024 descriptors
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
    synthetic_setting, digest (of the index), digests (by "compression/manipulation"), ...

    Cheap to pickle and safe in forked or spawned workers: files are opened on first use in each
    process and closed again, the least recently used first. Raises DataError if the folder holds no
    finished store.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        meta, index = self.folder / "meta.json", self.folder / "index.parquet"
        if not (meta.is_file() and index.is_file()):
            raise DataError(
                f"{self.folder} holds no finished crop store; make one with `dfil preprocess`."
            )
        self.meta: dict = read_meta(meta)
        with reading(index):
            self.index: pd.DataFrame = _checked(pd.read_parquet(index))
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
        limits = Limits(self.meta["reach"], self.meta["store_margin"])
        crops = Crops(crops_path(self.folder, video_id, track), limits)
        self._open[video_id, track] = crops
        if len(self._open) > OPEN_VIDEOS:
            self._open.popitem(last=False)
        return crops

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
        """Ground truth of the forged region for the same squares as `Crops.snippet` of every first
        frame in `starts`, which may be in any order and overlap: (U, T, size, size) bool.

        Decodes the mask video once, from its start to the last frame wanted; meant for figures and
        evaluation, not for training. Raises DataError if the video has no masks or they end before
        the snippets do.
        """
        path = self._row(video_id)["masks"]
        if not path:
            raise DataError(
                f"{video_id} has no mask video; masks exist for the fakes of trees that ship them."
            )
        crops = self.open(video_id, track)
        squares = [crops.square(int(first), T, margin, stride) for first in starts]
        numbers_ut = np.asarray(starts, int)[:, None] + stride * np.arange(T)
        masks_uthw = np.empty((*numbers_ut.shape, size, size), bool)
        last = numbers_ut.max(initial=0)
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


def write_index(
    folder: Path, meta: Mapping, held: Callable[[list[dict]], list[dict]] = list
) -> CropStore:
    """Collect the rows of all videos, or those that `held` picks, into index.parquet and meta.json,
    and open the store."""
    rows = []
    for path in sorted((folder / "crops").rglob("*.json")):
        try:
            rows.append(read_row(path))
        except DataError as error:  # of a video that this call was not about
            print(f"{error} It is left out of the index.", file=sys.stderr, flush=True)
    rows = held(rows)
    index = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, "int64"))
    # The digests stand for the contents: paths, also those in reasons, differ between machines, and
    # who a video shows changes no pixel.
    contents = index.drop(columns=["path", "masks", "reason", "person", "seen"])
    contents = contents.sort_values("video_id")
    # What a run looks at (train/spec.select): FaceForensics++'s actors have reals of their own.
    kinds = contents["manipulation"].mask(contents["video_id"].str.contains(OF_ACTORS), ACTORS)
    groups = contents.groupby([contents["compression"], kinds])
    digests = {"/".join(kind): _digest(rows) for kind, rows in groups}
    with atomic(folder / "index.parquet") as part:
        index.to_parquet(part, index=False)
    digests = {"digest": _digest(contents), "digests": digests}
    write_json(folder / "meta.json", {**meta, **digests})
    return CropStore(folder)


def _digest(rows: pd.DataFrame) -> str:
    return hashlib.sha256(rows.to_json(orient="records").encode()).hexdigest()


def _checked(index: pd.DataFrame) -> pd.DataFrame:
    """The index as this release writes it, or whatever pandas raises, or a ValueError."""
    for name, value in (("person", ""), ("seen", index["faces"])):
        if name not in index:  # an index of an earlier release
            index[name] = value
    if lacks := [name for name in COLUMNS if name not in index]:
        raise ValueError(f"it lacks the columns {', '.join(lacks)}")
    for name in COLUMNS:
        index[name].tolist()  # Arrow finds broken text only when it is looked at
    if not index["video_id"].is_unique:
        raise ValueError("it names a video twice")
    return index.astype(dict.fromkeys(NUMBERS, "int64"))


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


def read_meta(path: Path) -> dict:
    """meta.json of a store. Raises DataError where it is damaged."""
    with reading(path):
        meta = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in META.items():
            if not isinstance(meta[name], kind):
                raise TypeError(f"{name} is {meta[name]!r:.50}")
    return meta


def write_json(path: Path, value: Mapping) -> None:
    """Write a JSON file in one step."""
    with atomic(path) as part:
        part.write_bytes(json.dumps(value, indent=1, default=str).encode())
