"""Celeb-DF v1 and v2 (Li et al., CVPR 2020), read without moving or renaming anything.

    <root>/Celeb-real/idA_NNNN.mp4
    <root>/Celeb-synthesis/idA_idB_NNNN.mp4     the face of B on the video idA_NNNN
    <root>/YouTube-real/NNNNN.mp4
    <root>/List_of_testing_videos.txt           "1 YouTube-real/00170.mp4"

In the list 1 means REAL and 0 FAKE, the opposite of our labels. Its videos are the test split, all
others are for training. Most people of the test videos are in training videos too, and so are the
real videos of many test fakes: that is how the owners made it.

Our validation split takes whole target identities idA out of training (reals and fakes), and videos
of YouTube-real, of which each shows somebody else, one by one. The source idB of a training fake
may be a validation identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfil.datasets.adapter import Adapter, Filters, published, sides, videos_in
from dfil.datasets.lists import read_text
from dfil.datasets.records import REAL, VideoRecord
from dfil.system.errors import DataError

FAKE = "Celeb-synthesis"
NAMES = {"Celeb-real": r"(id\d+)_\d+", "YouTube-real": r"\d+", FAKE: r"(id\d+)_(id\d+)_\d+"}
LIST = "List_of_testing_videos.txt"
EXPECTED = {  # "" is any split or label
    "Celeb-DF v1": {("", "real"): 158 + 250, ("", "fake"): 795, ("test", ""): 100},
    "Celeb-DF v2": published(712, 5299, 178, 340),
}


class CelebDF(Adapter):
    """See the module."""

    name, title = "celebdf", "Celeb-DF"
    manipulations, setting = (FAKE,), "celebdf-like"
    example = "Celeb-real/id0_0000.mp4"

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        """A file whose name is not of the form above has split ""."""
        test, reals = read_test_list(root), {p.stem for p in videos_in(root / "Celeb-real")}
        for folder, pattern in NAMES.items():
            for path in videos_in(root / folder):
                video_id, target = f"{folder}/{path.stem}", path.stem
                form = re.fullmatch(pattern, path.stem)
                if form and folder == FAKE:
                    target = re.sub(r"^(id\d+)_id\d+_", r"\1_", path.stem)
                split = "test" if video_id in test else "train" if form else ""
                boxes = f"Celeb-real/{target}" if folder == FAKE and target in reals else ""
                person = target.split("_")[0] if target.startswith("id") else video_id
                shown = dict(target=target, boxes_from=boxes, person=person)
                what = FAKE if folder == FAKE else REAL
                yield self.record(video_id, what, split, path, **shown)

    def missing(self, root: Path, wanted: Filters) -> Iterator[Path]:
        """Listed test videos, and whole folders. Training videos are named nowhere."""
        yield from (Path(folder) for folder in NAMES if not (root / folder).is_dir())
        there = {f"{folder}/{p.stem}" for folder in NAMES for p in videos_in(root / folder)}
        for name in read_test_list(root) if "test" in wanted.owners_splits else ():
            if (root / name).parent.is_dir() and name not in there:
                yield Path(f"{name}.mp4")

    def expected(self, root: Path) -> tuple[str, dict[tuple[str, str], int]]:
        """The release is told by the length of the list of test videos, 100 or 518."""
        release = "Celeb-DF v2" if len(read_test_list(root)) > 200 else "Celeb-DF v1"
        return release, EXPECTED[release]

    def notes(self, root: Path, records: Sequence[VideoRecord]) -> Iterator[str]:
        """What the official test split shares with training."""
        seen, test = sides(records)
        people, known = (
            {r.person for r in part if r.target.startswith("id")} for part in (test, seen)
        )
        if people & known:
            yield (
                f"{len(people & known)} of the {len(people)} target identities of test "
                "are in train or val too, as the owners made it."
            )
        reals = {r.target for r in seen if not r.label}
        if fakes := [r for r in test if r.label and r.target in reals]:
            total = sum(r.label for r in test)
            yield f"The real videos of {len(fakes)} of the {total} test fakes are in train or val."


def read_test_list(root: str | Path) -> dict[str, int]:
    """The test videos, as paths below `root` without suffix, with our label (1 = fake).

    Raises DataError if there is no list, a line has another form, its digit contradicts its folder,
    or a video is named twice.
    """
    path, test = Path(root) / LIST, {}
    if not path.is_file():
        raise DataError(
            f"{path} is not there; without it test videos would be trained on. "
            "Take the one that came with Celeb-DF."
        )
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not (line := line.strip()):
            continue
        folders = "|".join(NAMES)
        form = re.fullmatch(rf"([01])\s+(?:\./)?(({folders})/[^/\\]+)\.mp4", line, re.ASCII)
        wrong = f"is not of the form '0 {FAKE}/id0_id1_0000.mp4'" if not form else ""
        if form and (form[1] == "0") != (form[3] == FAKE):
            wrong = "is wrong: 0 means fake and 1 real in this list"
        if form and form[2] in test:
            wrong = "names a video again"
        if wrong:
            raise DataError(f"{path}, line {number}: {line[:99]!r} {wrong}; take the owners' list.")
        test[form[2]] = int(form[1] == "0")
    return test
