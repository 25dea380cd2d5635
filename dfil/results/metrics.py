"""Accuracy and AUC over videos with 95 % intervals.

All functions take labels (n,) with 1 = fake and 0 = real, and probabilities of fake: (n,) from one
model, or (s, n) from s models trained with different seeds and scored on the same n videos. With
several seeds the value is their mean, and the interval says where the mean of these s models would
lie on other videos of the same kind. How far they differ is said by the values per seed.

people (n,): whom each video shows. A real video and its fakes share a face, and their scores go
together; with people given, whole people are what is sampled. Without, every video is on its own.
The variance of few people is a guess, so it is widened by (t / q)^2, Student's quantile over the
normal one (Korn and Graubard 1998, Survey Methodology 24:193).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import beta, norm, rankdata, t

from dfil.paper import ACCURACY, AUC
from dfil.system.errors import DataError

LEVEL = 0.95
_Z = norm.ppf(0.5 + LEVEL / 2)


@dataclass(frozen=True)
class Estimate:
    """A value in 0..1 with its 95 % interval, over n videos of which n_positive are fake."""

    value: float
    low: float
    high: float
    n: int
    n_positive: int


def accuracy(labels, scores, people=None) -> Estimate:
    """Fraction of videos on the right side of 0.5 (a score equal to it counts as fake).

    The interval is Wilson's (1927, JASA 22:209) at n videos; with several seeds a video counts with
    the fraction of seeds that get it right, which varies less than a 0/1 outcome of the same mean,
    so it is then on the cautious side. With people it is Wilson's at the effective number of videos
    value (1 - value) / variance, or at the number of people where that variance is zero. Raises
    DataError for lengths that differ, no videos, labels other than 0 and 1, or scores that are not
    finite.
    """
    labels_n, scores_sn = checked(labels, scores)
    value, part_n = accuracy_parts(labels_n, scores_sn)
    size = float(labels_n.size)
    if people is not None:
        variance, count = _variance_by_person(part_n, people)
        size = value * (1 - value) / variance if variance > 0 else count
    return Estimate(value, *wilson(value, size), labels_n.size, int(labels_n.sum()))


def auc(labels, scores, people=None) -> Estimate:
    """Area under the ROC curve (ties count half) with DeLong's interval, by people if they are
    given.

    DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837; for several seeds their covariance
    for the mean of s curves over the same videos; for people the sums of a person's components
    (Obuchowski 1997, Biometrics 53:567). It is built on the logit, so it stays inside 0..1.

    Where that variance is zero (perfect separation, constant scores) or undefined (one video of a
    class), the interval is Clopper-Pearson's for m x value successes in m trials, m the smallest of
    the numbers of real videos, fake videos and people: the videos form m disjoint real-fake pairs,
    each ordered correctly with a chance equal to the true AUC and independently of the others.
    Perfect separation needs all m, so the bound is exact, if cautious. Just below 1 DeLong's is
    short: at .998 and 70 people it covers 90 %. Raises DataError as `accuracy`, and for one class.
    """
    labels_n, scores_sn = checked(labels, scores)
    n_fake, n_real = both_classes(labels_n)
    value, part_n = auc_parts(labels_n, scores_sn)
    if people is None:
        size_n, trials = np.where(labels_n == 1, n_fake, n_real), min(n_fake, n_real)
        variance = float(np.sum(part_n**2 * size_n / (size_n - 1))) if trials > 1 else 0.0
    else:
        variance, count = _variance_by_person(part_n, people)
        trials = min(n_fake, n_real, count)
    if variance > 1e-20 and 0 < value < 1:
        half = _Z * math.sqrt(variance) / (value * (1 - value))
        low, high = (float(expit(logit(value) + sign * half)) for sign in (-1, 1))
    else:
        low, high = _clopper_pearson(value, trials)
    return Estimate(value, low, high, labels_n.size, n_fake)


def accuracy_parts(labels_n: np.ndarray, scores_sn: np.ndarray) -> tuple[float, np.ndarray]:
    """The accuracy m and every video's part in it, (h_v - m) / n with h_v = 1 where it is right."""
    right_n = ((np.atleast_2d(scores_sn) >= 0.5) == (labels_n == 1)).mean(0)
    value = float(right_n.mean())
    return value, (right_n - value) / right_n.size


