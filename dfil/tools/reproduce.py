"""Runs the notebooks in the order of their numbers, one kernel each, and keeps what each one took and whether it went well.

outputs/<profile>/notebooks/NN_name.ipynb   executed copies, also of notebooks that failed
outputs/<profile>/status.csv                notebook, status, seconds, peak MiB
outputs/<profile>/environment.json          see dfil.tools.environment
outputs/<profile>/report.html               built once more at the end, so that the last notebook's own row is on it
"""

from __future__ import annotations

import ast
import csv
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import psutil
from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from dfil import profiles
from dfil.results import page
from dfil.system import paths
from dfil.system.errors import RunError
from dfil.system.files import atomic
from dfil.tools import environment, notebook

COLUMNS = ["notebook", "status", "seconds", "peak MiB"]
LARGEST = 2 * 2**20  # bytes: executed notebooks of the demo profile are published in git

# About how long each notebook takes on two cores, in seconds, told before a first run; later ones go by status.csv.
SECONDS = {
    "smoke": {
        "00_start_here": 15,
        "10_snippets_and_inconsistency": 25,
        "12_intra_sim": 15,
        "14_inter_sim": 10,
        "20_preprocess": 10,
        "26_one_model_by_hand": 20,
        "28_temporal_only": 40,
        "29_how_far_it_carries": 45,
        "30_train_faceforensics": 35,
        "32_train_celebdf": 25,
        "34_train_dfdc": 25,
        "36_train_wilddeepfake": 25,
        "38_baselines": 15,
        "40_cross_dataset_auc": 15,
        "42_which_part_is_forged": 15,
        "50_ablation_modules": 15,
        "52_ablation_intra_sim": 15,
        "54_ablation_stages": 15,
        "60_fig3_class_activation": 15,
        "62_fig4_intra_snippet_attention": 15,
        "64_fig5_ut_attention": 15,
        "80_reading_the_paper": 10,
        "90_report": 10,
    },
    "demo": {
        "00_start_here": 10,
        "10_snippets_and_inconsistency": 185,  # the first that needs the clips also makes them
        "12_intra_sim": 20,
        "14_inter_sim": 15,
        "20_preprocess": 175,
        "26_one_model_by_hand": 120,
        "28_temporal_only": 700,
        "29_how_far_it_carries": 900,
        "30_train_faceforensics": 550,
        "32_train_celebdf": 120,
        "34_train_dfdc": 140,
        "36_train_wilddeepfake": 160,
        "38_baselines": 15,
        "40_cross_dataset_auc": 20,
        "42_which_part_is_forged": 20,
        "50_ablation_modules": 550,
        "52_ablation_intra_sim": 630,
        "54_ablation_stages": 780,
        "60_fig3_class_activation": 45,
        "62_fig4_intra_snippet_attention": 35,
        "64_fig5_ut_attention": 30,
        "80_reading_the_paper": 10,
        "90_report": 10,
    },
}


@dataclass(frozen=True)
class Outcome:
    """How one notebook went. error: the last line of what stopped it, empty if nothing did. peak: MiB of its process tree.
    skipped: why it was not run at all, because its data are not there; that is no failure."""

    notebook: str
    seconds: float = 0.0
    peak: float = 0.0
    error: str = ""
    skipped: str = ""

    @property
    def status(self) -> str:
        return "failed" if self.error else "skipped" if self.skipped else "ok"


