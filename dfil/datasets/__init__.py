"""The datasets as their owners distribute them: one adapter each, all yielding VideoRecord.

A further dataset is one file with a subclass of Adapter, see adapter.py. In a package of one's own:

    [project.entry-points."dfil.datasets"]
    mine = "my_package.mine:Mine"

or, inside one Python process, dfil.datasets.register(Mine()).
"""

from __future__ import annotations

from pathlib import Path

from dfil.datasets.adapter import MARK, Adapter, Filters, is_synthetic
from dfil.datasets.celebdf import CelebDF
from dfil.datasets.dfdc import DFDC
from dfil.datasets.dfdc_preview import DFDCPreview
from dfil.datasets.ffpp import FaceForensics
from dfil.datasets.folder import Folder
from dfil.datasets.lists import read_table
from dfil.datasets.records import REAL, VideoRecord
from dfil.datasets.splits import SEED, SHARE
from dfil.datasets.wilddeepfake import WildDeepfake
from dfil.system import paths, plugins
from dfil.system.errors import DataError

__all__ = [
    "REAL",
    "Adapter",
    "Filters",
    "VideoRecord",
    "get",
    "available",
    "is_synthetic",
    "load_records",
    "register",
    "synthetic_setting",
]

BUILT_IN = (FaceForensics, CelebDF, DFDCPreview, DFDC, WildDeepfake, Folder)
ENTRY_POINTS = "dfil.datasets"
DEPTH = 7  # folders from a video up to its tree: root/manipulated_sequences/METHOD/c23/videos/x.mp4

_adapters: dict[str, Adapter] = {}


def register(adapter: Adapter) -> Adapter:
    """Make a dataset known under `adapter.name`, and return it. The same class may come again.

    Raises DataError if it is no Adapter or another dataset has the name.
    """
    if not isinstance(adapter, Adapter):
        raise DataError(f"{adapter!r} is no dfil.datasets.Adapter; register an instance of one.")
    known = _adapters.get(adapter.name)
    if known is not None and type(known) is not type(adapter):
        raise DataError(
            f"Two datasets are called {adapter.name!r}: {type(known)} and {type(adapter)}; "
            "rename one."
        )
    _adapters[adapter.name] = adapter
    variable = "DFIL_" + adapter.name.upper().replace("-", "_")
    paths.ROOT_VARIABLES.setdefault(adapter.name, variable)
    return adapter


for _built_in in BUILT_IN:
    register(_built_in())


def available() -> list[str]:
    """The names of all datasets: built in, registered, and from the entry points of packages."""
    plugins.load(ENTRY_POINTS, _adapters, _register_made, DataError)
    return list(_adapters)


def _register_made(_: str, found: object) -> None:
    """Register what an entry point names: an adapter or its class."""
    register(found() if isinstance(found, type) else found)


def get(name: str) -> Adapter:
    """The adapter of a dataset. Raises DataError for an unknown name."""
    if name not in _adapters and name not in available():
        known = ", ".join(sorted(_adapters))
        raise DataError(f"Unknown dataset {name!r}; choose one of: {known}.")
    return _adapters[name]


def load_records(
    dataset: str, root: str | Path, *, share: float = SHARE, seed: int = SEED, **filters
) -> list[VideoRecord]:
    """The videos of the tree `root` of `dataset`, reals first.

    filters: compressions, manipulations, splits (see Filters); share, seed: of a carved validation
    split (see splits.carve). Raises DataError for an unknown name and a tree that cannot be read.
    """
    return get(dataset).records(Path(root), Filters(**filters), share, seed)


def synthetic_setting(path: str | Path) -> dict | None:
    """synthetic.json of the tree in which `path` (a tree or a file in it) lies; None for real data.

    Asking the files themselves, not the caller, keeps built-in data from passing for a real
    dataset. Raises DataError for a synthetic.json that is damaged.
    """
    path = Path(path).absolute()
    for folder in [path, *path.parents][:DEPTH]:
        if is_synthetic(folder):
            return read_table(folder / MARK, "write the synthetic tree again")
    return None
