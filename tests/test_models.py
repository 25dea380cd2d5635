"""DIL and the frame baseline as wholes: the contract of build(), what each may and may not see,
and what each switch changes.
"""

import pytest
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dfil import models
from dfil.models.baselines.capsule import Routing
from dfil.models.inter_sim import InterSIM
from dfil.models.intra_sim import IntraSIM
from dfil.models.resnet import ResNet
from dfil.models.weights import load_backbone
from dfil.system.errors import RunError

SMALL = {"depth": (2, 2, 2, 2), "width": 8, "stem": "small"}


def clips(b=2, u=3, t=4, size=32, seed=0):
    return torch.randn(b, u, t, 3, size, size, generator=torch.Generator().manual_seed(seed))


def looked_at(name, b=2):
    """Clips of the shape that a method samples in training."""
    how = models.sampling(name)
    return clips(b) if how is None else clips(b, how.train, how.frames)


def small(name="dil", **switches):
    torch.manual_seed(0)
    own = models.sampling(name)
    model = models.build(name, **SMALL | ({"frames": own.frames} if own else {}) | switches).eval()
    if name == "dil":  # Conv_U starts as the identity: let the snippets see each other
        for m in model.modules():
            if isinstance(m, InterSIM):
                nn.init.normal_(m.taps_u)
    return model


@pytest.mark.parametrize("name", models.available())
def test_contract(name):
    model, x = small(name).train(), looked_at(name)
    logits = model(x)
    assert logits.shape == (2,)
    loss = model.loss(x, torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.ndim == 0
    for key, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), key
    with pytest.raises(ValueError, match="B, U, T, 3, H, W"):
        model(x[0])


