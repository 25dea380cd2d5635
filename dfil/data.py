"""From a profile to the crops it works on: a real tree where one is given, the built-in synthetic one otherwise."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dfil import paths
from dfil.datasets import load_records
from dfil.errors import DataError
from dfil.faces.preprocess import preprocess
from dfil.faces.store import CropStore
from dfil.profiles import Profile
from dfil.synthetic import write_ffpp

DETECTORS = {"ffpp": "dlib"}  # the paper: dlib for FaceForensics++, MTCNN for the others


def tree(profile: Profile, root: str | Path = "", setting: str = "ff-like") -> Path:
    """The FaceForensics++ tree that a profile reads: `root` if given, the synthetic one of `setting` for a profile that has one (written
    now if it is not there yet), else the real one named by $DFIL_FFPP or dfil.toml.

    Raises DataError if there is none, saying how to name one.
    """
    if root:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; root must name the top of a FaceForensics++ tree")
        return folder
    sizes = profile.trees.get(setting)
    if sizes is not None:
        return write_ffpp(paths.data() / "trees" / profile.name / setting, setting, **sizes)
    real = paths.real_root("ffpp")
    if real is None:
        raise DataError(
            f"the profile {profile.name} needs the real FaceForensics++: name its tree by $DFIL_FFPP, by [roots] ffpp in dfil.toml, "
            "or by the parameter root"
        )
    return real


def store_folder(dataset: str, root: Path, size: int) -> Path:
    """Where the crops of a tree lie if the user names no other place; trees that share a name do not share a folder."""
    where = Path(root).resolve()
    return paths.data() / "crops" / f"{dataset}-{where.name}-{size}-{hashlib.sha256(str(where).encode()).hexdigest()[:6]}"


def crops(profile: Profile, root: Path, dataset: str = "ffpp", jobs: int | None = None) -> CropStore:
    """The crop store of a tree at the profile's size, made now or completed if it is not there yet."""
    return preprocess(
        load_records(dataset, root), store_folder(dataset, root, profile.size), profile.size, detector=DETECTORS[dataset], jobs=jobs
    )
