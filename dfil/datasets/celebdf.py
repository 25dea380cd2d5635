"""Celeb-DF v1 and v2 (Li et al., CVPR 2020), read from the owners' tree without moving or renaming anything.

    <root>/Celeb-real/idA_NNNN.mp4
    <root>/Celeb-synthesis/idA_idB_NNNN.mp4     target idA, source idB: the face of B on the video idA_NNNN
    <root>/YouTube-real/NNNNN.mp4
    <root>/List_of_testing_videos.txt           "1 YouTube-real/00170.mp4", "0 Celeb-synthesis/id0_id16_0009.mp4"

In the list 1 means REAL and 0 FAKE, the opposite of our labels. Its videos are the test split, all others are for training. Most
people of the test videos are in training videos too, and so are the real videos of many test fakes: that is how the owners made it.

There is no official validation split. Ours takes whole target identities idA out of training (reals and fakes), and videos of
YouTube-real, of which each shows somebody else, one by one. The source idB of a training fake may be a validation identity.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.splits import SEED, SHARE, carve, select
from dfil.system.errors import DataError

FAKE = "Celeb-synthesis"
MANIPULATIONS = (FAKE,)
NAMES = {"Celeb-real": r"(id\d+)_\d+", "YouTube-real": r"\d+", FAKE: r"(id\d+)_(id\d+)_\d+"}
LIST = "List_of_testing_videos.txt"
# Videos by split and label, "" for any; "train" before validation is carved from it.
EXPECTED = {
    "Celeb-DF v1": {("", "real"): 158 + 250, ("", "fake"): 795, ("test", ""): 100},
    "Celeb-DF v2": {
        ("train", "real"): 712,
        ("train", "fake"): 5299,
        ("test", "real"): 178,
        ("test", "fake"): 340,
    },
}


def records(
    root: str | Path,
    compressions: Collection[str] | None = None,
    manipulations: Collection[str] | None = None,
    splits: Collection[str] | None = None,
    share: float = SHARE,
    seed: int = SEED,
) -> list[VideoRecord]:
    """One record per video file that is there, reals first, in the order of their names.

    share, seed: of the validation split, see splits.carve. A file whose name is not of the form above has split "".
    Raises DataError if there is no list of test videos, it contradicts the folders, or no video is left.
    """
    root = Path(root)
    test = read_test_list(root)
    found = []
    for folder, pattern in NAMES.items():
        for path in _videos(root, folder):
            video_id = f"{folder}/{path.stem}"
            split = (
                "test"
                if f"{video_id}.mp4" in test
                else "train"
                if re.fullmatch(pattern, path.stem)
                else ""
            )
            found.append(_record(root, path, folder, split))
    found = select(
        carve(found, group, share, seed),
        "Celeb-DF",
        MANIPULATIONS,
        compressions,
        manipulations,
        splits,
    )
    if not found:
        raise DataError(
            f"{root} holds no Celeb-DF video for these filters; expected for example {root / 'Celeb-real/id0_0000.mp4'}."
        )
    return found


def missing(root: str | Path, **filters) -> list[Path]:
    """What the list of test videos names and the tree lacks, and folders that are absent as a whole; paths below `root`.

    Training videos are named nowhere, so of them only the number can be checked (EXPECTED). Takes the filters of `records`.
    """
    root = Path(root)
    test = read_test_list(root)
    select([], "Celeb-DF", MANIPULATIONS, **filters)
    lacking = [Path(folder) for folder in NAMES if not (root / folder).is_dir()]
    if "test" in (filters.get("splits") or ("test",)):
        lacking += [
            Path(name)
            for name in test
            if (root / name).parent.is_dir() and not (root / name).is_file()
        ]
    return lacking


def read_test_list(root: str | Path) -> dict[str, int]:
    """The test videos, as paths below `root`, with our label (1 = fake), whatever the list's convention.

    Raises DataError if there is no list, a line has another form, or a line's digit contradicts its folder.
    """
    path = Path(root) / LIST
    if not path.parent.is_dir():
        raise DataError(f"{root} is not a folder; give the top of the Celeb-DF tree.")
    if not path.is_file():
        raise DataError(
            f"{path} is not there; without it test videos would be trained on. Take the one that came with Celeb-DF."
        )
    test = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        form = re.fullmatch(rf"([01])\s+(?:\./)?(({'|'.join(NAMES)})/[^/\\]+\.mp4)", line.strip())
        if not form:
            raise DataError(
                f"{path}, line {number}: {line.strip()!r} is not of the form '0 {FAKE}/id0_id1_0000.mp4'; take the owners' list."
            )
        digit, name, folder = form.groups()
        if (digit == "0") != (folder == FAKE):
            raise DataError(
                f"{path}, line {number}: {line.strip()!r}, but 0 means fake and 1 real in this list; take the owners' list."
            )
        test[name] = int(digit == "0")
    return test


def group(record: VideoRecord) -> str:
    """What goes to validation as a whole: the target identity, or the video itself where it is alone in showing somebody."""
    return record.person


def expected(root: str | Path) -> tuple[str, dict[tuple[str, str], int]]:
    """The release that this tree is, and its published numbers, told apart by the list of test videos (100 or 518)."""
    release = "Celeb-DF v2" if len(read_test_list(root)) > 200 else "Celeb-DF v1"
    return release, EXPECTED[release]


def notes(records: Sequence[VideoRecord]) -> list[str]:
    """What whoever reads the scores should know about the official test split."""
    seen, test = (
        [r for r in records if r.split in splits] for splits in (("train", "val"), ("test",))
    )
    people, known = ({group(r) for r in part if r.target.startswith("id")} for part in (test, seen))
    found = []
    if people & known:
        found.append(
            f"{len(people & known)} of the {len(people)} target identities of test are in train or val too, as the owners made it."
        )
    reals = {r.target for r in seen if r.manipulation == REAL}
    if fakes := [r for r in test if r.label and r.target in reals]:
        found.append(
            f"The real videos of {len(fakes)} of the {sum(r.label for r in test)} test fakes are in train or val."
        )
    return found


def _record(root: Path, path: Path, folder: str, split: str) -> VideoRecord:
    fake = folder == FAKE
    form = re.fullmatch(NAMES[folder], path.stem)
    target = re.sub(r"^(id\d+)_id\d+_", r"\1_", path.stem) if fake and form else path.stem
    real_is_there = fake and (root / "Celeb-real" / f"{target}.mp4").is_file()
    return VideoRecord(
        dataset="celebdf",
        video_id=f"{folder}/{path.stem}",
        label=int(fake),
        manipulation=FAKE if fake else REAL,
        compression="",
        split=split,
        path=path,
        target=target,
        person=target.split("_")[0] if target.startswith("id") else f"{folder}/{path.stem}",
        boxes_from=f"Celeb-real/{target}" if real_is_there else "",
    )


def _videos(root: Path, folder: str) -> list[Path]:
    return [path for path in sorted((root / folder).glob("*.mp4")) if not path.name.startswith(".")]
