"""The report page: paper beside ours for every table, with figures, run times and the differences from the paper, in one HTML file.

`build` reads what a profile's output folder holds: `tables/*.csv` with their Markdown, `figures/*.png`, `status.csv` (notebook, status,
seconds, peak MiB) and `environment.json` (any names and values). What is not there is named on the page. The same tables
give the README its results, between the two comments BEGIN and END.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import jinja2
import pandas as pd
from PIL import Image, UnidentifiedImageError

from dfil import paper
from dfil.results import arrange, claims, tables
from dfil.results.markdown import footnotes, markdown, sentences
from dfil.results.notes import SYNTHETIC, Notes
from dfil.system.errors import DataError

# Blocks of the README: a published folder under outputs/, and which of its tables are shown; the rest is on the report page.
IN_README = {"results": ("three-seeds/demo", ("temporal_only",))}

_STATUS_COLUMNS = ["notebook", "status", "seconds", "peak MiB"]


@dataclass(frozen=True)
class Figure:
    """A figure as the page shows it: WebP as base64 with its size in pixels, title and description taken from the PNG's own text."""

    key: str
    title: str
    description: str
    synthetic: bool
    width: int
    height: int
    webp: str


def build(folder: Path) -> Path:
    """Write `<folder>/report.html` from what the folder holds and return its path; the same folder gives the same page.

    Figures carry their caption in the PNG's text chunks `Title` and `Description` (matplotlib: savefig(metadata=...)); a figure is
    marked synthetic if they say so, if the environment's `synthetic` is true, or if all filled tables are.
    Raises DataError if the folder does not exist. A file that is damaged is named on the page.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} to report on: run `make reproduce` first")
    problems: list[str] = []
    environment = _environment(folder / "environment.json", problems)
    frames = _frames(folder / "tables", problems)
    filled = [df for df in frames.values() if df["ours"].notna().any()]
    synthetic = bool(environment.get("synthetic")) or (
        bool(filled) and all(map(tables.is_synthetic, filled))
    )
    status = _status(folder / "status.csv", problems)
    page = _template().render(
        profile=str(environment.get("profile", folder.resolve().name)),
        environment=_flat(environment),
        tables=[
            _table_view(name, frames.get(name), folder / "tables")
            for name in _ordered(frames | paper.TABLES, paper.TABLES)
        ],
        figures=(figures := _figures(folder / "figures", synthetic, problems)),
        missing_figures={
            key: title
            for key, title in paper.FIGURES.items()
            if key not in {figure.key for figure in figures}
        },
        status=status,
        total=_total(status),
        verdicts=claims.verdicts(frames),
        differences=paper.DIFFERENCES,
        synthetic=synthetic or any(map(tables.is_synthetic, filled)),
        problems=problems,
    )
    tables.write_text(folder / "report.html", page)
    return folder / "report.html"


def readme_table(folder: Path, names: Sequence[str] | None = None) -> str:
    """Markdown for the README: the rows that were run of the named tables (default: all) in `<folder>/tables`, the paper's tables first.

    Raises DataError if a named table, or any table at all, is not there.
    """
    folder = Path(folder) / "tables"
    frames = tables.load(folder)
    absent = sorted(set(names or ()) - set(frames))
    if absent or not frames:
        raise DataError(
            f"{folder} has no table {', '.join(absent) or 'yet'}: run `make reproduce` first"
        )
    chosen = (
        names
        if names is not None
        else [name for name in _ordered(frames, paper.TABLES) if frames[name]["ours"].notna().any()]
    )
    return "\n".join(
        markdown(frames[name], tables.title_of(folder, name), only_run=True, level=3)
        for name in chosen
    )


def update_readme(
    readme: Path, folder: Path, names: Sequence[str] | None = None, block: str = "results"
) -> bool:
    """Put `readme_table` between the README's two comments `<!-- results:begin -->` and `<!-- results:end -->`, or those of another
    block; return whether that changed the file. Raises DataError without the comments."""
    readme = Path(readme)
    text = readme.read_text(encoding="utf-8")
    new = _with_results(readme, text, readme_table(folder, names), block)
    if new != text:
        tables.write_text(readme, new)
    return new != text


def readme_is_stale(
    readme: Path, folder: Path, names: Sequence[str] | None = None, block: str = "results"
) -> bool:
    """Whether the README's results differ from what the tables of the folder give. Raises DataError as `update_readme` does."""
    text = Path(readme).read_text(encoding="utf-8")
    return _with_results(Path(readme), text, readme_table(folder, names), block) != text


def _with_results(readme: Path, text: str, results: str, block: str) -> str:
    begin, end = f"<!-- {block}:begin -->", f"<!-- {block}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise DataError(
            f"{readme} must hold {begin} and, after it, {end}, once each: add them where the results belong"
        )
    return f"{text.partition(begin)[0]}{begin}\n\n{results}\n{end}{text.partition(end)[2]}"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dfil.results", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.j2")


def _ordered(found: Mapping[str, object], known: Mapping[str, object]) -> list[str]:
    """Names in the paper's order, then those beyond the paper by name."""
    return [name for name in known if name in found] + sorted(
        name for name in found if name not in known
    )


