"""WildDeepfake (Zi et al., ACM MM 2020), read without moving, renaming or unpacking anything.

    <root>/{real_train,real_test,fake_train,fake_test}/N.tar.gz     or unpacked: .../N/...
    inside:  ./N/{real|fake}/<sequence>/<frame>.png                 224x224 face crops

The four folders are also met as "real train" and so on, and inside a folder deepfake_in_the_wild. A
shard N comes from one source video; its number returns in all four categories and sequence numbers
in all shards, so a video id is category/shard/sequence. Where a shard is there packed and unpacked,
the archive counts.

Nobody is named, so our validation split takes whole shards out of training; the same person may be
in another shard. To find the sequences every archive is gone through once. What was found is kept
below $DFIL_DATA/listings until the archive changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dfil.datasets.adapter import Adapter, Filters, published
from dfil.datasets.lists import read_table
from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.sequences import ARCHIVES, is_picture, list_archive
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

    name, title = "wilddeepfake", "WildDeepfake"
    manipulations, setting = MANIPULATIONS, "wild-like"
    example, releases = "real_train/0.tar.gz", EXPECTED

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        """One record per sequence, shards and sequences in the order of their numbers.

        An archive that is damaged or refused is one record, category/shard, that cannot be read;
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
        """Archives that are damaged or refused, with the reason, and pictures of zero bytes."""
        for _, _, path, listing in _shards(root):
            yield from [listing["problem"]] if listing["problem"] else []
            yield from (f"{path}: {name} is empty" for name in listing["empty"])


def _categories(root: Path) -> dict[str, Path]:
    inner = root / "deepfake_in_the_wild"
    top = inner if inner.is_dir() else root
    named = {name: (top / name, top / name.replace("_", " ")) for name in CATEGORIES}
    return {name: path for name, both in named.items() for path in both if path.is_dir()}


def _shards(root: Path) -> list[tuple[str, str, Path, dict]]:
    """(category, number, archive or folder, listing) of every shard, in order.

    A listing: folders (shard/label/sequence), empty (pictures of zero bytes), problem (why nothing
    can be read, or "").
    """
    found = []
    for category, folder in _categories(root).items():
        inside = sorted(folder.iterdir())
        shards = {path.name: path for path in inside if path.is_dir()}
        shards |= {p.name.split(".")[0]: p for p in inside if p.name.endswith(ARCHIVES)}
        numbers = sorted((s for s in shards if s.isascii() and s.isdigit()), key=int)
        found += [(category, number, shards[number]) for number in numbers]
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
        if shard.is_dir():
            return _list_folder(shard, label)
        stat = shard.stat()
        key, state = shard.relative_to(self.root).as_posix(), [stat.st_size, stat.st_mtime_ns]
        listing = self.known.get(key)
        if listing is None or listing["state"] != state:
            listing = self.known[key] = {"state": state, **_list_archive(shard, label)}
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


def _list_folder(shard: Path, label: str) -> dict:
    folders = [p for p in (shard / label).glob("*") if p.name.isdecimal() and p.is_dir()]
    folders.sort(key=lambda path: int(path.name))
    pictures = (p for folder in folders for p in folder.iterdir() if is_picture(p.name))
    empty = [path for path in pictures if not path.stat().st_size]
    found = {"folders": folders, "empty": sorted(empty)}
    return {
        name: [path.relative_to(shard.parent).as_posix() for path in some]
        for name, some in found.items()
    } | {"problem": ""}


def _list_archive(archive: Path, label: str) -> dict:
    try:
        folders, empty = list_archive(archive)
        for folder in folders:
            parts = folder.split("/")
            if len(parts) != 3 or parts[1] != label:
                raise DataError(
                    f"{archive} is refused: {folder!r} is not of the form shard/{label}/sequence; "
                    "fetch it from its owners."
                )
        if not folders:
            raise DataError(f"{archive} holds no sequence; fetch it again.")
        return {"folders": folders, "empty": empty, "problem": ""}
    except DataError as error:
        return {"folders": [], "empty": [], "problem": str(error)}
