"""The report page, one HTML file: the claims, paper beside ours for every table, figures, times.

`build` writes it and RESULTS.md from what a profile's output folder holds (dfil.results.published);
what is not there is named on the page. The README's results come from the same tables.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import jinja2
import pandas as pd
from PIL import Image, UnidentifiedImageError

from dfil import paper
from dfil.results import arrange, beyond, claims, power, published, summary, tables
from dfil.results.markdown import Footnotes, footnotes, markdown, sentences
from dfil.results.notes import SYNTHETIC, Notes
from dfil.results.published import Published, in_order
from dfil.system.errors import DataError

# Blocks of the README: a published folder under outputs/, and which of its tables are shown.
IN_README = {"results": ("study", ("temporal_only",))}


@dataclass(frozen=True)
class Figure:
    """A figure as the page shows it: WebP as base64, title and description from the PNG."""

    key: str
    title: str
    description: str
    synthetic: bool
    width: int
    height: int
    webp: str


def build(folder: Path) -> Path:
    """Write `<folder>/report.html` and `<folder>/RESULTS.md` from what the folder holds, and return
    the page's path; the same folder gives the same page.

    Figures carry their caption in the PNG's text chunks `Title` and `Description` (matplotlib:
    savefig(metadata=...)); a figure is marked synthetic if they say so or all filled tables are.
    Raises DataError if the folder does not exist. A file that is damaged is named on the page.
    """
    found = published.read(folder)
    figures = _figures(found.folder / "figures", found.all_synthetic, found.problems)
    there = {figure.key for figure in figures}
    shown = in_order(found.frames | paper.TABLES, paper.TABLES)
    page = _template().render(
        found=found,
        summary=summary,
        environment=_flat(found.environment),
        tables=[_table_view(name, found) for name in shown],
        figures=figures,
        missing_figures={key: title for key, title in paper.FIGURES.items() if key not in there},
        claims=summary.claim_lines(found.claims),
        beyond=_beyond(found),
        claims_synthetic=claims.is_synthetic(found.claims),
        power=power.of_the_paper(),
        differences=paper.DIFFERENCES,
    )
    tables.write_text(found.folder / "report.html", page)
    summary.write(found)
    return found.folder / "report.html"


def readme_table(folder: Path, names: Sequence[str] | None = None) -> str:
    """Markdown of the rows that were run, of the named tables in `<folder>/tables` (default: of
    all, the paper's first); of a table that claims speak of, the rows that they name. Raises
    DataError if a named table, or any table at all, is not there."""
    folder = Path(folder) / "tables"
    frames = tables.load(folder)
    absent = sorted(set(names or ()) - set(frames))
    if absent or not frames:
        what = ", ".join(absent) or "yet"
        raise DataError(f"{folder} has no table {what}: run `make reproduce` first")
    filled = [name for name, df in frames.items() if df["ours"].notna().any()]
    chosen = in_order(filled, paper.TABLES) if names is None else names
    titles = {name: tables.title_of(folder, name) for name in chosen}
    how = {"only_run": True, "level": 3}
    shown = {name: _claimed(name, frames[name]) for name in chosen}
    return "\n".join(markdown(shown[name], title, **how) for name, title in titles.items())


def _claimed(name: str, df: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that claims name; all of them where they name none."""
    named = [row for c in claims.CLAIMS if c.table == name for row in (c.better, c.than)]
    return df[df["row"].isin(named)] if df["row"].isin(named).any() else df


def update_readme(
    readme: Path, folder: Path, names: Sequence[str] | None = None, block: str = "results"
) -> bool:
    """Put `readme_table` between the README's comments `<!-- results:begin -->` and
    `<!-- results:end -->`, or those of another block; returns whether that changed the file.

    Raises DataError without the comments.
    """
    old, new = _readme(Path(readme), folder, names, block)
    if new != old:
        tables.write_text(Path(readme), new)
    return new != old


def readme_is_stale(
    readme: Path, folder: Path, names: Sequence[str] | None = None, block: str = "results"
) -> bool:
    """Whether `update_readme` would change the README."""
    old, new = _readme(Path(readme), folder, names, block)
    return new != old


def _readme(readme: Path, folder: Path, names, block: str) -> tuple[str, str]:
    """The README's text as it is and as it should be."""
    text = readme.read_text(encoding="utf-8")
    begin, end = f"<!-- {block}:begin -->", f"<!-- {block}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        what_now = "add them where the results belong"
        raise DataError(f"{readme} must hold {begin} and, after it, {end}, once each: {what_now}")
    results = readme_table(folder, names)
    return text, f"{text.partition(begin)[0]}{begin}\n\n{results}\n{end}{text.partition(end)[2]}"


def _beyond(found: Published) -> dict[str, dict]:
    return {
        name: {"title": beyond.QUESTIONS[name].title, "lines": summary.claim_lines(df)}
        for name, df in found.beyond.items()
    }


def _template() -> jinja2.Template:
    how = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    loader = jinja2.PackageLoader("dfil.results", ".")
    return jinja2.Environment(loader=loader, autoescape=True, **how).get_template("page.j2")


def _table_view(name: str, found: Published) -> dict:
    """What the template shows of one table, arranged as the paper's; of an absent one its title."""
    df = found.frames.get(name)
    title = found.title_of(name)
    view = {"id": name, "title": title.removesuffix(f" ({SYNTHETIC})"), "there": df is not None}
    if df is None:
        return view
    table, notes = tables.layout(df), footnotes(df)
    lines = {(line["row"], line["column"]): line for line in df.to_dict("records")}
    groups = [(name, list(columns)) for name, columns in groupby(table.columns, lambda c: c.group)]
    starts = {columns[0].key for name, columns in groups if name}
    rows = []
    for row in table.rows:
        cells = [
            _cell_view(lines[row.name, c.key], row, c, notes) | {"starts": c.key in starts}
            for c in table.columns
        ]
        names = {"heads": row.heads or (row.label,), "label": row.label, "dagger": row.dagger}
        run = any(cell["ours"] for cell in cells)
        rows.append(names | {"marks": notes.marks(row.name), "cells": cells, "run": run})
    return view | {
        "makers": found.makers.get(f"tables/{name}".replace("_auc", ""), []),
        "caption": table.caption,
        "reading": f"{tables.metric_text(df)}. {tables.extent(df)}",
        "heads": table.heads,
        "groups": [(name, len(columns)) for name, columns in groups],
        "columns": [(c.short, notes.marks("", c.key), c.key in starts) for c in table.columns],
        "rows": rows,
        "notes": sentences(df, table, notes),
        "synthetic": tables.is_synthetic(df),
        "has_paper": bool(df["paper"].notna().any()),
        "filled": int(df["ours"].notna().sum()),
        "cells": len(df),
    }


def _cell_view(line: Mapping, row: paper.Row, column: paper.Column, notes: Footnotes) -> dict:
    value, _, interval = arrange.ours_text(line).partition(" ")
    seeds = Notes.parse(line["note"]).per_seed
    return {
        "paper": arrange.paper_text(line),
        "bold": column.key in row.bold,
        "ours": "" if pd.isna(line["ours"]) else value,
        "interval": interval,
        "seeds": f"{min(seeds):.3f}–{max(seeds):.3f}" if seeds else "",
        "marks": notes.marks(row.name, column.key),
    }


def _figures(folder: Path, synthetic: bool, problems: list[str]) -> list[Figure]:
    paths = {path.stem: path for path in folder.glob("*.png")}
    figures = []
    for key in in_order(paths, paper.FIGURES):
        try:
            with Image.open(paths[key]) as image:
                image.load()  # text chunks may stand after the pixels
                size, text = image.size, dict(image.text)
                webp = _webp(image)
        except (UnidentifiedImageError, OSError, SyntaxError, AttributeError, ValueError) as error:
            what = f"{paths[key]} is not a PNG that can be shown ({error})"
            problems.append(f"{what}: run the notebook that draws it again")
            continue
        plain = key.replace("_", " ").replace("-", " ").capitalize()
        title = text.get("Title") or paper.FIGURES.get(key, plain)
        description = text.get("Description", "")
        says_so = "synthetic" in f"{title} {description}".lower()
        shown = base64.b64encode(webp).decode("ascii")
        figures.append(Figure(key, title, description, synthetic or says_so, *size, shown))
    return figures


def _webp(image: Image.Image) -> bytes:
    """The picture as lossless WebP; the lossy one halves the resolution of colour."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def _flat(environment: Mapping) -> list[tuple[str, str]]:
    """Names and values as text; a mapping such as the versions of packages becomes one line."""

    def text(value) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {text(inner)}" for name, inner in value.items())
        if isinstance(value, list):
            return ", ".join(map(text, value))
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "–" if value is None else str(value)

    return [(name.replace("_", " "), text(value)) for name, value in environment.items()]
