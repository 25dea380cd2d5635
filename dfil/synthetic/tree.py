"""What all synthetic trees share: the mark at the top, files written whole, several processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from dfil.datasets import MARK
from dfil.datasets.lists import read_table
from dfil.synthetic.fields import generator
from dfil.synthetic.settings import FPS, PEOPLE, RENDERER, SETTINGS, Setting
from dfil.system import workers
from dfil.system.cores import cores
from dfil.system.errors import DataError
from dfil.system.files import atomic
from dfil.system.progress import progress_bar

MASK_CRF = 18

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    """What is drawn together. seed: that of the tree's people, who are others in every dataset."""

    root: Path
    setting: Setting
    frames: int
    seed: int

    def files(self) -> dict:
        """Where each file goes, by a name of its own."""
        raise NotImplementedError

    def missing(self) -> dict:
        """Those of `files` that are not there."""
        return {kind: path for kind, path in self.files().items() if not path.exists()}


# Files of a job as (kind, content), at least those of `missing`.
Work = Callable[[Job, Mapping], Iterator[tuple[object, bytes]]]


@dataclass(frozen=True)
class Tree:
    """How clips are written as a tree of one dataset's layout.

    plan(common, **sizes) -> jobs; draw: see Work; lists(jobs, **sizes) -> the owners' lists by
    their paths. size: of a picture. shift: how the clips differ from the FaceForensics++
    counterpart. folders: there even if nothing is in them. sizes: what can be asked for, with
    defaults; train, val and test are numbers of `counted`. seconds: a file and frame take on one
    core. version: raised whenever the same sizes no longer give the same files, the renderer apart.
    """

    layout: str
    size: int | list[int]
    plan: Callable[..., list]
    draw: Work
    lists: Callable[..., dict[str, object]] = lambda plan, **sizes: {}
    shift: Sequence[str] = ()
    folders: Sequence[str] = ()
    counted: str = "real_clips"
    unit: str = "clip"
    seconds: float = 0.01
    sizes: dict[str, object] = field(default_factory=lambda: {"train": 40, "test": 16})
    version: int = 1

    def write(
        self,
        root: str | Path,
        setting: Setting | str,
        *,
        frames: int | None = None,
        seed: int = 0,
        jobs: int | None = None,
        progress: bool = True,
        **asked,
    ) -> Path:
        """Write the tree under `root` and return it; files that are already there are kept.

        frames: length of a clip, default the setting's. jobs: processes, default one per core; the
        files do not depend on it. Raises DataError for an unknown setting or size, and if root
        holds something else than a synthetic tree of the same parameters.
        """
        setting = find_setting(setting)
        sizes = self.sizes | asked
        if unknown := sorted(sizes.keys() - self.sizes.keys()):
            known = ", ".join([*self.sizes, "frames", "seed", "jobs", "progress"])
            raise DataError(
                f"The setting {setting.name} has no {unknown[0]}; its sizes are {known}."
            )
        counts = {split: sizes[split] for split in ("train", "val", "test") if split in sizes}
        if min(counts.values()) < 0 or not any(counts.values()):
            numbers = ", ".join(f"{count} {split}" for split, count in counts.items())
            what = self.counted.replace("_", " ")
            raise DataError(
                f"A {self.layout} tree was asked for {numbers} {what}; ask for at least one."
            )
        root, frames = Path(root), frames or setting.frames
        planned = self.plan(Job(root, setting, frames, seed + PEOPLE.get(setting.name, 0)), **sizes)
        facts = {"synthetic": True, "layout": self.layout, "renderer": RENDERER}
        facts |= {"tree": self.version} if self.version else {}
        facts |= {"seed": seed, self.counted: counts, "frames": frames, "frames_per_second": FPS}
        facts |= {"size": self.size} | ({"shift": self.shift} if self.shift else {})
        claim(root, facts | {"setting": setting.as_dict()})
        for folder in self.folders:
            (root / folder).mkdir(exist_ok=True)
        for name, content in self.lists(planned, **sizes).items():
            text = content if isinstance(content, str) else json.dumps(content)
            write(root / name, text.encode())
        how = dict(unit=self.unit, seconds=frames * self.seconds, jobs=jobs, progress=progress)
        fill_all(planned, self.draw, root, **how)
        return root


