"""The crops a profile works on: of a real tree where one is named, else of a built-in one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from dfil import datasets, synthetic
from dfil.datasets import REAL, load_records
from dfil.faces import rows
from dfil.faces.preprocess import Settings, preprocess, settings_of, usual
from dfil.faces.store import CropStore
from dfil.profiles import Profile
from dfil.synthetic.settings import RENDERER
from dfil.synthetic.settings import SETTINGS as SYNTHETIC
from dfil.system import cluster, paths
from dfil.system.errors import DataError

# What of a store's settings the snippets show; how they are stored is not part of it.
SEEN = ("size", "detector", "every", "tracks", "stretches")
# What the built-in trees' synthetic.json calls the numbers of clips.
COUNTED = ("people", "real_clips", "real_sequences")


def tree(profile: Profile, root: str | Path = "", dataset: str = "ffpp", setting: str = "") -> Path:
    """The tree of a dataset that a profile reads.

    That is `root` if given, the synthetic one (written now if it is not there yet) for a profile
    that has one, else the real one named by $DFIL_FFPP and so on or dfil.toml.
    setting: of the synthetic tree, default the dataset's. Raises DataError if there is none,
    saying how to name one.
    """
    setting = setting or datasets.get(dataset).setting
    if reason := absent(profile, root, dataset, setting):
        raise DataError(reason)
    if root:
        return Path(root).expanduser()
    if setting in profile.trees:
        folder = paths.data() / "trees" / profile.name / synthetic.SETTINGS[setting].folder
        return synthetic.write(setting, folder, **profile.trees[setting])
    return real(dataset)


def absent(profile: Profile, root: str | Path = "", dataset="ffpp", setting: str = "") -> str:
    """Why `tree` would find nothing, as a sentence that says what to do; empty if it would."""
    name = datasets.get(dataset).title
    if root:
        there = Path(root).expanduser().is_dir()
        return "" if there else f"{root}: no such folder; it must be the top of a {name} tree"
    if (setting or datasets.get(dataset).setting) in profile.trees or real(dataset) is not None:
        return ""
    what = f"the profile {profile.name} needs the real {name}, which is not there"
    return f"{what}: {how_to_name(dataset)}"


def how_to_name(dataset: str) -> str:
    """How a user says where the tree of a dataset lies."""
    parameter = "root" if dataset == "ffpp" else f"{dataset.removesuffix('-preview')}_root"
    return (
        f"name its tree by --root (of a notebook the parameter {parameter}), by"
        f" ${paths.ROOT_VARIABLES[dataset]}, or in dfil.toml under [roots] as {dataset}"
    )


def planned(profile: Profile, dataset: str, setting: str = "") -> dict:
    """The meta of a crop store of the profile's built-in tree, while nothing is made for it."""
    setting = setting or datasets.get(dataset).setting
    sizes, version = profile.trees[setting], synthetic.TREES[dataset].version or None
    counts = {split: sizes[split] for split in ("train", "val", "test") if split in sizes}
    tree = {"renderer": RENDERER, "tree": version, "seed": sizes.get("seed", 0)}
    tree |= {"frames": sizes["frames"], "setting": SYNTHETIC[setting].as_dict(), "people": counts}
    owner = datasets.get(dataset)
    crops_ = Settings(profile.size, detector=owner.detector, tracks=owner.tracks)
    return {"dataset": dataset, "synthetic": True, "synthetic_setting": tree, **asdict(crops_)}


def contents(
    meta: Mapping, profile: Profile, compression: str = "", manipulations: Collection[str] = ()
) -> str | dict:
    """What a run's key says of its data: a store's digest, or built-in data's version and settings.

    The digest is that of the videos that a selection names (spec.select), so that a quality or a
    manipulation that is added to a tree leaves the runs alone that do not look at it.

    Another processor's clips differ in some bits, and so do the digests of crops cut from them;
    settings are the same everywhere, so that a run trained elsewhere is found again.
    """
    if not meta["synthetic"] or not datasets.get(meta["dataset"]).setting:
        # a folder of some clips of a built-in tree is not that tree
        return _of_selection(meta, compression, manipulations)
    tree = meta["synthetic_setting"]
    counts = [tree[name] for name in COUNTED if name in tree]
    told = {name: tree.get(name) for name in ("renderer", "tree", "seed", "frames", "setting")}
    told |= {"counts": counts, "crops": {name: meta.get(name) for name in SEEN}}
    if datasets.get(meta["dataset"]).carved:
        told["validation"] = profile.validation
    return json.loads(json.dumps(told))


