"""The notebooks: of the checkout, or, in an installed package, those that came with it."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from importlib import metadata
from pathlib import Path

from dfil.system import paths
from dfil.system.errors import DataError
from dfil.system.files import atomic

PLACE = "share/dfil/notebooks"  # below the prefix of the environment, see pyproject.toml
_LINK = re.compile(
    r"\[([^]\[]*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)"
)  # a relative one in Markdown


def folder() -> Path:
    """Where the notebooks lie. Raises DataError if they are nowhere."""
    checkout = paths.project() / "notebooks"
    if any(checkout.glob("*.ipynb")):
        return checkout
    try:
        listed = metadata.files("dfil") or []
    except metadata.PackageNotFoundError:
        listed = []
    for file in listed:
        if file.as_posix().endswith(".ipynb") and PLACE in file.as_posix():
            return Path(file.locate()).resolve().parent
    raise DataError(
        f"{checkout}: there are no notebooks, nor did any come with the package; install it again,"
        " or work in a checkout of the project"
    )


def copy(target: Path) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks; those that are there already are kept. Returns both lists.

    Links to what does not lie beside them lead to where it lies; in an installed package, which
    has no such files, the words stay alone.
    """
    copied, kept = [], []
    for path in sorted(folder().glob("[0-9][0-9]_*.ipynb")):
        there = target / path.name
        if there.exists():
            kept.append(there)
            continue
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                here = partial(_linked, path.parent, target)
                cell["source"] = [_LINK.sub(here, line) for line in cell["source"]]
        with atomic(there) as temporary:
            text = json.dumps(notebook, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
        copied.append(there)
    return copied, kept


def _linked(source: Path, target: Path, found: re.Match) -> str:
    words, link, rest = found.groups()
    place = (source / link).resolve()
    if place.parent == source.resolve():
        return found.group()
    if not place.exists():
        return words
    return f"[{words}]({Path(os.path.relpath(place, target.resolve())).as_posix()}{rest or ''})"
