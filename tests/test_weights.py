"""Pretrained weights: from a file, from torchvision, or a sentence that says what to do."""

import pickle
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from dfil import models
from dfil.models import weights
from dfil.system.errors import RunError
from dfil.train.runs import load_weights, save_weights


def test_imagenet_weights_come_from_a_file_or_say_what_to_do(tmp_path, monkeypatch):
    state = torchvision.models.resnet50(weights=None).state_dict()
    torch.save(state, tmp_path / "resnet50.pth")
    model = models.build("dil")
    assert weights.load_imagenet(model, tmp_path / "resnet50.pth") == str(tmp_path / "resnet50.pth")
    assert torch.equal(model.backbone.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    with pytest.raises(RunError, match="none.pth: no such file"):
        weights.load_imagenet(model, tmp_path / "none.pth")
    monkeypatch.delenv("DFIL_BACKBONE_WEIGHTS", raising=False)

    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(weights.ResNet50_Weights.IMAGENET1K_V1.__class__, "get_state_dict", offline)
    with pytest.raises(RunError, match="could not be fetched.*DFIL_BACKBONE_WEIGHTS"):
        weights.load_imagenet(model)


class Anything:
    """What only a pickle can hold."""


def damaged(kind: str, path, whole: bytes):
    """`whole`, the bytes of good weights, as they arrive when something went wrong."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132114\n"
    content = {
        "Git LFS pointer": pointer,
        "web page": b"\n<!DOCTYPE html><html><title>Virus scan warning</title></html>",
        "cut short": whole[: len(whole) // 2],
        "empty file": b"",
        "no .* file at all": b"weights, weights, weights",
    }
    path.write_bytes(content[kind])


KINDS = ["Git LFS pointer", "web page", "cut short", "empty file", "no .* file at all"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_holds_no_weights_is_said_to_be_what_it_is(kind, suffix, tmp_path):
    path, state = tmp_path / f"weights{suffix}", {"weight": torch.randn(200, 50)}
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    assert torch.equal(weights.read_state(path)["weight"], state["weight"])
    damaged(kind, path, path.read_bytes())
    with pytest.raises(RunError, match=f"weights{suffix}.*{kind}") as error:
        weights.read_state(path)
    assert "weights_only" not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(RunError, match=kind):
        weights.load_imagenet(models.build("resnet50", depth=(1, 1, 1, 1), width=4), path)


def test_a_network_without_our_backbone_is_told_what_it_lacks():
    class Mine(models.Detector):
        about = models.About("Mine", 2026, "frames", "nobody")

    with pytest.raises(RunError, match='Mine has no `backbone`.*start="scratch"'):
        weights.load_imagenet(Mine())


def test_a_pickle_is_never_run(tmp_path):
    for name, write in (("old.pth", pickle.dump), ("new.pth", lambda o, f: torch.save(o, f))):
        with (tmp_path / name).open("wb") as file:
            write({"weight": Anything()}, file)
        with pytest.raises(RunError, match=name) as error:
            weights.read_state(tmp_path / name)
        assert "weights_only" not in str(error.value)
    assert "pickled code is never run" in weights.looks_like(tmp_path / "old.pth")
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(RunError, match="nested.pth.*state_dict"):
        weights.read_state(tmp_path / "nested.pth")


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_models_damaged_files_are_said_to_be_what_they_are(kind, tmp_path):
    switches = {"depth": [1, 1, 1, 1], "width": 8}
    model = models.build("dil", depth=(1, 1, 1, 1), width=8)
    path, config = tmp_path / "weights.safetensors", tmp_path / "config.json"
    save_weights(model, path, {"method": "dil", "switches": switches})
    good = path.read_bytes()
    damaged(kind, path, good)
    with pytest.raises(RunError, match=f"weights.safetensors.*{kind}"):
        load_weights(path)
    path.write_bytes(good)
    damaged(kind, config, config.read_bytes())
    with pytest.raises(RunError, match="config.json: "):
        load_weights(path)
    config.write_text("{}")
    with pytest.raises(RunError, match="config.json: names no method"):
        load_weights(path)
