"""Which process a number means, on which machine: the signature of locks and unfinished files."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil


@cache
def machine() -> str:
    """Where a process number means the same process: the host since its start, and the container.

    Two machines of one name on a shared disk differ by it, and so do a container and its host.
    """
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux: the time of the last start stands for it
        parts.append(f"{psutil.boot_time():.0f}")
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def born(pid: int) -> str:
    """When the process of this number on this machine began; empty if there is none."""
    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return ""
        stat = Path(f"/proc/{pid}/stat")
        if stat.is_file():  # clock ticks since the machine's start, which no clock change moves
            return stat.read_text(errors="replace").rpartition(")")[2].split()[19]
        return f"{psutil.Process(pid).create_time():.0f}"
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return ""
    except psutil.AccessDenied:
        return "?"


def ancestors() -> set[int]:
    """Numbers of this process and of those that it descends from."""
    with suppress(psutil.Error):  # one of them ended meanwhile
        return {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return {os.getpid()}
