"""Which methods are run, with what scores, and what a frame-level score is."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dfil import models, paper, profiles
from dfil.explain import frame_level
from dfil.models.baselines.frame_resnet import FrameResNet
from dfil.profiles import DEMO, PAPER, SMOKE, STUDY
from dfil.results import tables
from dfil.results.records import videos_of
from dfil.system.errors import DataError, RunError
from dfil.tools.notebook import with_counts
from dfil.train import experiments, own_video
from dfil.train.runs import Run, RunSpec, RunStore
from dfil.train.spec import known_people


def test_methods_asked_for_the_profiles_or_all():
    assert (
        experiments.methods(DEMO)
        == experiments.methods(SMOKE, table="table2")
        == ["resnet50", "dil"]
    )
    assert experiments.methods(DEMO, ["all"]) == experiments.methods(PAPER) == models.available()
    assert (
        experiments.methods(SMOKE, table="table1")
        == experiments.methods(PAPER, table="table3")
        == models.available()
    )
    assert experiments.methods(PAPER, ["dil"]) == experiments.methods(PAPER, "dil") == ["dil"]
    with pytest.raises(RunError, match="'dill'.*resnet50"):
        experiments.methods(DEMO, ["dill"])


def test_seeds_of_ones_own():
    assert profiles.get("demo") is DEMO and profiles.get("demo", [2, 0]).seeds == (2, 0)
    assert profiles.get("demo", 3).seeds == (3,) and profiles.get("demo", 0) == DEMO
    assert dataclasses.replace(profiles.get("demo", [2, 0]), seeds=(0,)) == DEMO
    for wrong in ([0, 0], [-1], [1.5], ["1"], [True]):
        with pytest.raises(RunError, match="different whole numbers"):
            profiles.get("demo", wrong)


class FakeRun:
    """A run whose model calls a snippet by its mean brightness."""

    class profile:
        frames, size = 4, 16

    class Model(torch.nn.Module):
        def snippet_logits(self, x):
            return x.mean((2, 3, 4, 5))

    def model(self):
        return self.Model()


def test_snippets_of_a_video_follow_each_other_and_meet_their_truth(tiny_store):
    rows = tiny_store.index[
        (tiny_store.index["status"] == "ok") & (tiny_store.index["split"] == "test")
    ]
    name = rows["video_id"].iloc[0]
    frames = int(rows["frames"].iloc[0])
    forged = np.zeros(frames, bool)
    forged[6:13] = True
    assert frame_level.partly({name: forged, "other": forged}, tiny_store).keys() == {name}
    assert not frame_level.partly({name: np.ones(frames, bool)}, tiny_store)
    scores = frame_level.snippet_scores(FakeRun(), tiny_store, {name: forged})
    assert (
        scores["first_frame"].diff().dropna().eq(4).all()
        and (scores["last_frame"] - scores["first_frame"]).eq(3).all()
    )
    expected = [forged[a : a + 4].mean() for a in scores["first_frame"]]
    assert scores["forged"].tolist() == expected and scores["logit"].nunique() > 1
    crops = tiny_store.open(name)
    first = int(scores["first_frame"].iloc[1])
    by_hand = (crops.snippet(first, 4, 16) / 255 - np.array([0.485, 0.456, 0.406])) / np.array(
        [0.229, 0.224, 0.225]
    )
    assert scores["logit"].iloc[1] == pytest.approx(by_hand.mean(), abs=1e-4)
    with pytest.raises(DataError, match="truth has 5 frames"):
        frame_level.snippet_scores(FakeRun(), tiny_store, {name: forged[:5]})


def test_mixed_snippets_are_left_out_of_the_auc():
    lines = [
        ("a", 0.0, 1.0),
        ("a", 1.0, 2.0),
        ("a", 0.5, -9.0),
        ("b", 0.0, 5.0),
        ("b", 1.0, 6.0),
        ("c", 1.0, 0.0),
    ]
    scores = pd.DataFrame(lines, columns=["video_id", "forged", "logit"])
    assert (
        frame_level.auc(scores, within=True).value == 1
        and frame_level.auc(scores, within=True).n == 2
    )
    pooled = frame_level.auc(scores)
    assert pooled.n == 3 and pooled.value == pytest.approx(
        np.mean([2 > 1, 2 > 5, 6 > 1, 6 > 5, 0 > 1, 0 > 5])
    )


def test_ones_own_video_by_methods_with_a_will_of_their_own(tiny_store):
    """A method that judges the whole video has no snippet scores; one that takes snippets by
    fours says so in one sentence.
    """
    name = tiny_store.index.loc[tiny_store.index["status"] == "ok", "video_id"].iloc[0]
    crops, small = tiny_store.open(name), {"depth": (1, 1, 1, 1), "width": 8, "stem": "small"}
    whole = models.build("s-mil-t", **small).eval()

    def clips(count, frames):
        return [(n, crops.snippet(n, frames, 32)) for n in range(count)]

    sampling = {"frames": 1, "stride": 1, "size": 32}
    found = own_video.judge(whole, clips(6, 1), sampling)
    assert [s["score"] for s in found["snippets"]] == [None] * 6
    by_fours = models.build("dsanet", **small).eval()
    sampling = {"frames": 4, "stride": 1, "size": 32}
    found = own_video.judge(by_fours, clips(4, 4), sampling)
    assert all(0 <= s["score"] <= 1 for s in found["snippets"])
    with pytest.raises(RunError, match="3 snippets.*--snippets"):
        own_video.judge(by_fours, clips(3, 4), sampling)
    sampling |= {"snippets": 8}  # as weights of a run say: then each counts several times
    found = own_video.judge(by_fours, clips(3, 4), sampling)
    eight = [clips(3, 4)[k] for k in (0, 0, 0, 1, 1, 1, 2, 2)]
    again = own_video.judge(by_fours, eight, sampling)
    assert found["logit"] == pytest.approx(again["logit"])
    of_each = [again["snippets"][k] for k in (0, 3, 6)]
    assert [s["score"] for s in found["snippets"]] == [s["score"] for s in of_each]
    assert [s["first_frame"] for s in found["snippets"]] == [0, 1, 2]


@pytest.mark.parametrize("method", ["s-mil", "s-mil-t"])
def test_a_sum_over_instances_does_not_grow_with_how_long_somebody_is_seen(method, tiny_store):
    """Nor with --snippets: the line that calibrates it is fitted to videos of 32 frames."""
    name = tiny_store.index.loc[tiny_store.index["status"] == "ok", "video_id"].iloc[0]
    small = {"depth": (1, 1, 1, 1), "width": 8, "stem": "small"}
    model, crop = models.build(method, **small).eval(), tiny_store.open(name).snippet(0, 1, 32)
    how = {"frames": 1, "stride": 1, "size": 32, "snippets": 32}

    def logit(count, asked=None):
        video = own_video._Video(Path("x.mp4"), model, how, asked, None, own_video.unseen)
        found = video._judge((0, n, crop) for n in range(count))[0]
        assert [s["first_frame"] for s in found["snippets"]] == list(range(count))
        return found["logit"]

    usual = logit(32)
    assert abs(usual) > 0.01  # else nothing would be tested
    for count, asked in ((4, None), (9, None), (64, None), (8, 8), (40, 40)):
        assert logit(count, asked) == pytest.approx(usual, rel=1e-3)


class Toy(FrameResNet):
    """A method of a package of one's own."""

    about = dataclasses.replace(FrameResNet.about)