def _frames(folder: Path, problems: list[str]) -> dict[str, pd.DataFrame]:
    frames = {}
    for path in sorted(folder.glob("*.csv")):
        try:
            frames[path.stem] = tables.load_file(path)
            tables.layout(frames[path.stem])
        except DataError as error:
            frames.pop(path.stem, None)
            problems.append(str(error))
    return frames


def _table_view(name: str, df: pd.DataFrame | None, folder: Path) -> dict:
    """What the template shows of one table, already in the paper's arrangement; of one that is not there (None), its title."""
    title = tables.title_of(folder, name).removesuffix(
        f" ({SYNTHETIC})"
    )  # the page has a badge for it
    if df is None:
        return {"id": name, "title": title, "there": False}
    table, notes = tables.layout(df), footnotes(df)
    lines = {(line["row"], line["column"]): line for line in df.to_dict("records")}
    starts = {
        next(members).key
        for group, members in groupby(table.columns, key=lambda column: column.group)
        if group
    }
    rows = []
    for row in table.rows:
        cells = [
            _cell_view(lines[row.name, column.key], row, column, notes)
            | {"starts": column.key in starts}
            for column in table.columns
        ]
        rows.append(
            {
                "heads": row.heads or (row.label,),
                "label": row.label,
                "dagger": row.dagger,
                "marks": notes.marks(row.name),
                "cells": cells,
                "run": any(cell["ours"] for cell in cells),
            }
        )
    return {
        "id": name,
        "title": title,
        "there": True,
        "caption": table.caption,
        "reading": f"{tables.metric_text(df)}. {tables.extent(df)}",
        "heads": table.heads,
        "groups": [
            (group, len(list(members)))
            for group, members in groupby(table.columns, key=lambda column: column.group)
        ],
        "columns": [
            (column.short, notes.marks("", column.key), column.key in starts)
            for column in table.columns
        ],
        "rows": rows,
        "notes": sentences(df, table, notes),
        "synthetic": tables.is_synthetic(df),
        "has_paper": bool(df["paper"].notna().any()),
        "filled": int(df["ours"].notna().sum()),
        "cells": len(df),
    }


def _cell_view(line: Mapping, row: paper.Row, column: paper.Column, notes) -> dict:
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
    for key in _ordered(paths, paper.FIGURES):
        try:
            with Image.open(paths[key]) as image:
                image.load()  # text chunks may stand after the pixels
                (width, height), text = image.size, dict(image.text)
                webp = _webp(image)
        except (UnidentifiedImageError, OSError, SyntaxError, AttributeError, ValueError) as error:
            problems.append(
                f"{paths[key]} is not a PNG that can be shown ({error}): run the notebook that draws it again"
            )
            continue
        title = text.get("Title") or paper.FIGURES.get(
            key, key.replace("_", " ").replace("-", " ").capitalize()
        )
        description = text.get("Description", "")
        says_so = "synthetic" in f"{title} {description}".lower()
        figures.append(
            Figure(
                key,
                title,
                description,
                synthetic or says_so,
                width,
                height,
                base64.b64encode(webp).decode("ascii"),
            )
        )
    return figures


def _webp(image: Image.Image) -> bytes:
    """The picture as lossless WebP. Lossy WebP halves the resolution of colour, which dulls thin coloured frames and the maps' colours."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def _status(path: Path, problems: list[str]) -> list[dict] | None:
    """Rows of status.csv with seconds and MiB as numbers or None; None where there is no usable file."""
    if not path.exists():
        return None
    try:
        df = pd.read_csv(path, dtype=str, keep_default_na=False)
        df = df.rename(
            columns={name: "peak MiB" for name in df.columns if name.lower().startswith("peak")}
        )
        rows = df[_STATUS_COLUMNS].assign(
            **{name: pd.to_numeric(df[name]) for name in _STATUS_COLUMNS[2:]}
        )
    except (ValueError, KeyError, OSError) as error:
        problems.append(
            f"{path} does not have the columns {', '.join(_STATUS_COLUMNS)} ({error}): run `make reproduce` again"
        )
        return None
    return [
        {
            "notebook": notebook,
            "status": status,
            "seconds": None if pd.isna(seconds) else float(seconds),
            "peak": None if pd.isna(peak) else float(peak),
        }
        for notebook, status, seconds, peak in rows.itertuples(index=False, name=None)
    ]


def _total(status: list[dict] | None) -> dict | None:
    if not status:
        return None
    return {
        "seconds": sum(row["seconds"] or 0 for row in status),
        "peak": max((row["peak"] for row in status if row["peak"] is not None), default=None),
        "failed": [
            row["notebook"]
            for row in status
            if row["status"].lower() not in ("ok", "done", "cached", "reused", "skipped")
        ],
    }


def _environment(path: Path, problems: list[str]) -> dict:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it does not hold names and values")
        return found
    except (ValueError, OSError) as error:
        problems.append(f"{path} cannot be read ({error}): run `make reproduce` again")
        return {}


def _flat(environment: Mapping) -> list[tuple[str, str]]:
    """Names and values as text; a nested mapping such as the versions of packages becomes one line."""

    def text(value) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {text(inner)}" for name, inner in value.items())
        if isinstance(value, list):
            return ", ".join(map(text, value))
        return (
            {True: "yes", False: "no", None: "–"}.get(value, str(value))
            if value is None or isinstance(value, bool)
            else str(value)
        )

    return [(name.replace("_", " "), text(value)) for name, value in environment.items()]
