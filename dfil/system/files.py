"""Results written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dfil.system import process
from dfil.system.errors import MachineError

_count = itertools.count()  # two threads may write one file
_SIGNED = re.compile(r"\.(?P<pid>\d+)(?:-(?P<machine>[0-9a-f]+)-\d+)?\.part$")
_FORGOTTEN = 24 * 3600  # seconds without a change after which no other machine writes a file


@contextmanager
def atomic(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`; moved onto it when the block ends well, removed if not.

    durable: on the disk before it takes the old one's place, so that a power failure leaves one
    of the two; False for what is made again in no time. A full disk leaves the old file as it is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    signed = f"{os.getpid()}-{process.machine()}-{next(_count)}"
    part = path.with_name(f"{path.name}.{signed}.part")  # no suffix that anything looks for
    try:
        yield part
        if durable:
            _sync(part)
        os.replace(part, path)
        if durable:
            _sync(path.parent)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path, pattern: str = "*.part") -> None:
    """Remove those unfinished files of `atomic` in a folder whose writers have ended."""
    for part in folder.glob(pattern):
        signed = _SIGNED.search(part.name)
        with suppress(FileNotFoundError):
            if signed and signed["machine"] in (None, process.machine()):
                finished = not process.born(int(signed["pid"]))
            else:
                finished = time.time() - part.stat().st_mtime > _FORGOTTEN
            if finished:
                part.unlink()


def _sync(path: Path) -> None:
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder on Windows
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a disk without sync of folders
            raise
    finally:
        os.close(number)


def require_room(folder: Path, gigabytes: float, what: str) -> None:
    """Raise MachineError if the disk of `folder`, which need not be there, has not so much room."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    if free < gigabytes:
        raise MachineError(
            f"{folder}: {what} need about {gigabytes:.1f} GB and the disk has {free:.1f} GB left;"
            " make room or let $DFIL_DATA name a larger disk"
        )
