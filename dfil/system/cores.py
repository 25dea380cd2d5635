"""How much of the machine this process may use."""

from __future__ import annotations

import os

_beside = 1  # processes that share the cores, this one among them


def share_cores(processes: int) -> None:
    """From now on `cores` gives this process its part: so many do the same side by side."""
    global _beside
    _beside = processes


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    return max(1, there // _beside)
