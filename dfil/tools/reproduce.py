"""Runs the notebooks in the order of their numbers, one kernel each, and publishes what they made.

outputs/<profile>/notebooks/NN_name.ipynb         executed copies
outputs/<profile>/notebooks/NN_name.failed.ipynb  of a notebook that failed; gone when it goes well
outputs/<profile>/status.csv                      notebook, status, seconds, peak MiB
outputs/<profile>/environment.json                see dfil.tools.environment
outputs/<profile>/report.html                     built once more at the end, with all rows on it

Notebooks write to a folder of work; a notebook that fails changes nothing that is published.
"""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import papermill

from dfil import profiles
from dfil.datasets import load_records
from dfil.models import weights
from dfil.profiles import Profile
from dfil.results import page
from dfil.system import paths
from dfil.system.errors import RunError
from dfil.system.files import atomic, require_room
from dfil.system.locks import owner
from dfil.tools import environment, notebook, plan, shipped
from dfil.tools.execute import COLUMNS, Outcome, PathShortener, relink, run_notebook
from dfil.tools.publish import publish, take_back, workplace
from dfil.train import data

# About how long each takes on two cores, in seconds, until status.csv knows: number, smoke, demo.
_TIMES = """
00 15 15, 10 25 175, 12 15 20, 14 10 15, 20 10 20, 26 20 320, 28 40 640, 29 45 1800, 30 35 200,
32 25 140, 34 25 145, 36 25 140, 38 15 25, 40 15 2000, 42 15 25, 50 15 3500, 52 15 3000,
54 15 4500, 60 15 75, 62 15 35, 64 15 60, 70 60 60, 72 90 1500, 74 60 430, 80 10 10, 90 10 10
"""
SECONDS = {row.split()[0]: [int(n) for n in row.split()[1:]] for row in _TIMES.split(",")}


@dataclass
class _Job:
    """A notebook that was chosen. about: what its metadata say to this program: the dataset or
    built-in tree that it `needs`, the `table` (and `column`) that stays empty without, a switch to
    be set `on_request`. values: the parameters it is given. lacks: why it cannot run here."""

    path: Path
    about: dict
    values: dict[str, object]
    lacks: str = ""

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return _number(self.path)


def reproduce(
    profile: str,
    only: Sequence[str] | None = None,
    root: str | Path = "",
    parameters: Mapping[str, object] | None = None,
    notebooks: str | Path | None = None,
    command: str = "",
) -> int:
    """Execute the notebooks with papermill, the project's folder being the working directory; 0 if
    all went well and all that `only` names could be run, else 1.

    only: numbers or names of notebooks; None runs all. root: a real FaceForensics++ tree, passed to
    the notebooks that take one. parameters: further values by name, passed to the notebooks that
    declare them. notebooks: their folder, default the project's, or those that came along. command:
    as typed, for environment.json. A notebook that fails does not stop the others. Of two calls
    with one profile the second waits.

    Raises, before anything runs, RunError for a profile, notebook or parameter that does not exist
    and for a profile without any data, DataError for a tree that cannot be read, and MachineError
    if the disk has not enough room or a folder cannot be written.
    """
    paths.fix()
    seeds = (parameters or {}).get("seeds", ())
    scale = profiles.get(profile, seeds)
    folder = Path(notebooks) if notebooks else shipped.folder()
    root = Path(root).expanduser().absolute() if root else ""
    jobs = _jobs(select(folder, only), scale, root, parameters or {})
    _refuse(scale, root, [job for job in jobs if job.about.get("needs")])
    for job in jobs:
        if only is None and job.number in scale.on_request:
            asking = f"dfil reproduce --profile {profile} --only {job.number}"
            job.lacks = job.lacks or f"trained on request: {asking}"
        elif only is not None and (wanted := job.about.get("on_request")):
            job.values[wanted] = True  # what is too long for every reproduction
    shorten = PathShortener(profile, root)
    published = paths.published(profile)
    with owner(published, f"dfil reproduce --profile {profile}"), workplace():
        shorten.also(paths.outputs(profile).parent, "outputs")
        before = read_status(published / "status.csv")
        about = shorten(environment.describe(profile, root, command, seeds))
        like = _options(about) == _options(_environment(published))
        todo, usual = [job.path for job in jobs if not job.lacks], not root and not parameters
        print(_forecast(todo, profile, before if like else {}, usual), flush=True)
        _write_environment(paths.outputs(profile), about)  # the report's notebook shows it
        every_name = {path.stem for path in _all(folder)}
        rows = {name: row for name, row in before.items() if name in every_name}
        outcomes: list[Outcome] = []
        for number, job in enumerate(jobs, 1):
            print(f"[{number}/{len(jobs)}] {job.name} ... ", end="", flush=True)
            beside = {each.path.name for each in jobs if not each.lacks}
            ran = _skip(job, scale) if job.lacks else _run(job, profile, shorten, beside)
            outcomes.append(ran)
            kept = (published / "notebooks" / job.path.name).is_file()  # of an earlier call
            if not (outcomes[-1].skipped and kept and _went_well(rows.get(job.name))):
                rows[job.name] = outcomes[-1].row
            for place in (published, paths.outputs(profile)):
                _write_status(place / "status.csv", rows)
                if outcomes[-1].status == "ok":
                    _write_environment(place, about)
        report = page.build(published)
    for outcome in outcomes:
        if outcome.error:
            print(f"FAILED {outcome.notebook}: {outcome.error}")
            print(f"       see {_failed_copy(published, outcome.notebook)}")
    counts = Counter(outcome.status for outcome in outcomes)
    said = ", ".join(f"{counts[how]} {how}" for how in ("ok", "skipped", "failed") if counts[how])
    total = _duration(sum(outcome.seconds for outcome in outcomes))
    print(f"{said}, in {total}. Report: {report}")
    return 1 if counts["failed"] or not counts["ok"] or (only and counts["skipped"]) else 0


