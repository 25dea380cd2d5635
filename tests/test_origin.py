"""What a run was made from: other code and other first weights are never taken for the same."""

# ruff: noqa: NPY002 - the global generators are what is tested

import dataclasses
import hashlib
import json
import random

import numpy as np
import pytest
import torch

from dfil import cli, models
from dfil.models.baselines.frame_resnet import FrameResNet
from dfil.profiles import SMOKE, Training
from dfil.system.errors import RunError
from dfil.train import origin, repeat
from dfil.train.runs import RunSpec, RunStore

TINY = {"depth": (1, 1, 1, 1), "width": 4, "stem": "small"}
HOW = Training(epochs=2, lr=1e-2, batch=4, paired=True, snippets=2, schedule="one-cycle")
PROFILE = dataclasses.replace(SMOKE, backbone=TINY, training=HOW)


class Mine(FrameResNet):
    """A method of one's own."""

    about = dataclasses.replace(FrameResNet.about)


class Changed(Mine):
    """The same after an edit of its file."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.fixture
def methods(monkeypatch):
    monkeypatch.setattr(models, "_methods", dict(models._methods))
    monkeypatch.setattr(origin, "_fine", set())
    models.register("mine", Mine)
    return models._methods


def spec(method="mine"):
    return RunSpec.of_table(PROFILE, "table1", method, "ffpp", "c23", ("Deepfakes",))


def test_a_changed_method_of_ones_own_is_not_found_as_trained(
    methods, tiny_store, tmp_path, capsys
):
    runs = RunStore(tmp_path, PROFILE)
    run = runs.get(spec(), tiny_store)
    before = (run.folder / "weights.safetensors").read_bytes()
    assert runs.get(spec(), tiny_store) == run
    methods["mine"] = Changed
    with pytest.raises(RunError, match="mine has changed since this run was trained; remove"):
        runs.get(spec(), tiny_store)
    for weights in (run.folder, run.folder / "weights.safetensors"):
        assert cli.main(["score", "clip.mp4", "--weights", str(weights)]) == 1
        assert "mine has changed since" in capsys.readouterr().err
    assert (run.folder / "weights.safetensors").read_bytes() == before  # nothing is lost
    methods["mine"] = Mine
    assert runs.get(spec(), tiny_store) == run


class Erasing(Mine):
    """Draws from numpy where it is trained, as augmentation often does."""

    def loss(self, x, y):
        return super().loss(x * np.random.uniform(0.5, 2), y) * random.uniform(1, 2)


def test_a_method_that_draws_random_numbers_is_the_same_code(
    methods, tiny_store, tmp_path, monkeypatch
):
    methods["mine"] = Erasing
    runs = RunStore(tmp_path, PROFILE)
    interrupted(runs, tiny_store, monkeypatch)
    run = runs.get(spec(), tiny_store)
    monkeypatch.setattr(origin, "_fine", set())
    state = np.random.get_state()[1].tolist(), random.getstate()
    assert runs.get(spec(), tiny_store) == run
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state


def interrupted(runs, store, monkeypatch, method="mine"):
    """A run that was stopped after its first epoch."""
    saved = repeat.save

    def stop(*arguments, **others):
        saved(*arguments, **others)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repeat, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            runs.get(spec(method), store)
    run = runs.run(spec(method), store)
    assert (run.folder / "checkpoint.pt").is_file() and (run.folder / "begun.json").is_file()
    return run


def test_a_training_does_not_go_on_under_other_code(
    methods, tiny_store, tmp_path, monkeypatch, capsys
):
    whole = RunStore(tmp_path / "whole", PROFILE).get(spec(), tiny_store)
    runs = RunStore(tmp_path / "runs", PROFILE)
    interrupted(runs, tiny_store, monkeypatch)
    methods["mine"] = Changed
    changed = runs.get(spec(), tiny_store)
    assert "begun by other code (model); it begins again" in capsys.readouterr().out
    alone = RunStore(tmp_path / "alone", PROFILE).get(spec(), tiny_store)
    same = changed.history.drop(columns="seconds")
    assert same.equals(alone.history.drop(columns="seconds"))
    assert not same.equals(whole.history.drop(columns="seconds"))
    assert changed.record["made"]["fingerprint"] == alone.record["made"]["fingerprint"]


def test_a_training_goes_on_under_the_same_code(methods, tiny_store, tmp_path, monkeypatch, capsys):
    runs = RunStore(tmp_path / "runs", PROFILE)
    run = interrupted(runs, tiny_store, monkeypatch)
    runs.get(spec(), tiny_store)
    assert "begins again" not in capsys.readouterr().out
    left = {file.name for file in run.folder.iterdir()}
    assert run.is_trained and not left & {"checkpoint.pt", "begun.json"}
    whole = RunStore(tmp_path / "whole", PROFILE).get(spec(), tiny_store)
    assert (run.folder / "weights.safetensors").read_bytes() == (
        whole.folder / "weights.safetensors"
    ).read_bytes()


def test_the_weights_that_a_run_began_with_are_in_its_record(tiny_store, tmp_path, monkeypatch):
    file = tmp_path / "resnet50.pth"
    torch.save(models.build("resnet50", **TINY).backbone.state_dict(), file)
    monkeypatch.setenv("DFIL_BACKBONE_WEIGHTS", str(file))
    profile = dataclasses.replace(PROFILE, pretrained=True)
    run = RunStore(tmp_path / "runs", profile).get(spec("resnet50"), tiny_store)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert run.record["made"]["weights"] == f"resnet50.pth sha256 {digest}"
    assert str(tmp_path) not in json.dumps(run.record)  # a record names no place
    assert origin.weights("scratch") == {"weights": "scratch"}
