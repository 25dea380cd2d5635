"""DoubleRNN: a branch that sees the picture and one that sees what a Laplacian of Gaussian lets
through, joined, and read by a recurrent layer."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn.functional import conv2d, relu
from torchvision.models.densenet import _DenseBlock, _Transition

from dfil.models.baselines.frames import ClipDetector
from dfil.models.detector import About, Sampling, check_choice
from dfil.models.resnet import he_normal

SCALES = (1.0, 2.0, 4.0)  # standard deviations of the Gaussians, in cells of the branch's maps
INNER, OUTER = 0.042, 1.638  # radii inside which real and outside which fake clips cost nothing
FEATURES = 128
RESNET50 = (3, 4, 6, 3)


class DoubleRNN(ClipDetector):
    """Two-branch recurrent network (Masi et al., ECCV 2020), called DoubleRNN in Table 3.

    Known from the source's abstract: two branches on sequences of aligned faces, one of them
    amplifying several bands of frequencies by a Laplacian-of-Gaussian layer inside the network; a
    loss that pulls real clips together and pushes fakes away. All else is a reading, the radii
    from a third party's code:
    - Branches: DenseNet-121's stem and first block each; in the second one three fixed Laplacians
      of Gaussian (scales 1, 2 and 4), each channel by itself, and a 1x1 convolution before the
      block. Both are added; DenseNet's further blocks are shared.
    - Pooled features of the frames into a bi-directional LSTM of 512 units, the mean over time,
      128 features f.
    - Loss: mean of relu(|f - c| - 0.042) over real clips plus mean of relu(1.638 - |f - c|) over
      fakes. The centre c stays where it begins, at zero. A clip's logit is |f - c| less the mean of
      the radii.
    - Clips of 16 frames, two in testing. Weights start from scratch.

    Args:
        frames: T, consecutive frames per clip. The number of clips U is free at run time.
        blocks: dense layers of the four blocks.
        depth: of the ResNet it stands beside; blocks have as large a share of their layers as it
            has of ResNet-50's, since a DenseNet is as wide as it is deep.
        width: 64 is DenseNet-121: growth width / 2, first convolution of width channels.
        stem: `imagenet`, or `small`: 3x3 and no pooling.
    """

    sampling = Sampling(train=1, test=2, frames=16)
    about = About(
        "DoubleRNN", 2020, "forgery",
        "Masi et al., Two-branch Recurrent Network for Isolating Deepfakes in Videos, ECCV 2020",
        "scratch", read=True,
    )  # fmt: skip

    def __init__(
        self, *, frames=16, blocks=(6, 12, 24, 16), depth=RESNET50, width=64, stem="imagenet"
    ):
        super().__init__()
        check_choice("DoubleRNN", "stem", stem, "imagenet", "small")
        self.frames, growth = frames, max(width // 2, 1)
        shares = (there / whole for there, whole in zip(depth, RESNET50, strict=True))
        first, *others = (max(1, round(n * s)) for n, s in zip(blocks, shares, strict=True))
        self.picture = _branch(width, growth, first, stem)
        self.bands = _branch(width, growth, first, stem)
        self.amplify = nn.Sequential(
            LaplacianOfGaussian(), nn.Conv2d(len(SCALES) * width, width, 1, bias=False)
        )
        shared, channels = OrderedDict(), width + first * growth
        for i, layers in enumerate(others, 2):
            shared[f"transition{i - 1}"] = _Transition(channels, channels // 2)
            shared[f"block{i}"] = _DenseBlock(layers, channels // 2, 4, growth, 0.0)
            channels = channels // 2 + layers * growth
        shared["norm"] = nn.BatchNorm2d(channels)
        self.shared = nn.Sequential(shared)
        units = 8 * width
        self.lstm = nn.LSTM(channels, units, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * units, FEATURES)
        self.register_buffer("centre", torch.zeros(FEATURES))
        he_normal(self)

    def distances(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, 3, H, W) -> |f - c| (N,)."""
        frames = clips_ntchw.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        picture, bands = self.picture["stem"](frames), self.bands["stem"](frames)
        joined = self.picture["block"](picture) + self.bands["block"](self.amplify(bands))
        pooled_nc = relu(self.shared(joined)).mean((2, 3))
        states_ntc, _ = self.lstm(pooled_nc.unflatten(0, clips_ntchw.shape[:2]))
        away = self.fc(states_ntc.mean(1)).float() - self.centre
        return (away.square().sum(1) + 1e-12).sqrt()

    def clip_logits(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, 3, H, W) -> logits (N,)."""
        return self.distances(clips_ntchw) - (INNER + OUTER) / 2

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The isolating loss of the clips. x (B, U, T, 3, H, W), y (B,) with 1 = fake; returns a
        scalar. A batch without one of the classes has only the other's part."""
        distance_bu = self.snippet_logits(x) + (INNER + OUTER) / 2
        parts = (relu(distance_bu - INNER), 1 - y), (relu(OUTER - distance_bu), y)
        return sum((p.mean(1) * of).sum() / of.sum().clamp(min=1) for p, of in parts)

    @classmethod
    def loss_at_chance(cls, entropy: float) -> float:
        """Anywhere between the radii both parts together cost the same."""
        return OUTER - INNER


class LaplacianOfGaussian(nn.Module):
    """Fixed band-passes, each channel by itself: (N, C, H, W) -> (N, 3 C, H, W), scale by scale.

    LoG(r) = (r^2 - 2 s^2) / s^4 * exp(-r^2 / 2 s^2),  less its mean and scaled to a sum of
    magnitudes of 1, so that a flat picture gives 0 at every scale
    """

    def __init__(self):
        super().__init__()
        for i, scale in enumerate(SCALES):
            half = int(3 * scale)
            axis = torch.arange(-half, half + 1, dtype=torch.float64)
            square = axis[:, None] ** 2 + axis**2
            kernel = (square - 2 * scale**2) / scale**4 * torch.exp(-square / (2 * scale**2))
            kernel -= kernel.mean()
            kernel = (kernel / kernel.abs().sum()).float()
            self.register_buffer(f"kernel{i}", kernel[None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c, found = x.shape[1], []
        for i in range(len(SCALES)):
            kernel = getattr(self, f"kernel{i}").to(x.dtype)
            half = kernel.shape[-1] // 2
            padded = nn.functional.pad(x, (half,) * 4, mode="replicate")
            found.append(conv2d(padded, kernel.expand(c, 1, -1, -1), groups=c))
        return torch.cat(found, 1)


def _branch(width: int, growth: int, layers: int, stem: str) -> nn.ModuleDict:
    kernel = 7 if stem == "imagenet" else 3
    first = [
        nn.Conv2d(3, width, kernel, 2, kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    first += [nn.MaxPool2d(3, 2, 1)] if stem == "imagenet" else []
    block = _DenseBlock(layers, width, 4, growth, 0.0)
    return nn.ModuleDict({"stem": nn.Sequential(*first), "block": block})
