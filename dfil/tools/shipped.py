"""The notebooks: of the checkout, or, in an installed package, those that came with it."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

from dfil.system import paths
from dfil.system.errors import DataError
from dfil.system.files import atomic

PLACE = "share/dfil/notebooks"  # below the prefix of the environment, see pyproject.toml


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
    """Copy the notebooks; those that are there already are kept. Returns both lists."""
    copied, kept = [], []
    for path in sorted(folder().glob("[0-9][0-9]_*.ipynb")):
        there = target / path.name
        if there.exists():
            kept.append(there)
            continue
        with atomic(there) as temporary:
            shutil.copyfile(path, temporary)
        copied.append(there)
    return copied, kept
