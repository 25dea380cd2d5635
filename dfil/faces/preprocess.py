"""From video files to a crop store: detect, follow the face, cut; every video on its own, several at a time, resumable."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from glob import escape
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from tqdm import tqdm

from dfil.datasets import VideoRecord, synthetic_setting
from dfil.datasets.sequences import is_sequence, on_disk
from dfil.faces import detect
from dfil.faces.boxes import MAX_GAP, runs
from dfil.faces.kept import People, Track, watch
from dfil.faces.store import (
    MARGIN,
    REACH,
    RULES,
    STORE_MARGIN,
    CropStore,
    TooLittleError,
    TrackWriter,
    crops_path,
    described,
    plan_scale,
    track_path,
    write_crops,
    write_index,
    write_json,
)
from dfil.faces.video import LOST, VideoError, count_frames, decode, read_sequence
from dfil.system import workers
from dfil.system.cores import cores
from dfil.system.errors import DataError, RunError
from dfil.system.files import remove_leftovers

SHORTEST = 4  # consecutive frames with a face that a track must have: one snippet of the paper
EVERY = 8  # frames from one detection to the next
PASSING = 0.2  # share of the largest track's total area and of its frames below both of which another one is somebody passing by
FORMAT = 3  # of the store; a change makes old rows stale
# For disks that a full store does not fit on: stretches at 0, 1/4, ... 1 of a video hold eight different test snippets, or 16 frames.
COMPACT = {"store_margin": 1.3, "stretches": (5, 16)}


@dataclass(frozen=True)
class Settings:
    """What the crops of a store depend on; one store has one.

    size: pixels of the typical snippet box. detector: "dlib" or "mtcnn". every: frames from one detection of a face to the next (the
    last frame always gets one; where a path is doubtful there are more). tracks: "largest" keeps the person with the largest total
    area, "all" everybody. reach, store_margin: longest snippet in frames and largest margin the store can serve. stretches:
    (how many, frames each) keeps only so many evenly spaced stretches of frames, None keeps all.
    """

    size: int
    detector: str = "dlib"
    every: int = EVERY
    tracks: str = "largest"
    reach: int = REACH
    store_margin: float = STORE_MARGIN
    stretches: tuple[int, int] | None = None
    format: int = FORMAT

    def __post_init__(self):
        if self.detector not in detect.DETECTORS:
            raise DataError(
                f"Unknown face detector {self.detector!r}; choose one of: {', '.join(detect.DETECTORS)}."
            )
        if not 1 <= self.every <= MAX_GAP:
            raise DataError(
                f"A face must be looked for every 1 to {MAX_GAP} frames, not every {self.every}."
            )
        if self.tracks not in RULES:
            raise DataError(
                f"Unknown choice of tracks {self.tracks!r}; choose one of: {', '.join(RULES)}."
            )
        if self.size < 8 or self.reach < 1 or self.store_margin < 1:
            raise DataError(
                f"size {self.size}, reach {self.reach}, store_margin {self.store_margin}: at least 8, 1 and 1 are needed."
            )


def preprocess(
    records: Sequence[VideoRecord],
    folder: str | Path,
    size: int,
    detector: str = "dlib",
    every: int = EVERY,
    jobs: int | None = None,
    progress: bool = True,
    executor: Executor | None = None,
    **settings,
) -> CropStore:
    """Cut the faces of `records` into the crop store `folder` and return it.

    Videos without `boxes_from` come first; the others then reuse the boxes and the scale of that video, if it is in the store and
    has the same frame size and at least as many frames, and are detected on their own otherwise. Sequences of pictures are face crops
    already and no detector looks at them. A video that cannot be used is a row with its status and reason, never an error. A second
    call does only what is missing, what failed unexpectedly, or what changed (source file, boxes); the index is written at the end
    and also after an interruption.

    jobs: processes, each with one thread (None: one per core; 1: none beside this one). executor: any concurrent.futures.Executor
    instead, for example that of a dask cluster which shares the file system. settings: further fields of Settings.
    With jobs > 1 the caller's script needs the usual `if __name__ == "__main__":`.

    Raises DataError if the records contradict each other or the store was made with other settings; RunError if a worker dies.
    """
    folder = Path(folder)
    chosen = Settings(size=size, detector=detector, every=every, **settings)
    _check(records)
    meta = _meta(records, chosen)
    _claim(folder, meta)
    done_before = sum(_finished(r, folder, chosen) for r in records)
    first = [r for r in records if not r.boxes_from]
    then = [r for r in records if r.boxes_from]
    todo = len(records) - done_before
    if executor is None:
        jobs = min(jobs or cores(), max(1, todo))
    if progress:
        where = "the given executor" if executor else f"{jobs} process{'es' if jobs > 1 else ''}"
        print(
            f"Preprocessing {todo} of {len(records)} videos ({done_before} done before) with {detector} in {where}.",
            flush=True,
        )
    try:
        with (
            _pool(jobs, executor, todo) as pool,
            tqdm(total=len(records), unit="video", disable=None if progress else True) as bar,
        ):
            forecast = _Forecast(todo, progress, jobs or 1)
            for stage in (first, then):
                # Whether a fake is up to date depends on its real's row, so ask again once the reals are done.
                left = [r for r in stage if not _finished(r, folder, chosen)]
                bar.update(len(stage) - len(left))
                for row in _each(pool, left, folder, chosen):
                    bar.update()
                    forecast.add(row)
    finally:
        store = write_index(folder, meta)
    return store


def process_video(record: VideoRecord, folder: str | Path, settings: Settings) -> dict:
    """Cut one video and write its files and its row; returns the row. Whatever goes wrong is said in the row."""
    folder = Path(folder)
    row = {
        "person": "",
        **asdict(record),
        "frames": 0,
        "faces": 0,
        "status": "ok",
        "reason": "",
        "crops": "",
        "patch": 0,
        "checksum": "",
    }
    row |= {
        "path": str(record.path.absolute()),
        "masks": str(record.masks.absolute()) if record.masks else "",
    }
    row |= {"tracks": 0, "rule": RULES[settings.tracks], "bytes": 0}
    try:
        row["key"] = _key(record, folder, settings)
        row |= (_cut_sequence if is_sequence(record.path) else _cut_video)(record, folder, settings)
    except VideoError as error:
        row |= {"status": "unreadable", "reason": str(error)}
    except (
        Exception
    ) as error:  # one bad file among thousands must not end the run; the row keeps what happened
        row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}", "key": ""}
    target = _row_path(folder, record.video_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    for name in (
        target.stem,
        f"{target.stem}@*",
    ):  # what a run that was killed, and an earlier one with more tracks, have left
        remove_leftovers(
            target.parent, f"{escape(target.stem) + name[len(target.stem) :]}.np?.*.part"
        )
    valid = {
        track_path(target.with_suffix(suffix), k)
        for k in range(row["tracks"])
        for suffix in (".npy", ".npz")
    }
    for path in [
        target.with_suffix(".npy"),
        target.with_suffix(".npz"),
        *target.parent.glob(f"{escape(target.stem)}@*.np?"),
    ]:
        if path not in valid:
            path.unlink(missing_ok=True)
    write_json(target, row)
    return row


def _cut_video(record: VideoRecord, folder: Path, settings: Settings) -> dict:
    """The part of the row that needs the pixels."""
    notes: list[str] = []
    reused = _boxes_of_real(record, folder, notes)
    if reused is not None:
        keep_n = _kept_stretches(len(reused[0][1]), settings.stretches)
        tracks = [(boxes_n4, valid_n & keep_n, scale) for boxes_n4, valid_n, scale in reused]
        row = write_crops(
            folder,
            record.video_id,
            decode(record.path, notes),
            tracks,
            settings.reach,
            settings.store_margin,
        )
        longest = _longest_run(tracks[0][1][: row["frames"]])
    else:
        # Frames are let go as they are decoded, so which of them to keep has to be known before.
        keep_n = (
            _kept_stretches(count_frames(record.path), settings.stretches)
            if settings.stretches
            else None
        )
        with watch(
            decode(record.path, notes), _finder(settings.detector), settings, keep_n
        ) as people:
            chosen = _choose(people, settings, notes)
            if isinstance(chosen, dict):
                return {
                    **chosen,
                    "frames": people.count,
                    "reason": "; ".join([chosen["reason"], *notes]),
                }
            row = _write_people(record, folder, settings, people, chosen)
            longest = _longest_run(chosen[0].stored_n)
    if row["faces"] < row["frames"]:
        notes.append(f"crops of {row['faces']} of {row['frames']} frames")
    if longest < SHORTEST:
        notes.append(f"no {SHORTEST} of them consecutive")
        return {
            "frames": row["frames"],
            "faces": row["faces"],
            "status": "too short",
            "reason": "; ".join(notes),
        }
    return {**row, "reason": "; ".join(notes)}


def _choose(people: People, settings: Settings, notes: list[str]) -> list[Track] | dict:
    """The tracks to store, the largest first, with a note on the others; status, faces and reason if there is none that could be."""
    everybody = sorted(people.tracks, key=lambda track: -track.area)
    usable = [track for track in everybody if _longest_run(track.valid_n) >= SHORTEST]
    if not usable:
        longest = max((_longest_run(track.valid_n) for track in everybody), default=0)
        faces = max((int(track.valid_n.sum()) for track in everybody), default=0)
        found = f"a face in at most {longest} consecutive frames of {people.count}, {SHORTEST} are needed"
        status = "too short" if longest else "no face"
        return {
            "status": status,
            "faces": faces,
            "reason": found if longest else f"no face in {people.count} frames",
        }
    if settings.tracks == "largest":
        return usable[:1]
    first = usable[0]
    passing = [
        t
        for t in usable
        if t.area < PASSING * first.area and t.valid_n.sum() < PASSING * first.valid_n.sum()
    ]
    chosen = [t for t in usable if t not in passing and t.stored_n.any()]
    if dropped := len(everybody) - len(chosen):
        notes.append(
            f"{dropped} more face{'s' * (dropped > 1)} too short or too small to be people of this video"
        )
    return chosen or usable[:1]


def _write_people(
    record: VideoRecord, folder: Path, settings: Settings, people: People, chosen: Sequence[Track]
) -> dict:
    """Cut the patches of the chosen tracks from what was kept of the frames."""
    planned = [
        (t.boxes_n4, t.stored_n, plan_scale(t.boxes_n4, t.valid_n, settings.size)) for t in chosen
    ]
    writers = []
    try:
        for k, track in enumerate(chosen):
            path = track_path(crops_path(folder, record.video_id), k)
            with TrackWriter(
                path, *planned[k], people.source, settings.reach, settings.store_margin
            ) as writer:
                for part_hwc, corner in track.parts():
                    writer.add(part_hwc, corner)
                writer.finish(people.count)
            writers.append(writer)
    except TooLittleError:  # a face many times smaller than it mostly is: what to keep of its frame was guessed too small
        return write_crops(
            folder,
            record.video_id,
            decode(record.path),
            planned,
            settings.reach,
            settings.store_margin,
        )
    return {**described(folder, writers), "frames": people.count}


def _cut_sequence(record: VideoRecord, folder: Path, settings: Settings) -> dict:
    """The same for a video that its owners distribute as face crops: the snippet at margin 1.3 is the whole picture, pixel by pixel."""
    notes: list[str] = []
    frames = read_sequence(record.path, notes)
    places = _places(np.array(list(frames)), notes)
    at = dict(zip(places.tolist(), frames.values(), strict=True))
    height, width = at[0].shape[:2]
    scale = min(1.0, settings.size / max(height, width))
    if (
        scale < 1
    ):  # here, and not on the grid, whose scales are only near this one: a picture is to be resized once, to exactly the size
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        at = {
            n: cv2.resize(picture_hwc, (width, height), interpolation=cv2.INTER_AREA)
            for n, picture_hwc in at.items()
        }
    middle = np.array([width, height]) / 2
    box = np.concatenate([middle - middle / MARGIN, middle + middle / MARGIN])
    valid_n = np.isin(np.arange(places[-1] + 1), places)
    boxes_n4 = np.tile(box, (len(valid_n), 1)).astype(np.float32)
    keep_n = valid_n & _kept_stretches(len(valid_n), settings.stretches)
    if _longest_run(keep_n) < SHORTEST:
        notes.insert(0, f"at most {_longest_run(keep_n)} pictures in a row, {SHORTEST} are needed")
        return {
            "frames": len(frames),
            "faces": len(frames),
            "status": "too short",
            "reason": "; ".join(notes),
        }
    filled = (
        at.get(n, at[0]) for n in range(len(valid_n))
    )  # what stands in a gap is not valid and never stored
    tracks = [(boxes_n4, keep_n, 1.0)]
    row = write_crops(
        folder, record.video_id, filled, tracks, settings.reach, settings.store_margin
    )
    if row["faces"] < len(frames):
        notes.append(f"crops of {row['faces']} of {len(frames)} frames")
    return {**row, "frames": len(frames), "reason": "; ".join(notes)}


def _places(numbers_k: np.ndarray, notes: list[str]) -> np.ndarray:
    """Frame numbers (k,), rising from 0, at which pictures with these file numbers are stored.

    Where file numbers leave a gap, however long, one frame number is left out: frames on its two sides are no neighbours, and a
    snippet never crosses it. Where this leaves no stretch of SHORTEST pictures, because every second frame or fewer was
    distributed, files next to each other are taken as neighbours.
    """
    gaps = np.cumsum(np.diff(numbers_k, prepend=numbers_k[:1]) > 1)
    count = int(gaps[-1])
    if not count:
        return np.arange(len(numbers_k))
    if max(length for _, length in runs(numbers_k)) < SHORTEST <= len(numbers_k):
        notes.append(
            f"{count} gaps in the pictures' numbers, so neighbouring files count as neighbouring frames"
        )
        return np.arange(len(numbers_k))
    notes.append(f"{count} gap{'s' * (count > 1)} in the pictures' numbers")
    return np.arange(len(numbers_k)) + gaps


def _boxes_of_real(
    record: VideoRecord, folder: Path, notes: list[str]
) -> list[tuple[np.ndarray, np.ndarray, float]] | None:
    """Boxes, valid and scale of each track of the real video with the same geometry; None, with a note why, where they do not fit.

    The scale is taken over too: computed anew from a shorter fake it would differ a little, and resampling would tell fakes from reals.
    """
    if not record.boxes_from:
        return None
    row = _read_row(folder, record.boxes_from)
    if row.get("status") != "ok":
        notes.append(f"own detection: no crops of {record.boxes_from}")
        return None
    first = next(decode(record.path))
    frames_here = count_frames(record.path)
    tracks = []
    for k in range(row["tracks"]):
        path = track_path(crops_path(folder, record.boxes_from).with_suffix(".npz"), k)
        with np.load(path, allow_pickle=False) as real:
            source, count, scale = real["source"], int(real["count"]), float(real["scale"])
            frames, boxes = real["frames"], real["boxes"]
        if (first.width, first.height) != tuple(source):
            notes.append(
                f"own detection: {first.width}x{first.height}, {record.boxes_from} has {source[0]}x{source[1]}"
            )
            return None
        if (
            LOST * frames_here > count
        ):  # one or two more than the real's are only left without a box
            notes.append(f"own detection: {frames_here} frames, {record.boxes_from} has {count}")
            return None
        boxes_n4, valid_n = np.zeros((count, 4), np.float32), np.zeros(count, bool)
        boxes_n4[frames], valid_n[frames] = boxes / np.float32(scale), True
        tracks.append((boxes_n4, valid_n, scale))
    return tracks


def _longest_run(valid_n: np.ndarray) -> int:
    return max((length for _, length in runs(np.flatnonzero(valid_n))), default=0)


def _kept_stretches(n: int, stretches: tuple[int, int] | None) -> np.ndarray:
    keep = np.ones(n, bool)
    if stretches and stretches[0] * stretches[1] < n:
        keep[:] = False
        for start in np.linspace(0, n - stretches[1], stretches[0]).round().astype(int):
            keep[start : start + stretches[1]] = True
    return keep


# ---- which videos are done


def _row_path(folder: Path, video_id: str) -> Path:
    return folder / "crops" / f"{video_id}.json"


def _read_row(folder: Path, video_id: str) -> dict:
    """The row of a video; empty where there is none or it cannot be read, so that the video is done again."""
    try:
        return json.loads(_row_path(folder, video_id).read_text())
    except (OSError, ValueError):
        return {}


def _key(record: VideoRecord, folder: Path, settings: Settings) -> str:
    """Everything the row and the crops follow from; a row with another key is stale."""
    disk = on_disk(record.path)
    stat = disk.stat() if disk.exists() else None
    source = [stat.st_size, stat.st_mtime_ns] if stat else []
    real = _read_row(folder, record.boxes_from) if record.boxes_from else {}
    described = {name: str(value) for name, value in asdict(record).items() if name != "person"}
    return json.dumps(
        [described, source, real.get("key", ""), real.get("checksum", ""), asdict(settings)]
    )


def _finished(record: VideoRecord, folder: Path, settings: Settings) -> bool:
    row = _read_row(folder, record.video_id)
    crops = _row_path(folder, record.video_id)
    files = [
        track_path(crops.with_suffix(suffix), k)
        for k in range(row.get("tracks", 1))
        for suffix in (".npy", ".npz")
    ]
    complete = row.get("status") != "ok" or all(path.is_file() for path in files)
    return bool(row) and complete and row.get("key") == _key(record, folder, settings)


def _check(records: Sequence[VideoRecord]) -> None:
    if not records:
        raise DataError("There is no video to preprocess; look at the dataset's root and filters.")
    ids = [r.video_id for r in records]
    if twice := [video_id for video_id, n in Counter(ids).items() if n > 1]:
        raise DataError(
            f"Two records have the video id {twice[0]!r}; each needs its own, or one would be written over the other."
        )
    for video_id in ids:
        if PurePosixPath(video_id).is_absolute() or ".." in PurePosixPath(video_id).parts:
            raise DataError(
                f"The video id {video_id!r} would be written outside the store; an id is a relative file name."
            )
        if "@" in PurePosixPath(video_id).name:
            raise DataError(
                f"The video id {video_id!r} has an @ in its file name, which marks a video's further tracks; rename it."
            )


def _meta(records: Sequence[VideoRecord], settings: Settings) -> dict:
    datasets = sorted({r.dataset for r in records})
    if len(datasets) > 1:
        raise DataError(
            f"One store holds one dataset, not {' and '.join(datasets)}; give each its own folder."
        )
    by_folder = {r.path.parent: r.path for r in records}.values()
    marks = [synthetic_setting(path) for path in by_folder]
    if any(mark != marks[0] for mark in marks):
        raise DataError(
            "The records come from several trees, of which at least one is synthetic; give each its own store."
        )
    package = {"dlib": "dlib-bin", "mtcnn": "facenet-pytorch"}[settings.detector]
    used = {
        name: version(name) for name in ("dfil", "av", "numpy", "opencv-python-headless", package)
    }
    synthetic = {"synthetic": marks[0] is not None, "synthetic_setting": marks[0]}
    return json.loads(
        json.dumps({"dataset": datasets[0], **asdict(settings), **synthetic, "versions": used})
    )


def _claim(folder: Path, meta: dict) -> None:
    """Make the folder a store with these settings, or find that it is one already."""
    path = folder / "meta.json"
    if path.is_file():
        before = json.loads(path.read_text())
        names = ["dataset", *Settings.__dataclass_fields__, "synthetic", "synthetic_setting"]
        if other := [name for name in names if before.get(name) != meta[name]]:
            was = ", ".join(f"{name} {before.get(name)!r} (now {meta[name]!r})" for name in other)
            raise DataError(
                f"{folder} is a crop store with {was}; take another folder, or delete this one."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, meta)


def made_with(folder: Path) -> dict:
    """The settings of an existing store but for its size, as keywords of `preprocess`; empty if there is none."""
    path = Path(folder) / "meta.json"
    if not path.is_file():
        return {}
    meta = json.loads(path.read_text())
    settings = {
        name: meta[name]
        for name in Settings.__dataclass_fields__
        if name in meta and name not in ("size", "format")
    }
    return settings | {
        "stretches": tuple(settings["stretches"]) if settings.get("stretches") else None
    }


# ---- many videos at a time


@lru_cache(maxsize=1)
def _finder(name: str) -> detect.Finder:
    """Built once per process: loading takes longer than a video."""
    return detect.finder(name)


def _start_worker() -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which lets the videos in work finish


@contextmanager
def _pool(jobs: int | None, executor: Executor | None, todo: int) -> Iterator[Executor | None]:
    """The given executor, a pool of own processes, or None for this process."""
    if executor is not None or jobs == 1 or not todo:
        yield executor
        return
    pool = workers.pool(jobs, _start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _work(record: VideoRecord, folder: Path, settings: Settings) -> dict:
    """process_video in a worker process, with one thread."""
    cv2.setNumThreads(1)
    if settings.detector == "mtcnn":
        import torch

        torch.set_num_threads(1)
    return process_video(record, folder, settings)


def _each(
    pool: Executor | None, records: Sequence[VideoRecord], folder: Path, settings: Settings
) -> Iterator[dict]:
    """The rows of the videos, in the order in which they are done."""
    if pool is None:
        for record in records:
            yield process_video(record, folder, settings)
        return
    futures: list[Future] = [pool.submit(_work, record, folder, settings) for record in records]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise RunError(
            "A preprocessing process died, most often for lack of memory; call again with fewer jobs, finished videos are kept."
        ) from error
    finally:
        for future in futures:
            future.cancel()


class _Forecast:
    """Says once, after the first few videos, about how long the rest will take and how much disk it will fill."""

    def __init__(self, todo: int, progress: bool, jobs: int):
        self.todo, self.done, self.bytes, self.after = (
            todo,
            0,
            0,
            max(4, 3 * jobs) if progress else None,
        )
        self.first, self.start = (
            jobs,
            0.0,
        )  # the first video of each process also loads its libraries: time starts after them

    def add(self, row: dict) -> None:
        self.done += 1
        self.bytes += row["bytes"]
        if self.done == self.first:
            self.start = time.monotonic()
        if self.done == self.after and self.done < self.todo:
            share = (self.todo - self.done) / self.done
            seconds = (
                (time.monotonic() - self.start) / (self.done - self.first) * (self.todo - self.done)
            )
            duration = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
            tqdm.write(
                f"The other {self.todo - self.done} videos: about {duration} and {self.bytes * share / 1e9:.1f} GB."
            )
