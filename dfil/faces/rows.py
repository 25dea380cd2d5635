"""The rows of a store, one small file per video: what is done, found again wherever tree and store
have been moved.

A row's key holds what the crops follow from: the video's id, size and checksum, those of the real
video whose boxes it takes, and the settings. No absolute path and no time is in it. The checksum is
of the file's beginning, middle and end, and is taken anew only if size or time, in seconds, differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from zlib import crc32

from dfil import datasets
from dfil.datasets import DEPTH, VideoRecord
from dfil.datasets.sequences import archive_of, list_archive, on_disk
from dfil.faces.crops import Crops, crops_path
from dfil.faces.settings import Settings
from dfil.faces.store import CropStore, read_row, write_json
from dfil.system.errors import DataError

PIECE = 2**16  # bytes of a file's beginning, middle and end


def of_record(record: VideoRecord) -> dict:
    """What a row takes over from the record."""
    paths = {"path": str(record.path.absolute())}
    paths["masks"] = str(record.masks.absolute()) if record.masks else ""
    return asdict(record) | paths


def path_of(folder: Path, video_id: str) -> Path:
    """The file of a video's row."""
    return crops_path(folder, video_id).with_suffix(".json")


def files_of(folder: Path, video_id: str, track: int) -> tuple[Path, Path]:
    """Patches and sidecar of one track."""
    patches = crops_path(folder, video_id, track)
    return patches, patches.with_suffix(".npz")


def read(folder: Path, video_id: str) -> dict:
    """The row of a video; empty where there is none or it is damaged, so that it is made again."""
    path = path_of(folder, video_id)
    try:
        return read_row(path) if path.is_file() else {}
    except DataError:
        return {}


def source_of(record: VideoRecord, folder: Path, settings: Settings) -> dict:
    """Key, and size, time and checksum of the video's file."""
    source = _source(on_disk(record.path), read(folder, record.video_id).get("source"))
    real = read(folder, record.boxes_from) if record.boxes_from else {}
    of_real = record.boxes_from, real.get("key", ""), real.get("checksum", "")
    parts = [record.video_id, source[0], source[2], of_real, asdict(settings)]
    return {"key": hashlib.sha256(json.dumps(parts).encode()).hexdigest(), "source": source}


def is_done(record: VideoRecord, folder: Path, settings: Settings) -> bool:
    """Whether a video's row and files are there and what would be made now."""
    row, now = read(folder, record.video_id), source_of(record, folder, settings)
    if not row or row.get("key") != now["key"]:
        return False
    damaged = row["status"] == "unreadable" or "damaged" in row["reason"]
    if damaged and row["source"][1] != now["source"][1]:
        return False  # fetched again perhaps: the checksum is one of pieces
    tracks = (files_of(folder, record.video_id, k) for k in range(row["tracks"]))
    return row["status"] != "ok" or all(_whole(*files) for files in tracks)


def _whole(patches: Path, sidecar: Path) -> bool:
    """Whether a track's files can be read; one that is damaged is named."""
    if not (patches.is_file() and sidecar.is_file()):
        return False
    try:
        return Crops(patches).patches.size > 0
    except DataError as error:
        print(f"{error} It is made again now.", file=sys.stderr, flush=True)
        return False


def refresh(records: Sequence[VideoRecord], folder: Path) -> None:
    """Write what the records say now (path, split, person, ...) into rows that are done."""
    for record in records:
        row, now = read(folder, record.video_id), of_record(record)
        if row and any(row.get(name) != value for name, value in now.items()):
            write_json(path_of(folder, record.video_id), row | now)


