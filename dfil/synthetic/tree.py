"""What the writers of all synthetic trees share: the mark at the top, files written whole, clips drawn by several processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from dfil.datasets import MARK
from dfil.synthetic.fields import generator
from dfil.synthetic.settings import FPS, RENDERER, SETTINGS, Setting
from dfil.system import workers
from dfil.system.cores import cores
from dfil.system.errors import DataError, RunError
from dfil.system.files import atomic

Job = TypeVar("Job")
MASK_CRF = 18


def find_setting(setting: Setting | str) -> Setting:
    """The setting itself or the one of that name. Raises DataError naming those that there are."""
    if isinstance(setting, Setting):
        return setting
    if setting not in SETTINGS:
        raise DataError(
            f"No synthetic setting is called {setting}; there are {', '.join(SETTINGS)}."
        )
    return SETTINGS[setting]


@dataclass(frozen=True)
class Common:
    """What all jobs of a tree have in common. seed: that of its people, who are others in every dataset."""

    root: Path
    setting: Setting
    frames: int
    seed: int


def begin(
    root: str | Path,
    setting: Setting | str,
    train: int,
    test: int,
    frames: int | None,
    seed: int,
    *,
    people: int,
    layout: str,
    tree: int,
    counted: str,
    size: Sequence[int],
    shift: Sequence[str],
) -> Common:
    """Claim `root` for a tree of training and test data without a validation split, and return what its jobs have in common.

    frames: None for the setting's. people: what is added to the seed, see settings.PEOPLE. tree: the writer's version. counted: what
    train and test are numbers of, "clips" or "sequences". size: width and height of a picture. All but people goes into synthetic.json.

    Raises DataError if nothing or less is asked for, and as `claim` does.
    """
    setting = find_setting(setting)
    root, frames = Path(root), frames or setting.frames
    if min(train, test) < 0 or train + test == 0:
        raise DataError(
            f"A {layout} tree was asked for {train} training and {test} test {counted}; ask for at least one."
        )
    claim(
        root,
        {
            "synthetic": True,
            "layout": layout,
            "renderer": RENDERER,
            "tree": tree,
            "seed": seed,
            f"real_{counted}": {"train": train, "test": test},
            "frames": frames,
            "frames_per_second": FPS,
            "size": size,
            "shift": shift,
            "setting": setting.as_dict(),
        },
    )
    return Common(root, setting, frames, seed + people)


def claim(root: Path, parameters: dict) -> None:
    """Write synthetic.json, or make sure that the one that is there says the same.

    Raises DataError if root holds a tree of other parameters, or files and no synthetic.json.
    """
    marker, content = root / MARK, json.dumps(parameters, indent=1) + "\n"
    parameters = json.loads(content)  # as a file gives it back: tuples are lists there
    if marker.is_file():
        try:
            there = json.loads(marker.read_text())
        except ValueError as error:
            raise DataError(
                f"{marker} is not readable JSON; delete {root} and write the tree anew."
            ) from error
        different = sorted(
            key for key in there.keys() | parameters.keys() if there.get(key) != parameters.get(key)
        )
        if different:
            raise DataError(
                f"{root} holds a synthetic tree with other parameters ({', '.join(different)}); delete it or choose another folder."
            )
    elif root.exists() and any(root.iterdir()):
        raise DataError(
            f"{root} is not empty and not a synthetic tree; choose another folder, synthetic clips never mix with real ones."
        )
    else:
        write(marker, content.encode())


def write(path: Path, content: bytes) -> None:
    """A file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def draw(
    todo: Sequence[Job],
    work: Callable[[Job], None],
    root: Path,
    *,
    unit: str,
    seconds: float,
    jobs: int | None,
    progress: bool,
) -> None:
    """Call `work`, a function of a module, on every job, in `jobs` processes (default one per core).

    unit: what a job is called. seconds: what one takes on one core, for the forecast. The order in which jobs end is open, so each
    must write files of its own. Raises RunError if a process is killed.
    """
    jobs = max(1, min(jobs or cores(), len(todo)))
    if todo and progress:
        minutes = max(1, round(len(todo) * seconds / jobs / 60))
        print(
            f"Rendering synthetic clips to {root}, {unit} by {unit}, {len(todo)} in all: about {minutes} min on {jobs} core(s)."
        )
    with tqdm(
        total=len(todo), unit=unit, desc="synthetic clips", disable=None if progress else True
    ) as bar:
        for _ in _run(todo, work, jobs):
            bar.update()


def deal(seed: int, purpose: str, options: Sequence, count: int) -> list:
    """`count` of the options in a random order, each as often as every other (the first ones once more where it does not come out even).

    Dealt, not thrown, so that a small tree has some of everything. Two purposes are dealt independently of each other.
    """
    hand = [options[n % len(options)] for n in range(count)]
    return [hand[n] for n in generator(seed, 0, purpose).permutation(count)]


def even(frames_thwc: np.ndarray) -> np.ndarray:
    """The frames without a last odd row or column, as 4:2:0 video needs them."""
    return frames_thwc[:, : frames_thwc.shape[1] // 2 * 2, : frames_thwc.shape[2] // 2 * 2]


def _run(todo: Sequence[Job], work: Callable[[Job], None], jobs: int) -> Iterator[None]:
    """Yield once per finished job."""
    if jobs == 1:
        for job in todo:
            yield _alone(work, job)
        return
    with workers.pool(jobs) as pool:
        waiting = [pool.submit(_alone, work, job) for job in todo]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BrokenProcessPool as error:
            raise RunError(
                "A rendering process was killed, perhaps for lack of memory; run again with fewer jobs."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _alone(work: Callable[[Job], None], job: Job) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one process per core already
    try:
        work(job)
    finally:
        cv2.setNumThreads(threads)
