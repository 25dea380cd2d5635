"""One notebook: executed by papermill in a kernel of its own, measured, and tidied for others."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
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

from dfil.system import paths
from dfil.system.errors import MachineError, machine_fault
from dfil.system.files import atomic

COLUMNS = ["notebook", "status", "seconds", "peak MiB"]
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)[^)\s#]+")  # the file of a relative link in Markdown
LARGEST = 2 * 2**20  # bytes: executed notebooks of the demo profile are published in git


@dataclass(frozen=True)
class Outcome:
    """How one notebook went. error: the last line of what stopped it, empty if nothing did.
    peak: MiB of its process tree. skipped: why it was not run, because its data are not there."""

    notebook: str
    seconds: float = 0.0
    peak: float = 0.0
    error: str = ""
    skipped: str = ""

    @property
    def status(self) -> str:
        return "failed" if self.error else "skipped" if self.skipped else "ok"

    @property
    def row(self) -> dict[str, str]:
        values = (self.notebook, self.status, f"{self.seconds:.1f}", f"{self.peak:.0f}")
        return dict(zip(COLUMNS, values, strict=True))


class _ThisPython(AsyncKernelManager):
    """Starts kernels with the interpreter that runs this: an installed kernelspec "python3" may
    belong to another one, or be missing."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # Warnings of the kernel program itself would come between the lines that are printed.
        quiet = ["--log-level=CRITICAL"]
        command = make_ipkernel_cmd("dfil.tools.kernel", extra_arguments=quiet)
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def run_notebook(
    path: Path, target: Path, values: Mapping[str, object], shorten: PathShortener
) -> Outcome:
    """Execute one notebook into `target`. What stops it is in the outcome and, where a cell raised
    it, in the executed copy. Raises MachineError if the copy cannot be written."""
    # Papermill writes it after each cell; a killed run leaves it.
    running = target.with_name(f".{target.stem}.running.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    start, error = time.monotonic(), ""
    with _PeakMemory() as memory:
        try:
            how = {"cwd": paths.project(), "kernel_manager_class": _ThisPython}
            how |= {"progress_bar": False, "raise_on_iopub_timeout": False}
            papermill.execute_notebook(path, running, parameters=dict(values), **how)
        except PapermillExecutionError as failure:
            error = _last_line(f"{failure.ename}: {failure.evalue}")
        except DeadKernelError:
            held = f"its processes held {memory.mib():.0f} MiB"
            error = f"the kernel died, most often for lack of memory ({held})"
        except KeyboardInterrupt:
            running.unlink(missing_ok=True)  # an earlier whole copy is worth more than half of one
            raise
        except Exception as failure:  # the others must still run; it is told at the end
            if said := machine_fault(failure):
                raise MachineError(said) from failure
            error = _last_line(f"{type(failure).__name__}: {failure}")
    if running.is_file():
        tidy(running, target, shorten)
    return Outcome(path.stem, time.monotonic() - start, memory.mib(), error)


def tidy(executed: Path, target: Path, shorten: PathShortener) -> None:
    """Move an executed notebook to its place without this machine's paths and without the times of
    its cells; warn if it is large."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    about = notebook["metadata"].get("papermill", {})
    kept = ("parameters", "duration", "version")
    notebook["metadata"]["papermill"] = {name: about[name] for name in kept if name in about}
    for cell in notebook["cells"]:
        for name in ("papermill", "execution"):
            cell["metadata"].pop(name, None)
        if "solution" in cell["metadata"].get("tags", []):  # JupyterLab shows what it runs itself
            cell["metadata"].setdefault("jupyter", {})["outputs_hidden"] = True
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["id"] = "injected-parameters"  # else random, and the same results another file
    with atomic(target) as file:
        nbformat.write(nbformat.from_dict(shorten(notebook)), file)
    executed.unlink()
    if (size := target.stat().st_size) > LARGEST:
        said = f"{target} has {size / 2**20:.1f} MiB; smaller figures would keep it below"
        print(f"\nWarning: {said} {LARGEST / 2**20:.0f}.", file=sys.stderr)


def relink(executed: Path, source: Path, place: Path, beside: Collection[str]) -> None:
    """Make the relative links of a notebook out of the folder `source` hold in the folder `place`,
    where its executed copy will be published beside those of the names `beside`."""

    def link(found: re.Match) -> str:
        to = (source / found.group()).resolve()
        near = to.parent == source.resolve() and to.name in beside
        return to.name if near else Path(os.path.relpath(to, place.resolve())).as_posix()

    if not place.resolve().is_relative_to(paths.project()):
        return  # a link from there would tell this machine's folders
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(link, cell.source)
    with atomic(executed) as file:
        nbformat.write(notebook, file)


class _PeakMemory:
    """The largest sum of resident memory that the processes below this one had while the block ran;
    shared pages count in each."""

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
                with suppress(psutil.Error):  # it has ended since it was listed
                    total += process.memory_info().rss
            self.peak = max(self.peak, total)


class PathShortener:
    """Puts `.`, `outputs`, `data`, `$DFIL_FFPP` and `~` for this machine's folders in nested text;
    pictures are left alone."""

    def __init__(self, profile: str, root: str | Path = ""):
        self.short: dict[str, str] = {}
        named = {Path.home(): "~", paths.project(): ".", paths.data(): "data"}
        named[paths.published(profile).parent] = "outputs"
        for name, variable in paths.ROOT_VARIABLES.items():
            if folder := paths.real_root(name):
                named[folder] = f"${variable}"
        if root:
            named[Path(root).expanduser()] = "$DFIL_FFPP"
        for folder, short in named.items():
            self.also(folder, short)

    def also(self, folder: Path, short: str) -> None:
        """Put `short` for one more folder."""
        if len(folder.absolute().parts) > 1:
            self.short[str(folder.absolute())] = short
        longest_first = sorted(self.short, key=len, reverse=True)  # one before the one around it
        self.pattern = re.compile(rf"(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")

    def __call__(self, value):
        if isinstance(value, str):
            return self.pattern.sub(lambda found: self.short[found.group()], value)
        if isinstance(value, list):
            return [self(inner) for inner in value]
        if isinstance(value, dict):
            pairs = value.items()
            return {k: inner if k.startswith("image/") else self(inner) for k, inner in pairs}
        return value


def _last_line(text: str) -> str:
    return [line for line in text.splitlines() if line.strip()][-1].strip()
