"""Decides whether one row of a table is better than another, or than a constant such as chance.

Two rows are compared on the same videos with equally many seeds. The metric m of a column is a mean
over videos of contributions h_v: for accuracy 1 where the score is on the right side of 0.5, else
0; for AUC DeLong's component, for a fake the share of reals that it outranks, for a real video the
share of fakes that outrank it. A person's part in it, averaged over the K columns and linearised,
so that people may have different numbers of videos (N people; n_v: the column's videos, for AUC
those of v's class only):

    x_i = m + N/K  sum_k  sum_(v of person i in k)  (h_v - m_k) / n_v         mean over i of x_i = m

How far the mean of the two rows' difference x_si, for seed s and person i, may lie from the truth,
is said by `spread`, with seeds and people both random. A single seed speaks of these trainings and
not of the method.

Seeds that are added where a first decision was open mean another look, and each look is a chance of
a false alarm: at L looks every p counts L times, at the first look too (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t

from dfil import paper
from dfil.results import metrics
from dfil.results.scores import ranked
from dfil.results.spread import LEVEL, Spread
from dfil.system.errors import RunError

POWER, MARGIN = 0.8, 0.02
SUPPORTED, CONTRADICTED, EQUIVALENT, OPEN = "supported", "contradicted", "equivalent", "open"

STATE = "data"  # in the attrs of scores, if it is known: the digest of the videos' crops
# By column, one frame per seed: video_id, label, score, person.
Scores = Mapping[str, Sequence[pd.DataFrame]]


@dataclass(frozen=True)
class Decision:
    """`first` minus `second`, pooled over columns, with its 95 % interval and two-sided p.

    p_holm allows for the other decisions made with it and for the looks; detectable is the
    difference that this design finds with 80 % power at the level that both leave to it. They are
    set by `decide`.
    """

    difference: float
    low: float
    high: float
    p: float
    df: float
    error: float  # standard error of the difference
    n_videos: int  # different videos
    n_people: int
    seeds: int
    clustered: bool = True  # False: the scores name no person, so every video counts as one
    p_holm: float = float("nan")
    detectable: float = float("nan")
    verdict: str = OPEN
    spread: Spread | None = None  # None: read from a file, which says p and the interval at 95 %

    def half(self, level: float) -> float:
        """Half the width of the interval at 1 - level."""
        known = self.spread
        return known.half(level) if known else float(t.ppf(1 - level / 2, self.df) * self.error)

    @property
    def about(self) -> str:
        """Of what a decision speaks: several seeds stand for the method, one only for itself."""
        return "the method" if self.seeds > 1 else "these trainings"


def compare(first: Scores, second: Scores | float, metric: str = paper.ACCURACY) -> Decision:
    """The difference of two rows, or of a row and a number, in their common columns, undecided yet.

    Seeds are paired by their position; of a row with more seeds than the other the first ones
    count. Raises RunError if the rows share no column or no videos of both classes, were scored on
    different states of the data (STATE), or with a single person.
    """
    columns = [key for key in first if not isinstance(second, Mapping) or key in second]
    if not columns:
        raise RunError("the two rows have no column in common, so there is nothing to compare")
    pairs = [(first[key], second[key] if isinstance(second, Mapping) else None) for key in columns]
    seeds = min(len(row) for pair in pairs for row in pair if row is not None)
    parts = [
        [_difference(one[s], None if two is None else two[s], metric) for one, two in pairs]
        for s in range(seeds)
    ]  # [seed][column]: Series by video, the column's value and contributions around it
    clustered = all(metrics.people(row[0]) is not None for row, _ in pairs)
    people = pd.concat([part["person"] for part in parts[0]]).unique()
    if len(people) < 2:
        raise RunError("a comparison needs the videos of at least two people")
    x_sn = np.zeros((seeds, len(people)))
    for s, columns_of in enumerate(parts):
        for part in columns_of:
            by_person = part["contribution"].groupby(part["person"]).sum().reindex(people).fillna(0)
            x_sn[s] += part.attrs["value"] + len(people) * by_person.to_numpy()
    x_sn /= len(pairs)
    constant = 0.0 if isinstance(second, Mapping) else float(second)
    videos = pd.concat([part["video_id"] for part in parts[0]]).nunique()
    return of_layout(x_sn - constant, videos, clustered)


def of_layout(x_sn: np.ndarray, videos: int, clustered: bool = True) -> Decision:
    """The mean of a layout (S seeds, N people) against zero, undecided yet. videos: how many
    different ones are behind it."""
    (seeds, people), spread, mean = x_sn.shape, Spread.of(x_sn), float(x_sn.mean())
    half, sure = spread.half(), (spread.p(mean), spread.df, spread.error)
    of = videos, people, seeds, clustered
    return Decision(mean, mean - half, mean + half, *sure, *of, spread=spread)


def decide(
    comparisons: Sequence[Decision], margin: float = MARGIN, looks: int = 1
) -> list[Decision]:
    """The comparisons with verdicts: supported or contradicted where Holm's p is below 5 %, else
    equivalent where the 90 % interval lies within +-margin (two one-sided tests; at L looks the
    interval at 100 - 10 / L %), else open."""
    p_holm = holm([min(1.0, looks * c.p) for c in comparisons])
    rank = np.argsort(np.argsort([c.p for c in comparisons], kind="stable"))
    found = []
    for c, p, r in zip(comparisons, p_holm, rank, strict=True):
        least = detectable(c.half(LEVEL / looks / (len(comparisons) - r)), c.error, c.df)
        verdict = _verdict(c, p, margin, LEVEL / looks)
        found.append(replace(c, p_holm=float(p), detectable=least, verdict=verdict))
    return found


def _verdict(c: Decision, p_holm: float, margin: float, level: float) -> str:
    if p_holm < LEVEL:
        return SUPPORTED if c.difference > 0 else CONTRADICTED
    return EQUIVALENT if abs(c.difference) + c.half(2 * level) < margin else OPEN


def detectable(half: float, error: float, df: float) -> float:
    """The smallest true difference that a two-sided test finds with 80 % power. half: half the
    width of the interval at its level."""
    return float(half + t.ppf(POWER, df) * error)


def _difference(first: pd.DataFrame, second: pd.DataFrame | None, metric: str) -> pd.DataFrame:
    """Per video its person and its part in one column's and seed's difference (in `attrs`)."""
    both = first if second is None else first[first["video_id"].isin(second["video_id"])]
    if second is not None and len({df.attrs.get(STATE) for df in (first, second)} - {None}) > 1:
        raise RunError("the two rows were scored on different states of the data")
    if both["label"].nunique() < 2:
        raise RunError("the two rows were not scored on the same real and fake videos")
    who = metrics.people(both)
    found = both[["video_id"]].assign(person=both["video_id"] if who is None else who)
    value, part_n = _parts(both, metric)
    if second is not None:
        other = second.set_index("video_id").loc[both["video_id"]].reset_index()
        value_b, part_b = _parts(other, metric)
        value, part_n = value - value_b, part_n - part_b
    found = found.assign(contribution=part_n)
    found.attrs["value"] = value
    return found


def _parts(scores: pd.DataFrame, metric: str) -> tuple[float, np.ndarray]:
    return metrics.PARTS[metric](scores["label"].to_numpy(), ranked(scores))


def holm(p_values) -> np.ndarray:
    """p-values (k,) of k tests, adjusted so that even one false alarm among them keeps its chance
    at the level (Holm 1979, SJS 6:65)."""
    p_k = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_k)
    adjusted = np.maximum.accumulate(p_k[order] * np.arange(p_k.size, 0, -1)).clip(max=1)
    return adjusted[np.argsort(order)]
