"""What compares rows of a table: paired differences, and how far seeds lie apart."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dfil import paper
from dfil.results import decide, metrics
from dfil.results.scores import ranked
from dfil.train.experiments import CellResult

SHOWN = "difference low high p p_holm detectable verdict n_videos n_people seeds about".split()
Results = Mapping[tuple[str, str], CellResult]  # by (row, column)


def scores_of(results: Results, row: str) -> dict[str, list[pd.DataFrame]]:
    """A row's scores by column, one per seed, as `decide.compare` takes them."""
    return {column: list(r.scores) for (name, column), r in results.items() if name == row}


def against(
    results: Results, full: str, metric: str = paper.ACCURACY, looks: int = 1
) -> pd.DataFrame:
    """Every other row compared with the row `full`, pooled over columns: a line per row, positive
    differences where `full` is better.

    See dfil.results.decide; `p (Holm)` allows for the number of lines, and detectable is the
    difference that would be found with 80 % power. looks: as in `decide`. Empty where there is
    nothing to compare.
    """
    ours = scores_of(results, full)
    others = list(dict.fromkeys(row for row, column in results if row != full and column in ours))
    if not others:
        return pd.DataFrame(columns=["row", *SHOWN]).rename(columns={"p_holm": "p (Holm)"})
    pairs = [decide.compare(ours, scores_of(results, row), metric) for row in others]
    found = decide.decide(pairs, looks=looks)
    df = pd.DataFrame([[getattr(each, name) for name in SHOWN] for each in found], columns=SHOWN)
    df.insert(0, "row", others)
    return df.rename(columns={"p_holm": "p (Holm)"})


def seed_spread(results: Results, metric: str = paper.ACCURACY) -> pd.DataFrame:
    """How far seeds lie apart: a line per row of the table, and for each seed the mean of the
    metric over the row's columns. Empty for a single seed."""
    lines: dict[str, list] = {}
    for (row, _), result in results.items():
        measure = metrics.METRICS[metric]
        values = [measure(df["label"], ranked(df)).value for df in result.scores]
        names = [f"seed {seed}" for seed in result.seeds]
        lines.setdefault(row, []).append(pd.Series(values, names))
    means = {row: pd.concat(values, axis=1).mean(axis=1) for row, values in lines.items()}
    found = pd.DataFrame(means).T
    if len(found.columns) < 2:
        return pd.DataFrame()
    spread = found.max(axis=1) - found.min(axis=1)
    return found.assign(mean=found.mean(axis=1), range=spread).rename_axis("row").reset_index()


def run_names(results: Results) -> dict[str, str]:
    """Of the runs behind some results, by key: the row that each feeds, and its seed if several."""
    found = {}
    for (row, _), result in results.items():
        for key, seed in zip(result.runs, result.seeds, strict=True):
            found[key] = f"{row}, seed {seed}" if len(result.seeds) > 1 else row
    return found
