"""`dfil train`, `plan`, `models` and `bench`."""

from __future__ import annotations

import ast
import inspect
import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module

import torch

from dfil import models as registry
from dfil import paper, profiles
from dfil.datasets import get
from dfil.models import weights
from dfil.system import cluster, paths
from dfil.system.errors import RunError
from dfil.tools import costs
from dfil.tools import plan as plans
from dfil.tools.evaluate import Videos, measured
from dfil.train import data, experiments
from dfil.train.loop import CHECKPOINT
from dfil.train.parallel import in_first_process, processes
from dfil.train.runs import RunSpec, RunStore
from dfil.train.self_blended import LANDMARKS, SelfBlended, check_landmarks, default_hull


def train(a: Namespace) -> int:
    fakes = _fakes(a)
    profile, ffpp = profiles.get(a.profile), a.dataset == "ffpp"
    if not ffpp and (a.compression or a.manipulations or a.across):
        raise RunError(
            f"--compression, --manipulations and --across belong to ffpp, not to {a.dataset}, of"
            " which all videos are taken"
        )
    if a.scheduler and "LOCAL_RANK" in os.environ:
        raise RunError(
            "torchrun shares one run among its processes and --scheduler hands it to one worker;"
            " take one of the two"
        )
    if ffpp and a.compression and a.compression not in (known := get("ffpp").compressions):
        raise RunError(f"--compression {a.compression}: give one of {', '.join(known)}")
    if profile.pretrained:
        weights.check_named()
    cluster.use(a.scheduler)
    if a.checkpoint:
        os.environ[CHECKPOINT] = "1"  # worker processes inherit it
    chosen = a.manipulations or (paper.ALL_MANIPULATIONS if ffpp else ())
    # In one order, as they are part of the run's name.
    manipulations = tuple(m for m in paper.ALL_MANIPULATIONS if m in chosen)
    (method,) = experiments.methods(profile, [a.method])
    compression = a.compression or ("c23" if ffpp else "")
    table = "table3" if a.across else "table1" if ffpp or fakes else "table2"
    what, how = (method, a.dataset, compression), {"seed": a.seed}
    how["switches"] = switches(method, a.switch, profile.backbone)
    if fakes:
        spec = RunSpec.of_reals(profile, *what, table=table, fakes=fakes, **how)
    else:
        spec = RunSpec.of_table(profile, table, *what, manipulations, **how)
    root = a.root.absolute() if a.root else ""
    with processes() as rank:
        store = in_first_process(
            lambda: data.crops(profile, data.tree(profile, root, a.dataset), a.dataset)
        )
        if a.real:
            usual, spec = spec, spec.long_enough(store, profile.least_updates)
            if rank == 0 and spec != usual:
                said = f"{len(spec.select(store, 'train')) // 2} real videos are few"
                print(f"{said}: {spec.training.epochs} epochs, not {usual.training.epochs}.")
        runs = RunStore(paths.runs(profile.name), profile)
        (run,) = runs.get_all([spec], store)
    if rank == 0:
        best = run.history.query("kept").iloc[-1]
        print(
            f"Epoch {best['epoch']:.0f} of {len(run.history)}: AUC {best['val_auc']:.3f} on the"
            " validation videos."
        )
        if run.at_chance:
            print("It never left chance: by its training loss it has learnt nothing.")
        file = run.folder / "weights.safetensors"
        if file.is_file():
            print(f"Weights: {file}")
        else:
            said = "is not there, only the run's record; remove that folder to train again"
            print(f"Weights: {file} {said}.")
        if a.test:
            videos = Videos(spec.dataset, spec.compression, spec.manipulations)
            scores = run.scores(store, videos.compression)
            learnt = bool(store.meta["synthetic"])
            print(measured(run.key, scores, store, videos, learnt))
    return 0


