"""A table in long form in the paper's arrangement: which rows and columns, and a cell's text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from dfil import paper
from dfil.results.notes import Notes
from dfil.system.errors import DataError

METRIC_TEXT = {
    paper.ACCURACY: "Accuracy at threshold 0.5",
    paper.AUC: "Area under the ROC curve (AUC)",
    "localisation": "Pointing game: share of frames whose highest point lies in the forged mask. "
    "Energy: share of the map's sum that lies there",
}


NO_CELL = "no call has both this row and this column"


def grid(
    key: str, title: str, metric: str, rows: Sequence[str], columns: Sequence[str]
) -> paper.Table:
    """A table beyond the paper; a row named like one of the paper's methods gets its label."""
    known = [paper.TABLES[name] for name in ("table3", "table2", "table1")]
    labels = {row.name: row.label for table in known for row in table.rows}
    empty = (None,) * len(columns)
    table_rows = tuple(paper.Row(name, labels.get(name, name), empty) for name in rows)
    return paper.Table(key, title, "", metric, tuple(map(paper.Column, columns)), table_rows)


def is_synthetic(df: pd.DataFrame) -> bool:
    """Whether any number of ours comes from built-in data."""
    return any(Notes.parse(note).synthetic for note in df.loc[df["ours"].notna(), "note"])


def layout(df: pd.DataFrame) -> paper.Table:
    """The arrangement of a table: the paper's, where it is one of the paper's, else as its rows and
    columns appear. Raises DataError if a cell is missing."""
    key, metric = df["table"].iloc[0], df["metric"].iloc[0]
    rows, columns = list(dict.fromkeys(df["row"])), list(dict.fromkeys(df["column"]))
    places = set(zip(df["row"], df["column"], strict=True))
    if known := paper.table(key):
        known = known.extended(rows)
        if places == {(cell.row, cell.column) for cell in known.cells()}:
            return known
    if len(places) != len(rows) * len(columns):
        lines = f"{len(rows)} rows and {len(columns)} columns"
        raise DataError(f"table {key} has {len(places)} cells but {lines}: run its notebook again")
    return grid(key, key, metric, rows, columns)


def pivot(df: pd.DataFrame) -> pd.DataFrame:
    """The table, or some of its cells, in the paper's arrangement for a notebook: `paper | ours
    [low, high]`, without the paper's part where the paper has no such table; a dash where df has no
    such cell, as when some qualities alone were run."""
    rows, columns = (df[name].unique() for name in ("row", "column"))
    every = pd.MultiIndex.from_product([rows, columns], names=["row", "column"])
    df = df.set_index(["row", "column"]).reindex(every).reset_index()
    df[["table", "metric"]] = df[["table", "metric"]].ffill().bfill()
    table, has_paper = layout(df), df["paper"].notna().any()
    cells = {(line["row"], line["column"]): line for line in df.to_dict("records")}

    def text(row: str, column: str) -> str:
        line = cells[row, column]
        return f"{paper_text(line)} | {ours_text(line)}" if has_paper else ours_text(line)

    names = [row.label + " †" * row.dagger for row in table.rows]
    return pd.DataFrame(
        {c.key: [text(row.name, c.key) for row in table.rows] for c in table.columns},
        index=pd.Index(names, name=table.heads[0] if len(table.heads) == 1 else ""),
    )


def metric_text(df: pd.DataFrame) -> str:
    """The metric of a table in words."""
    return METRIC_TEXT.get(df["metric"].iloc[0], df["metric"].iloc[0])


def extent(df: pd.DataFrame) -> str:
    """How many test videos and seeds are behind the cells, or that there are none; of a statistic,
    for which nothing is trained, how many videos."""
    filled = df[df["ours"].notna()]
    if filled.empty:
        return "No cell was run."
    ends = [(filled[name].min(), filled[name].max()) for name in ("n_videos", "seeds")]
    videos, seeds = (str(low) if low == high else f"{low} to {high}" for low, high in ends)
    if not filled["run"].any():
        return f"n = {videos} videos per cell."
    return f"n = {videos} test videos per cell, {seeds} seed{'s (mean)' * (seeds != '1')}."


def paper_text(line: Mapping) -> str:
    """The paper's value of a long-form row as printed, or a dash."""
    return paper.printed(None if pd.isna(line["paper"]) else line["paper"])


def ours_text(line: Mapping) -> str:
    """Our value and interval of a long-form row, `0.857 [0.811, 0.893]`, or a dash."""
    if pd.isna(line["ours"]):
        return "–"
    return f"{line['ours']:.3f} [{line['ci_low']:.3f}, {line['ci_high']:.3f}]"


def filled_up(df: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """A table in long form with those of the `lines` in it whose place has no number there."""
    place = ["row", "column"]
    ours, theirs = df.set_index(place, drop=False), lines.set_index(place, drop=False)
    take = theirs.index.intersection(ours.index[ours["ours"].isna()])
    return pd.concat([ours.drop(take), theirs.loc[take]]).loc[ours.index].reset_index(drop=True)


def joined(df: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """A table in long form with those rows and columns of an `earlier` one that it lacks and in
    which that has a number. A cell that neither has is empty and says so."""
    place, filled = ["row", "column"], earlier[earlier["ours"].notna()]
    names = [list(dict.fromkeys([*df[name], *filled[name]])) for name in place]
    both = pd.concat([df, earlier]).drop_duplicates(place).set_index(place)
    both = both.reindex(pd.MultiIndex.from_product(names, names=place)).reset_index()
    alike = {name: df[name].iloc[0] for name in ("table", "metric")}
    return both.fillna(alike | {"run": "", "note": NO_CELL})[df.columns]
