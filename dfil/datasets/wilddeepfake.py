"""WildDeepfake (Zi et al., ACM MM 2020), read without moving, renaming or unpacking anything.

    <root>/{real_train,real_test,fake_train,fake_test}/N.tar.gz     or unpacked: .../N/...
    inside:  ./N/{real|fake}/<sequence>/<frame>.png                 224x224 face crops

The four folders are also met as "real train" and so on, and inside a folder deepfake_in_the_wild;
each may be there once. A shard N comes from one source video; its number returns in all four
categories and sequence numbers in all shards, so a video id is category/shard/sequence. Where a
shard is there packed and unpacked, the archive counts.

Nobody is named, so our validation split takes whole shards out of training; the same person may be
in another shard. To find the sequences every archive is gone through once. What was found is kept
below $DFIL_DATA/listings until the archive changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dfil.datasets.adapter import Adapter, Filters, few, published
from dfil.datasets.lists import read_table
from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.sequences import ARCHIVES, list_archive, list_folder
from dfil.system import paths
from dfil.system.errors import DataError, MachineError
from dfil.system.files import atomic
from dfil.system.progress import progress_bar

MANIPULATIONS = ("WildDeepfake",)
CATEGORIES = tuple(f"{label}_{split}" for split in ("train", "test") for label in ("real", "fake"))
PICTURE = 224  # pixels a side, all that can be kept of one
EXPECTED = {"WildDeepfake": published(3409, 3099, 396, 410)}  # sequences


class WildDeepfake(Adapter):
    """See the module."""

    name, title, crops = "wilddeepfake", "WildDeepfake", True
    manipulations, setting = MANIPULATIONS, "wild-like"
    example, releases = "real_train/0.tar.gz", EXPECTED

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        """One record per sequence, shards and sequences in the order of their numbers.

        A shard that is damaged or refused is one record, category/shard, that cannot be read;
        `unreadable` says why. Any category may be absent.
        """
        for category, stem, path, listing in _shards(root):
            if listing["problem"]:
                yield self._record(category, stem, "", path)
            for folder in listing["folders"]:
                shard, label, sequence = folder.split("/")
                # In the owners' archives the folder has the archive's number; else ids say both.
                inner = sequence if shard == stem else f"{shard}/{sequence}"
                where = path / folder if path.is_file() else path / label / sequence
                yield self._record(category, stem, f"/{inner}", where)

    def _record(self, category: str, shard: str, sequence: str, path: Path) -> VideoRecord:
        kind, split = category.split("_")
        video_id, person = f"{category}/{shard}{sequence}", f"{category}/{shard}"
        what = REAL if kind == "real" else MANIPULATIONS[0]
        return self.record(video_id, what, split, path, target=video_id, person=person)

    def missing(self, root: Path, wanted: Filters) -> Iterator[Path]:
        """Categories that are absent as a whole; sequences are listed nowhere."""
        there = _categories(root)
        for category in CATEGORIES:
            if category.split("_")[1] in wanted.owners_splits and category not in there:
                yield Path(category)

    def unreadable(self, root: Path) -> Iterator[str]:
        """Shards that are damaged or refused, with the reason, and pictures of zero bytes."""
        for _, _, path, listing in _shards(root):
            yield from [listing["problem"]] if listing["problem"] else []
            yield from (f"{path}: {name} is empty" for name in listing["empty"])

    def notes(self, root: Path, records: Sequence[VideoRecord]) -> Iterator[str]:
        """What lies among the shards and is none, or is there twice."""
        for folder in _categories(root).values():
            if others := _numbered(folder)[1]:
                yield (
                    f"Not used in {folder}, where a shard is called N or N.tar.gz and counts "
                    f"once: {few(path.name for path in others)}."
                )


def _categories(root: Path) -> dict[str, Path]:
    """Raises DataError where a category is there twice: one would hide the other."""
    found = {}
    for name in CATEGORIES:
        spelled = (name, name.replace("_", " "))
        paths = [t / s for t in (root / "deepfake_in_the_wild", root) for s in spelled]
        there = [path for path in paths if path.is_dir()]
        if len(there) > 1:
            raise DataError(
                f"{there[0]} and {there[1]} are one category; put their shards into one folder."
            )
        if there:
            found[name] = there[0]
    return found


def _numbered(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """The shards of a category by their numbers, archives before folders, and all the rest."""
    shards: dict[str, Path] = {}
    others = []
    inside = (path for path in folder.iterdir() if not path.name.startswith("."))
    for path in sorted(inside, key=lambda path: (not path.name.endswith(ARCHIVES), path.name)):
        packed = path.name.endswith(ARCHIVES)
        number = path.name.split(".")[0] if packed else path.name if path.is_dir() else ""
        if number.isascii() and number.isdigit() and number not in shards:
            shards[number] = path
        else:
            others.append(path)
    return shards, others


def _shards(root: Path) -> list[tuple[str, str, Path, dict]]:
    """(category, number, archive or folder, listing) of every shard, in order.

    A listing: folders (shard/label/sequence), empty (pictures of zero bytes), problem (why nothing
    can be read, or "").
    """
    found = []
    for category, folder in _categories(root).items():
        shards, _ = _numbered(folder)
        found += [(category, number, shards[number]) for number in sorted(shards, key=int)]
    known = _Listings(root)
    bar = progress_bar(found, desc="Listing archives", unit="shard")
    shards = [(*shard, known.of(shard[2], shard[0].split("_")[0])) for shard in bar]
    known.keep()
    return shards


class _Listings:
    """What a tree's archives hold, by path, size and time of change; kept outside the tree."""

    def __init__(self, root: Path):
        name = _digest(str(root.resolve()))[:12]
        self.file = paths.data() / "listings" / f"wilddeepfake-{name}.json"
        self.root, self.known, self.changed = root, {}, False
        with suppress(DataError, MachineError, KeyError):  # none yet, or damaged: listed anew
            found = read_table(self.file)
            if found["digest"] == _digest(json.dumps(found["archives"])):
                self.known = found["archives"]

    def of(self, shard: Path, label: str) -> dict:
        """The listing of an archive, found again if it has not changed, or of a folder."""
        if not shard.is_file():
            return _list(shard, label)
        stat = shard.stat()
        key, state = shard.relative_to(self.root).as_posix(), [stat.st_size, stat.st_mtime_ns]
        listing = self.known.get(key)
        if listing is None or listing["state"] != state:
            listing = self.known[key] = {"state": state, **_list(shard, label)}
            self.changed = True
        return listing

    def keep(self) -> None:
        """Written if there is anything new; who may not write there lists again next time."""
        with suppress(OSError):
            if self.changed:
                kept = {"digest": _digest(json.dumps(self.known)), "archives": self.known}
                with atomic(self.file) as temporary:
                    temporary.write_text(json.dumps(kept))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _list(shard: Path, label: str) -> dict:
    try:
        folders, empty = (list_folder if shard.is_dir() else list_archive)(shard)
        for folder in folders:
            parts = folder.split("/")
            if len(parts) != 3 or parts[1] != label:
                raise DataError(
                    f"{shard} is refused: {folder!r} is not of the form shard/{label}/sequence; "
                    "fetch it from its owners."
                )
        if not folders:
            raise DataError(f"{shard} holds no sequence; fetch it again.")
        return {"folders": folders, "empty": empty, "problem": ""}
    except DataError as error:
        return {"folders": [], "empty": [], "problem": str(error)}
