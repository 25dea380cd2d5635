"""From a table to its numbers: which runs feed its cells, trained or found again, and the scores of each cell's test videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dfil import models, paper
from dfil.faces.store import CropStore
from dfil.profiles import Profile
from dfil.results import metrics, tables
from dfil.system.errors import RunError
from dfil.train.runs import Run, RunSpec, RunStore

POOLED = "one model for all manipulations"
STARTED = "begun with the weights of this method's built-in HQ run of Table 1"


def fill(
    table: paper.Table, runs: RunStore, stores: Mapping[str, CropStore], methods: Sequence[str]
) -> tuple[dict[tuple[str, str], tables.CellResult], dict[tuple[str, str], str]]:
    """(results, reasons): results of every cell that can be run, and for every other one why it cannot, both by (row, column).

    stores: crop stores by dataset name, as in paper.Videos; methods: the registry names to run. Whether one model per manipulation or
    one for all of them is trained is the profile's choice.
    """
    reasons = {(cell.row, cell.column): _obstacle(cell, stores, methods) for cell in table.cells()}
    possible = [cell for cell in table.cells() if not reasons[cell.row, cell.column]]
    for dataset, store in stores.items():
        runs.get_all(
            [
                s
                for cell in possible
                if cell.train.dataset == dataset
                for s in specs(cell, runs.profile, store)
            ],
            store,
        )
    results = {}
    for cell in possible:
        store = stores[cell.train.dataset]
        trained = [runs.get(spec, store) for spec in specs(cell, runs.profile, store)]
        scores = [
            select(run.scores(stores[cell.test.dataset], cell.test.compression), cell.test)
            for run in trained
        ]
        pooled = trained[0].spec.manipulations != cell.train.manipulations
        note = _note(trained, POOLED if pooled else "")
        results[cell.row, cell.column] = tables.CellResult(
            scores, [run.key for run in trained], note
        )
    return results, {place: reason for place, reason in reasons.items() if reason}


def with_earlier(
    df: pd.DataFrame,
    path: Path,
    table: paper.Table,
    runs: RunStore,
    stores: Mapping[str, CropStore],
) -> pd.DataFrame:
    """`df` with the rows that an earlier call filled in the table at `path`, `--methods all` for example, where today's data and settings
    would give the same runs."""
    keys = {}
    for cell in table.cells():
        if not _obstacle(cell, stores, models.available()):
            store = stores[cell.train.dataset]
            keys[cell.row, cell.column] = [
                runs.key(spec, store) for spec in specs(cell, runs.profile, store)
            ]
    return tables.with_earlier(df, path, keys)


def methods(profile: Profile, asked: Sequence[str] = (), table: str = "") -> list[str]:
    """The registry names to run: those asked for, all for "all", else the profile's for the table. Raises RunError for an unknown name."""
    asked = [asked] if isinstance(asked, str) and asked else list(asked)
    names = (
        models.available()
        if "all" in asked
        else asked or list(profile.runs(table)) or models.available()
    )
    if unknown := [name for name in names if name not in models.available()]:
        raise RunError(
            f"no method is called {unknown[0]!r}; choose all or some of {', '.join(models.available())}"
        )
    return names


# The mechanism, where a single frame carries no information about the label: row -> (method, distance of a snippet's frames).
TEMPORAL_ONLY = {
    "dil": ("dil", 1),
    "DIL, frames four apart": ("dil", 4),
    "resnet50": ("resnet50", 1),
}


def temporal_only_specs(
    profile: Profile, methods: Sequence[str] = (), seed: int = 0
) -> dict[str, RunSpec]:
    """The runs behind TEMPORAL_ONLY and, by their names, behind whatever further methods are asked for."""
    rows = TEMPORAL_ONLY | {m: (m, 1) for m in methods if m not in TEMPORAL_ONLY}
    videos = "ffpp", "c23", ("Deepfakes",)
    return {
        row: RunSpec.of_table(profile, "temporal-only", method, *videos, stride=stride, seed=seed)
        for row, (method, stride) in rows.items()
    }


def temporal_only(
    runs: RunStore, store: CropStore, methods: Sequence[str] = ()
) -> dict[tuple[str, str], tables.CellResult]:
    """The rows of `temporal_only_specs`, trained with the profile's `mechanism` settings and seeds, as results of the one column
    "Deepfakes c23"."""
    rows = [temporal_only_specs(runs.profile, methods, seed) for seed in runs.profile.seeds]
    runs.get_all([spec for each in rows for spec in each.values()], store)
    results = {}
    for row in rows[0]:
        trained = [runs.get(each[row], store) for each in rows]
        scores = [run.scores(store, "c23") for run in trained]
        results[row, "Deepfakes c23"] = tables.CellResult(
            scores, [run.key for run in trained], _note(trained, "")
        )
    return results


def temporal_only_keys(runs: RunStore, store: CropStore) -> dict[tuple[str, str], list[str]]:
    """Of every row that temporal_only could have, all methods asked for: the keys of its runs, one per seed."""
    every = models.available()
    rows = [temporal_only_specs(runs.profile, every, seed) for seed in runs.profile.seeds]
    return {
        (row, "Deepfakes c23"): [runs.key(each[row], store) for each in rows] for row in rows[0]
    }


