"""Ways of keeping patches: what they take on disk, what a clip costs to read, and what a store of
stretches changes about scores.

Encoded patches lie in memory here, as files do that were read a moment ago. All ways are lossless.
"""

from __future__ import annotations

import copy
import lzma
import math
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from dfil.datasets import load_records
from dfil.faces.crops import Crops
from dfil.faces.preprocess import COMPACT, WHOLE, preprocess
from dfil.models import load_weights
from dfil.profiles import PROFILES
from dfil.tools.bench.common import small_tree
from dfil.tools.plan import DEVICES, FRAMES, expected, throughputs
from dfil.train.own_video import SHIPPED
from dfil.train.scoring import loader, score
from dfil.train.snippets import SnippetDataset

GROUP = 16  # frames that are encoded together: a stretch; reading begins at its first
SNIPPET = 4  # frames that are asked for one after another
STORES = {"all frames": {**WHOLE, "store_margin": COMPACT["store_margin"]}, "4 x 16": COMPACT}


@dataclass(frozen=True)
class Way:
    """encode: frames (T, P, P, 3) uint8 -> bytes; T is `group`, fewer at a stretch's end. decode:
    bytes, how many frames and P -> that many, the first ones. kept: which STORES the table has."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, int, int], np.ndarray]
    group: int = GROUP


def _differences(frames_thwc: np.ndarray) -> bytes:
    """Each pixel less the one before it in time, in the first frame less the one above."""
    out_thwc = frames_thwc.copy()
    out_thwc[1:] -= frames_thwc[:-1]
    out_thwc[0, 1:] -= frames_thwc[0, :-1]
    return out_thwc.tobytes()


def _sums(data: bytes, count: int, side: int) -> np.ndarray:
    out_thwc = np.frombuffer(data, np.uint8).reshape(count, side, side, 3).copy()
    np.add.accumulate(out_thwc[0], 0, out=out_thwc[0])
    return np.add.accumulate(out_thwc, 0, out=out_thwc)


def _zlib(data: bytes, count: int, side: int) -> np.ndarray:
    size = count * side * side * 3
    return _sums(zlib.decompressobj().decompress(data, size), count, side)


def _lzma(data: bytes, count: int, side: int) -> np.ndarray:
    size, reader, out = count * side * side * 3, lzma.LZMADecompressor(), b""
    while len(out) < size:
        out += reader.decompress(data if not out else b"", size - len(out))
    return _sums(out, count, side)


def _png(frames_thwc: np.ndarray) -> bytes:
    return cv2.imencode(".png", frames_thwc[0], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _from_png(data: bytes, count: int, side: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[None]


def _x264(frames_thwc: np.ndarray) -> bytes:
    """H.264 of RGB without loss; before each frame's packet its length."""
    codec = av.CodecContext.create("libx264rgb", "w")
    codec.height, codec.width, codec.pix_fmt = *frames_thwc.shape[1:3], "rgb24"
    codec.time_base, codec.thread_count = Fraction(1, 25), 1
    codec.options = {"qp": "0", "preset": "veryfast", "bf": "0", "g": str(GROUP)}
    out = b""
    for frame_hwc in (*frames_thwc, None):
        frame = None if frame_hwc is None else av.VideoFrame.from_ndarray(frame_hwc, format="rgb24")
        for packet in codec.encode(frame):
            out += packet.size.to_bytes(4, "little") + bytes(packet)
    return out


def _from_x264(data: bytes, count: int, side: int) -> np.ndarray:
    codec, at, decoded = av.CodecContext.create("h264", "r"), 0, []
    codec.thread_count = 1
    for _ in range(count):
        size = int.from_bytes(data[at : at + 4], "little")
        decoded += codec.decode(av.Packet(data[at + 4 : at + 4 + size]))
        at += 4 + size
    return np.stack([frame.to_ndarray() for frame in decoded + codec.decode(None)])


WAYS = {
    "PNG": Way(_png, _from_png, 1),
    "zlib of differences": Way(lambda x: zlib.compress(_differences(x), 1), _zlib),
    "lzma of differences": Way(lambda x: lzma.compress(_differences(x), preset=0), _lzma),
    "H.264 of RGB, qp 0": Way(_x264, _from_x264),
}


class Patches:
    """The patches of a track, encoded; [n] is the patch of frame n, as of the array."""

    def __init__(self, crops: Crops, way: Way):
        self.way, self.side = way, crops.patches.shape[1]
        self.firsts, self.parts, at = [], [], 0
        for _, length in crops.runs:
            for first in range(at, at + length, way.group):
                part_thwc = np.array(crops.patches[first : min(first + way.group, at + length)])
                self.firsts.append(first)
                self.parts.append((way.encode(part_thwc), len(part_thwc)))
            at += length
        self._decoded: tuple[int, np.ndarray] = -1, np.empty(0)

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return sum(len(data) for data, _ in self.parts)

    def __getitem__(self, n: int) -> np.ndarray:
        part = bisect_right(self.firsts, n) - 1
        at = n - self.firsts[part]
        if self._decoded[0] != part or at >= len(self._decoded[1]):
            data, length = self.parts[part]
            frames_thwc = self.way.decode(data, min(length, at + SNIPPET), self.side)
            self._decoded = part, frames_thwc
        return self._decoded[1][at]


class Encoded(SnippetDataset):
    """The videos of a SnippetDataset, read from encoded patches. bytes: of them; seconds: of
    processor time that encoding took."""

    def __init__(self, data: SnippetDataset, way: Way):
        self.__dict__.update(data.__dict__)
        self.store, start, self._tracks = self, time.process_time(), {}
        for video_id in self._ids:
            crops = self._tracks[video_id] = copy.copy(data.store.open(video_id))
            crops._patches = Patches(crops, way)
        self.seconds = time.process_time() - start
        self.bytes = sum(crops.patches.bytes for crops in self._tracks.values())

    def open(self, video_id: str, track: int = 0) -> Crops:
        """As CropStore.open."""
        return self._tracks[video_id]


