"""The full DFDC (Dolhansky et al. 2020), read from the owners' tree without moving or renaming anything.

    <root>/dfdc_train_part_N/<ten letters>.mp4      N = 0..49
    <root>/dfdc_train_part_N/metadata.json          {"x.mp4": {"label": "FAKE" | "REAL", "split": "train", "original": "y.mp4"}, ...}
    <root>/test/*.mp4                               with labels.csv ("filename,label", 1 = fake) or metadata.json with "is_fake",
                                                    there or in <root>

Several people can be in the picture and only one of them forged, while we look at the largest face: some fakes thus show a real
face. Nobody is named, so our validation split takes whole source videos (a real one and the fakes made from it) out of training;
the same person may still be on both sides in another source video.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.splits import SEED, SHARE, carve, select
from dfil.system.errors import DataError

MANIPULATIONS = ("DFDC",)
PARTS = 50
# Videos by split and label; "train" before validation is carved from it. Numbers of the owners' paper; test is the public half.
EXPECTED = {
    "DFDC": {
        ("train", "real"): 19154,
        ("train", "fake"): 100_000,
        ("test", "real"): 2500,
        ("test", "fake"): 2500,
    }
}
OWNERS_LIST = True  # metadata.json names every video of its part, so published totals only inform


def records(
    root: str | Path,
    compressions: Collection[str] | None = None,
    manipulations: Collection[str] | None = None,
    splits: Collection[str] | None = None,
    share: float = SHARE,
    seed: int = SEED,
) -> list[VideoRecord]:
    """One record per video file that is there and listed, reals first, in the order of the parts. Any part may be absent.

    share, seed: of the validation split, see splits.carve. Files without a label cannot be used and are left out; `unlisted` names
    them. Raises DataError if a part or the test folder has no list, a list cannot be read, or no video is left.
    """
    root = Path(root)
    listed = read_lists(root)
    there = {
        (folder, name)
        for folder in {folder for folder, _ in listed}
        for name in _videos(root / folder)
    }
    found = [
        _record(root, folder, name, entry, there)
        for (folder, name), entry in listed.items()
        if (folder, name) in there
    ]
    found = select(
        carve(found, group, share, seed), "DFDC", MANIPULATIONS, compressions, manipulations, splits
    )
    if not found:
        raise DataError(
            f"{root} holds no DFDC video for these filters; expected dfdc_train_part_0 to dfdc_train_part_49, and test."
        )
    return found


def missing(root: str | Path, **filters) -> list[Path]:
    """What the lists name and the tree lacks: files, or a part or the test folder as a whole; paths below `root`.

    Takes the filters of `records`; validation videos count as training videos.
    """
    root = Path(root)
    select([], "DFDC", MANIPULATIONS, **filters)
    splits = {
        "train" if split == "val" else split for split in filters.get("splits") or ("train", "test")
    }
    folders = [f"dfdc_train_part_{part}" for part in range(PARTS)] * ("train" in splits) + [
        "test"
    ] * ("test" in splits)
    lacking = [Path(folder) for folder in folders if not (root / folder).is_dir()]
    for (folder, name), (fake, _) in read_lists(root).items():
        wanted = (
            not fake
            or filters.get("manipulations") is None
            or MANIPULATIONS[0] in filters["manipulations"]
        )
        if (
            wanted
            and ("test" if folder == "test" else "train") in splits
            and not (root / folder / name).is_file()
        ):
            lacking.append(Path(folder, name))
    return lacking


def read_lists(root: str | Path) -> dict[tuple[str, str], tuple[bool, str]]:
    """(folder, file name) -> (fake, file name of the original or "") of every listed video. Raises DataError as `records` does."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the top of the DFDC tree.")
    listed = {}
    parts = [
        path
        for path in root.glob("dfdc_train_part_*")
        if path.is_dir() and path.name.removeprefix("dfdc_train_part_").isdigit()
    ]
    for part in sorted(parts, key=lambda path: int(path.name.removeprefix("dfdc_train_part_"))):
        for name, entry in _read_json(part / "metadata.json").items():
            label = str(entry.get("label")).upper()
            if label not in ("REAL", "FAKE"):
                raise DataError(
                    f"{part / 'metadata.json'} gives {name} the label {entry.get('label')!r}; take the owners' file."
                )
            listed[part.name, name] = label == "FAKE", entry.get("original") or ""
    if (root / "test").is_dir():
        listed |= {("test", name): (fake, "") for name, fake in _test_labels(root).items()}
    for folder, name in listed:
        if Path(name).name != name:
            raise DataError(
                f"A list of {root / folder} names {name!r}, which is no file name; take the owners' file."
            )
    return listed


