"""Running notebooks: unknown names are errors, a failure stops nothing, and what is published
names no folder of this machine.
"""

import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest

from dfil import profiles
from dfil.cli import main
from dfil.results import tables
from dfil.system import paths, process
from dfil.system.errors import DfilError, MachineError, RunError
from dfil.tools import environment, execute, reproduce
from dfil.tools import publish as publishing


def write_notebook(
    folder: Path, name: str, *cells: str, parameters: str = 'profile = "demo"'
) -> None:
    tagged = nbformat.v4.new_code_cell(parameters, id="params", metadata={"tags": ["parameters"]})
    code = [nbformat.v4.new_code_cell(text, id=f"c{i}") for i, text in enumerate(cells)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=[tagged, *code], metadata=kernel), folder / f"{name}.ipynb"
    )


def status(folder: Path) -> dict[str, list[str]]:
    with (folder / "smoke/status.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["notebook", "status", "seconds", "peak MiB"]
    return {row[0]: row[1:] for row in rows}


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "out"))
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    return tmp_path / "out"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "nb"
    path.mkdir()
    return path


def test_a_failing_notebook_stops_nothing_and_is_named(
    folder, outputs, tmp_path, monkeypatch, capsys
):
    # A foreign "python3" that comes first on Jupyter's path must not be used.
    foreign = tmp_path / "jupyter/kernels/python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "foreign", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(
        folder,
        "10_first",
        "from dfil.system import paths",
        'raise ValueError(f"this must\\nfail in {paths.project()}")',
        "never = 1",
    )
    show = (
        "import os, sys\nfrom pathlib import Path\n"
        "print(profile, fold, sys.executable, Path.home() / 'x', os.getcwd())"
    )
    hold = "import time\nblock = bytearray(300 * 2**20)\ntime.sleep(1)"
    write_notebook(folder, "20_second", show, hold, parameters='profile = "demo"\nfold = 1')
    (outputs / "smoke").mkdir(parents=True)
    old = (
        "notebook,status,seconds,peak MiB\n05_kept,ok,3.0,77\n06_gone,ok,1.0,1\n"
        "20_second,failed,1.0,1\n"
    )
    (outputs / "smoke/status.csv").write_text(old)
    write_notebook(folder, "05_kept", "1")

    code = reproduce.reproduce(
        "smoke",
        ["20", "10_first"],
        parameters={"fold": 7},
        notebooks=folder,
        command="dfil reproduce",
    )

    assert code == 1
    printed = capsys.readouterr().out
    assert "FAILED 10_first: fail in" in printed and "1 ok, 1 failed, in" in printed
    assert printed.index("[1/2] 10_first") < printed.index("[2/2] 20_second")
    rows = status(outputs)
    assert list(rows) == ["05_kept", "10_first", "20_second"] and rows["05_kept"] == [
        "ok",
        "3.0",
        "77",
    ]
    assert [rows[name][0] for name in ("10_first", "20_second")] == ["failed", "ok"]
    assert float(rows["20_second"][2]) > 300 and float(rows["20_second"][1]) > 1

    text = (outputs / "smoke/notebooks/10_first.failed.ipynb").read_text()
    assert "ValueError" in text and "fail in ." in text
    failed, second = (
        nbformat.read(outputs / f"smoke/notebooks/{name}.ipynb", 4)
        for name in ("10_first.failed", "20_second")
    )
    for notebook in (failed, second):
        nbformat.validate(notebook)
    said = next(cell.outputs[0].text for cell in second.cells if "sys.executable" in cell.source)
    python = sys.executable.replace(str(paths.project()), ".").replace(str(Path.home()), "~")
    assert said == f"smoke 7 {python} ~/x .\n"
    assert sorted(p.name for p in (outputs / "smoke/notebooks").iterdir()) == [
        "10_first.failed.ipynb",
        "20_second.ipynb",
    ]
    for place in (str(tmp_path), str(paths.project())):
        assert place not in text + (outputs / "smoke/notebooks/20_second.ipynb").read_text()

    about = json.loads((outputs / "smoke/environment.json").read_text())
    assert (
        about["synthetic"] is True
        and about["profile"] == "smoke"
        and about["command"] == "dfil reproduce"
    )
    page = (outputs / "smoke/report.html").read_text()
    assert "20_second" in page and "05_kept" in page