class Tree:
    """The tree that records were read from: what it holds of a store's rows.

    A row of one of the records is held. Any other may be of a part that this call is not about, and
    is held where its video is below the root, there or at the same place of a tree that has moved.
    Without this, one video that was moved from training to test, or another tree's, would be on
    both sides.
    """

    def __init__(self, records: Sequence[VideoRecord]):
        paths = [record.path.absolute() for record in records]
        self.ids, self.paths = {record.video_id for record in records}, set(paths)
        self.archives = {inside[0] for inside in map(archive_of, paths) if inside}
        self._listed: dict[Path, set[str]] = {}
        top = Path(os.path.commonpath([_above(record) for record in records]))
        # Records of one sub-folder: the root is above, where the dataset's own folders lie.
        name, known = records[0].dataset, datasets.available()
        first = Path(datasets.get(name).example).parent.parts[:1] if name in known else ()
        above = (p for p in (top, *top.parents)[:DEPTH] if first and p.joinpath(*first).is_dir())
        self.root = next(above, top)

    def held(self, rows: list[dict]) -> list[dict]:
        """Those of the rows whose videos it holds; a line names the others, whose files stay."""
        found = [row for row in rows if self._holds(row)]
        ids = {row["video_id"] for row in found}
        if gone := [row["video_id"] for row in rows if row["video_id"] not in ids]:
            few = ", ".join(gone[:3]) + ", ..." * (len(gone) > 3)
            many = "1 row is of a video" if len(gone) == 1 else f"{len(gone)} rows are of videos"
            said = f"{many} no longer under {self.root}, left out of the index: {few}."
            print(said, file=sys.stderr, flush=True)
        return found

    def _holds(self, row: Mapping) -> bool:
        if row["video_id"] in self.ids:
            return True
        path = Path(row["path"])
        if path in self.paths:  # it has another id now
            return False
        if path.is_relative_to(self.root) and on_disk(path).exists():
            return self._lists(path)
        return _same_below(row, self.root)

    def _lists(self, path: Path) -> bool:
        """Whether an archive that has been read for these records still has the folder."""
        archive, folder = archive_of(path) or (None, "")
        if archive not in self.archives:
            return True
        if archive not in self._listed:
            try:
                self._listed[archive] = {"", *list_archive(archive)[0]}
            except DataError:  # its own row says what is wrong
                self._listed[archive] = set()
        return folder in self._listed[archive]


def _above(record: VideoRecord) -> Path:
    """The folder below which a video's id is its place, as far as it is; else the file's own."""
    path = top = on_disk(record.path.absolute())
    for name in reversed(record.video_id.split("/")):
        if name not in (top.name, top.stem):
            break
        top = top.parent
    return path.parent if top == path else top


def moved_store(candidates: Sequence[Path], root: Path, sample: int = 12) -> Path | None:
    """That of the candidates whose videos are those of the tree `root`, which has been moved.

    A few rows are compared by size and checksum, each with the file of the same place below root.
    There may not be far more files beside it than the candidate knows: then that is a part of the
    tree, copied to try something, whose settings are not meant for the whole.
    """
    for folder in candidates:
        paths = _indexed(folder)
        some = [_row_of(path) for path in paths[:: max(1, len(paths) // sample)]]
        found = [_below(row, root) for row in some]
        pairs = dict(zip(found, some, strict=True))
        if found and all(found) and _is_whole(pairs, folder, paths):
            return folder
    return None


def _is_whole(found: Mapping[Path, Mapping], folder: Path, paths: Sequence[Path]) -> bool:
    """Whether beside each file found, of a row of the store, lie not far more than it knows."""
    try:
        places = CropStore(folder).index["path"]
    except DataError:
        places = [row["path"] for row in map(_row_of, paths) if row]
    known = Counter(disk.parent for disk in {on_disk(Path(place)) for place in places})
    for there, row in found.items():
        beside = sum(path.suffix == there.suffix for path in there.parent.iterdir())
        if beside > 1.5 * known[on_disk(Path(row["path"])).parent]:
            return False
    return True


def _indexed(folder: Path) -> list[Path]:
    """The row files of a store's index, or all where there is none."""
    try:
        return [path_of(folder, name) for name in CropStore(folder).index["video_id"]]
    except DataError:
        return sorted((folder / "crops").rglob("*.json"))


def _row_of(path: Path) -> dict:
    try:
        return read_row(path)
    except DataError:
        return {}


def _same_below(row: Mapping, root: Path) -> bool:
    """Whether a row's video is at the same place below another root."""
    return _below(row, root) is not None


def _below(row: Mapping, root: Path) -> Path | None:
    """The file of a row's video at the same place below another root, if it is the same."""
    if not row.get("source"):
        return None
    place, source = Path(row["path"]).parts, row["source"]
    for k in range(1, len(place)):
        disk = on_disk(root.joinpath(*place[k:]))
        if disk.exists():
            return disk if _source(disk, source)[::2] == source[::2] else None
    return None


def _source(disk: Path, before: list | None) -> list:
    """Size, time in whole seconds and checksum of a file, or of a folder's names and sizes; nothing
    known for what is not there. before: the same of an earlier call."""
    if not disk.exists():
        return [0, 0, ""]
    stat = disk.stat()
    if disk.is_dir():
        listing = sorted((path.name, path.stat().st_size) for path in disk.iterdir())
        return [sum(size for _, size in listing), 0, f"{crc32(json.dumps(listing).encode()):08x}"]
    known = [stat.st_size, int(stat.st_mtime)]
    if isinstance(before, list) and before[:2] == known and len(before) == 3:
        return before
    checksum = 0
    with open(disk, "rb") as file:
        for at in sorted({0, stat.st_size // 2, max(0, stat.st_size - PIECE)}):
            file.seek(at)
            checksum = crc32(file.read(PIECE), checksum)
    return [*known, f"{checksum:08x}"]
