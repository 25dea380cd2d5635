"""Validation splits for datasets whose owners give none, and the filters that their adapters share.

A split is carved from the training videos by groups, so that what a group stands for (a person, a source video) is never on both
sides. Which groups go to validation follows from the seed and their names alone: nothing is written into the tree, the same tree
gives the same split on every machine, and a missing file moves hardly any other. It is on record in the column `split` of the crop
store's index, and `validation` returns it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from hashlib import sha256

from dfil.datasets.records import REAL, VideoRecord
from dfil.system.errors import DataError

SPLITS = ("train", "val", "test")
SHARE = 0.1  # of the groups of the training videos
SEED = 0

Group = Callable[[VideoRecord], str]


def carve(
    records: Iterable[VideoRecord], group: Group, share: float = SHARE, seed: int = SEED
) -> list[VideoRecord]:
    """The records, those of about `share` of the training groups with split "val" instead of "train".

    Groups of only reals, only fakes and both are drawn from separately, so that validation has its part of each; from two groups on
    at least one goes to validation. Raises DataError unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise DataError(f"The share of validation groups must lie between 0 and 1; it is {share}.")
    records = list(records)
    labels: dict[str, set[int]] = defaultdict(set)
    for record in records:
        if record.split == "train":
            labels[group(record)].add(record.label)
    strata: dict[frozenset[int], list[str]] = defaultdict(list)
    for name, found in labels.items():
        strata[frozenset(found)].append(name)
    chosen = {name for names in strata.values() for name in _draw(names, share, seed)}
    carved = [
        replace(r, split="val") if r.split == "train" and group(r) in chosen else r for r in records
    ]
    check_disjoint(carved, group)
    return carved


def validation(records: Iterable[VideoRecord], group: Group) -> list[str]:
    """The groups that are in validation, sorted."""
    return sorted({group(r) for r in records if r.split == "val"})


def check_disjoint(records: Iterable[VideoRecord], group: Group) -> None:
    """Raises DataError if a group has videos in training and in validation."""
    records = list(records)
    if both := sorted(
        {group(r) for r in records if r.split == "train"} & set(validation(records, group))
    ):
        raise DataError(
            f"{both[0]} and {len(both) - 1} more are in training and in validation; carve the split by whole groups."
        )


def select(
    records: Iterable[VideoRecord],
    dataset: str,
    known: Collection[str],
    compressions: Collection[str] | None = None,
    manipulations: Collection[str] | None = None,
    splits: Collection[str] | None = None,
) -> list[VideoRecord]:
    """The records that the filters leave, reals first; None leaves all, and reals stay whatever `manipulations` says.

    dataset: its name for error messages. known: its manipulations. Raises DataError if a filter names something the dataset does not
    have; of these datasets each is in one compression, which has no name.
    """
    for what, names, choices in (
        ("compression", compressions, ()),
        ("manipulation", manipulations, (REAL, *known)),
        ("split", splits, SPLITS),
    ):
        given = [names] if isinstance(names, str) else sorted(set(names or ()) - set(choices))
        if given:
            raise DataError(
                f"{dataset} has no {what} {given[0]!r}; "
                + (f"give a list of: {', '.join(choices)}." if choices else "give none.")
            )
    kept = [
        r
        for r in records
        if (manipulations is None or r.manipulation in (REAL, *manipulations))
        and (splits is None or r.split in splits)
    ]
    return sorted(kept, key=lambda r: r.label)


def _draw(names: list[str], share: float, seed: int) -> list[str]:
    ranked = sorted(names, key=lambda name: sha256(f"{seed} {name}".encode()).digest())
    return ranked[: max(1, round(share * len(ranked)))] if len(ranked) > 1 else []
