"""What a tree holds against what its owners publish: counts, files that are missing or empty, and videos on both sides of a split.

An adapter may have, beside `records`, any of: missing(root, **filters) and unlisted(root), both lists of paths; unreadable(root),
leaks(records) and notes(records), lists of sentences; group(record), what validation was carved by; expected(root), a release's name
and its numbers of videos by (split, label), "" for any; OWNERS_LIST = True where the tree names every video, so that a published
total which differs is a note and no fault.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from dfil.datasets import ADAPTERS, is_synthetic, load_records
from dfil.datasets.records import VideoRecord
from dfil.datasets.sequences import ARCHIVES, on_disk
from dfil.datasets.splits import check_disjoint
from dfil.system.errors import DataError

WRONG = ("missing", "unreadable", "leaks", "differences")  # the findings that make a tree unfit
HEAD = 2**20  # bytes compared of two files of one size


def check(dataset: str, root: str | Path, **filters) -> dict:
    """dataset, root, synthetic, counts (rows of split, label, manipulation, compression, videos) and five lists of sentences.

    The lists are missing, unreadable, leaks and differences, of which any entry is a fault, and notes. Validation videos count as
    training videos where numbers are compared; with `filters`, numbers are not compared. Raises DataError as the adapter's `records`.
    """
    root = Path(root)
    records = load_records(dataset, root, **filters)
    adapter = sys.modules[ADAPTERS[dataset].__module__]
    videos = [
        r for r in records if not r.path.name.endswith(ARCHIVES)
    ]  # an archive that cannot be read is one record, but no video
    counts = Counter((r.split, r.label, r.manipulation, r.compression) for r in videos)
    names = ("split", "label", "manipulation", "compression", "videos")
    synthetic = is_synthetic(root)
    differences, notes = [], _said(adapter, "notes", records)
    if filters:
        notes.append(
            "Numbers were not compared with the published ones, because a filter was given."
        )
    elif not synthetic:
        (notes if getattr(adapter, "OWNERS_LIST", False) else differences).extend(
            _differences(adapter, root, videos)
        )
    notes += [
        f"{path} is not used: no list gives it a label."
        for path in _said(adapter, "unlisted", root)
    ]
    if outside := sum(not r.split for r in records):
        notes.append(f"Videos in no split, which nothing uses: {outside}.")
    return {
        "dataset": dataset,
        "root": str(root),
        "synthetic": synthetic,
        "counts": [dict(zip(names, (*key, count), strict=True)) for key, count in counts.items()],
        "missing": [str(path) for path in _said(adapter, "missing", root, **filters)],
        "unreadable": [f"{path} is empty" for path in _empty(records)]
        + _said(adapter, "unreadable", root),
        "leaks": _said(adapter, "leaks", records)
        + _same_files(records)
        + _split_groups(adapter, records),
        "differences": differences,
        "notes": notes,
    }


def _said(adapter: ModuleType, name: str, *arguments, **filters) -> list:
    function: Callable | None = getattr(adapter, name, None)
    return list(function(*arguments, **filters)) if function else []


def _differences(adapter: ModuleType, root: Path, videos: Sequence[VideoRecord]) -> list[str]:
    if not hasattr(adapter, "expected"):
        return []
    release, numbers = adapter.expected(root)
    found = []
    for (split, label), published in numbers.items():
        here = sum(
            (not split or (r.split.replace("val", "train") or "none") == split)
            and (not label or ("real", "fake")[r.label] == label)
            for r in videos
        )
        if here != published:
            found.append(
                f"{' '.join(filter(None, (split, label)))}: {here} videos, {release} has {published}"
            )
    return found


def _empty(records: Sequence[VideoRecord]) -> list[Path]:
    files = dict.fromkeys(on_disk(r.path) for r in records if not r.path.name.endswith(ARCHIVES))
    return [path for path in files if path.is_file() and not path.stat().st_size]


def _same_files(records: Sequence[VideoRecord]) -> list[str]:
    """Test files that are in training or validation too, under whatever name. Only files of one size need to be opened."""
    by_size: dict[int, dict[bool, dict[Path, None]]] = defaultdict(lambda: {True: {}, False: {}})
    for record in records:
        path = on_disk(record.path)
        if record.split and path.is_file() and (size := path.stat().st_size):
            by_size[size][record.split == "test"][path] = None
    found = []
    for size in sorted(by_size):
        test, seen = by_size[size][True], by_size[size][False]
        if test and seen:
            heads = {_head(path): path for path in seen}
            found += [
                f"{path} (test) is the same file as {heads[head]}"
                for path in test
                if (head := _head(path)) in heads
            ]
    return found


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _split_groups(adapter: ModuleType, records: Sequence[VideoRecord]) -> list[str]:
    if hasattr(adapter, "group"):
        try:
            check_disjoint(records, adapter.group)
        except DataError as error:
            return [str(error)]
    return []
