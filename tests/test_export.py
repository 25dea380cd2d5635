"""Runs found by words, and exported as a folder that gives the same logits."""

import dataclasses
import json
import re
import shutil

import pandas as pd
import pytest
import torch

from dfil import cli, models
from dfil.profiles import SMOKE, Training
from dfil.system.errors import RunError
from dfil.tools import found
from dfil.tools.export import export
from dfil.train.runs import RunSpec, RunStore
from dfil.train.self_blended import SelfBlended

TINY = {"depth": (1, 1, 1, 1), "width": 8, "stem": "small"}
HOW = Training(epochs=1, batch=4, paired=True, snippets=2)
PROFILE = dataclasses.replace(SMOKE, backbone=TINY, training=HOW, test_snippets=2)
SPEC = RunSpec.of_table(PROFILE, "table1", "dil", "ffpp", "c23", ("Deepfakes",))
WITHOUT_BP = dataclasses.replace(SPEC, switches=(("bp", False),), seed=1)


@pytest.fixture(scope="module")
def outputs(tiny_store, tmp_path_factory):
    """An outputs folder with two trained runs, of which one has scored the test videos."""
    top = tmp_path_factory.mktemp("outputs")
    runs = RunStore(top / "smoke/runs", PROFILE)
    runs.get(SPEC, tiny_store).scores(tiny_store, "c23")
    runs.get(WITHOUT_BP, tiny_store)
    return top


@pytest.fixture(autouse=True)
def here(outputs, monkeypatch):
    monkeypatch.setenv("DFIL_OUTPUTS", str(outputs))


def test_a_run_is_known_again_from_its_record(outputs, tiny_store):
    store = RunStore(outputs / "smoke/runs", PROFILE)
    by_seed = {each.run.spec.seed: each for each in found.every()}
    for spec in (SPEC, WITHOUT_BP):
        run = by_seed[spec.seed].run
        assert run.spec == spec and run.key == store.key(spec, tiny_store)
        assert run.switches == store.run(spec, tiny_store).switches
        assert run.sampling == store.run(spec, tiny_store).sampling


def test_a_run_on_pseudo_forgeries_is_known_again(outputs, tiny_store, tmp_path):
    spec = dataclasses.replace(SPEC, manipulations=(), fakes=SelfBlended(0.25))
    store = RunStore(outputs / "smoke/runs", PROFILE)
    shutil.copytree(found.one(["seed=0"]).folder, tmp_path / store.key(spec, tiny_store))
    file = tmp_path / store.key(spec, tiny_store) / "run.json"
    record = json.loads(file.read_text()) | {"settings": store.describe(spec, tiny_store)}
    file.write_text(json.dumps(record))
    run = found.read(file.parent)
    assert run.run.spec == spec and run.switches == "jitter=0.25"
    assert {"self-blended", "jitter=0.25"} <= run.words and "all" not in run.words
    text = (export(run, tmp_path / "out") / "README.md").read_text()
    assert "pseudo-forgeries made of the real videos (jitter=0.25)" in text


@pytest.mark.parametrize(
    "words, seeds",
    [
        ("dil c23", {0, 1}),
        ("DIL deepfakes synthetic temporal-only smoke", {0, 1}),
        ("seed 1", {1}),
        ("seed=1", {1}),
        ("bp=false", {1}),
        ("resnet50", set()),
        ("c40", set()),
        ("real", set()),
    ],
)
def test_runs_are_found_by_words(words, seeds):
    assert {each.run.spec.seed for each in found.matching(words.split())} == seeds


def test_the_end_of_a_name_or_a_folder_names_one_run():
    run = found.one(["seed=1"])
    end = run.folder.name.rpartition("-")[2]
    assert found.one([end]) == found.one([end[:5]]) == found.one([str(run.folder)]) == run


def test_several_that_fit_are_said_with_what_to_do(monkeypatch):
    first = found.one(["seed=0"])
    again = first.record | {"settings": first.settings | {"seed": 7}}
    both = [first, dataclasses.replace(first, record=again, folder=first.folder / "dil-x-1234")]
    monkeypatch.setattr(found, "every", lambda: both)
    said = r"2 runs fit 'dil': dil-ffpp.*, dil-x-1234; add a word, such as seed=0, or give the end"
    with pytest.raises(RunError, match=said):
        found.one(["dil"])
    assert found.one(["dil", "seed=7"]).run.spec.seed == 7


def test_the_full_dfdc_is_not_called_the_preview(tmp_path):
    first = found.one(["seed=0"])
    asked = first.settings | {"dataset": "dfdc-preview", "compression": "", "manipulations": []}
    made = first.record["made"] | {"dataset": "dfdc"}
    run = dataclasses.replace(first, record=first.record | {"settings": asked, "made": made})
    assert run.dataset == "dfdc" and run.data.startswith("dfdc all fakes")
    folder = export(run, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["data"]["dataset"] == "dfdc"
    text = (folder / "README.md").read_text()
    assert "DFDC" in text and "preview" not in text.replace(run.folder.name, "")


def test_a_method_without_switches_stands_for_itself(outputs, monkeypatch):
    monkeypatch.setenv("DFIL_OUTPUTS", str(outputs))
    assert found.one(["dil"]) == found.one(["seed=0"]) != found.one(["bp=false"])
    assert {run.run.spec.seed for run in found.matching(["dil"])} == {0, 1}


def test_a_word_that_is_in_no_run_is_said():
    with pytest.raises(RunError, match=r"'deepfake' is in none; 'deepfakes' is.*`dfil runs` lists"):
        found.one(["dil", "deepfake"])


def test_a_damaged_record_hides_no_other(outputs, tmp_path, monkeypatch, capsys):
    shutil.copytree(outputs, tmp_path / "out")
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "out"))
    (found.one(["seed=0"]).folder / "run.json").write_text('{"settings": {}}')
    assert [each.run.spec.seed for each in found.every()] == [1]
    assert (
        cli.main(["runs"]) == 0
        and "run.json, config.json or history.csv is damaged" in capsys.readouterr().out
    )
    with pytest.raises(RunError, match="1 more are damaged"):
        found.one(["seed=0"])
    (one,) = found.every()
    for content in (None, "epoch,kept\n", "no table"):
        (one.folder / "history.csv").unlink() if content is None else (
            one.folder / "history.csv"
        ).write_text(content)
        assert found.every() == [] and one.folder in found.damaged()


