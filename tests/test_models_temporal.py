"""TEI, DSANet, V4D and ADDNet-3D: their modules against loops over the equations, what each
sees, and how large each is.
"""

import numpy as np
import pytest
import torch
from reference import at, batch_norm, sigmoid
from safetensors.torch import save_file

from dfil.models.baselines.addnet_3d import ADDNet3D, Attention, face_mask, hull_mask
from dfil.models.baselines.dsanet import DSA, DSANet
from dfil.models.baselines.frame_resnet import FrameResNet
from dfil.models.baselines.inflated import TemporalConv
from dfil.models.baselines.tei import MEM, TEI, TIM, TEINet
from dfil.models.baselines.v4d import V4D, Residual4D
from dfil.models.weights import load_backbone, load_imagenet
from dfil.system.errors import RunError

SMALL = {"depth": (2, 2, 2, 2), "width": 8, "stem": "small"}
METHODS = [TEINet, DSANet, V4D, ADDNet3D]


def clips(method, b=2, u=None, size=32, seed=0):
    s = method.sampling
    return torch.randn(
        b,
        u or (8 if s.frames == 1 else s.train),
        s.frames,
        3,
        size,
        size,
        generator=torch.Generator().manual_seed(seed),
    )


def small(method, **switches):
    torch.manual_seed(0)
    return method(**SMALL | {"frames": method.sampling.frames} | switches).eval()


def loud(model):
    """V4D's 4-D blocks start as the identity; here their scale is one, as it may become."""
    for name, p in model.named_parameters():
        if name.endswith("residual4d.bn.weight"):
            torch.nn.init.ones_(p)
    return model


def random(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shaken(module, seed=2):
    """`module` in float64 with random parameters and running statistics, so that nothing hides
    behind an initialisation.
    """
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, dtype=p.dtype, generator=generator) * 0.5)
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(
                    torch.rand(buffer.shape, dtype=buffer.dtype, generator=generator) + 0.5
                )
    return module


def array(tensor):
    return tensor.detach().numpy()


