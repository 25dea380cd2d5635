"""Where things lie: the data folder, the outputs, and the real datasets' trees."""

from __future__ import annotations

import atexit
import getpass
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Collection
from pathlib import Path

from dfil.system.errors import DataError, MachineError, machine_fault

ROOT_VARIABLES = {  # dfil.datasets.register adds those of further datasets
    "ffpp": "DFIL_FFPP",
    "celebdf": "DFIL_CELEBDF",
    "dfdc-preview": "DFIL_DFDC_PREVIEW",
    "dfdc": "DFIL_DFDC",
    "wilddeepfake": "DFIL_WILDDEEPFAKE",
}
_STATE = ".begun.json"  # in a folder of work: the files as they were when it was begun
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


def published(profile: str) -> Path:
    """Results of one profile that are shown to others: $DFIL_OUTPUTS/<profile>, default
    `outputs/<profile>` in the project."""
    return _named("DFIL_OUTPUTS", "outputs") / profile


def runs(profile: str) -> Path:
    """The folder of a profile's trained runs."""
    return published(profile) / "runs"


def outputs(profile: str) -> Path:
    """Where notebooks write: $DFIL_WORK/<profile>, default `outputs/.work/<profile>`.

    It begins as a copy of what is published, and `dfil reproduce` and `dfil publish` bring what was
    made there to `published`. Its `runs` are the published ones.
    """
    folder = Path(os.environ.get("DFIL_WORK") or published(profile).parent / ".work") / profile
    if not folder.is_dir():
        _begin(folder, profile)
    return folder


def _begin(folder: Path, profile: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    runs(profile).mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f"{profile}-", dir=folder.parent))
    shutil.copytree(published(profile), new, dirs_exist_ok=True, ignore=_not_begun)
    note_state(new)
    try:
        (new / "runs").symlink_to(os.path.relpath(runs(profile), folder))
    except OSError:  # a disk or a system without links: runs(profile) is the way
        pass
    try:
        new.rename(folder)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        if not folder.is_dir():  # else another kernel was first
            raise


def note_state(work: Path, only: Collection[Path] | None = None) -> None:
    """From now on `written` names only what is written later. only: of these files."""
    now, file = _state(work), work / _STATE
    if only is not None:
        names = {path.relative_to(work).as_posix() for path in only}
        before = _noted(work)
        now = before | {name: seen for name, seen in now.items() if name in names}
    new = file.with_name(f"{_STATE}.{os.getpid()}.part")
    new.write_text(json.dumps(now), encoding="utf-8")
    new.replace(file)


def _noted(work: Path) -> dict[str, list[int]]:
    """Nothing of a folder that was not begun here: then all of it counts as written."""
    file = work / _STATE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def listed(folder: Path) -> list[Path]:
    """The files of a folder of results that a folder of work begins with."""
    return sorted(folder / name for name in _state(folder) if ".failed." not in name)


def written(work: Path) -> list[Path]:
    """Files of a folder of work that are new or changed since it was begun."""
    before = _noted(work)
    return sorted(work / name for name, seen in _state(work).items() if before.get(name) != seen)


def _state(work: Path) -> dict[str, list[int]]:
    found = {}
    for folder, folders, names in os.walk(work):
        folders[:] = [n for n in folders if n[0] != "." and Path(folder, n) != work / "runs"]
        for name in names:
            if name[0] != "." and not name.endswith(".part"):
                file, about = Path(folder, name), Path(folder, name).stat()
                found[file.relative_to(work).as_posix()] = [about.st_mtime_ns, about.st_size]
    return found


def _not_begun(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "runs" or name[0] == "." or ".failed." in name]


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
    if not os.path.isdir(root):  # False for a name that is too long, too
        raise DataError(
            f"{str(root)[:500]}: no such folder, though {by} names it as the {dataset} tree; "
            "correct it or remove the setting"
        )
    return root


def _roots(file: Path, dataset: str) -> dict[str, str]:
    """The table [roots] of dfil.toml. Raises DataError, MachineError."""
    example = _EXAMPLE.format(dataset)
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 ({error}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # also a number of 5000 digits
        raise DataError(f"{file}: not valid TOML ({error}); {example}") from error
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