def test_a_method_of_ones_own_gets_its_row_in_table_1(tiny_store, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "_methods", dict(models._methods))
    models.register("toy", Toy)
    small = dataclasses.replace(SMOKE, within_starts=False)
    runs, table = RunStore(tmp_path / "runs", small), paper.TABLES["table1"]
    results, reasons = experiments.fill(table, runs, {"ffpp": tiny_store}, ["toy"])
    assert set(results) == {("toy", "HQ DF")}
    assert reasons["toy", "LQ DF"] == "the tree has no c40 Deepfakes videos"
    assert reasons["dil", "HQ DF"] == "left out of this run"
    df = tables.build(table, results, lambda c: reasons[c.row, c.column], synthetic=True)
    assert df.loc[df["ours"].notna(), "row"].tolist() == ["toy"] and len(df) == 17 * 8
    path = tables.save(df, tmp_path, "table1", table.title)
    assert "\n| toy |" in path.with_suffix(".md").read_text()
    (key,) = experiments.keys(table, runs, {"ffpp": tiny_store})["toy", "HQ DF"]
    assert results["toy", "HQ DF"].runs == [key]


def test_people_of_the_test_videos_who_are_in_training_too_are_counted(tiny_store, tmp_path):
    def meeting(split):
        index, fake = tiny_store.index.copy(), copy.copy(tiny_store)
        (one, *_) = index.loc[index["split"] == "test", "person"]
        first = index.loc[index["split"] == split, "person"].iloc[0]
        index.loc[index["person"] == first, "person"] = one
        fake.index = index
        return fake

    spec = RunSpec.of_table(SMOKE, "table1", "dil", "ffpp", "c23", ("Deepfakes",))
    which, said = ("c23", ("Deepfakes",)), ("1 of 1 test people are in training too",)
    assert known_people(spec, tiny_store, tiny_store, which) == ()
    for split in ("train", "val"):
        home = meeting(split)
        assert known_people(spec, home, home, which) == said
        assert known_people(spec, home, copy.copy(home), which) == ()  # another dataset
    table, runs = paper.TABLES["table1"], RunStore(tmp_path / "runs", SMOKE)
    results, _ = experiments.fill(table, runs, {"ffpp": home}, ["resnet50"])
    df = tables.build(table, results, "left out", synthetic=True)
    assert said[0] in df.loc[df["ours"].notna(), "note"].item()


