"""The methods that the paper quotes from elsewhere: what makes each itself, against slow references
written from its description."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dfil import models, paper
from dfil.models.baselines import capsule, d_fwa, deeprhythm, dianet, double_rnn
from dfil.models.detector import IMAGENET_MEAN, IMAGENET_STD
from dfil.system.errors import RunError

SMALL = {"depth": (2, 2, 2, 2), "width": 8, "stem": "small"}
QUOTED = [
    "capsule",
    "d-fwa",
    "facenet-lstm",
    "doublernn",
    "dianet",
    "va-logreg",
    "deeprhythm",
    "co-motion-70",
]


def small(name, **switches):
    torch.manual_seed(0)
    frames = getattr(models.sampling(name), "frames", 4)
    return models.build(name, **SMALL | {"frames": frames} | switches).eval()


def clips(name, b=2, size=32, seed=0):
    how = models.sampling(name)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, how.train, how.frames, 3, size, size, generator=generator)


@pytest.mark.parametrize("name", QUOTED)
def test_the_published_number_of_parameters(name):
    about = models.about(name)
    ours = sum(p.numel() for p in models.build(name).parameters()) / 1e6
    if about.parameters is None:
        assert about.read and (ours > 10 or models.is_fitted(name))
    else:
        assert abs(ours / about.parameters - 1) < 0.05


def test_every_row_that_the_paper_prints_is_there_or_named_as_quoted_only():
    rows = {row.method or row.name for t in paper.TABLES.values() for row in t.rows}
    absent = rows - set(models.available())
    assert not absent and set(QUOTED) == paper.quoted_methods()


@pytest.mark.parametrize(
    "name, sees", [("capsule", False), ("d-fwa", False), ("facenet-lstm", True),
                   ("doublernn", True), ("dianet", False), ("va-logreg", False),
                    ("deeprhythm", True), ("co-motion-70", False)],
)  # fmt: skip
def test_order_of_frames_counts_where_it_should(name, sees):
    """DIANet looks at both directions of a pair, so that a reversed pair is the same pair; and
    parts that move together do so backwards too."""
    model, x = small(name), clips(name)
    with torch.no_grad():
        moved = (model(x) - model(x.flip(2).flip(1))).abs().max()
    assert (moved > 1e-6) == sees


def test_dianet_sees_which_frames_are_paired():
    model, x = small("dianet"), clips("dianet")
    mixed = torch.stack([x[:, :, 0], x[:, :, 1].roll(1, 1)], 2)
    with torch.no_grad():
        assert (model(x) - model(mixed)).abs().max() > 1e-6


def routed(weight_oide, x_ie):
    """Routing of one frame's capsules in loops, float64: the softmax runs over the capsules."""
    out, capsules, size, _ = weight_oide.shape
    votes = np.einsum("oide,ie->oid", weight_oide, x_ie)
    logits = np.zeros_like(votes)
    for step in range(2):
        result = np.zeros((out, size))
        for o in range(out):
            total = np.zeros(size)
            for d in range(size):
                shares = np.exp(logits[o, :, d]) / np.exp(logits[o, :, d]).sum()
                for i in range(capsules):
                    total[d] += shares[i] * votes[o, i, d]
            length = math.sqrt((total**2).sum())
            result[o] = total / length * length**2 / (1 + length**2)
        if step == 0:
            for o in range(out):
                for i in range(capsules):
                    logits[o, i] += votes[o, i] * result[o]
    return result


def test_capsules_are_routed_as_the_loops_say():
    torch.manual_seed(1)
    layer = capsule.Routing(5).double().eval()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    found = layer(x).detach().numpy()
    for n in range(3):
        by_hand = routed(layer.weight.detach().numpy(), x[n].numpy())
        np.testing.assert_allclose(found[n], by_hand, rtol=1e-9)
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


def test_routing_is_noisy_in_training_only():
    layer, x = capsule.Routing(5), torch.randn(2, 5, 8)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_capsules_loss_and_probability_are_those_of_their_dimensions():
    model, x = small("capsule"), clips("capsule")
    y = torch.tensor([0.0, 1.0])
    with torch.no_grad():
        logits = model.capsule_logits(x).double()  # B, U, 1, 4
        p = torch.sigmoid(logits)
        frame = p.mean(-1)
        torch.testing.assert_close(
            torch.sigmoid(model.frame_logits(x)).double(), frame, rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(
            torch.sigmoid(model(x)).double(), frame.mean((1, 2)), rtol=1e-5, atol=1e-6
        )
        right = torch.where(y[:, None, None, None] == 1, p, 1 - p)
        by_hand = -right.log().sum(-1).mean()
        torch.testing.assert_close(model.loss(x, y).double(), by_hand, rtol=1e-5, atol=1e-6)


def test_capsule_takes_vgg19_and_keeps_it(tmp_path):
    from torchvision.models import vgg19

    model = models.build("capsule")
    theirs = vgg19(weights=None)
    path = tmp_path / "vgg19.pth"
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("classifier")}
    torch.save(state, path)
    model.pretrained(path)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 1_571_070
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 2_325_568
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model.features(x), theirs.features[:19](x))
    with pytest.raises(RunError, match="not the weights of Capsule"):
        models.build("capsule", width=8).pretrained(path)


