"""The plan against counts and hours written out by hand, and the command line."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest
import torch

from dfil import models, paper
from dfil.cli import main
from dfil.datasets import load_records
from dfil.profiles import DEMO, PAPER, PROFILES, SMOKE
from dfil.system.errors import RunError
from dfil.tools import faults, plan

PROJECT = Path(__file__).parents[1]
SECONDS = {"train": 1.0, "test": 0.5, "parameters": 25e6}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "data"))


@pytest.fixture
def measured(monkeypatch):
    every = dict.fromkeys(models.available(), SECONDS)
    known = {"cpu": ("one core", every), "gpu": ("", {})}
    monkeypatch.setattr(plan, "throughputs", lambda profile: known)


def stores(profile):
    return {dataset: plan.expected(profile, dataset) for dataset in plan.FRAMES}


def test_shared_runs_are_counted_once_also_those_of_methods_that_the_paper_only_quotes(measured):
    made = plan.make(PAPER, ["dil", "resnet50"])
    # Table 1: 2 methods x 8; Table 2: DIL and the baseline x 3 datasets; Table 3: 2, longer than
    # any other; then 3, 3 and 5 ablations x 4.
    methods_of = {
        table: {row.name for row in paper.TABLES[table].rows} & {"dil", "resnet50"}
        for table in ("table2", "table3")
    }
    own = {
        "table1": 16,
        "table2": 3 * len(methods_of["table2"]),
        "table3": len(methods_of["table3"]),
        "table4": 12,
        "table5": 12,
        "table6": 20,
    }
    assert len(made["runs"]) == sum(own.values())
    assert {name: table["runs"] for name, table in made["tables"].items()} == own | {
        "table4": 16,
        "table5": 16,
        "table6": 24,
    }
    (full,) = [
        r
        for r in made["runs"]
        if (r["method"], r["switches"], r["compression"], r["manipulations"])
        == ("dil", {}, "c40", ("FaceSwap",))
    ]
    assert full["tables"] == ["table1", "table4", "table5", "table6"]
    assert made["hours"]["cpu"] == pytest.approx(sum(run["hours"]["cpu"] for run in made["runs"]))
    assert made["hours"]["gpu"] is None and made["devices"]["gpu"] == "not measured yet"

    slow = set()
    for table in paper.TABLES.values():
        for row in table.rows:
            for column in table.columns:
                method = row.method or row.name
                if method in models.available():
                    slow.add((method, row.switches, column.train, table.key == "table3"))
    assert len(plan.needs(PAPER, models.available(), stores(PAPER))) == len(slow)


def test_hours_are_the_products_of_the_published_counts(measured):
    made = plan.make(PAPER, ["dil"])
    by_table = {
        run["tables"][0]: run
        for run in made["runs"]
        if run["method"] == "dil" and not run["switches"]
    }
    # 720 + 720 training, 140 + 140 validation, and 140 x 5 test videos of one quality; validation
    # looks at half the snippets of testing.
    assert by_table["table1"]["hours"]["cpu"] == pytest.approx(
        (30 * (1440 * 1.0 + 280 * 0.25) + 700 * 0.5) / 3600
    )
    # All four manipulations, 45 epochs; tested on FaceForensics++, Celeb-DF's 518 and the preview's
    # 780 videos.
    across = by_table["table3"]
    assert (across["epochs"], across["clips per epoch"], across["test videos"]) == (
        45,
        720 * 5,
        700 + 518 + 780,
    )
    wild = next(run for run in made["runs"] if run["dataset"] == "wilddeepfake")
    assert (
        wild["clips per epoch"] + wild["validation videos"] == 3409 + 3099
        and wild["test videos"] == 806
    )
    crops = made["gigabytes"]["crops"]
    assert crops["ffpp"] == pytest.approx(10_000 * 64 * 3 * (1.2 * 224) ** 2 / 1e9) and set(
        crops
    ) == set(plan.FRAMES)
    assert made["gigabytes"]["weights"] == pytest.approx(len(made["runs"]) * 0.1)


def test_demo_trains_pairs_of_all_manipulations_and_finds_table_3s_runs_again(measured):
    whole = dataclasses.replace(DEMO, qualities=(), on_request=())
    made = plan.make(whole)
    full = [run for run in made["runs"] if "table1" in run["tables"] and run["method"] == "dil"]
    assert [run["compression"] for run in full] == ["c23", "c40"] and full[1]["tables"] == [
        "table1",
        "table3",
        "table4",
        "table5",
        "table6",
    ]
    assert {run["clips per epoch"] for run in full} == {2 * 4 * DEMO.trees["ff-like"]["train"]}
    assert {run["method"] for run in made["runs"]} == set(DEMO.runs("table1"))


def test_a_plan_is_of_what_a_call_without_wishes_trains(measured):
    """In demo Table 1 at c23 and Table 2; c40 and Tables 3 to 6 only on request."""
    made = plan.make(DEMO)
    assert {table for run in made["runs"] for table in run["tables"]} == {"table1", "table2"}
    assert {run["compression"] for run in made["runs"]} == {"c23", ""}
    assert len(made["runs"]) == 2 + 3 * 2
    said = plan.text({"all": made})
    assert "table3, table4, table5, table6: not in it, only by dfil reproduce" in said
    assert "not in it" not in plan.text({"all": plan.make(PAPER, ["capsule"])})
    for table, number in plan.NOTEBOOKS.items():
        (file,) = (PROJECT / "notebooks").glob(f"{number}_*.ipynb")
        assert json.loads(file.read_text())["metadata"]["dfil"]["table"] == table


def test_the_expected_index_is_that_of_a_tree_of_this_size(tiny_tree):
    sizes = {
        "train": 4,
        "val": 2,
        "test": 2,
        "frames": 20,
        "qualities": ("c23",),
        "manipulations": ("Deepfakes",),
    }
    index = plan.expected(dataclasses.replace(SMOKE, trees={"ff-like": sizes}), "ffpp").index
    columns = ["split", "label", "manipulation", "compression"]
    there = sorted(
        tuple(getattr(record, name) for name in columns)
        for record in load_records("ffpp", tiny_tree)
    )
    assert sorted(index[columns].itertuples(index=False, name=None)) == there
    assert index.groupby("target")["label"].agg(set).eq({0, 1}).all()


def test_seconds_are_those_of_one_clip(monkeypatch):
    def busy(seconds):
        def step(*_):
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

        return lambda *_: step

    monkeypatch.setattr(plan, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(plan, "_training_step", busy(0.04))
    monkeypatch.setattr(plan, "_scoring_step", busy(0.02))
    threads = torch.get_num_threads()
    found = plan.measure(SMOKE, "dil")
    assert (
        found["train"] == pytest.approx(0.04 / SMOKE.training.batch, rel=0.5)
        and found["train clips"] == SMOKE.training.batch
    )
    assert (
        found["test"] == pytest.approx(0.02 / SMOKE.training.batch, rel=0.5)
        and torch.get_num_threads() == threads
    )
    built = models.build("dil", **SMOKE.backbone, frames=SMOKE.frames)
    assert found["parameters"] == sum(p.numel() for p in built.parameters())


def test_a_plan_without_a_measurement_comes_at_once_and_one_of_this_machine_counts_more(
    tmp_path, capsys
):
    assert main(["plan", "--profile", "smoke", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert list(before) == ["dil alone", "all methods"]
    assert before["all methods"]["hours"]["cpu"] > before["dil alone"]["hours"]["cpu"] > 0

    typed = ["plan", "--profile", "smoke", "--methods", "dil", "--measure", "--json"]
    assert main(typed) == 0
    (made,) = json.loads(capsys.readouterr().out).values()
    file = json.loads((tmp_path / "data/throughputs.json").read_text())
    mine = file["cpu"]["seconds"]["smoke"]["dil"]
    assert made["methods"]["dil"]["cpu"] == mine and 0 < mine["train"] < 10
    assert all(run["hours"]["cpu"] > 0 for run in made["runs"])
    assert file["cpu"]["device"] in made["devices"]["cpu"]

    (tmp_path / "data/throughputs.json").write_text("{")
    assert main(["plan", "--profile", "smoke"]) == 0
    assert "is no JSON" in capsys.readouterr().out


def test_the_shipped_table_knows_every_method_of_every_profile():
    for profile in PROFILES.values():
        _, seconds = plan.throughputs(profile)["cpu"]
        assert set(models.available()) <= set(seconds)
        for method, found in seconds.items():
            least = 19 if models.is_fitted(method) else 1e4
            assert 0 < found["test"] and 0 < found["train"] and least <= found["parameters"], method


def test_the_plan_reads_well(measured, capsys):
    assert main(["plan", "--profile", "paper", "--methods", "dil", "--list"]) == 0
    out = capsys.readouterr().out
    assert "dil lk=False ffpp c40 NeuralTextures seed 0 (table5)" in out
    assert "a shared run once" in out and "crops of wilddeepfake" in out
    assert "gpu: not measured yet (dfil bench gpu" in out
    lines = [line for line in out.splitlines() if "seed 0" in line]
    assert len(lines) == len(plan.make(PAPER, ["dil"])["runs"])
    with pytest.raises(RunError, match="no method is called 'vgg'"):
        plan.make(PAPER, ["vgg"])


def test_what_only_a_gpu_can_say_is_asked_at_the_smallest_size_without_one(
    tmp_path, monkeypatch, capsys
):
    from dfil.tools.bench import gpu

    counted = [{"precision": "float32", "checkpoint": False, "waiting": 0.01, "peak_mib": 100.0}]
    monkeypatch.setattr(gpu.train, "measure", lambda *_, **__: {"rows": counted})
    monkeypatch.setattr(models, "available", lambda: ["dil", "resnet50"])
    assert main(["bench", "gpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ratio = found["ratios"]["modes"]["float32"]["step"]
    assert ratio["ratio"] == pytest.approx(ratio["dil"] / ratio["resnet50"], rel=0.9)
    curves = found["curves"]["networks"]["dil"]
    assert len(curves["losses"]["float32"]) == len(curves["losses"]["bfloat16"]) == 4
    assert 0 < curves["largest difference"] < 1 and 0 < curves["cosine"] <= 1
    assert found["link"]["gb_per_s"] > 0 and found["hours"]["unmeasured"] == []
    assert (tmp_path / "data/throughputs.json").is_file()
    text = gpu.table(found)
    assert "No GPU here" in text and "step, float32, times ResNet-50" in text
    assert all(name in text for name in ("waiting for data", "averaging gradients", "in all, dil"))
    assert gpu.measure(limit=-1.0)["hours"]["missing"].startswith("not begun")


def test_a_reproduction_that_is_killed_ends_with_the_same_tables(tmp_path, monkeypatch):
    """A stand-in for the reproduction: it goes on where it was, as the real one must."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(faults, "COMMAND", [sys.executable, str(script)])
    said = []
    found = faults.faults(kills=2, seed=1, say=said.append)
    assert found["tables"] == {"a.csv": "same", "b.csv": "same"} and len(found["kills"]) == 2
    assert any("kill 2 of 2" in line for line in said)
    script.write_text(STAND_IN.replace('"whole"', "repr(time.time())"))
    assert set(faults.faults(kills=1, seed=1, say=said.append)["tables"].values()) == {"differs"}
    script.write_text("raise SystemExit(3)")
    with pytest.raises(RunError, match="ended with 3"):
        faults.faults(kills=1, say=said.append)


STAND_IN = """
import os, pathlib, time
folder = pathlib.Path(os.environ["DFIL_OUTPUTS"]) / "smoke" / "tables"
folder.mkdir(parents=True, exist_ok=True)
for name in ("a.csv", "b.csv"):
    print("working on", name, flush=True)
    time.sleep(0.7)
    (folder / name).write_text("whole")
"""
