"""What takes the maps apart: stages, the truth at a map's resolution, ends, rims, steadying."""

import numpy as np
import pytest
import torch
from torch import nn

from dfil import models
from dfil.explain import activation, where
from dfil.explain.localisation import Video, energy_inside, pointing_game
from dfil.train.snippets import normalise

SMALL = {"depth": (2, 1, 1, 1), "width": 4, "stem": "small"}


@pytest.fixture
def x():
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8, generator=random)


class Trembling(nn.Module):
    """Its logit is how much the upper left quarter changes from frame to frame."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * x[..., :16, :16].diff(dim=2).abs().mean((1, 2, 3, 4, 5))


def test_the_last_stage_is_class_activation_and_every_stage_has_a_map(x):
    torch.manual_seed(0)
    model = models.build("dil", **SMALL).eval()
    found = where.by_stage(model, x)
    assert list(found) == [f"Grad-CAM, stage {n}" for n in (1, 2, 3, 4)]
    assert all(maps.shape == (2, 4, 32, 32) for maps in found.values())
    expected = activation.class_activation(model, x)["Grad-CAM"]
    np.testing.assert_allclose(found["Grad-CAM, stage 4"], expected)


def test_steadying_finds_where_a_detector_looks_and_loops_agree(x):
    model = Trembling()
    lost = where.steadied(model, x, "lost", cells=4, at_once=3)["lost"]
    assert lost.shape == (2, 4, 32, 32) and (lost[..., 16:, :] == 0).all()
    assert (lost[..., :16, :16] > 0).all() and (lost[..., :16, 16:] == 0).all()
    clip = normalise(x)
    changed = clip.clone()
    changed[..., 8:16, 0:8] = clip[..., 8:16, 0:8].mean(1, keepdim=True)
    with torch.no_grad():
        expected = (model(clip[None]) - model(changed[None])).item()
    np.testing.assert_allclose(lost[..., 8:16, 0:8], expected, rtol=1e-5)


def test_sizes_that_the_cells_do_not_divide_are_covered(x):
    assert (where.steadied(Trembling(), x, cells=5)["steadied"][..., :15, :15] > 0).all()


def test_a_perfect_map_loses_by_its_resolution_alone():
    masks = np.zeros((1, 4, 64, 64), bool)
    masks[..., 40:56, 20:44] = True
    energy = [energy_inside(where.coarse(masks, cells), masks) for cells in (4, 7, 64)]
    assert energy[0] < energy[1] < energy[2] == 1
    assert pointing_game(where.coarse(masks, 64), masks) == 1


def test_ends_are_left_out_and_counted():
    masks, maps = np.ones((2, 4, 8, 8), bool), np.zeros((2, 4, 8, 8))
    maps[:, 0] = 3.0
    maps[:, 1] = 1.0
    video = Video("v", "Deepfakes", torch.zeros(2, 4, 3, 8, 8), np.zeros((2, 4)), masks)
    assert where.without_ends(video).masks[:, 1:3].all()
    assert not where.without_ends(video).masks[:, [0, 3]].any() and video.masks.all()
    assert where.share_at_ends(maps) == 0.75 and where.share_at_ends(np.ones((2, 4, 8, 8))) == 0.5
    assert where.share_at_ends(np.zeros((2, 4, 8, 8))) == 0


def test_the_rim_counts_once():
    assert where.share_at_rim(np.ones((1, 1, 16, 16))) == pytest.approx(1 - 12**2 / 16**2)
    middle = np.zeros((1, 1, 16, 16))
    middle[..., 8, 8] = 1
    assert where.share_at_rim(middle) == 0 and where.share_at_rim(0 * middle) == 0


def test_every_cause_has_its_line(x):
    torch.manual_seed(0)
    model, untrained = (models.build("dil", **SMALL).eval() for _ in range(2))
    masks = np.zeros((2, 4, 32, 32), bool)
    masks[..., 8:20, 8:20] = True
    videos = [Video(name, "FaceSwap", x, np.zeros((2, 4)), masks) for name in "ab"]
    found = where.taken_apart(videos, model, untrained)
    assert where.last_cells(model, x) == 2 and not model.backbone.layer4[-1]._forward_hooks
    rows = [f"Grad-CAM, stage {n}" for n in (1, 2, 3, 4)] + ["steadied", "steadied, untrained"]
    rows += ["truth in 2 x 2 cells", "truth in 7 x 7 cells", "whole crop", "centre prior"]
    assert list(dict.fromkeys(found["row"])) == [*rows, "Grad-CAM, stage 4, inner frames"]
    crop = found[found["row"] == "whole crop"]
    assert crop["ends"].tolist() == [0.5, 0.5] and crop["rim"].tolist() == [0.4375, 0.4375]
    assert crop["energy"].tolist() == pytest.approx([masks.mean()] * 2)
    maps = activation.class_activation(model, x)["Grad-CAM"]
    inner = found[found["row"] == "Grad-CAM, stage 4, inner frames"]["energy"].iloc[0]
    assert inner == pytest.approx(energy_inside(maps[:, 1:3], masks[:, 1:3]))
