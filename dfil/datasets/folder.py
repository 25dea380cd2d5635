"""Any folder of real videos, to train on without a forgery (`dfil train --fakes self-blended`).

    <root>/x.mp4            a file shows somebody who is in no other file
    <root>/PERSON/.../x.mp4 all files of a sub-folder show one person

All of them count as real and are for training; our validation split takes whole people. A folder
that shows by its names that it holds a dataset's forgeries is refused: they would be learnt as
real.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        for folder in [root, *sorted(path for path in root.rglob("*/") if _is_shown(path, root))]:
            if forged := next((p for p in sorted(folder.iterdir()) if p.name in FORGED), None):
                raise DataError(
                    f"{forged} belongs to a dataset with forgeries; give a folder with nothing but"
                    " real videos, or the whole tree by --dataset and --root."
                )
            for path in videos_in(folder, VIDEOS):
                name = path.relative_to(root)
                yield self.record(
                    name.as_posix(),
                    REAL,
                    "train",
                    path,
                    target=name.as_posix(),
                    person=name.parts[0],
                )


def _is_shown(folder: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in folder.relative_to(root).parts)
