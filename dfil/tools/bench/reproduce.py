"""`dfil bench reproduce`: the whole reproduction at the smallest size, from nothing, and where its time goes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dfil.system.cores import cores
from dfil.tools.reproduce import read_status


def measure(profile: str = "smoke") -> dict:
    """Run every notebook of a profile once in empty folders. Returns cores, seconds, status (0 = all went well), and per notebook seconds,
    share of the total and peak MiB; the published outputs are not touched."""
    with tempfile.TemporaryDirectory(prefix="dfil-bench-") as folder:
        environment = os.environ | {
            "DFIL_OUTPUTS": f"{folder}/outputs",
            "DFIL_DATA": f"{folder}/data",
        }
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "dfil", "reproduce", "--profile", profile],
            env=environment,
            stdout=sys.stderr,
        )
        seconds = time.perf_counter() - start
        rows = read_status(Path(folder) / "outputs" / profile / "status.csv").values()
    notebooks = [
        {
            "notebook": row["notebook"],
            "status": row["status"],
            "seconds": float(row["seconds"]),
            "share": float(row["seconds"]) / seconds,
            "peak_mib": float(row["peak MiB"]),
        }
        for row in rows
    ]
    return {
        "profile": profile,
        "cores": cores(),
        "status": done.returncode,
        "seconds": seconds,
        "notebooks": notebooks,
    }


def table(result: dict) -> str:
    """The result as text, the longest notebook first."""
    lines = [
        f"{result['profile']} from nothing on {result['cores']} cores: {result['seconds']:.0f} s, exit status {result['status']}"
    ]
    for row in sorted(result["notebooks"], key=lambda row: -row["seconds"]):
        lines.append(
            f"{row['notebook']:36}{row['status']:9}{row['seconds']:7.1f} s{row['share']:7.0%}{row['peak_mib']:8.0f} MiB"
        )
    return "\n".join(lines)
