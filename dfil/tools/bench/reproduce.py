"""`dfil bench reproduce`: the whole reproduction at the smallest size, from nothing, and where its
time goes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dfil.system.cores import cores
from dfil.tools.faults import COMMAND, in_folder
from dfil.tools.reproduce import read_status


def measure(profile: str = "smoke") -> dict:
    """Run every notebook of a profile once in empty folders. Returns cores, seconds, status (0 =
    all went well), and per notebook seconds, share of the total and peak MiB; the published outputs
    are not touched."""
    with tempfile.TemporaryDirectory(prefix="dfil-bench-") as folder:
        start, command = time.perf_counter(), [*COMMAND, "--profile", profile]
        done = subprocess.run(command, env=in_folder(Path(folder)), stdout=sys.stderr)
        seconds = time.perf_counter() - start
        rows = read_status(Path(folder) / "outputs" / profile / "status.csv").values()
    notebooks = []
    for row in rows:
        took, peak = float(row["seconds"]), float(row["peak MiB"])
        about = {"notebook": row["notebook"], "status": row["status"]}
        notebooks.append(about | {"seconds": took, "share": took / seconds, "peak_mib": peak})
    about = {"profile": profile, "cores": cores(), "status": done.returncode}
    return about | {"seconds": seconds, "notebooks": notebooks}


def table(result: dict) -> str:
    """The result as text, the longest notebook first."""
    where = f"{result['profile']} from nothing on {result['cores']} cores"
    lines = [f"{where}: {result['seconds']:.0f} s, exit status {result['status']}"]
    row = "{notebook:36}{status:9}{seconds:7.1f} s{share:7.0%}{peak_mib:8.0f} MiB"
    longest_first = sorted(result["notebooks"], key=lambda each: -each["seconds"])
    return "\n".join([*lines, *(row.format(**each) for each in longest_first)])