def switches(method: str, given: Sequence[str], backbone: dict) -> tuple[tuple[str, object], ...]:
    """ "queries=4" and the like as a run has them: sorted, without what the method does anyway, so
    that a table's run is found. Raises RunError for what the method's constructor does not take.
    """
    made = type(registry.build(method, **backbone)).__mro__[::-1]
    named = [p for cls in made[1:] for p in inspect.signature(cls).parameters.values()]
    known = {p.name: p.default for p in named if p.kind is p.KEYWORD_ONLY}
    for name in ("frames", "depth", "width", "stem"):  # the profile's
        known.pop(name, None)
    found = {}
    for name, _, text in (each.partition("=") for each in given):
        if name not in known:
            choice = ", ".join(known) or "none"
            raise RunError(f"{method} has no switch {name!r}; it has {choice}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        usual = known[name]
        value = float(value) if (type(usual), type(value)) == (float, int) else value
        if type(value) is not type(usual):
            kind = type(usual).__name__
            raise RunError(f"--switch {name}={text}: give a {kind}, for example {name}={usual}")
        found[name] = value
    try:
        registry.build(method, **backbone | found)
    except ValueError as error:
        raise RunError(f"--switch {' '.join(given)}: {error}") from error
    return tuple(sorted((name, value) for name, value in found.items() if value != known[name]))


def _fakes(a: Namespace) -> SelfBlended | None:
    """How the pseudo-forgeries are made, None for a dataset's own; puts --real in place."""
    if a.real and (a.root or a.dataset != "ffpp"):
        raise RunError("--real is a folder of real videos, --root a dataset's tree; give one")
    if not a.fakes:
        if a.real or a.jitter is not None:
            raise RunError("--real and --jitter belong to --fakes self-blended; give that too")
        return None
    if a.manipulations:
        raise RunError("--fakes takes the place of a dataset's forgeries; drop --manipulations")
    if a.real and a.test:
        raise RunError("--test needs forgeries to test on, and --real has none; drop one of them")
    if a.real:
        a.dataset, a.root = "folder", a.real.expanduser()
        if not a.root.is_dir():
            raise RunError(f"{a.real}: no such folder; give one that holds real videos")
    check_landmarks()
    fakes = SelfBlended(0.5 if a.jitter is None else a.jitter, default_hull())
    about = (
        "68 landmarks" if fakes.hull == "landmarks" else f"an ellipse, as no ${LANDMARKS} is set"
    )
    print(f"Self-blended: jitter {fakes.jitter:g}; the face is {about}.", flush=True)
    return fakes


def plan(a: Namespace) -> int:
    profile = profiles.get(a.profile, a.seeds)
    if a.measure:
        methods = experiments.methods(profile, a.methods)
        print(f"Wrote {plans.keep(profile, plans.measure_all(profile, methods))}", file=sys.stderr)
    made = plans.selections(profile, a.methods)
    print(json.dumps(made, indent=1) if a.json else plans.text(made, each_run=a.list))
    return 0


def models(a: Namespace) -> int:
    names = registry.available()
    row = f"{{:{2 + max(map(len, names))}}}{{:<6}}{{:9}}{{:13}}{{:>8}}{{:>9}}{{:>8}}  {{}}"
    heads = ("name", "year", "kind", "starts from", "million", "GFLOPs", "ms", "a test video is")
    print(row.format(*heads))
    for name in names:
        about, shown = registry.about(name), costs.sampling(name)
        took = "-" if a.quick else f"{costs.milliseconds(name):.0f}"
        video = f"{shown.test} x {shown.frames} frames"
        video += f", {shown.stride} apart" if shown.stride > 1 else ""
        million = f"{costs.parameters(registry.build(name)):.2f}"
        numbers = (million, f"{costs.gflops(name):.1f}", took)
        print(row.format(name, about.year, about.kind, about.start, *numbers, video))
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if gpu else f"{torch.get_num_threads()} CPU threads"
    print(
        "At 224 px, full size. million: parameters. GFLOPs: multiply-adds per test video. ms: per"
        f" test video on {device}."
    )
    return 0


def bench(a: Namespace) -> int:
    if a.clips and a.what not in ("preprocess", "data"):
        raise RunError(f"bench {a.what} does not look at videos; leave out --clips.")
    measured = import_module(f"dfil.tools.bench.{a.what}")
    result = measured.measure(**({"clips": a.clips} if a.clips else {}))
    print(json.dumps(result, indent=1) if a.json else measured.table(result))
    return 0
