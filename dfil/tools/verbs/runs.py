"""`dfil runs`, `export` and `evaluate`: what can be done with runs that are trained."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import Namespace
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path

from dfil.tools import evaluate as evaluating
from dfil.tools import found
from dfil.tools.evaluate import Videos
from dfil.tools.export import export as write
from dfil.tools.found import Found

HEADS = ("method", "data", "switches", "seed", "val AUC", "test AUC", "n", "age", "folder")


def runs(a: Namespace) -> int:
    there = found.every()
    listed = found.matching(a.words, there)
    if a.json:
        print(json.dumps([_told(each) for each in listed], indent=1))
        return 0
    lines = [_line(each) for each in listed]
    if lines:
        _print_table([HEADS, *lines])
    some = (
        f"{len(listed)} of {len(there)} trained runs" if a.words else f"{len(there)} trained runs"
    )
    print(f"{some}. AUC with its 95 % interval, by person; on the run's own kind of videos.")
    if left := found.unfinished():
        names = ", ".join(folder.name for folder in left[:3])
        print(f"{len(left)} more are in training or were interrupted: {names}")
    for folder in found.damaged():
        print(
            f"{folder}: its run.json, config.json or history.csv is damaged; delete the folder,"
            " train it again"
        )
    if not there:
        print("`dfil train dil --profile smoke` trains one in a minute.")
    return 0


def export(a: Namespace) -> int:
    folder = write(found.one(a.which), a.folder)
    print(f"{folder}: model.safetensors, config.json, preprocessor_config.json, README.md")
    try_it = f"dfil score VIDEO --weights {shlex.quote(str(folder))}"
    print(f"Read the README.md before you pass it on. To try it: {try_it}")
    return 0


def evaluate(a: Namespace) -> int:
    run, where = _run_or_weights(a.which)
    if run:
        spec = run.run.spec
        like = Videos(spec.dataset, spec.compression, spec.manipulations)
    else:
        like = evaluating.learnt_from(where)
    videos = evaluating.chosen(a.dataset, a.compression, a.manipulations, a.split, like)
    where_from = videos, a.root, a.profile or ""
    with redirect_stdout(sys.stderr) if a.json else nullcontext():  # what is said on the way
        if run:
            result = evaluating.of_run(run, *where_from)
        else:
            result = evaluating.of_weights(where, *where_from)
    print(json.dumps(result.as_dict(), indent=1) if a.json else result)
    return 0


def _run_or_weights(which: list[str]) -> tuple[Found | None, str]:
    """The run that words or a path name, or the weights of one's own at a path or on the Hub."""
    where = " ".join(which)
    path = Path(where).expanduser()
    own = path.exists() or path.suffix == ".safetensors" or "/" in where
    if not own:
        return found.one(which), ""
    return found.read(path if path.is_dir() else path.parent), where


def _line(run: Found) -> tuple[str, ...]:
    test = run.test_auc
    measured = ("-", "-") if test is None else (_interval(test), str(test.n))
    age = f"{run.days:.0f} d" if run.days >= 1 else f"{run.days * 24:.0f} h"
    validation = f"{run.validation_auc:.3f}"
    spec, folder = run.run.spec, _short(run.folder)
    name, seed = spec.method, str(spec.seed)
    folder += "" if run.has_weights else " (record only)"
    return name, run.data, run.switches or "-", seed, validation, *measured, age, folder


def _told(run: Found) -> dict:
    spec, test = run.run.spec, run.test_auc
    return {
        "run": run.folder.name,
        "method": spec.method,
        "data": run.data,
        "switches": run.switches,
        "seed": spec.seed,
        "profile": run.settings["profile"],
        "synthetic": run.synthetic,
        "validation_auc": run.validation_auc,
        "test_auc": test and asdict(test),
        "days": round(run.days, 2),
        "weights": run.has_weights,
        "folder": str(run.folder),
    }


def _interval(estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _short(folder: Path) -> str:
    """From the working directory, where that is shorter."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _print_table(lines: list[tuple[str, ...]]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
        print("  ".join([*cells, line[-1]]).rstrip(), file=sys.stdout)
