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
import csv
import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import papermill

from dfil import profiles
from dfil.datasets import load_records
from dfil.results import page
from dfil.system import paths
from dfil.system.errors import RunError
from dfil.system.files import atomic, require_room
from dfil.system.locks import owner
from dfil.tools import environment, notebook, plan, shipped
from dfil.tools.execute import COLUMNS, Outcome, PathShortener, run_notebook
from dfil.tools.publish import publish, take_back, workplace
from dfil.train import data

# About how long each takes on two cores, in seconds, until status.csv knows: smoke, demo.
SECONDS = {
    "00_start_here": (15, 10),
    "10_snippets_and_inconsistency": (25, 185),
    "12_intra_sim": (15, 20),
    "14_inter_sim": (10, 15),
    "20_preprocess": (10, 175),
    "26_one_model_by_hand": (20, 120),
    "28_temporal_only": (40, 700),
    "29_how_far_it_carries": (45, 900),
    "30_train_faceforensics": (35, 550),
    "32_train_celebdf": (25, 120),
    "34_train_dfdc": (25, 140),
    "36_train_wilddeepfake": (25, 160),
    "38_baselines": (15, 15),
    "40_cross_dataset_auc": (15, 20),
    "42_which_part_is_forged": (15, 20),
    "50_ablation_modules": (15, 550),
    "52_ablation_intra_sim": (15, 630),
    "54_ablation_stages": (15, 780),
    "60_fig3_class_activation": (15, 45),
    "62_fig4_intra_snippet_attention": (15, 35),
    "64_fig5_ut_attention": (15, 30),
    "70_score_your_own_video": (60, 60),
    "72_no_forgery": (90, 1800),
    "74_robustness": (60, 900),
    "80_reading_the_paper": (10, 10),
    "90_report": (10, 10),
}


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
    chosen = select(Path(notebooks) if notebooks else shipped.folder(), only)
    root = Path(root).expanduser().absolute() if root else ""
    values = _values(chosen, profile, root, parameters or {})
    if only is not None:  # what is too long for every reproduction
        for path in chosen:
            if wanted := _about(path).get("on_request"):
                values[path][wanted] = True
    needing = [path for path in chosen if _about(path).get("needs")]
    lacks = {path: _lacks(path, scale, values[path]) for path in needing}
    _refuse(scale, root, lacks)
    if only is None:
        lacks = _on_request(chosen, scale) | {path: why for path, why in lacks.items() if why}
    shorten = PathShortener(profile, root)
    published = paths.published(profile)
    with owner(published, f"dfil reproduce --profile {profile}"), workplace():
        shorten.also(paths.outputs(profile).parent, "outputs")
        before = read_status(published / "status.csv")
        about = shorten(environment.describe(profile, root, command, seeds))
        like = _options(about) == _options(_environment(published))
        usual = not root and not parameters
        run = [path for path in chosen if not lacks.get(path)]
        print(_forecast(run, profile, before if like else {}, usual), flush=True)
        _write_environment(paths.outputs(profile), about)  # the report's notebook shows it
        every_name = {path.stem for path in _all(chosen[0].parent)}
        rows = {name: row for name, row in before.items() if name in every_name}
        outcomes: list[Outcome] = []
        for number, path in enumerate(chosen, 1):
            print(f"[{number}/{len(chosen)}] {path.stem} ... ", end="", flush=True)
            if lacks.get(path):
                outcomes.append(_skip(path, scale, lacks[path]))
            else:
                outcomes.append(_run(path, profile, values[path], shorten))
            rows[path.stem] = outcomes[-1].row
            for folder in (published, paths.outputs(profile)):
                _write_status(folder / "status.csv", rows)
                if outcomes[-1].status == "ok":
                    _write_environment(folder, about)
        report = page.build(published)
    for outcome in outcomes:
        if outcome.error:
            print(f"FAILED {outcome.notebook}: {outcome.error}")
            print(f"       see {_failed_copy(published, outcome.notebook)}")
    statuses = [outcome.status for outcome in outcomes]
    counts = {status: statuses.count(status) for status in ("ok", "skipped", "failed")}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    total = _duration(sum(outcome.seconds for outcome in outcomes))
    print(f"{said}, in {total}. Report: {report}")
    return 1 if counts["failed"] or not counts["ok"] or (only and counts["skipped"]) else 0


def _skip(path: Path, profile: profiles.Profile, reason: str) -> Outcome:
    """Leave out a notebook without data; the table that its metadata name stays empty, and says
    why: {"needs": "celebdf", "table": "table2", "column": "Celeb-DF"}."""
    about = _about(path)
    if "table" in about:
        notebook.save_empty_table(profile, about["table"], about.get("column", ""), reason)
        publish(profile.name)
    print(f"skipped: {reason}", flush=True)
    return Outcome(path.stem, skipped=reason)


