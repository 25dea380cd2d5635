"""The full DFDC (Dolhansky et al. 2020), read without moving or renaming anything.

    <root>/dfdc_train_part_N/*.mp4           N = 0..49, or 00..49; also below <root>/train
    <root>/dfdc_train_part_N/metadata.json   {"x.mp4": {"label": "FAKE", "original": "y.mp4"}, ...}
    <root>/test/*.mp4                        with labels.csv ("filename,label", 1 = fake) or
                                             metadata.json with "is_fake", there or in <root>

Also Kaggle's sample: train_sample_videos in place of the parts, and test_videos, which have no
labels. Several people can be in the picture and only one of them forged: all are followed and
scored, and training takes the largest face, which in some fakes is a real one. Nobody is named, so
our validation split takes whole source videos (a real one and the fakes made from it) out of
training; the same person may still be on both sides in another source video.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfil.datasets.adapter import Adapter, Filters, published, sides, videos_in
from dfil.datasets.lists import label, read_csv, read_entries
from dfil.datasets.records import REAL, VideoRecord
from dfil.system.errors import DataError

MANIPULATIONS = ("DFDC",)
PARTS = 50
PART = re.compile(r"dfdc_train_part_(\d{1,3})", re.ASCII)
SAMPLE = "train_sample_videos"
TESTS = ("test", "test_videos")
# As in the owners' paper; test is the public half.
EXPECTED = {"DFDC": published(19154, 100_000, 2500, 2500)}


class DFDC(Adapter):
    """See the module."""

    name, title = "dfdc", "DFDC"
    manipulations, tracks, lists_all = MANIPULATIONS, "all", True
    example, releases = "dfdc_train_part_0/metadata.json", EXPECTED

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        """Files without a label cannot be used and are left out; `notes` names them."""
        for folder, listed in read_lists(root).items():
            there = defaultdict(list)  # x.mp4 and x.MP4 are two, which `check` names
            for path in videos_in(root / folder):
                there[path.stem].append(path)
            for stem, (fake, original) in listed.items():
                target = original if fake and original else stem
                # Originals lie in the part of their fakes and have their size and length.
                boxes = f"{folder}/{original}" if fake and original in there else ""
                # Of a test video nothing says whom it shows, nor of which other it was made.
                person = "" if _side(folder) == "test" else target
                shown = dict(target=target, boxes_from=boxes, person=person)
                what = MANIPULATIONS[0] if fake else REAL
                for path in there.get(stem, ()):
                    yield self.record(f"{folder}/{stem}", what, _side(folder), path, **shown)

    def missing(self, root: Path, wanted: Filters) -> Iterator[Path]:
        """Files that the lists name, or a part or the test folder as a whole."""
        lists = read_lists(root)
        if "train" in wanted.owners_splits and SAMPLE not in lists:
            there = {int(PART.search(folder)[1]) for folder in lists if PART.search(folder)}
            if there or "train" not in lists:
                yield from (Path(f"dfdc_train_part_{n}") for n in range(PARTS) if n not in there)
        if "test" in wanted.owners_splits and not any((root / name).is_dir() for name in TESTS):
            yield Path("test")
        fakes = wanted.manipulations is None or MANIPULATIONS[0] in wanted.manipulations
        for folder, listed in lists.items():
            there = {path.stem for path in videos_in(root / folder)}
            if _side(folder) in wanted.owners_splits:
                for stem, (fake, _) in listed.items():
                    if (fakes or not fake) and stem not in there:
                        yield Path(folder, f"{stem}.mp4")

    def leaks(self, records: Sequence[VideoRecord]) -> Iterator[str]:
        """Files of one name on both sides; names are random, so that is the same video twice."""
        learnt, test = sides(records)
        seen = {r.path.name: r.video_id for r in learnt}
        for record in test:
            if record.path.name in seen:
                yield f"{record.video_id} (test) and {seen[record.path.name]} have one name."

    def notes(self, root: Path, records: Sequence[VideoRecord]) -> Iterator[str]:
        """Videos that no list gives a label."""
        lists = read_lists(root)
        for folder, listed in lists.items():
            for path in videos_in(root / folder):
                if path.stem not in listed:
                    yield f"{folder}/{path.name} is not used: no list gives it a label."
        for name in TESTS:
            if name not in lists and (count := len(videos_in(root / name))):
                yield f"{count} videos of {root / name} are not used: no list gives them labels."


def read_lists(root: str | Path) -> dict[str, dict[str, tuple[int, str]]]:
    """Folder -> stem of every listed video -> (1 for fake, stem of the original or "").

    Raises DataError if a folder has no list, a list is damaged, or lists contradict each other.
    """
    root = Path(root)
    folders = [path for path in (*root.glob("*/"), *root.glob("train/*/"))]
    parts = [path for path in folders if PART.fullmatch(path.name) or path.name == SAMPLE]
    parts += [root / "train"] * (root / "train/metadata.json").is_file()
    parts.sort(key=lambda path: (int(re.sub(r"\D", "", path.name) or 0), path.as_posix()))
    lists: dict[str, dict[str, tuple[int, str]]] = {}
    for part in parts:
        file = part / "metadata.json"
        if not file.is_file():
            raise DataError(
                f"{file} is not there, so the videos beside it have no labels; "
                "it comes in the same archive as they do."
            )
        listed: dict[str, tuple[int, str]] = {}
        for name, entry in read_entries(file).items():
            original = Path(str(entry.get("original") or "")).stem
            _add(listed, name, (label(entry.get("label"), file, name), original), file)
        lists[part.relative_to(root).as_posix()] = listed
    for name in TESTS:
        if (root / name).is_dir() and (labels := _test_labels(root, name)) is not None:
            lists[name] = labels
    return lists


def _test_labels(root: Path, folder: str) -> dict[str, tuple[int, str]] | None:
    """As in `read_lists`, from the owners' two files; None for Kaggle's sample without labels."""
    names, tops = ("labels.csv", "metadata.json"), (root / folder, root)
    first: dict[str, tuple[int, str]] | None = None
    for file in (top / name for name in names for top in tops):
        if file.is_file():
            table = file.suffix == ".csv"
            rows = read_csv(file, "filename", "label") if table else read_entries(file)
            said = {name: row.get("label" if table else "is_fake") for name, row in rows.items()}
            known = dict(first or {})  # the first file counts, but none may speak against it
            for name, word in said.items():
                if first is None or (word is not None and _stem(name, file) in first):
                    _add(known, name, (label(word, file, name), ""), file)
            first = known
    if first is not None or folder == TESTS[1]:
        return first
    raise DataError(
        f"{root / folder} has neither labels.csv nor metadata.json, so its videos have no labels; "
        "take the owners' file."
    )


def _side(folder: str) -> str:
    return "test" if folder in TESTS else "train"


def _add(listed: dict, name: str, said: tuple[int, str], file: Path) -> None:
    if listed.setdefault(stem := _stem(name, file), said) != said:
        raise DataError(
            f"{file} gives {name} another label or original than {stem} has in an earlier entry "
            "or list; take the owners' file."
        )


def _stem(name: str, file: Path) -> str:
    if "/" in name:
        raise DataError(f"{file} names {name!r}, which is no file name; take the owners' file.")
    return Path(name).stem
