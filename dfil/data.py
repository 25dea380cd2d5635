"""From a profile to the crops it works on: a real tree where one is given, the built-in synthetic one otherwise."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

from dfil import paths
from dfil.datasets import load_records
from dfil.errors import DataError
from dfil.faces.preprocess import made_with, preprocess
from dfil.faces.store import CropStore
from dfil.profiles import Profile
from dfil.synthetic import write_ffpp

DETECTORS = defaultdict(lambda: "mtcnn", ffpp="dlib")  # the paper: dlib for FaceForensics++, MTCNN for the others


def tree(profile: Profile, root: str | Path = "", setting: str = "ff-like") -> Path:
    """The FaceForensics++ tree that a profile reads: `root` if given, the synthetic one of `setting` for a profile that has one (written
    now if it is not there yet), else the real one named by $DFIL_FFPP or dfil.toml.

    Raises DataError if there is none, saying how to name one.
    """
    if reason := absent(profile, root):
        raise DataError(reason)
    if root:
        return Path(root).expanduser()
    sizes = profile.trees.get(setting)
    if sizes is not None:
        return write_ffpp(paths.data() / "trees" / profile.name / setting, setting, **sizes)
    return paths.real_root("ffpp")


def absent(profile: Profile, root: str | Path = "") -> str:
    """Why `tree` would find nothing, as a sentence that says what to do; empty if it would."""
    if root:
        there = Path(root).expanduser().is_dir()
        return "" if there else f"{root}: no such folder; root must name the top of a FaceForensics++ tree"
    if profile.trees or paths.real_root("ffpp") is not None:
        return ""
    return (
        f"the profile {profile.name} needs the real FaceForensics++, which is not there: name its tree by --root (the parameter root), by "
        "$DFIL_FFPP, or in dfil.toml under [roots] as ffpp"
    )


def store_folder(dataset: str, root: Path, size: int) -> Path:
    """Where the crops of a tree lie if the user names no other place; trees that share a name do not share a folder."""
    where = Path(root).resolve()
    return paths.data() / "crops" / f"{dataset}-{where.name}-{size}-{hashlib.sha256(str(where).encode()).hexdigest()[:6]}"


def crops(profile: Profile, root: Path, dataset: str = "ffpp", jobs: int | None = None) -> CropStore:
    """The crop store of a tree at the profile's size, made now or completed if it is not there yet.

    A store that `dfil preprocess` has made keeps the settings it was made with (detector, stretches, ...).
    """
    folder = store_folder(dataset, root, profile.size)
    settings = {"detector": DETECTORS[dataset]} | made_with(folder)
    return preprocess(load_records(dataset, root), folder, profile.size, jobs=jobs, **settings)
