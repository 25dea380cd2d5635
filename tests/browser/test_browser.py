"""Every notebook in JupyterLab: no error, all figures and widgets, nothing cut off or too long."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from lab import PROJECT, executed

STORED = sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
LIVE = os.environ.get("DFIL_LIVE", "00,10,12,14").split(",")  # numbers, or all


def status(root):
    call = ["git", "status", "--porcelain"]
    return subprocess.run(call, cwd=root, capture_output=True, text=True, check=True).stdout


def is_live(path):
    return "all" in LIVE or path.name[:2] in LIVE


@pytest.mark.parametrize("path", executed() or [None], ids=lambda path: path and path.stem)
def test_an_executed_notebook_reads_well_in_light_and_dark(lab, path):
    if path is None:
        pytest.skip("no executed notebook: call make reproduce PROFILE=smoke first")
    lab.open(f"executed/{path.name}")
    assert "\n".join(lab.problems()) == ""
    lab.picture(f"{path.stem}-light")
    lab.look("Dark")
    assert "\n".join(lab.problems()) == ""
    lab.picture(f"{path.stem}-dark")


@pytest.mark.parametrize("stored", [*filter(is_live, STORED)], ids=lambda path: path.stem)
def test_a_notebook_opened_by_hand_runs_to_its_end_and_leaves_git_clean(lab, stored):
    lab.open(f"notebooks/{stored.name}")
    lab.run_all()
    try:
        assert "\n".join(lab.problems()) == ""
        lab.picture(f"{stored.stem}-live")
    finally:
        lab.close()
    assert '"output_type"' in (lab.root / "notebooks" / stored.name).read_text(encoding="utf-8")
    end = time.monotonic() + 30
    while (changed := status(lab.root)) and time.monotonic() < end:
        time.sleep(1)  # git is told beside the server
    assert changed == ""
    assert not Path(lab.root, "out", "smoke", "notebooks").exists()  # nothing is published