@pytest.mark.parametrize("method", METHODS)
def test_contract(method):
    model, x = small(method).train(), clips(method)
    logits = model(x)
    assert logits.shape == (2,)
    loss = model.loss(x, torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.ndim == 0
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name
    with pytest.raises(ValueError, match="B, U, T, 3, H, W"):
        model(x[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("depth", [(2, 1, 1, 1), (1, 2, 2, 1)])
def test_other_depths_and_the_imagenet_stem(method, depth):
    model = method(depth=depth, width=8, stem="imagenet", frames=method.sampling.frames).eval()
    assert model(clips(method)).shape == (2,)


@pytest.mark.parametrize("method", METHODS)
def test_videos_of_a_batch_do_not_see_each_other(method):
    model, x = small(method), clips(method, b=3)
    torch.testing.assert_close(model(x).flip(0), model(x.flip(0)))
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


@pytest.mark.parametrize("method", METHODS)
def test_more_snippets_in_testing_than_in_training(method):
    model = small(method)
    assert (
        model(clips(method, u=method.sampling.test)).shape
        == model(clips(method, u=method.sampling.train)).shape
        == (2,)
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_snippets_and_of_frames_matters(method):
    model, x = loud(small(method)), clips(method)
    before, order = model(x), torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(3))
    assert (before - model(x[:, order])).abs().max() > 1e-5
    if x.shape[2] > 1:
        assert (before - model(x[:, :, [2, 0, 3, 1]])).abs().max() > 1e-5


@pytest.mark.parametrize("method", [DSANet, V4D])
def test_snippets_see_each_other_only_through_the_methods_own_module(method):
    model, x = small(method), clips(method)
    for block in (b for _, b in model.backbone.blocks()):
        block.inter = block.residual4d = None
    torch.testing.assert_close(model(x), model(x[:, [2, 0, 3, 1]]))
    assert (
        model(x) - model(x[:, :, [2, 0, 3, 1]])
    ).abs().max() > 1e-5  # the inflated stages see the frames of one snippet


@pytest.mark.parametrize("method", [DSANet, V4D])
def test_snippets_of_another_length_are_refused(method):
    with pytest.raises(ValueError, match="T = 4"):
        small(method)(clips(method)[:, :, :3])


def millions(method, **switches):
    with torch.device("meta"):
        return sum(p.numel() for p in method(**switches).parameters()) / 1e6


HEAD_OF_400 = (2048 * 400 + 400 - 2049) / 1e6


def test_teinet_has_the_published_number_of_parameters():
    published = TEINet.about.parameters
    assert abs(millions(TEINet) - published) / published < 0.05
    assert (
        round(millions(TEINet) + HEAD_OF_400, 1) == published
    )  # exactly, with the head it was counted with


def test_the_inflated_backbone_has_the_slow_pathways_number_of_parameters():
    """32.4 million with the 400-class head, counted for the slow pathway with ResNet-50; V4D adds
    kernels of C x C x 3 x 3 with scale and shift: two of 512 channels, three of 1024."""
    plain = millions(V4D, stages=())
    assert abs(plain + HEAD_OF_400 - 32.4) < 0.1
    kernels = sum(n * (c * c * 9 + 2 * c) for n, c in ((2, 512), (3, 1024)))
    assert millions(V4D) - plain == pytest.approx(kernels / 1e6)
    as_published = millions(V4D, stages=(2,), norm=False)
    assert as_published - plain == pytest.approx(2 * 512 * 512 * 9 / 1e6)
    assert millions(DSANet) - plain < 0.001  # DSA's claim: next to nothing


# TEI


def mem_reference(m, pooled_sc):
    weight = np.ones_like(pooled_sc)
    (w1, b1), (w2, b2), (w3, b3) = (
        (array(c.weight), array(c.bias)) for c in (m.conv1, m.conv2, m.conv3)
    )
    for t in range(len(pooled_sc) - 1):
        difference = (w1 @ pooled_sc[t] + b1) - (w2 @ pooled_sc[t + 1] + b2)
        weight[t] = sigmoid(w3 @ difference + b3)
    return weight


def test_tei_against_loops():
    m, x = shaken(TEI(8)), random(2 * 5, 8, 3, 2)
    out, taps = array(m(x, 5)).reshape(2, 5, 8, 3, 2), array(m.tim.taps)
    for video, found in zip(array(x).reshape(2, 5, 8, 3, 2), out, strict=True):
        weight = mem_reference(m.mem, video.mean((2, 3)))
        weighed = video * weight[:, :, None, None]
        for t, c, h, w in np.ndindex(video.shape):
            expected = sum(taps[j, c] * at(weighed, t + j - 1, c, h, w) for j in range(3))
            assert abs(found[t, c, h, w] - expected) < 1e-12


def test_mem_leaves_the_last_frame_and_sees_only_differences():
    m, pooled = shaken(MEM(8)), random(1, 5, 8)
    weight = m(pooled)
    assert (weight[:, -1] == 1).all() and ((weight[:, :-1] > 0) & (weight[:, :-1] < 1)).all()
    with torch.no_grad():
        m.conv2.weight.copy_(m.conv1.weight)
    torch.testing.assert_close(
        m(pooled), m(pooled + random(1, 1, 8, seed=5))
    )  # with equal convolutions a constant offset cancels


def test_teis_sigmoid_may_come_before_the_last_convolution():
    m, pooled = shaken(MEM(8, sigmoid="first")), random(1, 5, 8)
    difference = m.conv1(pooled[:, :-1]) - m.conv2(pooled[:, 1:])
    torch.testing.assert_close(m(pooled)[:, :-1], m.conv3(torch.sigmoid(difference)))
    model, other = small(TEINet), small(TEINet, sigmoid="first")
    assert (model(clips(TEINet)) - other(clips(TEINet))).abs().max() > 1e-5
    with pytest.raises(ValueError, match="sigmoid is"):
        TEINet(sigmoid="none", depth=(1, 1, 1, 1), width=8)


def test_tim_starts_as_the_shift():
    x = random(1, 4, 16, 1, 1)
    out = TIM(16).double()(x)
    zero = torch.zeros_like(x[:, :1])
    torch.testing.assert_close(out[:, :, :2], torch.cat([x[:, 1:], zero], 1)[:, :, :2])
    torch.testing.assert_close(out[:, :, 2:4], torch.cat([zero, x[:, :-1]], 1)[:, :, 2:4])
    torch.testing.assert_close(out[:, :, 4:], x[:, :, 4:])


def test_teinet_takes_a_video_as_one_sequence():
    model, x = small(TEINet), clips(TEINet)
    torch.testing.assert_close(model(x), model(x.reshape(2, 2, 4, *x.shape[3:])))


def test_gradients_of_tei():
    m, x = shaken(TEI(8)), random(4, 8, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: m(x, 4), (x, *m.parameters()))


# DSANet


def dsa_reference(m, video_utchw):
    """One group of U snippets: the channels one after the other."""
    w1, bn, w2 = array(m.generate[0].weight), m.generate[1], array(m.generate[3].weight)
    norm = (*map(array, (bn.weight, bn.bias, bn.running_mean, bn.running_var)), bn.eps)
    out = video_utchw.copy()
    for c in range(m.mixed):
        z = video_utchw[:, :, c].mean((1, 2, 3))  # U
        hidden = np.maximum(batch_norm(w1 @ z, norm, 0), 0)
        kernel = np.exp(w2 @ hidden) / np.exp(w2 @ hidden).sum()
        for u, t, h, w in np.ndindex(video_utchw[:, :, c].shape):
            out[u, t, c, h, w] = sum(
                kernel[j] * at(video_utchw, u + j - 1, t, c, h, w) for j in range(3)
            )
    return out


@pytest.mark.parametrize("snippets", [4, 8])
def test_dsa_against_loops(snippets):
    m, x = shaken(DSA(8, frames=2, split=1 / 4)), random(2 * snippets * 2, 8, 3, 2)
    keep = {}
    out = array(m(x, snippets, keep)).reshape(-1, 4, 2, 8, 3, 2)
    for group, found in zip(array(x).reshape(-1, 4, 2, 8, 3, 2), out, strict=True):
        np.testing.assert_allclose(found, dsa_reference(m, group), atol=1e-12)
    assert keep["kernel"].shape == (2 * snippets // 4, 2, 3)
    torch.testing.assert_close(keep["kernel"].sum(-1), torch.ones_like(keep["kernel"][..., 0]))


def test_gradients_of_dsa():
    m, x = shaken(DSA(8, frames=2, split=1 / 4)), random(8, 8, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: m(x, 4), (x, *m.parameters()))


def test_dsanet_puts_its_modules_where_the_source_does():
    with torch.device("meta"):
        blocks = DSANet().backbone.blocks()
    assert [n for n, b in blocks if b.inter is not None] == [
        "layer2.1",
        "layer2.3",
        "layer3.1",
        "layer3.3",
        "layer3.5",
    ]
    assert {n.split(".")[0] for n, b in blocks if isinstance(b.conv1, TemporalConv)} == {
        "layer3",
        "layer4",
    }


def test_dsanet_averages_groups_of_snippets_and_refuses_a_part_of_one():
    model, x = small(DSANet), clips(DSANet, u=8)
    torch.testing.assert_close(model(x), (model(x[:, :4]) + model(x[:, 4:])) / 2)
    with pytest.raises(ValueError, match="U = 6"):
        model(x[:, :6])


# V4D and the inflated backbone


@pytest.mark.parametrize("norm", [True, False])
def test_the_4d_block_against_loops(norm):
    m, x = shaken(Residual4D(3, frames=2, norm=norm)), random(2 * 3 * 2, 3, 2, 2)
    weight = array(m.conv.weight)[..., 0]  # out, in, U, T
    out = array(m(x, 3)).reshape(2, 3, 2, 3, 2, 2)
    for video, found in zip(array(x).reshape(2, 3, 2, 3, 2, 2), out, strict=True):
        moved = np.zeros_like(video)
        for u, t, o, h, w in np.ndindex(video.shape):
            for c, i, j in np.ndindex(weight.shape[1:]):
                moved[u, t, o, h, w] += weight[o, c, i, j] * at(
                    video, u + i - 1, t + j - 1, c, h, w
                )
        if norm:
            parts = (m.bn.weight, m.bn.bias, m.bn.running_mean, m.bn.running_var)
            moved = np.maximum(batch_norm(moved, (*map(array, parts), m.bn.eps), 2), 0)
        np.testing.assert_allclose(found, video + moved, atol=1e-12)


def test_v4d_starts_as_its_3d_network_and_can_leave_it():
    """The 4-D part is nearly nothing at first, in training and in evaluation, and it learns."""
    model, x = small(V4D), clips(V4D)
    plain = small(V4D, stages=())
    plain.load_state_dict(model.state_dict(), strict=False)
    for mode in (True, False):
        ours, theirs = model.train(mode)(x), plain.train(mode)(x)
        assert (ours - theirs).abs().max() < 0.02 * theirs.abs().max()
        assert not torch.equal(ours, theirs)
    model.train().loss(x, torch.tensor([0.0, 1.0])).backward()
    added = [p for n, p in model.named_parameters() if ".residual4d." in n]
    assert added and all(p.grad.abs().max() > 0 for p in added)


def test_v4d_without_4d_kernels_is_its_3d_network():
    """The residual form: with the 4-D weights at zero, snippets are judged by themselves."""
    model, x = small(V4D), clips(V4D)
    for block in (b for _, b in model.backbone.blocks()):
        if block.residual4d is not None:
            torch.nn.init.zeros_(block.residual4d.conv.weight)
    alone = [model(x[:, [u]]) for u in range(x.shape[1])]
    torch.testing.assert_close(model(x), torch.stack(alone).mean(0))


def test_v4d_puts_its_blocks_where_the_source_does():
    def places(**switches):
        with torch.device("meta"):
            blocks = V4D(**switches).backbone.blocks()
        return [name for name, block in blocks if block.residual4d is not None]

    stage_2, stage_3 = ["layer2.1", "layer2.3"], ["layer3.1", "layer3.3", "layer3.5"]
    assert places() == stage_2 + stage_3
    assert places(stages=(2,)) == stage_2  # the published code for ResNet-50
    with pytest.raises(ValueError, match="odd kernel_size"):
        V4D(kernel_size=2)


def test_the_temporal_convolution_against_loops():
    m, x = shaken(TemporalConv(3, 2, frames=4)), random(2 * 4, 3, 2, 2)
    weight, out = array(m.weight)[..., 0, 0], array(m(x)).reshape(2, 4, 2, 2, 2)
    for clip, found in zip(array(x).reshape(2, 4, 3, 2, 2), out, strict=True):
        for t, o, h, w in np.ndindex(found.shape):
            expected = sum(
                weight[o, c, j] * at(clip, t + j - 1, c, h, w) for c in range(3) for j in range(3)
            )
            assert abs(found[t, o, h, w] - expected) < 1e-12


@pytest.mark.parametrize("method", [DSANet, V4D])
def test_imagenet_weights_are_inflated(method, tmp_path):
    flat = FrameResNet(**SMALL).backbone
    file = tmp_path / "flat.safetensors"
    save_file(flat.state_dict(), file)
    model = small(method)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.pretrained(file) == str(file)
    for name, weight in flat.state_dict().items():
        own = model.backbone.state_dict()[name]
        if name.startswith("fc."):
            torch.testing.assert_close(own, before[f"backbone.{name}"])
        elif own.shape == weight.shape:
            torch.testing.assert_close(own, weight)
        else:  # the same answer as the 2-D convolution where nothing moves
            torch.testing.assert_close(own.sum(2), weight)
            torch.testing.assert_close(own[:, :, 0], own[:, :, 2])
    added = [k for k in before if ".inter." in k or ".residual4d." in k]
    assert added and all(
        torch.equal(before[k], v) for k, v in model.state_dict().items() if k in added
    )
    with pytest.raises(RunError, match="not the weights of this backbone"):
        method(**SMALL | {"width": 16}).pretrained(file)


def test_teinet_takes_imagenet_weights_by_name():
    flat, model = FrameResNet(**SMALL).backbone, small(TEINet)
    load_backbone(model.backbone, flat.state_dict(), "made up")
    assert all(
        torch.equal(v, model.backbone.state_dict()[k])
        for k, v in flat.state_dict().items()
        if not k.startswith("fc.")
    )


# ADDNet-3D


def test_hull_mask_against_loops():
    corners, size = ((0.2, 0.3), (0.7, 0.2), (0.8, 0.6), (0.4, 0.9)), 12
    mask = array(hull_mask(corners, size))
    for row, column in np.ndindex(size, size):
        point = np.array([(column + 0.5) / size, (row + 0.5) / size])
        distances = []
        for a, b in zip(
            map(np.array, corners), map(np.array, corners[1:] + corners[:1]), strict=True
        ):
            inward = np.array([-(b - a)[1], (b - a)[0]]) / np.linalg.norm(b - a)
            distances.append((point - a) @ inward)
        assert mask[row, column] == pytest.approx(
            np.clip(0.5 + min(distances) / 0.08, 0, 1), abs=1e-5
        )
    assert mask.max() == 1 and mask.min() == 0


def test_face_mask_is_mirror_symmetric_and_ranks_organs_face_and_surroundings():
    mask = face_mask(100)
    torch.testing.assert_close(
        mask, mask.flip(1), atol=1e-4, rtol=0
    )  # a flipped crop meets the same mask
    eye, other_eye, nose, mouth = mask[36, 35], mask[36, 65], mask[53, 50], mask[71, 50]
    cheek, corner = mask[62, 28], mask[3, 3]
    assert min(eye, other_eye, nose, mouth) > 0.9 and 0.45 < cheek < 0.6 and corner == 0


def test_attention_raises_the_weight_of_the_face():
    x = random(2, 4, 56, 56).float()
    mask = face_mask(112).unfold(0, 2, 2).unfold(1, 2, 2).mean((2, 3))
    torch.testing.assert_close(Attention(4, "face")(x), x * (1 + mask))
    learned = Attention(4, "learned")
    torch.testing.assert_close(learned(x), x * (1 + torch.sigmoid(learned.mask_conv(x))))


def test_addnet_shares_one_block_among_the_frames():
    """The ADD block alone sees no time: frames in another order give the same maps in that
    order.
    """
    model, x = small(ADDNet3D), clips(ADDNet3D).flatten(0, 2)
    torch.testing.assert_close(model.add_block(x).flip(0), model.add_block(x.flip(0)))


def test_addnets_masks():
    x = clips(ADDNet3D)
    assert (small(ADDNet3D)(x) - small(ADDNet3D, mask="learned")(x)).abs().max() > 1e-5
    model = small(ADDNet3D, mask="learned").train()
    model.loss(x, torch.tensor([0.0, 1.0])).backward()
    assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if "mask_conv" in n)
    assert not any("mask" in k for k in small(ADDNet3D).state_dict())  # the fixed mask is no weight
    for bad in ({"mask": "none"}, {"stem": "none"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ADDNet3D(**bad)
    assert load_imagenet(model) == "scratch"
