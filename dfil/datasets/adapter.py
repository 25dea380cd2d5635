"""What `dfil` asks of a dataset. A further dataset is one subclass of Adapter in one file.

Only `videos` must be written; everything else has a default. Inside this package the class is added
to BUILT_IN in __init__.py; outside, in a package of one's own, it is named by the entry point group
`dfil.datasets` or handed to `dfil.datasets.register`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from dfil.datasets.lists import printable
from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.splits import SEED, SHARE, SPLITS, carve
from dfil.system.errors import DataError, MachineError, machine_fault

MARK = "synthetic.json"  # lies at the top of every tree that dfil.synthetic writes


@dataclass(frozen=True)
class Filters:
    """Which videos are wanted; None wants all. Reals stay whatever `manipulations` says."""

    compressions: Collection[str] | None = None
    manipulations: Collection[str] | None = None
    splits: Collection[str] | None = None

    @property
    def owners_splits(self) -> set[str]:
        """The wanted splits before validation is carved from training."""
        return {"train" if s == "val" else s for s in self.splits or SPLITS}

    def __bool__(self) -> bool:
        return any(wanted is not None for wanted in vars(self).values())


class Adapter(ABC):
    """A dataset: how its owners' tree is read, and what the rest of `dfil` must know about it."""

    name: str  # on the command line, in dfil.toml, and as $DFIL_<NAME>
    title: str  # in sentences and tables
    manipulations: tuple[str, ...]
    further: tuple[str, ...] = ()  # manipulations that are read only when they are named
    compressions: tuple[str, ...] = ()  # none: every video is in one, which has no name
    detector = "mtcnn"  # the paper's for all but FaceForensics++
    tracks = "largest"  # "all" where any of several people may be the forged one
    carved = True  # the owners give no validation split, so one is carved from training
    crops = False  # folders of pictures are face crops already, in which no face is looked for
    lists_all = False  # the tree names every video: another total than published is just a note
    setting = ""  # of dfil.synthetic: its built-in counterpart
    releases: Mapping[str, Mapping] = {}  # name -> (split, label), "" for any -> published videos
    example = ""  # the path of a video below the root, for the sentence about an empty tree

    @abstractmethod
    def videos(self, root: Path, wanted: Filters) -> Iterable[VideoRecord]:
        """All videos below root with the owners' splits; `wanted` may spare reading, no more.

        Raises DataError naming the file if a list is absent, damaged or contradicts the tree.
        """

    def missing(self, root: Path, wanted: Filters) -> Iterable[Path]:
        """What the owners list and the tree lacks; paths below root."""
        return ()

    def unreadable(self, root: Path) -> Iterable[str]:
        """Files that cannot be read, with reasons."""
        return ()

    def leaks(self, records: Sequence[VideoRecord]) -> Iterable[str]:
        """What is in training and in test and should not."""
        return ()

    def notes(self, root: Path, records: Sequence[VideoRecord]) -> Iterable[str]:
        """What whoever reads the scores should know."""
        return ()

    def expected(self, root: Path) -> tuple[str, dict[tuple[str, str], int]] | None:
        """The release that this tree is, and its numbers; None where nothing is published."""
        return next(iter(self.releases.items()), None)

    def record(
        self,
        video_id: str,
        manipulation: str,
        split: str,
        path: Path,
        compression: str = "",
        **more,
    ) -> VideoRecord:
        """A video of this dataset, fake unless its manipulation is REAL."""
        what = int(manipulation != REAL), manipulation, compression
        return VideoRecord(self.name, video_id, *what, split, path, **more)

    def records(
        self, root: Path, wanted: Filters = Filters(), share: float = SHARE, seed: int = SEED
    ) -> list[VideoRecord]:
        """The wanted videos, reals first; share and seed are those of `splits.carve`.

        Raises DataError for filters that name something unknown, and if no video is left.
        """
        self.check(root, wanted)
        found = list(self.videos(root, wanted))
        _refuse_odd(r.path for r in found)
        for r in found:
            if r.label != int(r.manipulation != REAL):
                raise DataError(
                    f"{r.path}: its label is {r.label!r} and its manipulation {r.manipulation!r};"
                    f" {REAL!r} has the label 0, every other one 1."
                )
            self._refuse_unknown(r)
        if self.carved:
            found = carve(found, share, seed)
        names = self.manipulations if wanted.manipulations is None else wanted.manipulations
        found = [
            r
            for r in found
            if r.manipulation in (REAL, *names)
            and (wanted.splits is None or r.split in wanted.splits)
            and (wanted.compressions is None or r.compression in wanted.compressions)
        ]
        if not found:
            said = [", ".join(sorted(w)) or "none" for w in vars(wanted).values() if w is not None]
            raise DataError(
                f"{root} holds no {self.title} video for "
                f"{'; '.join(said) if said else 'any filter'}; "
                f"expected for example {root / self.example}."
            )
        return sorted(found, key=lambda r: r.label)

    def _refuse_unknown(self, r: VideoRecord) -> None:
        """Raise DataError for a record that would be passed over, or mixed with ours, without a
        word: a manipulation or split that nobody names, and a validation split where one is carved.
        """
        for what, name, known in (
            ("manipulation", r.manipulation, (REAL, *self.manipulations, *self.further)),
            ("split", r.split, (*SPLITS, "")),
        ):
            if name not in known:
                choice = ", ".join(map(repr, known))
                raise DataError(f"{r.path}: {self.title} has no {what} {name!r}; it has {choice}.")
        if self.carved and r.split == "val":
            raise DataError(
                f"{r.path}: a validation video, though {self.title} says that it has none and that"
                " one is to be carved from training; let its adapter set `carved = False`."
            )

    def check(self, root: Path, wanted: Filters) -> None:
        """Raises DataError if root is no folder, or a filter names what the dataset has not."""
        _refuse_odd([root.absolute()])  # each row of the crop store names it
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; give the top of the {self.title} tree.")
        for what, names, choices in (
            ("compression", wanted.compressions, self.compressions),
            ("manipulation", wanted.manipulations, (REAL, *self.manipulations, *self.further)),
            ("split", wanted.splits, SPLITS),
        ):
            unknown = [names] if isinstance(names, str) else sorted(set(names or ()) - {*choices})
            if unknown:
                advice = f"give a list of: {', '.join(choices)}" if choices else "give none"
                raise DataError(f"{self.title} has no {what} {unknown[0]!r}; {advice}.")


