"""Xception, LSTM, C3D and I3D: what each is by its own paper, and the pretrained weights that
they take.
"""

from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from dfil.models.baselines.c3d import C3D
from dfil.models.baselines.frames import to_unit_range
from dfil.models.baselines.i3d import I3D, inflated
from dfil.models.baselines.lstm import FrameLSTM
from dfil.models.baselines.xception import Xception
from dfil.models.resnet import ResNet
from dfil.models.weights import load_backbone
from dfil.system.errors import RunError
from dfil.train.snippets import normalise

SMALL = {"depth": (2, 2, 2, 2), "width": 8, "stem": "small"}
SMOKE = {"depth": (2, 1, 1, 1), "width": 8, "stem": "small"}
METHODS = (Xception, FrameLSTM, C3D, I3D)
CLIPS = METHODS[1:]


def clips(b=2, u=2, t=16, size=32, seed=0):
    return torch.randn(b, u, t, 3, size, size, generator=torch.Generator().manual_seed(seed))


def small(method, size=SMALL, **switches):
    torch.manual_seed(0)
    return method(**size, **switches).eval()


def settle(model):
    """Batch statistics as after training, so that no batch normalisation is the identity."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d):
            for p, low in (
                (m.running_mean, -0.2),
                (m.running_var, 0.8),
                (m.weight, 0.8),
                (m.bias, -0.2),
            ):
                nn.init.uniform_(p, low, low + 0.4)
    return model


@pytest.mark.parametrize("size", [SMALL, SMOKE], ids=["demo", "smoke"])
@pytest.mark.parametrize("method", METHODS)
def test_shapes_and_gradients(method, size):
    model, x = small(method, size).train(), clips()
    assert model(x).shape == (2,)
    loss = model.loss(x, torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.ndim == 0
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0, name
    with pytest.raises(ValueError, match="B, U, T, 3, H, W"):
        model(x[0])
    with pytest.raises(ValueError, match="stem"):
        method(stem="x")


@pytest.mark.parametrize("method", METHODS)
def test_own_sampling_fits_and_the_number_of_clips_is_free(method):
    own, model = method.sampling, small(method)
    assert own.train * own.frames == 16 and own.test * own.frames == 32
    for u in (own.train, own.test):
        assert model(clips(1, u, own.frames)).shape == (1,)


@pytest.mark.parametrize("method", CLIPS)
def test_a_clip_of_another_length_is_refused(method):
    with pytest.raises(ValueError, match=f"{method.__name__} was built for snippets of T = 16"):
        small(method)(clips(t=15))
    assert small(method, frames=4)(clips(t=4)).shape == (2,)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_of_the_full_model(method):
    with torch.device("meta"):
        model = method()
    ours = sum(p.numel() for p in model.parameters())
    if (
        method is FrameLSTM
    ):  # no published count: ResNet-50 without its head, an LSTM of 2048 on 2048, 2048 -> 512 -> 1
        assert ours == 23_508_032 + 4 * (2 * 2048 * 2048 + 2 * 2048) + 2048 * 512 + 512 + 513
    else:
        assert abs(ours / 1e6 / method.about.parameters - 1) < 0.05 and method.about.source
    if method is Xception:  # to the last parameter
        assert ours == 22_855_952 - 2_049_000 + 2049


@pytest.mark.parametrize("method", CLIPS)
def test_clip_methods_see_the_order_of_frames_but_not_of_clips(method):
    model, x = settle(small(method)), clips(u=3)
    assert (model(x) - model(x.flip(2))).abs().max() > 1e-4
    torch.testing.assert_close(model(x), model(x[:, [2, 0, 1]]))


def test_xception_ignores_the_order_of_frames():
    model, x = settle(small(Xception)), clips() * torch.linspace(0, 4, 16)[:, None, None, None]
    torch.testing.assert_close(model(x), model(x.flip(2)))
    torch.testing.assert_close(
        model(x), model(x.flatten(1, 2)[:, :, None])
    )  # 2 x 16 frames or 32 x 1
    assert model.frame_logits(x).std() > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_videos_of_a_batch_do_not_see_each_other(method):
    model, x = settle(small(method)), clips(b=3)
    torch.testing.assert_close(model(x).flip(0), model(x.flip(0)))
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


@pytest.mark.parametrize("method", METHODS)
def test_score_is_the_mean_probability_and_loss_the_parts_mean(method):
    model, x, y = settle(small(method)), clips(), torch.tensor([1.0, 0.0])
    logits = model.frame_logits(x).flatten(1) if method is Xception else model.snippet_logits(x)
    scores, losses = [], []
    for video, label in zip(logits.double().tolist(), y.tolist(), strict=True):
        p = [1 / (1 + 2.718281828459045**-value) for value in video]
        scores.append(sum(p) / len(p))
        losses += [
            -(label * torch.tensor(q).log() + (1 - label) * torch.tensor(1 - q).log()).item()
            for q in p
        ]
    torch.testing.assert_close(torch.sigmoid(model(x)), torch.tensor(scores))
    torch.testing.assert_close(model.loss(x, y), torch.tensor(sum(losses) / len(losses)))


def test_certain_videos_do_not_tie():
    model = small(Xception)
    model.frame_logits = lambda x: x[..., 0, 0, 0]
    x = (
        torch.zeros(3, 1, 2, 3, 1, 1)
        + torch.tensor([40.0, 60.0, -60.0])[:, None, None, None, None, None]
    )
    torch.testing.assert_close(model(x), torch.tensor([40.0, 60.0, -60.0]))


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_autocast_agrees_with_float32(method):
    switches = {"dropout": 0.0} if method in (FrameLSTM, C3D) else {}
    model, x, y = small(method, **switches).train(), clips(), torch.tensor([0.0, 1.0])
    exact = model.loss(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(x, y)
    assert abs(float(loss.detach() - exact.detach())) < 0.1
    # No gradients of 3-D kernels here: on a CPU, torch 2.14's bfloat16 gradient of a 3x3x3 kernel
    # over two frames reads memory that nothing has written. Its float32 gradient is right, and only
    # GPUs use bfloat16 in this project.
    if method in (Xception, FrameLSTM):
        loss.backward()
        assert not [
            name for name, p in model.named_parameters() if not torch.isfinite(p.grad).all()
        ]


@pytest.mark.parametrize(
    "method", (Xception, FrameLSTM, C3D)
)  # on a CPU torch's 1x1x1 convolutions, I3D's, choose a layout of their own
def test_channels_last_survives(method):
    model, seen = small(method), []
    for name, m in model.named_modules():
        if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d | nn.Conv3d | nn.MaxPool3d):
            layout = (
                torch.channels_last if isinstance(m, nn.BatchNorm2d) else torch.channels_last_3d
            )
            m.register_forward_hook(
                lambda m, i, out, at=(name, layout): seen.append(
                    (at[0], out.is_contiguous(memory_format=at[1]))
                )
            )
    model(clips())
    assert seen and not [name for name, kept in seen if not kept]


def test_unit_range_undoes_imagenets_normalisation():
    pixels = torch.randint(0, 256, (2, 4, 3, 5, 5), dtype=torch.uint8)
    torch.testing.assert_close(to_unit_range(normalise(pixels)), pixels / 127.5 - 1)


# Xception


def xception_reference(w, x, middle, small_stem):
    """Chollet's Figure 5 on a state dict, frames (N, 3, H, W) in [-1, 1] -> logits (N,)."""

    def norm(x, name):
        mean, var, gain, shift = (
            w[f"{name}.{k}"][:, None, None]
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + shift

    def separable(x, name):
        deep = w[f"{name}.conv1.weight"]  # C, 1, 3, 3: one kernel per channel
        x = torch.cat(
            [F.conv2d(x[:, c : c + 1], deep[c : c + 1], padding=1) for c in range(x.shape[1])], 1
        )
        return torch.einsum("nchw,oc->nohw", x, w[f"{name}.pointwise.weight"][:, :, 0, 0])

    def flow(x, name, convolutions, stride, relu_first=True):
        y, place = x, 0
        for i in range(convolutions):
            if i or relu_first:
                y, place = y.clamp(min=0), place + 1
            y = norm(separable(y, f"{name}.rep.{place}"), f"{name}.rep.{place + 1}")
            place += 2
        if stride == 2:
            y = F.max_pool2d(y, 3, 2, 1)
        if f"{name}.skip.weight" in w:
            x = norm(
                torch.einsum(
                    "nchw,oc->nohw",
                    x[:, :, ::stride, ::stride],
                    w[f"{name}.skip.weight"][:, :, 0, 0],
                ),
                f"{name}.skipbn",
            )
        return y + x

    x = norm(F.conv2d(x, w["conv1.weight"], stride=2), "bn1").clamp(min=0)
    x = norm(F.conv2d(x, w["conv2.weight"]), "bn2").clamp(min=0)
    x = flow(x, "block1", 2, 1 if small_stem else 2, relu_first=False)
    x = flow(flow(x, "block2", 2, 2), "block3", 2, 2)
    for i in range(middle):
        x = flow(x, f"block{4 + i}", 3, 1)
    x = flow(x, f"block{4 + middle}", 2, 2)
    x = norm(separable(x, "conv3"), "bn3").clamp(min=0)
    x = norm(separable(x, "conv4"), "bn4").clamp(min=0)
    return x.mean((2, 3)) @ w["fc.weight"][0] + w["fc.bias"]


@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_xception_is_figure_5(stem):
    torch.manual_seed(1)
    model = settle(Xception(depth=(1, 1, 1, 1), width=4, stem=stem)).double().eval()
    x = torch.rand(2, 3, 64, 64, dtype=torch.double) * 2 - 1
    mean, deviation = (
        torch.tensor([0.485, 0.456, 0.406])[:, None, None].double(),
        torch.tensor([0.229, 0.224, 0.225])[:, None, None].double(),
    )
    ours = model.frame_logits((((x + 1) / 2 - mean) / deviation)[:, None, None])[:, 0, 0]
    reference = xception_reference(model.state_dict(), x, middle=2, small_stem=stem == "small")
    torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-6)


