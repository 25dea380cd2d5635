"""S-MIL, S-MIL-T and STIL: what each is to training, what makes it what it is, and its modules
against slow references.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from dfil.models.baselines.mil import noisy_or, sharp
from dfil.models.baselines.s_mil import SMIL
from dfil.models.baselines.s_mil_t import SMILT
from dfil.models.baselines.stil import ISM, SIM, STIL, TIM, STILBlock, TemporalShift
from dfil.models.resnet import ResNet
from dfil.models.weights import load_backbone
from dfil.system.errors import RunError

SMALL = {"depth": (2, 1, 1, 1), "width": 8, "stem": "small"}
METHODS = [SMIL, SMILT, STIL]


def clips(b=2, u=4, t=1, size=32, seed=0):
    return torch.randn(b, u, t, 3, size, size, generator=torch.Generator().manual_seed(seed))


def small(method, **switches):
    """A small model in evaluation mode, its classifiers and shifts far from their special
    starting values.
    """
    torch.manual_seed(0)
    model = method(**SMALL | switches).eval()
    for name, p in model.named_parameters():
        if "fc." in name or "heads." in name or "shift" in name:
            nn.init.normal_(p)
    return model


def randomised(module):
    """In float64, with batch normalisation that does something in evaluation mode."""
    torch.manual_seed(1)
    module = module.double().eval()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight)
            nn.init.normal_(m.bias)
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return module


@pytest.mark.parametrize("method", METHODS)
def test_shapes_and_gradients(method):
    model = small(method).train()
    x = clips().requires_grad_()
    logits = model(x)
    assert logits.shape == (2,) and logits.dtype == torch.float32
    loss = model.loss(x, torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.ndim == 0
    for key, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0, key
    assert (x.grad.abs().sum((2, 3, 4, 5)) > 0).all()  # every frame of every video takes part
    with pytest.raises(ValueError, match="B, U, T, 3, H, W"):
        model(x[0])


@pytest.mark.parametrize("method", METHODS)
def test_frames_are_free_and_videos_separate(method):
    model, x = small(method), clips(u=6)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:], model(x[1:]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            model(x), model(x.unflatten(1, (2, 3)).squeeze(3)), rtol=1e-4, atol=1e-4
        )
        assert model(x[:, :5]).shape == (2,)


@pytest.mark.parametrize(("method", "sees_order"), [(SMIL, False), (SMILT, True), (STIL, True)])
def test_order_of_frames(method, sees_order):
    model, x = small(method), clips()
    with torch.no_grad():
        forward, backward = model(x), model(x.flip(1))
    changed = (forward - backward).abs().max() / forward.abs().max()
    assert changed > 1e-3 if sees_order else changed < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_what_it_looks_at_and_where_it_comes_from(method):
    s, about = method.sampling, method.about
    assert s.frames == 1 and (s.train, s.test) == ((8, 16) if method is STIL else (16, 32))
    assert (
        about.kind == "forgery" and about.start == "ImageNet" and str(about.year) in about.citation
    )


def test_parameters_published():
    with torch.device("meta"):
        stil, s_mil, s_mil_t = STIL(), SMIL(), SMILT()
    count = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (stil, s_mil, s_mil_t)]
    assert count[0] == pytest.approx(STIL.about.parameters, rel=0.05)
    assert count[0] + 2049 / 1e6 == pytest.approx(
        22.69, abs=0.005
    )  # with two classes, as the authors have
    assert (
        SMIL.about.parameters is None and SMILT.about.parameters is None
    )  # none published: ResNet-50's, and the encoders
    assert count[1] == pytest.approx(23.51, abs=0.01)
    assert count[2] - count[1] == pytest.approx(9 * 2048 * 512 / 1e6, rel=1e-3)


# S-MIL


def test_sharp_bag_worked_by_hand():
    # p = 3/4, 1/2, 1/5: 1/p - 1 = 1/3, 1, 4; their product 4/3; P = 3/7. Traditional: 1 - 1/4 · 1/2
    # · 4/5 = 9/10.
    p = torch.tensor([0.75, 0.5, 0.2], dtype=torch.float64)
    assert torch.sigmoid(sharp(torch.logit(p))).item() == pytest.approx(3 / 7, abs=1e-12)
    assert torch.sigmoid(noisy_or(torch.logit(p))).item() == pytest.approx(9 / 10, abs=1e-12)


@pytest.mark.parametrize("pool", [sharp, noisy_or])
def test_pooling_against_the_products(pool):
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, pooled in zip(logits.tolist(), torch.sigmoid(pool(logits)).tolist(), strict=True):
        product = 1.0
        for logit in row:
            p = 1 / (1 + math.exp(-logit))
            product *= (1 / p - 1) if pool is sharp else (1 - p)
        assert pooled == pytest.approx(
            1 / (1 + product) if pool is sharp else 1 - product, rel=1e-10
        )


@pytest.mark.parametrize("pool", [sharp, noisy_or])
def test_pooling_stays_finite(pool):
    logits = torch.tensor(
        [[200.0] * 16, [-200.0] * 16, [200.0] * 8 + [-200.0] * 8], requires_grad=True
    )
    bags = pool(logits)
    functional.binary_cross_entropy_with_logits(bags, torch.tensor([0.0, 1.0, 1.0])).backward()
    assert torch.isfinite(bags).all() and torch.isfinite(logits.grad).all()
    assert bags[0] > 0 > bags[1]


def test_sharp_gradient_does_not_vanish_at_instances_taken_for_real():
    gradient = {}
    for pool in (sharp, noisy_or):
        logits = torch.tensor([0.5, -0.4, -6.0], dtype=torch.float64, requires_grad=True)
        bag = pool(logits)
        functional.binary_cross_entropy_with_logits(bag, torch.ones_like(bag)).backward()
        gradient[pool] = logits.grad
        p = torch.sigmoid(bag.detach())
        share = (
            torch.ones(3, dtype=p.dtype) if pool is sharp else torch.sigmoid(logits.detach()) / p
        )
        torch.testing.assert_close(logits.grad, (p - 1) * share)
    assert abs(gradient[sharp][2]) > 100 * abs(gradient[noisy_or][2])


def test_s_mil_is_its_frames_pooled():
    model, x = small(SMIL), clips(u=3, t=2)
    with torch.no_grad():
        frames = model.frame_logits(x)
        one = model.frame_logits(x[:1, 1:2, :1])
        torch.testing.assert_close(one.flatten()[0], frames[0, 1, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(x), frames.sum((1, 2)))
        traditional = small(SMIL, pooling="mil")
        p = torch.sigmoid(frames.double())
        torch.testing.assert_close(
            torch.sigmoid(traditional(x)).double(),
            1 - (1 - p).prod(1).prod(1),
            rtol=1e-4,
            atol=1e-5,
        )
    with pytest.raises(ValueError, match="'sharp' or 'mil'"):
        SMIL(pooling="max", **SMALL)


def test_s_mil_t_against_loops():
    model = small(SMILT).double()
    h = torch.randn(
        2,
        5,
        model.encoders[0].in_channels,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(2),
    )
    with torch.no_grad():
        got = model.instance_logits(h)
        assert [g.shape for g in got] == [(2, 4), (2, 3), (2, 2)]
        for logits, k, encode, head in zip(
            got, model.kernels, model.encoders, model.heads, strict=True
        ):
            for b in range(2):
                for j in range(5 - k + 1):
                    e = encode.bias.clone()
                    for i in range(k):
                        e += encode.weight[:, :, i] @ h[b, j + i]
                    torch.testing.assert_close(
                        logits[b, j], (head.weight[0] * e.clamp_min(0)).sum() + head.bias[0]
                    )
        x = clips(u=5).double()
        bags = torch.stack(
            [
                g.sum(1)
                for g in model.instance_logits(model.backbone(x.flatten(0, 2)).unflatten(0, (2, 5)))
            ]
        )
        torch.testing.assert_close(model(x), bags.sum(0).float(), rtol=1e-5, atol=1e-5)


def test_s_mil_t_says_what_it_needs():
    with pytest.raises(ValueError, match="kernel of 4 frames"):
        small(SMILT)(clips(u=3))
    with pytest.raises(ValueError, match="at least 1 frame"):
        SMILT(kernels=(), **SMALL)
    with pytest.raises(ValueError, match="'sharp' or 'mil'"):
        SMILT(pooling="max", **SMALL)


@pytest.mark.parametrize("method", [SMIL, SMILT])
def test_s_mil_takes_the_backbones_weights(method):
    donor, model = ResNet(**SMALL), method(**SMALL)
    load_backbone(model.backbone, donor.state_dict(), "made up")
    torch.testing.assert_close(model.backbone.layer3[0].conv2.weight, donor.layer3[0].conv2.weight)


# STIL


def norm(x, bn):
    """Batch normalisation in evaluation mode, channels first: x (C, ...)."""
    shape = (-1, *[1] * (x.ndim - 1))
    mean, var, weight, bias = (
        v.view(shape) for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    )
    return (x - mean) / (var + bn.eps).sqrt() * weight + bias


def slow_view(f, tim, axis):
    """One view of TIM written on its plane: f (T, C, H, W) of one video -> attention (T, C', H,
    W).
    """
    t, c, h, w = f.shape
    planes = (
        f.permute(3, 1, 2, 0) if axis == "h" else f.permute(2, 1, 3, 0)
    )  # the other axis, C, the view's axis A, T
    neighbour, full = getattr(tim, f"neighbour_{axis}"), getattr(tim, f"full_{axis}")
    half, recover = getattr(tim, f"half_{axis}"), getattr(tim, f"recover_{axis}")
    n = planes.shape[2]

    def taps(plane, weight):  # plane (C, A, T), weight (out, in, 3) along A
        out = torch.zeros(weight.shape[0], plane.shape[1], t, dtype=plane.dtype)
        for a in range(plane.shape[1]):
            for j in range(3):
                if 0 <= a + j - 1 < plane.shape[1]:
                    out[:, a] += weight[:, :, j] @ plane[:, a + j - 1]
        return out

    result = []
    for plane in planes:
        g = torch.stack(
            [
                taps(plane[i : i + 1], neighbour.weight.reshape(c, 1, 3)[i : i + 1])[0]
                for i in range(c)
            ]
        )
        d = torch.zeros_like(plane)
        for i in range(t - 1):
            d[:, :, i] = g[:, :, i + 1] - plane[:, :, i]  # and zero at the last frame
        pooled = torch.stack([(d[:, 2 * a] + d[:, 2 * a + 1]) / 2 for a in range(n // 2)], 1)
        low = norm(taps(pooled, half[0].weight.reshape(c, c, 3)), half[1])
        up = torch.stack([low[:, a * (n // 2) // n] for a in range(n)], 1)
        high = norm(taps(d, full[0].weight.reshape(c, c, 3)), full[1])
        total = norm(
            torch.einsum("oc,cat->oat", recover[0].weight[:, :, 0, 0], (d + up + high) / 3),
            recover[1],
        )
        result.append(1 / (1 + torch.exp(-total)) - 0.5)  # C', A, T
    stacked = torch.stack(result)  # the other axis, C', A, T
    return stacked.permute(3, 1, 2, 0) if axis == "h" else stacked.permute(3, 1, 0, 2)


def test_tim_against_planes_and_loops():
    tim = randomised(TIM(32))
    assert tim.squeeze[0].out_channels == 2
    x = torch.randn(
        2 * 3, 32, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )  # two videos of three frames
    with torch.no_grad():
        got = tim(x, 3)
        for video, out in zip(x.unflatten(0, (2, 3)), got.unflatten(0, (2, 3)), strict=True):
            squeezed = torch.stack(
                [
                    norm(
                        torch.einsum("oc,chw->ohw", tim.squeeze[0].weight[:, :, 0, 0], v),
                        tim.squeeze[1],
                    )
                    for v in video
                ]
            )
            attention = (slow_view(squeezed, tim, "h") + slow_view(squeezed, tim, "w")) / 2
            torch.testing.assert_close(out, video * (1 + attention))


def test_difference_is_zero_at_the_end_of_every_video():
    tim = randomised(TIM(32))
    f = torch.randn(2 * 4, 2, 4, 4, dtype=torch.float64)
    for axis in "hw":
        d = tim.difference(f, 4, axis).unflatten(0, (2, 4))
        assert (d[:, -1] == 0).all() and (d[:, :-1] != 0).all()
        later = f.clone()
        later[3] += (
            1  # the last frame of the first video reaches its neighbour before, and no other
        )
        changed = (tim.difference(later, 4, axis) - tim.difference(f, 4, axis)).abs().sum(
            (1, 2, 3)
        ) > 0
        assert changed.tolist() == [False, False, True, False, False, False, False, False]
    still = torch.ones(4, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        for axis in "hw":  # depthwise taps 0, 1, 0: a still video has no difference at all
            weight = getattr(tim, f"neighbour_{axis}").weight
            weight.zero_().view(2, 3)[:, 1] = 1
            assert (tim.difference(still, 4, axis) == 0).all()


def test_sim_against_the_formula():
    sim = randomised(SIM(4))
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def conv(v, seq):  # v (C, H, W), odd kernels, zeros outside
        weight = seq[0].weight
        out = torch.zeros(weight.shape[0], *v.shape[1:], dtype=v.dtype)
        kh, kw = weight.shape[2:]
        for i in range(v.shape[1]):
            for j in range(v.shape[2]):
                for a in range(kh):
                    for b in range(kw):
                        y, z = i + a - kh // 2, j + b - kw // 2
                        if 0 <= y < v.shape[1] and 0 <= z < v.shape[2]:
                            out[:, i, j] += weight[:, :, a, b] @ v[:, y, z]
        return norm(out, seq[1])

    with torch.no_grad():
        outs, inners = sim(x)
        for v, out, inner in zip(x, outs, inners, strict=True):
            small_map = torch.stack(
                [
                    torch.stack(
                        [v[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((1, 2)) for j in range(2)],
                        1,
                    )
                    for i in range(2)
                ],
                1,
            )
            calibration = conv(conv(small_map, sim.f_w).clamp_min(0), sim.f_h)
            up = torch.stack(
                [
                    torch.stack([calibration[:, i * 2 // 9, j * 2 // 8] for j in range(8)], 1)
                    for i in range(9)
                ],
                1,
            )
            expected = conv(v, sim.k3) / (1 + torch.exp(-(v + up)))
            torch.testing.assert_close(inner, expected)
            torch.testing.assert_close(out, conv(expected, sim.k4).clamp_min(0))


def test_ism_weighs_channels_by_their_neighbours():
    ism = ISM().double()
    y = torch.randn(2, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    a, b, c = ism.conv.weight.flatten().tolist()
    got = ism(y)
    for n in range(2):
        g = [0.0, *y[n].mean((1, 2)).tolist(), 0.0]
        for i in range(5):
            weight = 1 / (1 + math.exp(-(a * g[i] + b * g[i + 1] + c * g[i + 2])))
            torch.testing.assert_close(got[n, i], y[n, i] * weight)


def test_shift_starts_as_tsm():
    x = torch.randn(2 * 3, 16, 2, 2, generator=torch.Generator().manual_seed(6))
    v, out = x.unflatten(0, (2, 3)), TemporalShift(16)(x, 3).unflatten(0, (2, 3))
    torch.testing.assert_close(out[:, :, 4:], v[:, :, 4:])
    torch.testing.assert_close(out[:, :2, :2], v[:, 1:, :2])
    torch.testing.assert_close(out[:, 1:, 2:4], v[:, :2, 2:4])
    assert (out[:, 2, :2] == 0).all() and (out[:, 0, 2:4] == 0).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_block_is_its_parts(stride):
    block = randomised(STILBlock(12, 8, stride, nn.Identity()))
    nn.init.normal_(block.shift.weight)
    x = torch.randn(6, 12, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        a, b = torch.relu(block.bn1_a(block.conv1_a(x))), torch.relu(block.bn1_b(block.conv1_b(x)))
        b, inner = block.scconv(b)
        a = torch.relu(block.k1(block.shift(block.tim(a, 3) + block.ism(inner), 3)))
        shortcut = x
        if stride == 2:
            a, b = functional.avg_pool2d(a, 3, 2, 1), functional.avg_pool2d(b, 3, 2, 1)
            shortcut = functional.avg_pool2d(x, 2)
        shortcut = block.downsample[2](block.downsample[1](shortcut))
        expected = torch.relu(block.bn3(block.conv3(torch.cat([a, b], 1))) + shortcut)
        torch.testing.assert_close(block(x, 3), expected)
    assert expected.shape == (6, 32, 8 // stride, 8 // stride)


def scnet(model):
    """A state dict with SCNet-50-v1d's names and random values, for a model of any size."""
    state = {}
    for key, value in model.backbone.state_dict().items():
        if not any(f".{name}." in key for name in STILBlock.added):
            state[key] = torch.randn_like(value) if value.is_floating_point() else value
    half = model.backbone.layer1[0].k1[0].weight.shape[0]
    return state | {
        "layer1.0.scconv.k2.1.weight": torch.zeros(half, half, 3, 3),
        "fc.weight": torch.zeros(1000, 256),
    }


