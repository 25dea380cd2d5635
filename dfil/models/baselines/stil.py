"""STIL: spatial and temporal inconsistency in two streams of one bottleneck, DIL's predecessor by
the same group."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from dfil.models.baselines.frames import BackboneDetector
from dfil.models.detector import About, Sampling
from dfil.models.fast import convolve, difference_to_next
from dfil.models.resnet import ResNet, SnippetBottleneck, conv_norm, he_normal
from dfil.models.weights import download, find_state, load_strictly

_SCNET = "https://backseason.oss-cn-beijing.aliyuncs.com/scnet/scnet50_v1d-4109d1e1.pth"


def shift_taps(channels: int, fold: int) -> torch.Tensor:
    """TSM's shift as taps (3, C) over time: `fold` channels take the next frame, as many the
    previous one, the others stay."""
    taps = torch.zeros(3, channels)
    taps[2, :fold] = taps[0, fold : 2 * fold] = taps[1, 2 * fold :] = 1.0
    return taps


class TIM(nn.Module):
    """Temporal Inconsistency Module: attention from the differences of adjacent frames, along
    height and along width.

    D[t] = conv(F[t + 1]) - F[t] of the squeezed features F, zero at the last frame; conv is
    depthwise with 3 taps along the height in the one view and along the width in the other. Each
    view then averages D, a 3-tap convolution of D, and a 3-tap convolution of D at half the
    resolution along the view's axis, recovers C channels and takes sigmoid - 1/2. The output is x
    + x · (mean of the two).

    The source folds the other axis into the batch and works on H x T and T x W planes with kernels
    that are 1 along T. The same kernels on the H x W planes of the frames give the same numbers
    without a permutation.

    Args:
        channels: C, the stream's channels.
        reduction: C / r channels are squeezed to, at least `min_channels`. In ResNet-50 C / 16 is
            never below 2.
    """

    def __init__(self, channels: int, *, reduction: int = 16, min_channels: int = 2):
        super().__init__()
        squeezed = max(channels // reduction, min_channels)
        self.squeeze = conv_norm(channels, squeezed, 1)
        for axis, kernel in (("h", (3, 1)), ("w", (1, 3))):
            how = {"padding": (kernel[0] // 2, kernel[1] // 2), "groups": squeezed, "bias": False}
            setattr(self, f"neighbour_{axis}", nn.Conv2d(squeezed, squeezed, kernel, **how))
            setattr(self, f"full_{axis}", conv_norm(squeezed, squeezed, kernel))
            setattr(self, f"half_{axis}", conv_norm(squeezed, squeezed, kernel))
            setattr(self, f"recover_{axis}", conv_norm(squeezed, channels, 1))

    def difference(self, f: torch.Tensor, frames: int, axis: str) -> torch.Tensor:
        """F (N, Cr, H, W), N = videos · frames -> D, the same shape, zero at every video's last
        frame."""
        neighbour = getattr(self, f"neighbour_{axis}")(f)
        f, neighbour = (t.unflatten(0, (-1, frames)) for t in (f, neighbour))
        return -difference_to_next(f, neighbour).flatten(0, 1)

    def attention(self, f: torch.Tensor, frames: int, axis: str) -> torch.Tensor:
        """F (N, Cr, H, W) -> (N, C, H, W) in (-1/2, 1/2): one view, `axis` being "h" or "w"."""
        d = self.difference(f, frames, axis)
        pooled = functional.avg_pool2d(d, (2, 1) if axis == "h" else (1, 2))
        half = getattr(self, f"half_{axis}")(pooled)
        total = d + functional.interpolate(half, d.shape[2:]) + getattr(self, f"full_{axis}")(d)
        return torch.sigmoid(getattr(self, f"recover_{axis}")(total / 3)) - 0.5

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """x (N, C, H, W) -> the same shape; H and W at least 2."""
        f = self.squeeze(x)
        return x + x * (0.5 * (self.attention(f, frames, "h") + self.attention(f, frames, "w")))


class SIM(nn.Module):
    """Spatial Inconsistency Module: a self-calibrated convolution (SCNet) whose calibration path
    is split into 1x3 and 3x1.

    Y = k3(x) · sigmoid(x + up(f_h(f_w(down(x))))), output ReLU(k4(Y)); Y itself goes to the ISM.
    `down` is average pooling by 4, or by the size of the map where that is smaller, which happens
    only to crops below 128 px.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.f_w = nn.Sequential(*conv_norm(channels, channels, (1, 3)), nn.ReLU(inplace=True))
        self.f_h = conv_norm(channels, channels, (3, 1))
        self.k3 = conv_norm(channels, channels, 3)
        self.k4 = conv_norm(channels, channels, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (N, C, H, W) -> (output, Y), both of its shape."""
        small = functional.avg_pool2d(x, min(4, *x.shape[2:]))
        calibration = functional.interpolate(self.f_h(self.f_w(small)), x.shape[2:])
        y = self.k3(x) * torch.sigmoid(x + calibration)
        return torch.relu(self.k4(y)), y


class ISM(nn.Module):
    """Information Supplement Module: what the spatial stream found, weighed per channel, for the
    temporal stream.

    y · sigmoid(conv(GAP(y))), conv having 3 taps across neighbouring channels.
    """

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape."""
        weight = torch.sigmoid(self.conv(y.mean((2, 3))[:, None])).squeeze(1)
        return y * weight[..., None, None]


class TemporalShift(nn.Module):
    """A learnt depthwise convolution with 3 taps over time; it starts as TSM's shift of an eighth
    of the channels in each direction."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(shift_taps(channels, max(channels // 8, 1)).T.contiguous())

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """(N, C, H, W), N = videos · frames -> the same shape."""
        taps = self.weight.T[:, None, None, :, None, None]
        return convolve(x.unflatten(0, (-1, frames)), taps).flatten(0, 1)


class STILBlock(SnippetBottleneck):
    """The bottleneck with two streams of half the planes each: a (temporal) and b (spatial).

    b: 1x1, SIM. a: 1x1, TIM, plus ISM of SIM's inner map, temporal shift, 3x3. Both are
    concatenated for the last 1x1. Down-sampling follows the "v1d" ResNet of the source: average
    pooling, after the 3x3 of both streams and in the shortcut.
    """

    added = ("tim", "shift", "ism", "f_w", "f_h")

    def __init__(self, channels: int, planes: int, stride=1, project: nn.Module | None = None):
        super().__init__(channels, planes)
        if planes % 2:
            number = f"an even number, not {planes}"
            raise ValueError(f"STIL splits the planes into two streams: {number}")
        half, wide = planes // 2, planes * self.expansion
        for name in ("conv1", "bn1", "conv2", "bn2"):  # the plain bottleneck's; conv3 and bn3 stay
            delattr(self, name)
        self.conv1_a, self.bn1_a = conv_norm(channels, half, 1)
        self.conv1_b, self.bn1_b = conv_norm(channels, half, 1)
        self.tim, self.ism, self.shift = TIM(half), ISM(), TemporalShift(half)
        self.k1 = conv_norm(half, half, 3)
        self.scconv = SIM(half)
        self.down = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        if project is not None:
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            self.downsample = nn.Sequential(pool, *conv_norm(channels, wide, 1))

    def forward(self, x: torch.Tensor, frames: int, keep: dict | None = None) -> torch.Tensor:
        """x (N, C, H, W), N = videos · frames, the frames of a video in order -> (N, 4 · planes,
        H', W')."""
        a, b = self.relu(self.bn1_a(self.conv1_a(x))), self.relu(self.bn1_b(self.conv1_b(x)))
        b, inner = self.scconv(b)
        a = self.relu(self.k1(self.shift(self.tim(a, frames) + self.ism(inner), frames)))
        out = self.bn3(self.conv3(self.down(torch.cat([a, b], 1))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class STIL(BackboneDetector):
    """Spatiotemporal Inconsistency Learning, Gu et al., ACM MM 2021: every bottleneck of a
    ResNet-50 becomes a STIL block.

    Read from the authors' published code (Tencent/TFace, Face-Forgery-Detection/STIL), not from
    the paper's text, so no equation is cited by number. What the code settles:
    - the backbone is SCNet-50-v1d: stem of three 3x3, average pooling in place of strides, two
      streams of half the planes;
    - C / 16 channels in the TIM, differences forward only and zero-padded at the end, pooled
      branch up-sampled to the nearest;
    - the mean of the frames' logits is the video's. Two classes there, one logit (fake) here,
      which is the same family of functions.
    The code samples 8 sparse frames in training and 16 in testing; no module has a fixed T, so the
    number is free here. Frames are taken in order over U and T alike. `stem="small"` keeps
    ResNet's 3x3 at stride 2; width is even.
    """

    sampling = Sampling(train=8, test=16, frames=1, views=2)
    about = About(
        "STIL", 2021, "forgery",
        "Gu et al., Spatiotemporal Inconsistency Learning for DeepFake Video Detection, ACM MM "
        "2021",
        "ImageNet", 22.68,
        "the figure quoted for the STIL paper; the network here, with two classes as in the "
        "authors' code, has 22.69",
    )  # fmt: skip

    def __init__(self, *, frames=1, depth=(3, 4, 6, 3), width=64, stem="imagenet"):
        super().__init__()
        self.backbone = ResNet(depth=depth, width=width, stem=stem, block=STILBlock)
        if stem == "imagenet":
            half, relu = width // 2, nn.ReLU(inplace=True)
            last = nn.Conv2d(half, width, 3, padding=1, bias=False)
            deep = (*conv_norm(3, half, 3, 2), relu, *conv_norm(half, half, 3), relu, last)
            self.backbone.conv1 = he_normal(nn.Sequential(*deep))

    def pretrained(self, file: Path | None = None) -> str:
        """Load SCNet-50-v1d's ImageNet weights, as the authors do, and return where they came from.

        `file`, or $DFIL_SCNET_WEIGHTS, is a .pth or .safetensors state dict of scnet50_v1d;
        without one torch fetches it from SCNet's authors into its cache. SCNet's 3x3 of the
        calibration path (k2) has no place here; TIM, ISM, shift, f_w and f_h keep their
        initialisation. Raises RunError with what to do where the weights cannot be had, or naming
        the first parameter that differs.
        """
        whose = f"SCNet-50-v1d's ImageNet weights ({_SCNET})"
        state, source = find_state(file, "DFIL_SCNET_WEIGHTS", lambda: download(_SCNET), whose)
        own, state = self.backbone.state_dict(), {k: v for k, v in state.items() if ".k2." not in k}
        state |= {k: v for k, v in own.items() if any(f".{name}." in k for name in STILBlock.added)}
        load_strictly(self.backbone, state, ("fc.",), source)
        return source
