"""Grad-CAM and the modules' own maps against slow computations from their definitions."""

import numpy as np
import pytest
import torch

from dfil import models
from dfil.explain import activation
from dfil.system.errors import RunError
from dfil.train.snippets import normalise

BACKBONE = {"depth": (2, 2, 1, 1), "width": 4, "stem": "small"}
U, T, SIZE = 3, 4, 32


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = models.build("dil", **BACKBONE, frames=T)
    with torch.no_grad():
        made.backbone.fc.weight.mul_(20)  # so that gradients are well above rounding
    return made.eval()


@pytest.fixture
def x():
    return torch.randint(
        0, 256, (U, T, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def slow_grad_cam(model, x, layer, keep=slice(None)):
    """ReLU(sum_c mean_hw(d logit / d A_c) A_c) frame by frame and channel by channel, with a
    hook of its own.
    """
    kept = {}
    handle = layer.register_forward_hook(lambda module, args, output: kept.update(a=output))
    logit = model(normalise(x)[None])[0]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept["a"])
    a, g = (v.detach().double().numpy()[:, keep] for v in (kept["a"], gradient))
    maps = np.zeros((len(a), *a.shape[2:]))
    for n in range(a.shape[0]):
        for c in range(a.shape[1]):
            maps[n] += g[n, c].mean() * a[n, c]
    return np.maximum(maps, 0)


def test_class_activation_is_grad_cam_of_the_last_block(model, x):
    found = activation.class_activation(model, x, "here")
    assert list(found) == ["here"] and found["here"].shape == (U, T, SIZE, SIZE)
    expected = activation.enlarged(slow_grad_cam(model, x, model.backbone.layer4[-1]), x)
    assert expected.max() > 0
    np.testing.assert_allclose(found["here"], expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_a_frame_model_can_be_asked_too(x):
    torch.manual_seed(0)
    model = models.build("resnet50", **BACKBONE).eval()
    expected = activation.enlarged(slow_grad_cam(model, x, model.backbone.layer4[-1]), x)
    np.testing.assert_allclose(
        activation.class_activation(model, x)["Grad-CAM"],
        expected,
        rtol=1e-3,
        atol=1e-4 * expected.max() + 1e-12,
    )


def test_intra_activation_takes_the_long_branch_of_each_stages_last_intra_block(model, x):
    found = activation.intra_activation(model, x)
    assert list(found) == [f"stage {n}" for n in (1, 2, 3, 4)]
    for stage, block in (
        ("stage 1", model.backbone.layer1[0]),
        ("stage 3", model.backbone.layer3[0]),
    ):
        half = block.conv1.out_channels // 2
        expected = activation.enlarged(slow_grad_cam(model, x, block.intra, slice(half, None)), x)
        np.testing.assert_allclose(found[stage], expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_frames_keep_their_relative_strength(model, x):
    found = activation.class_activation(model, x)["Grad-CAM"]
    assert (
        len(np.unique(found.max((2, 3)).round(12))) > 2
    )  # the library's own scaling would make all of them 1


def test_the_model_is_left_as_it_was(model, x):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    activation.intra_activation(model, x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules()) and not model.training


def test_attention_is_the_product_of_the_two_views_averaged_over_channels(model, x):
    kept = model.explain(normalise(x)[None])
    maps = activation.intra_attention(model, x)
    h, w = (kept[f"layer2.0/attention_{view}"][0].double().numpy() for view in "hw")
    expected = np.zeros((U, T, *h.shape[-2:]))
    for c in range(h.shape[2]):
        expected += h[:, :, c] * w[:, :, c] / h.shape[2]
    expected -= expected.min()
    np.testing.assert_allclose(
        maps["stage 2"], activation.enlarged(expected.reshape(-1, *h.shape[-2:]), x), atol=1e-6
    )


def test_attention_without_views_is_the_one_map(x):
    torch.manual_seed(0)
    model = models.build("dil", **BACKBONE, frames=T, ca=False).eval()
    one = model.explain(normalise(x)[None])["layer1.0/attention"][0].mean(2)
    expected = activation.enlarged((one - one.min()).flatten(0, 1).numpy(), x)
    np.testing.assert_allclose(activation.intra_attention(model, x)["stage 1"], expected, atol=1e-6)


def test_ut_maps_and_frame_probabilities(model, x):
    kept = model.explain(normalise(x)[None])
    maps = activation.ut_maps(model, x)
    assert list(maps) == [
        "stage 1",
        "stage 2",
    ]  # the last two stages have one block each, an Intra-SI block
    product = (kept["layer2.1/f1"] * kept["layer2.1/f2"])[0].double().numpy()  # C, U, T
    np.testing.assert_allclose(maps["stage 2"], sum(product) / len(product), rtol=1e-5)
    expected = 1 / (1 + np.exp(-kept["frame_logits"][0].double().numpy()))
    np.testing.assert_allclose(activation.frame_probabilities(model, x), expected, rtol=1e-5)


def test_enlarging_keeps_the_order_of_snippets_and_frames(x):
    small = np.zeros((U * T, 2, 2))
    small[1 * T + 2, 0, 1] = 1.0  # snippet 1, frame 2, upper right
    maps = activation.enlarged(small, x)
    assert np.unravel_index(maps.argmax(), maps.shape)[:2] == (1, 2)
    assert maps[1, 2, 0, -1] == 1 and maps[1, 2, -1, 0] == 0


def test_models_without_what_is_asked_for_are_refused(x):
    plain = models.build("resnet50", **BACKBONE).eval()
    with pytest.raises(RunError, match="no Intra-SIM"):
        activation.intra_activation(plain, x)
    with pytest.raises(RunError, match="Linear has no ResNet"):
        activation.class_activation(torch.nn.Linear(1, 1), x)


def test_a_backbone_of_another_kind_is_refused_in_a_sentence():
    class Other(models.Detector):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Linear(1, 1)

    with pytest.raises(RunError, match="Other has no ResNet whose last block"):
        activation.blocks(Other())