def test_scores_of_another_tree_are_not_the_runs_own(outputs, tmp_path):
    shutil.copytree(found.one(["seed=0"]).folder, folder := tmp_path / "run")
    (mine,) = (folder / "scores").glob("*-test-*.parquet")
    other = pd.read_parquet(mine)
    other["logit"] = 9.0 * (2 * other["label"] - 1)
    assert other.attrs == {"own": True}
    other.attrs["own"] = False
    other.to_parquet(mine.with_name(mine.name.replace(mine.stem[-10:], "0000000000")))
    run = found.read(folder)
    assert run.test_auc == found.one(["seed=0"]).test_auc
    assert [kept.own for kept in run.scores()] == [False, True]
    text = (export(run, tmp_path / "out") / "README.md").read_text()
    assert text.count("(another tree)") == 1


def test_runs_are_listed_in_lines_that_can_be_read(capsys):
    assert cli.main(["runs"]) == 0
    heads, *lines, said = capsys.readouterr().out.splitlines()
    assert heads.split()[:4] == ["method", "data", "switches", "seed"]
    assert all(" 0 h " in line for line in lines)
    assert len(lines) == 2 and said.startswith("2 trained runs.")
    scored = next(line for line in lines if re.search(r" 0 +\d\.\d{3} ", line))
    assert re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] +4 ", scored)
    assert cli.main(["runs", "seed", "1", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["switches"] == "bp=False" and told["test_auc"] is None and told["synthetic"]


def test_an_exported_folder_gives_the_same_logits(tmp_path, capsys):
    run = found.one(["seed=0"])
    assert cli.main(["export", "dil", "seed=0", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out"
    assert {p.name for p in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "preprocessor_config.json",
        "README.md",
    }
    x_butchw = torch.randn(2, 2, 4, 3, 32, 32)
    original, exported = run.run.model(), models.load_weights(folder)
    with torch.no_grad():
        assert torch.equal(original(x_butchw), exported[0](x_butchw))
        assert torch.equal(original(x_butchw), models.DIL.from_pretrained(folder)(x_butchw))
    assert exported[1]["sampling"] == run.config["sampling"] | {"box": "snippet"}
    assert exported[1]["trained_on"] == run.folder.name and exported[1]["synthetic"]
    export(run, folder)  # again


def test_crops_and_snippets_of_another_export_are_refused(tmp_path):
    folder = export(found.one(["seed=0"]), tmp_path / "out")
    file = folder / "preprocessor_config.json"
    looks = json.loads(file.read_text())
    looks["sampling"]["frames"] += 4
    file.write_text(json.dumps(looks))
    with pytest.raises(RunError, match=f"{file}: says other crops and snippets than config.json"):
        models.load_weights(folder)


def test_the_card_tells_data_scores_with_interval_and_limits(tmp_path):
    run = found.one(["seed=0"])
    text = (export(run, tmp_path / "out") / "README.md").read_text()
    test = run.test_auc
    assert "On a real video its numbers mean nothing" in text
    interval = f"{test.value:.3f} [{test.low:.3f}, {test.high:.3f}]"
    (line,) = (line for line in text.splitlines() if line.startswith("| ffpp c23 Deepfakes | test"))
    assert " | 4 | 2 | " in line and line.endswith(f"| {interval} |")
    assert "not calibrated" in text and "8 videos to train on, 4 for validation" in text
    assert text.startswith("---\nlibrary_name: dfil\n") and "  \n" not in text
    other = (export(found.one(["seed=1"]), tmp_path / "other") / "README.md").read_text()
    assert "Not measured on test videos yet" in other and "bp=False" in other


def test_an_export_overwrites_nothing_foreign_and_needs_weights(outputs, tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="holds other files"):
        export(found.one(["seed=0"]), tmp_path)
    shutil.copytree(outputs, tmp_path / "out")
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "out"))
    (found.one(["seed=0"]).folder / "weights.safetensors").unlink()
    with pytest.raises(RunError, match="only the run's record is here"):
        export(found.one(["seed=0"]), tmp_path / "new")


def test_a_folder_of_built_in_clips_is_synthetic_too(outputs):
    run = found.one(["seed=0"])
    record = {**run.record, "settings": {**run.settings, "data": "a folder's digest"}}
    other = dataclasses.replace(run, record=record)
    assert not other.setting and other.synthetic and "synthetic" in other.words
    assert other.data.endswith("synthetic")
    real = dataclasses.replace(other, config={**run.config, "synthetic": False})
    assert not real.synthetic and "real" in real.words


def test_an_interrupted_export_has_no_settings_of_the_one_before(tmp_path, monkeypatch):
    folder = export(found.one(["seed=0"]), tmp_path / "out")
    monkeypatch.setattr("dfil.tools.export._write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(found.one(["seed=0"]), folder)
    assert not (folder / "preprocessor_config.json").exists()
