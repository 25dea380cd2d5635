"""`dfil reproduce`, `publish` and `report`."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from functools import partial

from dfil import profiles
from dfil.results import latex, page
from dfil.system import cluster, paths
from dfil.system.errors import DataError, RunError
from dfil.tools import reproduce as notebooks
from dfil.tools.faults import faults as measure_faults
from dfil.tools.publish import publish_by_hand
from dfil.train import experiments
from dfil.train.loop import CHECKPOINT


def reproduce(a: Namespace) -> int:
    cluster.use(a.scheduler)
    if a.checkpoint:
        os.environ[CHECKPOINT] = "1"  # the kernels inherit it
    if a.backbone_weights:
        if not a.backbone_weights.is_file():
            raise RunError(
                f"{a.backbone_weights}: no such file; give torchvision's resnet50 weights, .pth or"
                " .safetensors"
            )
        os.environ["DFIL_BACKBONE_WEIGHTS"] = str(a.backbone_weights.absolute())
    parameters = {name: notebooks.parse_value(text) for name, text in a.parameters}
    if a.methods:
        experiments.methods(profiles.get(a.profile), a.methods)  # a typo is said before anything
        parameters["methods"] = a.methods
    if a.seeds:
        parameters["seeds"] = list(profiles.get(a.profile, a.seeds).seeds)
    return notebooks.reproduce(a.profile, a.only, a.root, parameters, command=a.command_line)


def publish(a: Namespace) -> int:
    brought = publish_by_hand(a.profile)
    for path in brought:
        print(path)
    print(f"{len(brought)} files published. `dfil report --profile {a.profile}` builds the page.")
    return 0


def faults(a: Namespace) -> int:
    quiet = partial(print, file=sys.stderr) if a.json else print
    found = measure_faults(a.kills, a.seed, only=a.only, say=quiet)
    if a.json:
        print(json.dumps(found | {"kills": [vars(kill) for kill in found["kills"]]}, indent=1))
    wrong = {name: how for name, how in found["tables"].items() if how != "same"}
    for name, how in wrong.items():
        print(f"dfil: {name}: {how} after the kills", file=sys.stderr)
    quiet(f"{len(found['tables']) - len(wrong)} of {len(found['tables'])} tables are the same.")
    return 1 if wrong or not found["tables"] else 0


def report(a: Namespace) -> int:
    folder, readme = paths.published(a.profile), paths.project() / "README.md"
    print(f"Wrote {page.build(folder)}")
    for path in latex.write(folder) if a.latex else ():
        print(f"Wrote {path}")
    if a.profile == "demo":  # the README shows the published results only
        if not readme.is_file():
            raise DataError(
                f"{readme} is not there, so its results were not updated: run this in a checkout of"
                " the project"
            )
        for block, (published, names) in page.IN_README.items():
            shown = folder if published == "demo" else paths.project() / "outputs" / published
            changed = page.update_readme(readme, shown, names, block)
            print(f"{readme}: {block} {'updated' if changed else 'up to date'}")
    return 0