class _ThisPython(AsyncKernelManager):
    """Starts kernels with the interpreter that runs this: an installed kernelspec "python3" may belong to another one, or be missing."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # Warnings of the kernel program itself would come between the lines that `reproduce` prints.
        return KernelSpec(
            argv=make_ipkernel_cmd(extra_arguments=["--log-level=CRITICAL"]),
            display_name="Python 3",
            language="python",
        )


def reproduce(
    profile: str,
    only: Sequence[str] | None = None,
    root: str | Path = "",
    parameters: Mapping[str, object] | None = None,
    notebooks: str | Path | None = None,
    command: str = "",
) -> int:
    """Execute the notebooks with papermill, the project's folder being the working directory; 0 if all went well, else 1.

    only: numbers or names of notebooks; None runs all. root: a real FaceForensics++ tree, passed to the notebooks that take one.
    parameters: further values by name, passed to the notebooks that declare them. notebooks: their folder, default `notebooks/` of the
    project. command: as typed, for environment.json. A notebook that fails does not stop the others.

    Raises RunError, before anything runs, for a profile, notebook or parameter that does not exist.
    """
    seeds = (parameters or {}).get("seeds", ())
    profiles.get(profile, seeds)
    chosen = select(Path(notebooks) if notebooks else paths.project() / "notebooks", only)
    folder = paths.outputs(profile)
    values = _values(chosen, profile, root, parameters or {})
    for path in chosen if only is not None else ():
        if (
            wanted := nbformat.read(path, 4).metadata.get("dfil", {}).get("on_request")
        ):  # too long for every reproduction
            values[path][wanted] = True
    shorten = PathShortener(profile, root)
    before = read_status(folder / "status.csv")
    print(_forecast(chosen, profile, before), flush=True)
    with atomic(folder / "environment.json") as file:
        file.write_text(
            json.dumps(shorten(environment.describe(profile, root, command, seeds)), indent=1)
            + "\n",
            encoding="utf-8",
        )

    every_name = {path.stem for path in _all(chosen[0].parent)}
    rows = {name: row for name, row in before.items() if name in every_name}
    outcomes: list[Outcome] = []
    for number, path in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {path.stem} ... ", end="", flush=True)
        if lacks := _lacks(path, profiles.get(profile), values[path]):
            outcome = Outcome(path.stem, skipped=lacks)
            print(f"skipped: {lacks}", flush=True)
        else:
            outcome = run_notebook(path, folder / "notebooks" / path.name, values[path], shorten)
            print(
                f"{outcome.status}, {_duration(outcome.seconds)}, {outcome.peak:.0f} MiB",
                flush=True,
            )
        outcomes.append(outcome)
        rows[path.stem] = {
            "notebook": path.stem,
            "status": outcome.status,
            "seconds": f"{outcome.seconds:.1f}",
            "peak MiB": f"{outcome.peak:.0f}",
        }
        _write_status(folder / "status.csv", rows)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(
            f"FAILED {outcome.notebook}: {outcome.error}\n       see {folder / 'notebooks' / outcome.notebook}.ipynb"
        )
    total = _duration(sum(outcome.seconds for outcome in outcomes))
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("ok", "skipped", "failed")
    }
    said = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    print(f"{said}, in {total}. Report: {page.build(folder)}")
    return 1 if failed else 0


def select(folder: Path, only: Sequence[str] | None = None) -> list[Path]:
    """The notebooks of a folder in the order of their numbers, or those of them that `only` names by number or by name.

    Raises RunError if there are none, or none of that number or name.
    """
    every = _all(folder)
    if not every:
        raise RunError(
            f"{folder} holds no notebook: run this in a checkout of the project, or name the folder of its notebooks"
        )
    if only is None:
        return every
    wanted = [str(name).removesuffix(".ipynb") for name in only]
    for name in wanted:
        if not any(name in _names(path) for path in every):
            raise RunError(
                f"no notebook is called {name!r}; choose {', '.join(path.stem for path in every)}"
            )
    return [path for path in every if _names(path) & set(wanted)]


def titles(folder: Path) -> dict[str, str]:
    """The heading of every notebook of a folder by its name, in the order of their numbers."""
    headings = {
        path.stem: nbformat.read(path, 4).cells[0].source.partition("\n")[0].lstrip("# ")
        for path in _all(folder)
    }
    return {
        name: heading.partition("·")[2].strip() or heading for name, heading in headings.items()
    }


def parse_value(text: str) -> object:
    """A parameter typed by a user as a Python value: 3, 0.1, true, [1, 2]; what is none of these stays text."""
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return list(value) if isinstance(value, tuple) else value  # papermill writes no tuples


def run_notebook(
    path: Path, target: Path, values: Mapping[str, object], shorten: PathShortener
) -> Outcome:
    """Execute one notebook into `target`. Whatever stops it is in the outcome and, where a cell raised it, in the executed copy."""
    running = target.with_name(
        f".{target.stem}.running.ipynb"
    )  # papermill writes it after each cell, so a killed run leaves a trace
    target.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    start, error = time.monotonic(), ""
    with _PeakMemory() as memory:
        try:
            papermill.execute_notebook(
                path,
                running,
                parameters=dict(values),
                cwd=paths.project(),
                progress_bar=False,
                kernel_manager_class=_ThisPython,
                raise_on_iopub_timeout=False,
            )
        except PapermillExecutionError as failure:
            error = _last_line(f"{failure.ename}: {failure.evalue}")
        except DeadKernelError:
            error = f"the kernel died, most often for lack of memory (its processes held {memory.mib():.0f} MiB)"
        except KeyboardInterrupt:
            running.unlink(
                missing_ok=True
            )  # an earlier whole copy is worth more than half of this one
            raise
        except (
            Exception
        ) as failure:  # the other notebooks must still run; what happened is told at the end
            error = _last_line(f"{type(failure).__name__}: {failure}")
    if running.is_file():
        publish(running, target, shorten)
    return Outcome(path.stem, time.monotonic() - start, memory.mib(), error)


def publish(executed: Path, target: Path, shorten: PathShortener) -> None:
    """Move an executed notebook to its place without this machine's paths and without the times of its cells; warn if it is large."""
    ran = json.loads(executed.read_text(encoding="utf-8"))
    about = ran["metadata"].get("papermill", {})
    ran["metadata"]["papermill"] = {
        name: about[name] for name in ("parameters", "duration", "version") if name in about
    }
    for cell in ran["cells"]:
        cell["metadata"] = {
            name: value
            for name, value in cell["metadata"].items()
            if name not in ("papermill", "execution")
        }
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["id"] = (
                "injected-parameters"  # papermill draws one at random, and the same results should be the same file
            )
    with atomic(target) as file:
        nbformat.write(nbformat.from_dict(shorten(ran)), file)
    executed.unlink()
    if (size := target.stat().st_size) > LARGEST:
        print(
            f"\nWarning: {target} has {size / 2**20:.1f} MiB; smaller figures would keep it below {LARGEST / 2**20:.0f}.",
            file=sys.stderr,
        )


