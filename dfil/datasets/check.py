"""What a tree holds against what its owners publish.

Counts, files that are missing or empty, and videos on both sides of a split. What a dataset can say
of itself stands in its adapter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from dfil.datasets import Adapter, Filters, get, is_synthetic
from dfil.datasets.records import VideoRecord
from dfil.datasets.sequences import ARCHIVES, on_disk
from dfil.datasets.splits import check_disjoint
from dfil.system.errors import DataError

WRONG = ("missing", "unreadable", "leaks", "differences")  # the findings that make a tree unfit
COUNTED = ("split", "label", "manipulation", "compression")
HEAD = 2**20  # bytes compared of two files of one size


def check(dataset: str, root: str | Path, **filters) -> dict:
    """dataset, root, synthetic, counts (rows of COUNTED and videos) and five lists of sentences.

    The lists are missing, unreadable, leaks and differences, of which any entry is a fault, and
    notes. Validation videos count as training videos where numbers are compared; with `filters`,
    numbers are not compared. Raises DataError as `load_records`.
    """
    root, owner, wanted = Path(root), get(dataset), Filters(**filters)
    records = owner.records(root, wanted)
    # An archive that cannot be read is one record, but no video.
    videos = [r for r in records if not r.path.name.endswith(ARCHIVES)]
    counts = Counter(tuple(getattr(r, name) for name in COUNTED) for r in videos)
    differences, notes = [], list(owner.notes(root, records))
    if wanted:
        notes.append(
            "Numbers were not compared with the published ones, because a filter was given."
        )
    elif not is_synthetic(root):
        (notes if owner.lists_all else differences).extend(_differences(owner, root, videos))
    if outside := sum(not r.split for r in records):
        notes.append(f"Videos in no split, which nothing uses: {outside}.")
    files = dict.fromkeys(on_disk(r.path) for r in videos)
    empty = [path for path in files if path.is_file() and not path.stat().st_size]
    columns = *COUNTED, "videos"
    return {
        "dataset": dataset,
        "root": str(root),
        "synthetic": is_synthetic(root),
        "counts": [dict(zip(columns, (*key, n), strict=True)) for key, n in counts.items()],
        "missing": [str(path) for path in owner.missing(root, wanted)],
        "unreadable": [*(f"{path} is empty" for path in empty), *owner.unreadable(root)],
        "leaks": [*owner.leaks(records), *_same_files(records), *_split_groups(records)],
        "differences": differences,
        "notes": notes,
    }


def _differences(owner: Adapter, root: Path, videos: Sequence[VideoRecord]) -> list[str]:
    release, numbers = owner.expected(root) or ("", {})
    found = []
    for (split, label), published in numbers.items():
        here = sum(
            split in ("", r.split.replace("val", "train"))
            and label in ("", ("real", "fake")[r.label])
            for r in videos
        )
        if here != published:
            what = " ".join(filter(None, (split, label)))
            found.append(f"{what}: {here} videos, {release} has {published}")
    return found


def _same_files(records: Sequence[VideoRecord]) -> list[str]:
    """Test files that are in training or validation too, under whatever name."""
    by_size: dict[int, dict[bool, dict[Path, None]]] = defaultdict(lambda: {True: {}, False: {}})
    for record in records:
        path = on_disk(record.path)
        if record.split and path.is_file() and (size := path.stat().st_size):
            by_size[size][record.split == "test"][path] = None
    found = []
    for _, same_size in sorted(by_size.items()):  # only files of one size need to be opened
        test, seen = same_size[True], same_size[False]
        heads = {_head(path): path for path in seen} if test else {}
        found += [
            f"{path} (test) is the same file as {heads[head]}"
            for path in (test if seen else ())
            if (head := _head(path)) in heads
        ]
    return found


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _split_groups(records: Sequence[VideoRecord]) -> list[str]:
    try:
        check_disjoint(records)
    except DataError as error:
        return [str(error)]
    return []
