"""Where things lie: the data folder, the outputs, and the real datasets' trees."""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import tempfile
import tomllib
from pathlib import Path

from dfil.system.errors import DataError, MachineError, machine_fault

ROOT_VARIABLES = {  # dfil.datasets.register adds those of further datasets
    "ffpp": "DFIL_FFPP",
    "celebdf": "DFIL_CELEBDF",
    "dfdc-preview": "DFIL_DFDC_PREVIEW",
    "dfdc": "DFIL_DFDC",
    "wilddeepfake": "DFIL_WILDDEEPFAKE",
}
_EXAMPLE = 'write [roots] and below it {} = "/path/to/tree"'


def fix() -> None:
    """Give every folder named by a variable one meaning for this process and those it starts.

    Relative ones count from here. Without a home that can be written, one that ends with this
    process takes its place, for the settings and caches of Jupyter and others.
    """
    for variable in ("DFIL_DATA", "DFIL_OUTPUTS", *ROOT_VARIABLES.values()):
        if value := os.environ.get(variable):
            os.environ[variable] = str(Path(value).expanduser().absolute())
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user id without a name, in a container
        os.environ["USER"] = "nobody"
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if home is None or not writable(home):
        _borrow_home(home)


def writable(folder: Path) -> bool:
    """Whether a file can be made in a folder; asking the system for permissions may be wrong."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _borrow_home(home: Path | None) -> None:
    borrowed, mine = tempfile.mkdtemp(prefix="dfil-home-"), os.getpid()
    if home and (cache := home / ".cache" / "torch").is_dir():
        os.environ.setdefault("TORCH_HOME", str(cache))  # ImageNet weights
    os.environ["HOME"] = borrowed
    atexit.register(lambda: mine == os.getpid() and shutil.rmtree(borrowed, ignore_errors=True))


def project() -> Path:
    """The checkout that holds the package; without one (an installed package) the nearest checkout
    from here upwards, else the working directory."""
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[2], here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "dfil" / "paper.py").is_file():
            return folder
    return here


def data() -> Path:
    """Generated trees and crop stores: $DFIL_DATA, default `data/` in the project."""
    return _named("DFIL_DATA", "data")


def outputs(profile: str) -> Path:
    """Results of one profile: $DFIL_OUTPUTS/<profile>, default `outputs/<profile>` in the
    project."""
    return _named("DFIL_OUTPUTS", "outputs") / profile


def _named(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or project() / default).expanduser().absolute()


def real_root(dataset: str) -> Path | None:
    """The tree of a real dataset from $DFIL_FFPP and so on or from `[roots]` in dfil.toml; None
    where neither names one.

    Raises DataError if the named folder is not there or dfil.toml is not what it should be.
    """
    variable, file = ROOT_VARIABLES[dataset], project() / "dfil.toml"
    named, by = os.environ.get(variable), f"${variable}"
    if not named and file.is_file():
        named, by = _roots(file, dataset).get(dataset), str(file)
    if not named:
        return None
    root = (file.parent / Path(named).expanduser()) if by == str(file) else Path(named).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder, though {by} names it as the {dataset} tree; correct it or"
            " remove the setting"
        )
    return root


def _roots(file: Path, dataset: str) -> dict[str, str]:
    """The table [roots] of dfil.toml. Raises DataError, MachineError."""
    example = _EXAMPLE.format(dataset)
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{file}: not valid TOML ({error}); {example}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise MachineError(machine_fault(error) or f"{file}: {error}") from error
    if unknown := sorted(set(settings) - {"roots"}):
        raise DataError(f"{file}: knows only [roots], not {', '.join(unknown)}; {example}")
    roots = settings.get("roots", {})
    if not isinstance(roots, dict):
        raise DataError(f"{file}: roots is a table, not {roots!r}; {example}")
    for name, folder in roots.items():
        if name not in ROOT_VARIABLES:
            known = ", ".join(ROOT_VARIABLES)
            raise DataError(f"{file}: no dataset is called {name}; choose {known}")
        if not isinstance(folder, str):
            raise DataError(f"{file}: {name} is a path in quotes, not {folder!r}; {example}")
    return roots
