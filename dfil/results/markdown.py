"""A result table as Markdown that looks like the paper's, with its notes as footnotes."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dfil import paper
from dfil.results import arrange
from dfil.results.notes import SYNTHETIC, Notes


@dataclass(frozen=True)
class Footnote:
    """A note on a part of a table: on whole rows, on whole columns, and on single cells."""

    mark: str
    text: str
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    cells: Sequence[tuple[str, str]] = ()

    def is_at(self, row: str = "", column: str = "") -> bool:
        """Whether its mark belongs at a row's label, a column's heading, or a cell (both given)."""
        if row and column:
            return (row, column) in self.cells
        return row in self.rows or column in self.columns


@dataclass(frozen=True)
class Footnotes:
    """general: what holds for every filled cell, or for every cell where none is filled."""

    general: list[str]
    special: list[Footnote]

    def marks(self, row: str = "", column: str = "") -> str:
        """The marks, as in `a, c`, at a row's label, a column's heading, or a cell (both given)."""
        return ", ".join(note.mark for note in self.special if note.is_at(row, column))


def footnotes(df: pd.DataFrame) -> Footnotes:
    """A long-form table's notes, each once, at the largest parts of the table for which it holds.
    Of a row that is filled in part, its filled cells are all that counts.

    The values per seed are left to the cells.
    """
    rows, columns = list(dict.fromkeys(df["row"])), list(dict.fromkeys(df["column"]))
    places: dict[str, set[tuple[str, str]]] = {}
    filled = set()
    for line in df.to_dict("records"):
        place, is_empty = (line["row"], line["column"]), pd.isna(line["ours"])
        filled |= set() if is_empty else {place}
        texts = [line["note"]] if is_empty else Notes.parse(line["note"]).footnotes
        for text in filter(None, texts):
            places.setdefault(text, set()).add(place)
    everywhere = filled or {(row, column) for row in rows for column in columns}
    filled_in = {row: [c for c in columns if (row, c) in filled] for row in rows}
    special = []
    for text, cells in places.items():
        if cells == everywhere:
            continue
        whole = [r for r in rows if all((r, c) in cells for c in filled_in[r] or columns)]
        others = [row for row in rows if row not in whole]
        over = [c for c in columns if others and all((row, c) in cells for row in others)]
        single = [(r, c) for r in others for c in columns if c not in over and (r, c) in cells]
        special.append(Footnote(_mark(len(special)), text, whole, over, single))
    return Footnotes([text for text, cells in places.items() if cells == everywhere], special)


def sentences(
    df: pd.DataFrame, table: paper.Table, notes: Footnotes, brief: bool = False
) -> list[tuple[str, str]]:
    """All that goes under a table, as (mark or "", text); brief: not what is said of the paper."""
    filled = df[df["ours"].notna()]
    places, texts = set(zip(filled["row"], filled["column"], strict=True)), []
    if notes.general:
        texts.append(("", f"{'Ours' if places else 'Not run'}: {'; '.join(notes.general)}."))
    for note in notes.special:
        speaks_of_ours = any(
            note.is_at(row) or note.is_at("", column) or note.is_at(row, column)
            for row, column in places
        )
        texts.append((note.mark, f"{'' if speaks_of_ours else 'not run: '}{note.text}."))
    daggers = "† re-implemented by the paper's authors. " * any(row.dagger for row in table.rows)
    if daggers or any(row.bold for row in table.rows):
        texts.append(("", f"{daggers}Best value of the paper in bold."))
    return texts + ([] if brief else [("", note) for note in table.notes])


def markdown(df: pd.DataFrame, title: str, *, only_run: bool = False, level: int = 1) -> str:
    """The table as Markdown: in each cell the paper's value and, below it, ours with its interval.

    only_run leaves out the rows that were not run. level is the depth of the heading.
    """
    table, run = arrange.layout(df), set(df.loc[df["ours"].notna(), "row"])
    df = df[df["row"].isin(run)] if only_run else df
    notes, has_paper = footnotes(df), df["paper"].notna().any()
    cells = {(line["row"], line["column"]): line for line in df.to_dict("records")}

    def text(row: paper.Row, column: str) -> str:
        line = cells[row.name, column]
        theirs = arrange.paper_text(line)
        theirs = f"**{theirs}**" if column in row.bold else theirs
        ours = arrange.ours_text(line) + _sup(notes.marks(row.name, column))
        if not has_paper:
            return ours
        return f"{theirs}<br>{ours}" if row.name in run else theirs

    def line_of(row: paper.Row) -> list[str]:
        first, *heads = row.heads or (row.label,)
        first += " †" * row.dagger + _sup(notes.marks(row.name))
        return [first, *heads, *(text(row, column.key) for column in table.columns)]

    names = [column.key + _sup(notes.marks("", column.key)) for column in table.columns]
    lines = [[*table.heads, *names], ["---"] * len(table.heads) + [":---:"] * len(names)]
    lines += [line_of(row) for row in table.rows if not only_run or row.name in run]
    if arrange.is_synthetic(df) and "synthetic" not in title.lower():
        title += f" ({SYNTHETIC})"
    shown = "the paper's value and, below it where the row was run, ours" if has_paper else "ours"
    reading = f"{arrange.metric_text(df)}: {shown} with its 95 % interval. {arrange.extent(df)}"
    said = [f"-{_sup(mark)} {each}" for mark, each in sentences(df, table, notes, only_run)]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    parts = ["#" * level + " " + title, table.caption, reading, "\n".join(rows), "\n".join(said)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _mark(index: int) -> str:
    letters = string.ascii_lowercase
    return letters[index] if index < 26 else letters[index // 26 - 1] + letters[index % 26]


def _sup(text: str) -> str:
    return f" <sup>{text}</sup>" if text else ""