def _run(path: Path, profile: str, values: Mapping[str, object], shorten: PathShortener) -> Outcome:
    """Run one notebook and publish what it made, or take back what it made before it failed."""
    work, published = paths.outputs(profile), paths.published(profile)
    copy, failed = work / "notebooks" / path.name, _failed_copy(published, path.stem)
    outcome = run_notebook(path, copy, values, shorten)
    if outcome.error:
        if copy.is_file():
            failed.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(copy, failed)
        take_back(profile)
    else:
        publish(profile)
        failed.unlink(missing_ok=True)
    print(f"{outcome.status}, {_duration(outcome.seconds)}, {outcome.peak:.0f} MiB", flush=True)
    return outcome


def _failed_copy(published: Path, name: str) -> Path:
    return published / "notebooks" / f"{name}.failed.ipynb"


def _refuse(profile: profiles.Profile, root: str | Path, lacks: Mapping[Path, str]) -> None:
    """Raise what stands against this call, as far as it can be known before anything runs.

    lacks: of the notebooks that need data, why they cannot run; empty for those that can.
    """
    if root:
        if said := data.absent(profile, root):
            raise RunError(said)
        load_records("ffpp", root)
    if lacks and all(lacks.values()):
        raise RunError(next(iter(lacks.values())))
    there = {name: Path(root) for name in ("ffpp",) if root}
    if not profile.trees:
        for name in paths.ROOT_VARIABLES:
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
    wanted = [str(name).removesuffix(".ipynb") for name in only]
    for name in wanted:
        if not any(name in _names(path) for path in every):
            there = ", ".join(path.stem for path in every)
            raise RunError(f"no notebook is called {name!r}; choose {there}")
    return [path for path in every if _names(path) & set(wanted)]


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
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            float(row["seconds"])
        return {row["notebook"]: {name: row[name] for name in COLUMNS} for row in rows}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        columns = ", ".join(COLUMNS)
        print(
            f"{path} does not have the columns {columns} ({error}); it is written anew.",
            file=sys.stderr,
        )
        return {}


def _about(path: Path) -> dict:
    """What a notebook's metadata say to this program: the dataset or built-in tree that it needs,
    the table that stays empty without, a switch to be set on_request."""
    return nbformat.read(path, 4).metadata.get("dfil", {})


def _lacks(path: Path, profile: profiles.Profile, values: Mapping[str, object]) -> str:
    """Why a notebook cannot run here, because of a tree that is not there. Empty if it can."""
    needs = _about(path)["needs"]
    named = "root" if needs == "ffpp" else f"{needs.removesuffix('-preview')}_root"
    return notebook.lacks(profile, needs, str(values.get(named, "")))


def _on_request(chosen: Sequence[Path], profile: profiles.Profile) -> dict[Path, str]:
    """The notebooks that a profile leaves to a call of their own, with the sentence that says
    so.
    """
    said = "trained on request: dfil reproduce --profile {} --only {}"
    numbers = {path: path.stem.partition("_")[0] for path in chosen}
    return {
        path: said.format(profile.name, number)
        for path, number in numbers.items()
        if number in profile.on_request
    }


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def _names(path: Path) -> set[str]:
    return {path.stem, path.stem.partition("_")[0]}


def _values(
    chosen: Sequence[Path], profile: str, root: str | Path, parameters: Mapping[str, object]
) -> dict[Path, dict[str, object]]:
    """What each notebook is given: the profile, and of the rest what it declares. Papermill itself
    would only warn."""
    declared = {path: set(papermill.inspect_notebook(path)) for path in chosen}
    given = dict(parameters)
    for name, option in (("profile", "--profile"), ("root", "--root")):
        if name in given:
            raise RunError(f"the parameter {name} has an option of its own: use {option}")
    if root:
        given["root"] = str(root)
    known = set().union(*declared.values())
    for name in given:
        if name not in known:
            there = ", ".join(sorted(known - {"profile"})) or "none besides the profile"
            raise RunError(f"no chosen notebook has a parameter {name!r}; there is {there}")
    return {
        path: {"profile": profile} | {n: v for n, v in given.items() if n in declared[path]}
        for path in chosen
    }


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
    except (OSError, ValueError, TypeError):  # it is written anew
        return {}


def _forecast(
    chosen: Sequence[Path], profile: str, before: Mapping[str, Mapping], usual: bool = True
) -> str:
    """One sentence on what will run, and about how long where that is known.

    before: rows of status.csv of calls like this one, of which those that went well count. usual:
    without a tree or parameters of one's own, for which SECONDS holds.
    """
    column = {"smoke": 0, "demo": 1}.get(profile) if usual else None
    known = {} if column is None else {name: took[column] for name, took in SECONDS.items()}
    known |= {n: float(row["seconds"]) for n, row in before.items() if row["status"] == "ok"}
    names = [path.stem for path in chosen]
    unknown = [name for name in names if name not in known]
    sure = [known[name] for name in names if name in known]
    about = f"about {_duration(sum(sure))}" if sure else "time unknown"
    rest = f", not counting {', '.join(unknown)}" if unknown and sure else ""
    count = f"{len(names)} notebook{'s' * (len(names) > 1)}"
    return f"Profile {profile}: {count} ({', '.join(names)}), {about}{rest}."


def _write_environment(folder: Path, about: dict) -> None:
    with atomic(folder / "environment.json") as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _write_status(path: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
