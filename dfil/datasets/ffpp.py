"""FaceForensics++ (Roessler et al., ICCV 2019), read without moving or renaming anything.

    <root>/original_sequences/youtube/{raw,c23,c40}/videos/NNN.mp4
    <root>/manipulated_sequences/METHOD/{raw,c23,c40}/videos/TTT_SSS.mp4
    <root>/manipulated_sequences/METHOD/masks/videos/TTT_SSS.mp4
    <root>/splits/{train,val,test}.json or <root>/{train,val,test}.json: [["a", "b"], ...]

A pair [a, b] puts the reals a and b and the fakes a_b and b_a into that split. TTT is the target:
the fake has the geometry of the real video TTT. Any part of the tree may be absent.

Two more sets come with the owners' script. They are no part of the paper and are read when they are
named: FaceShifter, with the same names and splits, and DeepFakeDetection, whose reals are those of
original_sequences/actors and of which no list speaks, so that all of it is for testing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfil.datasets.adapter import Adapter, Filters, is_synthetic, videos_in
from dfil.datasets.lists import read_json
from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.splits import SPLITS
from dfil.system.errors import DataError

COMPRESSIONS = ("raw", "c23", "c40")
QUALITIES = ("masks", *COMPRESSIONS)  # folders of a manipulation
MANIPULATIONS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
ACTORS = "DeepFakeDetection"
OF_ACTORS = r"^[^/]+/real/\d\d__"  # ids of their real videos, such as c23/real/01__hugging
FURTHER = ("FaceShifter", ACTORS)


class FaceForensics(Adapter):
    """See the module."""

    name, title = "ffpp", "FaceForensics++"
    manipulations, further, compressions = MANIPULATIONS, FURTHER, COMPRESSIONS
    detector, carved, setting = "dlib", False, "ff-like"
    example = "original_sequences/youtube/c23/videos/003.mp4"

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        """A file that no split lists has split ""."""
        pairs = read_splits(root)
        split_of = _split_of(pairs)
        person_of = {x: f"{a}_{b}" for both in pairs.values() for a, b in both for x in (a, b)}
        named = MANIPULATIONS if wanted.manipulations is None else wanted.manipulations
        tops = [] if {*named} == {ACTORS} else [(REAL, REAL)]
        tops += [(REAL, ACTORS)] * (ACTORS in named)  # they play in no other manipulation
        tops += [(name, name) for name in (*MANIPULATIONS, *FURTHER) if name in named]
        for manipulation, source in tops:
            for compression in COMPRESSIONS:
                reals = _stems(_folder(root, REAL, compression, source))
                drawn = videos_in(_folder(root, manipulation, "masks"))
                masks = {path.stem: path for path in drawn}
                for path in videos_in(_folder(root, manipulation, compression, source)):
                    stem, fake = path.stem, manipulation != REAL
                    if source == ACTORS:
                        target, split = _actor(stem), "test"
                        person = target.split("__")[0]
                    else:
                        target, split = stem.split("_")[0], split_of.get(stem, "")
                        person = person_of.get(target, target)
                    boxes = f"{compression}/{REAL}/{target}" if fake and target in reals else ""
                    shown = dict(target=target, boxes_from=boxes, person=person)
                    shown |= dict(masks=masks.get(stem) if fake else None)
                    what = f"{compression}/{manipulation}/{stem}", manipulation, split, path
                    yield self.record(*what, compression, **shown)

    def missing(self, root: Path, wanted: Filters) -> Iterator[Path]:
        """Lists of splits, files, or the folder where a manipulation is absent as a whole.

        By default every manipulation of each compression of which something is there.
        """
        pairs = read_splits(root)
        wanted_splits = [split for split in SPLITS if split in (wanted.splits or SPLITS)]
        yield from (Path("splits", f"{s}.json") for s in wanted_splits if s not in pairs)
        split_of = sorted(_split_of(pairs).items())
        listed = [stem for stem, s in split_of if wanted.splits is None or s in wanted.splits]
        names = MANIPULATIONS if wanted.manipulations is None else wanted.manipulations
        tops = (REAL, *(name for name in names if name not in (REAL, ACTORS)))
        for manipulation in tops:
            for compression in wanted.compressions or _there(root):
                folder = _folder(root, manipulation, compression)
                if not folder.is_dir():
                    yield folder.relative_to(root)
                    continue
                there = _stems(folder)
                for stem in listed:
                    if ("_" in stem) == (manipulation != REAL) and stem not in there:
                        yield (folder / f"{stem}.mp4").relative_to(root)

    def unreadable(self, root: Path) -> Iterator[str]:
        """Lists without a pair, from which nothing can be learnt; a synthetic tree may want one."""
        for split, pairs in read_splits(root).items():
            if not pairs and not is_synthetic(root):
                yield (
                    f"{_list(root, split)} names no pair; take the split file of FaceForensics++."
                )

    def notes(self, root: Path, records: Sequence[VideoRecord]) -> Iterator[str]:
        """Which further manipulations, and folders of other names, are there and not read."""
        used = {record.manipulation for record in records}
        for name in FURTHER:
            folder = root / "manipulated_sequences" / name
            if name not in used and folder.is_dir():
                yield f"{folder} is no part of the paper and not read unless it is named."
        tops = {"manipulated": (*MANIPULATIONS, *FURTHER), "original": ("youtube", "actors")}
        for side, names in tops.items():
            for folder in sorted((root / f"{side}_sequences").glob("[!.]*/")):
                inside = [each for each in folder.glob("[!.]*/") if each.name not in QUALITIES]
                for odd in sorted(inside) if folder.name in names else [folder]:
                    yield f"{odd} is not read: FaceForensics++ has no folder of this name there."


def read_splits(root: str | Path) -> dict[str, list[tuple[str, str]]]:
    """The pairs of ids of each split. Ids stay the strings that they are in the file.

    Raises DataError where no split file is found, one is damaged, or an id is in two pairs.
    """
    root, pairs, home = Path(root), {}, {}
    for split in SPLITS:
        if (path := _list(root, split)) is None:
            continue
        content = read_json(path)
        if not isinstance(content, list) or not all(map(_is_pair, content)):
            raise DataError(
                f'{path} is not a list of ["a", "b"] pairs; take the split file of FaceForensics++.'
            )
        pairs[split] = [(a, b) for a, b in content]
        for name in (name for pair in pairs[split] for name in pair):
            if name in home:
                raise DataError(
                    f"Video {name} is in the splits {home[name]} and {split} of {root}; "
                    "one video may be in one pair of one split only."
                )
            home[name] = split
    if not pairs:
        raise DataError(
            f"No split file in {root}: put train.json, val.json and test.json of FaceForensics++ "
            f"into {root / 'splits'}."
        )
    return pairs


def _list(root: Path, split: str) -> Path | None:
    places = (root / "splits" / f"{split}.json", root / f"{split}.json")
    there = [path for path in places if path.is_file()]
    if len(there) == 2 and read_json(there[0]) != read_json(there[1]):
        raise DataError(f"{there[0]} and {there[1]} differ; delete the one that is not meant.")
    return there[0] if there else None


def _is_pair(pair: object) -> bool:
    """Of names that files can have; \\w leaves out what would lead elsewhere."""
    named = isinstance(pair, list) and all(isinstance(x, str) for x in pair)
    return named and len(pair) == 2 and all(re.fullmatch(r"\w{1,99}", x, re.ASCII) for x in pair)


def _split_of(pairs: dict[str, list[tuple[str, str]]]) -> dict[str, str]:
    """The split of every real and every fake, by the stem of its file."""
    return {
        stem: split
        for split, both in pairs.items()
        for a, b in both
        for stem in (a, b, f"{a}_{b}", f"{b}_{a}")
    }


def _actor(stem: str) -> str:
    """The real of a DeepFakeDetection fake: 01_02__walking__XYZ shows actor 01 as 01__walking."""
    parts = stem.split("__")
    return "__".join([parts[0].split("_")[0], *parts[1:2]])


def _folder(root: Path, manipulation: str, compression: str, source: str = REAL) -> Path:
    if manipulation != REAL:
        return root / "manipulated_sequences" / manipulation / compression / "videos"
    players = "actors" if source == ACTORS else "youtube"
    return root / "original_sequences" / players / compression / "videos"


def _stems(folder: Path) -> set[str]:
    return {path.stem for path in videos_in(folder)}


def _there(root: Path) -> list[str]:
    names = (REAL, *MANIPULATIONS)
    return [c for c in COMPRESSIONS if any(_folder(root, name, c).is_dir() for name in names)]
