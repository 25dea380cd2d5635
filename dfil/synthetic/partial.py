"""Partially forged clips for Figure 5: a tree of FaceForensics++'s layout in which a fake is forged only from one frame to another.

    <root>/truth.json    which frames of each fake are forged, see dfil.datasets.truth; everything else as in ffpp_tree.py

The people are those of another synthetic tree's test split, so that a model trained on that tree has never seen them. Every person gets
short spans with some manipulations and long ones with the others. Frames outside the span equal the real clip's before encoding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfil.datasets import ffpp, synthetic_setting
from dfil.datasets.truth import FILE as TRUTH
from dfil.synthetic.codec import encode
from dfil.synthetic.ffpp_tree import SECONDS_PER_FRAME
from dfil.synthetic.fields import generator
from dfil.synthetic.render import SWAPS, render_target
from dfil.synthetic.settings import Setting
from dfil.synthetic.tree import MASK_CRF, claim, draw, write
from dfil.system.errors import DataError

SPANS = {"short": (8, 12), "long": (16, 24)}  # forged frames, least and most
REST = 4  # frames of a clip that stay real at least


def write_partial(
    root: str | Path,
    like: str | Path,
    *,
    manipulations: Sequence[str] = SWAPS,
    quality: str = "c23",
    most: int = 0,
    jobs: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the tree `root` with the setting, the clip length and the test people of the synthetic tree `like`, and return it.

    manipulations: by default the two face swaps, which is what DFDC's forgeries are. most: take the first so many people, 0 for all.
    jobs: processes, default one per core. Clips that are already there are kept.
    Raises DataError if `like` is not a synthetic tree or `root` was made with other parameters.
    """
    root, made = Path(root), synthetic_setting(like)
    if made is None:
        raise DataError(
            f"{like} holds real data; partially forged clips are rendered for the people of a synthetic tree only"
        )
    setting, frames, seed = Setting(**made["setting"]), made["frames"], made["seed"]
    pairs = [(int(a), int(b)) for a, b in ffpp.read_splits(like).get("test", [])]
    people = [both for a, b in pairs for both in ((a, b), (b, a))]
    people = people[:most] if most else people
    tests = sorted({tuple(sorted(pair)) for pair in people})
    spans = {
        (target, source, method): forged_span(seed, target, method, kind_of(place, i), frames)
        for place, (target, source) in enumerate(people)
        for i, method in enumerate(manipulations)
    }
    parameters = made | {
        "partial": {kind: list(limits) for kind, limits in SPANS.items()},
        "manipulations": list(manipulations),
    }
    claim(root, parameters | {"people": [list(pair) for pair in people], "quality": quality})
    write(
        root / "splits" / "test.json",
        json.dumps([[f"{a:03d}", f"{b:03d}"] for a, b in tests]).encode(),
    )
    truth = {
        f"{quality}/{m}/{t:03d}_{s:03d}": {
            "frames": frames,
            "forged": [list(span)],
            "people": 1,
            "person": 0,
        }
        for (t, s, m), span in spans.items()
    }
    write(root / TRUTH, (json.dumps(truth, indent=1) + "\n").encode())
    shared = (setting, frames, seed, quality)
    planned = [
        _Job(
            root,
            target,
            source,
            tuple((method, spans[target, source, method]) for method in manipulations),
            *shared,
        )
        for target, source in people
    ]
    todo = [job for job in planned if any(not path.exists() for path in job.files())]
    seconds = frames * SECONDS_PER_FRAME * (1 + len(manipulations)) / 5
    draw(todo, _write_person, root, unit="person", seconds=seconds, jobs=jobs, progress=progress)
    return root


def kind_of(place: int, method: int) -> str:
    """ "short" or "long", in turn over people and manipulations, so that both kinds see all people and all manipulations."""
    return list(SPANS)[(place + method) % len(SPANS)]


def forged_span(seed: int, target: int, method: str, kind: str, frames: int) -> tuple[int, int]:
    """First forged frame and the one after the last, drawn for one clip; at least REST frames stay real."""
    rng = generator(seed, target, f"{kind} span of {method}")
    low, high = SPANS[kind]
    length = int(rng.integers(min(low, frames - REST), min(high, frames - REST) + 1))
    first = int(rng.integers(0, frames - length + 1))
    return first, first + length


@dataclass(frozen=True)
class _Job:
    """One person: the real clip and a partially forged one per manipulation."""

    root: Path
    target: int
    source: int
    spans: tuple[tuple[str, tuple[int, int]], ...]
    setting: Setting
    frames: int
    seed: int
    quality: str

    def real(self) -> Path:
        return (
            self.root
            / "original_sequences"
            / "youtube"
            / self.quality
            / "videos"
            / f"{self.target:03d}.mp4"
        )

    def fake(self, method: str, kind: str) -> Path:
        return (
            self.root
            / "manipulated_sequences"
            / method
            / kind
            / "videos"
            / f"{self.target:03d}_{self.source:03d}.mp4"
        )

    def files(self) -> list[Path]:
        return [
            self.real(),
            *(
                self.fake(method, kind)
                for method, _ in self.spans
                for kind in (self.quality, "masks")
            ),
        ]


def _write_person(job: _Job) -> None:
    setting = job.setting
    for method, span in job.spans:
        wanted = {
            "real": job.real(),
            "fake": job.fake(method, job.quality),
            "mask": job.fake(method, "masks"),
        }
        wanted = {what: path for what, path in wanted.items() if not path.exists()}
        if not wanted:
            continue
        real, fake = render_target(
            job.target,
            job.source,
            setting,
            methods=(method,),
            frames=job.frames,
            seed=job.seed,
            span=span,
        )
        for what, path in wanted.items():
            if what == "mask":
                write(path, encode(fake.masks_thw, MASK_CRF, "veryfast"))
            else:
                clip = real if what == "real" else fake
                write(path, encode(clip.frames_thwc, **setting.coding(job.quality)))
