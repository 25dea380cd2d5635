"""The stored notebooks keep the project's rules, and what they share does what it says.

Running them, their folded solutions among them, is `dfil reproduce --profile smoke`.
"""

import ast
import builtins
import os
import re
import subprocess
import symtable
import sys
from pathlib import Path

import nbformat
import pytest

from dfil import paper, profiles
from dfil.results import tables
from dfil.results.metrics import Estimate
from dfil.system import paths
from dfil.system.errors import RunError
from dfil.tools import environment, reproduce, save_hook
from dfil.tools.notebook import Absent, Notebook, save_empty_table

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST, WIDEST = 10, 84  # lines of a code cell, not counting imports, and their columns
MOST = 54  # cells
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    read = nbformat.read(request.param, nbformat.NO_CONVERT)
    nbformat.validate(read)
    return read


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def plain(cell):
    """The cell as Python: without magics."""
    return re.sub(r"^%.*$", "pass", cell.source, flags=re.MULTILINE)


def names_of(source):
    """(used, defined): the global names that a cell refers to, and those that it sets."""
    top, used, defined = symtable.symtable(source, "cell", "exec"), set(), set()
    for symbol in top.get_symbols():
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            defined.add(symbol.get_name())
        elif symbol.is_referenced():
            used.add(symbol.get_name())
    inner = top.get_children()
    while inner:
        table = inner.pop()
        used |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
        inner += table.get_children()
    return used, defined


def test_names_have_a_number_of_their_own():
    assert NOTEBOOKS and all(re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem) for path in NOTEBOOKS)
    numbers = [path.stem[:2] for path in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)
    assert reproduce.titles(FOLDER)["90_report"] == "All results on one page"