class AsksTheHost(TorchDispatchMode):
    """Notes operations that bring numbers to a GPU or wait for it: they cannot be recorded."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").split(".")[0]
        places = args[1] if name.startswith("index") and isinstance(args[1], list) else []
        masked = any(place is not None and place.dtype == torch.bool for place in places)
        if masked or name in ("lift_fresh", "_local_scalar_dense", "nonzero", "masked_select"):
            self.found.add(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [n for n in models.available() if not models.is_fitted(n)])
def test_a_step_does_not_ask_the_host(name):
    model, x = small(name).train(), looked_at(name)
    y = torch.tensor([0.0, 1.0])
    with AsksTheHost() as asks:
        model.loss(x, y).backward()
    assert not asks.found


def test_what_asks_the_host_is_noticed():
    x = torch.randn(3)
    with AsksTheHost() as asks:
        x[x > 0].sum().item()
        x.new_tensor([1.0])
    assert asks.found == {"index", "_local_scalar_dense", "lift_fresh"}


def test_build_names_what_it_does_not_know():
    with pytest.raises(ValueError, match="resnet50, .*dil"):
        models.build("dill")
    with pytest.raises(ValueError, match="gama"):
        models.build("dil", gama=2)
    for bad in ({"alternate": "x"}, {"single": "x"}, {"stages": (0,)}, {"stem": "x"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            models.build("dil", **bad)
    with pytest.raises(ValueError, match="T = 4"):
        small()(clips(t=5))


def test_resnet_is_torchvisions_and_takes_its_weights():
    theirs = torchvision.models.resnet50(weights=None, num_classes=1000).eval()
    ours = models.build("resnet50").backbone.eval()
    load_backbone(ours, theirs.state_dict(), "made up")
    ours.fc, theirs.fc = nn.Linear(2048, 1), nn.Linear(2048, 1)
    ours.fc.load_state_dict(theirs.fc.state_dict())
    x = clips(1, 1, 2, 64).flatten(0, 2)
    torch.testing.assert_close(ours(x), theirs(x).squeeze(1), rtol=1e-4, atol=1e-4)


def test_wrong_backbone_weights_are_refused():
    state = torchvision.models.resnet50(weights=None).state_dict()
    with pytest.raises(RunError, match="file.pth: these are not the weights"):
        load_backbone(ResNet(**SMALL), state, "file.pth")
    del state["layer3.2.conv2.weight"]
    with pytest.raises(RunError, match=r"layer3\.2\.conv2\.weight"):
        load_backbone(models.build("dil").backbone, state, "file.pth")


def kinds(model):
    letter = {(True, False): "A", (False, True): "E", (False, False): "-", (True, True): "*"}
    text = "".join(
        letter[b.intra is not None, b.inter is not None] for _, b in model.backbone.blocks()
    )
    lengths, out = [len(s) for s in model.backbone.stages()], []
    for n in lengths:
        out.append(text[:n])
        text = text[n:]
    return " ".join(out)


@pytest.mark.parametrize(
    "switches,expected",
    [
        ({}, "AEA AEAE AEAEAE AEA"),  # 9 Intra-SI and 7 Inter-SI blocks
        ({"alternate": "network"}, "AEA EAEA EAEAEA EAE"),  # 8 and 8
        ({"inter": False}, "A-A A-A- A-A-A- A-A"),
        ({"intra": False}, "-E- -E-E -E-E-E -E-"),
        ({"inter": False, "single": "every"}, "AAA AAAA AAAAAA AAA"),
        ({"intra": False, "single": "every"}, "EEE EEEE EEEEEE EEE"),
        ({"intra": False, "inter": False}, "--- ---- ------ ---"),
        ({"stages": (1, 2)}, "AEA AEAE ------ ---"),
        ({"stages": (2, 3, 4)}, "--- AEAE AEAEAE AEA"),
    ],
)
def test_where_the_modules_sit(switches, expected):
    model = models.build("dil", width=8, **switches)
    assert kinds(model) == expected


def test_switches_of_the_modules_reach_every_module_and_only_them():
    plain = models.build("dil", **SMALL)
    for switch, value in {"bp": False, "ca": False, "lk": False, "kernel_size": 5}.items():
        changed = models.build("dil", **SMALL | {switch: value})
        assert all(
            getattr(m, switch) == value for m in changed.modules() if isinstance(m, IntraSIM)
        )
        assert kinds(changed) == kinds(plain)
        mine = {k: v.shape for k, v in plain.state_dict().items() if ".intra." not in k}
        assert mine == {k: v.shape for k, v in changed.state_dict().items() if ".intra." not in k}
    full = models.build("dil", **SMALL | {"conv_u": "full"})
    differing = {k for k, v in full.state_dict().items() if v.shape != plain.state_dict()[k].shape}
    assert differing and all(k.endswith("inter.taps_u") for k in differing)
    hidden = models.build("dil", **SMALL | {"gamma": 3})
    assert {
        k.split(".intra.")[-1]
        for k, v in hidden.state_dict().items()
        if v.shape != plain.state_dict()[k].shape
    } == {"phi1.0.weight", "phi2.weight"}


@pytest.mark.parametrize(
    "switch", [{"bp": False}, {"kernel_bn": True}, {"reduction": 1}, {"min_channels": 1}]
)
def test_switches_change_the_score(switch):
    x = clips()  # in training mode, because a fresh batch normalisation is the identity outside it
    assert not torch.allclose(small().train()(x), small(**switch).train()(x))


def test_without_modules_dil_is_the_plain_resnet():
    torch.manual_seed(0)
    dil = models.build("dil", **SMALL, intra=False, inter=False).eval()
    frames = models.build("resnet50", **SMALL).eval()
    frames.load_state_dict(dil.state_dict())
    x = clips()
    torch.testing.assert_close(dil(x), frames.frame_logits(x).mean((1, 2)))
    torch.testing.assert_close(
        torch.sigmoid(frames(x)), torch.sigmoid(frames.frame_logits(x)).mean((1, 2))
    )


def test_four_snippets_weights_run_at_eight():
    model = small()
    assert model(clips(u=4)).shape == model(clips(u=8)).shape == (2,)


def test_dil_sees_the_order_of_frames_and_a_frame_model_does_not():
    x = clips()
    shuffled = x[:, :, [2, 0, 3, 1]]
    dil, frames = small(), small("resnet50")
    assert (dil(x) - dil(shuffled)).abs().max() > 1e-4
    torch.testing.assert_close(frames(x), frames(shuffled))


def test_dil_sees_the_order_of_snippets_only_through_inter_sim():
    x = clips()
    shuffled = x[:, [2, 0, 1]]
    assert (small()(x) - small()(shuffled)).abs().max() > 1e-4
    intra_only = small(inter=False)
    torch.testing.assert_close(intra_only(x), intra_only(shuffled))


@pytest.mark.parametrize("name", models.available())
def test_videos_of_a_batch_do_not_see_each_other(name):
    model, x = small(name), looked_at(name, b=3)
    torch.testing.assert_close(model(x).flip(0), model(x.flip(0)))
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


def test_explain_returns_what_the_figures_show():
    model, x = small(), clips()
    named = model.explain(x)
    torch.testing.assert_close(named["logits"], model(x))
    torch.testing.assert_close(named["frame_logits"].mean((1, 2)), named["logits"])
    assert (
        named["layer1.0/attention_h"].shape
        == named["layer1.0/attention_w"].shape
        == (2, 3, 4, 4, 16, 16)
    )
    assert named["layer1.0/kernel"].shape == (2, 3, 4, 3)
    assert named["layer1.1/ut_map"].shape == (2, 3, 4)
    assert named["layer4.1/f1"].shape == (2, 64, 3, 4)
    assert (
        sum(k.endswith("ut_map") for k in named) == 4
        and sum(k.endswith("attention_h") for k in named) == 4
    )
    assert small(lk=False, ca=False).explain(x)["layer1.0/kernel"].shape == (2, 3, 4, 3)


def test_channels_last_survives_the_modules():
    model = small().to(memory_format=torch.channels_last)
    seen = []
    for m in model.modules():
        if isinstance(m, IntraSIM | InterSIM):
            m.register_forward_hook(
                lambda m, inputs, out: seen.append(
                    out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    model(clips())
    assert seen and all(seen)


def test_parameters_of_the_full_model():
    """DIL adds about one percent to ResNet-50 (25.6 M with its 1000-class head, 23.5 M without)."""
    plain = sum(p.numel() for p in models.build("resnet50").parameters())
    dil = sum(p.numel() for p in models.build("dil").parameters())
    assert plain == 23_508_032 + 2049
    assert 1.0 < dil / plain < 1.03


@pytest.mark.parametrize("name", models.available())
def test_bfloat16_autocast_agrees_with_float32(name):
    """The GPU's precision, on a CPU: the same code, finite gradients, and activations that stay
    bfloat16 through the modules.
    """
    model, x, y = small(name).train(), looked_at(name), torch.tensor([0.0, 1.0])
    torch.manual_seed(0)  # C3D has dropout
    exact = model.loss(x, y)
    seen = []
    for m in model.modules():
        if isinstance(m, IntraSIM | InterSIM):
            m.register_forward_hook(lambda m, inputs, out: seen.append(out.dtype))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(x, y)
    loss.backward()
    assert abs(float(loss.detach() - exact.detach())) < 0.1
    if not any(
        isinstance(m, nn.Conv3d) for m in model.modules()
    ):  # torch's bfloat16 gradient of Conv3d on a CPU is not reliable
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(dtype == torch.bfloat16 for dtype in seen) and (seen or name != "dil")


@pytest.mark.parametrize("name", models.available())
def test_logits_are_never_bfloat16(name):
    model, x, seen = small(name).eval(), looked_at(name), []
    for m in model.modules():
        if isinstance(m, Routing) or (isinstance(m, nn.Linear) and m.out_features == 1):
            m.register_forward_hook(lambda m, inputs, out: seen.append(out.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(x)
    assert set(seen) <= {torch.float32, torch.float64}
    assert seen or name in ("doublernn", "co-motion-70")  # a distance; a vote of stumps


@pytest.mark.parametrize("name", models.available())
def test_checkpointing_changes_memory_only(name):
    """The same loss, gradients and running statistics, bit for bit, and fewer bytes kept for the
    backward pass.
    """
    x, y, results, kept = looked_at(name), torch.tensor([0.0, 1.0]), [], []
    if not isinstance(getattr(small(name), "backbone", None), ResNet):
        pytest.skip("no ResNet of the project's")
    for switch in (False, True):
        model, saved = small(name).train(), {}
        model.backbone.checkpoint = switch
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.setdefault((t.data_ptr(), t.shape), t), lambda t: t
        ):
            loss = model.loss(x, y)
        kept.append(sum(t.nbytes for t in saved.values()))
        loss.backward()
        results.append(
            {
                "loss": loss.detach(),
                **{k: p.grad for k, p in model.named_parameters()},
                **dict(model.named_buffers()),
            }
        )
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("snippets", [4, 8])
def test_compiles_into_one_graph(snippets):
    """torch.compile finds no place where it would have to fall back to Python, at the U of
    training and at that of testing.
    """
    torch.compiler.reset()
    model, x = (
        small(depth=(1, 1, 1, 1), alternate="network").double(),
        clips(1, snippets, size=16).double(),
    )
    with torch.no_grad():
        torch.testing.assert_close(
            torch.compile(model, backend="eager", fullgraph=True)(x), model(x)
        )
