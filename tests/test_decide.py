"""The decision between two rows: false alarms, coverage and power by simulation, and the edges."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dfil import paper
from dfil.results import decide, power
from dfil.results.spread import Spread
from dfil.system.errors import RunError


def scored(skill, people=40, seed=0, noise=1.0, names=True):
    """A real and a fake video per person, the same for every seed, scored by one of this skill."""
    fixed, own = np.random.default_rng(7), np.random.default_rng(seed)
    label_n = np.tile([0, 1], people)
    logit_n = skill * (label_n - 0.5) + np.repeat(fixed.normal(size=people), 2)
    logit_n = logit_n + own.normal(0, noise, 2 * people)
    df = pd.DataFrame(
        {
            "video_id": [f"v{i}" for i in range(2 * people)],
            "label": label_n,
            "score": 1 / (1 + np.exp(-logit_n)),
            "person": np.repeat([f"p{i}" for i in range(people)], 2),
        }
    )
    return df if names else df.drop(columns="person")


def row(skill, seeds=3, first=0, **options):
    return {"x": [scored(skill, seed=first + s, **options) for s in range(seeds)]}


@pytest.mark.parametrize("metric", [paper.ACCURACY, paper.AUC])
def test_the_difference_is_that_of_the_metrics_averaged_over_columns_and_seeds(metric):
    one = {"x": row(3)["x"], "y": row(1)["x"]}
    two = {"x": row(1, first=9)["x"], "y": row(2, first=9)["x"]}
    found = decide.compare(one, two, metric)

    def value(df):
        if metric == paper.AUC:
            return roc_auc_score(df["label"], df["score"])
        return ((df["score"] >= 0.5) == df["label"]).mean()

    by_hand = np.mean(
        [[value(a) - value(b) for a, b in zip(one[k], two[k], strict=True)] for k in one]
    )
    assert found.difference == pytest.approx(by_hand, abs=1e-12)
    assert (found.n_people, found.n_videos, found.seeds) == (40, 80, 3)
    assert found.low < found.difference < found.high and found.about == "the method"


def test_one_column_one_seed_and_no_clusters_is_the_paired_test_of_the_videos():
    one, two = scored(2, names=False), scored(1, seed=5, names=False)
    found = decide.compare({"x": [one]}, {"x": [two]})
    right = [((df["score"] >= 0.5) == df["label"]).to_numpy(float) for df in (one, two)]
    difference_n = right[0] - right[1]
    assert found.error == pytest.approx(difference_n.std(ddof=1) / np.sqrt(len(difference_n)))
    assert found.df == 79 and not found.clustered and found.about == "these trainings"


def test_videos_of_one_person_count_as_one():
    one, two = scored(2, people=20), scored(1, people=20, seed=3)
    copies = [
        pd.concat([df, df.assign(video_id=df["video_id"] + "again")], ignore_index=True)
        for df in (one, two)
    ]
    once, twice = (
        decide.compare({"x": [one]}, {"x": [two]}),
        decide.compare({"x": [copies[0]]}, {"x": [copies[1]]}),
    )
    assert (twice.error, twice.df) == pytest.approx((once.error, once.df))
    assert twice.n_videos == 2 * once.n_videos


@pytest.mark.parametrize("seeds", power.SEEDS)
def test_false_alarms_stay_near_five_in_a_hundred_and_intervals_cover(seeds):
    rows = power.accuracies("table4", "intra", "none")
    null = power.studies((rows[0],) * 2, seeds=seeds, spread=0.01, repeats=300, rng=11)
    wrong = (null["p"] < 0.05).mean()
    assert 0.01 <= wrong <= 0.09
    real = power.studies(rows, seeds=seeds, spread=0.01, repeats=300, rng=12)
    truth = np.mean(rows[0]) - np.mean(rows[1])
    assert 0.9 <= ((real["low"] <= truth) & (truth <= real["high"])).mean() <= 0.99
    assert (real["difference"].mean() - truth) == pytest.approx(0, abs=0.002)


def test_three_points_are_found_with_five_seeds_and_one_point_is_not():
    three, one = (
        power.studies(power.accuracies(*what), seeds=5, spread=0.01, repeats=200, rng=3)
        for what in (("table4", "intra", "none"), ("table5", "bp+ca", "bp"))
    )
    assert (three["p"] < 0.05).mean() > 0.75 > 0.4 > (one["p"] < 0.05).mean()
    assert "points" in power.of_the_paper() and "280 videos" in power.of_the_paper()


def test_the_power_table_has_a_line_per_comparison_spread_and_number_of_seeds():
    df = power.table(spreads=(0.01,), repeats=4)
    assert len(df) == len(power.COMPARED) * len(power.SEEDS)
    assert df[["found", "false alarm", "covered"]].stack().between(0, 1).all()


def test_the_simulation_does_what_compare_does_with_files_of_scores():
    """A balanced study gives the same difference, error and degrees of freedom either way."""
    rng = np.random.default_rng(4)
    right = rng.random((2, 3, 30, 2, 2)) < 0.8  # row, seed, person, column, (real, fake)

    def frame(row, seed, column):
        label_n = np.tile([0, 1], 30)
        correct_n = right[row, seed, :, column].reshape(-1)
        names = [f"{column}-{i}" for i in range(60)]
        score_n = np.where(correct_n == (label_n == 1), 0.9, 0.1)
        person = np.repeat(np.arange(30).astype(str), 2)
        return pd.DataFrame(
            {"video_id": names, "label": label_n, "score": score_n, "person": person}
        )

    rows = [{str(k): [frame(r, s, k) for s in range(3)] for k in range(2)} for r in range(2)]
    found = decide.compare(*rows)
    first_sn, second_sn = right.mean((3, 4))
    by_array = Spread.of(first_sn - second_sn)
    assert found.difference == pytest.approx((first_sn - second_sn).mean())
    assert (found.error, found.df) == pytest.approx((by_array.error, by_array.df))


def test_verdicts_are_supported_contradicted_equivalent_or_open():
    good, weak = row(4), row(0.5, first=20)
    same = {"x": [df.assign(score=df["score"] * 0.999) for df in good["x"]]}
    near = row(3.7, people=8, first=40)
    words = [
        d.verdict
        for d in decide.decide(
            [
                decide.compare(good, weak, paper.AUC),
                decide.compare(weak, good, paper.AUC),
                decide.compare(row(4, people=140), {"x": row(4, people=140)["x"]}, paper.AUC),
                decide.compare({"x": row(4, people=8)["x"]}, near),
            ]
        )
    ]
    assert words == [decide.SUPPORTED, decide.CONTRADICTED, decide.EQUIVALENT, decide.OPEN]
    assert decide.compare(good, same, paper.AUC).difference == 0


def test_holm_makes_each_claim_pay_for_the_others():
    one = decide.compare(row(2.2), row(1.5, first=20), paper.AUC)
    assert 1e-4 < one.p < 0.05
    (alone,) = decide.decide([one])
    crowd = decide.decide([one] + [decide.compare(row(1), row(1, first=20))] * 400)
    assert alone.verdict == decide.SUPPORTED and alone.p_holm == alone.p
    assert crowd[0].p_holm == pytest.approx(min(1, 401 * one.p)) and crowd[0].verdict == decide.OPEN
    assert crowd[0].detectable > alone.detectable


def test_a_second_look_costs_as_much_as_the_first():
    one = decide.compare(row(2.2), row(1.0, first=20), paper.AUC)
    assert 1e-4 < one.p < 0.025
    (once,), (twice,) = decide.decide([one]), decide.decide([one], looks=2)
    assert twice.p_holm == pytest.approx(2 * once.p_holm) and twice.detectable > once.detectable
    near = replace(
        one, difference=0.0, p=1.0, error=0.01, df=20.0, spread=None
    )  # 90 %: +-.017, 95 %: +-.021
    (once,), (twice,) = decide.decide([near]), decide.decide([near], looks=2)
    assert (once.verdict, twice.verdict) == (decide.EQUIVALENT, decide.OPEN)


@pytest.mark.parametrize("seen", [(8, 16), (8, 14, 22)])
def test_several_looks_make_no_more_false_alarms_than_one(seen):
    rng, repeats = np.random.default_rng(5), 2000
    alarms = {looks: 0 for looks in (1, len(seen))}
    for _ in range(repeats):  # no difference; 8 seeds, then more; 30 people
        x_sn = rng.normal(size=(22, 30)) + rng.normal(size=30) + rng.normal(size=(22, 1))
        p = min(Spread.of(x_sn[:seeds]).p(x_sn[:seeds].mean()) for seeds in seen)
        for looks in alarms:  # 1: as if nobody had looked before
            alarms[looks] += looks * p < decide.LEVEL
    assert alarms[len(seen)] / repeats < 0.05 < alarms[1] / repeats


def test_against_a_constant_such_as_chance():
    assert decide.decide([decide.compare(row(4), 0.5, paper.AUC)])[0].verdict == decide.SUPPORTED
    chance = decide.compare(row(0, seeds=5), 0.5, paper.AUC)
    assert chance.low < 0 < chance.high and decide.decide([chance])[0].verdict == decide.OPEN


def test_rows_without_any_difference_are_not_certain_on_few_people():
    few, many = (
        decide.decide([decide.compare(row(2, people=n), row(2, people=n))])[0] for n in (8, 140)
    )
    assert few.verdict == decide.OPEN and few.error == pytest.approx(1 / 10)
    assert many.verdict == decide.EQUIVALENT


def test_rows_are_paired_by_video_and_by_the_seeds_that_both_have():
    one, two = row(3, seeds=3), row(1, seeds=5, first=9)
    shuffled = {"x": [df.sample(frac=1, random_state=1) for df in two["x"]]}
    assert decide.compare(one, shuffled).difference == pytest.approx(
        decide.compare(one, two).difference
    )
    assert decide.compare(one, two).seeds == 3
    part = {"x": [df.iloc[:60] for df in two["x"]]}
    assert decide.compare(one, part).n_videos == decide.compare(part, one).n_videos == 60


def test_what_cannot_be_compared_is_said():
    with pytest.raises(RunError, match="no column in common"):
        decide.compare(row(1), {"y": row(1)["x"]})
    strangers = {"x": [df.assign(video_id="other " + df["video_id"]) for df in row(1)["x"]]}
    with pytest.raises(RunError, match="not scored on the same real and fake videos"):
        decide.compare(row(1), strangers)
    with pytest.raises(RunError, match="at least two people"):
        decide.compare(row(1, people=1), row(2, people=1))
