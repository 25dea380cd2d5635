"""Partially forged clips for Figure 5: FaceForensics++'s layout, fakes forged in one stretch only.

    <root>/truth.json    which frames of each fake are forged, see dfil.datasets.truth

The people are those of another synthetic tree's test split, so that a model trained on that tree
has never seen them. Every person gets short spans with some manipulations and long ones with the
others. Frames outside the span equal the real clip's before encoding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfil.datasets import ffpp, synthetic_setting
from dfil.datasets.truth import FILE as TRUTH
from dfil.synthetic.ffpp_tree import SECONDS, clip_file, coded
from dfil.synthetic.fields import generator
from dfil.synthetic.render import SWAPS, render_target
from dfil.synthetic.settings import Setting
from dfil.synthetic.tree import Job, claim, fill_all, write
from dfil.system.errors import DataError

SPANS = {"short": (8, 12), "long": (16, 24)}  # forged frames, least and most
REST = 4  # frames of a clip that stay real at least

Span = tuple[int, int]


@dataclass(frozen=True)
class _Person(Job):
    target: int
    source: int
    quality: str
    spans: tuple[tuple[str, Span], ...]  # by manipulation

    def files(self) -> dict[tuple[str, str], Path]:
        kinds = [("real", self.quality)]
        kinds += [(method, kind) for method, _ in self.spans for kind in (self.quality, "masks")]
        return {kind: clip_file(self.root, *kind, self.target, self.source) for kind in kinds}


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
    """Write `root` with setting, clip length and test people of the synthetic tree `like`.

    manipulations: by default the two face swaps, which is what DFDC's forgeries are. most: take the
    first so many people, 0 for all. jobs: processes, default one per core. Files that are there are
    kept. Raises DataError if `like` is not a synthetic tree or `root` has other parameters.
    """
    root, told = Path(root), synthetic_setting(like)
    if told is None:
        raise DataError(
            f"{like} holds real data; partially forged clips are rendered for the people of a "
            "synthetic tree only"
        )
    frames, seed = told["frames"], told["seed"]
    pairs = [(int(a), int(b)) for a, b in ffpp.read_splits(like).get("test", [])]
    people = [both for a, b in pairs for both in ((a, b), (b, a))]
    people = people[:most] if most else people
    common, plan, truth = (root, Setting(**told["setting"]), frames, seed), [], {}
    for place, (target, source) in enumerate(people):
        kinds = {method: kind_of(place, n) for n, method in enumerate(manipulations)}
        spans = {m: forged_span(seed, target, m, kind, frames) for m, kind in kinds.items()}
        plan.append(_Person(*common, target, source, quality, tuple(spans.items())))
        for method, span in spans.items():
            shown = {"frames": frames, "forged": [span], "people": 1, "person": 0}
            truth[f"{quality}/{method}/{target:03d}_{source:03d}"] = shown
    facts = {"partial": SPANS, "manipulations": manipulations, "people": people, "quality": quality}
    claim(root, told | facts)
    tests = sorted({tuple(sorted(pair)) for pair in people})
    listed = [[f"{a:03d}", f"{b:03d}"] for a, b in tests]
    write(root / "splits" / "test.json", json.dumps(listed).encode())
    write(root / TRUTH, (json.dumps(truth, indent=1) + "\n").encode())
    how = dict(unit="person", seconds=frames * SECONDS, jobs=jobs, progress=progress)
    fill_all(plan, _draw, root, **how)
    return root


def kind_of(place: int, method: int) -> str:
    """ "short" or "long", in turn over people and manipulations: both see all of either."""
    return list(SPANS)[(place + method) % len(SPANS)]


def forged_span(seed: int, target: int, method: str, kind: str, frames: int) -> Span:
    """First forged frame and the one after the last; at least REST frames stay real."""
    rng = generator(seed, target, f"{kind} span of {method}")
    low, high = (min(limit, frames - REST) for limit in SPANS[kind])
    length = int(rng.integers(low, high + 1))
    first = int(rng.integers(0, frames - length + 1))
    return first, first + length


def _draw(job: _Person, missing: Mapping) -> Iterator[tuple[tuple[str, str], bytes]]:
    for place, (method, span) in enumerate(job.spans):
        wanted = [kind for kind in missing if kind[0] in (method, *([] if place else ["real"]))]
        if not wanted:
            continue
        how = dict(methods=(method,), frames=job.frames, seed=job.seed, span=span)
        shown = {c.method: c for c in render_target(job.target, job.source, job.setting, **how)}
        for name, kind in wanted:
            yield (name, kind), coded(shown[name], kind, job.setting)
