"""Synthetic clips as a tree of exactly FaceForensics++'s layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfil.synthetic.codec import encode
from dfil.synthetic.render import Clip, render_target
from dfil.synthetic.settings import METHODS, SIZE, Setting
from dfil.synthetic.tree import MASK_CRF, Job, Tree
from dfil.system.errors import DataError

SECONDS = 0.0035  # one core, a frame of one file


def clip_file(root: Path, method: str, kind: str, target: int, source: int) -> Path:
    """Where a method's clip goes (`real` for the original). kind: a quality or masks."""
    if method == "real":
        return root / "original_sequences/youtube" / kind / "videos" / f"{target:03d}.mp4"
    folder = root / "manipulated_sequences" / method / kind / "videos"
    return folder / f"{target:03d}_{source:03d}.mp4"


def coded(clip: Clip, kind: str, setting: Setting) -> bytes:
    """The file of a clip. kind: a quality or masks."""
    if kind == "masks":
        return encode(clip.masks_thw, MASK_CRF)
    return encode(clip.frames_thwc, **setting.coding(kind))


@dataclass(frozen=True)
class _Person(Job):
    target: int
    source: int
    qualities: Sequence[str]
    manipulations: Sequence[str]

    def files(self) -> dict[tuple[str, str], Path]:
        kinds = [("real", quality) for quality in self.qualities]
        kinds += [(m, q) for m in self.manipulations for q in (*self.qualities, "masks")]
        return {kind: clip_file(self.root, *kind, self.target, self.source) for kind in kinds}


def _plan(common: Job, *, qualities, manipulations, **counts: int) -> list[_Person]:
    for split, count in counts.items():
        if count % 2:
            raise DataError(
                f"The {split} split was given {count} people; FaceForensics++'s splits are pairs, "
                "so ask for an even number."
            )
    if unknown := sorted(set(manipulations) - set(METHODS)):
        raise DataError(
            f"No synthetic manipulation is called {unknown[0]}; there are {', '.join(METHODS)}."
        )
    known = common.setting.qualities
    if unknown := sorted(set(qualities) - set(known)):
        raise DataError(
            f"The setting {common.setting.name} has no crf for {unknown[0]}; "
            f"it has {', '.join(known)}."
        )
    how = (*vars(common).values(),)
    people = range(sum(counts.values()))
    return [_Person(*how, n, n ^ 1, tuple(qualities), tuple(manipulations)) for n in people]


def _splits(plan: Sequence[_Person], *, qualities, manipulations, **counts: int) -> dict[str, list]:
    """Consecutive numbers from 000 on, train first, paired within their split."""
    splits, first = {}, 0
    for split, count in counts.items():
        numbers = range(first, first + count, 2)
        splits[f"splits/{split}.json"] = [[f"{n:03d}", f"{n + 1:03d}"] for n in numbers]
        first += count
    return splits


def _draw(job: _Person, missing: Mapping) -> Iterator[tuple[tuple[str, str], bytes]]:
    methods = [m for m in job.manipulations if m in {method for method, _ in missing}]
    how = dict(methods=methods, frames=job.frames, seed=job.seed)
    for clip in render_target(job.target, job.source, job.setting, **how):
        for kind in [kind for method, kind in missing if method == clip.method]:
            yield (clip.method, kind), coded(clip, kind, job.setting)


SIZES = {"train": 60, "val": 10, "test": 20, "qualities": ("c23", "c40"), "manipulations": METHODS}
DRAWN = dict(counted="people", unit="person", seconds=SECONDS, sizes=SIZES, version=0)
TREE = Tree("FaceForensics++", SIZE, _plan, _draw, _splits, **DRAWN)
