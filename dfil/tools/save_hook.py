"""What JupyterLab calls after it has saved a notebook (`make lab`)."""

from __future__ import annotations

import subprocess
from pathlib import Path


def refresh(model: dict, os_path: str, contents_manager=None) -> subprocess.Popen | None:
    """Have git see that a notebook which was run and saved, and not changed, is unchanged.

    Git compares sizes before it asks the filter that strips outputs, and `git status` calls such a
    file modified. To add it once more stages nothing and ends that; one that was edited, or that
    git does not know, is left alone. It goes on beside the server, since the filter takes a second.
    """
    path = Path(os_path)
    if model.get("type") != "notebook":
        return None
    steps = 'git ls-files --error-unmatch -- "$1" && git diff --quiet -- "$1" && git add -- "$1"'
    return subprocess.Popen(  # the name is an argument, never a part of what the shell reads
        ["sh", "-c", steps, "sh", path.name],
        cwd=path.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
