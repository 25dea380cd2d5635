"""Which frames of a video are forged, where a tree says so.

No dataset of the paper does; the synthetic DFDC tree and the partially forged one do:

    <root>/truth.json   {video_id: {"frames": n, "forged": [[first, stop], ...],
                                    "people": 2, "person": 1}, ...}

Frames [first, stop) are forged. people: how many are in the picture; person: which of them is
forged, counted from the left, 0 first, null in a real video. Adapters do not read the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfil.datasets.lists import read_table
from dfil.system.errors import DataError

FILE = "truth.json"
LONGEST = 10**7  # frames; four days at 25 a second


@dataclass(frozen=True)
class Truth:
    """forged_t: bool (T,), one entry per frame of the file. people: in the picture. person: the
    forged one from the left, or None."""

    forged_t: np.ndarray
    people: int = 1
    person: int | None = None


def truth(root: str | Path) -> dict[str, Truth]:
    """The truth of every video of a tree by its video_id; empty for a tree that has none.

    Raises DataError for a file it cannot read.
    """
    path, advice = Path(root) / FILE, "write the synthetic tree again"
    if not path.is_file():
        return {}
    entries = read_table(path, advice)
    try:
        return {video_id: _read(entry) for video_id, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is not of the form that dfil writes ({error!r}); {advice}."
        ) from error


def forged_frames(root: str | Path) -> dict[str, np.ndarray]:
    """Per video_id which frames are forged, bool (T,). Raises DataError as `truth`."""
    return {video_id: found.forged_t for video_id, found in truth(root).items()}


def _read(entry: dict) -> Truth:
    if not 0 <= entry["frames"] <= LONGEST:
        raise ValueError(f"a video of {entry['frames']} frames")
    forged_t = np.zeros(entry["frames"], bool)
    for first, stop in entry["forged"]:
        if not 0 <= first < stop <= len(forged_t):
            raise ValueError(f"the frames {first} to {stop} are not in a video of {len(forged_t)}")
        forged_t[first:stop] = True
    return Truth(forged_t, entry["people"], entry["person"])