def auc_parts(labels_n: np.ndarray, scores_sn: np.ndarray) -> tuple[float, np.ndarray]:
    """The AUC m and every video's part in it, (h_v - m) / (videos of its class).

    h_v is DeLong's component: for a fake the share of reals that it outranks, for a real video the
    share of fakes that outrank it. Midranks give both without comparing all pairs (Sun and Xu 2014,
    IEEE SPL 21:1389): a fake's rank among all videos less that among the fakes counts the reals
    below.
    """
    scores_sn, fake_n = np.atleast_2d(scores_sn), labels_n == 1
    n_fake, n_real = fake_n.sum(), (~fake_n).sum()
    rank_sn, h_n = rankdata(scores_sn, axis=1), np.empty(labels_n.size)
    h_n[fake_n] = (rank_sn[:, fake_n] - rankdata(scores_sn[:, fake_n], axis=1)).mean(0) / n_real
    below_n = (rank_sn[:, ~fake_n] - rankdata(scores_sn[:, ~fake_n], axis=1)).mean(0)
    h_n[~fake_n] = 1 - below_n / n_fake
    value = float(h_n[fake_n].mean())
    return value, (h_n - value) / np.where(fake_n, n_fake, n_real)


def people(scores: pd.DataFrame) -> np.ndarray | None:
    """Whom each video of a scores table shows, itself where not known; None if nobody is."""
    if "person" not in scores or not (scores["person"].fillna("") != "").any():
        return None
    return scores["person"].where(scores["person"].fillna("") != "", scores["video_id"]).to_numpy()


METRICS: dict[str, Callable[..., Estimate]] = {ACCURACY: accuracy, AUC: auc}
PARTS = {ACCURACY: accuracy_parts, AUC: auc_parts}


def wilson(proportion: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a proportion of n trials; n and the count may be fractions."""
    z2 = _Z**2
    centre = proportion + z2 / (2 * n)
    spread = math.sqrt(z2 * (proportion * (1 - proportion) / n + z2 / (4 * n * n)))
    low, high = (centre - spread) / (1 + z2 / n), (centre + spread) / (1 + z2 / n)
    # At the ends the formula gives 0 and 1 up to rounding.
    return (0.0 if proportion == 0 else float(low)), (1.0 if proportion == 1 else float(high))


def _clopper_pearson(proportion: float, n: int) -> tuple[float, float]:
    """Exact binomial interval (Clopper and Pearson 1934) in its beta form, for any count."""
    successes, tail = proportion * n, (1 - LEVEL) / 2
    low = 0.0 if proportion == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if proportion == 1 else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def _variance_by_person(part_n: np.ndarray, people) -> tuple[float, int]:
    """Variance of the sum of the videos' parts when people are drawn, widened as few people ask,
    and how many there are; zero with one person, or where their sums do not differ."""
    _, index_n = np.unique(np.asarray(people, dtype=str), return_inverse=True)
    sum_p = np.bincount(index_n, part_n)
    count = sum_p.size
    variance = count / (count - 1) * float(np.sum(sum_p**2)) if count > 1 else 0.0
    few = (t.ppf(0.5 + LEVEL / 2, max(count - 1, 1)) / _Z) ** 2
    return (few * variance if variance > 1e-20 else 0.0), count


def checked(labels, scores) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and scores (s, n) as arrays; DataError if they are no such thing."""
    labels_n = np.asarray(labels)
    scores_sn = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if labels_n.ndim != 1 or labels_n.size == 0:
        got = f"got shape {labels_n.shape}: are there scored videos?"
        raise DataError(f"labels must be a list of at least one 0 or 1, {got}")
    if scores_sn.ndim != 2 or scores_sn.shape[1] != labels_n.size or len(scores_sn) == 0:
        shapes = f"{labels_n.size} labels do not go with scores of shape {np.shape(scores)}"
        raise DataError(f"{shapes}: give one score per video and seed")
    if not np.isin(labels_n, (0, 1)).all():
        found = sorted(set(labels_n.tolist()))[:5]
        raise DataError(f"labels must be 1 (fake) or 0 (real), got {found}")
    if not np.isfinite(scores_sn).all():
        found = f"{(~np.isfinite(scores_sn)).sum()} of {scores_sn.size} scores are not finite"
        raise DataError(f"{found}: the model has diverged or a video was not scored")
    return labels_n.astype(np.int64), scores_sn


def both_classes(labels_n: np.ndarray) -> tuple[int, int]:
    """Numbers of fakes and of reals; DataError if there are none of either."""
    n_fake = int(labels_n.sum())
    if n_fake in (0, labels_n.size):
        kind = "fake" if n_fake else "real"
        raise DataError(f"AUC needs real and fake videos, but all {labels_n.size} are {kind}")
    return n_fake, labels_n.size - n_fake
