"""Metrics against slow float64 references, scipy, the bootstrap, and each other."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import binomtest, norm
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from dfil.explain.frame_level import auc_over_videos
from dfil.results import metrics
from dfil.results.decide import holm
from dfil.results.scores import ranked
from dfil.system.errors import DataError


def sample(n_real=30, n_fake=40, shift=1.0, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels_n = np.r_[np.zeros(n_real, int), np.ones(n_fake, int)]
    scores_n = 1 / (1 + np.exp(-(rng.normal(size=labels_n.size) + shift * labels_n - shift / 2)))
    return labels_n, np.round(scores_n, 1) if ties else scores_n


def bootstrap(labels, scores, resamples):
    """Percentile interval of the mean AUC over seeds, drawing videos within each class."""
    rng, scores_sn = np.random.default_rng(0), np.atleast_2d(scores)
    classes, values = [np.flatnonzero(labels == label) for label in (0, 1)], []
    for _ in range(resamples):
        drawn = np.concatenate([rng.choice(members, members.size) for members in classes])
        values.append(np.mean([roc_auc_score(labels[drawn], s[drawn]) for s in scores_sn]))
    return np.quantile(values, [0.025, 0.975])


def slow_auc_and_variance(labels, scores):
    """AUC and DeLong's variance by their definitions: every pair of a fake and a real video."""
    fakes = [s for l, s in zip(labels, scores, strict=True) if l == 1]
    reals = [s for l, s in zip(labels, scores, strict=True) if l == 0]

    def psi(fake, real):
        return 1.0 if fake > real else 0.5 if fake == real else 0.0

    by_fake = [sum(psi(f, r) for r in reals) / len(reals) for f in fakes]
    by_real = [sum(psi(f, r) for f in fakes) / len(fakes) for r in reals]
    area = sum(by_fake) / len(fakes)
    s10 = sum((v - area) ** 2 for v in by_fake) / (len(fakes) - 1)
    s01 = sum((v - area) ** 2 for v in by_real) / (len(reals) - 1)
    return area, s10 / len(fakes) + s01 / len(reals)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shift", [-1.5, 0.0, 1.0, 3.0])
def test_auc_against_all_pairs(shift, ties):
    labels, scores = sample(shift=shift, ties=ties, seed=int(shift * 10) % 97)
    area, variance = slow_auc_and_variance(labels, scores)
    estimate = metrics.auc(labels, scores)
    assert estimate.value == pytest.approx(area, abs=1e-12)
    assert (estimate.n, estimate.n_positive) == (70, 40)
    # Undo the logit: half the width there is z * sd / (A (1 - A)).
    width = math.log(estimate.high / (1 - estimate.high)) - math.log(
        estimate.low / (1 - estimate.low)
    )
    assert width == pytest.approx(
        2 * norm.ppf(0.975) * math.sqrt(variance) / (area * (1 - area)), rel=1e-9
    )
    assert 0 < estimate.low < estimate.value < estimate.high < 1


def test_auc_agrees_with_the_bootstrap():
    labels, scores = sample(n_real=150, n_fake=150, shift=1.2, seed=3)
    estimate = metrics.auc(labels, scores)
    low, high = bootstrap(labels, scores, resamples=600)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.012)


def test_auc_interval_covers():
    """About 95 of 100 intervals contain the true area, Phi(shift / sqrt 2)."""
    shift = 1.5
    truth = norm.cdf(shift / math.sqrt(2))
    estimates = [metrics.auc(*sample(25, 25, shift, seed)) for seed in range(400)]
    covered = np.mean([e.low <= truth <= e.high for e in estimates])
    assert 0.92 <= covered <= 0.985


@pytest.mark.parametrize(("n_real", "n_fake"), [(20, 20), (20, 90), (2, 3), (1, 5)])
def test_perfect_separation_has_an_honest_bound(n_real, n_fake):
    labels = np.r_[np.zeros(n_real, int), np.ones(n_fake, int)]
    perfect, worst = metrics.auc(labels, labels * 0.9), metrics.auc(labels, 1 - labels * 0.9)
    assert (perfect.value, perfect.high, worst.value, worst.low) == (1.0, 1.0, 0.0, 0.0)
    assert perfect.low == pytest.approx(0.025 ** (1 / min(n_real, n_fake)))
    assert worst.high == pytest.approx(1 - perfect.low)


