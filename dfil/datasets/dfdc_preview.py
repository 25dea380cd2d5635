"""The DFDC preview (Dolhansky et al. 2019), read without moving or renaming anything.

    <root>/dataset.json       {"method_A/T/T_S/....mp4": {"label": "fake", "set": "train"}, ...}
    <root>/original_videos/T/T_S_NNN.mp4                        the actor T
    <root>/{method_A,method_B}/T/T_S/W_T_S_NNN.mp4              the face of W on a video of T

Our validation split takes whole target actors T out of training, reals and fakes. Many test videos
were degraded (frame rate, size, bitrate), and no file says which original a fake was made from, so
every video is detected on its own. The owners give no masks either; a synthetic tree has them under
<root>/masks, by the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dfil.datasets.adapter import Adapter, Filters, folders, sides, videos_in
from dfil.datasets.lists import label, read_entries
from dfil.datasets.records import REAL, VideoRecord
from dfil.system.errors import DataError

MANIPULATIONS = ("method_A", "method_B")
ORIGINALS = "original_videos"
EXPECTED = {"DFDC preview": {("", "real"): 1131, ("", "fake"): 4119}}  # in any split


class DFDCPreview(Adapter):
    """See the module."""

    name, title = "dfdc-preview", "DFDC"
    manipulations, setting = MANIPULATIONS, "dfdc-like"
    tracks, lists_all = "all", True
    example, releases = f"{ORIGINALS}/1586/1586_A_001.mp4", EXPECTED

    def videos(self, root: Path, wanted: Filters) -> Iterator[VideoRecord]:
        """A file that dataset.json does not name has split ""."""
        listed = read_list(root)
        for path, name in _videos(root):
            top, actor = name.split("/")[:2]
            rest, masks = path.stem.partition("_")[2], root / "masks" / f"{name}.mp4"
            what = REAL if top == ORIGINALS else top
            target = rest if what != REAL and rest.startswith(actor) else path.stem
            shown = dict(target=target, masks=masks if masks.is_file() else None, person=actor)
            yield self.record(name, what, listed.get(name, ""), path, **shown)

    def missing(self, root: Path, wanted: Filters) -> Iterator[Path]:
        """Files that dataset.json names, or a top folder that is absent as a whole."""
        names = MANIPULATIONS if wanted.manipulations is None else wanted.manipulations
        tops = [top for top in (ORIGINALS, *MANIPULATIONS) if top in (ORIGINALS, *names)]
        yield from (Path(top) for top in tops if not (root / top).is_dir())
        there = {name for _, name in _videos(root)}
        for name, split in read_list(root).items():
            top = name.split("/")[0]
            if top in tops and split in wanted.owners_splits and (root / top).is_dir():
                if name not in there:
                    yield Path(f"{name}.mp4")

    def leaks(self, records: Sequence[VideoRecord]) -> Iterator[str]:
        """Pairs of target and swapped actor with fakes in training or validation and in test."""
        seen, test = (
            {(r.person, r.path.stem.split("_")[0]) for r in side if r.label}
            for side in sides(records)
        )
        for target, source in sorted(seen & test):
            yield (
                f"The fakes of actor {target} with the face of {source} "
                "are in training and in test."
            )

    def notes(self, root: Path, records: Sequence[VideoRecord]) -> Iterator[str]:
        """How many actors are on both sides."""
        seen, test = ({r.person for r in side} for side in sides(records))
        if both := len(seen & test):
            yield f"{both} of the {len(test)} target actors of test are in train or val too."


def read_list(root: str | Path) -> dict[str, str]:
    """The split, "train" or "test", of every video that dataset.json names, without its suffix.

    Raises DataError if the file is absent or damaged, an entry lies in no known folder, or a label
    contradicts the folder.
    """
    path, listed = Path(root) / "dataset.json", {}
    for name, entry in read_entries(path).items():
        top, split = name.split("/")[0], str(entry.get("set")).lower()
        if top not in (ORIGINALS, *MANIPULATIONS) or name.count("/") < 2:
            raise DataError(
                f"{path} names {name!r}, which is not in {ORIGINALS}, method_A or method_B; "
                "take the owners' file."
            )
        if not {"label", "set"} <= {*entry}:
            raise DataError(
                f'{path} does not map {name} to "label" and "set"; take the owners\' file.'
            )
        fake = label(entry["label"], path, name)
        if fake != (top != ORIGINALS) or split not in ("train", "test"):
            raise DataError(
                f"{path} gives {name} the label {entry['label']!r} and the set {entry['set']!r}, "
                "which cannot be; take the owners' file."
            )
        if listed.setdefault(name.removesuffix(".mp4"), split) != split:
            raise DataError(f"{path} puts {name} into train and into test; take the owners' file.")
    return listed


def _videos(root: Path) -> Iterator[tuple[Path, str]]:
    """Every video in a folder of the three top folders, with its name below `root`, no suffix."""
    for top in (ORIGINALS, *MANIPULATIONS):
        below = [*folders(root / top)][1:] if (root / top).is_dir() else []
        for path in sorted(path for folder in below for path in videos_in(folder)):
            yield path, path.relative_to(root).with_suffix("").as_posix()
