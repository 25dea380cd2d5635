"""`dfil selftest faults`: the reproduction killed at random moments ends with the same tables.

A reproduction runs undisturbed. Then the same one begins anew in empty folders, is killed (SIGKILL
of the whole process group, at a moment drawn at random), started again, and so on; the last start
runs to its end. Both use the same folders, one after the other, because some files name them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfil.system.errors import RunError

COMMAND = [sys.executable, "-m", "dfil", "reproduce"]


@dataclass(frozen=True)
class Kill:
    """After how many seconds a start was killed, and the last line that it had printed."""

    seconds: float
    during: str


def faults(
    kills: int, seed: int = 0, profile: str = "smoke", only: Sequence[str] = (), say=print
) -> dict:
    """Kill a reproduction `kills` times. Returns `seconds` (undisturbed), `kills`, and `tables`: by
    file name "same", "differs", "missing" or "new".

    only: notebooks, default all. Raises RunError if a reproduction that is not killed fails.
    """
    chance = random.Random(seed)
    command = [*COMMAND, "--profile", profile]
    command += ["--only", *only] if only else []
    with tempfile.TemporaryDirectory(prefix="dfil-faults-", ignore_cleanup_errors=True) as place:
        home, log = Path(place) / "work", Path(place) / "log"
        tables = home / "outputs" / profile / "tables"
        environment = in_folder(home) | {"PYTHONUNBUFFERED": "1"}
        start = time.monotonic()
        _run(command, environment, log, None)
        seconds = time.monotonic() - start
        undisturbed = _contents(tables)
        say(f"undisturbed: {len(undisturbed)} tables in {seconds:.0f} s")
        shutil.rmtree(home)
        done, left = [], seconds
        while len(done) < kills:
            after = chance.uniform(0.05, 0.95) * left
            if _run(command, environment, log, after):
                say("the reproduction had ended before; it is killed while it runs again")
                shutil.rmtree(home)
                left = seconds
                continue
            # what was done is found again, so less is left; finding it takes time, too
            left = max(left - after, seconds / 3)
            done.append(Kill(round(after, 1), _last_line(log)))
            say(f"kill {len(done)} of {kills} after {after:.0f} s: {done[-1].during}")
        _run(command, environment, log, None)
        disturbed = _contents(tables)
    compared = {}
    for name in sorted(undisturbed | disturbed):
        before, after = undisturbed.get(name), disturbed.get(name)
        same = "same" if before == after else "differs"
        compared[name] = "missing" if after is None else "new" if before is None else same
    return {"seconds": seconds, "kills": done, "tables": compared}


def in_folder(home: Path) -> dict[str, str]:
    """The environment of a process whose data and outputs lie in a folder of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "DFIL_WORK"}
    return kept | {"DFIL_OUTPUTS": f"{home}/outputs", "DFIL_DATA": f"{home}/data"}


def _run(command: list[str], environment: dict, log: Path, after: float | None) -> bool:
    """Whether the reproduction ended by itself; it is killed `after` seconds, or never for None."""
    with log.open("wb") as said:
        how = {"stdout": said, "stderr": said, "start_new_session": True}
        started = subprocess.Popen(command, env=environment, **how)
        try:
            status = started.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
            return False
        except BaseException:
            os.killpg(started.pid, signal.SIGKILL)
            raise
    if status:
        tail = log.read_text(errors="replace")[-2000:]
        raise RunError(f"a reproduction that nobody killed ended with {status}; it said:\n{tail}")
    return True


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "before its first line"
