"""`dfil preprocess`, `dfil data make` and `dfil data check`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from dfil import datasets, paper, synthetic
from dfil.datasets import check as trees
from dfil.datasets import load_records
from dfil.faces import preprocess as crops
from dfil.system import cluster, paths
from dfil.system.errors import DataError, RunError
from dfil.train import data

SHOWN = 20  # videos and files that are named one by one


def preprocess(a: Namespace) -> int:
    root = _root(a).absolute()  # as the notebooks name it, and workers elsewhere
    owner = datasets.get(a.dataset)
    records = load_records(a.dataset, root, **_filters(a))
    folder = (a.store or data.store_folder(a.dataset, root, a.size)).absolute()
    settings = {"detector": owner.detector, "tracks": owner.tracks}
    settings |= crops.settings_of(folder) or crops.usual(root)
    settings |= crops.COMPACT if a.compact else crops.WHOLE if a.whole else {}
    if a.stretches:
        settings["stretches"] = _stretches(*a.stretches)
    given = {"detector": a.detector, "tracks": a.tracks, "every": a.every}
    settings |= {name: value for name, value in given.items() if value}
    with cluster.executor(a.scheduler) as executor:
        store = crops.preprocess(
            records, folder, a.size, jobs=a.jobs, executor=executor, **settings
        )
    asked = {record.video_id for record in records}
    rows = store.index[store.index["video_id"].isin(asked)]
    counts = rows["status"].value_counts().items()
    counted = ", ".join(f"{count} {status}" for status, count in counts)
    print(f"{len(rows)} {'synthetic ' * store.meta['synthetic']}videos: {counted}.")
    others = rows[rows["status"] != "ok"]
    _list([f"{row.video_id}: {row.status}: {row.reason}" for row in others.itertuples()])
    print(f"Crop store: {folder}")
    if len(others) < len(rows):
        return 0
    said = f"none of the {len(rows)} videos under {root} could be used; the reasons are above."
    print(f"dfil: {said}", file=sys.stderr)
    return 1


def _stretches(number: int, frames: int) -> tuple[int, int]:
    if frames < (least := paper.SETTINGS.frames_per_snippet):
        raise RunError(f"--stretches {number} {frames}: a snippet has {least} frames; give as many")
    return number, frames


def make(a: Namespace) -> int:
    names = ("train", "val", "test", "frames", "qualities", "seed", "jobs")
    sizes = {name: getattr(a, name) for name in names if getattr(a, name) is not None}
    synthetic.write(a.setting, a.root, **sizes)
    made = load_records(synthetic.DATASET_OF[a.setting], a.root)
    print(f"{len(made)} synthetic videos in {a.root}.")
    return 0


def check(a: Namespace) -> int:
    found = trees.check(a.dataset, _root(a), **_filters(a))
    if a.json:
        print(json.dumps(found, indent=1))
    else:
        _print_check(found)
    return 1 if any(found[name] for name in trees.WRONG) else 0


def _root(a: Namespace) -> Path:
    """The tree that was typed, else the one that the settings name."""
    if a.root:
        return a.root.expanduser()
    if found := paths.real_root(a.dataset):
        return found
    raise DataError(f"no tree of {datasets.get(a.dataset).title}: {data.how_to_name(a.dataset)}")


def _print_check(found: dict) -> None:
    total = sum(row["videos"] for row in found["counts"])
    kind = "synthetic " * found["synthetic"]
    print(f"{found['dataset']} in {found['root']}: {total} {kind}videos")
    print(f"{'split':8}{'label':7}{'manipulation':16}{'compression':13}videos")
    for row in found["counts"]:
        words = (row["split"] or "-", ("real", "fake")[row["label"]])
        words += (row["manipulation"], row["compression"] or "-", row["videos"])
        print("{:8}{:7}{:16}{:13}{:6}".format(*words))
    print(f"Missing: {len(found['missing'])}" if found["missing"] else "Nothing is missing.")
    _list(found["missing"])
    titles = {
        "unreadable": "Unreadable",
        "leaks": "In training and in test",
        "differences": "Not the published numbers",
        "notes": "Notes",
    }
    for name, title in titles.items():
        if found[name]:
            print(f"{title}: {len(found[name])}")
            _list(found[name])


def _list(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  ... and {len(lines) - SHOWN} more")


def _filters(a: Namespace) -> dict[str, list[str]]:
    wanted = {"manipulations": a.manipulations, "compressions": a.compressions}
    return {name: value for name, value in wanted.items() if value}
