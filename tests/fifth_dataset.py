"""A made-up dataset, to show that a further one is one file: everything `dfil` needs to know about it stands here.

<root>/people/<person>/<real|fake>/<clip>.mp4        test.txt names the people of the test split, one per line
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.splits import SEED, SHARE, carve, select
from dfil.system.errors import DataError

MANIPULATIONS = ("FifthSwap",)


def records(
    root: str | Path,
    compressions: Collection[str] | None = None,
    manipulations: Collection[str] | None = None,
    splits: Collection[str] | None = None,
    share: float = SHARE,
    seed: int = SEED,
) -> list[VideoRecord]:
    root = Path(root)
    test = _test_people(root)
    found = []
    for path in sorted((root / "people").glob("*/*/*.mp4")):
        person, kind = path.parts[-3:-1]
        video_id, split = f"{person}/{kind}/{path.stem}", "test" if person in test else "train"
        fake = kind == "fake"
        found.append(
            VideoRecord(
                "fifth",
                video_id,
                int(fake),
                MANIPULATIONS[0] if fake else REAL,
                "",
                split,
                path,
                target=person,
            )
        )
    return select(
        carve(found, group, share, seed),
        "The fifth dataset",
        MANIPULATIONS,
        compressions,
        manipulations,
        splits,
    )


def group(record: VideoRecord) -> str:
    """What goes to validation as a whole."""
    return record.target


def missing(root: str | Path, **filters) -> list[Path]:
    return [
        Path("people") / person
        for person in _test_people(Path(root))
        if not (Path(root) / "people" / person).is_dir()
    ]


def notes(records: Sequence[VideoRecord]) -> list[str]:
    return [f"{len({r.target for r in records})} people."]


def _test_people(root: Path) -> list[str]:
    if not (root / "test.txt").is_file():
        raise DataError(
            f"{root / 'test.txt'} is not there; take the one that came with the fifth dataset."
        )
    return (root / "test.txt").read_text().split()
