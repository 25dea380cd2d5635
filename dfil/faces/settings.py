"""What the crops of a store depend on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

from dfil.datasets import VideoRecord, is_synthetic, synthetic_setting
from dfil.faces import detect
from dfil.faces.boxes import MAX_GAP
from dfil.faces.grid import LIMITS, Limits
from dfil.faces.store import META, RULES, read_meta, write_json
from dfil.system.errors import DataError

BETWEEN = "between the stretches that are kept; `dfil preprocess --whole` keeps all"
FEWER = "are beyond its end"  # of a real's stretches, which its fakes share; train/spec.py counts
SHORTEST = 4  # consecutive frames with a face that a track must have: one snippet of the paper
EVERY = 8  # frames from one detection to the next
FORMAT = 3  # of the store; a change makes old rows stale
# What real data get by default, because nobody has the disk for every frame: stretches at 0, 1/3,
# 2/3 and 1 of a video hold eight different test snippets, or the 16 frames of a baseline each.
COMPACT = {"store_margin": 1.3, "stretches": (4, 16)}
WHOLE = {"store_margin": LIMITS.margin, "stretches": None}
PACKAGES = {"dlib": "dlib-bin", "mtcnn": "facenet-pytorch"}


@dataclass(frozen=True)
class Settings:
    """One store has one of these.

    size: pixels of the typical snippet box. detector: "dlib" or "mtcnn". every: frames from one
    detection of a face to the next (the last frame always gets one; where a path is doubtful there
    are more). tracks: "largest" keeps the person with the largest total area, "all" everybody.
    reach, store_margin: longest snippet in frames and largest margin the store can serve.
    stretches: (how many, frames each) keeps so many evenly spaced stretches, None all frames.
    """

    size: int
    detector: str = "dlib"
    every: int = EVERY
    tracks: str = "largest"
    reach: int = LIMITS.reach
    store_margin: float = LIMITS.margin
    stretches: tuple[int, int] | None = None
    format: int = FORMAT

    def __post_init__(self):
        detect.check_name(self.detector)
        if self.tracks not in RULES:
            known = ", ".join(RULES)
            raise DataError(f"Unknown choice of tracks {self.tracks!r}; choose one of: {known}.")
        if not 1 <= self.every <= MAX_GAP:
            raise DataError(
                f"A face must be looked for every 1 to {MAX_GAP} frames, not every {self.every}."
            )
        if self.size < 8 or self.reach < 1 or self.store_margin < 1:
            given = f"size {self.size}, reach {self.reach}, store_margin {self.store_margin}"
            raise DataError(f"{given}: at least 8, 1 and 1 are needed.")
        if self.stretches and (self.stretches[0] < 1 or self.stretches[1] < SHORTEST):
            given = "{} stretches of {} frames".format(*self.stretches)
            raise DataError(f"{given}: at least one of {SHORTEST} frames is needed.")

    @property
    def limits(self) -> Limits:
        """What snippets the store can serve."""
        return Limits(self.reach, self.store_margin)


def usual(root: Path) -> dict:
    """Keywords of `preprocess` for a tree without a store: all of built-in clips, which are short,
    and stretches of real videos (COMPACT)."""
    return {} if is_synthetic(root) else COMPACT


def settings_of(folder: Path) -> dict:
    """The settings of an existing store but for its size, as keywords of `preprocess`; empty if
    there is none."""
    path = Path(folder) / "meta.json"
    if not path.is_file():
        return {}
    try:
        meta = read_meta(path)
    except DataError:  # `claim` writes it again
        return {}
    names = [f.name for f in fields(Settings) if f.name not in ("size", "format")]
    kept = {name: meta[name] for name in names if name in meta}
    return kept | {"stretches": tuple(kept["stretches"]) if kept.get("stretches") else None}


def describe(records: Sequence[VideoRecord], settings: Settings) -> dict:
    """What the store's meta.json says of records with these settings."""
    datasets = sorted({r.dataset for r in records})
    if len(datasets) > 1:
        raise DataError(
            f"One store holds one dataset, not {' and '.join(datasets)}; give each its own folder."
        )
    marks = [synthetic_setting(p) for p in {r.path.parent: r.path for r in records}.values()]
    if any(mark != marks[0] for mark in marks):
        raise DataError(
            "The records come from several trees, of which at least one is synthetic;"
            " give each its own store."
        )
    packages = ("dfil", "av", "numpy", "opencv-python-headless", PACKAGES[settings.detector])
    about = {"dataset": datasets[0], **asdict(settings)}
    about |= {"synthetic": marks[0] is not None, "synthetic_setting": marks[0]}
    return json.loads(json.dumps(about | {"versions": {name: version(name) for name in packages}}))


def claim(folder: Path, meta: dict) -> None:
    """Make the folder a store with these settings, or find that it is one already. Raises DataError
    if it is one with others, or its meta.json is something else's."""
    path = folder / "meta.json"
    try:
        before = read_meta(path) if path.exists() else {}
    except DataError as error:  # the rows tell by their keys whether they are of these settings
        if _is_foreign(path):
            raise DataError(
                f"{path} is no crop store's and would be written over; name another folder for the"
                " crops, or move it away."
            ) from error
        print(f"{error} It is made again now.", file=sys.stderr, flush=True)
        before = {}
    if not before:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, meta)
        return
    names = ["dataset", *(f.name for f in fields(Settings)), "synthetic", "synthetic_setting"]
    if other := [name for name in names if before.get(name) != meta[name]]:
        was = ", ".join(f"{name} {before.get(name)!r} (now {meta[name]!r})" for name in other)
        raise DataError(
            f"{folder} is a crop store with {was}; take another folder, or delete this one."
        )


def _is_foreign(path: Path) -> bool:
    """Whether a meta.json that cannot be read as a store's is no damaged one of a store."""
    if not (path.parent / "crops").is_dir():
        return True
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # half a file, or broken bytes
        return False
    return not isinstance(found, dict) or 2 * len(found.keys() & META.keys()) < len(META)
