"""Any folder of real videos, to train on without a forgery (`dfil train --fakes self-blended`).

    <root>/x.mp4            a file shows somebody who is in no other file
    <root>/PERSON/.../x.mp4 all files of a sub-folder show one person

All of them count as real and are for training; our validation split takes whole people. A folder
that shows by its names that it holds a dataset's forgeries is refused: they would be learnt as
real.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dfil.datasets.adapter import Adapter, Filters, videos_in
from dfil.datasets.records import REAL, VideoRecord
from dfil.system.errors import DataError

VIDEOS = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ts .webm .wmv".split()
)
# Folders and lists of the datasets that hold or name forgeries.
FORGED = {"manipulated_sequences", "Celeb-synthesis", "method_A", "method_B", "fake"}
FORGED |= {"fake_train", "fake_test", "fake train", "fake test", "metadata.json", "dataset.json"}


class Folder(Adapter):
    """See the module."""

    name, title, example = "folder", "folder of real videos", "somebody.mp4"
    manipulations = ()

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        """Every video below root. Raises DataError where forgeries lie among them."""
        _refuse_forged([root.resolve(), *root.resolve().parents])
        for folder in _folders(root, []):
            _refuse_forged(sorted(folder.iterdir()))
            for path in videos_in(folder, VIDEOS):
                name = path.relative_to(root).as_posix()
                person = name.split("/")[0]
                yield self.record(name, REAL, "train", path, target=name, person=person)


def _refuse_forged(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.name in FORGED:
            raise DataError(
                f"{path} belongs to a dataset with forgeries; give a folder with nothing but real"
                " videos, or the whole tree by --dataset and --root."
            )


def _folders(folder: Path, above: list[Path]) -> Iterator[Path]:
    """The folder and all below it, links among them, but hidden ones and links back up."""
    yield folder
    above = [*above, folder.resolve()]
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.resolve() not in above:
            yield from _folders(path, above)
