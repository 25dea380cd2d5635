"""The stored notebooks keep the project's rules; running them is `dfil reproduce --profile smoke`."""

import re
from pathlib import Path

import nbformat
import pytest

from dfil import profiles
from dfil.tools import environment, reproduce

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST = 12  # lines of a code cell, not counting imports
MOST = 40  # cells
STAMPS = ("print(environment.stamp())", "print(lesson.stamp())")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    read = nbformat.read(request.param, nbformat.NO_CONVERT)
    nbformat.validate(read)
    return read


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_names_have_a_number_of_their_own():
    assert NOTEBOOKS and all(re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem) for path in NOTEBOOKS)
    numbers = [path.stem[:2] for path in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)
    assert reproduce.titles(FOLDER)["90_report"] == "All results on one page"


def test_first_cell_says_what_from_where_to_where_and_how_long(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \d\d · \S", first.source)
    for word in ("reproduces", "from", r"\bto\b", "second|minute|hour", *profiles.PROFILES):
        assert re.search(word, first.source, re.IGNORECASE), word


def test_second_cell_holds_the_parameters_and_says_what_each_is(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [notebook.cells[1]] and tagged[0].cell_type == "code"
    lines = tagged[0].source.splitlines()
    assert lines[0].startswith('profile = "')
    assert all(re.fullmatch(r"\w+ = .+  # .+", line) for line in lines)
    used = "\n".join(cell.source for cell in code(notebook)[1:])
    assert all(
        re.search(rf"\b{line.split(' = ')[0]}\b", used) for line in lines
    )  # no parameter without effect


def test_stored_without_outputs_or_traces_of_a_run(notebook):
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3" and "papermill" not in notebook.metadata
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(notebook))


def test_cells_are_short_and_have_ids_given_by_hand(notebook):
    assert len(notebook.cells) <= MOST
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z][a-z0-9-]{1,31}", cell.id) and not re.fullmatch(
            r"[0-9a-f]{8}", cell.id
        ), cell.id
    for cell in code(notebook):
        statements = [
            line
            for line in cell.source.splitlines()
            if line.strip() and not line.startswith(("import ", "from "))
        ]
        assert len(statements) <= LONGEST, f"{cell.id}: a function this long belongs in dfil"


def test_every_section_explains_before_it_computes(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("markdown") >= len(kinds) / 3
    assert any(
        "## Discussion" in cell.source for cell in notebook.cells if cell.cell_type == "markdown"
    )


def test_last_cell_checks_the_results_and_stamps_the_versions(notebook):
    last = notebook.cells[-1]
    assert last.cell_type == "code" and len(re.findall(r"assert |lesson\.check", last.source)) >= 2
    assert last.source.splitlines()[-1] in STAMPS
    assert environment.stamp().startswith("dfil ")
