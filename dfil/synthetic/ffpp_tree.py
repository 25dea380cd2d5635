"""Writes synthetic clips as a tree of exactly FaceForensics++'s layout, so that built-in and real data take the same way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfil.synthetic.codec import encode
from dfil.synthetic.render import render_target
from dfil.synthetic.settings import FPS, METHODS, RENDERER, SIZE, Setting
from dfil.synthetic.tree import MASK_CRF, claim, draw, find_setting, write
from dfil.system.errors import DataError

SECONDS_PER_FRAME = 0.05  # one core, a real and four fakes rendered and written at two qualities


@dataclass(frozen=True)
class _Job:
    root: Path
    target: int
    source: int
    setting: Setting
    frames: int
    qualities: tuple[str, ...]
    manipulations: tuple[str, ...]
    seed: int

    def files(self, method: str) -> dict[str, Path]:
        """Where a method's clip goes (`real` for the original), by quality; a fake has its mask as well."""
        if method == "real":
            folder, stem = self.root / "original_sequences" / "youtube", f"{self.target:03d}"
        else:
            folder, stem = (
                self.root / "manipulated_sequences" / method,
                f"{self.target:03d}_{self.source:03d}",
            )
        kinds = self.qualities if method == "real" else (*self.qualities, "masks")
        return {kind: folder / kind / "videos" / f"{stem}.mp4" for kind in kinds}

    def missing(self) -> list[str]:
        return [
            m
            for m in ("real", *self.manipulations)
            if not all(path.exists() for path in self.files(m).values())
        ]


def write_ffpp(
    root: str | Path,
    setting: Setting | str = "temporal-only",
    *,
    train: int = 60,
    val: int = 10,
    test: int = 20,
    frames: int | None = None,
    qualities: Sequence[str] = ("c23", "c40"),
    manipulations: Sequence[str] = METHODS,
    seed: int = 0,
    jobs: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a synthetic tree under `root` and return it; clips that are already there are kept.

    setting: a Setting or the name of one in SETTINGS. train, val, test: how many people per split, even numbers, because the splits
    are pairs [a, b] whose fakes are a_b and b_a. Nobody appears in two splits. frames: length of every clip, default the setting's.
    jobs: processes, default one per core; the files do not depend on it. The tree carries `synthetic.json` with all parameters.

    Raises DataError if root holds something else than a synthetic tree of the same parameters.
    """
    setting = find_setting(setting)
    root, frames = Path(root), frames or setting.frames
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if count < 0 or count % 2:
            raise DataError(
                f"The {split} split was given {count} people; FaceForensics++'s splits are pairs, so ask for an even number."
            )
    if unknown := set(manipulations) - set(METHODS):
        raise DataError(
            f"No synthetic manipulation is called {sorted(unknown)[0]}; there are {', '.join(METHODS)}."
        )
    if unknown := set(qualities) - set(setting.qualities):
        raise DataError(
            f"The setting {setting.name} has no crf for {sorted(unknown)[0]}; "
            f"it has {', '.join(setting.qualities)}."
        )

    splits = _pairs(counts)
    parameters = {
        "synthetic": True,
        "layout": "FaceForensics++",
        "renderer": RENDERER,
        "seed": seed,
        "people": counts,
        "frames": frames,
        "frames_per_second": FPS,
        "size": SIZE,
        "setting": setting.as_dict(),
    }
    claim(root, parameters)
    for split, pairs in splits.items():
        write(root / "splits" / f"{split}.json", json.dumps(pairs).encode())

    shared = (setting, frames, tuple(qualities), tuple(manipulations), seed)
    todo = [
        _Job(root, int(target), int(source), *shared)
        for pairs in splits.values()
        for a, b in pairs
        for target, source in ((a, b), (b, a))
    ]
    todo = [job for job in todo if job.missing()]
    share = (len(qualities) + 1) * (len(manipulations) + 1) / 15
    seconds = frames * SECONDS_PER_FRAME * share
    draw(todo, _write_person, root, unit="person", seconds=seconds, jobs=jobs, progress=progress)
    return root


def _pairs(counts: dict[str, int]) -> dict[str, list[list[str]]]:
    """Consecutive numbers from 000 on, train first, paired within their split."""
    splits, first = {}, 0
    for split, count in counts.items():
        splits[split] = [[f"{n:03d}", f"{n + 1:03d}"] for n in range(first, first + count, 2)]
        first += count
    return splits


def _write_person(job: _Job) -> None:
    missing = job.missing()
    fakes = [method for method in job.manipulations if method in missing]
    for clip in render_target(
        job.target, job.source, job.setting, methods=fakes, frames=job.frames, seed=job.seed
    ):
        for kind, path in job.files(clip.method).items():
            if path.exists():
                continue
            if kind == "masks":
                content = encode(clip.masks_thw, MASK_CRF, "veryfast")
            else:
                content = encode(clip.frames_thwc, **job.setting.coding(kind))
            write(path, content)