def test_another_number_of_test_videos_than_the_papers_is_said():
    def result(n):
        return experiments.CellResult([pd.DataFrame({"video_id": range(n)})], ["k"], ("seed 0",))

    places = {("dil", "Celeb-DF"): result(518), ("stil", "Celeb-DF"): result(100)}
    places["dil", "DFDC"] = result(7)  # whose number the printed values do not tell
    said = with_counts(paper.TABLES["table2"], places)
    notes = {place: each.notes for place, each in said.items()}
    assert notes["dil", "Celeb-DF"] == notes["dil", "DFDC"] == ("seed 0",)
    note = "100 test videos, the paper's column has 518"
    assert notes["stil", "Celeb-DF"] == ("seed 0", note) and said.keys() == places.keys()


def test_qualities_that_are_not_asked_for_are_left_out(tiny_store, tmp_path):
    runs, table = RunStore(tmp_path / "runs", SMOKE), paper.TABLES["table1"]
    results, reasons = experiments.fill(table, runs, {"ffpp": tiny_store}, ["dil"], ["c40"])
    assert not results and not list(tmp_path.glob("runs/*"))
    assert reasons["dil", "HQ DF"] == "this run trains c40 only"
    assert reasons["dil", "LQ DF"] == "the tree has no c40 Deepfakes videos"


def test_videos_without_crops_are_counted_and_a_lacking_class_leaves_the_cell_empty(
    tiny_store, tmp_path
):
    def store_without(which):
        index = tiny_store.index.copy()
        index.loc[which(index), ["status", "reason"]] = "no face", "nobody is seen"
        fake = copy.copy(tiny_store)
        fake.index = index
        return {"ffpp": fake}

    table, runs = paper.TABLES["table1"], RunStore(tmp_path / "runs", SMOKE)

    def test_fakes(index):
        return (index["split"] == "test") & (index["label"] == 1)

    _, reasons = experiments.fill(table, runs, store_without(test_fakes), ["resnet50"])
    assert reasons["resnet50", "HQ DF"] == "the test split has no usable fake videos"

    def one_fake(index):
        return index.index == index[test_fakes(index)].index[0]

    results, _ = experiments.fill(table, runs, store_without(one_fake), ["resnet50"])
    said = "1 of 2 test videos of Deepfakes missing (1 no face)"
    assert said in results["resnet50", "HQ DF"].notes
    assert len(results["resnet50", "HQ DF"].scores[0]) == 3


def test_a_dataset_of_ones_own_has_a_table_trained_as_table_2_is(tiny_store):
    table = experiments.own_dataset("fifth", ["dil"])
    (cell,) = table.cells()
    (spec,) = experiments.specs(cell, SMOKE, tiny_store)
    assert spec.training == SMOKE.training_for("dil", "table2") and spec.dataset == "fifth"
    assert videos_of("fifth", "fifth") == cell.test and videos_of("dose", "gap 1") is None


@pytest.mark.parametrize(
    ("table", "row", "said"),
    [("table1", "dil", True), ("table3", "va-logreg", False), ("table2", "dil", False)],
)
def test_epochs_are_said_of_what_is_trained_by_epochs(tiny_store, table, row, said):
    cell = next(cell for cell in paper.TABLES[table].cells() if cell.row == row)
    found = experiments.remarks(cell, experiments.specs(cell, STUDY, tiny_store), STUDY)
    assert ("72 epochs at c40, 12 at c23" in found) == said


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"dataset": "ffpp", "stretches": None}, ""),
        ({"dataset": "ffpp", "stretches": [4, 16]}, "of each video 4 stretches of 16 frames"),
        ({"dataset": "dfdc"}, "the full DFDC, not the preview"),
    ],
)
def test_what_a_number_owes_to_its_crops_stands_beside_it(tiny_store, monkeypatch, meta, said):
    cell = next(paper.TABLES["table1"].cells())
    runs, part = RunStore(Path("nowhere"), SMOKE), tiny_store
    monkeypatch.setattr(part, "meta", {**part.meta, "stretches": None, **meta})
    monkeypatch.setattr(Run, "scores", lambda self, *_: part.index.assign(score=0.5))
    monkeypatch.setattr(Run, "at_chance", False)
    spec = experiments.specs(cell, SMOKE, part)[0]
    notes = experiments.result([runs.run(spec, part)], part, cell.test).notes
    assert "seed 0" in notes and (said in notes) == bool(said)
    assert len(notes) == 1 + bool(said)