def test_unknown_names_are_errors_before_anything_runs(folder, outputs):
    write_notebook(folder, "10_first", parameters='profile = "demo"\nepochs = 1')
    with pytest.raises(RunError, match="'epoch'; there is epochs"):
        reproduce.reproduce("smoke", parameters={"epoch": 2}, notebooks=folder)
    with pytest.raises(RunError, match="'root'"):
        reproduce.reproduce("smoke", root=folder, notebooks=folder)
    with pytest.raises(RunError, match="use --profile"):
        reproduce.reproduce("smoke", parameters={"profile": "demo"}, notebooks=folder)
    with pytest.raises(RunError, match="'11'; choose 10_first"):
        reproduce.reproduce("smoke", ["11"], notebooks=folder)
    with pytest.raises(RunError, match="large"):
        reproduce.reproduce("large", notebooks=folder)
    with pytest.raises(RunError, match="holds no notebook"):
        reproduce.reproduce("smoke", notebooks=folder / "empty")
    assert not outputs.exists()


def test_a_dead_kernel_is_a_failed_notebook(folder, outputs, capsys):
    write_notebook(folder, "10_dies", "print('alive', flush=True)", "import os; os._exit(1)")
    assert reproduce.reproduce("smoke", notebooks=folder) == 1
    assert "FAILED 10_dies: the kernel died" in capsys.readouterr().out
    assert status(outputs)["10_dies"][0] == "failed"
    assert "alive" in (outputs / "smoke/notebooks/10_dies.failed.ipynb").read_text()


def test_an_interrupted_notebook_leaves_the_earlier_copy(folder, outputs, monkeypatch):
    def interrupted(path, target, **_):
        Path(target).write_text("half")
        raise KeyboardInterrupt

    write_notebook(folder, "10_a")
    (outputs / "smoke/notebooks").mkdir(parents=True)
    (outputs / "smoke/notebooks/10_a.ipynb").write_text("whole")
    monkeypatch.setattr(execute.papermill, "execute_notebook", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce.reproduce("smoke", notebooks=folder)
    assert [path.read_text() for path in (outputs / "smoke/notebooks").iterdir()] == ["whole"]


def test_only_takes_numbers_and_names_and_keeps_the_order(folder):
    for name in ("30_c", "10_a", "20_b"):
        write_notebook(folder, name)
    (folder / "notes.ipynb").write_text("{}")
    assert [p.stem for p in reproduce.select(folder)] == ["10_a", "20_b", "30_c"]
    assert [p.stem for p in reproduce.select(folder, ["30_c.ipynb", "10"])] == ["10_a", "30_c"]


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ("False", False),
        ("(0, 1)", [0, 1]),
        ("c23", "c23"),
        ("a b", "a b"),
    ],
)
def test_parameters_become_python_values(text, value):
    parsed = reproduce.parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_publish_warns_of_a_large_notebook_and_leaves_pictures_alone(tmp_path, outputs, capsys):
    home = str(Path.home())
    picture = "A" * execute.LARGEST + home + "/A"
    data = {"image/png": picture, "text/plain": [f"{home}/a", f"{outputs}/smoke/tables"]}
    output = nbformat.v4.new_output("display_data", data=data)
    cell = nbformat.v4.new_code_cell(
        "1", outputs=[output], id="c", metadata={"papermill": {"start_time": "now"}, "tags": ["x"]}
    )
    about = {"papermill": {"input_path": home, "parameters": {"profile": "smoke"}, "duration": 1.0}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=[cell], metadata=about), tmp_path / ".running.ipynb"
    )
    execute.tidy(
        tmp_path / ".running.ipynb", tmp_path / "done.ipynb", execute.PathShortener("smoke")
    )
    notebook = nbformat.read(tmp_path / "done.ipynb", 4)
    assert notebook.cells[0].outputs[0].data == {
        "image/png": picture,
        "text/plain": "~/aoutputs/smoke/tables",
    }
    assert notebook.cells[0].metadata == {"tags": ["x"]}
    assert notebook.metadata.papermill == {"parameters": {"profile": "smoke"}, "duration": 1.0}
    assert "done.ipynb has 2.0 MiB" in capsys.readouterr().err
    assert not (tmp_path / ".running.ipynb").exists()


