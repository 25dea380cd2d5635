"""Training, scoring and the run store on a tiny synthetic tree: the numbers mean nothing, the
mechanics do.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dfil import models, paper
from dfil.cli import main
from dfil.faces.store import CropStore
from dfil.models import Sampling
from dfil.profiles import PAPER, SMOKE, Training
from dfil.results import compare, tables
from dfil.system.errors import RunError
from dfil.train import experiments, fingerprint, parallel
from dfil.train import loop as training
from dfil.train.own_video import score_videos
from dfil.train.runs import Run, RunSpec, RunStore, load_weights, save_weights
from dfil.train.scoring import score
from dfil.train.snippets import SnippetDataset

TINY = {"depth": (2, 1, 1, 1), "width": 4, "stem": "small"}
PROFILE = dataclasses.replace(
    SMOKE, backbone=TINY, training=Training(epochs=2, lr=1e-3, batch=4, paired=True)
)
SPEC = RunSpec.of_table(PROFILE, "table1", "dil", "ffpp", "c23", ("Deepfakes",))


@pytest.fixture
def runs(tmp_path):
    return RunStore(tmp_path / "runs", PROFILE)


def dataset(store, split="train", **changes):
    rows = SPEC.select(store, split)
    return SnippetDataset(
        store,
        rows,
        **{"snippets": 2, "frames": 4, "size": 32, "train": split == "train", "paired": True}
        | changes,
    )


def weights_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def fresh(seed=0):
    torch.manual_seed(seed)
    return models.build("dil", **TINY)


def test_dataset_serves_crops_and_pairs_share_their_draws(tiny_store):
    data = dataset(tiny_store)
    x, label, item = data[0]
    assert (
        x.shape == (2, 4, 3, 32, 32)
        and x.dtype == torch.uint8
        and item == 0
        and label == data.rows["label"][0]
    )
    by_target = data.rows.groupby("target").indices
    real, fake = sorted(by_target["000"], key=lambda i: data.rows["label"][i])
    difference = (data[real][0].float() - data[fake][0].float()).abs()
    assert (
        difference[..., :2, :].mean() < difference[..., 14:20, 12:20].mean()
    )  # same frames: the background agrees, the face does not
    data.epoch = 1
    assert not torch.equal(data[0][0], x)
    data.epoch = 0
    assert torch.equal(data[0][0], x)


def test_test_snippets_are_the_stores(tiny_store):
    data = dataset(tiny_store, "test", snippets=3)
    x, _, _ = data[0]
    crops = tiny_store.open(data.rows["video_id"][0])
    assert np.array_equal(
        x[1].permute(0, 2, 3, 1).numpy(), crops.snippet(8, 4, 32)
    )  # frames 20/3 .. 40/3, centred


def test_the_flip_is_of_the_whole_clip(tiny_store):
    data = dataset(tiny_store)
    unflipped = dataset(tiny_store)
    flips = []
    for epoch in range(12):
        data.epoch = epoch
        x, _, _ = data[0]
        rng = np.random.default_rng(
            [0, epoch, int.from_bytes(data.rows["target"][0].encode(), "little")]
        )
        flipped = rng.random() < 0.5
        crops = tiny_store.open(data.rows["video_id"][0])
        from dfil.train.snippets import snippet_starts

        starts = snippet_starts(crops.runs, 2, 4, rng=rng)
        plain = torch.from_numpy(np.stack([crops.snippet(int(s), 4, 32) for s in starts])).permute(
            0, 1, 4, 2, 3
        )
        assert torch.equal(x, plain.flip(-1) if flipped else plain)
        flips.append(flipped)
    assert 0 < sum(flips) < 12 and len(unflipped) == len(data)


def test_training_lowers_the_loss_and_keeps_the_best_epoch(tiny_store):
    model = fresh()
    settings = Training(epochs=10, lr=3e-3, batch=4, paired=True, schedule="one-cycle")
    history = training.train(
        model, dataset(tiny_store), dataset(tiny_store, "val", train=False), settings
    )
    assert [h["epoch"] for h in history] == list(range(1, 11)) and history[-1]["clips"] == 10 * 8
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    best = max(history, key=lambda h: (h["val_auc"], -h["val_loss"]))
    scored = score(model, dataset(tiny_store, "val", train=False))
    logits, labels = (
        torch.tensor(scored["logit"].tolist()),
        torch.tensor(scored["label"].tolist()).float(),
    )
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert float(loss) == pytest.approx(best["val_loss"], rel=1e-4)
    assert [h["best"] for h in history].count(True) >= 1


def test_an_interrupted_training_arrives_where_an_uninterrupted_one_does(
    tiny_store, tmp_path, monkeypatch
):
    settings = Training(epochs=3, lr=1e-3, batch=4, paired=True, schedule="one-cycle")
    val = dataset(tiny_store, "val", train=False)
    straight = fresh()
    expected = training.train(straight, dataset(tiny_store), val, settings)

    calls = []
    validate = training.validate

    def dies_in_the_second_epoch(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*args)

    monkeypatch.setattr(training, "validate", dies_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        training.train(fresh(), dataset(tiny_store), val, settings, checkpoint=tmp_path / "c.pt")
    monkeypatch.setattr(training, "validate", validate)
    resumed = fresh(seed=5)  # whatever it starts from, the checkpoint decides
    history = training.train(
        resumed, dataset(tiny_store), val, settings, checkpoint=tmp_path / "c.pt"
    )
    assert same(weights_of(straight), weights_of(resumed))
    assert [h["val_loss"] for h in history] == [h["val_loss"] for h in expected] and not list(
        tmp_path.glob(".*")
    )


def test_where_the_last_epoch_is_kept_only_a_few_are_validated(tiny_store):
    last = dataclasses.replace(SPEC.training, epochs=13, schedule="one-cycle", keep="last")
    videos = dataset(tiny_store), dataset(tiny_store, "val")
    lines = pd.DataFrame(training.train(fresh(), *videos, last))
    assert lines.loc[lines["val_auc"].notna(), "epoch"].tolist() == [1, 4, 7, 10, 13]
    assert lines.loc[lines["kept"], "epoch"].tolist() == [13]
    assert lines["best"].iloc[0] and not lines.loc[lines["val_auc"].isna(), "best"].any()


def test_gradient_checkpointing_changes_nothing_but_the_memory(tiny_store, monkeypatch):
    trained = []
    for value in ("", "1"):
        monkeypatch.setenv(training.CHECKPOINT, value)
        model = fresh()
        training.train(
            model,
            dataset(tiny_store),
            dataset(tiny_store, "val"),
            Training(epochs=1, batch=4, lr=1e-3, snippets=2, paired=True),
        )
        assert model.backbone.checkpoint is bool(value)
        trained.append(weights_of(model))
    assert same(*trained)


def test_plateau_divides_the_rate_by_ten_when_the_validation_score_saturates(
    tiny_store, monkeypatch
):
    same_every_time = {"val_auc": 0.5, "val_loss": 1.0, "val_accuracy": 0.5}
    monkeypatch.setattr(training, "validate", lambda *args: same_every_time)
    settings = Training(epochs=4, lr=1e-3, batch=8, patience=1, paired=True)
    history = training.train(fresh(), dataset(tiny_store), dataset(tiny_store, "val"), settings)
    assert [h["lr"] for h in history] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    falling = ({**same_every_time, "val_loss": 0.01 - 2e-5 * epoch} for epoch in range(4))
    monkeypatch.setattr(training, "validate", lambda *args: next(falling))
    history = training.train(fresh(), dataset(tiny_store), dataset(tiny_store, "val"), settings)
    assert [h["lr"] for h in history] == [1e-3] * 4, "a smaller loss is smaller, however little"


def test_training_says_what_is_wrong(tiny_store):
    data = dataset(tiny_store)
    with pytest.raises(RunError, match="schedule is called 'cosine'"):
        training.train(fresh(), data, data, Training(schedule="cosine"))
    one_class = SnippetDataset(
        tiny_store,
        SPEC.select(tiny_store, "val").query("label == 1"),
        snippets=2,
        frames=4,
        size=32,
    )
    with pytest.raises(RunError, match="validation split needs real and fake"):
        training.train(fresh(), data, one_class, Training())
    with pytest.raises(RunError, match="lower the learning rate"):
        training.train(fresh(), data, data, Training(epochs=3, lr=1e12, batch=4))


def test_a_run_is_trained_once_and_found_again(tiny_store, runs, monkeypatch):
    run = runs.get(SPEC, tiny_store)
    files = {p.name for p in run.folder.iterdir()}
    assert files == {"run.json", "history.csv", "weights.safetensors", "config.json"}
    made = run.record["made"]
    assert made["videos"] == {"train": 8, "val": 4} and made["data"] == tiny_store.meta["digest"]
    assert run.record["settings"] == runs.describe(SPEC, tiny_store)
    monkeypatch.setattr("dfil.train.runs.train", lambda *a, **k: pytest.fail("trained again"))
    assert runs.get(SPEC, tiny_store).key == run.key

    scores = run.scores(tiny_store, "c23")
    assert (
        len(scores) == 4
        and scores["split"].eq("test").all()
        and scores["score"].between(0, 1).all()
    )
    np.testing.assert_allclose(scores["score"], 1 / (1 + np.exp(-scores["logit"])))
    monkeypatch.setattr("dfil.train.run.score", lambda *a, **k: pytest.fail("scored again"))
    pd.testing.assert_frame_equal(run.scores(tiny_store, "c23"), scores)


def test_everything_that_decides_a_run_is_in_its_key(tiny_store, runs, tmp_path):
    changes = {
        "method": "resnet50",
        "compression": "c40",
        "manipulations": ("FaceSwap",),
        "switches": (("bp", False),),
        "stride": 4,
        "seed": 1,
        "training": Training(epochs=3),
        "start": SPEC,
    }
    keys = {runs.key(dataclasses.replace(SPEC, **{k: v}), tiny_store) for k, v in changes.items()}
    keys.add(runs.key(SPEC, tiny_store))
    keys.add(RunStore(tmp_path, dataclasses.replace(PROFILE, name="demo")).key(SPEC, tiny_store))
    assert len(keys) == len(changes) + 2
    assert runs.key(SPEC, tiny_store).startswith("dil-ffpp-c23-Deepfakes-")


def test_seeds_and_only_seeds_change_a_run(tiny_store, tmp_path):
    first = RunStore(tmp_path / "a", PROFILE).get(SPEC, tiny_store)
    again = RunStore(tmp_path / "b", PROFILE).get(SPEC, tiny_store)
    other = RunStore(tmp_path / "a", PROFILE).get(dataclasses.replace(SPEC, seed=1), tiny_store)
    one, two, three = (load_file(r.folder / "weights.safetensors") for r in (first, again, other))
    assert same(one, two) and not same(one, three)


def test_a_run_without_both_classes_says_where_to_look(tiny_store, runs):
    with pytest.raises(RunError, match="status and reason"):
        runs.get(dataclasses.replace(SPEC, manipulations=("FaceSwap",)), tiny_store)


def test_weights_come_back_strictly(tmp_path):
    model = fresh().eval()
    switches = dict(TINY)
    save_weights(
        model,
        tmp_path / "weights.safetensors",
        {"method": "dil", "switches": switches, "synthetic": True},
    )
    loaded, config = load_weights(tmp_path / "weights.safetensors")
    assert (
        same(weights_of(model), weights_of(loaded)) and config["synthetic"] and not loaded.training
    )
    with pytest.raises(RunError, match="no such file"):
        load_weights(tmp_path / "other.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"method": "dil", "switches": {**switches, "width": 8}})
    )
    with pytest.raises(RunError, match="do not fit"):
        load_weights(tmp_path / "weights.safetensors")


def test_a_table_is_filled_from_runs_and_says_what_it_cannot_fill(tiny_store, runs, monkeypatch):
    monkeypatch.setattr("dfil.models.available", lambda: ["dil", "resnet50", "c3d"])
    table = paper.TABLES["table1"]
    results, reasons = experiments.fill(table, runs, {"ffpp": tiny_store}, ["dil", "resnet50"])
    assert set(results) == {("dil", "HQ DF"), ("resnet50", "HQ DF")}
    assert reasons["dil", "HQ NT"] == "the tree has no c23 NeuralTextures videos"
    assert reasons["dil", "LQ DF"] == "the tree has no c40 Deepfakes videos"
    assert reasons["xception", "HQ DF"] == "this method is not part of the package yet"
    assert reasons["c3d", "HQ DF"] == "left out of this run"
    df = tables.build(table, results, lambda cell: reasons[cell.row, cell.column], synthetic=True)
    filled = df[df["ours"].notna()]
    assert (
        len(df) == 16 * 8
        and filled["n_videos"].eq(4).all()
        and filled["note"].str.contains("synthetic").all()
    )


def test_a_run_begins_with_the_weights_of_the_methods_run_of_table_1(
    tiny_store, tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr("dfil.train.data.tree", lambda profile, root, name: made.append(name))
    monkeypatch.setattr("dfil.train.data.crops", lambda profile, root: tiny_store)
    # at this learning rate parameters stay as they began
    still = Training(epochs=1, lr=0.0, batch=4, paired=True)
    profile = dataclasses.replace(PROFILE, within=still, within_starts=True)
    runs = RunStore(tmp_path, profile)
    how = {"switches": (("alternate", "network"),)}
    spec = RunSpec.of_table(profile, "table2", "dil", "ffpp", "c23", **how)
    first = RunSpec.of_table(
        profile, "table1", "dil", "ffpp", "c23", paper.ALL_MANIPULATIONS, **how
    )
    assert spec.start == first and first.start is None
    assert RunSpec.of_table(PAPER, "table2", "dil", "ffpp", "c23").start is None

    key = runs.key(spec, tiny_store)
    assert not runs.is_trained(spec, tiny_store) and not made  # naming a run makes no data
    assert key != runs.key(dataclasses.replace(spec, start=None), tiny_store)
    (run,) = runs.get_all([spec], tiny_store)
    assert set(made) == {"ffpp"} and {path.name for path in runs.folder.iterdir()} == {
        key,
        runs.key(first, tiny_store),
    }
    begun = dict(runs.get(first, tiny_store).model().named_parameters())
    ended = dict(run.model().named_parameters())
    assert begun.keys() == ended.keys()
    assert all(torch.equal(begun[name], ended[name]) for name in begun)
    start = run.record["settings"]["start"]
    assert start["data"]["setting"]["name"] == "ff-like" and start["lr"] == PROFILE.training.lr
    assert experiments.STARTED in experiments.result([run], tiny_store, paper.Videos("ffpp")).notes

    made.clear()
    monkeypatch.setattr("dfil.train.data.planned", lambda *_: tiny_store.meta)
    runs.get(dataclasses.replace(spec, seed=1, start=first), tiny_store)
    assert not made  # a trained one is found without its data


def test_a_method_may_have_a_learning_rate_of_its_own(tiny_store, tmp_path):
    runs = [
        RunStore(tmp_path, dataclasses.replace(PROFILE, rates=rates))
        for rates in ({}, {"dil": 2e-3}, {"resnet50": 2e-3})
    ]
    specs = [
        RunSpec.of_table(r.profile, "table1", "dil", "ffpp", "c23", ("Deepfakes",)) for r in runs
    ]
    plain, other, same = (r.describe(s, tiny_store) for r, s in zip(runs, specs, strict=True))
    assert plain == same and other == plain | {"lr": 2e-3}
    assert runs[1].get(specs[1], tiny_store).history["lr"].eq(2e-3).all()
    results, _ = experiments.fill(paper.TABLES["table1"], runs[1], {"ffpp": tiny_store}, ["dil"])
    assert "learning rate 0.002" in results["dil", "HQ DF"].notes


def test_seeds_asked_for_are_trained_and_their_spread_is_shown(tiny_store, tmp_path):
    """Two seeds in a table and in the mechanism; a later call with other methods and one seed
    keeps the rows it does not fill.
    """
    two = RunStore(tmp_path / "runs", dataclasses.replace(PROFILE, seeds=(0, 3)))
    table, path, stores = paper.TABLES["table1"], tmp_path / "table1.csv", {"ffpp": tiny_store}
    results, reasons = experiments.fill(table, two, stores, ["dil"])
    (cell,) = results.values()
    assert len(cell.scores) == len(set(cell.runs)) == 2 and cell.notes[0] == "seeds 0, 3"
    assert compare.run_names(results) == {cell.runs[0]: "dil, seed 0", cell.runs[1]: "dil, seed 3"}
    assert compare.run_names({("dil", "X"): tables.CellResult([], ["k"])}) == {"k": "dil"}

    spread = compare.seed_spread({**results, ("dil", "LQ DF"): cell}).set_index("row").loc["dil"]
    each = [float(((df["score"] >= 0.5) == (df["label"] == 1)).mean()) for df in cell.scores]
    assert spread.tolist() == pytest.approx([*each, np.mean(each), max(each) - min(each)]) and list(
        spread.index[:2]
    ) == ["seed 0", "seed 3"]
    one = dataclasses.replace(cell, scores=cell.scores[:1], seeds=(0,))
    assert compare.seed_spread({("dil", "HQ DF"): one}).empty

    tables.save(
        tables.build(table, results, lambda c: reasons[c.row, c.column], synthetic=True),
        tmp_path,
        "table1",
        "",
    )
    one = RunStore(tmp_path / "runs", PROFILE)
    now = tables.build(table, {}, "left out", synthetic=True)
    kept = tables.with_earlier(now, path, experiments.keys(table, one, stores))
    assert kept.dropna(subset="ours")[["row", "column", "seeds"]].values.tolist() == [
        ["dil", "HQ DF", 2]
    ]
    other = RunStore(tmp_path / "runs", dataclasses.replace(PROFILE, rates={"dil": 1.0}))
    doubtful = tables.with_earlier(now, path, experiments.keys(table, other, stores))
    notes = [df.dropna(subset="ours")["note"].item() for df in (kept, doubtful)]
    assert notes[0].endswith("; found by an earlier call, with the same data and settings")
    assert notes[1].endswith("perhaps with other data or settings (now: left out)")

    for file in tmp_path.glob("runs/*/scores/*-test-*"):  # as if the test videos were others now
        file.rename(file.with_name(f"{file.stem[:-10]}0000000000.parquet"))
    assert experiments.keys(table, one, stores)["dil", "HQ DF"] == []

    mechanism = experiments.temporal_only(two, tiny_store)
    assert {row: len(r.scores) for (row, _), r in mechanism.items()} == dict.fromkeys(
        experiments.TEMPORAL_ONLY, 2
    )
    keys = experiments.temporal_only_keys(two, tiny_store)
    assert (
        all(list(r.runs) == keys[place] for place, r in mechanism.items())
        and ("i3d", "Deepfakes c23") in keys
    )


def test_ablations_share_the_full_models_run(tiny_store, runs):
    places = {
        "table1": ("dil", "LQ DF"),
        "table4": ("intra+inter", "DF"),
        "table5": ("bp+ca+lk", "DF"),
        "table6": ("stages 1-4", "DF"),
    }
    cells = [paper.TABLES[table].cell(*place) for table, place in places.items()]
    keys = {
        runs.key(spec, tiny_store)
        for cell in cells
        for spec in experiments.specs(cell, PROFILE, tiny_store)
    }
    assert len(keys) == 1


def test_ones_own_videos_are_scored_and_bad_ones_do_not_stop_the_others(
    tiny_tree, tiny_store, runs, tmp_path, capsys
):
    run = runs.get(SPEC, tiny_store)
    weights = run.folder / "weights.safetensors"
    video_id = (
        run.scores(tiny_store, "c23").query("label == 0")["video_id"].iloc[0]
    )  # a fake has its boxes from its real
    video = tiny_store.index.set_index("video_id")["path"][video_id]
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")

    broken, good = score_videos([tmp_path / "broken.mp4", video], weights)
    assert (broken["score"], broken["status"]) == (None, "unreadable") and "broken.mp4" in broken[
        "reason"
    ]
    assert len(good["snippets"]) == 8 and good["frames"] == 20 and good["synthetic_training"]
    assert good["snippets"][0]["last_frame"] == good["snippets"][0]["first_frame"] + 3
    logits = torch.logit(torch.tensor([s["score"] for s in good["snippets"]], dtype=torch.double))
    assert float(torch.sigmoid(logits.mean())) == pytest.approx(good["score"], abs=1e-4)
    assert good["score"] == pytest.approx(
        run.scores(tiny_store, "c23").set_index("video_id")["score"][video_id], abs=1e-4
    )

    assert (
        main(
            ["score", str(tmp_path / "broken.mp4"), str(video), "--weights", str(weights), "--json"]
        )
        == 1
    )
    out, err = capsys.readouterr()
    assert (
        [json.loads(line)["score"] is None for line in out.splitlines()] == [True, False]
        and "broken.mp4" in err
        and len(err.splitlines()) == 2  # what the weights are, and the broken one
    )
    assert main(["score", str(video), "--weights", str(weights)]) == 0
    assert "synthetic" in capsys.readouterr().out
    assert main(["score", str(video), "--weights", str(tmp_path / "none.safetensors")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_runs_trained_side_by_side_are_those_trained_alone(tiny_store, tmp_path, monkeypatch):
    specs = [SPEC, dataclasses.replace(SPEC, seed=1), SPEC]
    monkeypatch.setattr("dfil.train.runs.cores", lambda: 2)
    together = RunStore(tmp_path / "a", PROFILE).get_all(specs, tiny_store)
    assert [run.key for run in together] == [together[0].key, together[1].key, together[0].key]
    alone = RunStore(tmp_path / "b", PROFILE).get(SPEC, tiny_store)
    assert same(*(load_file(run.folder / "weights.safetensors") for run in (together[0], alone)))


def test_no_manipulation_named_means_all_fakes(tiny_store):
    spec = dataclasses.replace(SPEC, manipulations=())
    pd.testing.assert_frame_equal(
        spec.select(tiny_store, "train"), SPEC.select(tiny_store, "train")
    )


class FrozenNorm(models.DIL):
    """Batch normalisation keeps its statistics, so that a video's loss does not depend on which
    others share its batch.
    """

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def shared_training(store):
    """Histories and weights of two trainings whose batches, of 5 and 3 videos and of one, do not
    divide by two.
    """
    found = {}
    for batch in (5, 1):
        torch.manual_seed(0)
        model = FrozenNorm(**TINY)
        settings = Training(epochs=3, lr=1e-3, batch=batch, schedule="one-cycle")
        data = [
            dataset(store, split, paired=False, size=16, snippets=1, train=split == "train")
            for split in ("train", "val")
        ]
        history = training.train(model, *data, settings)
        found[batch] = (
            [[h["train_loss"], h["val_loss"], h["val_auc"]] for h in history],
            model.state_dict(),
        )
    return found


def test_two_processes_train_as_one_does(tiny_store, tmp_path):
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*launcher, __file__, tiny_store.folder, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    alone = shared_training(tiny_store)
    for rank in (0, 1):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for batch in alone:
            (losses, weights), (expected_losses, expected_weights) = together[batch], alone[batch]
            np.testing.assert_allclose(losses, expected_losses, atol=1e-4, rtol=0)
            for name, expected in expected_weights.items():
                torch.testing.assert_close(weights[name], expected, atol=1e-4, rtol=1e-3, msg=name)
    untrained = fresh().state_dict()
    assert (
        max(float((w - untrained[name]).abs().max()) for name, w in alone[1][1].items()) > 1e-3
    )  # ten times what may differ


def test_shares_of_a_batch_make_up_the_whole():
    for size in (1, 2, 5, 10):
        batch, losses = list(range(size)), np.random.default_rng(size).random(size)
        for world in (1, 2, 3, 4):
            shares = [parallel.part_of(batch, rank, world) for rank in range(world)]
            assert [i for mine, weight in shares if weight for i in mine] == batch and all(
                mine for mine, _ in shares
            )
            assert np.mean(
                [weight * losses[mine].mean() for mine, weight in shares]
            ) == pytest.approx(losses.mean())


@pytest.mark.parametrize("method", models.available())
def test_the_loss_reaches_every_parameter_as_shared_training_needs(method, runs):
    run = Run(runs.folder, dataclasses.replace(SPEC, method=method), PROFILE)
    model, how = run.build().train(), run.sampling
    model.loss(
        torch.randn(2, how.train, how.frames, 3, 32, 32), torch.tensor([0.0, 1.0])
    ).backward()
    assert [
        name for name, p in model.named_parameters() if p.requires_grad and p.grad is None
    ] == []


if __name__ == "__main__":  # one of the processes of test_two_processes_train_as_one_does
    torch.set_num_threads(1)
    with parallel.processes() as rank:
        torch.save(shared_training(CropStore(Path(sys.argv[1]))), Path(sys.argv[2]) / f"{rank}.pt")
        if parallel.is_first():  # who writes the record waits for nobody
            fingerprint.of(fresh, Sampling(2, 2, 4), 32, Training(epochs=1, batch=4, snippets=2))
        parallel.wait_for_all()
