"""The built-in benchmark: procedural talking heads, real and forged, written as trees of the datasets' layouts. All of it is synthetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfil.synthetic.celebdf_tree import write_celebdf
from dfil.synthetic.dfdc_tree import write_dfdc
from dfil.synthetic.ffpp_tree import write_ffpp
from dfil.synthetic.render import Clip, render_target
from dfil.synthetic.settings import METHODS, SETTINGS, Setting
from dfil.synthetic.wilddeepfake_tree import write_wilddeepfake
from dfil.system.errors import DataError

__all__ = [
    "DATASET_OF",
    "METHODS",
    "SETTINGS",
    "Clip",
    "Setting",
    "render_target",
    "write",
    "write_celebdf",
    "write_dfdc",
    "write_ffpp",
    "write_wilddeepfake",
]

DATASET_OF = {  # the adapter that reads a setting's tree
    "temporal-only": "ffpp",
    "ff-like": "ffpp",
    "celebdf-like": "celebdf",
    "dfdc-like": "dfdc-preview",
    "wild-like": "wilddeepfake",
}
_WRITERS: dict[str, Callable[..., Path]] = {
    "ffpp": write_ffpp,
    "celebdf": write_celebdf,
    "dfdc-preview": write_dfdc,
    "wilddeepfake": write_wilddeepfake,
}


def write(setting: str, root: str | Path, **sizes) -> Path:
    """Write the synthetic tree of a setting under `root`, in the layout of its dataset, and return it.

    sizes: train, test, frames, seed, jobs, progress; for FaceForensics++ also val, qualities, manipulations. The writers say what
    each means. Raises DataError for an unknown setting or size, and as the writers do.
    """
    if setting not in DATASET_OF:
        raise DataError(
            f"No synthetic setting is called {setting}; there are {', '.join(DATASET_OF)}."
        )
    writer = _WRITERS[DATASET_OF[setting]]
    if unknown := set(sizes) - set(writer.__kwdefaults__):
        raise DataError(
            f"The setting {setting} has no {sorted(unknown)[0]}; its sizes are {', '.join(writer.__kwdefaults__)}."
        )
    return writer(root, setting, **sizes)
