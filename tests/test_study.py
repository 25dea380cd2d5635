"""The study: its order, its going on, and what its records are checked against."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dfil import cli, paper, profiles
from dfil.faces.store import CropStore
from dfil.results import located
from dfil.results.claims import CLAIMS
from dfil.system import cores
from dfil.system.errors import DivergedError, RunError
from dfil.tools import study as study_tool
from dfil.tools import verify
from dfil.tools.study import Study, begin, work
from dfil.train import devices, rates
from dfil.train.runs import Run, RunSpec, RunStore

METHODS = ["resnet50", "dil"]


def test_runs_that_claims_wait_for_come_first_and_in_rounds_of_seeds():
    items = work(profiles.get("study"))
    claimed = [item.claimed for item in items]
    assert claimed == sorted(claimed, reverse=True)
    rounds = [item.spec.seed // 3 for item in items if item.claimed]
    assert rounds == sorted(rounds)
    assert items[0].tables == ("temporal_only",)


def test_every_claim_has_runs_for_both_of_its_rows_with_every_seed():
    items = work(profiles.get("study"))
    study = profiles.get("study")
    for claim in [claim for claim in CLAIMS if claim.metric != located.METRIC]:
        seeds = study.seeds_for(claim.table.replace("temporal_only", "temporal-only"))
        of_table = [item for item in items if claim.table in item.tables and item.claimed]
        rows = 2 if isinstance(claim.than, str) else 1
        assert len(of_table) >= rows * len(seeds), claim.text


def test_dils_last_row_of_the_ablations_is_its_row_of_table_1():
    (both,) = [
        item
        for item in work(profiles.get("study"))
        if {"table1", "table4", "table5", "table6"} <= set(item.tables) and item.spec.seed == 0
    ]
    assert both.spec.method == "dil" and both.spec.compression == "c40"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two runs of the mechanism, trained at the smallest scale and published."""
    folder, patch = tmp_path_factory.mktemp("study"), pytest.MonkeyPatch()
    for variable in ("DFIL_DATA", "DFIL_OUTPUTS"):
        patch.setenv(variable, str(folder / variable))
    patch.setitem(profiles.PROFILES, "study", replace(profiles.SMOKE, name="study"))
    patch.setitem(profiles.PROFILES["study"].trees, "temporal-only", _TREE)
    study = Study(profiles.get("study"), METHODS)
    study.items = [item for item in study.items if item.tables == ("temporal_only",)][:2]
    assert study.go_on() == 2
    published = folder / "DFIL_OUTPUTS" / "study"
    verify.write(study, published)
    yield study, published
    patch.undo()


_TREE = profiles.SMOKE.trees["temporal-only"]


def test_searches_come_first_and_what_they_decide_names_the_other_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path))
    before = Study(profiles.get("study"), METHODS)
    tried = [(item.spec.method, item.spec.training.lr) for item in before.searches()]
    assert tried == [(method, rate) for method in METHODS for rate in rates.FIRST]
    monkeypatch.setattr(rates, "decided", lambda *a, **how: {"dil": 0.02})
    after = Study(profiles.get("study"), METHODS)
    lr = {item.spec.method: item.spec.training.lr for item in after.items}
    assert lr == {"dil": 0.02, "resnet50": 0.001}


def test_the_tables_know_every_methods_rate_whichever_are_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(
        rates, "decided", lambda runs, store, methods, *more: dict.fromkeys(methods, 0.02)
    )
    everything, some = Study(profiles.get("study")), Study(profiles.get("study"), ["dil"])
    assert some.profile.rates == everything.profile.rates and some.profile.rates["i3d"] == 0.02
    assert {item.spec.method for item in some.items if item.tables == ("table1",)} <= {"dil"}


def test_a_method_without_a_rate_holds_up_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path))
    real = rates.wanted
    searched = {"resnet50"}  # its search has ended
    monkeypatch.setattr(rates, "decided", lambda *a, **how: {"resnet50": 0.02})
    monkeypatch.setattr(
        rates, "wanted", lambda *a, **how: [] if a[2] in searched else real(*a, **how)
    )
    ready = list(Study(profiles.get("study"), METHODS).ready())
    assert [item.tables for item in ready[: len(rates.FIRST)]] == [("rates",)] * len(rates.FIRST)
    others = ready[len(rates.FIRST) :]
    assert {item.spec.method for item in others} == {"resnet50"}
    assert {item.spec.training.lr for item in others} == {0.02}


def test_a_run_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path))
    study = Study(profiles.get("study"), ["resnet50"])
    first, second, *_ = study.searches()
    done = Future()
    done.set_exception(RunError("the training loss is nan"))
    assert study._wait({done: first}) == 0
    assert "ended without a result: the training loss is nan" in capsys.readouterr().out
    assert first not in study.ready() and second in study.ready()