def specs(cell: paper.Cell, profile: Profile, store: CropStore) -> list[RunSpec]:
    """The runs behind a cell, one per seed of the profile."""
    videos = cell.train
    if profile.per_manipulation or not videos.manipulations:
        manipulations = videos.manipulations
    else:
        manipulations = tuple(
            m for m in paper.ALL_MANIPULATIONS if _has(store, videos.compression, m)
        )
    return [
        RunSpec.of_table(
            profile,
            cell.table,
            cell.method,
            videos.dataset,
            videos.compression,
            manipulations,
            switches=cell.switches,
            seed=seed,
        )
        for seed in profile.seeds_for(cell.table)
    ]


def select(scores: pd.DataFrame, videos: paper.Videos) -> pd.DataFrame:
    """The rows of a scores table that a selection of videos names: all reals, and the fakes of its manipulations."""
    chosen = scores["label"] == 0
    chosen |= scores["manipulation"].isin(videos.manipulations) if videos.manipulations else True
    return scores[chosen]


def _obstacle(cell: paper.Cell, stores: Mapping[str, CropStore], methods: Sequence[str]) -> str:
    """Why a cell cannot be run; empty if it can."""
    if cell.quoted:
        return tables.QUOTED
    if cell.method not in models.available():
        return "this method is not part of the package yet"
    if cell.method not in methods:
        return "left out of this run"
    for videos in (cell.train, cell.test):
        if videos.dataset not in stores:
            return f"{videos.dataset} is not there"
        for manipulation in videos.manipulations:
            if not _has(stores[videos.dataset], videos.compression, manipulation):
                return f"the tree has no {' '.join(filter(None, (videos.compression, manipulation)))} videos"
    return ""


def _note(trained: Sequence[Run], text: str) -> str:
    """`text`, the seeds, and what sets these runs apart from those of other methods or tables: where their weights began, a learning
    rate of their own."""
    run, numbers = trained[0], [str(run.spec.seed) for run in trained]
    seeds = f"seed {numbers[0]}" if len(numbers) == 1 else f"seeds {', '.join(numbers)}"
    rate = f"learning rate {run.spec.training.lr:g}" if run.spec.method in run.profile.rates else ""
    return "; ".join(filter(None, (text, seeds, STARTED if run.spec.start else "", rate)))


def _has(store: CropStore, compression: str, manipulation: str) -> bool:
    rows = store.index[store.index["status"] == "ok"]
    rows = rows[rows["compression"] == compression] if compression else rows
    return (rows["manipulation"] == manipulation).any() and (rows["label"] == 0).any()


def paired(
    results: Mapping[tuple[str, str], tables.CellResult], first: str, second: str
) -> pd.DataFrame:
    """McNemar's exact test of two rows on each column that both have (first seed): one row per column with n, the accuracies'
    difference, how many videos only one of the two gets right, and the p-value. Several columns are several tests."""
    lines = []
    for row, column in results:
        if row == first and (second, column) in results:
            one, two = (
                results[name, column].scores[0].set_index("video_id") for name in (first, second)
            )
            two = two.loc[one.index]
            test = metrics.mcnemar(one["label"], one["score"], two["score"])
            lines.append({"column": column, "n": test.n, "difference": test.difference, f"only {first} right": test.only_first,
                          f"only {second} right": test.only_second, "p": test.p_value})  # fmt: skip
    return pd.DataFrame(lines)


def run_names(
    results: Mapping[tuple[str, str], tables.CellResult], profile: Profile
) -> dict[str, str]:
    """Of the runs behind some results, by key: the row that each feeds, and its seed where there are several."""
    several = len(profile.seeds) > 1
    return {
        key: f"{row}, seed {seed}" if several else row
        for (row, _), result in results.items()
        for key, seed in zip(result.runs, profile.seeds, strict=True)
    }


def seed_spread(
    results: Mapping[tuple[str, str], tables.CellResult],
    profile: Profile,
    metric: str = paper.ACCURACY,
) -> pd.DataFrame:
    """How far seeds lie apart: a line per row of the table, and for each seed the mean of the metric over the row's columns, between the
    lowest and the highest of which differences between rows decide nothing. Empty for a single seed."""
    if len(profile.seeds) < 2:
        return pd.DataFrame()
    lines: dict[str, list] = {}
    for (row, _), result in results.items():
        lines.setdefault(row, []).append(
            [tables.METRICS[metric](df["label"], df["score"]).value for df in result.scores]
        )
    means = {row: np.mean(values, 0) for row, values in lines.items()}
    found = pd.DataFrame(means, index=[f"seed {seed}" for seed in profile.seeds]).T
    return (
        found.assign(mean=found.mean(axis=1), range=found.max(axis=1) - found.min(axis=1))
        .rename_axis("row")
        .reset_index()
    )


def against(results: Mapping[tuple[str, str], tables.CellResult], full: str) -> pd.DataFrame:
    """`paired` of every other row with the row `full`, one line per row and column, positive differences where `full` is better.

    `p (Holm)` allows for the number of lines. Below 0.05 this many videos carry the difference; above, they do not, which is no proof
    that there is none. Empty where there is nothing to compare.
    """
    names = {f"only {full} right": "only full right"}
    tests = {
        row: paired(results, full, row)
        for row in dict.fromkeys(row for row, _ in results if row != full)
    }
    lines = [
        test.rename(columns=names | {f"only {row} right": "only row right"}).assign(row=row)
        for row, test in tests.items()
        if len(test)
    ]
    if not lines:
        return pd.DataFrame()
    found = pd.concat(lines, ignore_index=True)
    return found[["row", *(name for name in found if name != "row")]].assign(
        **{"p (Holm)": metrics.holm(found["p"])}
    )
