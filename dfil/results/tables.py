"""Result tables in long form, one row per cell with the paper's value beside ours, and their renderings in the paper's arrangement.

A table goes through `build` (scores -> long form), `save` (CSV and Markdown) and `load`; `pivot` shows one in a notebook.
The paper's tables and tables beyond the paper (made by `grid`) take the same way.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from dfil import paper
from dfil.results import metrics
from dfil.system.errors import DataError, RunError
from dfil.system.files import atomic

COLUMNS = [
    "table",
    "row",
    "column",
    "metric",
    "paper",
    "ours",
    "ci_low",
    "ci_high",
    "n_videos",
    "seeds",
    "run",
    "note",
]
SYNTHETIC = "synthetic data"
EARLIER = "found by an earlier call, with the same data and settings"
QUOTED = "quoted by the paper from another publication"

_TEXT, _COUNTS, _NUMBERS = (
    ["table", "row", "column", "metric", "run", "note"],
    ["n_videos", "seeds"],
    ["paper", "ours", "ci_low", "ci_high"],
)
METRICS = {paper.ACCURACY: metrics.accuracy, paper.AUC: metrics.auc}
_METRIC_TEXT = {
    paper.ACCURACY: "Accuracy at threshold 0.5",
    paper.AUC: "Area under the ROC curve (AUC)",
    "localisation": "Share of frames whose peak, or share of the map's sum, lies in the forged mask",
}
_PER_SEED = "per seed "


@dataclass(frozen=True)
class CellResult:
    """What feeds one cell: per-video scores of each seed (columns video_id, label, score), the keys of the runs, and a note.

    `score` is the probability of fake, `label` 1 for fake. Every seed must have scored the same videos.
    """

    scores: Sequence[pd.DataFrame]
    runs: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Measured:
    """A cell whose value is no metric of per-video scores: what was measured, with its interval over n videos, and the runs' keys."""

    estimate: metrics.Estimate
    runs: Sequence[str] = ()
    note: str = ""
    seeds: int = 1


@dataclass(frozen=True)
class Footnote:
    """A note on a part of a table: on whole rows, on whole columns, and on single cells (row, column)."""

    mark: str
    text: str
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    cells: list[tuple[str, str]] = field(default_factory=list)


def grid(
    key: str,
    title: str,
    metric: str,
    rows: Sequence[str],
    columns: Sequence[str],
    caption: str = "",
) -> paper.Table:
    """A table beyond the paper, without paper values. A row named like one of the paper's methods gets its label, others their name."""
    labels = {
        row.name: row.label
        for table in ("table3", "table2", "table1")
        for row in paper.TABLES[table].rows
    }
    empty = (None,) * len(columns)
    table_rows = tuple(paper.Row(name, labels.get(name, name), empty) for name in rows)
    return paper.Table(key, title, caption, metric, tuple(map(paper.Column, columns)), table_rows)


def build(
    table: paper.Table,
    results: Mapping[tuple[str, str], CellResult | Measured],
    missing: str | Callable[[paper.Cell], str] = "this profile does not run it",
    *,
    synthetic: bool,
    extra_note: str = "",
) -> pd.DataFrame:
    """Long form of a table, one row per cell, columns as in COLUMNS.

    results: by (row name, column key); a cell without a result keeps `ours` empty and its note says why: `missing` or what it
    returns for the cell, or QUOTED for a row that the paper itself only quotes.
    synthetic: whether the results come from built-in data; every filled cell's note then says so.
    Several seeds: `ours` is their mean, the interval is at n test videos (see dfil.results.metrics), and the note lists the value of each seed.
    Raises RunError for results that the table has no cell for and for seeds that scored different videos, DataError for damaged scores.
    """
    cells = list(table.cells())
    unknown = set(results) - {(cell.row, cell.column) for cell in cells}
    if unknown:
        raise RunError(
            f"{table.key} has no cell {sorted(unknown)[0]}: use a row's name and a column's key of the table"
        )
    lines = []
    for cell in cells:
        line = dict.fromkeys(COLUMNS) | {
            "table": table.key,
            "row": cell.row,
            "column": cell.column,
            "metric": cell.metric,
            "paper": cell.value,
        }
        result = results.get((cell.row, cell.column))
        if result is None:
            reason = QUOTED if cell.quoted else missing(cell) if callable(missing) else missing
            line |= {"run": "", "note": reason}
        else:
            line |= _filled(cell, result, [SYNTHETIC if synthetic else "", result.note, extra_note])
        lines.append(line)
    return _typed(pd.DataFrame(lines, columns=COLUMNS))


