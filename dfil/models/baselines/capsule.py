"""Capsule-Forensics: statistics of a frame's features, routed by agreement to a real and a fake
capsule."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy, logsigmoid
from torchvision.models import VGG19_Weights

from dfil.models.baselines.frames import FrameDetector
from dfil.models.detector import About, Sampling, check_choice, check_input
from dfil.models.logit import exactly
from dfil.models.weights import find_state, load_strictly

GROUPS = ((64, 2), (128, 2), (256, 4))  # VGG-19 up to its third pooling: channels, convolutions
ENTRIES, OUT = 8, 4  # of a primary capsule's vector, of an output capsule's


class Capsule(FrameDetector):
    """Capsule-Forensics, second version (Nguyen, Yamagishi and Echizen, arXiv 1910.12467; first in
    ICASSP 2019), one frame at a time.

    VGG-19 up to its third pooling; ten primary capsules, each two convolutions, the mean and
    deviation of their maps over the frame and two 1-D convolutions across these statistics, which
    leave a vector of 8; dynamic routing to one capsule of 4 for real and one for fake. A frame's
    probability is the mean over the 4 dimensions of the softmax over both. [code]

    What is read, and how:
    - The code applies cross-entropy's softmax to probabilities a second time, which leaves a
      certain answer a loss of 0.31; here it is applied once, to the same sum over 4 dimensions.
      As squashed vectors are shorter than 1, no frame's probability is above 0.73.
    - With ImageNet weights VGG stays as it is (the code detaches its features) [code]; where there
      are none, as at the small scales, it is trained with the rest.
    - Frames of 224 px, as all rows here; the code has 300.
    - 16 frames of a training and 32 of a test video, so that all methods cost alike; the first
      version takes 10 [memory].

    Args:
        frames: accepted and ignored: a frame model has no T.
        capsules: primary capsules; 3 in the first version [memory].
        depth: of the ResNet it stands beside; VGG's groups have min(published number, depth of
            stages 1 to 3) convolutions.
        width: channels of VGG's first group; all wider layers scale with it.
        stem: `imagenet`, or `small`: without VGG's first pooling.
    """

    sampling = Sampling(train=16, test=32, frames=1)
    about = About(
        "Capsule", 2019, "forgery",
        "Nguyen et al., Use of a Capsule Network to Detect Fake Images and Videos, arXiv "
        "1910.12467",
        "ImageNet", 3.90,
        "1,571,070 trained and 2,325,568 kept parameters of the authors' code",
    )  # fmt: skip

    def __init__(
        self, *, frames=1, capsules: int = 10, depth=(3, 4, 6, 3), width=64, stem="imagenet"
    ):
        super().__init__()
        check_choice("Capsule", "stem", stem, "imagenet", "small")
        layers, channels = [], 3
        for i, ((published, convolutions), there) in enumerate(zip(GROUPS, depth, strict=False)):
            for _ in range(min(convolutions, there)):
                out = published * width // 64
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out
            layers += [] if i == 0 and stem == "small" else [nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)  # names are torchvision's for the published sizes
        self.primary = nn.ModuleList(_PrimaryCapsule(channels, width) for _ in range(capsules))
        self.routing = Routing(capsules)
        for m in self.features:
            if isinstance(m, nn.Conv2d):  # no normalisation will mend the scale later
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def capsule_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T, 4): fake against real in each dimension of the output
        capsules."""
        shape = check_input("Capsule", x)
        kept = self.features(x.flatten(0, 2).contiguous(memory_format=torch.channels_last))
        vectors_npe = torch.stack([capsule(kept) for capsule in self.primary], 1)
        real_fake = self.routing(squash(vectors_npe.float(), 1))  # (N, 2, 4)
        return (real_fake[:, 1] - real_fake[:, 0]).unflatten(0, shape)

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T), the logit of the mean probability over dimensions."""
        logits = self.capsule_logits(x)
        return logsigmoid(logits).logsumexp(-1) - logsigmoid(-logits).logsumexp(-1)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Cross-entropy summed over the 4 dimensions, mean over frames. x (B, U, T, 3, H, W),
        y (B,) with 1 = fake; returns a scalar."""
        logits_bnd = self.capsule_logits(x).flatten(1, 2)
        both = torch.stack([torch.zeros_like(logits_bnd), logits_bnd], 1)  # (B, 2, N, 4)
        target = y.long()[:, None, None].expand_as(logits_bnd)
        return OUT * cross_entropy(both, target)

    @classmethod
    def loss_at_chance(cls, entropy: float) -> float:
        """As many times the cross-entropy as there are dimensions."""
        return OUT * entropy

    def pretrained(self, file: Path | None = None) -> str:
        """Load VGG-19's ImageNet weights, keep them as they are, and return where they came from:
        `file` or $DFIL_VGG19_WEIGHTS (torchvision's vgg19), else torchvision's own, fetched into
        torch's cache.

        Raises RunError if they cannot be had or are another network's.
        """
        state, source = find_state(
            file,
            "DFIL_VGG19_WEIGHTS",
            lambda: VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True),
            "torchvision's ImageNet weights of VGG-19 (vgg19-dcbb9e9d.pth)",
        )
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("features.")}
        later = tuple(f"features.{i}." for i in range(len(self.features), 37))
        load_strictly(self, own | dict(state), ("classifier.", *later), source)
        self.features.requires_grad_(False)
        return source