def read_status(path: Path) -> dict[str, dict[str, str]]:
    """Rows of status.csv by notebook; none if it is not there. One that cannot be used is set aside with a sentence."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            float(row["seconds"])
        return {row["notebook"]: {name: row[name] for name in COLUMNS} for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        print(
            f"{path} does not have the columns {', '.join(COLUMNS)} ({error}); it is written anew.",
            file=sys.stderr,
        )
        return {}


class _PeakMemory:
    """The largest sum of resident memory that the processes below this one had while the block ran; shared pages count in each."""

    def __init__(self, every: float = 0.25):
        self.every, self.peak, self._done = every, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def mib(self) -> float:
        return self.peak / 2**20

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._done.wait(self.every):
            total = 0
            for process in me.children(recursive=True):
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has ended since it was listed
                    continue
            self.peak = max(self.peak, total)


class PathShortener:
    """Puts `.`, `outputs`, `data`, `$DFIL_FFPP` and `~` for this machine's folders in nested text; pictures are left alone."""

    def __init__(self, profile: str, root: str | Path = ""):
        named = {
            Path.home(): "~",
            paths.project(): ".",
            paths.data(): "data",
            paths.outputs(profile).parent: "outputs",
        }
        named |= {
            folder: f"${paths.ROOT_VARIABLES[name]}"
            for name in paths.ROOT_VARIABLES
            if (folder := paths.real_root(name))
        }
        if root:
            named[Path(root).expanduser()] = "$DFIL_FFPP"
        whole = {
            str(folder.absolute()): short
            for folder, short in named.items()
            if len(folder.absolute().parts) > 1
        }
        self.short = dict(
            sorted(whole.items(), key=lambda item: -len(item[0]))
        )  # a folder before the one it lies in
        self.pattern = re.compile(rf"(?:{'|'.join(map(re.escape, self.short))})(?![\w-])")

    def __call__(self, value):
        if isinstance(value, str):
            return self.pattern.sub(lambda found: self.short[found.group()], value)
        if isinstance(value, list):
            return [self(inner) for inner in value]
        if isinstance(value, dict):
            return {
                name: inner if name.startswith("image/") else self(inner)
                for name, inner in value.items()
            }
        return value


