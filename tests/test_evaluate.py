"""One number without a table: the same from a run, its kept scores, its export, and a table."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest

from dfil import cli, profiles
from dfil.profiles import SMOKE, Training
from dfil.results import metrics
from dfil.system.errors import DataError, RunError
from dfil.tools import evaluate, found
from dfil.tools.evaluate import Videos
from dfil.tools.export import export
from dfil.train import data
from dfil.train.runs import RunSpec, RunStore

TINY = {"depth": (1, 1, 1, 1), "width": 8, "stem": "small"}
HOW = Training(epochs=1, batch=4, paired=True, snippets=2)
SIZES = {"train": 4, "val": 2, "test": 2, "frames": 20}
PROFILE = dataclasses.replace(
    SMOKE, backbone=TINY, training=HOW, test_snippets=2, trees={"temporal-only": SIZES}
)
SPEC = RunSpec.of_table(PROFILE, "table1", "dil", "ffpp", "c23", ("Deepfakes",))
OWN = Videos("ffpp", "c23", ("Deepfakes",))


@pytest.fixture(scope="module")
def place(tiny_tree, tmp_path_factory):
    """A data and an outputs folder with one trained run that has scored nothing."""
    top = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFIL_DATA", str(top / "data"))
        store = data.crops(PROFILE, tiny_tree)
        RunStore(top / "out/smoke/runs", PROFILE).get(SPEC, store)
    return top


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.setenv("DFIL_DATA", str(place / "data"))
    monkeypatch.setenv("DFIL_OUTPUTS", str(place / "out"))


def test_a_run_its_export_and_a_table_give_one_number(tiny_tree, tmp_path, capsys):
    run = found.one(["dil"])
    by_run = evaluate.of_run(run, OWN, tiny_tree)
    by_export = evaluate.of_weights(export(run, tmp_path / "out"), OWN, tiny_tree)
    store = data.crops(PROFILE, tiny_tree)
    scores = RunStore(run.folder.parent, PROFILE).get(SPEC, store).scores(store, "c23")
    people = metrics.people(scores)
    assert by_run.auc == by_export.auc == metrics.auc(scores["label"], scores["score"], people)
    assert by_run.accuracy == by_export.accuracy and by_run.people == 1 and by_run.missing == {}
    assert by_run.synthetic and by_run.learnt_synthetic


def test_the_verb_takes_words_folders_and_files(tiny_tree, tmp_path, capsys):
    folder = export(found.one(["dil"]), tmp_path / "out")
    for which in (["dil", "c23"], [str(folder)], [str(folder / "model.safetensors")]):
        assert cli.main(["evaluate", *which, "--root", str(tiny_tree), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["auc"]["n"] == 4 and told["videos"]["manipulations"] == ["Deepfakes"]
    assert cli.main(["evaluate", "dil", "--root", str(tiny_tree), "--split", "val"]) == 0
    said = capsys.readouterr().out
    assert "synthetic val videos" in said and "4 videos, 2 forged" in said
    assert "took part in making the model" in said and "none is missing" in said


def test_kept_scores_need_neither_crops_nor_weights(place, tiny_tree, tmp_path, monkeypatch):
    first = evaluate.of_run(found.one(["dil"]), OWN, tiny_tree)
    shutil.copytree(place / "out", tmp_path / "out")
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path / "out"))
    monkeypatch.setenv("DFIL_DATA", str(tmp_path / "no data"))
    monkeypatch.setitem(found.PROFILES, "smoke", PROFILE)
    run = found.one(["dil"])
    (run.folder / "weights.safetensors").unlink()
    assert evaluate.of_run(run, OWN).as_dict() == first.as_dict()
    with pytest.raises(RunError, match="only the run's record is here"):
        evaluate.of_run(run, dataclasses.replace(OWN, split="train"))


def test_what_has_learnt_from_real_videos_is_not_judged_on_built_in_ones(
    tiny_tree, tmp_path, monkeypatch
):
    monkeypatch.delenv("DFIL_FFPP", raising=False)
    monkeypatch.setitem(found.PROFILES, "smoke", PROFILE)
    run = found.one(["dil"])
    folder = export(run, tmp_path / "out")
    settings = json.loads((folder / "config.json").read_text()) | {"synthetic": False}
    (folder / "config.json").write_text(json.dumps(settings))
    record = run.record | {"settings": run.settings | {"data": "0123456789"}}
    real = dataclasses.replace(run, record=record, config=run.config | {"synthetic": False})
    for call, what in ((evaluate.of_run, real), (evaluate.of_weights, folder)):
        with pytest.raises(DataError, match=r"learnt from real videos: .*--root.*\$DFIL_FFPP"):
            call(what, OWN)
    monkeypatch.setenv("DFIL_FFPP", str(tiny_tree))
    by_run, by_weights = evaluate.of_run(real, OWN), evaluate.of_weights(folder, OWN)
    assert by_run.auc == by_weights.auc == evaluate.of_run(run, OWN, tiny_tree).auc


@pytest.mark.parametrize(
    "wrong",
    [{"sampling": []}, {"sampling": {"size": 0}}, {"data": []}, {"data": {"manipulations": None}},
     {"data": {"manipulations": "Deepfakes"}}, {"data": {"profile": []}}],
)  # fmt: skip
def test_settings_that_cannot_be_are_one_sentence(tiny_tree, tmp_path, wrong):
    folder = export(found.one(["dil"]), tmp_path / "out")
    (folder / "preprocessor_config.json").unlink()
    settings = json.loads((folder / "config.json").read_text()) | wrong
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RunError, match="what its (settings|config.json) says? .* export again"):
        evaluate.of_weights(folder, evaluate.learnt_from(folder), tiny_tree)


def test_what_could_not_be_judged_is_counted_with_its_reason():
    class Store:
        folder, meta = "crops", {"synthetic": False}
        index = pd.DataFrame(
            {
                "video_id": list("abcd"),
                "label": [0, 1, 1, 1],
                "manipulation": ["real", "Deepfakes", "Deepfakes", "Deepfakes"],
                "compression": "c23",
                "split": "test",
                "status": ["ok", "ok", "no face", "ok"],
                "person": "",
            }
        )

    scores = Store.index.iloc[:2].assign(score=[0.2, 0.9])
    result = evaluate.measured("a model", scores, Store, OWN, learnt_synthetic=True)
    assert result.missing == {"no face": 1, "without a score": 1}
    said = str(result)
    assert "2 of 4 are missing (1 no face, 1 without a score)" in said
    assert "intervals by video" in said and "seen synthetic clips only" in said
    with pytest.raises(DataError, match="crops: 1 usable test videos of .* not of both classes"):
        evaluate.measured("a model", scores.iloc[:1], Store, OWN, True)
    with pytest.raises(DataError, match="no c23 FaceSwap videos in its test split"):
        evaluate.measured("a model", scores, Store, Videos("ffpp", "c23", ("FaceSwap",)), True)


def test_what_is_not_typed_is_as_it_was_trained():
    assert evaluate.chosen(None, None, None, "val", OWN) == dataclasses.replace(OWN, split="val")
    assert evaluate.chosen("ffpp", "c40", None, "test", OWN) == Videos(
        "ffpp", "c40", ("Deepfakes",)
    )
    assert evaluate.chosen("celebdf", None, None, "test", OWN) == Videos("celebdf")
    ordered = evaluate.chosen(None, None, ["NeuralTextures", "Deepfakes"], "test", OWN)
    assert ordered.manipulations == ("Deepfakes", "NeuralTextures")


def test_train_prints_test_figures_on_request(tiny_tree, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DFIL_OUTPUTS", str(tmp_path))
    monkeypatch.setitem(cli.PROFILES, "smoke", PROFILE)
    typed = ["train", "dil", "--profile", "smoke", "--root", str(tiny_tree), "--test"]
    assert cli.main([*typed, "--manipulations", "Deepfakes"]) == 0
    said = capsys.readouterr().out
    assert "on the validation videos" in said and "synthetic test videos\n" in said
    assert "4 videos, 2 forged" in said


def test_a_run_on_another_profiles_clips_leaves_its_own_tree_alone(place, monkeypatch):
    other = dataclasses.replace(PROFILE, name="other", trees={"temporal-only": SIZES | {"test": 4}})
    monkeypatch.setitem(profiles.PROFILES, "other", other)
    before = {*(place / "data/trees").glob("*/*")}
    found_ = evaluate.of_run(found.one(["dil"]), OWN, profile="other")
    assert found_.auc.n == 8
    made = {*(place / "data/trees").glob("*/*")} - before
    assert {path.parent.name for path in made} == {"other"}
