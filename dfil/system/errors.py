"""Errors that a user can act on: one sentence with what failed, which file, and what to do next."""

from __future__ import annotations

import errno
import os
import re
from concurrent.futures.process import BrokenProcessPool


class DfilError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback."""


class DataError(DfilError):
    """A dataset tree, a video or a crop store is not what it should be."""


class RunError(DfilError):
    """A training run, its settings or its weights are not what they should be."""


class DivergedError(RunError):
    """A training whose loss is no number any more; the same training would end so again."""


class MachineError(DfilError):
    """Disk, memory, permissions or another process stand in the way; no fault of the input."""


ROOM = 2**28  # bytes without which decoding a good video may fail
_AGAIN = "then call again: what was finished is kept"
_DISK = f"the disk is full; make room, {_AGAIN}"
_DENIED = f"not permitted to this user; change its permissions or name another folder, {_AGAIN}"
_BROKEN = f"the disk or the network disk does not answer as it should; see to it, {_AGAIN}"
_FILES = f"too many files are open; raise the limit (ulimit -n) or give fewer --jobs, {_AGAIN}"
_MEMORY = f"the memory does not suffice; end other programs or give fewer --jobs, {_AGAIN}"
_NUMBERS = {
    _DISK: "ENOSPC",
    f"the disk quota is used up; make room, {_AGAIN}": "EDQUOT",
    f"the disk allows no file of this size; take another disk, {_AGAIN}": "EFBIG",
    _DENIED: "EACCES EPERM",
    f"the disk may only be read; name another folder, {_AGAIN}": "EROFS",
    _BROKEN: "EIO ESTALE ENOTCONN EHOSTDOWN ETIMEDOUT",
    _FILES: "EMFILE ENFILE",
    _MEMORY: "ENOMEM",
    "a file is in the way where a folder belongs; name another place or move the file": (
        "EEXIST ENOTDIR"
    ),
    "a folder is in the way where a file belongs; name another file or move the folder": "EISDIR",
    "a longer name than the disk takes; give a shorter one": "ENAMETOOLONG",
}
_BY_NUMBER = {getattr(errno, n): said for said, named in _NUMBERS.items() for n in named.split()}
# What libraries written in other languages say instead of an errno, lower case.
_BY_WORDS = {
    r"\d+ requested and \d+ written": _DISK,  # numpy
    r"pytorchstreamwriter failed writing|unexpected pos \d+ vs \d+": _DISK,
    r"no space left on device": _DISK,
    r"cuda out of memory|cuda error: out of memory|can't allocate memory": _MEMORY,
    r"not enough memory|insufficient memory|failed to allocate": _MEMORY,
    r"unable to mmap|unable to open shared memory": _MEMORY,
}


def machine_fault(error: BaseException) -> str:
    """A sentence if the machine is at fault (disk, memory, permission, open files); else empty.

    Empty means that the error is a property of the input. Errors that caused this one count too.
    For `raise MachineError(sentence) from error`.
    """
    if isinstance(error, MachineError):
        return str(error)
    of_ffmpeg = type(error).__module__.split(".")[0] == "av"
    if of_ffmpeg and isinstance(error, OSError | MemoryError):
        file = os.fsdecode(error.filename or os.devnull).removeprefix("file:")
        return _scarce() or _unreadable(file)  # FFmpeg says EIO and ENOMEM of damaged videos too
    if isinstance(error, BrokenProcessPool):
        return f"a worker process was killed, most often for lack of memory; {_MEMORY}"
    said = _MEMORY if isinstance(error, MemoryError) else ""
    if isinstance(error, OSError):
        said = _BY_NUMBER.get(error.errno or _number(error), "")
    elif not isinstance(error, DfilError):
        said = said or _BY_NUMBER.get(_number(error), "")
    if not said and not isinstance(error, DfilError):
        text = str(error).lower()
        said = next((s for words, s in _BY_WORDS.items() if re.search(words, text)), "")
    if said:
        file = getattr(error, "filename2", None) or getattr(error, "filename", None)
        return f"{os.fsdecode(file)}: {said}" if isinstance(file, str | bytes) else said
    return machine_fault(error.__cause__) if error.__cause__ else ""


def _number(error: BaseException) -> int:
    """The errno that arrow, safetensors and others write into their message; 0 without one."""
    found = re.search(r"\[?\b(?:os error|errno:?) (\d+)\b", str(error), re.I)
    return int(found.group(1)) if found else 0


def _scarce() -> str:
    """What to say where there is not even the memory for a few frames; empty otherwise."""
    try:
        bytearray(ROOM)
    except MemoryError:
        return _MEMORY
    return ""


def _unreadable(file: str) -> str:
    """What stands against reading a file that is there; empty if the system reads it all."""
    try:
        with open(file, "rb") as stream:
            while stream.read(2**24):
                pass
    except FileNotFoundError:
        return ""
    except OSError as error:
        return machine_fault(error)
    return ""