def find_setting(setting: Setting | str) -> Setting:
    """The setting itself or the one of that name. Raises DataError naming those that there are."""
    if isinstance(setting, Setting):
        return setting
    if setting not in SETTINGS:
        raise DataError(
            f"No synthetic setting is called {setting}; there are {', '.join(SETTINGS)}."
        )
    return SETTINGS[setting]


def claim(root: Path, parameters: dict) -> None:
    """Write synthetic.json, or make sure that the one that is there says the same.

    Raises DataError if root holds a tree of other parameters, or files and no synthetic.json.
    """
    marker, content = root / MARK, json.dumps(parameters, indent=1) + "\n"
    if marker.is_file():
        there = read_table(marker, f"delete {root} and write the tree anew")
        here = json.loads(content)  # as a file gives it back: tuples are lists there
        different = [k for k in sorted(there.keys() | here.keys()) if there.get(k) != here.get(k)]
        if different:
            raise DataError(
                f"{root} holds a synthetic tree with other parameters ({', '.join(different)}); "
                "delete it or choose another folder."
            )
    elif root.exists() and any(root.iterdir()):
        raise DataError(
            f"{root} is not empty and not a synthetic tree; choose another folder, "
            "synthetic clips never mix with real ones."
        )
    else:
        write(marker, content.encode())


def write(path: Path, content: bytes) -> None:
    """A file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def fill_all(plan: Sequence[Job], work: Work, root: Path, *, seconds: float, **how) -> None:
    """`fill` every job that lacks a file. seconds: one file takes; how: see `draw`."""
    todo = [job for job in plan if job.missing()]
    files = sum(len(job.missing()) for job in todo) / max(1, len(todo))
    draw(todo, partial(fill, work), root, seconds=files * seconds, **how)


def fill(work: Work, job: Job) -> None:
    """Write those files of a job that are not there."""
    missing = job.missing()
    for kind, content in work(job, missing):
        if kind in missing:
            write(missing[kind], content)


def draw(
    todo: Sequence[Item],
    work: Callable[[Item], None],
    root: Path,
    *,
    unit: str,
    seconds: float,
    jobs: int | None,
    progress: bool,
) -> None:
    """Call `work`, a function of a module, on every item, in `jobs` processes.

    unit: what an item is called. seconds: what one takes on one core, for the forecast. The order
    is open, so each must write files of its own. Raises RunError if a process is killed.
    """
    jobs = max(1, min(jobs or cores(), len(todo)))
    if todo and progress:
        minutes = max(1, round(len(todo) * seconds / jobs / 60))
        print(
            f"Rendering synthetic clips to {root}, {unit} by {unit}, {len(todo)} in all: "
            f"about {minutes} min on {jobs} core(s)."
        )
    done = _done(todo, partial(_alone, work), jobs)
    how = dict(total=len(todo), unit=unit, desc="synthetic clips")
    for _ in progress_bar(done, **how, quiet=not progress):
        pass


def _done(todo: Sequence[Item], work: Callable[[Item], None], jobs: int) -> Iterator[None]:
    """Once per finished item."""
    if jobs == 1:
        yield from map(work, todo)
        return
    with workers.pool(jobs) as pool:
        died = "A rendering process was killed, perhaps for lack of memory"
        yield from workers.as_done(pool, work, todo, f"{died}; run again with fewer jobs.")


def _alone(work: Callable[[Item], None], item: Item) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one process per core already
    try:
        work(item)
    finally:
        cv2.setNumThreads(threads)


def deal(seed: int, purpose: str, options: Sequence, count: int) -> list:
    """`count` of the options in a random order, each as often as every other, or once more.

    Dealt, not thrown, so that a small tree has some of everything. Two purposes are dealt
    independently of each other.
    """
    hand = [options[n % len(options)] for n in range(count)]
    return [hand[n] for n in generator(seed, 0, purpose).permutation(count)]


def even(frames_thwc: np.ndarray) -> np.ndarray:
    """The frames without a last odd row or column, as 4:2:0 video needs them."""
    return frames_thwc[:, : frames_thwc.shape[1] // 2 * 2, : frames_thwc.shape[2] // 2 * 2]
