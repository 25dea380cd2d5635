"""Accuracy and AUC over videos with 95 % intervals, and a paired test between two models.

All functions take labels (n,) with 1 = fake and 0 = real, and probabilities of fake: (n,) from one model, or (s, n) from s models
trained with different seeds and scored on the same n videos. With several seeds the value is the mean over seeds. The videos are what
is sampled, and the seeds share them, so the interval never counts more than n videos: it says where the mean of these s models would
lie on other videos of the same kind. How far the models differ among themselves is a separate question, answered by the values per
seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, binomtest, norm, rankdata
from sklearn.metrics import roc_auc_score

from dfil.system.errors import DataError

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value in 0..1 with its 95 % interval, over n videos of which n_positive are fake."""

    value: float
    low: float
    high: float
    n: int
    n_positive: int


@dataclass(frozen=True)
class Comparison:
    """Two models on the same videos: accuracy of the first minus the second, videos only one of them gets right, exact p-value."""

    difference: float
    only_first: int
    only_second: int
    p_value: float
    n: int


def accuracy(labels, scores, threshold: float = 0.5) -> Estimate:
    """Fraction of videos on the right side of `threshold` (a score equal to it counts as fake), with a Wilson interval at n videos.

    Wilson 1927, JASA 22:209. With several seeds a video counts with the fraction of seeds that get it right. Such a fraction varies
    less than a 0/1 outcome of the same mean, so the interval is then on the cautious side.
    Raises DataError for lengths that differ, no videos, labels other than 0 and 1, or scores that are not finite.
    """
    labels_n, scores_sn = _check(labels, scores)
    value = float(np.mean((scores_sn >= threshold) == (labels_n == 1)))
    low, high = wilson(value, labels_n.size)
    return Estimate(value, low, high, labels_n.size, int(labels_n.sum()))


def auc(labels, scores) -> Estimate:
    """Area under the ROC curve (ties count half) with DeLong's interval.

    DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837, by midranks (Sun and Xu 2014, IEEE SPL 21:1389). For several seeds it is
    their covariance for the mean of s curves over the same videos. The interval is built on the logit, so it stays inside 0..1.

    Where DeLong's variance is zero (perfect separation, constant scores) or undefined (one video of a class), it says nothing, and the
    interval is Clopper-Pearson's for m x value successes in m = min(n real, n fake) trials. The reason: the videos form m disjoint
    real-fake pairs, each ordered correctly with a chance equal to the true AUC and independently of the others. Perfect separation
    needs all m, so its chance is at most AUC^m and the bound is exact, if cautious. For constant scores the same is a cautious stand-in.

    Raises DataError as `accuracy` does, and if one of the classes is missing.
    """
    labels_n, scores_sn = _check(labels, scores)
    n_fake, n_real = _both_classes(labels_n)
    value = float(np.mean([roc_auc_score(labels_n, scores_n) for scores_n in scores_sn]))
    variance = _delong_variance(labels_n, scores_sn)
    if variance > 0 and 0 < value < 1:
        half_width = norm.ppf(0.5 + LEVEL / 2) * math.sqrt(variance) / (value * (1 - value))
        low, high = (float(expit(logit(value) + sign * half_width)) for sign in (-1, 1))
    else:
        low, high = _clopper_pearson(value, min(n_fake, n_real))
    return Estimate(value, low, high, labels_n.size, n_fake)


def bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    labels,
    scores,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of statistic(labels_n, scores_n), drawing videos with replacement within each class, all seeds together.

    The statistic is averaged over seeds inside every resample. A check on the closed forms above, and the way to an interval
    for a statistic that has none. Raises DataError as `auc` does.
    """
    labels_n, scores_sn = _check(labels, scores)
    _both_classes(labels_n)
    classes = [np.flatnonzero(labels_n == label) for label in (0, 1)]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = np.concatenate([rng.choice(members, members.size) for members in classes])
        values.append(
            np.mean([statistic(labels_n[drawn], scores_n[drawn]) for scores_n in scores_sn])
        )
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mcnemar(labels, first, second, threshold: float = 0.5) -> Comparison:
    """Exact two-sided McNemar test of two models, first (n,) and second (n,), on the same videos (McNemar 1947, Psychometrika 12:153).

    Only videos that exactly one of them gets right carry information; under equal accuracy they are fair coin flips.
    Raises DataError as `accuracy` does, and for scores of more than one seed.
    """
    labels_n, first_sn = _check(labels, first)
    _, second_sn = _check(labels, second)
    if len(first_sn) != 1 or len(second_sn) != 1:
        raise DataError(
            "McNemar's test compares two models: give it the scores of one seed each, shape (n,)"
        )
    right_first, right_second = (
        (scores_sn[0] >= threshold) == (labels_n == 1) for scores_sn in (first_sn, second_sn)
    )
    only_first, only_second = (
        int(np.sum(right_first & ~right_second)),
        int(np.sum(right_second & ~right_first)),
    )
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return Comparison(
        (only_first - only_second) / labels_n.size, only_first, only_second, p_value, labels_n.size
    )


def holm(p_values) -> np.ndarray:
    """p-values (k,) of k tests, adjusted so that the chance of even one false alarm stays at the level (Holm 1979, SJS 6:65)."""
    p_k = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_k)
    adjusted = np.maximum.accumulate(p_k[order] * np.arange(p_k.size, 0, -1)).clip(max=1)
    return adjusted[np.argsort(order)]


def auc_over_videos(
    labels: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    within: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """AUC of the parts (frames, snippets) of videos, with a percentile interval that draws whole videos: parts of one are no strangers.

    labels, scores: per video an array of 0/1 and one of scores. within: the mean over the videos of each one's own AUC, which no offset
    between videos can change, instead of the AUC of all parts together. n counts videos, n_positive those with a positive part.
    Raises DataError if a class is missing overall, or, with `within`, in a video.
    """
    videos = [_check(l, s) for l, s in zip(labels, scores, strict=True)]
    pooled = [(l, s[0]) for l, s in videos]
    if within:
        for l, _ in pooled:
            _both_classes(l)
        own = np.array([roc_auc_score(l, s) for l, s in pooled])
    _both_classes(np.concatenate([l for l, _ in pooled]))

    def value(drawn: np.ndarray) -> float:
        if within:
            return float(own[drawn].mean())
        l, s = (np.concatenate([pooled[i][part] for i in drawn]) for part in (0, 1))
        return (
            float(roc_auc_score(l, s)) if 0 < l.sum() < l.size else math.nan
        )  # a draw of one class has no AUC

    rng, n = np.random.default_rng(seed), len(pooled)
    low, high = np.nanquantile(
        [value(rng.integers(n, size=n)) for _ in range(resamples)],
        [(1 - LEVEL) / 2, (1 + LEVEL) / 2],
    )
    return Estimate(
        value(np.arange(n)), float(low), float(high), n, sum(bool(l.any()) for l, _ in pooled)
    )


def wilson(proportion: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a proportion of n trials; proportion x n need not be whole (a mean over seeds)."""
    z2 = norm.ppf(0.5 + LEVEL / 2) ** 2
    centre = proportion + z2 / (2 * n)
    spread = math.sqrt(z2 * (proportion * (1 - proportion) / n + z2 / (4 * n * n)))
    low, high = (centre - spread) / (1 + z2 / n), (centre + spread) / (1 + z2 / n)
    # At the ends the formula gives 0 and 1 up to rounding.
    return (0.0 if proportion == 0 else float(low)), (1.0 if proportion == 1 else float(high))


def _clopper_pearson(proportion: float, n: int) -> tuple[float, float]:
    """Exact binomial interval (Clopper and Pearson 1934) in its beta form, which allows a count that is not whole."""
    successes, tail = proportion * n, (1 - LEVEL) / 2
    low = 0.0 if proportion == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if proportion == 1 else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def _delong_variance(labels_n: np.ndarray, scores_sn: np.ndarray) -> float:
    """DeLong's variance of the AUC, averaged over seeds; zero where a class has a single video.

    A fake video's component is the fraction of real videos it outranks, a real one's the fraction of fakes that outrank it. Midranks
    give both without comparing all pairs: a fake's rank among all videos minus its rank among the fakes counts the reals below it.
    """
    fake = labels_n == 1
    n_fake, n_real = int(fake.sum()), int((~fake).sum())
    if min(n_fake, n_real) < 2:
        return 0.0
    ranks_sn = rankdata(scores_sn, axis=1)
    fakes = ((ranks_sn[:, fake] - rankdata(scores_sn[:, fake], axis=1)) / n_real).mean(
        axis=0
    )  # (n_fake,)
    reals = (1 - (ranks_sn[:, ~fake] - rankdata(scores_sn[:, ~fake], axis=1)) / n_fake).mean(
        axis=0
    )  # (n_real,)
    return float(fakes.var(ddof=1) / n_fake + reals.var(ddof=1) / n_real)


def _check(labels, scores) -> tuple[np.ndarray, np.ndarray]:
    labels_n = np.asarray(labels)
    scores_sn = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if labels_n.ndim != 1 or labels_n.size == 0:
        raise DataError(
            f"labels must be a list of at least one 0 or 1, got shape {labels_n.shape}: are there scored videos?"
        )
    if scores_sn.ndim != 2 or scores_sn.shape[1] != labels_n.size or len(scores_sn) == 0:
        raise DataError(
            f"{labels_n.size} labels do not go with scores of shape {np.shape(scores)}: give one score per video and seed"
        )
    if not np.isin(labels_n, (0, 1)).all():
        raise DataError(
            f"labels must be 1 (fake) or 0 (real), got {sorted(set(labels_n.tolist()))[:5]}"
        )
    if not np.isfinite(scores_sn).all():
        count = int((~np.isfinite(scores_sn)).sum())
        raise DataError(
            f"{count} of {scores_sn.size} scores are not finite: the model has diverged or a video was not scored"
        )
    return labels_n.astype(np.int64), scores_sn


def _both_classes(labels_n: np.ndarray) -> tuple[int, int]:
    n_fake = int(labels_n.sum())
    if n_fake in (0, labels_n.size):
        raise DataError(
            f"AUC needs real and fake videos, but all {labels_n.size} are {'fake' if n_fake else 'real'}"
        )
    return n_fake, labels_n.size - n_fake
