"""Decides whether one row of a table is better than another, or than a constant such as chance.

Two rows are compared on the same videos with equally many seeds. The metric m of a column is a mean
over videos of contributions h_v: for accuracy 1 where the score is on the right side of 0.5, else
0; for AUC DeLong's component, for a fake the share of reals that it outranks, for a real video the
share of fakes that outrank it. A person's part in it, averaged over the K columns and linearised,
so that people may have different numbers of videos (N people; n_v: the column's videos, for AUC
those of v's class only):

    x_i = m + N/K  sum_k  sum_(v of person i in k)  (h_v - m_k) / n_v         mean over i of x_i = m

The difference of two rows, x_si for seed s of S and person i of N, is taken as

    x_si = mu + a_s + b_i + e_si

with all three random: other seeds and other people would have done as well. With the mean squares
MS_s, MS_i and MS_e of this two-way layout

    total     = MS_s + MS_i - MS_e,  but at least MS_i and MS_e
    var(mean) = total / (S N)
    df        = total^2 / (MS_s^2/(S-1) + MS_i^2/(N-1) + MS_e^2/((S-1)(N-1)))   (Satterthwaite 1946)

A single seed leaves a_s out, with N - 1 degrees of freedom: then the decision speaks of these
trainings and not of the method. Where no person's part differs at all, the standard error is that
of about one person in N + 2 (rule of succession).

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
from dfil.system.errors import RunError

LEVEL, POWER, MARGIN = 0.05, 0.8, 0.02
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
    mean, error, df = crossed(x_sn - constant)
    half = t.ppf(1 - LEVEL / 2, df) * error
    videos = pd.concat([part["video_id"] for part in parts[0]]).nunique()
    return Decision(
        mean, mean - half, mean + half, float(2 * t.sf(abs(mean) / error, df)), df, error,
        videos, len(people), seeds, clustered,
    )  # fmt: skip


def decide(
    comparisons: Sequence[Decision], margin: float = MARGIN, looks: int = 1
) -> list[Decision]:
    """The comparisons with verdicts: supported or contradicted where Holm's p is below 5 %, else
    equivalent where the 90 % interval lies within +-margin (two one-sided tests; at two looks the
    95 % interval), else open."""
    p_holm = holm([min(1.0, looks * c.p) for c in comparisons])
    rank = np.argsort(np.argsort([c.p for c in comparisons], kind="stable"))
    found = []
    for c, p, r in zip(comparisons, p_holm, rank, strict=True):
        least = float(detectable(c.error, c.df, LEVEL / looks / (len(comparisons) - r)))
        verdict = _verdict(c, p, margin, LEVEL / looks)
        found.append(replace(c, p_holm=float(p), detectable=least, verdict=verdict))
    return found


def crossed(x_sn: np.ndarray) -> tuple[float, float, float]:
    """Mean of an (S seeds, N people) layout, its standard error and its degrees of freedom."""
    (s, n), mean = x_sn.shape, float(x_sn.mean())
    seed_s, person_n = x_sn.mean(1), x_sn.mean(0)
    ms_i = s * person_n.var(ddof=1)
    total, df = ms_i, n - 1.0
    if s > 1:
        rest_sn = x_sn - seed_s[:, None] - person_n + mean
        ms_s, ms_e = n * seed_s.var(ddof=1), (rest_sn**2).sum() / ((s - 1) * (n - 1))
        total = max(ms_s + ms_i - ms_e, ms_i, ms_e)
        spread = ms_s**2 / (s - 1) + ms_i**2 / (n - 1) + ms_e**2 / ((s - 1) * (n - 1))
        df = max(1.0, float(total**2 / spread)) if spread else df
    error = float(np.sqrt(total / (s * n)))
    return mean, error if error > 1e-12 else 1 / (n + 2), df


def detectable(error: float, df: float, level: float = LEVEL) -> float:
    """The smallest true difference that a two-sided test at `level` finds with 80 % power."""
    return (t.ppf(1 - level / 2, df) + t.ppf(POWER, df)) * error


def _verdict(c: Decision, p_holm: float, margin: float, level: float) -> str:
    if p_holm < LEVEL:
        return SUPPORTED if c.difference > 0 else CONTRADICTED
    half = t.ppf(1 - level, c.df) * c.error
    return EQUIVALENT if abs(c.difference) + half < margin else OPEN


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