def published(*videos: int) -> dict[tuple[str, str], int]:
    """An entry of `releases`: real and fake videos of training (before validation is carved from
    it), then those of test."""
    return dict(zip(product(("train", "test"), ("real", "fake")), videos, strict=True))


def sides(records: Sequence[VideoRecord]) -> tuple[list[VideoRecord], list[VideoRecord]]:
    """The videos that a model may learn from (train and val), and those of test."""
    learnt = [r for r in records if r.split in ("train", "val")]
    return learnt, [r for r in records if r.split == "test"]


def videos_in(folder: Path, suffixes: Collection[str] = (".mp4",)) -> list[Path]:
    """The videos of a folder by name; none if it is not there.

    Hidden files are passed over: macOS leaves ._003.mp4 on foreign disks. Raises MachineError if
    the folder is shut, DataError for a name that cannot be printed.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MachineError(machine_fault(error) or f"{folder} cannot be read ({error}).") from error
    found = [
        folder / name
        for name in sorted(names)
        if name.lower().endswith(tuple(suffixes)) and not name.startswith(".")
    ]
    _refuse_odd(found)
    return found


def folders(
    folder: Path, hidden: bool = False, above: Sequence[Path] = (), shut: list[Path] | None = None
) -> Iterator[Path]:
    """The folder and all below it, links among them, but links back up and, unless they are asked
    for, hidden ones. shut: receives those that may not be listed; without it they are an error."""
    try:
        with os.scandir(folder) as entries:  # asks the disk about no file
            names = sorted(entry.name for entry in entries if entry.is_symlink() or entry.is_dir())
    except PermissionError:
        if shut is None:
            raise
        shut.append(folder)
        return
    yield folder
    above = [*above, folder.resolve()]
    for path in (folder / name for name in names if hidden or not name.startswith(".")):
        if path.is_dir() and path.resolve() not in above:
            yield from folders(path, hidden, above, shut)


def few(names: Iterable[object]) -> str:
    """How many there are and what the first are called."""
    said = [*map(str, names)]
    return f"{len(said)} ({', '.join(said[:3])}{', ...' * (len(said) > 3)})"


def is_synthetic(root: str | Path) -> bool:
    """Whether the tree was written by dfil.synthetic rather than by a dataset's owners."""
    return (Path(root) / MARK).exists()


def _refuse_odd(paths: Iterable[Path]) -> None:
    if odd := next((path for path in paths if not printable(str(path))), None):
        raise DataError(f"{str(odd)!a}: this name cannot be printed; rename the file or folder.")
