"""The law of a mean over seeds and people: against the equation, simulation, and known cases."""

import numpy as np
import pytest
from scipy.stats import chi2, t

from dfil.results.spread import Spread


def layout(seeds, people, of_seeds, rng):
    """No difference: seeds vary by `of_seeds`, people and the rest by one."""
    seed_s1 = rng.normal(0, of_seeds, (seeds, 1))
    return seed_s1 + rng.normal(size=people) + rng.normal(size=(seeds, people))


def test_a_single_seed_is_students_test_of_the_people():
    x_n = np.random.default_rng(0).normal(0.3, 1, 20)
    spread = Spread.of(x_n[None])
    error = x_n.std(ddof=1) / np.sqrt(20)
    assert (spread.error, spread.df) == pytest.approx((error, 19))
    assert spread.p(0.3) == pytest.approx(2 * t.sf(0.3 / error, 19))
    assert spread.half(0.1) == pytest.approx(t.ppf(0.95, 19) * error)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_p_is_the_mean_over_what_the_seeds_mean_square_may_stand_for(seeds):
    rng = np.random.default_rng(seeds)
    x_sn = layout(seeds, 12, 0.7, rng)
    ms_s = sum(12 * (row.mean() - x_sn.mean()) ** 2 for row in x_sn) / (seeds - 1)
    ms_i = sum(seeds * (col.mean() - x_sn.mean()) ** 2 for col in x_sn.T) / 11
    ms_e = 0.0
    for s in range(seeds):
        for i in range(12):
            rest = x_sn[s, i] - x_sn[s].mean() - x_sn[:, i].mean() + x_sn.mean()
            ms_e += rest**2 / ((seeds - 1) * 11)
    found = []
    for q in chi2.rvs(seeds - 1, size=40_000, random_state=rng):
        var = max(ms_s * (seeds - 1) / q + ms_i - ms_e, ms_i, ms_e) / (12 * seeds)
        found.append(2 * t.sf(0.8 / np.sqrt(var), 11))
    spread = Spread.of(x_sn)
    assert spread.p(0.8) == pytest.approx(np.mean(found), abs=4 * np.std(found) / 200)
    assert spread.p(spread.half(0.02)) == pytest.approx(0.02, rel=1e-4)
    assert t.ppf(0.975, spread.df) * spread.error == pytest.approx(spread.half(), rel=1e-4)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_false_alarms_keep_to_the_small_levels_that_many_claims_leave(seeds):
    rng, repeats, level = np.random.default_rng(7), 4000, 0.0025
    spreads = [(x_sn := layout(seeds, 70, 0.6, rng), Spread.of(x_sn)) for _ in range(repeats)]
    alarms = sum(spread.p(x_sn.mean()) < level for x_sn, spread in spreads)
    assert alarms / repeats <= 2 * level  # 10 are expected at most, and 21 in one case of 1,000


def test_seeds_that_agree_wholly_leave_the_people_and_no_difference_at_all_is_not_certain():
    x_n = np.random.default_rng(1).normal(0.3, 1, 30)
    halves = [Spread.of(np.repeat(x_n[None], seeds, 0)).half() for seeds in (2, 3, 8)]
    assert halves == pytest.approx([Spread.of(x_n[None]).half()] * 3, rel=1e-6)
    nothing = Spread.of(np.zeros((3, 8)))
    assert nothing.error == pytest.approx(1 / 10) and nothing.p(0.0) == pytest.approx(1)
