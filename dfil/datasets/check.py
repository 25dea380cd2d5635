"""What a tree holds against what its owners publish.

Counts, files that are missing or no videos, and videos on both sides of a split. No video is
decoded. What a dataset can say of itself stands in its adapter.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfil.datasets import Adapter, Filters, get, is_synthetic
from dfil.datasets.records import VideoRecord
from dfil.datasets.sequences import ARCHIVES, is_picture, on_disk
from dfil.datasets.splits import check_disjoint
from dfil.system.errors import DataError, machine_fault

WRONG = ("missing", "unreadable", "leaks", "differences")  # the findings that make a tree unfit
COUNTED = ("split", "label", "manipulation", "compression")
HEAD = 2**20  # bytes compared of two files of one size
START = 512  # bytes by which a file is told that lies in a video's place
# What else it may be. A list of what videos begin with would refuse some that FFmpeg reads.
INSTEAD = {
    rb"\Z": "is empty",
    rb"version https://git-lfs": "is a Git LFS pointer; fetch the file with `git lfs pull`",
    rb"(?i)\s*<(!doctype|html|\?xml)": "is a web page and not the file it leads to; fetch it again",
    rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf": "is an archive; unpack it",
    rb"\x89PNG|\xff\xd8\xff": "is a picture; fetch the video again",
    rb"\s*\{\s*\"": "is JSON, such as a server's answer; fetch the video again",
    rb"\x00{512}": "begins with zeros only, as a download that was cut short; fetch it again",
}


def check(dataset: str, root: str | Path, **filters) -> dict:
    """dataset, root, synthetic, counts (rows of COUNTED and videos) and five lists of sentences.

    The lists are missing, unreadable, leaks and differences, of which any entry is a fault, and
    notes. Validation videos count as training videos where numbers are compared; with `filters`,
    numbers are not compared. Raises DataError as `load_records`.
    """
    root, owner, wanted = Path(root), get(dataset), Filters(**filters)
    records = owner.records(root, wanted)
    files = dict.fromkeys(on_disk(r.path) for r in records)
    faults = {path: said for path in files if (said := _no_video(path))}
    # A shard that cannot be read is one record, but no video.
    videos = [r for r in records if not r.path.name.endswith(ARCHIVES)]
    videos = [r for r in videos if r.path not in faults or r.path.is_file()]
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
    told = list(owner.unreadable(root))
    # An adapter knows more of a file than that it is no video.
    named = {p for p in faults if any(line.startswith(f"{p} ") for line in told)}
    columns = *COUNTED, "videos"
    return {
        "dataset": dataset,
        "root": str(root),
        "synthetic": is_synthetic(root),
        "counts": [dict(zip(columns, (*key, n), strict=True)) for key, n in counts.items()],
        "missing": [str(path) for path in owner.missing(root, wanted)],
        "unreadable": [
            *(f"{path} {said}" for path, said in faults.items() if path not in named),
            *told,
            *_doubled(records),
        ],
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


def _no_video(path: Path) -> str:
    """Why a file, or a folder of pictures, is no video, as far as its first bytes say, or ""."""
    try:
        if path.is_dir():
            pictures = any(is_picture(inside.name) for inside in path.iterdir())
            return "" if pictures else "is a folder without a picture; give the video"
        if not path.is_file():  # reading a device or a pipe might never end
            return "is no file, or a link that leads nowhere; fetch the video again"
        with open(path, "rb") as file:
            start = file.read(START)
    except OSError as error:
        return f"cannot be read: {machine_fault(error) or error.strerror}"
    if path.name.endswith(ARCHIVES):
        return ""
    return next((said for form, said in INSTEAD.items() if re.match(form, start)), "")


def _doubled(records: Sequence[VideoRecord]) -> Iterator[str]:
    paths: dict[str, list[Path]] = defaultdict(list)
    for record in records:
        paths[record.video_id].append(record.path)
    for video_id, found in paths.items():
        if len(found) > 1:
            yield f"{found[0]} and {found[1]} would both be video {video_id}; remove one of them."


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
