"""FaceForensics++ (Roessler et al., ICCV 2019), read from the owners' tree without moving or renaming anything.

    <root>/original_sequences/youtube/{raw,c23,c40}/videos/NNN.mp4
    <root>/manipulated_sequences/{Deepfakes,Face2Face,FaceSwap,NeuralTextures}/{raw,c23,c40}/videos/TTT_SSS.mp4
    <root>/manipulated_sequences/<METHOD>/masks/videos/TTT_SSS.mp4
    <root>/splits/{train,val,test}.json or <root>/{train,val,test}.json: [["a", "b"], ...]

A pair [a, b] puts the reals a and b and the fakes a_b and b_a into that split. TTT is the target: the fake has the geometry of
the real video TTT. Any part of the tree may be absent; other folders (FaceShifter, DeepFakeDetection, actors) are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from dfil.datasets.records import REAL, VideoRecord
from dfil.system.errors import DataError

COMPRESSIONS = ("raw", "c23", "c40")
MANIPULATIONS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
SPLITS = ("train", "val", "test")


def records(
    root: str | Path,
    compressions: Collection[str] | None = None,
    manipulations: Collection[str] | None = None,
    splits: Collection[str] | None = None,
) -> list[VideoRecord]:
    """One record per video file that is there, reals first, in the order of their names.

    compressions, manipulations, splits: keep only these (None: whatever is there). Reals are kept whatever `manipulations` says.
    A file that no split lists has split "". Raises DataError if there are no splits, if they contradict each other, if a filter
    names something unknown, or if no video is left.
    """
    root = Path(root)
    compressions, manipulations = _filters(root, compressions, manipulations)
    _known("split", splits or (), SPLITS)
    pairs = read_splits(root)
    split_of = _split_of_stem(pairs)
    person_of = {name: f"{a}_{b}" for both in pairs.values() for a, b in both for name in (a, b)}
    found = []
    for manipulation in (REAL, *manipulations):
        for compression in compressions:
            for path in _videos(root, manipulation, compression):
                split = split_of.get(path.stem, "")
                if splits is None or split in splits:
                    found.append(_record(root, path, manipulation, compression, split, person_of))
    if not found:
        asked = f"compressions {', '.join(compressions) or 'raw, c23, c40'}; splits {', '.join(splits or SPLITS)}"
        raise DataError(
            f"{root} holds no FaceForensics++ video for {asked}; expected for example {_folder(root, REAL, 'c23')}/003.mp4."
        )
    return found


def missing(
    root: str | Path,
    compressions: Collection[str] | None = None,
    manipulations: Collection[str] | None = None,
    splits: Collection[str] | None = None,
) -> list[Path]:
    """What the splits list and the tree lacks: files, or the folder where a manipulation is absent as a whole; paths below `root`.

    By default every manipulation is expected in each compression of which something is there.
    """
    root = Path(root)
    compressions, _ = _filters(root, compressions, manipulations)
    pairs = read_splits(root)
    _known("split", splits or (), SPLITS)
    wanted = {
        stem for stem, split in _split_of_stem(pairs).items() if splits is None or split in splits
    }
    lacking = []
    for manipulation in (REAL, *(MANIPULATIONS if manipulations is None else manipulations)):
        for compression in compressions:
            folder = _folder(root, manipulation, compression)
            if not folder.is_dir():
                lacking.append(folder.relative_to(root))
                continue
            there = {path.stem for path in _videos(root, manipulation, compression)}
            expected = {stem for stem in wanted if ("_" in stem) == (manipulation != REAL)}
            lacking += [
                (folder / f"{stem}.mp4").relative_to(root) for stem in sorted(expected - there)
            ]
    return lacking


def read_splits(root: str | Path) -> dict[str, list[tuple[str, str]]]:
    """The pairs of ids of each split. Ids stay the strings that they are in the file.

    Raises DataError where no split file is found, one is not a list of pairs, or an id is in two splits.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the top of the FaceForensics++ tree.")
    pairs: dict[str, list[tuple[str, str]]] = {}
    home: dict[str, str] = {}
    for split in SPLITS:
        path = next(
            (p for p in (root / "splits" / f"{split}.json", root / f"{split}.json") if p.is_file()),
            None,
        )
        if path is None:
            continue
        try:
            pairs[split] = [(str(a), str(b)) for a, b in json.loads(path.read_text())]
        except (ValueError, TypeError) as error:
            raise DataError(
                f'{path} is not a list of ["a", "b"] pairs ({error}); take the split file of FaceForensics++.'
            ) from error
        for name in (name for pair in pairs[split] for name in pair):
            if home.setdefault(name, split) != split:
                raise DataError(
                    f"Video {name} is in the splits {home[name]} and {split} of {root}; one video may be in one split only."
                )
    if not pairs:
        raise DataError(
            f"No split file in {root}: put train.json, val.json and test.json of FaceForensics++ into {root / 'splits'}."
        )
    return pairs


def _split_of_stem(pairs: dict[str, list[tuple[str, str]]]) -> dict[str, str]:
    return {
        stem: split
        for split, both in pairs.items()
        for a, b in both
        for stem in (a, b, f"{a}_{b}", f"{b}_{a}")
    }


def _folder(root: Path, manipulation: str, compression: str) -> Path:
    top = (
        root / "original_sequences/youtube"
        if manipulation == REAL
        else root / "manipulated_sequences" / manipulation
    )
    return top / compression / "videos"


def _videos(root: Path, manipulation: str, compression: str) -> list[Path]:
    files = sorted(_folder(root, manipulation, compression).glob("*.mp4"))
    return [
        path for path in files if not path.name.startswith(".")
    ]  # macOS leaves ._003.mp4 on foreign disks


def _record(
    root: Path,
    path: Path,
    manipulation: str,
    compression: str,
    split: str,
    person_of: dict[str, str],
) -> VideoRecord:
    fake = manipulation != REAL
    target = path.stem.split("_")[0]
    masks = root / "manipulated_sequences" / manipulation / "masks/videos" / path.name
    real_is_there = fake and (_folder(root, REAL, compression) / f"{target}.mp4").is_file()
    return VideoRecord(
        dataset="ffpp",
        video_id=f"{compression}/{manipulation}/{path.stem}",
        label=int(fake),
        manipulation=manipulation,
        compression=compression,
        split=split,
        path=path,
        target=target,
        boxes_from=f"{compression}/{REAL}/{target}" if real_is_there else "",
        masks=masks if fake and masks.is_file() else None,
        person=person_of.get(target, target),
    )


def _filters(
    root: Path, compressions: Collection[str] | None, manipulations: Collection[str] | None
) -> tuple[list[str], list[str]]:
    """Both filters in the owners' order; None becomes what the tree has."""
    _known("compression", compressions or (), COMPRESSIONS)
    _known("manipulation", manipulations or (), (REAL, *MANIPULATIONS))
    there = {
        (m, c) for m in (REAL, *MANIPULATIONS) for c in COMPRESSIONS if _folder(root, m, c).is_dir()
    }
    wanted_c = {c for _, c in there} if compressions is None else set(compressions)
    wanted_m = {m for m, _ in there} if manipulations is None else set(manipulations)
    return [c for c in COMPRESSIONS if c in wanted_c], [m for m in MANIPULATIONS if m in wanted_m]


def _known(what: str, names: Collection[str], choices: Collection[str]) -> None:
    if isinstance(names, str) or (unknown := sorted(set(names) - set(choices))):
        given = repr(names) if isinstance(names, str) else ", ".join(unknown)
        raise DataError(
            f"FaceForensics++ has no {what} {given}; give a list of: {', '.join(choices)}."
        )
