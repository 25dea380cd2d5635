"""`dfil` alone, `dfil doctor` and `dfil notebooks`: where to begin. Nothing heavy is imported."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import dfil
from dfil.system import paths
from dfil.system.errors import DataError
from dfil.tools import doctor as checks
from dfil.tools import shipped

STUDY = "study"  # the profile of `dfil study`


def next_steps(a: Namespace) -> int:
    """What is there, and what can be done next, the likeliest first."""
    print(f"dfil {dfil.__version__}. `dfil --help` lists all verbs.\n")
    for said, commands in _state():
        print(said)
        for command, what in commands:
            print(f"  {command:48}  {what}")
    return 0


def _state() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    top = paths.published("demo").parent
    every = sorted(top.glob("*/runs/*/run.json"), key=lambda file: -file.stat().st_mtime)
    runs = [file for file in every if file.parts[-4] != STUDY]  # a checkout brings the study's
    begun = [f for f in top.glob("*/runs/*/checkpoint.pt") if not (f.parent / "run.json").is_file()]
    crops = sorted(paths.data().glob("crops/*/index.parquet"))
    reports = sorted(top.glob("*/report.html"))
    trained = [file for file in runs if file.with_name("weights.safetensors").is_file()]
    if not trained and not crops:
        yield (
            "No data and no trained models here yet:",
            [
                ("dfil doctor", "is all there that is needed?"),
                ("dfil score VIDEO", "try the detector that came along (synthetic clips only)"),
                ("dfil reproduce --profile smoke", "every notebook at its smallest size, minutes"),
                ("dfil notebooks FOLDER", "the notebooks, to open in JupyterLab"),
                ("dfil data check ffpp --root TREE", "you have a real dataset"),
            ],
        )
    if runs:
        end = (trained or runs)[0].parent.name.rpartition("-")[2]
        only = "" if trained else " (records, without their weights)"
        steps = [
            ("dfil runs", "all of them, with their numbers"),
            (f"dfil evaluate {end}", "test figures of the latest, with intervals"),
        ]
        if trained:
            steps.append((f"dfil export {end} FOLDER", "its weights with a model card, for others"))
            steps.append(("dfil score VIDEO --weights FOLDER", "a video of your own"))
        yield f"{_count(runs, 'trained run')} in {_near(top)}{only}:", steps
    if begun:
        names = ", ".join(file.parent.name for file in begun[:3])
        yield f"{_count(begun, 'training')} not ended ({names}): the same command goes on.", []
    if crops:
        stores = ", ".join(file.parent.name for file in crops[:3])
        step = ("dfil train dil --test", "a model on the demo's clips, and its test figures")
        yield f"{_count(crops, 'crop store')} in {_near(paths.data())} ({stores}):", [step]
    if (trained or crops) and all(file.parent.name == STUDY for file in reports):
        step = ("dfil reproduce", "all notebooks, tables and the report: about 32 minutes")
        yield "No report yet:", [step]
    if study := [file for file in every if file not in runs]:
        steps = [
            (f"dfil runs {STUDY}", "all of them, with their numbers"),
            ("dfil verify", "the published tables and claims, computed from them again"),
        ]
        yield f"{_count(study, 'record')} of the study in {_near(top / STUDY)}:", steps
    for report in reports[:3]:
        yield f"Open {_near(report)}", []


def doctor(a: Namespace) -> int:
    found = []
    for each in checks.examine():
        found.append(each)
        if not a.json:
            print(f"{each.state:7} {each.name:11} {each.said}", flush=True)
            if each.todo:
                print(f"{'':19} -> {each.todo}")
    if a.json:
        print(json.dumps([asdict(each) for each in found], indent=1))
    failed = [each.name for each in found if each.state == checks.FAILED]
    if not a.json:
        what = f"Not ready: {', '.join(failed)}." if failed else "Ready."
        print(what)
    return 1 if failed else 0


def notebooks(a: Namespace) -> int:
    """A copy of the notebooks, those of the checkout or those that came with the package."""
    folder = a.folder.expanduser()
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: a file; name a folder for the notebooks")
    copied, kept = shipped.copy(folder)
    print(
        f"{len(copied)} notebooks in {folder}"
        + f"; {len(kept)} were there and are kept" * bool(kept)
    )
    print(f"jupyter lab {shlex.quote(_near(folder / '00_start_here.ipynb'))}")
    return 0


def _count(things: list, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _near(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
