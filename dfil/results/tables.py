"""Result tables in long form: one row per cell with the paper's value beside ours.

A table's way: `experiments.fill` (which runs, whose scores) -> `build` (a number, an interval and a
note per cell) -> `save` (CSV, and Markdown in the paper's arrangement) -> `load`. `pivot` shows one
in a notebook. Tables beyond the paper, made by `grid`, take the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from dfil import paper
from dfil.results import arrange, metrics
from dfil.results.arrange import extent, grid, is_synthetic, layout, metric_text, pivot
from dfil.results.markdown import markdown
from dfil.results.notes import Notes, earlier
from dfil.results.scores import ranked
from dfil.system.errors import DataError, RunError
from dfil.system.files import atomic
from dfil.train.experiments import CellResult

_NUMBERS, _COUNTS = ["paper", "ours", "ci_low", "ci_high"], ["n_videos", "seeds"]
COLUMNS = ["table", "row", "column", "metric", *_NUMBERS, *_COUNTS, "run", "note"]
PLACE = ["row", "column"]
NO_PERSON = "interval over videos, as no person is known"


@dataclass(frozen=True)
class Measured:
    """A cell whose value is no metric of per-video scores: what was measured, by which runs."""

    estimate: metrics.Estimate
    runs: Sequence[str] = ()
    notes: tuple[str, ...] = ()
    seeds: int = 1


def build(
    table: paper.Table,
    results: Mapping[tuple[str, str], CellResult | Measured],
    missing: str | Callable[[paper.Cell], str] = "this profile does not run it",
    *notes: str,
    synthetic: bool,
) -> pd.DataFrame:
    """Long form of a table, one row per cell, columns as in COLUMNS.

    results: by (row name, column key). A method that the paper's table lacks gets a row of its own.
    A cell without a result keeps `ours` empty, and its note is the reason: `missing`, or what it
    returns for the cell. notes: texts for every filled cell. synthetic: whether the results come
    from built-in data, which every filled cell says. With several seeds `ours` is their mean, and
    the note lists each one's value. Intervals are by person where the scores name one, else over
    videos, which the note then says. Raises RunError for results without a cell and for seeds that
    scored different videos, DataError for damaged scores.
    """
    table = table.extended(row for row, _ in results)
    cells = list(table.cells())
    if unknown := set(results) - {(cell.row, cell.column) for cell in cells}:
        what_now = "use a row's name and a column's key of the table"
        raise RunError(f"{table.key} has no cell {sorted(unknown)[0]}: {what_now}")
    lines = []
    for cell in cells:
        line = dict.fromkeys(COLUMNS) | {"table": table.key, "row": cell.row, "column": cell.column}
        line |= {"metric": cell.metric, "paper": cell.value}
        if result := results.get((cell.row, cell.column)):
            line |= _filled(cell, result, Notes((*result.notes, *notes), synthetic))
        else:
            reason = missing(cell) if callable(missing) else missing
            line |= {"run": "", "note": paper.QUOTED if cell.quoted else reason}
        lines.append(line)
    return _typed(pd.DataFrame(lines, columns=COLUMNS))


def _filled(cell: paper.Cell, result: CellResult | Measured, notes: Notes) -> dict:
    if isinstance(result, Measured):
        estimate, seeds = result.estimate, result.seeds
    else:
        where = f"{cell.table}, row {cell.row}, column {cell.column}"
        if cell.metric not in metrics.METRICS:
            known = ", ".join(metrics.METRICS)
            raise RunError(f"{where}: there is no metric {cell.metric!r}, only {known}")
        measure, seeds = metrics.METRICS[cell.metric], len(result.scores)
        videos, scores_sn = _aligned(where, result.scores)
        people = metrics.people(videos)
        try:
            estimate = measure(videos["label"], scores_sn, people)
            single = tuple(measure(videos["label"], score_n).value for score_n in scores_sn)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        texts = notes.texts if people is not None else (*notes.texts, NO_PERSON)
        notes = replace(notes, texts=texts, per_seed=single if seeds > 1 else ())
    return {
        "ours": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "n_videos": estimate.n,
        "seeds": seeds,
        "run": " ".join(result.runs),
        "note": notes.format(),
    }


def _aligned(where: str, scores: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, np.ndarray]:
    """The videos, and their scores (s, n) in the same order for every seed."""
    if not scores:
        raise RunError(f"{where}: a result without scores; leave out a cell that was not run")
    for df in scores:
        if absent := {"video_id", "label", "score"} - set(df.columns):
            raise DataError(f"{where}: the scores lack the columns {sorted(absent)}")
        if twice := df.loc[df["video_id"].duplicated(), "video_id"].tolist():
            raise DataError(f"{where}: video {twice[0]} was scored twice by one model")
    first, *others = by_video = [df.set_index("video_id").sort_index() for df in scores]
    for other in others:
        if not other["label"].equals(first["label"]):
            odd = first.index.symmetric_difference(other.index)
            what = f"video {odd[0]} is missing from one" if len(odd) else "their labels differ"
            differ = f"{where}: the seeds did not score the same videos ({what})"
            raise RunError(f"{differ}: score them again on one test set")
    return first.reset_index(), np.stack([ranked(df) for df in by_video])


def save(df: pd.DataFrame, folder: Path, name: str, title: str, columns=()) -> Path:
    """Write `<folder>/<name>.csv` and `.md`, each atomically; returns the CSV's path.

    A filled cell is never replaced by an empty one (`with_earlier`). columns: where several
    notebooks fill one table, the columns that this one is for; the others stay as the file has
    them.
    """
    if list(df.columns) != COLUMNS:
        raise DataError(f"table {name} cannot be saved: its columns are {', '.join(df.columns)}")
    path = Path(folder) / f"{name}.csv"
    if columns and len(before := _before(path)):
        others = before[~before["column"].isin(columns)].set_index(PLACE, drop=False)
        df = df.set_index(PLACE, drop=False)
        both = pd.concat([others[others.index.isin(df.index)], df])
        df = both[~both.index.duplicated()].loc[df.index].reset_index(drop=True)
    df = with_earlier(df, path)
    write_text(path, df.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_text(path.with_suffix(".md"), markdown(df, title))
    return path


def with_earlier(
    df: pd.DataFrame, path: Path, keys: Mapping[tuple[str, str], Sequence[str]] | None = None
) -> pd.DataFrame:
    """df with the filled lines of the table at `path`, if there is one, in place of its empty ones.

    What is taken says so in its note: by a run of `keys` (by place the runs that would fill it
    today) with the same data and settings, else perhaps with others, and why this call has no
    number. Rows and columns that df lacks are taken too.
    """
    before, keys = _before(Path(path)), keys or {}
    reason = df[df["ours"].isna()].set_index(PLACE)["note"]
    for number, line in before[before["ours"].notna()].iterrows():
        place = line["row"], line["column"]
        same = not set(line["run"].split()).isdisjoint(keys.get(place, ()))
        said = earlier(reason.get(place, "no such cell"), same)
        before.loc[number, "note"] = replace(Notes.parse(line["note"]), earlier=said).format()
    filled = before["ours"].notna()
    other_form = set(before["column"]) != set(df["column"]) and df["ours"].isna().all()
    if other_form or not filled.any():
        return before if filled.any() else df
    return _typed(arrange.joined(arrange.filled_up(df, before[filled]), before))


def load(folder: Path) -> dict[str, pd.DataFrame]:
    """Every table of a folder by name, such as `table1`; {} for an empty or absent folder.

    Raises DataError for a damaged file.
    """
    return {path.stem: load_file(path) for path in sorted(Path(folder).glob("*.csv"))}


def load_file(path: Path) -> pd.DataFrame:
    """One saved table in long form. Raises DataError if the file is damaged."""
    try:
        df = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(df.columns) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(df.columns)}")
        if df.empty or df.duplicated(PLACE).any():
            raise ValueError("it is empty or has a cell twice")
        return _typed(df.replace({name: {"": None} for name in _COUNTS + _NUMBERS}))
    except (ValueError, OSError) as error:
        what_now = "delete it and run the notebook that writes it again"
        raise DataError(f"{path} is not a result table ({error}): {what_now}") from error


def _before(path: Path) -> pd.DataFrame:
    """The table that stands at `path`; without lines if there is none, or if it is damaged: then it
    is put aside under another name, so that it can be made again."""
    if path.is_file():
        try:
            return load_file(path)
        except DataError as error:
            aside = path.replace(path.with_name(f"{path.name}.damaged"))
            print(f"{error}. It is now called {aside.name} and made anew.")
    return _typed(pd.DataFrame(columns=COLUMNS))


def _typed(df: pd.DataFrame) -> pd.DataFrame:
    numbers = {name: pd.to_numeric(df[name]) for name in _COUNTS + _NUMBERS}
    types = {name: "object" for name in COLUMNS}
    types |= dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_COUNTS, "Int64")
    return df.assign(**numbers).astype(types)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part."""
    with atomic(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def title_of(folder: Path, name: str) -> str:
    """The title a table was saved under (in its Markdown), else the paper's, or its name."""
    path = Path(folder) / f"{name}.md"
    if path.exists():
        return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").strip() or name
    known = paper.table(name)
    return known.title if known else name
