"""Every notebook in JupyterLab: no error, all figures and widgets, nothing cut off or too long."""

import os
import subprocess
import time
from pathlib import Path

import nbformat
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


WATCHED = """%matplotlib inline
import time
from dfil.explain import interactive
from dfil.system.progress import progress_bar
from matplotlib.figure import Figure

def draw(frame, BP):
    fig = Figure(figsize=(2, 1))
    fig.subplots().set_title(f"{frame} {BP}")
    return fig

for _ in progress_bar(range(40), desc="a step"):
    time.sleep(0.1)
interactive.choose(draw, draw(0, True), frame=range(3), BP=[True, False])"""


UPLOADED = """from pathlib import Path
from dfil.explain.upload import Upload
from ipywidgets import Label

upload, label = Upload(), Label("nothing yet")

def read(_):
    label.value = upload.path("", Path("none")).read_text()

upload.button.observe(read, "value")
display(upload, label)"""


def open_cell(lab, name, source):
    """A notebook of one cell, shown."""
    (lab.root / "executed").mkdir(exist_ok=True)
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3 (ipykernel)"}
    cells = [nbformat.v4.new_code_cell(source, id=name)]
    written = nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=cells)
    nbformat.write(written, lab.root / "executed" / f"{name}.ipynb")
    lab.open(f"executed/{name}.ipynb")


def test_a_video_given_to_the_button_arrives(lab):
    open_cell(lab, "uploaded", UPLOADED)
    lab.run_all()
    try:
        shown = lab.page.locator(".jp-NotebookPanel:visible .jp-OutputArea")
        shown.get_by_text("nothing yet").wait_for()
        file = {"name": "film.mp4", "mimeType": "video/mp4", "buffer": b"what the file holds"}
        with lab.page.expect_file_chooser() as chosen:
            shown.get_by_role("button", name="a video").click()
        chosen.value.set_files([file])
        shown.get_by_text("what the file holds").wait_for()
    finally:
        lab.close()


def test_a_bar_moves_and_goes_and_controls_change_the_picture(lab):
    open_cell(lab, "watched", WATCHED)
    here = lab.page.locator(".jp-NotebookPanel:visible .jupyter-widgets:visible")
    lab.run_all(wait=False)
    try:
        here.get_by_text("a step").first.wait_for()
        picture = here.locator("img").last
        picture.wait_for()
        assert here.get_by_text("a step").count() == 0 and lab.problems() == []
        seen = [picture.get_attribute("src")]
        for control in (here.locator("input[type=checkbox]"), here.get_by_role("slider")):
            control.first.press("Space" if control.first.get_attribute("type") else "ArrowRight")
            lab.page.wait_for_function(
                "([i, s]) => i.src !== s", arg=[picture.element_handle(), seen[-1]]
            )
            seen.append(picture.get_attribute("src"))
        assert len(set(seen)) == 3
    finally:
        lab.close()
