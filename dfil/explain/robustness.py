"""What is left of a trained detector when a stretch of each test video is damaged.

One stretch of consecutive frames, at a place drawn for each person (the same in a real clip and in
its forgeries, whatever the damage), is damaged in one of the ways of KINDS at one of three
severities; all other frames, and the boxes that the crops are cut with, stay as they are. Lost
packets and bit errors are those of a real H.264 decoder with its own concealment. The kinds are
those of the robustness test of DF-TCB (WWW 2026), the severities our own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import av
import cv2
import numpy as np
import pandas as pd
from av.error import FFmpegError
from matplotlib.figure import Figure
from tqdm import tqdm

from dfil.datasets.sequences import is_sequence
from dfil.faces.boxes import cut_square
from dfil.faces.crops import Crops
from dfil.faces.grid import to_grid
from dfil.faces.store import CropStore
from dfil.faces.video import read_frames
from dfil.results import figures, tables
from dfil.synthetic.codec import X264
from dfil.system.errors import DataError, RunError
from dfil.train.repeat import repeatable
from dfil.train.runs import Run
from dfil.train.scoring import score
from dfil.train.spec import select

LENGTHS = (8, 16, 24)  # frames
SEVERITIES = (1, 2, 3)
TITLE = "Robustness: AUC when a stretch of the video is damaged"
CLEAN = "none"
CRF = 23  # of the stretch whose packets are lost or damaged
HEAD = 64  # bytes of a packet that errors spare: without its headers a decoder shows nothing

Draw = np.random.Generator


def dark(frames_thwc: np.ndarray, light: float, rng: Draw) -> np.ndarray:
    """The frames at a share of their light; at 0 they are black."""
    return cv2.convertScaleAbs(frames_thwc.reshape(len(frames_thwc), -1), alpha=light).reshape(
        frames_thwc.shape
    )


def blurred(frames_thwc: np.ndarray, pixels: int, rng: Draw) -> np.ndarray:
    """The frames as a camera shows them that moves by so many pixels, all in one direction."""
    turn = cv2.getRotationMatrix2D((pixels // 2, pixels // 2), float(rng.uniform(0, 180)), 1)
    line = np.zeros((pixels, pixels), np.float32)
    line[pixels // 2] = 1
    line = cv2.warpAffine(line, turn, (pixels, pixels))
    return np.stack([cv2.filter2D(frame, -1, line / line.sum()) for frame in frames_thwc])


def recoded(frames_thwc: np.ndarray, crf: int, rng: Draw) -> np.ndarray:
    """The frames after H.264 at this rate factor."""
    return _decoded(_packets(frames_thwc, crf), frames_thwc)


def lost(frames_thwc: np.ndarray, share: float, rng: Draw) -> np.ndarray:
    """The frames of a stream of which this share of packets, a frame each, never arrived."""
    packets = _packets(frames_thwc, CRF)
    gone = rng.random(len(packets)) < share
    gone[0] = False  # without the first frame there is nothing to go on from
    return _decoded([b"" if g else p for p, g in zip(packets, gone, strict=True)], frames_thwc)


def flipped(frames_thwc: np.ndarray, rate: float, rng: Draw) -> np.ndarray:
    """The frames of a stream of which this share of bits is wrong."""
    packets = []
    for packet in _packets(frames_thwc, CRF):
        bits = np.unpackbits(np.frombuffer(packet, np.uint8))
        wrong = rng.random(len(bits)) < rate
        wrong[: 8 * HEAD] = False
        packets.append(np.packbits(bits ^ wrong).tobytes())
    return _decoded(packets, frames_thwc)


KINDS: dict[str, tuple[Callable, tuple]] = {  # name -> what does it, how at the three severities
    "black": (dark, (0.5, 0.2, 0.0)),
    "motion blur": (blurred, (5, 9, 17)),
    "lost packets": (lost, (0.1, 0.3, 0.6)),
    "bit errors": (flipped, (3e-6, 1e-5, 1e-4)),
    "re-encoding": (recoded, (30, 38, 46)),
}


def _packets(frames_thwc: np.ndarray, crf: int) -> list[bytes]:
    """One H.264 packet per frame: the first one whole, the others predicted from the one before."""
    coder = av.CodecContext.create("libx264", "w")
    coder.height, coder.width = (n // 2 * 2 for n in frames_thwc.shape[1:3])
    coder.pix_fmt, coder.framerate = "yuv420p", 25
    coder.options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "g": "999"} | X264
    even_thwc = np.ascontiguousarray(frames_thwc[:, : coder.height, : coder.width])
    frames = [av.VideoFrame.from_ndarray(frame_hwc, format="rgb24") for frame_hwc in even_thwc]
    return [bytes(packet) for frame in (*frames, None) for packet in coder.encode(frame)]


def _decoded(packets: Sequence[bytes], frames_thwc: np.ndarray) -> np.ndarray:
    """What a player shows of packets, empty for a lost one: where nothing comes, the frame before.

    frames_thwc: what was coded, for the shape; of an odd last row or column it is kept.
    """
    coder, shown = av.CodecContext.create("h264", "r"), {}
    coder.thread_count = 1
    for number, packet in enumerate((*packets, None)):
        sent = None if packet is None else av.Packet(packet)
        if packet:
            sent.pts = number
        try:
            for frame in coder.decode(sent) if packet != b"" else ():
                shown[frame.pts] = frame.to_ndarray(format="rgb24")
        except FFmpegError:  # nothing can be made of this packet
            continue
    found, last = frames_thwc.copy(), None
    for number, frame_hwc in enumerate(found):
        high, wide = (n // 2 * 2 for n in frame_hwc.shape[:2])
        now = shown.get(number)
        last = now if now is not None and now.shape == (high, wide, 3) else last
        if last is not None:
            frame_hwc[:high, :wide] = last
    return found


@dataclass(frozen=True)
class Damage:
    """One of KINDS in a stretch of `length` frames, at severity 1, 2 or 3."""

    kind: str
    length: int
    severity: int

    @property
    def column(self) -> str:
        return f"{self.kind}, {self.length} frames, {self.severity}"

    def of(self, frames_thwc: np.ndarray, rng: Draw) -> np.ndarray:
        """The frames of the stretch, damaged: uint8 RGB (T, H, W, 3)."""
        work, severities = KINDS[self.kind]
        return work(frames_thwc, severities[self.severity - 1], rng)


def damages(lengths: Sequence[int] = LENGTHS) -> list[Damage]:
    """All that a detector is tried on."""
    return [Damage(kind, n, s) for n in lengths for kind in KINDS for s in SEVERITIES]


class DamagedStore(CropStore):
    """A crop store whose videos are damaged when they are opened; nothing is written.

    Raises DataError for videos that are distributed as face crops or whose files are gone.
    """

    def __init__(self, store: CropStore, damage: Damage):
        super().__init__(store.folder)
        self.damage = damage

    def open(self, video_id: str, track: int = 0) -> Crops:
        if (video_id, track) not in self._open:
            whole = super().open(video_id, track)
            self._open[video_id, track] = self._damaged(whole, self._row(video_id))
        return super().open(video_id, track)

    def _damaged(self, whole: Crops, row: pd.Series) -> Crops:
        if is_sequence(row["path"]):
            raise DataError(f"{row['path']} is a sequence of face crops; take a dataset of videos.")
        start, count = whole.longest  # a stretch has neighbouring frames
        length = min(self.damage.length, count)
        who = crc32((row["person"] or row["video_id"]).encode())
        first = int(np.random.default_rng([who, length]).integers(count - length + 1))
        first += int(np.searchsorted(whole.frames, start))
        wanted = whole.frames[first : first + length].tolist()
        frames = zip(range(wanted[-1] + 1), read_frames(row["path"]), strict=False)
        kept = [frame_hwc for number, frame_hwc in frames if number in wanted]
        rng = np.random.default_rng([who, crc32(self.damage.column.encode())])
        crops, patches_nhwc = copy.copy(whole), np.array(whole.patches)
        for n, frame_hwc in enumerate(self.damage.of(np.stack(kept), rng), first):
            grid_hwc, _ = to_grid(frame_hwc, (0, 0), whole.source, whole.scale)
            patches_nhwc[n] = cut_square(grid_hwc, *whole.origins[n], patches_nhwc.shape[1])
        crops._patches = patches_nhwc
        return crops


def scores(run: Run, store: CropStore) -> pd.DataFrame:
    """The scores of a trained run on test videos of the kind that it has learnt."""
    spec = run.spec
    if not isinstance(store, DamagedStore):
        return select(run.scores(store, spec.compression), "test", "", spec.manipulations)
    rows = select(store.index, "test", spec.compression, spec.manipulations)
    videos = run.dataset(store, rows[rows["status"] == "ok"], run.sampling.test)
    with repeatable(spec.training):
        how = dict(batch=spec.training.batch, views=run.sampling.views)
        return score(run.model(), videos, **how)


def response(
    rows: Mapping[str, Sequence[Run]],
    store: CropStore,
    lengths: Sequence[int] = LENGTHS,
    note: str = "",
) -> pd.DataFrame:
    """AUC by damage in the usual columns; rows: name -> trained runs, one per seed.

    Column CLEAN: the same videos undamaged. Raises RunError for a stretch longer than the median
    test video: its column would say what was not done to them.
    """
    usual = store.index.query("split == 'test' and status == 'ok'")["frames"].median()
    if max(lengths) > usual:
        raise RunError(
            f"a stretch of {max(lengths)} frames cannot be damaged in test videos that have"
            f" {usual:.0f}; ask for shorter ones (lengths)"
        )
    results, todo = {}, {CLEAN: None} | {damage.column: damage for damage in damages(lengths)}
    bar = tqdm(todo.items(), desc="damaging", unit="damage", disable=None, leave=False)
    for column, damage in bar:
        shown = DamagedStore(store, damage) if damage else store
        for row, runs in rows.items():
            found = [scores(run, shown) for run in runs]
            results[row, column] = tables.CellResult(found, [run.key for run in runs])
    layout = tables.grid("robustness", TITLE, "auc", list(rows), list(todo))
    return tables.build(layout, results, "", note, synthetic=bool(store.meta["synthetic"]))


def examples(store: CropStore, video_id: str, length: int, frames: int, size: int) -> dict:
    """The middle of a clip, with a damaged stretch of `length` frames, as a model sees it; by kind,
    at the last severity. A short stretch may lie elsewhere."""
    found = {}
    for kind in (CLEAN, *KINDS):
        damaged = store if kind == CLEAN else DamagedStore(store, Damage(kind, length, 3))
        crops = damaged.open(video_id)
        start = crops.runs[0][0] + (crops.runs[0][1] - frames) // 2
        found[kind] = crops.snippet(start, frames, size)
    return found


def figure(df: pd.DataFrame, length: int, synthetic: bool) -> Figure:
    """`response` against severity, 0 being CLEAN, for one length of the stretch: a panel a kind."""
    panels = {}
    for kind in KINDS:
        names = [CLEAN, *(Damage(kind, length, s).column for s in SEVERITIES)]
        part = df[df["column"].isin(names)]
        panels[kind] = part.assign(dose=part["column"].map(names.index))
    labels = {kind: f"{kind}, severity" for kind in KINDS}
    return figures.dose_curves(panels, labels, {}, title=TITLE, synthetic=synthetic)