def test_xception_has_the_ports_names():
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in Xception().state_dict().items()}
    expected = {
        "conv1.weight": (32, 3, 3, 3),
        "bn2.running_var": (64,),
        "block1.rep.0.pointwise.weight": (128, 64, 1, 1),
        "block1.rep.4.weight": (128,),
        "block1.skip.weight": (128, 64, 1, 1),
        "block3.rep.1.conv1.weight": (256, 1, 3, 3),
        "block3.skipbn.bias": (728,),
        "block11.rep.7.pointwise.weight": (728, 728, 1, 1),
        "block12.rep.1.pointwise.weight": (728, 728, 1, 1),
        "block12.rep.4.pointwise.weight": (1024, 728, 1, 1),
        "conv4.pointwise.weight": (2048, 1536, 1, 1),
    }
    assert {k: shapes.get(k) for k in expected} == expected
    assert "block4.skip.weight" not in shapes and "block13.rep.1.conv1.weight" not in shapes


def test_xception_takes_the_ports_files(tmp_path, monkeypatch):
    donor, model = settle(small(Xception)), Xception(**SMALL).eval()
    old = {
        k.replace("fc.", "last_linear."): v
        for k, v in donor.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    old = {k: v[:, :, 0, 0] if "pointwise" in k else v for k, v in old.items()}
    file = tmp_path / "xception.pth"
    torch.save(old, file)
    monkeypatch.setenv("DFIL_XCEPTION_WEIGHTS", str(file))
    head = model.fc.weight.clone()
    assert model.pretrained() == model.pretrained(file) == str(file)
    torch.testing.assert_close(model.fc.weight, head)  # the new head is left alone
    model.fc.load_state_dict(donor.fc.state_dict())
    torch.testing.assert_close(model(clips()), donor(clips()))
    del old["block2.rep.1.conv1.weight"]
    torch.save(old, file)
    with pytest.raises(
        RunError,
        match=r"xception.pth: these are not the weights of Xception \(1 .*block2\.rep\.1\.conv1",
    ):
        model.pretrained(file)


@pytest.mark.parametrize(
    "method,variable", [(Xception, "DFIL_XCEPTION_WEIGHTS"), (I3D, "DFIL_GOOGLENET_WEIGHTS")]
)
def test_weights_that_cannot_be_had(method, variable, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(RunError, match=f"could not be fetched .*no route.*{variable}"):
        small(method).pretrained()
    with pytest.raises(RunError, match=f"gone.pth: no such file.*{variable}"):
        small(method).pretrained(tmp_path / "gone.pth")


# LSTM


def test_lstm_against_the_gates_written_out():
    model, x = settle(small(FrameLSTM)).double(), clips(1, 1, 16).double()
    features = model.backbone(x.flatten(0, 2))  # T, C: what the memory reads
    w, n = model.lstm.state_dict(), model.lstm.hidden_size
    h = c = torch.zeros(n, dtype=torch.double)
    for frame in features:
        gates = (
            w["weight_ih_l0"] @ frame + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
        )
        i, f, g, o = (
            gates[:n].sigmoid(),
            gates[n : 2 * n].sigmoid(),
            gates[2 * n : 3 * n].tanh(),
            gates[3 * n :].sigmoid(),
        )
        c = f * c + i * g
        h = o * c.tanh()
    first, last = model.head[1], model.head[4]
    logit = last.weight[0] @ (first.weight @ h + first.bias).clamp(min=0) + last.bias[0]
    torch.testing.assert_close(model.snippet_logits(x)[0, 0], logit)


def test_lstms_backbone_takes_a_resnets_weights():
    torch.manual_seed(3)
    state = settle(ResNet(**SMALL)).state_dict()
    model = small(FrameLSTM)
    load_backbone(model.backbone, state, "made up")
    own = model.backbone.state_dict()
    assert all(torch.equal(own[k], v) for k, v in state.items() if not k.startswith("fc."))


# C3D


def test_c3d_is_figure_3_at_the_published_size():
    with torch.device("meta"):
        model = C3D()
        x, pooled, channels = torch.empty(1, 3, 16, 112, 112), [], []
        for m in model.features[:-1]:
            x = m(x)
            if isinstance(m, nn.Conv3d):
                channels.append(m.out_channels)
                assert m.kernel_size == (3, 3, 3) and m.stride == (1, 1, 1)
            if isinstance(m, nn.MaxPool3d):
                pooled.append(tuple(x.shape[2:]))
    assert channels == [64, 128, 256, 256, 512, 512, 512, 512]
    assert pooled == [(16, 56, 56), (8, 28, 28), (4, 14, 14), (2, 7, 7), (1, 4, 4)]
    assert (model.fc6.in_features, model.fc6.out_features, model.fc7.out_features) == (
        8192,
        4096,
        4096,
    )
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]


def test_c3ds_last_pooling_leaves_the_published_map_alone():
    adaptive = C3D(**SMALL).features[-1]
    x = torch.randn(2, 3, 1, 4, 4)
    torch.testing.assert_close(adaptive(x), x)
    x = torch.randn(2, 3, 1, 8, 8)  # what 224 px leave
    torch.testing.assert_close(adaptive(x), F.max_pool3d(x, (1, 2, 2)))


# I3D


@pytest.fixture(scope="module")
def googlenet():
    torch.manual_seed(2)
    model = torchvision.models.GoogLeNet(transform_input=True, init_weights=False)
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
    return settle(model).eval()


def test_a_video_that_stands_still_gets_the_frames_response(googlenet, tmp_path, monkeypatch):
    """Carreira and Zisserman's "boring video" (section 2.4): pretrained I3D on a repeated frame is
    GoogLeNet on that frame.

    It holds away from the clip's ends, where padding is zeros; so the ends are repeated here before
    each convolution.
    """
    file = tmp_path / "googlenet.pth"
    torch.save(googlenet.state_dict(), file)
    model = I3D().eval()
    assert model.pretrained(file) == f"{file}, inflated"
    monkeypatch.setattr(googlenet, "fc", nn.Linear(1024, 1))
    model.fc.load_state_dict(googlenet.fc.state_dict())
    for m in model.modules():
        if isinstance(m, nn.Conv3d):
            k = m.kernel_size[0]
            m.padding = (0, *m.padding[1:])
            m.register_forward_pre_hook(
                lambda m, x, k=k: (F.pad(x[0], (0, 0, 0, 0, k // 2, k // 2), mode="replicate"),)
            )
    frame = clips(1, 1, 1, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            model(frame.expand(-1, -1, 16, -1, -1, -1)),
            googlenet(frame[0, 0])[:, 0],
            rtol=1e-4,
            atol=1e-4,
        )


def test_inflation_repeats_and_divides():
    model = I3D(**SMALL)
    flat = torch.randn(8, 8, 1, 1), torch.randn(24, 8, 3, 3)
    result = inflated(
        model,
        {
            "conv2.conv.weight": flat[0],
            "conv3.conv.weight": flat[1],
            "conv3.bn.bias": torch.ones(24),
        },
    )
    torch.testing.assert_close(result["conv2.conv.weight"], flat[0][:, :, None])
    for i in range(3):
        torch.testing.assert_close(result["conv3.conv.weight"][:, :, i], flat[1] / 3)
    assert result["conv3.bn.bias"].shape == (24,)


def test_i3d_refuses_other_weights(googlenet, tmp_path):
    torch.save(googlenet.state_dict(), tmp_path / "googlenet.pth")
    with pytest.raises(RunError, match="these are not the weights of I3D.*full size"):
        small(I3D).pretrained(tmp_path / "googlenet.pth")


def test_i3d_halves_time_where_figure_3_does():
    with torch.device("meta"):
        model, x, seen = I3D(), torch.empty(1, 1, 16, 3, 224, 224), {}
        for name, m in model.named_children():
            m.register_forward_hook(
                lambda m, i, out, name=name: seen.update({name: tuple(out.shape[1:])})
            )
        model.clip_logits(x[0])
    assert seen["conv1"] == (64, 8, 112, 112) and seen["conv3"] == (192, 8, 56, 56)
    assert (
        seen["inception3b"] == (480, 8, 28, 28)
        and seen["inception4e"] == (832, 4, 14, 14)
        and seen["inception5b"] == (1024, 2, 7, 7)
    )


def test_i3ds_module_is_four_branches_side_by_side():
    torch.manual_seed(0)
    module = settle(I3D(**SMALL).inception3a).double().eval()
    x, w = torch.randn(1, 24, 3, 4, 4, dtype=torch.double), module.state_dict()

    def unit(x, name):
        k = w[f"{name}.conv.weight"]
        half, out = k.shape[2] // 2, torch.zeros(1, k.shape[0], 3, 4, 4, dtype=torch.double)
        padded = F.pad(x, (half,) * 6)
        for dt in range(k.shape[2]):  # the convolution tap by tap
            for dy in range(k.shape[2]):
                for dx in range(k.shape[2]):
                    out += torch.einsum(
                        "nctyx,oc->notyx",
                        padded[:, :, dt : dt + 3, dy : dy + 4, dx : dx + 4],
                        k[:, :, dt, dy, dx],
                    )
        mean, var, gain, shift = (
            w[f"{name}.bn.{key}"][:, None, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((out - mean) / (var + 1e-3).sqrt() * gain + shift).clamp(min=0)

    neighbours = F.pad(x, (1,) * 6, value=-torch.inf)
    pooled = torch.stack(
        [
            neighbours[:, :, t : t + 3, y : y + 4, z : z + 4]
            for t in range(3)
            for y in range(3)
            for z in range(3)
        ]
    ).amax(0)
    second, third = (
        unit(unit(x, f"{branch}.0"), f"{branch}.1") for branch in ("branch2", "branch3")
    )
    torch.testing.assert_close(
        module(x), torch.cat([unit(x, "branch1"), second, third, unit(pooled, "branch4.1")], 1)
    )