def test_perfect_separation_bound_covers():
    """At an area where perfect separation is common, DeLong's zero width would be wrong each
    time it happens.
    """
    shift, m = 3.2, 12
    truth = norm.cdf(shift / math.sqrt(2))
    estimates = [metrics.auc(*sample(m, m, shift, seed)) for seed in range(300)]
    perfect = [e for e in estimates if e.value == 1]
    assert len(perfect) > 50
    assert np.mean([e.low <= truth <= e.high for e in estimates]) > 0.93


def test_constant_scores_are_not_certain():
    estimate = metrics.auc([0] * 10 + [1] * 10, [0.5] * 20)
    assert estimate.value == 0.5
    assert estimate.low < 0.25 and estimate.high > 0.75


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (1, 1), (267, 280), (140, 280), (3, 40)])
def test_wilson_against_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert metrics.wilson(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    labels = np.ones(n, int)
    scores = np.r_[np.full(k, 0.5), np.full(n - k, 0.49)]  # a score at the threshold counts as fake
    estimate = metrics.accuracy(labels, scores)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (k / n, expected.low, expected.high), abs=1e-12
    )


def test_several_seeds_are_not_several_times_the_videos():
    labels, scores = sample(seed=5)
    for metric in (metrics.accuracy, metrics.auc):
        one, copies = metric(labels, scores), metric(labels, np.stack([scores] * 3))
        assert (one.value, one.low, one.high, one.n) == pytest.approx(
            (copies.value, copies.low, copies.high, copies.n)
        )


def test_several_seeds_give_the_mean():
    labels = sample()[0]
    scores_sn = np.stack([sample(seed=seed)[1] for seed in range(3)])
    for metric in (metrics.accuracy, metrics.auc):
        assert metric(labels, scores_sn).value == pytest.approx(
            np.mean([metric(labels, s).value for s in scores_sn])
        )


def test_mean_auc_of_seeds_agrees_with_the_bootstrap():
    rng = np.random.default_rng(8)
    labels = np.r_[np.zeros(120, int), np.ones(120, int)]
    shared = (
        rng.normal(size=240) + 1.2 * labels
    )  # seeds of one method agree about which videos are hard
    scores_sn = shared + rng.normal(size=(3, 240)) * 0.7
    estimate = metrics.auc(labels, scores_sn)
    low, high = bootstrap(labels, scores_sn, resamples=300)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.015)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "all 2 are fake"),
        ([0, 0, 0], [0.1, 0.2, 0.3], "all 3 are real"),
        ([0, 1], [0.1, float("nan")], "1 of 2 scores are not finite"),
        ([0, 1], [0.1, 0.2, 0.3], "2 labels do not go with scores of shape"),
        ([0, 2], [0.1, 0.2], r"got \[0, 2\]"),
        ([], [], "at least one"),
    ],
)
def test_clear_errors(labels, scores, message):
    with pytest.raises(DataError, match=message):
        metrics.auc(labels, scores)
    if "are fake" not in message and "are real" not in message:
        with pytest.raises(DataError, match=message):
            metrics.accuracy(labels, scores)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx(
        [0.03, 0.06, 0.06]
    )  # 3 x .01; max(2 x .03, 1 x .04)
    assert holm([0.5, 0.9]).tolist() == [1, 1] and holm([]).size == 0


def test_auc_over_videos_draws_videos_and_not_parts():
    rng = np.random.default_rng(0)
    labels = [np.array([0, 0, 1, 1] * 4) for _ in range(12)]
    offsets = rng.normal(0, 5, 12)
    scores = [
        2 * l + rng.normal(0, 1, l.size) + offset for l, offset in zip(labels, offsets, strict=True)
    ]
    pooled, within = (auc_over_videos(labels, scores), auc_over_videos(labels, scores, within=True))
    assert pooled.value == pytest.approx(
        roc_auc_score(np.concatenate(labels), np.concatenate(scores))
    )
    assert within.value == pytest.approx(
        np.mean([roc_auc_score(l, s) for l, s in zip(labels, scores, strict=True)])
    )
    assert pooled.value < 0.75 < within.value  # offsets between videos hurt only the one
    assert pooled.low < pooled.value < pooled.high and (pooled.n, pooled.n_positive) == (12, 12)
    # Copying every part of a video adds no video, so the interval stays; copying every video makes
    # it narrower.
    twice = auc_over_videos([np.tile(l, 2) for l in labels], [np.tile(s, 2) for s in scores])
    assert (twice.low, twice.high) == pytest.approx((pooled.low, pooled.high))
    more = auc_over_videos(labels * 4, scores * 4)
    assert more.high - more.low < 0.7 * (pooled.high - pooled.low)
    with pytest.raises(DataError, match="all 4 are fake"):
        auc_over_videos([np.ones(4), np.zeros(4)], [np.arange(4.0)] * 2, within=True)


