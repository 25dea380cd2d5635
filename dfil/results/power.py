"""What a test set of so many people and seeds can decide: `dfil.results.decide` on simulated rows.

A video is judged rightly where a latent score is positive. That score has parts of the person (of
opposite sign for the real video and its fakes, as one face moves all their logits alike), of the
video, which all rows and seeds see alike, and of the single judgement; every seed has an accuracy
of its own around the row's. The real videos are the same in all columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm

from dfil import paper
from dfil.results.claims import CLAIMS
from dfil.results.decide import LEVEL, POWER, detectable, of_layout

PERSON, VIDEO = 0.25, 0.4  # shares of the latent variance; the rest is the single judgement's
SEEDS = (1, 3, 5, 8)
ON_FACEFORENSICS = ("table1", "table4", "table5", "table6")  # where the paper prints both rows
COMPARED = [(c.table, c.better, c.than) for c in CLAIMS if c.table in ON_FACEFORENSICS]


def studies(
    rows_rk: Sequence[Sequence[float]], people=140, seeds=1, spread=0.0, repeats=100, rng=0
) -> pd.DataFrame:
    """`repeats` studies of two rows of known accuracies: per study what `Decision` says of it.

    rows_rk: accuracies by row and column. spread: standard deviation of a seed's accuracy around
    the row's; left out for one seed, which speaks of its own training only.
    """
    random, found = np.random.default_rng(rng), []
    accuracy = np.reshape(rows_rk, (2, 1, 1, -1, 1))  # row, seed, person, column, (real, fake)
    for _ in range(repeats):
        own = random.normal(0, spread if seeds > 1 else 0, (2, seeds, 1, 1, 1))
        person_n = random.normal(size=people)
        video_nk2 = random.normal(size=(people, accuracy.shape[3], 2))
        video_nk2[..., 0] = video_nk2[:, :1, 0]
        judgement = random.normal(size=(2, seeds, *video_nk2.shape))
        latent = norm.ppf(np.clip(accuracy + own, 1e-3, 1 - 1e-3)) + np.sqrt(VIDEO) * video_nk2
        latent += np.sqrt(PERSON) * person_n[:, None, None] * np.array([-1, 1])
        latent += np.sqrt(1 - PERSON - VIDEO) * judgement
        first_sn, second_sn = (latent > 0).mean((3, 4))
        one = of_layout(first_sn - second_sn, people)
        least = detectable(one.half(LEVEL), one.error, one.df)
        found.append((one.difference, one.low, one.high, one.error, one.df, one.p, least))
    return pd.DataFrame(found, columns="difference low high error df p detectable".split())


def table(spreads: Sequence[float] = (0.01, 0.02), repeats: int = 100) -> pd.DataFrame:
    """Power for the paper's own differences at 140 people, by the spread and number of seeds.

    found: share of studies that see the difference (p < 5 %, right sign); false alarm: share that
    see one where the second row has the first one's accuracies; covered: share of 95 % intervals
    that hold the true difference; detectable: the mean detectable difference (80 % power, alone).
    """
    lines = []
    for comparison in COMPARED:
        rows = accuracies(*comparison)
        truth = np.mean(rows[0]) - np.mean(rows[1])
        for spread in spreads:
            for seeds in SEEDS:
                real = studies(rows, seeds=seeds, spread=spread, repeats=repeats)
                null = studies((rows[0],) * 2, seeds=seeds, spread=spread, repeats=repeats, rng=1)
                seen = (real["p"] < LEVEL) & (real["difference"] * truth > 0)
                inside = (real["low"] <= truth) & (truth <= real["high"])
                lines.append(
                    (*comparison, truth, spread, seeds, seen.mean(), (null["p"] < LEVEL).mean(),
                     inside.mean(), real["detectable"].mean())
                )  # fmt: skip
    names = "table,better,than,difference,spread,seeds,found,false alarm,covered,detectable"
    return pd.DataFrame(lines, columns=names.split(","))


def accuracies(key: str, better: str, than: str) -> list[list[float]]:
    """The paper's accuracies of two rows, by column."""
    table = paper.TABLES[key]
    values = {row.name: row.values for row in table.rows}
    return [list(values[better]), list(values[than])]


def of_the_paper() -> str:
    """What the paper's own test set and single training a row could have decided, in words."""
    near = accuracies("table4", "intra", "none")
    both = (studies([row[:columns] for row in near]) for columns in (1, 4))
    single, pooled = (each["detectable"].mean() for each in both)
    gains = [np.mean(a) - np.mean(b) for a, b in (accuracies(*each) for each in COMPARED)]
    seen = sum(gain >= pooled for gain in gains)
    return (
        "With the paper's own 280 videos and one training a row, simulated at the accuracies of "
        f"its Table 4, a difference is found with {100 * POWER:.0f} % power from "
        f"{100 * single:.1f} points in one column and from {100 * pooled:.1f} points pooled over "
        f"four; {seen} of the {len(gains)} pooled differences that it prints for these claims are "
        "that large. They speak of those trainings: how far another seed lies, one training "
        "cannot tell."
    )
