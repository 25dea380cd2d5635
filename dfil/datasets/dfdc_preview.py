"""The DFDC preview (Dolhansky et al. 2019), read from the owners' tree without moving or renaming anything.

    <root>/dataset.json       {"method_A/T/T_S/....mp4": {"label": "fake" | "real", "set": "train" | "test", ...}, ...}
    <root>/original_videos/T/T_S_NNN.mp4                        the actor T
    <root>/{method_A,method_B}/T/T_S/W_T_S_NNN.mp4              the face of W on a video of T

There is no official validation split: ours takes whole target actors T out of training, reals and fakes. Many test videos were
degraded (frame rate, size, bitrate), and no file says which original a fake was made from, so every video is detected on its own.
The owners give no masks either; a synthetic tree has them under <root>/masks, by the same names.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.splits import SEED, SHARE, carve, select
from dfil.system.errors import DataError

MANIPULATIONS = ("method_A", "method_B")
ORIGINALS = "original_videos"
EXPECTED = {
    "DFDC preview": {("", "real"): 1131, ("", "fake"): 4119}
}  # videos by split and label, "" for any
OWNERS_LIST = True  # dataset.json names every video, so published totals only inform


def records(
    root: str | Path,
    compressions: Collection[str] | None = None,
    manipulations: Collection[str] | None = None,
    splits: Collection[str] | None = None,
    share: float = SHARE,
    seed: int = SEED,
) -> list[VideoRecord]:
    """One record per video file that is there, reals first, in the order of their names.

    share, seed: of the validation split, see splits.carve. A file that dataset.json does not name has split "".
    Raises DataError if there is no dataset.json, it contradicts the folders, or no video is left.
    """
    root = Path(root)
    listed = read_list(root)
    found = [
        _record(root, path, name, listed.get(f"{name}.mp4", "")) for path, name in _videos(root)
    ]
    found = select(
        carve(found, group, share, seed),
        "The DFDC preview",
        MANIPULATIONS,
        compressions,
        manipulations,
        splits,
    )
    if not found:
        raise DataError(
            f"{root} holds no video of the DFDC preview for these filters; expected the folders method_A, method_B, {ORIGINALS}."
        )
    return found


def missing(root: str | Path, **filters) -> list[Path]:
    """What dataset.json names and the tree lacks: files, or a top folder that is absent as a whole; paths below `root`.

    Takes the filters of `records`; validation videos count as training videos.
    """
    root = Path(root)
    select([], "The DFDC preview", MANIPULATIONS, **filters)
    wanted = (
        ORIGINALS,
        *(MANIPULATIONS if filters.get("manipulations") is None else filters["manipulations"]),
    )
    splits = {
        "train" if split == "val" else split for split in filters.get("splits") or ("train", "test")
    }
    lacking = [
        Path(top)
        for top in (ORIGINALS, *MANIPULATIONS)
        if top in wanted and not (root / top).is_dir()
    ]
    for name, split in read_list(root).items():
        top = name.split("/")[0]
        if (
            top in wanted
            and split in splits
            and (root / top).is_dir()
            and not (root / name).is_file()
        ):
            lacking.append(Path(name))
    return lacking


def read_list(root: str | Path) -> dict[str, str]:
    """The split, "train" or "test", of every video that dataset.json names, as a path below `root`.

    Raises DataError if the file is absent or unreadable, an entry lies in no known folder, or a label contradicts the folder.
    """
    path = Path(root) / "dataset.json"
    if not path.parent.is_dir():
        raise DataError(f"{root} is not a folder; give the top of the tree of the DFDC preview.")
    if not path.is_file():
        raise DataError(
            f"{path} is not there; take the one that came with the DFDC preview, it names labels and splits."
        )
    try:
        entries = {
            name: (entry["label"].lower(), entry["set"].lower())
            for name, entry in json.loads(path.read_text()).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f'{path} does not map file names to "label" and "set" ({error!r}); take the owners\' file.'
        ) from error
    for name, (label, split) in entries.items():
        parts = PurePosixPath(name).parts
        if len(parts) < 3 or parts[0] not in (ORIGINALS, *MANIPULATIONS) or ".." in parts:
            raise DataError(
                f"{path} names {name!r}, which is not in {ORIGINALS}, method_A or method_B; take the owners' file."
            )
        if label != ("real" if parts[0] == ORIGINALS else "fake") or split not in ("train", "test"):
            raise DataError(
                f"{path} gives {name} the label {label!r} and the set {split!r}, which cannot be; take the owners' file."
            )
    return {name: split for name, (_, split) in entries.items()}


def group(record: VideoRecord) -> str:
    """What goes to validation as a whole: the target actor."""
    return record.person


def expected(root: str | Path) -> tuple[str, dict[tuple[str, str], int]]:
    """The release and its published numbers."""
    return next(iter(EXPECTED.items()))


def leaks(records: Sequence[VideoRecord]) -> list[str]:
    """Pairs of target and swapped actor that have fakes in training or validation and in test."""
    seen, test = (
        {_pair(r) for r in records if r.label and r.split in splits}
        for splits in (("train", "val"), ("test",))
    )
    return [
        f"The fakes of actor {target} with the face of {source} are in training and in test."
        for target, source in sorted(seen & test)
    ]


def notes(records: Sequence[VideoRecord]) -> list[str]:
    """What whoever reads the scores should know about the splits."""
    seen, test = (
        {group(r) for r in records if r.split in splits} for splits in (("train", "val"), ("test",))
    )
    return (
        [f"{len(seen & test)} of the {len(test)} target actors of test are in train or val too."]
        if seen & test
        else []
    )


def _pair(record: VideoRecord) -> tuple[str, str]:
    return group(record), PurePosixPath(record.video_id).name.split("_")[0]


def _record(root: Path, path: Path, name: str, split: str) -> VideoRecord:
    masks = root / "masks" / f"{name}.mp4"
    top, actor = name.split("/")[:2]
    swapped, _, rest = path.stem.partition("_")
    return VideoRecord(
        dataset="dfdc-preview",
        video_id=name,
        label=int(top != ORIGINALS),
        manipulation=REAL if top == ORIGINALS else top,
        compression="",
        split=split,
        path=path,
        target=rest if top != ORIGINALS and rest.startswith(actor) else path.stem,
        masks=masks if masks.is_file() else None,
        person=actor,
    )


def _videos(root: Path) -> list[tuple[Path, str]]:
    """Every video under the three folders, with its name below `root` without the suffix."""
    found = [
        path
        for top in (ORIGINALS, *MANIPULATIONS)
        for path in sorted((root / top).glob("*/**/*.mp4"))
    ]
    return [
        (path, path.relative_to(root).with_suffix("").as_posix())
        for path in found
        if not path.name.startswith(".")
    ]
