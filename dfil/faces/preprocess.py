"""From video files to a crop store: every video on its own, several at a time, resumable."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
from tqdm import tqdm

from dfil import datasets
from dfil.datasets import VideoRecord
from dfil.datasets.sequences import is_sequence
from dfil.faces import rows
from dfil.faces.one_video import process_video
from dfil.faces.settings import COMPACT, EVERY, WHOLE, Settings, claim, describe, settings_of, usual
from dfil.faces.store import CropStore, write_index
from dfil.faces.video import VideoError, count_frames
from dfil.system import workers
from dfil.system.cores import cores
from dfil.system.errors import DataError, MachineError, RunError, machine_fault
from dfil.system.locks import owner
from dfil.system.progress import progress_bar

__all__ = ["COMPACT", "WHOLE", "Settings", "preprocess", "process_video", "settings_of", "usual"]
PATCH = 1.2, 1.4  # side of a patch over the crop's at store margins up to 1.3 and above, measured
SAMPLE = 5  # videos whose length stands for all when disk is estimated


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

    Videos without `boxes_from` come first; the others then reuse the boxes and the scale of that
    video, if it is in the store and has the same frame size and at least as many frames, and are
    detected on their own otherwise. Sequences of pictures are face crops already and no detector
    looks at them. A video that cannot be used is a row with its status and reason, never an error.
    A second call does only what is missing, what failed unexpectedly, or what changed; the index is
    written at the end and also after an interruption. It has the rows of the records and of other
    parts of their tree, and none of videos that this tree does not hold (rows.Tree). Of two calls
    on one store, one waits.

    jobs: processes, each with one thread (None: one per core; 1: none beside this one). executor:
    any concurrent.futures.Executor instead, for example that of a dask cluster which shares the
    file system. settings: further fields of Settings. With jobs > 1 the caller's script needs the
    usual `if __name__ == "__main__":`.

    Raises DataError if the records contradict each other or the store was made with other settings;
    MachineError if disk, memory or permissions do not suffice; RunError if a worker dies.
    """
    folder = Path(folder)
    chosen = Settings(size=size, detector=detector, every=every, **settings)
    if jobs is not None and jobs < 1:
        raise DataError(f"{jobs} jobs: at least 1 is needed.")
    _check(records)
    meta, tree = describe(records, chosen), rows.Tree(records)
    with owner(folder, f"preprocess {records[0].dataset}"):
        claim(folder, meta)
        left = [r for r in records if not rows.is_done(r, folder, chosen)]
        _check_space(left, folder, chosen)
        if executor is None:
            jobs = min(jobs or cores(), max(1, len(left)))
        if progress and left:
            where = f"{jobs} process{'es' * (jobs > 1)}" if not executor else "the given executor"
            done = f"{len(records) - len(left)} done before"
            videos = f"{len(left)} of {len(records)} videos ({done})"
            print(f"Preprocessing {videos} with {detector} in {where}.", flush=True)
        try:
            with _pool(jobs, executor, len(left)) as pool:
                _all(pool, records, left, folder, chosen, jobs or 1, progress)
        except Exception as error:
            if not isinstance(error, RunError) and (fault := machine_fault(error)):
                raise MachineError(fault) from error
            raise
        finally:
            rows.refresh(records, folder)
            store = write_index(folder, meta, tree.held)
    return store


def _all(pool, records, left, folder: Path, chosen: Settings, jobs: int, progress: bool) -> None:
    """Cut all videos. After the first few, once, a line says about how long the rest takes and what
    disk it fills."""
    done, size, start = 0, 0, 0.0
    with progress_bar(total=len(records), unit="video", quiet=not progress) as bar:
        for reuses in (False, True):
            stage = [r for r in records if bool(r.boxes_from) == reuses]
            # Whether a fake is up to date depends on its real's row, so ask once those are done.
            todo = [r for r in stage if not rows.is_done(r, folder, chosen)]
            bar.update(len(stage) - len(todo))
            for row in _each(pool, todo, folder, chosen):
                bar.update()
                done, size = done + 1, size + row["bytes"]
                if done == jobs:  # the first video of each process also loads its libraries
                    start = time.monotonic()
                rest = len(left) - done
                if progress and done == max(4, 3 * jobs) and rest:
                    took = duration((time.monotonic() - start) / (done - jobs) * rest)
                    disk = f"{size * rest / done / 1e9:.1f} GB"
                    tqdm.write(f"The other {rest} videos: about {took} and {disk}.")


def _check(records: Sequence[VideoRecord]) -> None:
    if not records:
        raise DataError("There is no video to preprocess; look at the dataset's root and filters.")
    for video_id, count in Counter(r.video_id for r in records).items():
        path, named = PurePosixPath(video_id), f"video id {video_id!r}"
        if count > 1:
            said = "each needs its own, or one would be written over the other"
            raise DataError(f"Two records have the {named}; {said}.")
        if path.is_absolute() or ".." in path.parts:
            said = "would be written outside the store; an id is a relative file name"
            raise DataError(f"The {named} {said}.")
        if "@" in path.name:
            said = "has an @ in its file name, which marks a video's further tracks; rename it"
            raise DataError(f"The {named} {said}.")
    name = records[0].dataset
    if name in datasets.available() and not datasets.get(name).crops:
        for record in records:
            if is_sequence(record.path):
                raise DataError(
                    f"{record.path}: a folder of pictures, which would be taken as face crops just"
                    " as they are; if they are face crops, let the dataset's adapter say `crops ="
                    " True`, else give the videos that the pictures are from."
                )


def _check_space(left: Sequence[VideoRecord], folder: Path, chosen: Settings) -> None:
    """Raises MachineError if the crops that are to be made may not fit on the disk."""
    lengths = []
    for record in left[:: max(1, len(left) // SAMPLE)]:
        try:
            lengths += [] if is_sequence(record.path) else [count_frames(record.path)]
        except VideoError:  # its row will say so
            continue
    if not lengths:
        return
    kept = chosen.stretches[0] * chosen.stretches[1] if chosen.stretches else max(lengths)
    frames = sum(min(kept, n) for n in lengths) / len(lengths)
    patch = chosen.size * PATCH[chosen.store_margin > 1.3]
    need, free = 3 * patch**2 * frames * len(left), shutil.disk_usage(folder).free
    if need > free:
        raise MachineError(
            f"{folder}: the crops of {len(left)} videos need up to {need / 1e9:.0f} GB, and"
            f" {free / 1e9:.1f} GB are free; take another disk, a smaller size, or fewer stretches."
        )


# ---- many videos at a time


@contextmanager
def _pool(jobs: int | None, executor: Executor | None, todo: int) -> Iterator[Executor | None]:
    """The given executor, a pool of own processes, or None for this process."""
    if executor is not None or jobs == 1 or not todo:
        yield executor
        return
    # Ctrl-C is for this process, which lets the videos in work finish.
    pool = workers.pool(jobs, signal.signal, signal.SIGINT, signal.SIG_IGN)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _work(folder: Path, settings: Settings, record: VideoRecord) -> dict:
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
        return (process_video(record, folder, settings) for record in records)
    died = "call again with fewer jobs, finished videos are kept."
    died = f"A preprocessing process died, most often for lack of memory; {died}"
    return workers.as_done(pool, partial(_work, folder, settings), records, died)


def duration(seconds: float) -> str:
    """A time in words: seconds up to 90, minutes up to 90, then hours."""
    if seconds <= 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds <= 5400 else f"{seconds / 3600:.1f} hours"