def test_links_of_an_executed_notebook_hold_where_it_is_published(tmp_path, monkeypatch):
    project, source = tmp_path / "project", tmp_path / "project/notebooks"
    monkeypatch.setattr(paths, "project", lambda: project)
    text = "[a](30_b.ipynb) [c](40_d.ipynb) [e](../docs/f.md#g) [h](https://i.org/j.md) [k](#l)"
    copy, place = source / "10_a.ipynb", project / "outputs/demo/notebooks"
    source.mkdir(parents=True)

    def relinked(place):
        cells = [nbformat.v4.new_markdown_cell(text, id="m")]
        cells.append(nbformat.v4.new_code_cell("a[0](b)", id="c"))
        nbformat.write(nbformat.v4.new_notebook(cells=cells), copy)
        execute.relink(copy, source, place, {"30_b.ipynb"})
        markdown, code = nbformat.read(copy, 4).cells
        assert code.source == "a[0](b)"
        return markdown.source

    assert relinked(place) == (
        "[a](30_b.ipynb) [c](../../../notebooks/40_d.ipynb) [e](../../../docs/f.md#g)"
        " [h](https://i.org/j.md) [k](#l)"
    )
    assert relinked(tmp_path / "elsewhere") == text


def test_a_notebook_run_alone_links_to_the_sources_of_those_that_were_not(
    tmp_path, outputs, monkeypatch
):
    monkeypatch.setattr(paths, "project", lambda: tmp_path)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("10_a", "30_b", "40_c"):
        write_notebook(folder, name, "pass")
        notebook = nbformat.read(folder / f"{name}.ipynb", 4)
        text = "[a](10_a.ipynb) [b](30_b.ipynb) [c](40_c.ipynb)"
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text, id="m"))
        nbformat.write(notebook, folder / f"{name}.ipynb")
    monkeypatch.setattr(reproduce.page, "build", lambda *_: None)
    assert reproduce.reproduce("smoke", ["10", "30"], notebooks=folder) == 0
    made = outputs / "smoke/notebooks"
    source = os.path.relpath(folder / "40_c.ipynb", made)
    for name in ("10_a", "30_b"):
        text = nbformat.read(made / f"{name}.ipynb", 4).cells[0].source
        assert text == f"[a](10_a.ipynb) [b](30_b.ipynb) [c]({source})"


def test_a_damaged_status_file_is_said_and_replaced(tmp_path, capsys):
    (tmp_path / "status.csv").write_text("notebook,seconds\n10_a,x\n")
    assert reproduce.read_status(tmp_path / "status.csv") == {}
    assert "written anew" in capsys.readouterr().err


def test_environment_says_what_the_numbers_hang_on(tmp_path, monkeypatch):
    about = environment.describe("smoke")
    assert environment.describe("smoke", seeds=[3, 1])["seeds"] == [3, 1]
    assert about["synthetic"] is True and about["seeds"] == [0] and about["cores"] <= os.cpu_count()
    assert {"dfil", "torch", "numpy", "papermill"} <= set(
        about["packages"]
    ) and "jupyterlab" not in about["packages"]
    monkeypatch.delenv("DFIL_FFPP", raising=False)
    assert environment.describe("paper", tmp_path)["synthetic"] is False
    (tmp_path / "synthetic.json").write_text("{}")
    assert environment.describe("paper", tmp_path)["synthetic"] is True
    assert "\n" not in environment.stamp() and about["packages"]["torch"] in environment.stamp()