def save(
    df: pd.DataFrame, folder: Path, name: str, title: str, columns: Sequence[str] = ()
) -> Path:
    """Write `<folder>/<name>.csv` and `<folder>/<name>.md`, each atomically, and return the CSV's path.

    columns: where several notebooks fill one table, the columns that this one is for; the others are kept as the file has them.
    """
    if list(df.columns) != COLUMNS:
        raise DataError(
            f"table {name} cannot be saved: its columns are {list(df.columns)}, not {COLUMNS}"
        )
    folder = Path(folder)
    if columns and (folder / f"{name}.csv").is_file():
        df = _kept(df, load_file(folder / f"{name}.csv"), columns)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(
        folder / f"{name}.csv", df.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    )
    write_text(folder / f"{name}.md", markdown(df, title))
    return folder / f"{name}.csv"


def load(folder: Path) -> dict[str, pd.DataFrame]:
    """Every table of a folder by name, for example `table1`. An empty or absent folder gives {}; DataError for a damaged file."""
    return {path.stem: load_file(path) for path in sorted(Path(folder).glob("*.csv"))}


def load_file(path: Path) -> pd.DataFrame:
    """One saved table in long form. Raises DataError if the file cannot be read or lacks a column."""
    try:
        df = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(df.columns) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(df.columns)}")
        if df.empty or df.duplicated(["row", "column"]).any():
            raise ValueError("it is empty or has a cell twice")
        return _typed(df.replace({name: {"": None} for name in _COUNTS + _NUMBERS}))
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} is not a result table ({error}): delete it and run the notebook that writes it again"
        ) from error


def title_of(folder: Path, name: str) -> str:
    """The title a table was saved under: the first line of its Markdown file, else the paper's title, else its name."""
    path = Path(folder) / f"{name}.md"
    if path.exists():
        return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").strip() or name
    return paper.TABLES[name].title if name in paper.TABLES else name


def is_synthetic(df: pd.DataFrame) -> bool:
    """Whether any number of ours comes from built-in data."""
    return bool(df.loc[df["ours"].notna(), "note"].str.contains("synthetic").any())


def pivot(df: pd.DataFrame) -> pd.DataFrame:
    """The table in the paper's arrangement for a notebook: `paper | ours [low, high]`, without the paper's part where it has no table."""
    table, has_paper = layout(df), df["paper"].notna().any()
    cells = {(line["row"], line["column"]): line for line in df.to_dict("records")}

    def text(row: str, column: str) -> str:
        line = cells[row, column]
        return f"{paper_text(line)} | {ours_text(line)}" if has_paper else ours_text(line)

    index = pd.Index(
        [row.label + (" †" if row.dagger else "") for row in table.rows],
        name=table.heads[0] if len(table.heads) == 1 else "",
    )
    return pd.DataFrame(
        {
            column.key: [text(row.name, column.key) for row in table.rows]
            for column in table.columns
        },
        index=index,
    )