def test_the_pyramid_has_the_windows_of_the_code_at_seven_cells():
    maps = torch.randn(2, 3, 7, 7)
    by_hand = []
    for n in d_fwa.GRIDS:
        kernel, stride = math.ceil(7 / n), 7 // n
        by_hand.append(nn.functional.max_pool2d(maps, kernel, stride)[:, :, :n, :n].flatten(1))
    torch.testing.assert_close(d_fwa.pyramid(maps), torch.cat(by_hand, 1))


@pytest.mark.parametrize("upper", [1, 3])
def test_d_fwas_video_is_the_mean_of_its_frames_or_of_their_upper_third(upper):
    model, x = small("d-fwa", upper=upper), clips("d-fwa", b=1)
    with torch.no_grad():
        p = torch.sigmoid(model.frame_logits(x)).flatten().sort(descending=True).values
        torch.testing.assert_close(torch.sigmoid(model(x)), p[: len(p) // upper].mean()[None])


def test_a_loss_at_chance_is_that_of_one_answer_to_all():
    """Of balanced classes; any bias that gives all clips the same costs at least as much."""
    y = torch.tensor([0.0, 1.0])
    entropy = float(torch.log(torch.tensor(2.0)))
    same = torch.linspace(-0.8, 0.8, 33)
    for name, where, shape in (
        ("doublernn", "snippet_logits", (2, 1)),
        ("capsule", "capsule_logits", (2, 1, 1, capsule.OUT)),
        ("dil", "forward", (2,)),
    ):
        model, costs = small(name), []
        for logit in same:
            setattr(model, where, lambda x, logit=logit, shape=shape: logit.expand(shape))
            costs.append(float(model.loss(y, y)))
        chance = models.loss_at_chance(name, entropy)
        assert min(costs) == pytest.approx(chance, abs=1e-5), name


@pytest.mark.parametrize(
    ("depth", "layers"), [((3, 4, 6, 3), (6, 12, 24, 16)), ((2, 2, 2, 2), (4, 6, 8, 11))]
)
def test_doublernns_blocks_shrink_with_the_backbone_it_stands_beside(depth, layers):
    model = double_rnn.DoubleRNN(depth=depth, width=8, stem="small")
    shared = [len(block) for name, block in model.shared.named_children() if "block" in name]
    assert (len(model.picture["block"]), *shared) == layers


def test_the_laplacian_of_gaussian_is_blind_to_flat_pictures_and_peaks_at_its_own_scale():
    layer = double_rnn.LaplacianOfGaussian()
    torch.testing.assert_close(layer(torch.ones(1, 2, 24, 24)), torch.zeros(1, 6, 24, 24))
    x = torch.zeros(1, 1, 65, 65)
    x[..., 32, 32] = 1
    for i, scale in enumerate(double_rnn.SCALES):
        response = layer(x)[0, i]
        assert response.argmin() == 32 * 65 + 32  # the centre of the operator is its lowest value
        ring = int(round(math.sqrt(2) * scale)) + 1
        assert response[32, 32 + ring] > 0 > response[32, 32]
    grid = torch.arange(65.0)
    waves = [torch.sin(2 * math.pi * grid / length)[None, None, None].expand(1, 1, 65, 65)
             for length in (4.5, 18.0)]  # fmt: skip
    fine, coarse = (layer(wave)[0, :, 20:45, 20:45].abs().amax((1, 2)) for wave in waves)
    assert fine.argmax() < coarse.argmax()


def test_the_isolating_loss_is_that_of_its_radii():
    model, x = small("doublernn"), clips("doublernn", b=4)
    y = torch.tensor([0.0, 1.0, 1.0, 0.0])
    with torch.no_grad():
        distance = model.distances(x.flatten(0, 1)).double()
        real = [max(float(d) - 0.042, 0) for d, label in zip(distance, y, strict=True) if not label]
        fake = [max(1.638 - float(d), 0) for d, label in zip(distance, y, strict=True) if label]
        assert float(model.loss(x, y)) == pytest.approx(np.mean(real) + np.mean(fake), rel=1e-5)
        assert float(model.loss(x[:1], y[:1])) == pytest.approx(real[0], rel=1e-5)
        torch.testing.assert_close(model.clip_logits(x[:, 0]).double(), distance - 0.84)


def test_a_position_finds_what_is_like_it_in_the_other_frame():
    f, other = torch.randn(2, 2, 6, 3, 4).double()
    found = dianet.found_in(f, other)
    for n in range(2):
        for i in range(12):
            here = f[n, :, i // 4, i % 4]
            alike = [
                math.exp(float(here @ other[n, :, j // 4, j % 4]) / math.sqrt(6)) for j in range(12)
            ]
            by_hand = sum(
                a * other[n, :, j // 4, j % 4] for j, a in enumerate(alike)
            ) / sum(alike)  # fmt: skip
            torch.testing.assert_close(found[n, :, i // 4, i % 4], by_hand)


def test_organs_are_taken_from_their_own_frame_and_place():
    maps = torch.zeros(2, 1, 50, 50)
    maps[1, 0, 35:37, 20:30] = 1  # the mouth of the second frame
    found = dianet.at_organs(maps).unflatten(0, (2, 4)).sum((2, 3, 4))
    assert found[1, 3] > 0 and found[0].sum() == 0 and found[1, :3].sum() == 0


def beating(frames, beats, side=52):
    """A clip of one still picture whose blocks' brightness follows beats (25, T), grey levels."""
    picture = np.random.default_rng(0).uniform(60, 200, (side, side, 3))
    edge = round(side * (1 - 1 / 1.3) / 2)
    block = np.minimum((np.arange(side) - edge) * 5 // (side - 2 * edge), 4)
    inside = (np.arange(side) >= edge) & (np.arange(side) < side - edge)
    which = np.where(inside[:, None] & inside, 5 * block[:, None] + block, 0)
    levels = picture + beats.T[:, which][..., None] * (inside[:, None] & inside)[..., None]
    x = torch.from_numpy(levels).permute(0, 3, 1, 2)[None] / 255
    mean, deviation = (
        torch.tensor(v).double()[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return ((x - mean) / deviation).float()


def test_the_rhythm_map_shows_a_pulse_magnified_and_nothing_else_so():
    time = np.arange(300) / 25
    beats = np.zeros((25, 300))
    beats[7] = 0.5 * np.sin(2 * np.pi * 1.25 * time)  # 75 beats a minute, half a grey level
    beats[18] = 0.5 * np.sin(2 * np.pi * 4 * time)  # a lamp's flicker
    found = deeprhythm.rhythm(beating(300, beats))[0].double() * 127.5  # 3, T, 25: grey levels
    strength = torch.fft.rfft(found, dim=1).abs() * 2 / 300
    frequency = torch.fft.rfftfreq(300, 1 / 25)
    assert frequency[strength[0, :, 7].argmax()] == pytest.approx(1.25)
    np.testing.assert_allclose(strength[:, :, 7].amax(1), 11 * 0.5, rtol=1e-3)
    assert frequency[strength[0, :, 18].argmax()] == pytest.approx(4)
    np.testing.assert_allclose(strength[:, :, 18].amax(1), 0.5, rtol=1e-3)
    others = [b for b in range(25) if b not in (7, 18)]
    assert found[:, :, others].abs().max() < 0.01


def test_the_band_has_no_frequency_of_its_own_in_clips_too_short_for_a_heart():
    inside = [f for f in np.fft.rfftfreq(32, 1 / 25) if 0.833 <= f <= 2]
    assert len(inside) == 1 and models.sampling("deeprhythm").frames == 32
    assert "32 frames in place of 300" in models.about("deeprhythm").note
    with pytest.raises(ValueError, match="at least 29 frames, not 28"):
        models.build("deeprhythm", frames=28)


def test_the_map_is_weighed_by_blocks_frames_and_verdicts_as_the_formula_says():
    model, x = small("deeprhythm"), clips("deeprhythm", b=2)[:, 0]
    seen = []
    model.resnet.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    with torch.no_grad():
        model.mix.copy_(torch.tensor([2.0, 0.5]))
        model.clip_logits(x)
        rhythm = deeprhythm.rhythm(x)
        for n in range(2):
            s = model.along(rhythm)[n].double()
            t = model.moments(model.lstm(rhythm.permute(0, 2, 3, 1).flatten(2))[0][:, -1])[
                n
            ].double()
            s, t = s / s.norm(), t / t.norm()
            for frame in range(0, 32, 7):
                m = float(torch.sigmoid(model.verdict(x[n, frame : frame + 1])))
                for block in range(25):
                    a = float(t[frame] * s[block]) + (block in (3, 8, 12, 14, 17, 19))
                    by_hand = (2 * m * a + 0.5 * m) * rhythm[n, :, frame, block]
                    torch.testing.assert_close(seen[0][n, :, frame, block], by_hand, rtol=1e-4,
                                               atol=1e-6)  # fmt: skip


def test_facenet_stays_as_it_is_with_its_weights(tmp_path):
    from facenet_pytorch import InceptionResnetV1

    path = tmp_path / "facenet.pt"
    torch.save(InceptionResnetV1(pretrained=None).state_dict(), path)
    model = models.build("facenet-lstm")
    model.pretrained(path)
    assert not model.train().backbone.training and model.lstm.training
    learns = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {"lstm", "fc"}
    with pytest.raises(RunError, match="not the weights of"):
        torch.save({"x": torch.zeros(1)}, path)
        model.pretrained(path)