def group(record: VideoRecord) -> str:
    """What goes to validation as a whole: the source video."""
    return record.person


def expected(root: str | Path) -> tuple[str, dict[tuple[str, str], int]]:
    """The release and its published numbers."""
    return next(iter(EXPECTED.items()))


def leaks(records: Sequence[VideoRecord]) -> list[str]:
    """Files of one name in training or validation and in test; names are random, so that is the same video twice."""
    seen = {r.path.name: r.video_id for r in records if r.split in ("train", "val")}
    return [
        f"{r.video_id} (test) and {seen[r.path.name]} have one name."
        for r in records
        if r.split == "test" and r.path.name in seen
    ]


def unlisted(root: str | Path) -> list[str]:
    """Videos that no list gives a label, as paths below `root`."""
    listed = read_lists(root)
    folders = {folder for folder, _ in listed}
    return sorted(
        f"{folder}/{name}"
        for folder in folders
        for name in _videos(Path(root) / folder)
        if (folder, name) not in listed
    )


def _record(
    root: Path, folder: str, name: str, entry: tuple[bool, str], there: Collection[tuple[str, str]]
) -> VideoRecord:
    fake, original = entry
    target = Path(original if fake and original else name).stem
    return VideoRecord(
        dataset="dfdc",
        video_id=f"{folder}/{Path(name).stem}",
        label=int(fake),
        manipulation=MANIPULATIONS[0] if fake else REAL,
        compression="",
        split="test" if folder == "test" else "train",
        path=root / folder / name,
        target=target,
        person=target,
        # Originals lie in the part of their fakes and have their size and number of frames.
        boxes_from=f"{folder}/{Path(original).stem}"
        if fake and (folder, original) in there
        else "",
    )


def _test_labels(root: Path) -> dict[str, bool]:
    """File name -> fake, from whichever of the owners' two files is there."""
    for path in (root / "test/labels.csv", root / "labels.csv"):
        if path.is_file():
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
            if not rows or any(
                not row.get("filename") or row.get("label") not in ("0", "1") for row in rows
            ):
                raise DataError(
                    f'{path} has not the columns "filename" and "label" (0 or 1); take the owners\' file.'
                )
            return {row["filename"]: row["label"] == "1" for row in rows}
    for path in (root / "test/metadata.json", root / "metadata.json"):
        if path.is_file():
            entries = _read_json(path)
            if any(
                str(entry.get("is_fake")) not in ("0", "1", "True", "False")
                for entry in entries.values()
            ):
                raise DataError(
                    f'{path} does not give every video "is_fake" (0 or 1); take the owners\' file.'
                )
            return {name: bool(entry["is_fake"]) for name, entry in entries.items()}
    raise DataError(
        f"{root / 'test'} has neither labels.csv nor metadata.json, so its videos have no labels; take the owners' file."
    )


def _read_json(path: Path) -> dict[str, dict]:
    try:
        entries = json.loads(path.read_text())
        if not isinstance(entries, dict) or not all(
            isinstance(entry, dict) for entry in entries.values()
        ):
            raise ValueError("it is no table of videos")
        return entries
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is not there, so the videos beside it have no labels; it comes in the same archive as they do."
        ) from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}); take the owners' file.") from error


def _videos(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.mp4") if not path.name.startswith(".")]
