"""The rows of a store, one small file per video: what is done, found again wherever tree and store
have been moved.

A row's key holds what the crops follow from: the video's id, size and checksum, those of the real
video whose boxes it takes, and the settings. No absolute path and no time is in it. The checksum is
of the file's beginning, middle and end, and is taken anew only if size or time, in seconds, differ.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from zlib import crc32

from dfil.datasets import VideoRecord
from dfil.datasets.sequences import on_disk
from dfil.faces.crops import Crops, crops_path
from dfil.faces.settings import Settings
from dfil.faces.store import read_row, write_json
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
    row = read(folder, record.video_id)
    if not row or row.get("key") != source_of(record, folder, settings)["key"]:
        return False
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


def moved_store(candidates: Sequence[Path], root: Path, sample: int = 12) -> Path | None:
    """That of the candidates whose videos are those of the tree `root`, which has been moved.

    A few rows are compared by size and checksum, each with the file of the same place below root.
    """
    for folder in candidates:
        paths = sorted((folder / "crops").rglob("*.json"))
        found = [_same_below(path, root) for path in paths[:: max(1, len(paths) // sample)]]
        if found and all(found):
            return folder
    return None


def _same_below(row_path: Path, root: Path) -> bool:
    try:
        row = read_row(row_path)
        place, source = Path(row["path"]).parts, row["source"]
    except (DataError, KeyError):
        return False
    for k in range(1, len(place)):
        disk = on_disk(root.joinpath(*place[k:]))
        if disk.exists():
            return _source(disk, source)[::2] == source[::2]
    return False


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