def faces(people=60, copies=1, seed=0, shared=1.5):
    """A real and a fake video per person whose face moves both scores alike, and who each shows."""
    rng = np.random.default_rng(seed)
    labels = np.tile([0, 1], people * copies)
    who = np.repeat(np.arange(people), 2 * copies)
    own = shared * rng.normal(size=people)[who] + rng.normal(0, 0.7, labels.size)
    return labels, 1 / (1 + np.exp(-(1.5 * labels - 0.75 + own))), who


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.auc])
def test_intervals_by_person_cover_and_do_not_shrink_with_copies(metric):
    truth = np.mean([metric(*faces(2000, seed=s)[:2]).value for s in range(4)])
    found = [metric(*faces(seed=seed)) for seed in range(300)]
    assert 0.92 <= np.mean([e.low <= truth <= e.high for e in found]) <= 0.98
    labels, scores, who = faces()
    once, thrice = (
        metric(labels, scores, who),
        metric(*(np.tile(a, 3) for a in (labels, scores, who))),
    )
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert metric(*(np.tile(a, 3) for a in (labels, scores))).high < once.high


@pytest.mark.parametrize("people", [5, 12])
@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.auc])
def test_intervals_of_few_people_cover_too(metric, people):
    truth = np.mean([metric(*faces(2000, seed=s, shared=0.4)[:2]).value for s in range(4)])
    found = [metric(*faces(people, copies=4, seed=seed, shared=0.4)) for seed in range(600)]
    assert 0.93 <= np.mean([e.low <= truth <= e.high for e in found]) <= 0.99


def test_an_interval_by_person_is_students_around_the_mean_of_the_people():
    rng, people = np.random.default_rng(0), 6
    right = rng.random((people, 400)) < rng.uniform(0.45, 0.55, (people, 1))
    labels, who = np.ones(right.size, dtype=int), np.repeat(np.arange(people), right.shape[1])
    found, each = metrics.accuracy(labels, right.ravel().astype(float), who), right.mean(1)
    half = student.ppf(0.975, people - 1) * each.std(ddof=1) / np.sqrt(people)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.01)


def test_a_shared_face_makes_the_interval_by_person_narrower_where_it_moves_both_alike():
    labels, scores, who = faces()
    for metric in (metrics.accuracy, metrics.auc):
        alone, together = metric(labels, scores), metric(labels, scores, who)
        assert together.value == alone.value
        assert together.high - together.low < 0.9 * (alone.high - alone.low)


def test_videos_of_different_people_are_as_without_people():
    labels, scores = sample(seed=5)
    for metric in (metrics.accuracy, metrics.auc):
        alone, together = metric(labels, scores), metric(labels, scores, np.arange(labels.size))
        assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=4e-3)


def test_nothing_is_certain_where_people_do_not_differ():
    labels, who = np.tile([0, 1], 12), np.repeat(np.arange(12), 2)
    right, one_sided = (
        metrics.accuracy(labels, labels, who),
        metrics.accuracy(labels, labels * 0, who),
    )
    assert (right.low, right.high) == metrics.wilson(1, 12)
    assert one_sided.value == 0.5 and (one_sided.low, one_sided.high) == metrics.wilson(0.5, 12)
    assert metrics.auc(labels, labels, who).low == pytest.approx(0.025 ** (1 / 12))


def test_logits_that_round_to_the_same_probability_are_still_ranked():
    df = pd.DataFrame({"label": [0, 1, 0, 1], "logit": [40.0, 41.0, -1e-3, 0.0]})
    df["score"] = expit(df["logit"])
    assert df["score"][0] == df["score"][1] == 1.0
    assert metrics.auc(df["label"], ranked(df)).value == 0.75
    assert metrics.auc(df["label"], ranked(df.drop(columns="logit"))).value == 0.625
    by_score, by_rank = (metrics.accuracy(df["label"], x).value for x in (df["score"], ranked(df)))
    assert by_score == by_rank == 0.75
