"""Trained models from the disk or the Hub: the same logits, or one sentence."""

import json
import sys
import types

import pytest
import torch

from dfil import models
from dfil.models.saved import save_weights
from dfil.system.errors import RunError

SMALL = {"depth": (1, 1, 1, 1), "width": 8}


@pytest.fixture
def folder(tmp_path):
    """DIL with random weights as `dfil export` lays it out, and its logits of CLIP."""
    torch.manual_seed(0)
    model = models.build("dil", **SMALL).eval()
    config = {"method": "dil", "switches": SMALL, "synthetic": True}
    save_weights(model, tmp_path / "model.safetensors", config)
    look = {"sampling": {"frames": 4, "snippets": 8}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(look))
    return tmp_path


def logits(model) -> torch.Tensor:
    clip_butchw = torch.randn(2, 3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(clip_butchw)


def refused(where, words: str, load=models.load_weights) -> None:
    with pytest.raises(RunError, match=words) as error:
        load(where)
    assert "\n" not in str(error.value)


def test_a_folder_a_file_and_the_class_give_the_same_model(folder):
    torch.manual_seed(0)
    expected = logits(models.build("dil", **SMALL).eval())
    for where in (folder, str(folder), folder / "model.safetensors"):
        model, config = models.load_weights(where)
        assert torch.equal(logits(model), expected) and not model.training
        assert config["sampling"]["snippets"] == 8
    model = models.build("dil").from_pretrained(folder)
    assert isinstance(model, type(models.build("dil"))) and torch.equal(logits(model), expected)


def test_settings_are_no_weights(folder):
    refused(folder / "config.json", "settings and no weights; give the folder")


def test_weights_of_another_method_are_refused_by_a_class(folder):
    from dfil.models.baselines.frame_resnet import FrameResNet

    refused(folder, "do not fit FrameResNet", FrameResNet.from_pretrained)
    switches = {"method": "dil", "switches": {"sleeves": 2}}
    (folder / "config.json").write_text(json.dumps(switches))
    refused(folder, "'dil', which do not fit DIL", models.DIL.from_pretrained)
    refused(folder, "config.json does not fit this version")
    (folder / "config.json").write_text(json.dumps({"method": "unheard", "switches": {}}))
    refused(folder, "no method is called 'unheard'")


def test_methods_of_the_same_parameters_are_told_apart(tmp_path):
    from dfil.models.baselines.s_mil import SMIL

    theirs = models.build("resnet50", **SMALL)
    assert theirs.state_dict().keys() == models.build("s-mil", **SMALL).state_dict().keys()
    save_weights(theirs, tmp_path / "model.safetensors", {"method": "resnet50", "switches": SMALL})
    assert type(models.load_weights(tmp_path)[0]) is type(theirs)
    assert type(type(theirs).from_pretrained(tmp_path)) is type(theirs)
    refused(tmp_path, "'resnet50', which do not fit SMIL", SMIL.from_pretrained)


def test_a_flipped_byte_in_weights_of_the_same_size_is_named(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    refused(folder, "model.safetensors: not the weights that config.json was saved with")


def test_a_record_without_a_checksum_is_read_as_before(folder):
    config = json.loads((folder / "config.json").read_text())
    assert len(config.pop("sha256")) == 64
    (folder / "config.json").write_text(json.dumps(config))
    models.load_weights(folder)


def test_a_foreign_folder_is_one_sentence(folder, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    refused(foreign, "a folder without model.safetensors or weights.safetensors")
    (foreign / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    refused(foreign, "config.json: no such file")
    (foreign / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 768}')
    refused(foreign, "names no method and switches")
    (foreign / "config.json").write_text("[1, 2]")
    refused(foreign, "this holds list and no settings")
    (foreign / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (foreign / "config.json").write_text((folder / "config.json").read_text())
    refused(foreign, "a Git LFS pointer")
    refused(tmp_path / "nowhere" / "at" / "all", "no such file; give a .safetensors file")


def test_the_hub_is_asked_only_for_what_is_not_on_the_disk(folder, monkeypatch):
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        if repository == "nobody/nothing":
            raise OSError("404 Client Error.\nRepository Not Found")
        return str(folder)

    fake = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    models.load_weights(folder)
    assert asked == []
    models.load_weights("somebody/dil-ffpp", revision="v1")
    wanted = ["model.safetensors", "config.json", "preprocessor_config.json"]
    assert asked == [("somebody/dil-ffpp", "v1", wanted)]
    refused("nobody/nothing", "not to be had from the Hugging Face Hub .404 Client Error")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # not installed
    refused("somebody/dil-ffpp", "no such file or folder; .* pip install")