def ways(data: SnippetDataset, repeats: int) -> dict[str, dict[str, float]]:
    """By way: `share` of the raw bytes, milliseconds to `write` a video and to `read` a clip, the
    latter by turns, medians."""
    encoded = {name: Encoded(data, way) for name, way in WAYS.items()}
    raw = sum(data.store.open(name).patches.nbytes for name in data._ids)
    sources: Mapping[str, SnippetDataset] = {"raw": data, **encoded}
    taken: dict[str, list[float]] = {name: [] for name in sources}
    for turn in range(repeats + 1):  # the first opens the files and is not counted
        batches = {}
        for name, source in sources.items():
            source.epoch, start = turn, time.process_time()
            order = [list(range(len(data)))]
            ((batches[name], _, _),) = loader(source, order, torch.device("cpu"))
            taken[name].append(1000 * (time.process_time() - start) / len(data))
        if not all(torch.equal(batch, batches["raw"]) for batch in batches.values()):
            raise AssertionError("A way of keeping patches gave other pixels.")
    found = {"raw": {"share": 1.0, "write": 0.0}}
    for name, each in encoded.items():
        found[name] = {"share": each.bytes / raw, "write": 1000 * each.seconds / len(data)}
    return {name: f | {"read": float(np.median(taken[name][1:]))} for name, f in found.items()}


def rows(patches: Mapping[str, float], found: Mapping[str, dict]) -> list[dict]:
    """One row per store and way: megabytes per video of FaceForensics++, gigabytes of its two
    qualities and of all four datasets, milliseconds, and, by device, the share of a training step
    of DIL that reading a clip takes.

    patches: mean of P^2 by STORES. found: what `ways` measured; of all frames, raw and the smallest
    are shown.
    """
    paper = PROFILES["paper"]
    videos = {dataset: len(expected(paper, dataset).index) for dataset in FRAMES}
    known = throughputs(paper)
    steps = {device: known[device][1].get("dil", {}).get("train") for device in DEVICES}
    smallest, out = min(found, key=lambda name: found[name]["share"]), []
    for store, settings in STORES.items():
        most = math.prod(settings["stretches"]) if settings["stretches"] else 10**9
        for name, way in found.items():
            if store == "all frames" and name not in ("raw", smallest):
                continue
            size = 3e-9 * patches[store] * way["share"]
            disk = {d: size * min(most, FRAMES[d]) * count for d, count in videos.items()}
            row = {"store": store, "way": name, **way, "gb_ffpp": disk["ffpp"]}
            row |= {"gb_all": sum(disk.values()), "mb": 1e3 * disk["ffpp"] / videos["ffpp"]}
            row["of_step"] = {d: 1e-3 * way["read"] / s if s else None for d, s in steps.items()}
            out.append(row)
    return out


def scores(folder: Path, people: int, frames: int) -> dict[str, float]:
    """Of long built-in clips, scored by the weights that come along: AUC with all frames kept and
    with 4 x 16, and by how much a probability changes between the two on average (`apart`), and
    between two draws of snippets from all frames (`redrawn`)."""
    model, _ = load_weights(SHIPPED)
    records = load_records("ffpp", small_tree(folder / "tree", people, frames))
    got = {}
    for name, settings in STORES.items():
        place = folder / name.replace(" ", "")
        store = preprocess(records, place, 64, jobs=1, progress=False, **settings)
        usable = store.index.query("status == 'ok'")
        for train in (False, True) if name == "all frames" else (False,):
            how = {"snippets": 8, "frames": 4, "size": 64, "train": train}
            got[name, train] = score(model, SnippetDataset(store, usable, **how))
    whole, compact = got["all frames", False], got["4 x 16", False]
    redrawn = got["all frames", True]["score"]
    change = (compact["score"] - whole["score"]).to_numpy()
    return {
        "clips": len(whole),
        "frames": frames,
        "auc_all": float(roc_auc_score(whole["label"], whole["score"])),
        "auc_compact": float(roc_auc_score(whole["label"], compact["score"])),
        "apart": float(np.abs(change).mean()),
        "shift": float(change.mean()),
        "shift_error": float(1.96 * change.std(ddof=1) / math.sqrt(len(change))),
        "redrawn": float((redrawn - whole["score"]).abs().mean()),
    }


def table(result: dict) -> str:
    """Disk as Markdown."""
    heads = "kept", "way", "of raw", "MB a video", "FF++, GB", "all four, GB", "write, ms"
    lines = [f"| {' | '.join([*heads, 'read, ms', 'of a CPU step', 'of a GPU step'])} |"]
    lines.append("|---|---|" + "---:|" * 8)
    for row in result["rows"]:
        steps = ["?" if s is None else f"{100 * s:.1f} %" for s in row["of_step"].values()]
        numbers = [f"{row['share']:.2f}", f"{row['mb']:.1f}"]
        numbers += [f"{row[name]:.0f}" for name in ("gb_ffpp", "gb_all", "write")]
        cells = [row["store"], row["way"], *numbers, f"{row['read']:.1f}", *steps]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", result["about"]]
    if change := result.get("scores"):
        lines.append(
            "Scores of {clips} synthetic clips of {frames} frames: AUC {auc_all:.3f} with all"
            " frames, {auc_compact:.3f} with 4 x 16; a probability changes by {apart:.3f} on"
            " average, {shift:+.3f} ± {shift_error:.3f} in one direction, and by {redrawn:.3f} if"
            " snippets are drawn anew from all frames.".format(**change)
        )
    return "\n".join(lines)
