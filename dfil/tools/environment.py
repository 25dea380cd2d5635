"""Where and with what a result was made: what the report page shows, and the line that ends every
notebook."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

import psutil
import torch

import dfil
from dfil import profiles
from dfil.datasets import is_synthetic
from dfil.system import paths
from dfil.system.cores import cores


def describe(
    profile: str, root: str | Path = "", command: str = "", seeds: Sequence[int] = ()
) -> dict:
    """Names and values for environment.json.

    root: the real tree given for this run, empty for none. seeds: those asked for, empty for the
    profile's. `synthetic` is true if the built-in clips are used: the profile has some and no root
    is given, or the tree that is read was written by dfil.synthetic. Raises RunError for an unknown
    profile.
    """
    chosen = profiles.get(profile, seeds)
    used = Path(root).expanduser() if root else None if chosen.trees else paths.real_root("ffpp")
    return {
        "profile": chosen.name,
        "what": chosen.what,
        "synthetic": is_synthetic(used) if used else bool(chosen.trees),
        "command": command,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit(),
        "seeds": list(chosen.seeds),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu(),
        "cores": cores(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "gpu": _gpu(),
        "packages": versions(),
    }


def stamp() -> str:
    """One line for a notebook's last cell: the versions that decide its numbers and the device."""
    named = ("torch", "torchvision", "numpy", "opencv-python-headless", "av", "scikit-learn")
    there, python = versions(), f"Python {platform.python_version()}"
    packages = (f"{name} {there[name]}" for name in named)
    return ", ".join([f"dfil {dfil.__version__}", python, *packages, f"GPU {_gpu()}"])


def versions() -> dict[str, str]:
    """Installed versions of dfil and of the packages it requires, by name."""
    required = [line for line in metadata.requires("dfil") or [] if "extra ==" not in line]
    names = [re.match(r"[\w.-]+", line).group() for line in required]
    return {"dfil": dfil.__version__, **{name: metadata.version(name) for name in names}}


def commit() -> str:
    """The checkout's git commit, followed by + if tracked files other than outputs/ differ from it;
    empty outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.project()), *arguments]
        how = {"capture_output": True, "text": True, "check": True, "timeout": 60}
        return subprocess.run(command, **how).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!outputs")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, no commit yet
        return ""


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _gpu() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "Apple MPS" if torch.backends.mps.is_available() else "none"
