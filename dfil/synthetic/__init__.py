"""The built-in benchmark: procedural talking heads, real and forged, as trees of the datasets'
layouts. All of it is synthetic."""

from __future__ import annotations

from pathlib import Path

from dfil import datasets
from dfil.synthetic import celebdf_tree, dfdc_tree, ffpp_tree, wilddeepfake_tree
from dfil.synthetic.render import Clip, render_target
from dfil.synthetic.settings import METHODS, SETTINGS, Setting
from dfil.synthetic.tree import find_setting

__all__ = [
    "DATASET_OF",
    "METHODS",
    "SETTINGS",
    "TREES",
    "Clip",
    "Setting",
    "render_target",
    "write",
    "write_ffpp",
]

TREES = {  # by the adapter that reads them
    "ffpp": ffpp_tree.TREE,
    "celebdf": celebdf_tree.TREE,
    "dfdc-preview": dfdc_tree.TREE,
    "wilddeepfake": wilddeepfake_tree.TREE,
}
DATASET_OF = {"temporal-only": "ffpp"} | {datasets.get(name).setting: name for name in TREES}


def write(setting: str, root: str | Path, **sizes) -> Path:
    """Write the synthetic tree of a setting under `root`, in its dataset's layout, and return it.

    sizes: train, test, frames, seed, jobs, progress; for FaceForensics++ also val, qualities and
    manipulations, and its train, val and test are even numbers of people, because the splits are
    pairs [a, b] whose fakes are a_b and b_a. See tree.Tree.write for the rest.
    """
    return TREES[DATASET_OF[find_setting(setting).name]].write(root, setting, **sizes)


def write_ffpp(root: str | Path, setting: Setting | str = "temporal-only", **sizes) -> Path:
    """`write` in FaceForensics++'s layout, for a setting of one's own too."""
    return TREES["ffpp"].write(root, setting, **sizes)