def test_first_cell_lists_what_from_where_to_where_and_how_long(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \d\d · \S", first.source)
    said = re.findall(r"^- \*\*(Reproduces|From|To|Takes)\*\*", first.source, re.MULTILINE)
    assert said == ["Reproduces", "From", "To", "Takes"]
    for word in ("second|minute|hour", "smoke", "demo", "paper"):
        assert re.search(word, first.source), word


def test_second_cell_holds_the_parameters_and_says_what_each_is(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [notebook.cells[1]] and tagged[0].cell_type == "code"
    lines = tagged[0].source.splitlines()
    assert lines[0].startswith('profile = ""  #')  # opened by hand: $DFIL_PROFILE, or else smoke
    assert all(re.fullmatch(r"\w+ = .+  # .+", line) for line in lines)
    used = "\n".join(cell.source for cell in code(notebook)[1:])
    for line in lines:  # no parameter without effect
        assert re.search(rf"\b{line.split(' = ')[0]}\b", used), line


def test_stored_without_outputs_or_traces_of_a_run(notebook):
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec == KERNEL and set(notebook.metadata) <= {
        "kernelspec",
        "dfil",
    }
    assert all(set(cell.metadata) <= {"tags", "jupyter"} for cell in notebook.cells)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(notebook))


def test_cells_are_short_and_narrow_and_have_ids_given_by_hand(notebook):
    assert len(notebook.cells) <= MOST
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z][a-z0-9-]{1,31}", cell.id), cell.id
        assert not re.fullmatch(r"[0-9a-f]{8}", cell.id), cell.id
    for cell in code(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        body = [line for line in lines if not line.startswith(("import ", "from "))]
        assert len(body) <= LONGEST, f"{cell.id}: a function this long belongs in dfil"
        assert all(len(line) <= WIDEST for line in lines), cell.id


def test_no_cell_uses_a_name_that_is_defined_only_later(notebook):
    known = set(dir(builtins)) | {"display"}
    for cell in code(notebook):
        used, defined = names_of(plain(cell))
        assert used <= known | defined, f"{cell.id}: {', '.join(sorted(used - known - defined))}"
        known |= defined


def test_a_name_that_is_defined_only_later_is_found():
    used, defined = names_of(
        "def double(x):\n    return factor * x\n\n\ny = [double(v) for v in z]"
    )
    assert defined == {"double", "y"} and used - defined == {"factor", "z"}


def test_no_cell_asks_whether_there_are_data(notebook):
    for cell in code(notebook):
        tree = ast.parse(plain(cell))
        assert not any(isinstance(node, ast.If) for node in tree.body), cell.id
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "display":
                assert not any(isinstance(x, ast.IfExp) for x in node.args), cell.id


def test_links_lead_to_files_and_every_mention_of_a_notebook_is_one(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert link.startswith("http") or (FOLDER / link).exists(), link
    assert not re.search(r"(?<!\[)[Nn]otebook \d\d", text)


def test_every_section_explains_before_it_computes(notebook):
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert len(text) >= len(notebook.cells) / 4
    assert any(source.startswith("## Discussion") for source in text)


def test_exercises_come_with_folded_solutions(notebook):
    (exercises,) = [cell.source for cell in notebook.cells if cell.id == "exercises"]
    solutions = [cell for cell in code(notebook) if "solution" in cell.metadata.get("tags", [])]
    asked = re.findall(r"^\d\. ", exercises, re.MULTILINE)
    assert 2 <= len(asked) <= 3 and 1 <= len(solutions) <= len(asked)
    # Not outputs_hidden as well: JupyterLab takes it away when it runs a cell, for git a change.
    assert all(cell.metadata.jupyter == {"source_hidden": True} for cell in solutions)


def test_last_cell_checks_the_results_and_stamps_the_versions(notebook):
    last = notebook.cells[-1]
    assert last.cell_type == "code" and len(re.findall(r"assert |\.check_", last.source)) >= 2
    assert last.source.splitlines()[-1] == "print(lesson.stamp())"
    assert environment.stamp().startswith("dfil ")


def test_metadata_name_a_table_of_the_paper_and_its_column(notebook):
    about = notebook.metadata.get("dfil", {})
    assert set(about) <= {"needs", "table", "column", "on_request"}
    if "table" in about:
        columns = [column.key for column in paper.TABLES[about["table"]].columns]
        assert about.get("column", columns[0]) in columns and about["needs"]


def test_a_notebook_that_was_only_run_is_unchanged_for_git(tmp_path):
    """With a filter that takes digits away in place of the one that takes outputs away."""

    def git(*call):
        call = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *call]
        return subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    (tmp_path / ".gitattributes").write_text("*.ipynb filter=stripped\n")
    for name in ("run", "edited"):
        (tmp_path / f"{name}.ipynb").write_text("a\n")
    git("add", ".")
    git("commit", "-qm", "first")
    git("config", "filter.stripped.clean", "tr -d 0-9")
    for name, text in (("run", "a123\n"), ("edited", "b123\n"), ("new", "c\n")):
        path = tmp_path / f"{name}.ipynb"
        path.write_text(text)
        save_hook.refresh({"type": "notebook"}, str(path)).wait(20)
    assert git("status", "--porcelain").splitlines() == [" M edited.ipynb", "?? new.ipynb"]
    assert save_hook.refresh({"type": "file"}, str(path)) is None
    makefile = (FOLDER.parent / "Makefile").read_text(encoding="utf-8")
    assert "post_save_hook=dfil.tools.save_hook.refresh" in makefile


COLAB = [path for path in NOTEBOOKS if '"id": "colab"' in path.read_text(encoding="utf-8")]


def test_on_colab_a_first_cell_fetches_the_package_and_finds_it(tmp_path):
    """Its own commands on a repository made here, pip replaced by what installs nothing."""
    cells = [c for path in COLAB for c in nbformat.read(path, 4).cells if c.id == "colab"]
    (source,) = {cell.source for cell in cells}
    assert [path.name[:2] for path in COLAB] == ["00", "10", "26", "28"]
    origin, folder = tmp_path / "origin", tmp_path / "content"
    (origin / "dfil").mkdir(parents=True)
    (origin / "dfil" / "__init__.py").write_text("")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for call in ("init -q", "add .", "commit -qm first"):
        subprocess.run([*git, *call.split()], cwd=origin, check=True)
    for old, new in (
        ("https://github.com/OWNER/dfil", origin.as_uri()),
        ("/content/dfil", str(folder)),
        ("-m pip install -q -e", "-m compileall -q"),
    ):
        assert old in source
        source = source.replace(old, new)
    source += "\nimport dfil\nprint(dfil.__file__)"
    run = [sys.executable, "-I", "-S", "-c", source]
    said = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said.strip() == str(folder / "dfil" / "__init__.py")
    assert (folder / "dfil" / "__pycache__").is_dir()


def test_links_to_binder_and_colab_name_files_of_one_repository():
    text = (FOLDER.parent / "docs" / "teaching.md").read_text(encoding="utf-8")
    links = re.findall(r"\((https://(?:mybinder|colab)[^)]+)\)", text)
    where = [re.search(r"/(?:gh|github)/([^/]+/[^/]+)/.*?(notebooks/.+)", link) for link in links]
    assert {Path(found[2]) for found in where} == {p.relative_to(FOLDER.parent) for p in COLAB}
    (repository,) = {found[1] for found in where}
    assert all(f"https://github.com/{repository}" in path.read_text("utf-8") for path in COLAB)
    binder = FOLDER.parent / ".binder"
    assert (binder / "environment.yml").is_file() and os.access(binder / "postBuild", os.X_OK)


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A machine on which no real dataset is named; its outputs folder."""
    for name in paths.ROOT_VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DFIL_PROFILE", raising=False)
    monkeypatch.delenv("DFIL_WORK", raising=False)
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "out"))
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(paths, "project", lambda: tmp_path)
    return tmp_path / "out"


def test_a_notebook_without_its_data_stops_with_one_sentence(nothing, tmp_path):
    with pytest.raises(Absent, match="needs the real Celeb-DF") as stop:
        Notebook("paper", {"celebdf": ""})
    (said,) = stop.value._render_traceback_()
    assert said.startswith("Nothing to run here: ") and "\n" not in said
    with pytest.raises(Absent, match="no such folder"):
        Notebook("smoke", {"ffpp": str(tmp_path / "nowhere")})
    with pytest.raises(Absent, match="no synthetic data"):
        Notebook("paper", {"temporal-only": ""})
    assert Notebook("smoke", {"temporal-only": ""}).profile.name == "smoke"


def test_a_reason_or_nothing_in_place_of_what_is_needed_stops_a_notebook(nothing):
    lesson = Notebook("paper")
    assert lesson.need({"a": 1}) == {"a": 1}
    with pytest.raises(Absent, match="no truth"):
        lesson.need({}, "no truth")
    with pytest.raises(Absent, match="nobody knows"):
        lesson.need("nobody knows")


def test_opened_by_hand_a_notebook_takes_the_variable_s_profile_or_smoke(nothing, monkeypatch):
    assert Notebook("").profile.name == "smoke"
    monkeypatch.setenv("DFIL_PROFILE", "demo")
    assert Notebook("").profile.name == "demo" and Notebook("smoke").profile.name == "smoke"
    monkeypatch.setenv("DFIL_PROFILE", "dmeo")
    with pytest.raises(RunError, match="no profile is called 'dmeo'"):
        Notebook("")


def table2():
    df = tables.load(paths.outputs("paper") / "tables")["table2"]
    return df.set_index(["row", "column"])


def test_an_empty_table_says_why_and_never_takes_the_place_of_a_filled_one(nothing):
    save_empty_table(profiles.PAPER, "table2", "DFDC", "DFDC is not there")
    assert table2().loc[("dil", "DFDC"), "note"] == "DFDC is not there"
    assert table2()["ours"].isna().all()

    table = paper.TABLES["table2"]
    filled = {("dil", "DFDC"): tables.Measured(Estimate(0.9, 0.8, 0.95, 70, 35), ["a-run"])}
    df = tables.build(table, filled, synthetic=False)
    tables.save(df, paths.outputs("paper") / "tables", "table2", table.title)
    save_empty_table(profiles.PAPER, "table2", "DFDC", "DFDC is not there")
    save_empty_table(profiles.PAPER, "table2", "Celeb-DF", "Celeb-DF is not there")
    assert table2().loc[("dil", "DFDC"), "ours"] == 0.9
    assert table2().loc[("dil", "Celeb-DF"), "note"] == "Celeb-DF is not there"


def test_a_notebook_that_is_skipped_leaves_its_empty_table(nothing):
    (celebdf,) = FOLDER.glob("32_*.ipynb")
    (job,) = reproduce._jobs([celebdf], profiles.PAPER, "", {})
    assert job.lacks.startswith("the profile paper needs the real Celeb-DF")
    assert reproduce._skip(job, profiles.PAPER).status == "skipped"
    column = table2().xs("Celeb-DF", level="column")
    assert column.loc["dil", "note"] == job.lacks and (column["note"] != "").all()
    assert not reproduce._jobs([celebdf], profiles.SMOKE, "", {})[0].lacks


def test_a_table_that_is_trained_has_rows_for_methods_of_ones_own(monkeypatch):
    lesson = Notebook("smoke", {"temporal-only": ""})
    monkeypatch.setattr("dfil.train.experiments.fill", lambda *_: ({}, {}))
    monkeypatch.setattr(Notebook, "stores", {})
    names = [row.name for row in lesson.train("table1", ["mine", "dil"]).table.rows]
    assert names[-1] == "mine" and names.count("dil") == 1
