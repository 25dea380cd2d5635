"""Pretrained weights of the backbone: from a file, from torchvision, or a sentence that says what to do."""

from urllib.error import URLError

import pytest
import torch
import torchvision

from dfil import models
from dfil.models import weights
from dfil.system.errors import RunError


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