def markdown(df: pd.DataFrame, title: str, *, only_run: bool = False, level: int = 1) -> str:
    """The table as Markdown that looks like the paper's: in each cell the paper's value and, below it, ours with its interval.

    only_run leaves out the rows that were not run (for the README). level is the depth of the heading.
    """
    table, run = layout(df), set(df.loc[df["ours"].notna(), "row"])
    df = df[df["row"].isin(run)] if only_run else df
    notes, cells = (
        footnotes(df),
        {(line["row"], line["column"]): line for line in df.to_dict("records")},
    )
    rows = [row for row in table.rows if row.name in run] if only_run else table.rows
    has_paper = df["paper"].notna().any()

    def text(row: paper.Row, column: str) -> str:
        line = cells[row.name, column]
        theirs = f"**{paper_text(line)}**" if column in row.bold else paper_text(line)
        ours = ours_text(line) + _sup(marks(notes, cell=(row.name, column)))
        if not has_paper:
            return ours
        return f"{theirs}<br>{ours}" if row.name in run else theirs

    def lead(row: paper.Row) -> list[str]:
        heads = list(row.heads or (row.label,))
        heads[0] += (" †" if row.dagger else "") + _sup(marks(notes, row=row.name))
        return heads

    header = [
        *table.heads,
        *(column.key + _sup(marks(notes, column=column.key)) for column in table.columns),
    ]
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(table.heads) + " :---: |" * len(table.columns),
    ]
    lines += [
        "| " + " | ".join([*lead(row), *(text(row, column.key) for column in table.columns)]) + " |"
        for row in rows
    ]
    if is_synthetic(df) and "synthetic" not in title.lower():
        title += f" ({SYNTHETIC})"
    shown = "the paper's value and, below it where the row was run, ours" if has_paper else "ours"
    reading = f"{metric_text(df)}: {shown} with its 95 % interval. {extent(df)}"
    parts = ["#" * level + " " + title, table.caption, reading, "\n".join(lines)]
    parts.append(
        "\n".join(
            f"-{_sup(mark)} {text}" for mark, text in notes_text(df, table, notes, brief=only_run)
        )
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def layout(df: pd.DataFrame) -> paper.Table:
    """The arrangement of a long-form table: the paper's where df is a table of the paper, else rows and columns as they appear."""
    key, metric = df["table"].iloc[0], df["metric"].iloc[0]
    known = paper.TABLES.get(key)
    places = set(zip(df["row"], df["column"], strict=True))
    if known is not None and places == {(cell.row, cell.column) for cell in known.cells()}:
        return known
    rows, columns = list(dict.fromkeys(df["row"])), list(dict.fromkeys(df["column"]))
    if len(places) != len(rows) * len(columns):
        raise DataError(
            f"table {key} has {len(places)} cells but {len(rows)} rows and {len(columns)} columns: run its notebook again"
        )
    return grid(key, key, metric, rows, columns)


def footnotes(df: pd.DataFrame) -> tuple[list[str], list[Footnote]]:
    """Notes that hold for every filled cell (or for every cell, when none is filled), and the others with their places, marked a, b, ...

    Notes of filled cells are split at "; ", and their values per seed are left to the cells.
    """
    rows, columns = list(dict.fromkeys(df["row"])), list(dict.fromkeys(df["column"]))
    places: dict[str, set[tuple[str, str]]] = {}
    for line in df.to_dict("records"):
        # A reason for an empty cell is one sentence; a filled cell's note is a list.
        for text in [line["note"]] if pd.isna(line["ours"]) else line["note"].split("; "):
            if text and not text.startswith(_PER_SEED):
                places.setdefault(text, set()).add((line["row"], line["column"]))
    filled = df[df["ours"].notna()]
    everywhere = set(zip(filled["row"], filled["column"], strict=True)) or {
        (row, column) for row in rows for column in columns
    }
    general = [text for text, cells in places.items() if cells == everywhere]
    special = []
    for text, cells in places.items():
        if text in general:
            continue
        whole_rows = [row for row in rows if all((row, column) in cells for column in columns)]
        others = [row for row in rows if row not in whole_rows]
        whole_columns = [
            column for column in columns if others and all((row, column) in cells for row in others)
        ]
        single = [
            (row, column)
            for row in others
            for column in columns
            if column not in whole_columns and (row, column) in cells
        ]
        special.append(Footnote(_mark(len(special)), text, whole_rows, whole_columns, single))
    return general, special


def marks(
    notes: tuple[list[str], list[Footnote]],
    row: str = "",
    column: str = "",
    cell: tuple[str, str] = ("", ""),
) -> str:
    """The footnote marks that belong at a row's label, at a column's heading, or at a cell, as in `a, c`."""
    return ", ".join(
        note.mark
        for note in notes[1]
        if row in note.rows or column in note.columns or cell in note.cells
    )


def notes_text(
    df: pd.DataFrame,
    table: paper.Table,
    notes: tuple[list[str], list[Footnote]],
    brief: bool = False,
) -> list[tuple[str, str]]:
    """Every sentence that goes under a table, as (mark or "", text): general notes, marked ones and, unless brief, those on the paper."""
    general, special = notes
    texts = (
        [("", f"{'Ours' if df['ours'].notna().any() else 'Not run'}: {'; '.join(general)}.")]
        if general
        else []
    )
    texts += [
        (note.mark, f"{'' if _speaks_of_filled(note, df) else 'not run: '}{note.text}.")
        for note in special
    ]
    if any(row.dagger for row in table.rows):
        texts.append(
            ("", "† re-implemented by the paper's authors. Best value of the paper in bold.")
        )
    elif any(row.bold for row in table.rows):
        texts.append(("", "Best value of the paper in bold."))
    return texts + ([] if brief else [("", note) for note in table.notes])


def metric_text(df: pd.DataFrame) -> str:
    """The metric of a table in words."""
    return _METRIC_TEXT.get(df["metric"].iloc[0], df["metric"].iloc[0])


def extent(df: pd.DataFrame) -> str:
    """How many test videos and seeds are behind the cells, or that there are none."""
    filled = df[df["ours"].notna()]
    if filled.empty:
        return "No cell was run."
    videos, seeds = (_range(filled[name]) for name in _COUNTS)
    return (
        f"n = {videos} test videos per cell, {seeds} {'seed' if seeds == '1' else 'seeds (mean)'}."
    )


def paper_text(line: Mapping) -> str:
    """The paper's value of a long-form row as printed, or a dash."""
    return paper.printed(None if pd.isna(line["paper"]) else line["paper"])


def ours_text(line: Mapping) -> str:
    """Our value and interval of a long-form row, `0.857 [0.811, 0.893]`, or a dash."""
    return (
        "–"
        if pd.isna(line["ours"])
        else f"{line['ours']:.3f} [{line['ci_low']:.3f}, {line['ci_high']:.3f}]"
    )


def per_seed(line: Mapping) -> list[float]:
    """The value of each seed of a long-form row; empty for a single seed."""
    found = [
        text.removeprefix(_PER_SEED)
        for text in line["note"].split("; ")
        if text.startswith(_PER_SEED)
    ]
    return [float(value) for value in found[0].split()] if found else []


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part."""
    with atomic(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _filled(cell: paper.Cell, result: CellResult | Measured, notes: list[str]) -> dict:
    if isinstance(result, Measured):
        return _line(result.estimate, result.seeds, result.runs, notes)
    where = f"{cell.table}, row {cell.row}, column {cell.column}"
    if cell.metric not in METRICS:
        raise RunError(f"{where}: there is no metric {cell.metric!r}, only {', '.join(METRICS)}")
    labels_n, scores_sn = _aligned(where, result.scores)
    try:
        estimate = METRICS[cell.metric](labels_n, scores_sn)
        single = [METRICS[cell.metric](labels_n, scores_n).value for scores_n in scores_sn]
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if len(single) > 1:
        notes = [*notes, _PER_SEED + " ".join(f"{value:.4f}" for value in single)]
    return _line(estimate, len(single), result.runs, notes)


def _line(
    estimate: metrics.Estimate, seeds: int, runs: Sequence[str], notes: Sequence[str]
) -> dict:
    return {
        "ours": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "n_videos": estimate.n,
        "seeds": seeds,
        "run": " ".join(runs),
        "note": "; ".join(note for note in notes if note),
    }


def _aligned(where: str, scores: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """labels (n,) and scores (s, n) over the same videos in the same order."""
    if not scores:
        raise RunError(
            f"{where}: a result without scores; leave the cell out of the results if it was not run"
        )
    for df in scores:
        if absent := {"video_id", "label", "score"} - set(df.columns):
            raise DataError(f"{where}: the scores lack the columns {sorted(absent)}")
        if df["video_id"].duplicated().any():
            raise DataError(
                f"{where}: video {df.loc[df['video_id'].duplicated(), 'video_id'].iloc[0]} was scored twice by one model"
            )
    by_video = [df.set_index("video_id").sort_index() for df in scores]
    for other in by_video[1:]:
        if not other["label"].equals(by_video[0]["label"]):
            differing = by_video[0].index.symmetric_difference(other.index)
            what = (
                f"video {differing[0]} is missing from one"
                if len(differing)
                else "their labels differ"
            )
            raise RunError(
                f"{where}: the seeds did not score the same videos ({what}): score them again on one test set"
            )
    return by_video[0]["label"].to_numpy(), np.stack(
        [df["score"].to_numpy(dtype=np.float64) for df in by_video]
    )


def _kept(df: pd.DataFrame, before: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """df with the lines of `before` in all columns but the named ones; df itself where the two have not the same cells."""
    ours, theirs = (frame.set_index(["row", "column"], drop=False) for frame in (df, before))
    if set(ours.index) != set(theirs.index):
        return df
    kept = theirs[~theirs["column"].isin(columns)]
    return (
        pd.concat([ours[ours["column"].isin(columns)], kept]).loc[ours.index].reset_index(drop=True)
    )


def with_earlier(
    df: pd.DataFrame, path: Path, runs: Mapping[tuple[str, str], Sequence[str]]
) -> pd.DataFrame:
    """df with the lines that the table at `path`, if there is one, has in place of empty ones, as far as they are of these very runs.

    runs: by (row, column) the keys of the runs that would fill the cell by now, one per seed; a line of one of these runs, and perhaps of
    further seeds, is taken. A line of other runs (other data, other settings) is not. What is taken says so in its note.
    """
    if not Path(path).is_file():
        return df
    ours, theirs = (
        frame.set_index(["row", "column"], drop=False) for frame in (df, load_file(path))
    )
    valid = [
        not set(keys.split()).isdisjoint(runs.get(place, ()))
        for place, keys in theirs["run"].items()
    ]
    same = np.array(valid, bool) & theirs.index.isin(ours.index[ours["ours"].isna()])
    said = theirs["note"].str.contains(EARLIER, regex=False)
    theirs = theirs.assign(note=theirs["note"].where(said, theirs["note"] + "; " + EARLIER))
    return _typed(
        pd.concat([ours[~ours.index.isin(theirs.index[same])], theirs[same]])
        .loc[ours.index]
        .reset_index(drop=True)
    )


def _typed(df: pd.DataFrame) -> pd.DataFrame:
    types = dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_COUNTS, "Int64")
    counts = {name: pd.to_numeric(df[name]) for name in _COUNTS}
    return df.assign(**counts).astype(types | dict.fromkeys(_TEXT, "object"))


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"


def _speaks_of_filled(note: Footnote, df: pd.DataFrame) -> bool:
    filled = df.loc[df["ours"].notna(), ["row", "column"]].itertuples(index=False, name=None)
    return any(
        row in note.rows or column in note.columns or (row, column) in note.cells
        for row, column in filled
    )


def _mark(index: int) -> str:
    letters = string.ascii_lowercase
    return letters[index] if index < 26 else letters[index // 26 - 1] + letters[index % 26]


def _sup(text: str) -> str:
    return f" <sup>{text}</sup>" if text else ""
