"""Where to begin: `dfil` alone, `dfil doctor`, a copy of the notebooks, forecasts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dfil import cli
from dfil.tools import doctor, reproduce, shipped


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "out"))


def said(capsys, *typed: str) -> str:
    assert cli.main(typed) == 0
    return capsys.readouterr().out


def commands(text: str) -> list[str]:
    return [line.split("  ")[1] for line in text.splitlines() if line.startswith("  dfil ")]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()


def test_dfil_alone_says_what_can_be_done_with_what_is_there(tmp_path, capsys):
    nothing = said(capsys)
    assert commands(nothing)[0] == "dfil doctor" and "No data and no trained models" in nothing
    touch(tmp_path / "data/crops/ffpp-x-64-1/index.parquet")
    crops = said(capsys)
    assert commands(crops)[0] == "dfil train dil --test" and "1 crop store " in crops
    touch(tmp_path / "out/demo/runs/dil-ffpp-c23-all-0123456789/run.json")
    assert "records, without their weights" in said(capsys)
    (tmp_path / "out/demo/runs/dil-ffpp-c23-all-0123456789/weights.safetensors").touch()
    touch(tmp_path / "out/demo/runs/dil-ffpp-c40-all-ab/checkpoint.pt")
    runs = said(capsys)
    assert "dfil evaluate 0123456789" in commands(runs) and "1 trained run in" in runs
    assert "1 training not ended (dil-ffpp-c40-all-ab)" in runs


def test_the_records_of_the_study_are_no_models_of_ones_own(tmp_path, capsys):
    touch(tmp_path / "out/study/runs/dil-ffpp-c40-all-0123456789/run.json")
    (tmp_path / "out/study/runs/dil-ffpp-c40-all-0123456789/weights.safetensors").touch()
    (tmp_path / "out/study/report.html").touch()
    text = said(capsys)
    assert "No data and no trained models" in text and commands(text)[0] == "dfil doctor"
    assert "1 record of the study" in text and "dfil verify" in commands(text)
    touch(tmp_path / "data/crops/ffpp-x-64-1/index.parquet")
    assert "No report yet:" in said(capsys)


def test_every_command_that_it_names_is_one(tmp_path, capsys):
    touch(tmp_path / "data/crops/ffpp-x-64-1/index.parquet")
    text = said(capsys)
    touch(tmp_path / "out/demo/runs/dil-ffpp-c23-all-0123456789/run.json")
    (tmp_path / "out/demo/runs/dil-ffpp-c23-all-0123456789/weights.safetensors").touch()
    for command in commands(text + said(capsys)):
        cli.parser().parse_args(command.split()[1:])


@pytest.mark.parametrize("typed", [["nonsense"], ["--help"], ["--version"], [], ["train", "--bad"]])
def test_help_and_errors_of_arguments_take_no_time(typed):
    quick = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dfil", *typed], capture_output=True, text=True
    )
    assert quick.returncode == (2 if "nonsense" in typed or "--bad" in typed else 0)
    assert " torch" not in quick.stderr and " numpy" not in quick.stderr


def test_the_doctor_says_what_fails_and_what_to_do(monkeypatch, capsys):
    def broken():
        raise ImportError("libcudart.so.13: cannot open shared object file")

    good = {"Python": doctor.python, "disk": doctor.disk, "datasets": doctor.trees}
    monkeypatch.setattr(doctor, "CHECKS", good)
    assert "Ready." in said(capsys, "doctor")
    monkeypatch.setattr(doctor, "CHECKS", {"torch": broken} | good)
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "failed  torch       ImportError: libcudart" in text and "-> install again" in text
    assert "Not ready: torch." in text and "ok      Python" in text  # the others still run
    assert cli.main(["doctor", "--json"]) == 1
    found = {each["name"]: each["state"] for each in json.loads(capsys.readouterr().out)}
    assert found["torch"] == "failed" and found["datasets"] == "note"


def test_the_doctor_looks_at_disk_trees_and_weights(tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 5e8})
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    assert doctor.disk()[0] == doctor.FAILED
    monkeypatch.setenv("DFIL_FFPP", str(tmp_path / "unmounted"))
    named = {finding.name: finding for finding in doctor.examine(["datasets"])}
    assert named["datasets"].state == doctor.FAILED and "unmounted" in named["datasets"].said
    (tmp_path / "unmounted").mkdir()
    assert doctor.trees()[0] == doctor.FAILED  # an empty mount point
    monkeypatch.setenv("DFIL_BACKBONE_WEIGHTS", str(tmp_path / "none.pth"))
    assert doctor.imagenet()[0] == doctor.FAILED


def test_the_doctor_tries_video_and_faces():
    assert doctor.video()[0] == doctor.OK and doctor.detectors()[0] == doctor.OK
    assert doctor.torch()[0] == doctor.OK and doctor.packages()[0] in (doctor.OK, doctor.NOTE)


def test_notebooks_are_copied_and_what_lies_there_is_kept(tmp_path, capsys):
    mine = tmp_path / "mine" / "00_start_here.ipynb"
    touch(mine)
    text = said(capsys, "notebooks", str(tmp_path / "mine"))
    there = {path.name for path in (tmp_path / "mine").glob("*.ipynb")}
    assert there == {path.name for path in shipped.folder().glob("*.ipynb")} and len(there) > 20
    assert mine.read_bytes() == b"" and "1 were there and are kept" in text


@pytest.mark.parametrize("installed", [False, True])
def test_links_of_copied_notebooks_hold_or_are_words(installed, tmp_path, monkeypatch):
    source, target = tmp_path / "a" / "notebooks", tmp_path / "b" / "c"
    source.mkdir(parents=True)
    if not installed:
        touch(tmp_path / "a" / "docs" / "glossary.md")
    text = "a `[x](y)`: [10](10_b.ipynb) [words](../docs/glossary.md#u) [w](https://w.org/w.md)"
    cells = [{"cell_type": kind, "source": [text]} for kind in ("markdown", "code")]
    (source / "00_a.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(shipped, "folder", lambda: source)
    shipped.copy(target)
    (markdown, code) = json.loads((target / "00_a.ipynb").read_text())["cells"]
    there = "words" if installed else "[words](../../a/docs/glossary.md#u)"
    assert code["source"] == [text]
    assert markdown["source"][0].endswith(f"[10](10_b.ipynb) {there} [w](https://w.org/w.md)")


def test_a_forecast_counts_like_calls_that_went_well_only():
    path = Path("notebooks/30_train_faceforensics.ipynb")
    row = {"notebook": path.stem, "status": "failed", "seconds": "40.0", "peak MiB": "1"}
    assert "about 3.3 min" in reproduce._forecast([path], "demo", {path.stem: row})
    well = {path.stem: row | {"status": "ok", "seconds": "300.0"}}
    assert "about 5.0 min" in reproduce._forecast([path], "demo", well)
    assert "time unknown" in reproduce._forecast([path], "demo", {}, usual=False)
    three = {"command": "dfil reproduce --only 28 30 --seeds 0 1 2 --profile demo"}
    one = {"command": "dfil reproduce --only 40 --profile demo"}
    assert reproduce._options(three) == "dfil reproduce --seeds 0 1 2 --profile demo".split()
    assert reproduce._options(one) == reproduce._options(
        {"command": "dfil reproduce --profile demo"}
    )