def test_a_run_that_diverged_is_not_trained_once_more(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(rates, "wanted", lambda *_: [])
    study, done = Study(profiles.get("study"), ["resnet50"]), Future()
    first = next(study.ready())
    done.set_exception(DivergedError("the training loss is nan"))
    assert study._wait({done: first}) == 0
    file = study.run(first).folder / "diverged.json"
    assert f"remove {file} to try it again" in capsys.readouterr().out
    assert first not in Study(profiles.get("study"), ["resnet50"]).ready()
    file.unlink()
    assert first in Study(profiles.get("study"), ["resnet50"]).ready()


def test_runs_side_by_side_share_the_cores_and_compute_in_float32(monkeypatch):
    monkeypatch.setattr(devices, "_full", False)
    monkeypatch.setattr(cores, "_beside", 1)
    gpu, there = torch.device("cuda"), cores.cores()
    assert devices.autocast_type(gpu) == torch.bfloat16
    threads = torch.get_num_threads()
    try:
        begin(2 * there)
    finally:
        torch.set_num_threads(threads)
    assert cores.cores() == 1 and devices.autocast_type(gpu) == torch.float32


def test_heavy_compression_is_trained_for_longer():
    longer = replace(profiles.get("study"), heavy_epochs=99)
    where = "table1", "dil", "ffpp"
    epochs = {c: RunSpec.of_table(longer, *where, c).training.epochs for c in ("c23", "c40")}
    assert epochs == {"c23": longer.training.epochs, "c40": 99}
    item = next(item for item in work(longer) if "table4" in item.tables)
    assert item.spec.training.epochs == 99


def test_a_record_knows_the_people_of_its_training_and_its_cell_those_it_met(small, monkeypatch):
    study, _ = small
    item, records = study.items[0], verify.Records(study)
    run, videos = study.run(item), paper.Videos("ffpp", "c23", ("Deepfakes",))
    index = CropStore(study_tool._crops(study.profile, item.source)).index
    people = {split: {*of["person"]} for split, of in index.groupby("split")}
    assert run.record["made"]["people"] == sorted(people["train"] | people["val"])

    def notes():
        return records._result([item.spec], item.source, item.source, videos).notes

    assert not any("in training too" in note for note in notes())
    record = run.record
    record["made"]["people"] += [min(people["test"])]
    monkeypatch.setattr(Run, "record", record)
    assert f"1 of {len(people['test'])} test people are in training too" in notes()


def test_what_is_done_is_not_done_again(small):
    study, _ = small
    assert study.todo() == [] and study.go_on() == 0
    assert "2 of 2 runs are done" in study.forecast([])


def test_records_alone_give_the_published_tables(small):
    study, published = small
    for item in study.items:
        study.run(item).folder.joinpath("weights.safetensors").unlink(missing_ok=True)
    assert verify.differences(study, published) == []
    stray = published / "tables" / "temporal_only_auc.csv"
    stray.write_text("a table that was published from other records")
    assert verify.differences(study, published) == [
        f"{stray}: no record gives its numbers; `dfil study` trains what it lacks"
    ]
    stray.unlink()
    assert (published / "claims.csv").is_file()
    assert verify.stale(study) == []
    with pytest.raises(RunError, match="a record without its weights.*remove the folder"):
        study.run(study.items[0]).model()


def test_a_number_that_the_records_do_not_give_is_named(small, tmp_path):
    study, published = small
    shutil.copytree(published, tmp_path / "study")
    changed = tmp_path / "study" / "tables" / "temporal_only.csv"
    lines = changed.read_text().splitlines()
    cells = lines[1].split(",")
    cells[5] = "0.123"
    changed.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    (line,) = verify.differences(study, tmp_path / "study")
    assert "temporal_only.csv" in line


def test_a_record_of_other_code_is_named(small):
    study, _ = small
    run = study.run(study.items[0])
    file, before = run.folder / "run.json", (run.folder / "run.json").read_text()
    record = json.loads(before)
    record["made"]["fingerprint"]["model"][0] *= 2
    file.write_text(json.dumps(record))
    try:
        assert verify.stale(study) == [f"{run.key}: made by other code of the model"]
    finally:
        file.write_text(before)


def test_the_list_names_every_run_and_trains_none(capsys):
    assert cli.main(["study", "--list", "--methods", "dil"]) == 0
    said = capsys.readouterr().out
    assert "temporal_only" in said and "runs are done" in said


def test_a_profile_of_real_data_has_no_study(capsys):
    assert cli.main(["study", "--profile", "paper", "--list"]) == 1
    assert "the study is of built-in data" in capsys.readouterr().err


def test_the_published_study_is_what_its_records_give(monkeypatch):
    for variable in ("DFIL_OUTPUTS", "DFIL_WORK"):
        monkeypatch.delenv(variable, raising=False)
    published = Path(__file__).parent.parent / "outputs" / "study"
    study = Study(profiles.STUDY)  # by that name there are the two runs of `small` in this file
    study.runs = RunStore(published / "runs", study.profile)
    if not (published / "tables").is_dir():
        pytest.skip("no run of the study has been published yet")
    assert verify.differences(study, published) == []
