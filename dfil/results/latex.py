"""A result table as LaTeX, for a paper of one's own: \\usepackage{booktabs}, nothing else.

Where the paper has a row, its values stand above ours; synthetic data are named in the caption.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dfil import paper
from dfil.results import arrange, tables
from dfil.results.markdown import Footnotes, footnotes, sentences
from dfil.results.notes import SYNTHETIC
from dfil.system.errors import DataError

# What LaTeX reads as a command, and what its usual fonts lack.
_LETTERS = {
    "\\": r"\textbackslash{}",
    "†": r"$^\dagger$",
    "–": "--",
    "τ": r"$\tau$",
    "γ": r"$\gamma$",
    "×": r"$\times$",
    "−": "$-$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
}


def write(folder: Path) -> list[Path]:
    """A .tex beside each filled table (.csv) of `<folder>/tables`; the paths that were written.

    Raises DataError if there is no table.
    """
    folder = Path(folder) / "tables"
    frames = {name: df for name, df in tables.load(folder).items() if df["ours"].notna().any()}
    if not frames:
        raise DataError(f"{folder} has no table with a number: run `make reproduce` first")
    written = []
    for name, df in frames.items():
        path = folder / f"{name}.tex"
        tables.write_text(path, latex(df, tables.title_of(folder, name), f"tab:{name}"))
        written.append(path)
    return written


def latex(df: pd.DataFrame, title: str, label: str) -> str:
    """A table in long form as a LaTeX table: rows and columns as in the paper, notes below."""
    table, notes = arrange.layout(df), footnotes(df)
    run = set(df.loc[df["ours"].notna(), "row"])
    has_paper = bool(df["paper"].notna().any())
    cells = {(line["row"], line["column"]): line for line in df.to_dict("records")}
    lines = []
    for row in table.rows:
        first, *heads = row.heads or (row.label,)
        names = [escape(first) + r"$^\dagger$" * row.dagger + _sup(notes.marks(row.name))]
        names += map(escape, heads)
        if has_paper:
            lines.append(
                [*names, *(_theirs(cells[row.name, c.key], row, c) for c in table.columns)]
            )
            names = [r"\quad ours", *[""] * len(heads)]
        if row.name in run:
            lines.append([*names, *(_ours(cells[row.name, c.key], notes) for c in table.columns)])
    tops = [*map(escape, table.heads)]
    tops += [escape(c.key) + _sup(notes.marks("", c.key)) for c in table.columns]
    kind = f" ({SYNTHETIC})" if arrange.is_synthetic(df) and SYNTHETIC not in title else ""
    reading = f"{arrange.metric_text(df)}, 95 % interval. {arrange.extent(df)}"
    caption = escape(f"{title}{kind}. {reading}")
    grid = pd.DataFrame(lines, columns=tops)
    shape = "l" * len(table.heads) + "c" * len(table.columns)
    text = grid.to_latex(
        index=False, escape=False, caption=caption, label=label, column_format=shape, position="t"
    ).replace("\\begin{tabular}", "\\centering\n\\begin{tabular}")
    said = [_sup(mark) + escape(each) for mark, each in sentences(df, table, notes)]
    below = "".join(f"\\par\\footnotesize {each}\n" for each in said)
    return text.replace("\\end{table}", f"{below}\\end{{table}}")


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LETTERS.get(letter, letter) for letter in str(text))


def _theirs(line: dict, row: paper.Row, column: paper.Column) -> str:
    text = escape(arrange.paper_text(line))
    return f"\\textbf{{{text}}}" if column.key in row.bold else text


def _ours(line: dict, notes: Footnotes) -> str:
    return escape(arrange.ours_text(line)) + _sup(notes.marks(line["row"], line["column"]))


def _sup(marks: str) -> str:
    return f"$^{{\\mathrm{{{marks}}}}}$" if marks else ""