def _jobs(
    chosen: Sequence[Path], profile: Profile, root: str | Path, parameters: Mapping[str, object]
) -> list[_Job]:
    """The notebooks with what they are given: the profile, and of the rest what each declares.
    Papermill itself would only warn of a name that none has."""
    for name, option in (("profile", "--profile"), ("root", "--root")):
        if name in parameters:
            raise RunError(f"the parameter {name} has an option of its own: use {option}")
    given = dict(parameters) | ({"root": str(root)} if root else {})
    declared = {path: set(papermill.inspect_notebook(path)) for path in chosen}
    known = set().union(*declared.values())
    if unknown := [name for name in given if name not in known]:
        there = ", ".join(sorted(known - {"profile"})) or "none besides the profile"
        raise RunError(f"no chosen notebook has a parameter {unknown[0]!r}; there is {there}")
    jobs = []
    for path, names in declared.items():
        about = nbformat.read(path, 4).metadata.get("dfil", {})
        values = {"profile": profile.name} | {n: v for n, v in given.items() if n in names}
        job = _Job(path, about, values)
        if needs := about.get("needs"):
            named = "root" if needs == "ffpp" else f"{needs.removesuffix('-preview')}_root"
            job.lacks = notebook.lacks(profile, needs, str(values.get(named, "")))
        jobs.append(job)
    return jobs


def _skip(job: _Job, profile: Profile) -> Outcome:
    """Leave out a notebook without data; the table that its metadata name stays empty, and says
    why."""
    if table := job.about.get("table"):
        notebook.save_empty_table(profile, table, job.about.get("column", ""), job.lacks)
        publish(profile.name)
    print(f"skipped: {job.lacks}", flush=True)
    return Outcome(job.name, skipped=job.lacks)


def _run(job: _Job, profile: str, shorten: PathShortener, beside: set[str]) -> Outcome:
    """Run one notebook and publish what it made, or take back what it made before it failed.

    beside: the names of those that this call runs; to others it links where they are published, and
    else where they come from.
    """
    work, published, source = paths.outputs(profile), paths.published(profile), job.path.parent
    copy, failed = work / "notebooks" / job.path.name, _failed_copy(published, job.name)
    outcome = run_notebook(job.path, copy, job.values, shorten)
    if outcome.error:
        if copy.is_file():
            failed.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copy, failed)
        take_back(profile)
    else:
        made = {path.name for path in _all(published / "notebooks")}
        relink(copy, source, published / "notebooks", beside | made)
        publish(profile)
        failed.unlink(missing_ok=True)
    print(f"{outcome.status}, {_duration(outcome.seconds)}, {outcome.peak:.0f} MiB", flush=True)
    return outcome


def _failed_copy(published: Path, name: str) -> Path:
    return published / "notebooks" / f"{name}.failed.ipynb"