def needing(folder: Path, name: str, dataset: str, *cells: str, **more: str) -> None:
    write_notebook(folder, name, *cells)
    notebook = nbformat.read(folder / f"{name}.ipynb", 4)
    notebook.metadata["dfil"] = {"needs": dataset, **more}
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture
def without_trees(folder, monkeypatch):
    for variable in paths.ROOT_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(paths, "project", lambda: folder)  # no dfil.toml there


def test_a_notebook_whose_dataset_is_not_there_is_skipped_and_no_failure(
    folder, outputs, tmp_path, without_trees, monkeypatch, capsys
):
    needing(folder, "10_needs", "celebdf", "1 / 0", table="table2", column="Celeb-DF")
    needing(folder, "20_there", "ffpp", "1")
    (tmp_path / "tree" / "x").mkdir(parents=True)
    monkeypatch.setenv("DFIL_FFPP", str(tmp_path / "tree"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e16))
    assert reproduce.reproduce("paper", notebooks=folder) == 0
    said = capsys.readouterr().out
    assert "10_needs ... skipped: the profile paper needs the real Celeb-DF" in said
    assert "10_needs,skipped" in (outputs / "paper/status.csv").read_text()
    assert "needs the real Celeb-DF" in (outputs / "paper/tables/table2.csv").read_text()
    assert reproduce.reproduce("paper", ["10", "20"], notebooks=folder) == 1  # it was asked for


def test_what_takes_too_long_for_every_reproduction_runs_when_it_is_named(
    folder, outputs, monkeypatch, capsys
):
    long = replace(profiles.SMOKE, on_request=("10",))
    monkeypatch.setitem(profiles.PROFILES, "smoke", long)
    write_notebook(folder, "10_long", "1 + 1")
    write_notebook(folder, "20_short", "1 + 1")
    assert reproduce.reproduce("smoke", notebooks=folder) == 0
    asked = "trained on request: dfil reproduce --profile smoke --only 10"
    assert f"10_long ... skipped: {asked}" in capsys.readouterr().out
    assert reproduce.reproduce("smoke", ["10"], notebooks=folder) == 0
    assert status(outputs)["10_long"][0] == "ok"


def published_table(outputs: Path) -> dict[Path, bytes]:
    """A filled table, its figure, page and notebook, as an earlier call published them."""
    for name in ("tables/table1.csv", "tables/table1.md", "figures/table1.png", "report.html"):
        (outputs / "demo" / name).parent.mkdir(parents=True, exist_ok=True)
        (outputs / "demo" / name).write_text("row,ours\ndil,0.9\n")
    return {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}


def test_what_cannot_work_is_refused_before_anything_published_is_touched(
    folder, outputs, tmp_path, without_trees, monkeypatch
):
    before = published_table(outputs)
    write_notebook(folder, "10_first", parameters='profile = "demo"\nroot = ""')
    needing(folder, "20_needs", "ffpp")
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "gone", tmp_path / "empty"):
        with pytest.raises(DfilError, match=str(wrong)):
            reproduce.reproduce("demo", root=wrong, notebooks=folder)
    with pytest.raises(RunError, match="DFIL_FFPP"):
        reproduce.reproduce("paper", notebooks=folder)
    monkeypatch.setenv("DFIL_FFPP", str(tmp_path / "gone"))
    with pytest.raises(DfilError, match="gone"):
        reproduce.reproduce("demo", notebooks=folder)
    monkeypatch.setenv("DFIL_FFPP", str(tmp_path / "empty"))
    with pytest.raises(RunError, match="is its disk mounted"):
        reproduce.reproduce("paper", notebooks=folder)
    monkeypatch.delenv("DFIL_FFPP")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1e6))
    with pytest.raises(MachineError, match="need about .* GB and the disk has 0.0 GB left"):
        reproduce.reproduce("demo", notebooks=folder)
    assert {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()} == before


WRITE = """
from dfil.system import paths
for name in {names}:
    file = paths.outputs(profile) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text({text!r})
"""


