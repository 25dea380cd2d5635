"""Where things lie: the data folder, the outputs, and the real datasets' trees."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from dfil.system.errors import DataError

ROOT_VARIABLES = {
    "ffpp": "DFIL_FFPP",
    "celebdf": "DFIL_CELEBDF",
    "dfdc-preview": "DFIL_DFDC_PREVIEW",
    "dfdc": "DFIL_DFDC",
    "wilddeepfake": "DFIL_WILDDEEPFAKE",
}


def project() -> Path:
    """The folder with `notebooks/` in it: the nearest one from here upwards, else the checkout the package is installed from."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir() and (folder / "dfil").is_dir():
            return folder
    return Path(__file__).resolve().parents[2]


def data() -> Path:
    """Generated trees and crop stores: $DFIL_DATA, default `data/` in the project."""
    return Path(os.environ.get("DFIL_DATA") or project() / "data")


def outputs(profile: str) -> Path:
    """Results of one profile: $DFIL_OUTPUTS/<profile>, default `outputs/<profile>` in the project."""
    return Path(os.environ.get("DFIL_OUTPUTS") or project() / "outputs") / profile


def real_root(dataset: str) -> Path | None:
    """The tree of a real dataset from $DFIL_FFPP and so on or from `[roots]` in dfil.toml; None where neither names one.

    Raises DataError if the named folder is not there or dfil.toml cannot be read.
    """
    variable, file = ROOT_VARIABLES[dataset], project() / "dfil.toml"
    named, by = os.environ.get(variable), f"${variable}"
    if not named and file.is_file():
        try:
            named, by = tomllib.loads(file.read_text()).get("roots", {}).get(dataset), str(file)
        except tomllib.TOMLDecodeError as error:
            raise DataError(
                f'{file}: not valid TOML ({error}); write [roots] and then {dataset} = "/path/to/tree"'
            ) from error
    if not named:
        return None
    root = Path(named).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder, though {by} names it as the {dataset} tree; correct it or remove the setting"
        )
    return root
