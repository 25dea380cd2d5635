"""Intra-SIM and Inter-SIM against the equations, their gradients, and their switches."""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import reference as ref
import torch
from torch import nn
from torch.nn import functional as F

from dfil.models import fast
from dfil.models.difference import differences
from dfil.models.fast import as_rows, batch_norm, convolve, from_rows, moments, per_row, plain
from dfil.models.inter_sim import InterSIM
from dfil.models.intra_sim import IntraSIM

B, U, T, C, H, W = 2, 3, 4, 8, 5, 4


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random parameters and batch statistics, so that no term of an equation hides behind a zero
    or a one.
    """
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.copy_(torch.randn(m.num_features, generator=generator) * 0.3)
            m.running_var.copy_(torch.rand(m.num_features, generator=generator) + 0.5)
    return module.double().eval()


@pytest.fixture(params=["fast", "plain"])
def text(request):
    """Both texts of the modules, one after the other."""
    with plain() if request.param == "plain" else nullcontext():
        yield request.param


def features(seed: int = 1) -> torch.Tensor:
    return torch.randn(
        B * U * T, C, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def array(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().numpy()


def statistics(bn: nn.Module) -> tuple:
    return array(bn.weight), array(bn.bias), array(bn.running_mean), array(bn.running_var), bn.eps


def intra(**switches) -> IntraSIM:
    return randomise(IntraSIM(C, T, min_channels=2, **switches))


def inter(**switches) -> InterSIM:
    return randomise(InterSIM(C, T, min_channels=2, **switches))


def intra_reference(m: IntraSIM, x: torch.Tensor) -> dict[str, np.ndarray]:
    """All of Eq. 1-6, snippet by snippet."""
    kept = {}
    outputs = []
    for snippet in array(x).reshape(B * U, T, C, H, W):
        i1, i2 = snippet[:, : C // 2], snippet[:, C // 2 :]
        squeezed = ref.batch_norm(
            ref.pointwise(i2, array(m.squeeze[0].weight)[..., 0, 0], 1), statistics(m.squeeze[1]), 1
        )
        directions = ["forward", "backward"] if m.bp else ["forward"]
        d = [
            ref.equation_1(squeezed, array(m.neighbour.weight)[:, 0], direction)
            for direction in directions
        ]

        def recover(branch, maps):
            each = [
                ref.pointwise(one, array(branch[0].weight)[..., 0, 0], 1) for one in maps
            ]  # recovered, then averaged, as written
            return ref.sigmoid(ref.batch_norm(np.mean(each, 0), statistics(branch[1]), 1))

        if m.ca:
            h = recover(
                m.recover_h,
                [ref.equation_2(one, array(m.view_h.weight), statistics(m.view_h.bn)) for one in d],
            )
            w = recover(
                m.recover_w,
                [ref.equation_3(one, array(m.view_w.weight), statistics(m.view_w.bn)) for one in d],
            )
            attention = h * w
            kept.setdefault("attention_h", []).append(h)
            kept.setdefault("attention_w", []).append(w)
        else:
            attention = recover(m.recover, d)
            kept.setdefault("attention", []).append(attention)
        kernel = (
            ref.equation_4(i2, array(m.phi1[0].weight), array(m.phi2.weight))
            if m.lk
            else array(m.static_kernel)
        )
        kept.setdefault("kernel", []).append(kernel)
        outputs.append(np.concatenate([i1, ref.equation_5(kernel, attention, i2)], 1))  # Eq. 6
    kept = {
        name: np.concatenate(v) if "attention" in name else np.stack(v) for name, v in kept.items()
    }
    return kept | {"out": np.concatenate(outputs)}


def inter_reference(m: InterSIM, x: torch.Tensor) -> dict[str, np.ndarray]:
    """All of Eq. 7-11, video by video."""
    kept = {"f1": [], "f2": [], "out": []}
    for video in array(x).reshape(B, U, T, C, H, W):
        f = video.transpose(1, 2, 0, 3, 4)  # T, C, U, H, W
        pooled = f.mean((3, 4)).transpose(1, 2, 0)  # C, U, T
        conv, bn, recover = m.branch1
        f1 = ref.equation_7(
            pooled, array(conv.weight)[..., 0], statistics(bn), array(recover.weight)[..., 0, 0]
        )
        f2 = ref.equations_8_to_10(
            pooled,
            array(m.squeeze.weight)[..., 0, 0],
            array(m.within.weight)[:, :, 0],
            array(m.neighbour.weight)[:, 0, 0],
            array(m.recover.weight)[..., 0, 0],
        )
        kept["f1"].append(f1)
        kept["f2"].append(f2)
        kept["out"].append(
            ref.equation_11(f, f1 * f2, array(m.taps_u))
            .transpose(2, 0, 1, 3, 4)
            .reshape(U * T, C, H, W)
        )
    return {
        "f1": np.stack(kept["f1"]),
        "f2": np.stack(kept["f2"]),
        "out": np.concatenate(kept["out"]),
    }


def test_equation_1_forward_and_backward():
    m, x = intra(), features()
    i2 = x[:, C // 2 :]
    got = np.stack([array(d.transpose(1, 2)) for d in m.differences(i2)])
    squeezed = ref.batch_norm(
        ref.pointwise(array(i2), array(m.squeeze[0].weight)[..., 0, 0], 1),
        statistics(m.squeeze[1]),
        1,
    )
    for snippet in range(B * U):
        frames = squeezed.reshape(B * U, T, -1, H, W)[snippet]
        for k, direction in enumerate(["forward", "backward"]):
            np.testing.assert_allclose(
                got[k, snippet],
                ref.equation_1(frames, array(m.neighbour.weight)[:, 0], direction),
                atol=1e-12,
            )
    assert not got[0, :, -1].any() and not got[1, :, 0].any()


def test_equations_2_and_3_views():
    m, x = intra(), features()
    maps = m.attention(x[:, C // 2 :])
    expected = intra_reference(m, x)
    np.testing.assert_allclose(array(maps[0]), expected["attention_h"], atol=1e-12)
    np.testing.assert_allclose(array(maps[1]), expected["attention_w"], atol=1e-12)
    assert (
        abs(expected["attention_h"] - expected["attention_w"]).max() > 0.1
    )  # the two views are not one


def test_equation_4_kernels():
    m, x = intra(), features()
    got = array(m.kernels(x[:, C // 2 :]))
    np.testing.assert_allclose(got, intra_reference(m, x)["kernel"], atol=1e-12)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-12)
    assert (
        got.shape == (B * U, C // 2, 3) and got.std(0).max() > 1e-3
    )  # a kernel of its own per snippet


@pytest.mark.parametrize("bp,ca,lk", list(itertools.product([False, True], repeat=3)))
def test_equations_5_and_6_with_every_part_on_and_off(bp, ca, lk, text):
    m, x = intra(bp=bp, ca=ca, lk=lk), features()
    keep = {}
    got, expected = m(x), intra_reference(m, x)
    np.testing.assert_allclose(array(got), expected["out"], atol=1e-12)
    torch.testing.assert_close(m(x, keep), got)
    assert torch.equal(got[:, : C // 2], x[:, : C // 2])  # the short branch
    assert set(keep) == set(expected) - {"out"}
    for name, value in keep.items():
        wanted = expected[name]
        if name == "kernel" and not m.lk:  # the static one is one for all snippets
            wanted = wanted[:1]
        np.testing.assert_allclose(array(value).reshape(wanted.shape), wanted, atol=1e-12)


def test_single_precision_is_within_1e_5_of_the_equations(text):
    x = features()
    for make, expected, call in (
        (intra, intra_reference, lambda m, x: m(x)),
        (inter, inter_reference, lambda m, x: m(x, U)),
    ):
        np.testing.assert_allclose(
            array(call(make().float(), x.float())), expected(make(), x)["out"], atol=1e-5, rtol=1e-5
        )


def test_kernel_of_five_taps(text):
    m, x = intra(kernel_size=5), features()
    np.testing.assert_allclose(array(m(x)), intra_reference(m, x)["out"], atol=1e-12)


def test_equations_7_to_10():
    m, x = inter(), features()
    keep = {}
    m(x, U, keep)
    expected = inter_reference(m, x)
    np.testing.assert_allclose(array(keep["f1"]), expected["f1"], atol=1e-12)
    np.testing.assert_allclose(array(keep["f2"]), expected["f2"], atol=1e-12)
    np.testing.assert_allclose(
        array(keep["ut_map"]), (expected["f1"] * expected["f2"]).mean(1), atol=1e-12
    )


def test_unaligned_directions_would_cancel():
    """Why the directions are kept at the snippet they belong to: Eq. 8 and 9 summed at one index
    depend on F_u + F_{u+1} only.
    """
    m = inter()
    pooled = torch.randn(1, C, 2, T, dtype=torch.float64)
    swapped = pooled.flip(2)
    assert not torch.allclose(m.attention(pooled)[1], m.attention(swapped)[1])


@pytest.mark.parametrize("conv_u", ["depthwise", "full"])
def test_equation_11(conv_u, text):
    m, x = inter(conv_u=conv_u), features()
    np.testing.assert_allclose(array(m(x, U)), inter_reference(m, x)["out"], atol=1e-12)


@pytest.mark.parametrize("conv_u", ["depthwise", "full"])
def test_conv_u_starts_as_the_identity(conv_u, text):
    m, x = InterSIM(C, T, conv_u=conv_u).double().eval(), features()
    pooled = x.mean((2, 3)).unflatten(0, (B, U, T)).permute(0, 3, 1, 2)
    f1, f2 = m.attention(pooled)
    weight = (1 + f1 * f2).permute(0, 2, 3, 1).reshape(-1, C, 1, 1)
    torch.testing.assert_close(m(x, U), weight * x)


@pytest.mark.parametrize(
    "module", [intra(), intra(bp=False, ca=False, lk=False), intra(kernel_bn=True)]
)
def test_gradients_of_intra_sim(module, text):
    x = features()[: 2 * T, :, :3, :3].clone().requires_grad_()
    parameters = tuple(module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *parameters))


@pytest.mark.parametrize("conv_u", ["depthwise", "full"])
def test_gradients_of_inter_sim(conv_u, text):
    module = inter(conv_u=conv_u)
    x = features()[: 2 * T, :, :3, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: module(x, 2), (x, *module.parameters()))


def test_gradients_in_training_mode(text):
    """Batch statistics in the graph, as in training."""
    for module, call in (
        (intra().train(), lambda m, x: m(x)),
        (inter().train(), lambda m, x: m(x, 2)),
    ):
        x = features()[: 2 * T, :, :3, :3].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, m=module, call=call: call(m, x), (x,), atol=1e-4)


@pytest.mark.parametrize("taps,length", [(1, 4), (3, 4), (3, 1), (5, 2), (7, 3)])
@pytest.mark.parametrize("per_position", [False, True])
def test_convolve(taps, length, per_position, text):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, length, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    kernel = torch.randn(
        taps,
        2,
        length if per_position else 1,
        3,
        1,
        dtype=torch.float64,
        generator=generator,
        requires_grad=True,
    )
    out = convolve(x, kernel)
    for g, i, c, p in np.ndindex(*x.shape):
        expected = 0.0
        for j in range(taps):
            if 0 <= i + j - taps // 2 < length:
                expected += (
                    kernel[j, g, i if per_position else 0, c, 0] * x[g, i + j - taps // 2, c, p]
                )
        assert abs(float((out[g, i, c, p] - expected).detach())) < 1e-12
    assert torch.autograd.gradcheck(convolve, (x, kernel))


@pytest.mark.parametrize("make,call", [(intra, lambda m, x: m(x)), (inter, lambda m, x: m(x, U))])
def test_compiled_training_is_the_same_training(make, call):
    """One graph forwards and backwards, the same numbers, gradients and running statistics."""
    torch.compiler.reset()
    results = []
    for compiled in (False, True):
        m, x = make().train(), features().requires_grad_()
        out = (torch.compile(call, backend="aot_eager", fullgraph=True) if compiled else call)(m, x)
        (out * features(3)).sum().backward()
        results.append(
            {
                "out": out,
                "x": x.grad,
                **{k: p.grad for k, p in m.named_parameters()},
                **dict(m.named_buffers()),
            }
        )
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], msg=key)


@pytest.mark.parametrize("channels,size", [(4, 8), (3, 5), (8, 1), (16, 6), (32, 4)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_batch_norm_is_torchs(channels, size, layout):
    """The narrow path and the usual one: outputs, gradients and running statistics, over two
    steps and in evaluation.
    """
    x = (
        torch.randn(
            6, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
        )
        * 2
        + 5
    ).contiguous(memory_format=layout)
    results = []
    for function in (lambda bn, x, residual=0: bn(x) + residual, batch_norm):
        bn, own = randomise(nn.BatchNorm2d(channels)).train(), x.clone().requires_grad_()
        outs = [function(bn, own), function(bn, own * 2, own)]
        bn.momentum = None  # the mean over all batches, as torch.optim.swa_utils.update_bn takes it
        outs.append(function(bn, own * 4))
        outs += [function(bn.eval(), own), function(bn, own, own * 3)]
        sum((out**3).sum() for out in outs).backward()
        results.append([*outs, own.grad, bn.weight.grad, bn.bias.grad, *bn.buffers()])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours)


@pytest.mark.parametrize("channels_in,channels_out", [(4, 4), (2, 8), (3, 24)])
def test_pointwise_norm_is_convolution_then_batch_norm(channels_in, channels_out):
    x = (
        torch.randn(
            5, channels_in, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
        )
        + 3
    )
    mix = torch.linspace(-1, 2, channels_in**2, dtype=torch.float64).reshape(
        channels_in, channels_in
    )
    x = torch.einsum("nchw,dc->ndhw", x, mix)  # channels that depend on each other
    results = []
    for function in (lambda m, x: m(x), fast._pointwise_norm):
        conv = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        m = randomise(nn.Sequential(conv, nn.BatchNorm2d(channels_out))).train()
        own = x.clone().requires_grad_()
        outs = [function(m, own), function(m, own * 2)]
        outs.append(function(m.eval(), own))
        sum((out**3).sum() for out in outs).backward()
        results.append([*outs, own.grad, *(p.grad for p in m.parameters()), *m.buffers()])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours)


def test_moments():
    x = features().requires_grad_()
    mean, covariance = moments(x)
    values = array(x).transpose(1, 0, 2, 3).reshape(C, -1)
    np.testing.assert_allclose(array(mean), values.mean(1), atol=1e-12)
    np.testing.assert_allclose(array(covariance), np.cov(values, bias=True), atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: moments(x), x[:3, :3].detach().requires_grad_())
    assert moments(x.bfloat16())[1].dtype == torch.float32


@pytest.mark.parametrize("frames", [1, 2, 4, 5])
def test_mean_difference_is_the_mean_of_the_two_directions(frames):
    generator = torch.Generator().manual_seed(6)
    f, g = (
        torch.randn(2, frames, 3, 2, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(2)
    )
    mean_difference, forward = fast._MeanDifference.apply, differences(f, g, 1)[0]
    torch.testing.assert_close(mean_difference(f, g), sum(differences(f, g, 1)) / 2)
    torch.testing.assert_close(fast.difference_to_next(f, g), forward)
    assert torch.autograd.gradcheck(mean_difference, (f, g))
    assert torch.autograd.gradcheck(lambda f, g: differences(f, g, 1), (f, g))


@pytest.mark.parametrize("kernel,padding", [((3, 3, 1), (1, 1, 0)), ((3, 1, 3), (1, 0, 1))])
def test_the_gradients_of_a_plane_convolution_as_a_gpu_takes_them(kernel, padding):
    generator = torch.Generator().manual_seed(6)
    x, weight, grad = (
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in [(3, 2, 4, 5, 6), (7, 2, *kernel), (3, 7, 4, 5, 6)]
    )
    expected, found = F.conv3d(x, weight, padding=padding), fast._Conv3d.apply(x, weight, padding)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y, (x, weight), grad) for y in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("channels,h,w", [(4, 8, 8), (8, 7, 7), (3, 6, 2), (64, 4, 4)])
def test_rows_hold_what_the_channels_hold(channels, h, w):
    x = torch.randn(2, channels, h, w).contiguous(memory_format=torch.channels_last)
    rows = as_rows(x)
    assert rows.data_ptr() == x.data_ptr() and rows.shape[-1] <= max(128, channels)
    assert torch.equal(from_rows(rows, x), x)
    scale = torch.arange(channels) + 1.0
    assert torch.equal(from_rows(rows * per_row(scale, rows), x), x * scale[:, None, None])


@pytest.mark.parametrize("maps", [1, 2])
def test_weigh_and_aggregate(maps):
    generator = torch.Generator().manual_seed(7)
    x, kernel, *logits = (
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in [(2, 4, 3, 2), (3, 2, 1, 1, 2), *[(2, 4, 3, 2)] * maps]
    )
    expected = convolve(torch.stack([torch.sigmoid(z) for z in logits]).prod(0) * x + x, kernel)
    weigh_and_aggregate, second = fast._WeighAndAggregate.apply, [None] * (2 - maps)
    torch.testing.assert_close(weigh_and_aggregate(x, kernel, *logits, *second), expected)
    assert torch.autograd.gradcheck(weigh_and_aggregate, (x, kernel, *logits, *second))


SWITCHES = [
    *[(IntraSIM, switches) for switches in (
        {}, {"bp": False}, {"ca": False}, {"lk": False}, {"kernel_size": 5}, {"kernel_bn": True},
        {"bp": False, "ca": False, "lk": False},
    )],
    (InterSIM, {}), (InterSIM, {"conv_u": "full"}),
]  # fmt: skip


@pytest.mark.parametrize("module,switches", SWITCHES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", [(H, W), (1, 1)])
def test_the_fast_text_is_the_plain_one(module, switches, training, side):
    """Outputs, gradients and running statistics, in training, evaluation and scoring."""
    found = []
    for text in (plain, nullcontext):
        m = randomise(module(16, T, min_channels=2, **switches)).train(training)
        x = torch.randn(B * U * T, 16, *side, generator=torch.Generator().manual_seed(1)).double()
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        call = (lambda x, m=m: m(x, U)) if module is InterSIM else m
        with text():
            out = call(x)
            (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
            m.eval()
            with torch.no_grad():
                scored = call(x)
        gradients = {name: p.grad for name, p in m.named_parameters()}
        found.append(
            {"out": out, "scored": scored, "x": x.grad, **gradients, **dict(m.named_buffers())}
        )
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


@pytest.mark.parametrize("make, call", [(intra, ()), (inter, (U,))])
def test_gradients_keep_the_memory_order_of_the_activations(make, call):
    # In the other order all that comes before in the network reads them slowly.
    m = make().train()
    x = features().contiguous(memory_format=torch.channels_last).requires_grad_()
    into = []
    doubled = x * 2
    doubled.register_hook(into.append)
    m(doubled, *call).square().sum().backward()
    assert into[0].is_contiguous(memory_format=torch.channels_last)


def test_plain_ends_with_its_block_also_after_an_error():
    with pytest.raises(ZeroDivisionError), plain():
        assert not fast._switched_on
        1 / 0  # noqa: B018
    assert fast._switched_on


@pytest.mark.parametrize("cached", [1, 2**18])  # a snippet at a time, all of them at once
@pytest.mark.parametrize(
    "switches",
    [{}, {"bp": False}, {"ca": False}, {"lk": False}, {"kernel_size": 5}, {"kernel_bn": True}],
)
def test_scoring_writes_equation_6_over_its_input(switches, cached, monkeypatch):
    monkeypatch.setattr("dfil.models.fast._CACHED", cached)
    m, x = intra(**switches), features().contiguous(memory_format=torch.channels_last)
    given = x.clone()
    with torch.no_grad():
        expected = m(x)
        assert torch.equal(x, given)  # unless it may, nothing is written over
        out = m(x, overwrite=True)
    assert out.data_ptr() == x.data_ptr() and torch.equal(x[:, : C // 2], given[:, : C // 2])
    torch.testing.assert_close(out, expected)
    if "kernel_bn" not in switches:  # which intra_reference knows nothing of
        np.testing.assert_allclose(array(out), intra_reference(m, given)["out"], atol=1e-12)


def test_nothing_is_written_over_where_it_is_needed_or_would_be_lost():
    m, x = intra(), features().contiguous(memory_format=torch.channels_last)
    given, expected = x.clone(), intra_reference(m, x)["out"]
    with torch.no_grad():
        np.testing.assert_allclose(array(m(x.contiguous(), overwrite=True)), expected, atol=1e-12)
        m(x, {}, overwrite=True)
        m.train()(x, overwrite=True)
    randomise(m)(x.requires_grad_(), overwrite=True).sum().backward()
    assert torch.equal(x, given)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="even"):
        IntraSIM(7, T)
    with pytest.raises(ValueError, match="odd kernel_size"):
        IntraSIM(8, T, kernel_size=4)
    with pytest.raises(ValueError, match="conv_u"):
        InterSIM(8, T, conv_u="none")
    with pytest.raises(ValueError, match="odd kernel"):
        convolve(torch.zeros(1, 2), torch.zeros(2, 1, 1))