class _PrimaryCapsule(nn.Module):
    """Features (N, C, H, W) -> a vector (N, 8) of the statistics of their maps."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.across = nn.Sequential(
            nn.Conv1d(2, 8, 5, stride=2, padding=2), nn.BatchNorm1d(8),
            nn.Conv1d(8, 1, 3, padding=1), nn.BatchNorm1d(1),
        )  # fmt: skip
        for m in (*self.maps, *self.across):  # [code]
            if isinstance(m, nn.Conv1d | nn.Conv2d):
                nn.init.normal_(m.weight, std=0.02)
            elif isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(m.weight, 1, 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps_ncp = self.maps(x).flatten(2)
        # a map that is the same everywhere has no gradient of its deviation
        deviation = (maps_ncp.float().var(2) + 1e-6).sqrt().to(maps_ncp.dtype)
        return self.across(torch.stack([maps_ncp.mean(2), deviation], 1)).squeeze(1)


class Routing(nn.Module):
    """Dynamic routing (Sabour et al. 2017) with a logit for every entry of a vote [code].

        u_oi = W_oi x_i,   b = 0,   twice:  c = softmax over i of b,
        v_o = squash(sum_i c_oi * u_oi),   b_oi += u_oi * v_o        (* element-wise)

    In training W gets noise of deviation 0.01 and 5 % of the votes' entries are left out.
    """

    def __init__(self, capsules: int, *, noise: float = 0.01, dropout: float = 0.05):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, capsules, OUT, ENTRIES))
        self.noise, self.dropout = noise, dropout

    def forward(self, x_nie: torch.Tensor) -> torch.Tensor:
        """Vectors (N, I, 8) of I primary capsules -> (N, 2, 4), real and fake."""
        weight = self.weight
        if self.training:
            weight = weight + self.noise * torch.randn_like(weight)
        with exactly(x_nie):  # these are the logits
            votes = torch.einsum("oide,nie->noid", weight, x_nie.to(weight.dtype))
        if self.training:  # left out without raising the others, as in the code
            votes = votes * torch.rand_like(votes).ge(self.dropout)
        coupled = votes.mean(2)  # logits of zero: all alike
        out = squash(coupled, 2)
        share = torch.softmax(votes * out[:, :, None], 2)
        return squash((share * votes).sum(2), 2)


def squash(vectors: torch.Tensor, dim: int) -> torch.Tensor:
    """s |s| / (1 + |s|^2) along `dim`: the same direction, a length below 1; the shape stays."""
    square = vectors.square().sum(dim, keepdim=True)
    return vectors * (square + 1e-12).sqrt() / (1 + square)