def test_pretrained_takes_scnet_and_nothing_else(tmp_path, monkeypatch):
    model = STIL(depth=(1, 1, 1, 1), width=8)  # with the full-size model's deep stem
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state, file = scnet(model), tmp_path / "scnet.pth"
    torch.save(state, file)
    assert model.pretrained(file) == str(file)
    for key, value in model.backbone.state_dict().items():
        if key in state and not key.startswith("fc."):
            torch.testing.assert_close(value, state[key])
        else:
            torch.testing.assert_close(value, before["backbone." + key])
    assert {k for k in state if k.startswith("conv1.")} == {
        f"conv1.{i}" for i in ("0.weight", "3.weight", "6.weight")
    } | {
        f"conv1.{i}.{k}"
        for i in (1, 4)
        for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert state["layer2.0.downsample.1.weight"].shape == (64, 32, 1, 1)

    torch.save({k: v for k, v in state.items() if k != "layer2.0.scconv.k3.0.weight"}, file)
    monkeypatch.setenv("DFIL_SCNET_WEIGHTS", str(file))
    with pytest.raises(RunError, match=r"scnet\.pth.*layer2\.0\.scconv\.k3\.0\.weight"):
        model.pretrained()
    with pytest.raises(RunError, match="no such file"):
        model.pretrained(tmp_path / "none.pth")
    torch.save(state, file)
    with pytest.raises(RunError, match="parameters differ"):
        STIL(depth=(1, 1, 1, 1), width=16).pretrained(file)


def test_pretrained_offline_says_what_to_do(monkeypatch):
    def no_net(url, **options):
        assert options["check_hash"] and options["weights_only"]
        raise OSError("no route to host")

    monkeypatch.delenv("DFIL_SCNET_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_net)
    with pytest.raises(RunError, match=r"scnet50_v1d.*no route to host.*DFIL_SCNET_WEIGHTS"):
        STIL(**SMALL).pretrained()
