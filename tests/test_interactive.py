"""Progress bars and sliders appear where somebody watches, and leave nothing where nobody does."""

import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from matplotlib.figure import Figure

from dfil.explain import interactive
from dfil.system import progress
from dfil.tools.execute import PathShortener, run_notebook

PROJECT = Path(__file__).parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
with_widgets = pytest.mark.skipif(not find_spec("ipywidgets"), reason="needs ipywidgets")
CELL = """
%matplotlib inline
from dfil.explain import interactive
from dfil.system.progress import by_hand, progress_bar
from matplotlib.figure import Figure

def draw(frame):
    fig = Figure(figsize=(1, 1))
    fig.subplots().set_title(str(frame))
    return fig

for _ in progress_bar(range(3), desc="a step"):
    pass
display(interactive.choose(draw, draw("still"), frame=range(3)))
print(by_hand())
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A kernel of this Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.syspath_prepend(PROJECT)
        manager, client = start_new_kernel(cwd=PROJECT)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def outputs(client, by_hand):
    """What CELL sends, by type; a front end that can answer questions is a person's."""
    found = {}
    client.execute_interactive(
        CELL,
        allow_stdin=by_hand,
        timeout=60,
        output_hook=lambda m: found.setdefault(m["msg_type"], []).append(m["content"]),
    )
    return found


def test_nothing_moves_in_a_cell_that_a_program_runs(client):
    found = outputs(client, by_hand=False)
    assert [said["text"] for said in found["stream"]] == ["False\n"]
    (shown,) = found["display_data"]
    assert "image/png" in shown["data"] and WIDGET not in shown["data"]


@with_widgets
def test_a_person_sees_a_bar_and_a_slider_that_carries_a_still_picture(client):
    found = outputs(client, by_hand=True)
    assert [said["text"] for said in found["stream"]] == ["True\n"]
    bar, slider = (shown["data"] for shown in found["display_data"])
    assert WIDGET in bar and {WIDGET, "image/png"} <= slider.keys()


def test_an_executed_notebook_holds_the_still_picture_and_no_trace_of_bars(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    cells = [nbformat.v4.new_code_cell(CELL.strip(), id="cell")]
    path, target = tmp_path / "01_any.ipynb", tmp_path / "executed.ipynb"
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(metadata=kernel, cells=cells), path)
    assert run_notebook(path, target, {}, PathShortener("smoke")).error == ""
    *_, cell = nbformat.read(target, 4).cells
    picture, said = cell.outputs
    assert set(picture.data) == {"image/png", "text/plain"} and said.text == "False\n"
    assert "widget" not in json.dumps(cell.outputs)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_shows_in_a_terminal_and_neither_in_a_file_nor_when_quiet(monkeypatch):
    for stream, quiet, shown in (
        (Terminal, False, 1),
        (Terminal, True, 0),
        (io.StringIO, False, 0),
    ):
        monkeypatch.setattr(sys, "stderr", stream())
        assert list(progress.progress_bar(range(3), desc="a step", quiet=quiet)) == [0, 1, 2]
        assert ("a step" in sys.stderr.getvalue()) == bool(shown)


@with_widgets
def test_moving_a_control_draws_another_picture_and_coming_back_the_first_again():
    asked = []

    def draw(frame, BP):
        asked.append((frame, BP))
        fig = Figure(figsize=(1, 1))
        fig.subplots().set_title(f"{frame} {BP}")
        return fig

    box = interactive.controls(draw, {"frame": [3, 4, 5], "BP": [True, False]})
    (slider, switch), picture = box.children[0].children, box.children[1]
    first = picture.value
    slider.value = 5
    second = picture.value
    switch.value = False
    third = picture.value
    slider.value, switch.value = 3, True
    assert len({first, second, third}) == 3 and picture.value == first
    assert asked == [(3, True), (5, True), (5, False), (3, False)]
