"""The scores behind a published table, found again from the records of its runs: no data, no
weights.

A record is a run's folder (dfil.train.runs) with its scores as Parquet. A table names the runs of
each cell, so its numbers and what compares its rows can be computed again on any machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from scipy.special import expit

from dfil import paper
from dfil.results import metrics
from dfil.results.decide import STATE
from dfil.results.notes import Notes
from dfil.results.scores import ranked
from dfil.system.errors import DataError
from dfil.train.experiments import MECHANISM, CellResult, own_dataset
from dfil.train.spec import select

Place = tuple[str, str]  # row, column
BY_FORGERY = "no-forgery", "additions"  # tables with a column per kind of forgery


def found(df: pd.DataFrame, runs: Path) -> tuple[dict[Place, CellResult], dict[Place, str]]:
    """(results, reasons), both by place, for the filled cells of a table in long form: the scores
    that give its number, and why there are none.

    runs: the folder of the records. A number that the records do not give is a reason, never a
    result.
    """
    results, reasons, there = {}, {}, {}
    for line in df[df["ours"].notna()].to_dict("records"):
        place = line["row"], line["column"]
        videos = videos_of(line["table"], line["column"])
        if videos is None or line["metric"] not in metrics.METRICS:
            reasons[place] = "no per-video scores feed this cell"
            continue
        keys = line["run"].split()
        published = Notes.parse(line["note"]).per_seed or (line["ours"],)
        fitting = []
        for key, value in zip(keys, published, strict=False):
            candidates = _scores(Path(runs) / key, videos)
            fitting.append([df for df in candidates if _gives(df, line, value)])
            if not fitting[-1]:
                what = "gives another number" if candidates else "is not there"
                reasons[place] = f"the record of {key} {what}"
        if all(fitting) and len(fitting) == len(keys) == len(published):
            there[place] = keys, fitting
        else:
            reasons.setdefault(place, "its runs are not named")
    # Where a record holds several states that give the number, the one that most records have.
    states = (df.attrs[STATE] for _, fitting in there.values() for dfs in fitting for df in dfs)
    usual = Counter(states)
    for place, (keys, fitting) in there.items():
        scores = [max(dfs, key=lambda df: usual[df.attrs[STATE]]) for dfs in fitting]
        results[place] = CellResult(scores, keys)
    return results, reasons


def videos_of(table: str, column: str) -> paper.Videos | None:
    """The test videos of a column of a saved table, by its key; None for tables of other kinds."""
    if table == "temporal-only":
        return MECHANISM
    if table in BY_FORGERY:  # "FaceSwap c40" of FaceForensics++, or a dataset
        name, _, compression = column.partition(" ")
        return paper.Videos("ffpp", compression, (name,)) if compression else paper.Videos(column)
    known = paper.table(table) or own_dataset(table, ())
    return next((each.test for each in known.columns if each.key == column), None)


def _gives(scores: pd.DataFrame, line: dict, value: float) -> bool:
    """Whether scores give the published value, of which four digits are kept."""
    if len(scores) != line["n_videos"] or scores["label"].nunique() < 2:
        return False
    measured = metrics.METRICS[line["metric"]](scores["label"], ranked(scores)).value
    return abs(measured - value) < 1e-4


def _scores(run: Path, videos: paper.Videos) -> Sequence[pd.DataFrame]:
    """A run's scores of the test videos that a selection names, one for every state of the data,
    which their `attrs` name, so that rows are compared on one state only (decide.compare)."""
    dataset = videos.dataset.removesuffix("-preview")  # the release is told by the data
    found_ = []
    for path in sorted((run / "scores").glob(f"{dataset}*-test-*.parquet")):
        try:
            df = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            what_now = "take it from git again, or delete it and call dfil study"
            raise DataError(f"{path}: a damaged table of scores ({error}); {what_now}") from error
        df = df.assign(score=expit(df["logit"].to_numpy(float)))
        chosen = select(df, "test", videos.compression, videos.manipulations)
        chosen.attrs[STATE] = path.stem.rpartition("-")[2]
        found_ += [chosen] if len(chosen) else []
    return found_