def test_a_notebook_publishes_when_it_went_well_and_changes_nothing_when_it_fails(
    folder, outputs, capsys
):
    before = published_table(outputs)
    names = ["tables/table1.csv", "figures/table1.png", "figures/new.png"]
    write_notebook(folder, "10_bad", WRITE.format(names=names, text="row,ours\ndil,0.1\n"), "1 / 0")
    assert reproduce.reproduce("demo", notebooks=folder) == 1
    after = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    changed = {
        path.relative_to(outputs / "demo").as_posix()
        for path in after.items() - before.items()
        for path in path[:1]
    }
    pages = {"status.csv", "report.html", "RESULTS.md"}
    assert changed == pages | {"notebooks/10_bad.failed.ipynb"}

    write_notebook(folder, "10_bad", WRITE.format(names=names, text="row,ours\ndil,0.1\n"))
    assert reproduce.reproduce("demo", notebooks=folder) == 0
    assert "0.1" in (outputs / "demo/tables/table1.csv").read_text()
    assert (outputs / "demo/figures/new.png").is_file()
    assert [path.name for path in (outputs / "demo/notebooks").iterdir()] == ["10_bad.ipynb"]
    assert list((outputs / ".work").iterdir()) == []

    write_notebook(folder, "10_bad", WRITE.format(names=names, text="row,ours\ndil,\n"))
    assert reproduce.reproduce("demo", notebooks=folder) == 0
    assert "table1.csv is empty now and stays as it was" in capsys.readouterr().out
    for name in ("tables/table1.csv", "figures/table1.png"):
        assert "0.1" in (outputs / "demo" / name).read_text()


def test_a_notebook_opened_by_hand_publishes_nothing_until_asked(outputs, capsys):
    before = published_table(outputs)
    (paths.outputs("demo") / "tables/table1.csv").write_text("row,ours\ndil,0.3\n")
    assert (paths.outputs("demo") / "figures/table1.png").is_file()
    assert (paths.outputs("demo") / "runs").resolve() == paths.runs("demo")
    assert {path: path.read_bytes() for path in before} == before
    newer = outputs / "demo/report.html"
    newer.write_text("made meanwhile")
    assert main(["publish", "demo"]) == 0
    assert "0.3" in (outputs / "demo/tables/table1.csv").read_text()
    assert newer.read_text() == "made meanwhile"  # not put back to what the work began with
    assert main(["publish", "smoke"]) == 1
    assert "no notebook was run by hand" in capsys.readouterr().err


def test_two_calls_at_once_lose_no_row(folder, outputs):
    for name in ("10_a", "20_b", "30_c"):
        write_notebook(folder, name, "import time; time.sleep(1)")
    code = (
        "import sys; from dfil.tools.reproduce import reproduce;"
        "sys.exit(reproduce('smoke', sys.argv[2:], notebooks=sys.argv[1]))"
    )
    calls = [
        subprocess.Popen([sys.executable, "-c", code, folder, *only], stdout=subprocess.DEVNULL)
        for only in (["10", "30"], ["20"])
    ]
    assert [call.wait() for call in calls] == [0, 0]
    assert list(status(outputs)) == ["10_a", "20_b", "30_c"]


def test_a_kernel_ends_with_the_process_that_started_it(folder, outputs, tmp_path):
    said = tmp_path / "pid"
    wait = f"import os, pathlib, time\npathlib.Path({str(said)!r}).write_text(str(os.getpid()))\n"
    write_notebook(folder, "10_a", wait + "time.sleep(600)")
    code = (
        "import sys; from dfil.tools.reproduce import reproduce; "
        "reproduce('smoke', None, notebooks=sys.argv[1])"
    )
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.DEVNULL) as call:
        while not (said.is_file() and said.read_text()):
            assert call.poll() is None
            time.sleep(0.1)
        call.kill()
    kernel = int(said.read_text())
    for _ in range(100):
        if not process.born(kernel):
            return
        time.sleep(0.1)
    os.kill(kernel, 9)
    pytest.fail("the kernel went on for ten seconds")


@pytest.mark.parametrize("text, seeds", [("[0, 1]", (0, 1)), ("3", (3,)), ("", (0,)), (2, (2,))])
def test_seeds_that_papermill_hands_on_as_text_are_read(text, seeds):
    assert profiles.get("smoke", text).seeds == seeds


