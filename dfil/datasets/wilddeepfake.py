"""WildDeepfake (Zi et al., ACM MM 2020), read from the owners' tree without moving, renaming or unpacking anything.

    <root>/{real_train,real_test,fake_train,fake_test}/N.tar.gz     or unpacked: .../N/{real|fake}/<sequence>/<frame>.png
    inside:  ./N/{real|fake}/<sequence>/<frame>.png                 224x224 face crops

The four folders are also met as "real train" and so on, and inside a folder deepfake_in_the_wild. A shard N comes from one source
video; its number returns in all four categories and sequence numbers in all shards, so a video id is category/shard/sequence. Where
a shard is there packed and unpacked, the archive counts.

Nobody is named, so our validation split takes whole shards out of training; the same person may be in another shard.

To find the sequences every archive is gone through once. What was found is kept below $DFIL_DATA/listings until the archive changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm

from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.sequences import ARCHIVES, archive_of, is_picture, list_archive
from dfil.datasets.splits import SEED, SHARE, carve, select
from dfil.system import paths
from dfil.system.errors import DataError
from dfil.system.files import atomic

MANIPULATIONS = ("WildDeepfake",)
CATEGORIES = tuple(f"{label}_{split}" for split in ("train", "test") for label in ("real", "fake"))
# Sequences by split and label; "train" before validation is carved from it.
EXPECTED = {
    "WildDeepfake": {
        ("train", "real"): 3409,
        ("train", "fake"): 3099,
        ("test", "real"): 396,
        ("test", "fake"): 410,
    }
}


def records(
    root: str | Path,
    compressions: Collection[str] | None = None,
    manipulations: Collection[str] | None = None,
    splits: Collection[str] | None = None,
    share: float = SHARE,
    seed: int = SEED,
) -> list[VideoRecord]:
    """One record per sequence, reals first, shards and sequences in the order of their numbers. Any category may be absent.

    An archive that is damaged or refused is one record, category/shard, that cannot be read; `unreadable` says why.
    share, seed: of the validation split, see splits.carve. Raises DataError if no sequence is left.
    """
    root = Path(root)
    found = []
    for category, shards in _shards(root).items():
        for stem, path, listing in shards:
            label = category.split("_")[0]
            if listing["problem"]:
                found.append(_record(category, stem, path))
            for folder in listing["folders"]:
                shard, _, sequence = folder.split("/")
                # In the owners' archives the folder has the archive's number; should one differ, the id stays unique.
                inner = sequence if shard == stem else f"{shard}/{sequence}"
                found.append(
                    _record(
                        category,
                        f"{stem}/{inner}",
                        path / folder if path.is_file() else path / label / sequence,
                    )
                )
    found = select(
        carve(found, group, share, seed),
        "WildDeepfake",
        MANIPULATIONS,
        compressions,
        manipulations,
        splits,
    )
    if not found:
        raise DataError(
            f"{root} holds no WildDeepfake sequence for these filters; expected for example {root / 'real_train/0.tar.gz'}."
        )
    return found


def missing(root: str | Path, **filters) -> list[Path]:
    """Categories that are absent as a whole; sequences are listed nowhere, so only their number can be checked (EXPECTED)."""
    select([], "WildDeepfake", MANIPULATIONS, **filters)
    splits = {
        "train" if split == "val" else split for split in filters.get("splits") or ("train", "test")
    }
    there = _categories(Path(root))
    return [
        Path(category)
        for category in CATEGORIES
        if category.split("_")[1] in splits and category not in there
    ]


def unreadable(root: str | Path) -> list[str]:
    """Archives that are damaged or refused, with the reason, and pictures of zero bytes."""
    found = []
    for shards in _shards(Path(root)).values():
        for _, path, listing in shards:
            found += [listing["problem"]] if listing["problem"] else []
            found += [f"{path}: {name} is empty" for name in listing["empty"]]
    return found


def group(record: VideoRecord) -> str:
    """What goes to validation as a whole: the shard, that is the source video."""
    return record.person


def expected(root: str | Path) -> tuple[str, dict[tuple[str, str], int]]:
    """The release and its published numbers."""
    return next(iter(EXPECTED.items()))


def _record(category: str, name: str, path: Path) -> VideoRecord:
    label, split = category.split("_")
    video_id = f"{category}/{name}"
    manipulation = REAL if label == "real" else MANIPULATIONS[0]
    return VideoRecord(
        "wilddeepfake",
        video_id,
        int(label == "fake"),
        manipulation,
        "",
        split,
        path,
        target=video_id,
        person="/".join(video_id.split("/")[:2]),
    )


def _categories(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the top of the WildDeepfake tree.")
    top = root / "deepfake_in_the_wild" if (root / "deepfake_in_the_wild").is_dir() else root
    named = {
        category: (top / category, top / category.replace("_", " ")) for category in CATEGORIES
    }
    return {category: path for category, both in named.items() for path in both if path.is_dir()}


def _shards(root: Path) -> dict[str, list[tuple[str, Path, dict]]]:
    """Category -> its shards in order, each with its number, its archive or folder, and its listing.

    A listing: folders (shard/label/sequence), empty (pictures of zero bytes), problem (why nothing can be read, or "").
    """
    found: dict[str, dict[str, Path]] = {}
    for category, folder in _categories(root).items():
        archives = {
            path.name.split(".")[0]: path
            for path in folder.iterdir()
            if path.name.endswith(ARCHIVES)
        }
        unpacked = {path.name: path for path in folder.iterdir() if path.is_dir()}
        both = unpacked | archives
        found[category] = {
            stem: both[stem] for stem in sorted((s for s in both if s.isdigit()), key=int)
        }
    with _Listings(root) as listings:
        total = sum(map(len, found.values()))
        with tqdm(
            total=total, desc="Listing archives", unit="shard", disable=None, leave=False
        ) as bar:
            shards: dict[str, list[tuple[str, Path, dict]]] = {}
            for category, paths_by_stem in found.items():
                for stem, path in paths_by_stem.items():
                    listing = (
                        listings.of(path, category)
                        if archive_of(path)
                        else _list_folder(path, category)
                    )
                    shards.setdefault(category, []).append((stem, path, listing))
                    bar.update()
    return shards


def _list_folder(shard: Path, category: str) -> dict:
    sequences = sorted(
        (p for p in (shard / category.split("_")[0]).glob("*") if p.name.isdigit() and p.is_dir()),
        key=lambda p: int(p.name),
    )
    pictures = (p for sequence in sequences for p in sequence.iterdir() if is_picture(p.name))
    empty = sorted(p.relative_to(shard.parent).as_posix() for p in pictures if not p.stat().st_size)
    return {
        "folders": [p.relative_to(shard.parent).as_posix() for p in sequences],
        "empty": empty,
        "problem": "",
    }


class _Listings:
    """What the archives of a tree hold, by path, size and time of change; kept from one call to the next outside the tree."""

    def __init__(self, root: Path):
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
        self.file = paths.data() / "listings" / f"wilddeepfake-{name}.json"
        self.root, self.known, self.changed = root, {}, False

    def __enter__(self) -> _Listings:
        try:
            self.known = json.loads(self.file.read_text())
        except (OSError, ValueError):  # none yet, or damaged: everything is listed anew
            self.known = {}
        return self

    def of(self, archive: Path, category: str) -> dict:
        stat = archive.stat()
        key, state = archive.relative_to(self.root).as_posix(), [stat.st_size, stat.st_mtime_ns]
        if self.known.get(key, {}).get("state") != state:
            self.known[key] = {"state": state, **_list(archive, category.split("_")[0])}
            self.changed = True
        return self.known[key]

    def __exit__(self, *_) -> None:
        if self.changed:
            with atomic(self.file) as temporary:
                temporary.write_text(json.dumps(self.known))


def _list(archive: Path, label: str) -> dict:
    try:
        folders, empty = list_archive(archive)
        for folder in folders:
            parts = folder.split("/")
            if len(parts) != 3 or parts[1] != label:
                raise DataError(
                    f"{archive} is refused: {folder!r} is not of the form shard/{label}/sequence; fetch it from its owners."
                )
        if not folders:
            raise DataError(f"{archive} holds no sequence; fetch it again.")
        return {"folders": folders, "empty": empty, "problem": ""}
    except DataError as error:
        return {"folders": [], "empty": [], "problem": str(error)}