def _refuse(profile: Profile, root: str | Path, needing: Sequence[_Job]) -> None:
    """Raise what stands against this call, as far as it can be known before anything runs."""
    if root:
        if said := data.absent(profile, root):
            raise RunError(said)
        load_records("ffpp", root)
    if profile.pretrained:
        weights.check_named()
    if needing and all(job.lacks for job in needing):
        raise RunError(needing[0].lacks)
    there = {"ffpp": Path(root)} if root else {}
    for name in () if profile.trees else paths.ROOT_VARIABLES:
        if name not in there and (named := paths.real_root(name)):
            if not any(named.iterdir()):
                raise RunError(f"{named}: the folder of {name} is empty; is its disk mounted?")
            there[name] = named
    folder, needed = paths.data(), plan.gigabytes_to_come(profile, there)
    require_room(folder, needed, f"the crops and runs of the profile {profile.name}")


def select(folder: Path, only: Sequence[str] | None = None) -> list[Path]:
    """The notebooks of a folder in the order of their numbers, or those that `only` names by number
    or by name. Raises RunError if there are none, or none of that number or name."""
    every = _all(folder)
    if not every:
        raise RunError(
            f"{folder} holds no notebook: run this in a checkout of the project, or name the folder"
            " of its notebooks"
        )
    if only is None:
        return every
    wanted = {str(name).removesuffix(".ipynb") for name in only}
    names = {path: {path.stem, _number(path)} for path in every}
    for name in sorted(wanted - set().union(*names.values())):
        there = ", ".join(path.stem for path in every)
        raise RunError(f"no notebook is called {name!r}; choose {there}")
    return [path for path in every if names[path] & wanted]


def titles(folder: Path) -> dict[str, str]:
    """The heading of every notebook of a folder by its name, in the order of their numbers."""
    found = {}
    for path in _all(folder):
        heading = nbformat.read(path, 4).cells[0].source.partition("\n")[0].lstrip("# ")
        found[path.stem] = heading.partition("·")[2].strip() or heading
    return found


def parse_value(text: str) -> object:
    """A parameter typed by a user as a Python value: 3, 0.1, true, [1, 2]; else it stays text."""
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return list(value) if isinstance(value, tuple) else value  # papermill writes no tuples


def read_status(path: Path) -> dict[str, dict[str, str]]:
    """Rows of status.csv by notebook; none if it is not there, or, with a sentence, not usable."""
    if not path.is_file():
        return {}
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)[COLUMNS]
        rows["seconds"].astype(float)
    except (KeyError, ValueError) as error:
        said = f"does not have the columns {', '.join(COLUMNS)} ({error}); it is written anew."
        print(f"{path} {said}", file=sys.stderr)
        return {}
    return {row["notebook"]: row for row in rows.to_dict("records")}


def _went_well(row: Mapping[str, str] | None) -> bool:
    return bool(row) and row["status"] == "ok"


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def _number(path: Path) -> str:
    return path.stem.partition("_")[0]


def _options(about: Mapping) -> list[str]:
    """The command of an environment.json without the notebooks' names: calls that share the rest
    take equally long."""
    kept, words = [], iter(shlex.split(str(about.get("command", ""))))
    names = False
    for word in words:
        names = word == "--only" or (names and not word.startswith("-"))
        kept += [] if names else [word]
    return kept


def _environment(folder: Path) -> dict:
    try:
        return dict(json.loads((folder / "environment.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):  # it is written anew
        return {}


def _forecast(
    chosen: Sequence[Path], profile: str, before: Mapping[str, Mapping], usual: bool = True
) -> str:
    """One sentence on what will run, and about how long where that is known.

    before: rows of status.csv of calls like this one, of which those that went well count. usual:
    without a tree or parameters of one's own, for which SECONDS holds.
    """
    column, known = {"smoke": 0, "demo": 1}.get(profile) if usual else None, {}
    for path in chosen:
        if (row := before.get(path.stem)) and row["status"] == "ok":
            known[path.stem] = float(row["seconds"])
        elif column is not None and _number(path) in SECONDS:
            known[path.stem] = SECONDS[_number(path)][column]
    names = [path.stem for path in chosen]
    unknown = [name for name in names if name not in known]
    about = f"about {_duration(sum(known.values()))}" if known else "time unknown"
    rest = f", not counting {', '.join(unknown)}" if unknown and known else ""
    count = f"{len(names)} notebook{'s' * (len(names) > 1)}"
    return f"Profile {profile}: {count} ({', '.join(names)}), {about}{rest}."


def _write_environment(folder: Path, about: dict) -> None:
    with atomic(folder / "environment.json") as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _write_status(path: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    table = pd.DataFrame([rows[name] for name in sorted(rows)], columns=COLUMNS)
    with atomic(path) as part:
        table.to_csv(part, index=False, lineterminator="\n")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
