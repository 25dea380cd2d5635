"""What a process does with memory that it has freed: on Linux the C library hands it back too
eagerly for a training."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT = 2**30  # bytes


def reuse_freed_memory() -> bool:
    """Keep up to 1 GiB of freed memory in this process for its next tensors; whether the C library
    took the request.

    Every operation of a network allocates its result anew. By default glibc often returns such
    blocks to the system and asks for them again a moment later, and the kernel then clears every
    page: up to a tenth of a training step's time on a CPU and a quarter of a scoring pass's. Only
    glibc knows the request; elsewhere nothing happens. Results do not change.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # Both, because setting one alone switches off glibc's own adjustment of the other.
    wanted = (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)
    return mallopt is not None and all(mallopt(what, _KEPT) for what in wanted)
