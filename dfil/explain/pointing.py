"""Does what is said of one's own video point at the right person and the right seconds? Asked of
built-in videos of two people, of whom one is forged for a while (dfil.synthetic.two_people)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dfil.results.verdict import stretches
from dfil.synthetic.two_people import Scene, scene
from dfil.train.own_video import score_videos


def measure(
    numbers: Sequence[int], folder: Path, weights: str | Path | None = None
) -> pd.DataFrame:
    """`judged` of the scenes of these numbers, which are drawn in `folder` if need be."""
    return pd.DataFrame(_rows([scene(number, folder) for number in numbers], weights))


def _rows(scenes: Sequence[Scene], weights: str | Path | None) -> Iterator[dict]:
    results = score_videos([each.path for each in scenes], weights)
    for each, result in zip(scenes, results, strict=True):
        yield judged(each, result)


def judged(truth: Scene, result: Mapping) -> dict:
    """One scene's truth beside what was said.

    person: whether the most suspicious person is the forged one. moment: whether, besides, that
    person's most suspicious snippet lies in the forged seconds, by half at least. by_chance: how
    often a random snippet of a random one of the two would be that. inside: share of the
    seconds called suspicious that are forged; covered: share of the forged seconds within those.
    forged, real: the two people's scores.
    """
    row = {"scene": truth.path.stem, "manipulation": truth.manipulation}
    people = sorted(result["people"], key=lambda person: person["place"][0])
    if len(people) != 2:
        return row | {"status": f"{len(people)} people found"}
    suspect = result["people"][result["suspect"]]
    snippets = suspect["snippets"]
    if any(s["score"] is None for s in snippets):
        return row | {"status": "the detector judges videos as a whole"}
    within = [_within(truth, (s["first_second"], s["last_second"])) for s in snippets]
    highest = int(np.argmax([s["score"] for s in snippets]))
    called = [
        (span[1] - span[0], _within(truth, span)) for span in stretches(snippets)
    ]  # seconds, and the share of them that is forged
    hit = sum(length * share for length, share in called)
    right = people.index(suspect) == truth.person
    return row | {
        "status": "ok",
        "person": right,
        "moment": right and within[highest] >= 0.5,
        "by_chance": float(np.mean(np.array(within) >= 0.5)) / 2,
        "inside": hit / sum(length for length, _ in called) if called and right else 0.0,
        "covered": hit / (truth.last_second - truth.first_second) if right else 0.0,
        "forged": people[truth.person]["score"],
        "real": people[1 - truth.person]["score"],
        "calibrated": result["calibrated"],
    }


def _within(truth: Scene, span: Sequence[float]) -> float:
    """Share of a stretch of time that is forged."""
    shared = min(span[1], truth.last_second) - max(span[0], truth.first_second)
    return max(0.0, shared) / (span[1] - span[0])
