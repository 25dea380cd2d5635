"""Writes synthetic clips as a tree of exactly FaceForensics++'s layout, so that built-in and real data take the same way."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from dfil.datasets import MARK
from dfil.environment import cores
from dfil.errors import DataError, RunError
from dfil.files import atomic
from dfil.synthetic.codec import encode
from dfil.synthetic.render import render_target
from dfil.synthetic.settings import FPS, METHODS, RENDERER, SETTINGS, SIZE, Setting

MASK_CRF = 18
SECONDS_PER_FRAME = 0.05  # one core, a real and four fakes rendered and written at two qualities


@dataclass(frozen=True)
class _Job:
    root: Path
    target: int
    source: int
    setting: Setting
    frames: int
    qualities: tuple[str, ...]
    manipulations: tuple[str, ...]
    seed: int

    def files(self, method: str) -> dict[str, Path]:
        """Where a method's clip goes (`real` for the original), by quality; a fake has its mask as well."""
        if method == "real":
            folder, stem = self.root / "original_sequences" / "youtube", f"{self.target:03d}"
        else:
            folder, stem = self.root / "manipulated_sequences" / method, f"{self.target:03d}_{self.source:03d}"
        kinds = self.qualities if method == "real" else (*self.qualities, "masks")
        return {kind: folder / kind / "videos" / f"{stem}.mp4" for kind in kinds}

    def missing(self) -> list[str]:
        return [m for m in ("real", *self.manipulations) if not all(path.exists() for path in self.files(m).values())]


def write_ffpp(
    root: str | Path,
    setting: Setting | str = "temporal-only",
    *,
    train: int = 60,
    val: int = 10,
    test: int = 20,
    frames: int | None = None,
    qualities: Sequence[str] = ("c23", "c40"),
    manipulations: Sequence[str] = METHODS,
    seed: int = 0,
    jobs: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a synthetic tree under `root` and return it; clips that are already there are kept.

    setting: a Setting or the name of one in SETTINGS. train, val, test: how many people per split, even numbers, because the splits
    are pairs [a, b] whose fakes are a_b and b_a. Nobody appears in two splits. frames: length of every clip, default the setting's.
    jobs: processes, default one per core; the files do not depend on it. The tree carries `synthetic.json` with all parameters.

    Raises DataError if root holds something else than a synthetic tree of the same parameters.
    """
    setting = _find_setting(setting)
    root, frames = Path(root), frames or setting.frames
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if count < 0 or count % 2:
            raise DataError(f"The {split} split was given {count} people; FaceForensics++'s splits are pairs, so ask for an even number.")
    if unknown := set(manipulations) - set(METHODS):
        raise DataError(f"No synthetic manipulation is called {sorted(unknown)[0]}; there are {', '.join(METHODS)}.")
    if unknown := set(qualities) - set(setting.crf):
        raise DataError(f"The setting {setting.name} has no crf for {sorted(unknown)[0]}; it has {', '.join(setting.crf)}.")

    splits = _pairs(counts)
    parameters = {
        "synthetic": True,
        "layout": "FaceForensics++",
        "renderer": RENDERER,
        "seed": seed,
        "people": counts,
        "frames": frames,
        "frames_per_second": FPS,
        "size": SIZE,
        "setting": setting.as_dict(),
    }
    _mark(root, parameters)
    for split, pairs in splits.items():
        _write(root / "splits" / f"{split}.json", json.dumps(pairs).encode())

    shared = (setting, frames, tuple(qualities), tuple(manipulations), seed)
    todo = [
        _Job(root, int(target), int(source), *shared) for pairs in splits.values() for a, b in pairs for target, source in ((a, b), (b, a))
    ]
    todo = [job for job in todo if job.missing()]
    jobs = max(1, min(jobs or cores(), len(todo)))
    if todo and progress:
        share = (len(qualities) + 1) * (len(manipulations) + 1) / 15
        minutes = len(todo) * frames * SECONDS_PER_FRAME * share / jobs / 60
        print(f"Rendering synthetic clips of {len(todo)} people to {root}: about {max(1, round(minutes))} min on {jobs} core(s).")
    with tqdm(total=len(todo), unit="person", desc="synthetic clips", disable=None if progress else True) as bar:
        for _ in _run(todo, jobs):
            bar.update()
    return root


def _find_setting(setting: Setting | str) -> Setting:
    if isinstance(setting, Setting):
        return setting
    if setting not in SETTINGS:
        raise DataError(f"No synthetic setting is called {setting}; there are {', '.join(SETTINGS)}.")
    return SETTINGS[setting]


def _pairs(counts: dict[str, int]) -> dict[str, list[list[str]]]:
    """Consecutive numbers from 000 on, train first, paired within their split."""
    splits, first = {}, 0
    for split, count in counts.items():
        splits[split] = [[f"{n:03d}", f"{n + 1:03d}"] for n in range(first, first + count, 2)]
        first += count
    return splits


def _mark(root: Path, parameters: dict) -> None:
    """Write synthetic.json, or make sure that the one that is there says the same."""
    marker = root / MARK
    if marker.is_file():
        try:
            there = json.loads(marker.read_text())
        except ValueError as error:
            raise DataError(f"{marker} is not readable JSON; delete {root} and write the tree anew.") from error
        different = sorted(key for key in there.keys() | parameters.keys() if there.get(key) != parameters.get(key))
        if different:
            raise DataError(
                f"{root} holds a synthetic tree with other parameters ({', '.join(different)}); delete it or choose another folder."
            )
    elif root.exists() and any(root.iterdir()):
        raise DataError(f"{root} is not empty and not a synthetic tree; choose another folder, synthetic clips never mix with real ones.")
    else:
        _write(marker, (json.dumps(parameters, indent=1) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def _run(todo: list[_Job], jobs: int):
    """Yield once per finished person."""
    if jobs == 1:
        for job in todo:
            yield _write_person(job)
        return
    # spawn: forking a process that has threads (torch, OpenCV) can hang.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_write_person, job) for job in todo]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BrokenProcessPool as error:
            raise RunError("A rendering process was killed, perhaps for lack of memory; run again with fewer jobs.") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _write_person(job: _Job) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one process per core already
    try:
        missing = job.missing()
        fakes = [method for method in job.manipulations if method in missing]
        for clip in render_target(job.target, job.source, job.setting, methods=fakes, frames=job.frames, seed=job.seed):
            for kind, path in job.files(clip.method).items():
                if path.exists():
                    continue
                if kind == "masks":
                    content = encode(clip.masks_thw, MASK_CRF, "veryfast")
                else:
                    content = encode(clip.frames_thwc, job.setting.crf[kind], job.setting.preset)
                _write(path, content)
    finally:
        cv2.setNumThreads(threads)