def _of_selection(meta: Mapping, compression: str, manipulations: Collection[str]) -> str:
    chosen = {}
    for kind, digest in meta.get("digests", {}).items():  # a store of an earlier release has none
        quality, _, manipulation = kind.partition("/")
        named = not manipulations or manipulation in (REAL, *manipulations)
        if named and compression in ("", quality):
            chosen[kind] = digest
    if not chosen:
        return meta["digest"]
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def real(dataset: str) -> Path | None:
    """The real tree that $DFIL_FFPP and so on or dfil.toml name; None if they name none. For DFDC
    the preview, which the paper cites, before the full release."""
    both = ("dfdc-preview", "dfdc") if dataset == "dfdc-preview" else (dataset,)
    return next(filter(None, map(paths.real_root, both)), None)


def release(dataset: str, root: Path) -> str:
    """The adapter that reads a tree: DFDC's full release may lie where the preview is asked for."""
    preview = (Path(root) / "dataset.json").is_file()
    return "dfdc" if dataset == "dfdc-preview" and not preview else dataset


def store_folder(dataset: str, root: Path, size: int) -> Path:
    """Where the crops of a tree lie if the user names no other place.

    Trees that share a name do not share a folder, unless one of them is the other, moved: its crops
    are found by the videos' sizes and checksums.
    """
    where = Path(root).resolve()
    name = f"{dataset}-{where.name}-{size}-"
    folder = paths.data() / "crops" / (name + hashlib.sha256(str(where).encode()).hexdigest()[:6])
    if not folder.is_dir() and folder.parent.is_dir():
        others = [p for p in folder.parent.iterdir() if p.name[:-6] == name]
        if moved := rows.moved_store(sorted(others), where):
            print(f"The crops of {where} are those in {moved}, made where the tree was before.")
            return moved
    return folder


def crops(profile: Profile, root: Path, dataset="ffpp", jobs: int | None = None) -> CropStore:
    """The crop store of a tree at the profile's size, made now or completed if it is not there yet.

    A store that `dfil preprocess` has made keeps the settings it was made with (detector, tracks,
    stretches, ...). Where the owners give no validation split, the profile's share of the
    training identities is carved (dfil.datasets.splits).
    """
    dataset = release(dataset, root)
    owner = datasets.get(dataset)
    folder = store_folder(dataset, root, profile.size)
    settings = {"detector": owner.detector, "tracks": owner.tracks}
    settings |= settings_of(folder) or usual(root)
    carving = {"share": profile.validation} if owner.carved else {}
    records = load_records(dataset, root, **carving)
    with cluster.executor(cluster.address()) as executor:
        settings |= {"jobs": jobs, "executor": executor}
        return preprocess(records, folder, profile.size, **settings)


def stores(
    profile: Profile, names: Iterable[str], roots: Mapping[str, str | Path] | None = None
) -> dict[str, CropStore]:
    """The crop stores of those datasets of `names` that are there; what is not is said.

    roots: trees by dataset, as in `tree`. Synthetic and real trees are not mixed: with one real
    tree given, the synthetic ones are left out, because a model trained on real faces says
    nothing about drawn ones.
    """
    found = {}
    for dataset in names:
        root = (roots or {}).get(dataset, "")
        if reason := absent(profile, root, dataset):
            print(f"{datasets.get(dataset).title}: {reason}.")
        else:
            found[dataset] = crops(profile, tree(profile, root, dataset), dataset)
    real = {dataset: store for dataset, store in found.items() if not store.meta["synthetic"]}
    for dataset in found.keys() - real.keys() if real else ():
        title = datasets.get(dataset).title
        print(f"{title}: only the synthetic one is there, and it is not mixed with real data.")
    return real or found
