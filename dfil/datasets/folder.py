"""Any folder of real videos, to train on without a forgery (`dfil train --fakes self-blended`).

    <root>/x.mp4            a file shows somebody who is in no other file
    <root>/PERSON/.../x.mp4 all files of a sub-folder show one person

All of them count as real and are for training; our validation split takes whole people. A folder
that shows by its names that it holds a dataset's forgeries is refused: they would be learnt as
real.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from dfil.datasets.adapter import Adapter, Filters, few, folders, videos_in
from dfil.datasets.records import REAL, VideoRecord
from dfil.system.errors import DataError

VIDEOS = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm"
    " .wmv".split()
)
# Folders and lists of the datasets that hold or name forgeries.
FORGED = {"manipulated_sequences", "Celeb-synthesis", "method_A", "method_B", "fake"}
FORGED |= {"fake_train", "fake_test", "fake train", "fake test", "metadata.json", "dataset.json"}
FORGED |= {"labels.csv", "test_videos", "train_sample_videos"}  # of the DFDC and its competition


class Folder(Adapter):
    """See the module."""

    name, title, example = "folder", "folder of real videos", "somebody.mp4"
    manipulations = ()

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        """Every video below root. Raises DataError where forgeries lie among them."""
        above = root.resolve()
        _refuse_forged([above, *above.parents])
        if above.name == "test":  # the DFDC's list of it may lie beside it
            _refuse_forged(above.parent.glob("labels.csv"))
        files: list[Path] = []
        for folder in folders(root):
            inside = sorted(folder.iterdir())
            _refuse_forged(inside)
            files += (path for path in inside if path.is_file())
            for path in videos_in(folder, VIDEOS):
                name = path.relative_to(root).as_posix()
                person = name.split("/")[0]
                yield self.record(name, REAL, "train", path, target=name, person=person)
        not_looked_at(root, files)


def _refuse_forged(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.name in FORGED:
            raise DataError(
                f"{path} belongs to a dataset with forgeries; give a folder with nothing but real"
                " videos, or the whole tree by --dataset and --root."
            )


@cache
def _say_once(line: str) -> None:
    """A line on stderr, however often a tree is read."""
    print(line, file=sys.stderr)


def not_looked_at(folder: Path, files: Iterable[Path]) -> None:
    """Says which files below a folder are no videos by their suffixes, unless they are hidden."""
    others = [p for p in files if p.suffix.lower() not in VIDEOS and not p.name.startswith(".")]
    if others:
        named = few(path.relative_to(folder).as_posix() for path in others)
        _say_once(f"{folder}: files of other kinds, which were not looked at: {named}.")
