"""`dfil bench data`: random snippets from the crop store to a training batch, against the same
frames decoded from 256-pixel PNG files.

One PNG per frame is what common deepfake benchmarks train from. Both sides deliver the same thing,
uint8 batches of the model's size as the loader hands them to the training step, with one thread,
and are timed by processor time, by turns; files are in the page cache on both sides. The training
step normalises on its device, so that is not part of either; a second ratio adds it on the CPU to
both. Then what other ways of keeping the crops take on disk and to read (disk.py).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch

from dfil.datasets import load_records
from dfil.datasets.records import VideoRecord
from dfil.faces.preprocess import preprocess
from dfil.faces.store import CropStore
from dfil.synthetic.codec import decode, encode
from dfil.system.cores import cores
from dfil.system.errors import DataError
from dfil.system.memory import reuse_freed_memory
from dfil.tools.bench import disk
from dfil.tools.bench.common import small_tree, using_threads
from dfil.tools.bench.scenes import footage
from dfil.train.scoring import loader
from dfil.train.snippets import SnippetDataset, normalise, snippet_starts

PNG = 256  # pixels of the files
ENLARGED = 2  # synthetic frames have 320 pixels, whose faces are smaller than the paper's crop
CLIP = {"snippets": 4, "frames": 4}


def measure(
    clips: Path | None = None,
    size: int = 224,
    people: int = 4,
    frames: int = 80,
    repeats: int = 7,
    epochs: int = 5,
    long: tuple[int, int] | None = (20, 240),
) -> dict:
    """Snippets of four frames per second and core from the store and from PNG files, `ratio` of the
    two, memory, and disk.

    clips: a folder of real videos, by which disk is measured; built-in ones compress too well.
    people: an even number, each with a real and a forged clip of so many frames. repeats: medians
    are of so many turns, each a batch of all clips. epochs: passes of random access between the two
    readings of memory, the first pass, which opens the files, before them. long: people and frames
    of the clips whose scores are compared, None for no scores. Freed memory is kept, for both ways,
    as training and scoring do. Raises DataError if no face in `clips` is large enough.
    """
    reuse_freed_memory()
    with tempfile.TemporaryDirectory(prefix="dfil-bench-") as folder, using_threads(1):
        records = load_records("ffpp", _tree(Path(folder) / "tree", people, frames))
        store = preprocess(records, Path(folder) / "store", size, jobs=1, progress=False)
        rows = store.index.query("status == 'ok'")
        data = SnippetDataset(store, rows, **CLIP, size=size, train=True)
        names = _write_pngs(store, Path(folder) / "png")
        found = _speed(data, names, repeats) | {"memory_mib": _memory(data, epochs)}
        found["disk"] = _disk(Path(folder), clips, records, size, repeats)
        if long:
            found["disk"]["scores"] = disk.scores(Path(folder) / "long", *long)
    about = {"size": size, "png": PNG, "cores": cores(), "clips": len(rows), "frames": frames}
    return about | found


def _tree(root: Path, people: int, frames: int) -> Path:
    """A small FaceForensics++ tree whose frames are large enough for the paper's crops."""
    large = {"fx": ENLARGED, "fy": ENLARGED, "interpolation": cv2.INTER_CUBIC}
    for record in load_records("ffpp", small_tree(root, people, frames)):
        larger_thwc = np.stack([cv2.resize(f, None, **large) for f in decode(record.path)])
        record.path.write_bytes(encode(larger_thwc, 23))
    return root


def _write_pngs(store: CropStore, folder: Path) -> dict[tuple[str, int], str]:
    """Every stored frame as a face crop in a PNG file, by video and frame number."""
    names = {}
    for video_id in store.index.query("status == 'ok'")["video_id"]:
        crops, place = store.open(video_id), folder / video_id
        place.mkdir(parents=True)
        for number in crops.frames.tolist():
            name = names[video_id, number] = str(place / f"{number:04d}.png")
            cv2.imwrite(name, cv2.cvtColor(crops.snippet(number, 1, PNG)[0], cv2.COLOR_RGB2BGR))
    return names


class PngDataset(SnippetDataset):
    """The videos of a SnippetDataset, their snippets decoded from PNG files and resized as cv2 does
    by default; unflipped."""

    def __init__(self, data: SnippetDataset, names: dict[tuple[str, int], str]):
        self.__dict__.update(data.__dict__)
        self.names = names

    def _read(self, item: int, drawn_for: int, clip_uthwc: np.ndarray) -> None:
        video_id = self._ids[item]
        runs, rng = self.store.open(video_id).runs, np.random.default_rng([self.epoch, item])
        starts = snippet_starts(runs, self.snippets, self.frames, rng=rng)
        for snippet_thwc, start in zip(clip_uthwc, starts.tolist(), strict=True):
            for t, out_hwc in enumerate(snippet_thwc):
                picture_hwc = cv2.imread(self.names[video_id, start + t])
                picture_hwc = cv2.cvtColor(picture_hwc, cv2.COLOR_BGR2RGB)
                cv2.resize(picture_hwc, (self.size, self.size), dst=out_hwc)


