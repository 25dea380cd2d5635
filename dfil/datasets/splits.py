"""Validation splits for datasets whose owners give none.

A split is carved from the training videos by groups (VideoRecord.group), so that a person or source
video is never on both sides. Which groups go to validation follows from the seed and their names
alone: nothing is written into the tree, the same tree gives the same split on every machine, and a
missing file moves hardly any other. It is on record in the crop store's index, column `split`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

from dfil.datasets.records import VideoRecord
from dfil.system.errors import DataError

SPLITS = ("train", "val", "test")
SHARE = 0.1  # of the groups of the training videos
SEED = 0


def carve(
    records: Sequence[VideoRecord], share: float = SHARE, seed: int = SEED
) -> list[VideoRecord]:
    """The records, those of about `share` of the training groups with split "val".

    Groups of only reals, only fakes and both are drawn from separately, so that validation has its
    part of each; from two groups on at least one goes there. Raises DataError unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise DataError(f"The share of validation groups must lie between 0 and 1; it is {share}.")
    labels: dict[str, set[int]] = defaultdict(set)
    for record in records:
        if record.split == "train":
            labels[record.group].add(record.label)
    strata: dict[frozenset[int], list[str]] = defaultdict(list)
    for name, found in labels.items():
        strata[frozenset(found)].append(name)
    chosen = {name for names in strata.values() for name in _draw(names, share, seed)}
    carved = [
        replace(r, split="val") if r.split == "train" and r.group in chosen else r for r in records
    ]
    check_disjoint(carved)
    return carved


def groups(records: Iterable[VideoRecord], split: str) -> list[str]:
    """The groups of a split, sorted."""
    return sorted({r.group for r in records if r.split == split})


def check_disjoint(records: Sequence[VideoRecord]) -> None:
    """Raises DataError if a group has videos in training and in validation."""
    if both := sorted({*groups(records, "train")} & {*groups(records, "val")}):
        raise DataError(
            f"{both[0]} and {len(both) - 1} more are in training and in validation; "
            "carve the split by whole groups."
        )


def _draw(names: list[str], share: float, seed: int) -> list[str]:
    ranked = sorted(names, key=lambda name: sha256(f"{seed} {name}".encode()).digest())
    return ranked[: max(1, round(share * len(ranked)))] if len(ranked) > 1 else []
