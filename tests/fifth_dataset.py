"""A made-up dataset, to show that a further one is one file: all that `dfil` needs to know of it.

<root>/people/<person>/<real|fake>/<clip>.mp4      test.txt names the people of the test split
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dfil.datasets import REAL, Adapter, Filters, VideoRecord
from dfil.datasets.adapter import videos_in
from dfil.datasets.lists import read_text


class Fifth(Adapter):
    """Named by the entry point "fifth" of the group dfil.datasets."""

    name, title, example = "fifth", "The fifth dataset", "people/a/real/0.mp4"
    manipulations = ("FifthSwap",)
    detector = "dlib"

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        test = _test_people(root)
        for folder in sorted((root / "people").glob("*/*/")):
            person, kind = folder.parts[-2:]
            for path in videos_in(folder):
                yield VideoRecord(
                    dataset=self.name,
                    video_id=f"{person}/{kind}/{path.stem}",
                    label=int(kind == "fake"),
                    manipulation=self.manipulations[0] if kind == "fake" else REAL,
                    compression="",
                    split="test" if person in test else "train",
                    path=path,
                    target=person,
                    person=person,
                )

    def missing(self, root: Path, wanted: Filters) -> Iterator[Path]:
        for person in _test_people(root):
            if not (root / "people" / person).is_dir():
                yield Path("people") / person

    def notes(self, root: Path, records: Sequence[VideoRecord]) -> list[str]:
        return [f"{len({r.person for r in records})} people."]


def _test_people(root: Path) -> list[str]:
    return read_text(root / "test.txt").split()