def _speed(data: SnippetDataset, names: dict[tuple[str, int], str], repeats: int) -> dict:
    """Snippets per second and core of both ways, and their ratio, as medians over turns."""
    ways, batch, cpu = {"store": data, "png": PngDataset(data, names)}, [], torch.device("cpu")
    seconds: dict[str, list[float]] = {"store": [], "png": [], "normalise": []}
    for turn in range(repeats + 1):  # the first opens the files and is not counted
        for way, source in ways.items():
            source.epoch = turn
            start = time.process_time()
            ((batch, _, _),) = loader(source, [list(range(len(data)))], cpu)  # starts no processes
            seconds[way].append(time.process_time() - start)
        start = time.process_time()
        normalise(batch)
        seconds["normalise"].append(time.process_time() - start)
    counted = {name: np.array(times[1:]) for name, times in seconds.items()}
    (ours, pngs, extra), snippets = counted.values(), len(data) * data.snippets
    median = {name: float(np.median(times)) for name, times in counted.items()}
    return {
        "snippets_per_second": {name: snippets / median[name] for name in ways},
        "milliseconds_per_clip": {name: 1000 * s / len(data) for name, s in median.items()},
        "ratio": float(np.median(pngs / ours)),
        "ratio_normalised_on_cpu": float(np.median((pngs + extra) / (ours + extra))),
    }


def _memory(data: SnippetDataset, epochs: int) -> dict[str, float]:
    """MiB of this process, after one epoch and after `epochs` more: all of it, which counts the
    mapped files, and what is its own."""
    process, readings = psutil.Process(), {}
    for epoch in range(epochs + 1):
        data.epoch = epoch
        for item in np.random.default_rng(epoch).permutation(len(data)).tolist():
            data[item]
        if epoch in (0, epochs):
            found, after = process.memory_full_info(), "_after" * (epoch > 0)
            readings |= {f"resident{after}": found.rss / 2**20, f"own{after}": found.uss / 2**20}
    return readings


def _disk(
    folder: Path, clips: Path | None, records: list[VideoRecord], size: int, repeats: int
) -> dict:
    """The table of disk: of real videos in `clips`, where they are there, else of `records`."""
    kind = "synthetic"
    if clips:
        kind = "real"
        records = [VideoRecord("ffpp", p.stem, 0, "", "", "", p) for p in footage(clips)]
    mean, data = {}, None
    for name, settings in disk.STORES.items():
        place = folder / f"disk-{name.replace(' ', '')}"
        store = preprocess(records, place, size, jobs=1, progress=False, **settings)
        rows = store.index.query("status == 'ok' and patch >= @size")
        if not len(rows):
            raise DataError(f"{clips}: no face is {size} pixels wide; give larger videos.")
        mean[name] = float((rows["patch"] ** 2).mean())
        data = SnippetDataset(store, rows, **CLIP, size=size, train=True)
    about = (
        f"Measured on {len(rows)} {kind} videos with patches of {rows['patch'].mean():.0f} pixels."
        f" write: a video; read: a clip, {CLIP['snippets']} snippets of {CLIP['frames']} frames at"
        f" {size} px, in one process, and its share of a training step of DIL per clip."
    )
    return {"rows": disk.rows(mean, disk.ways(data, repeats)), "about": about}


def table(result: dict) -> str:
    """The result as text."""
    names = "snippets_per_second", "milliseconds_per_clip", "memory_mib"
    speed, times, memory = (result[name] for name in names)
    start, png = f"Snippets of 4 frames at {result['size']} px, one core", f"{result['png']}-px PNG"
    row = "  from {:16}{:8.0f} per second, {:6.2f} ms per clip{}"
    lines = [
        f"{start}, from {result['clips']} synthetic clips:",
        row.format("the crop store", speed["store"], times["store"], " of 4 snippets"),
        row.format(f"{png} files", speed["png"], times["png"], ""),
        f"  ratio {result['ratio']:.1f}; with normalisation on the CPU in both"
        f" {result['ratio_normalised_on_cpu']:.1f}",
        "Memory after one epoch and after more: {resident:.0f} and {resident_after:.0f} MiB with"
        " mapped files, {own:.0f} and {own_after:.0f} MiB of its own".format(**memory),
        "",
        disk.table(result["disk"]),
    ]
    return "\n".join(lines)