@pytest.mark.parametrize("text", ["zero", "[0, 0]", "{}", "[[1]]", "[1.5]", "-1"])
def test_seeds_that_are_none_are_named_as_they_were_given(text):
    with pytest.raises(RunError, match="whole numbers from 0 on") as caught:
        profiles.get("smoke", text)
    assert text.strip("[]") in str(caught.value)


def test_a_notebook_of_an_earlier_call_stays_done_when_it_is_left_out(folder, outputs, monkeypatch):
    only_on_request = replace(profiles.get("smoke"), on_request=("74",))
    monkeypatch.setattr(profiles, "get", lambda *_: only_on_request)
    monkeypatch.setattr(reproduce.page, "build", lambda *_: None)
    for name in ("10_a", "74_b"):
        write_notebook(folder, name, "pass")
    assert reproduce.reproduce("smoke", notebooks=folder) == 0
    assert {name: row[0] for name, row in status(outputs).items()} == {
        "10_a": "ok",
        "74_b": "skipped",
    }
    assert reproduce.reproduce("smoke", ["74"], notebooks=folder) == 0
    assert reproduce.reproduce("smoke", notebooks=folder) == 0
    assert {row[0] for row in status(outputs).values()} == {"ok"}
    (outputs / "smoke/notebooks/74_b.ipynb").unlink()
    assert reproduce.reproduce("smoke", notebooks=folder) == 0
    assert status(outputs)["74_b"][0] == "skipped"


def test_a_notebook_by_hand_begins_with_what_was_published_meanwhile(outputs):
    published_table(outputs)
    work = paths.outputs("demo")  # begun now
    (work / "figures/table1.png").write_text("changed by hand")
    (outputs / "demo/tables/table1.csv").write_text("row,ours\ndil,0.7\n")
    (outputs / "demo/figures/table1.png").write_text("another call's")
    (outputs / "demo/tables/new.csv").write_text("row,ours\ndil,0.8\n")
    publishing.refresh("demo")
    assert "0.7" in (work / "tables/table1.csv").read_text()
    assert "0.8" in (work / "tables/new.csv").read_text()
    assert (work / "figures/table1.png").read_text() == "changed by hand"
    assert [path.name for path in paths.written(work)] == ["table1.png"]


def test_cells_that_another_call_has_published_meanwhile_stay(outputs):
    def table(**ours):
        lines = [
            dict.fromkeys(tables.COLUMNS, "")
            | {"table": "x", "row": "dil", "column": column, "metric": "auc", "note": "n"}
            | ({"ours": value, "ci_low": 0.1, "ci_high": 0.9, "n_videos": 4, "seeds": 1, "run": "k"}
               if value else {})
            for column, value in ours.items()
        ]  # fmt: skip
        return pd.DataFrame(lines, columns=tables.COLUMNS).to_csv(index=False)

    def values(folder):
        df = tables.load_file(folder / "tables/x.csv").set_index("column")["ours"]
        return df.dropna().to_dict()

    work, there = paths.outputs("demo"), outputs / "demo"
    (there / "tables").mkdir(parents=True)
    (there / "tables/x.csv").write_text(table(a=0.1, b=0.2, c="", d=""))
    publishing.refresh("demo")  # a notebook is opened
    (there / "tables/x.csv").write_text(table(a=0.1, b=0.7, c=0.8, d=""))  # by another call
    (work / "tables/x.csv").write_text(table(a=0.5, b=0.2, c="", d=0.6))  # by the notebook
    brought = publishing.publish("demo")
    assert values(there) == values(work) == {"a": 0.5, "b": 0.7, "c": 0.8, "d": 0.6}
    assert {"x.csv", "x.md"} <= {path.name for path in brought}
    assert "0.700" in (there / "tables/x.md").read_text()
    (work / "tables/x.csv").write_text(table(a="", b=0.7, c=0.8, d=0.9))
    publishing.publish("demo")
    assert values(there) == {"b": 0.7, "c": 0.8, "d": 0.9}  # nobody else has written since