def _lacks(path: Path, profile: profiles.Profile, values: Mapping[str, object]) -> str:
    """Why a notebook cannot run here; empty if it can. Its metadata name the dataset that it needs, and the paper's table, or the
    column of one, that then stays empty with this reason: {"dfil": {"needs": "celebdf", "table": "table2", "column": "Celeb-DF"}}.
    """
    about = nbformat.read(path, 4).metadata.get("dfil", {})
    needs = about.get("needs", "")
    root = values.get("root" if needs == "ffpp" else f"{needs.removesuffix('-preview')}_root", "")
    reason = notebook.lacks(profile, needs, str(root)) if needs else ""
    if reason and "table" in about:
        notebook.save_empty_table(profile, about["table"], about.get("column", ""), reason)
    return reason


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9][0-9]_*.ipynb"))


def _names(path: Path) -> set[str]:
    return {path.stem, path.stem.partition("_")[0]}


def _values(
    chosen: Sequence[Path], profile: str, root: str | Path, parameters: Mapping[str, object]
) -> dict[Path, dict[str, object]]:
    """What each notebook is given: the profile, and of the rest what it declares. Papermill itself would only warn."""
    declared = {path: set(papermill.inspect_notebook(path)) for path in chosen}
    given = dict(parameters)
    for name, option in (("profile", "--profile"), ("root", "--root")):
        if name in given:
            raise RunError(f"the parameter {name} has an option of its own: use {option}")
    if root:
        given["root"] = str(Path(root).expanduser().absolute())
    known = set().union(*declared.values())
    for name in given:
        if name not in known:
            there = ", ".join(sorted(known - {"profile"})) or "none besides the profile"
            raise RunError(f"no chosen notebook has a parameter {name!r}; there is {there}")
    return {
        path: {"profile": profile} | {n: v for n, v in given.items() if n in declared[path]}
        for path in chosen
    }


def _forecast(chosen: Sequence[Path], profile: str, before: Mapping[str, Mapping[str, str]]) -> str:
    """One sentence on what will run, and about how long where that is known."""
    known = SECONDS.get(profile, {}) | {
        name: float(row["seconds"]) for name, row in before.items() if row["status"] == "ok"
    }
    names = [path.stem for path in chosen]
    unknown = [name for name in names if name not in known]
    about = (
        f"about {_duration(sum(known[name] for name in names if name in known))}"
        if len(unknown) < len(names)
        else "time unknown"
    )
    rest = f", not counting {', '.join(unknown)}" if unknown and len(unknown) < len(names) else ""
    return f"Profile {profile}: {len(names)} notebook{'s' * (len(names) > 1)} ({', '.join(names)}), {about}{rest}."


def _write_status(path: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


def _last_line(text: str) -> str:
    return [line for line in text.splitlines() if line.strip()][-1].strip()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
