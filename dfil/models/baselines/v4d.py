"""V4D: convolutions over the snippets and their frames at once, in residual form (Zhang et al., ICLR 2020)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dfil.models.baselines.inflated import every_second, inflate_stages, load_inflated
from dfil.models.detector import About, Detector, Sampling, check_input
from dfil.models.resnet import ResNet, SnippetBottleneck


class Residual4D(nn.Module):
    """The residual 4-D block: Y = X + φ(F_4D(φ⁻¹(X))), where φ⁻¹ unfolds the batch into the snippets of each video.

    F_4D is a bias-free C x C convolution over U x T x H x W of kernel k x k x 1 x 1, zero padded. Positions in H and W do not mix, so that
    it is computed exactly by a 3-D convolution over U, T and the H·W positions.
    """

    def __init__(self, channels: int, frames: int, kernel_size: int = 3):
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv3d(
            channels,
            channels,
            (kernel_size, kernel_size, 1),
            padding=(kernel_size // 2, kernel_size // 2, 0),
            bias=False,
        )

    def forward(self, x: torch.Tensor, snippets: int) -> torch.Tensor:
        """x (B·U·T, C, H, W), snippets = U -> the same shape."""
        unfolded = x.unflatten(0, (-1, snippets, self.frames)).permute(
            0, 3, 1, 2, 4, 5
        )  # B, C, U, T, H, W
        moved = self.conv(unfolded.flatten(4, 5))
        return x + moved.permute(0, 2, 3, 1, 4).unflatten(4, x.shape[2:]).flatten(0, 2)


class V4DBottleneck(SnippetBottleneck):
    """The bottleneck, followed by a residual 4-D block where one is set."""

    added = ("residual4d",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.residual4d: Residual4D | None = None

    def forward(self, x: torch.Tensor, snippets: int, keep: dict | None = None) -> torch.Tensor:
        """x (B·U·T, C, H, W) -> (B·U·T, 4·planes, H', W'); snippets = U."""
        out = super().forward(x, snippets, keep)
        return out if self.residual4d is None else self.residual4d(out, snippets)


class V4D(Detector):
    """V4D, Zhang et al., "V4D: 4D Convolutional Neural Networks for Video-level Representation Learning", ICLR 2020 (arXiv 2002.07442).

    A ResNet whose first 1x1 is 3x1x1 in stages 3 and 4 (the slow pathway of SlowFast), with residual 4-D blocks between its residual
    blocks; a video's score is the mean of its snippets'. U is free at run time.

    What the source leaves open, and the reading, which is its published ResNet-50 for Kinetics:
        - Places: after blocks 2 and 4 of stage 2; a stage of one block, which only small networks have, gets it there.
        - Kernel: 3 x 3 x 1 x 1, of the several the source compares.
        - No normalisation or nonlinearity inside the 4-D block, whose weights start as PyTorch starts a convolution's.
        - The source's "V4D inference" pairs many more snippets in testing than in training, against memory. U = 8 snippets need none of it.
        - Dropout before the classifier is left out; DIL has none.

    Sampling: U = 4 snippets in training and 8 in testing, T = 4. The frames of the source's snippets are many frames apart; here they are
    neighbours as in DIL's snippets, because the comparison of the two is about what happens between the same snippets, and so that the
    frames seen are as many. No number of parameters of this network is published.

    Args:
        frames: T.
        stages: the stages that get 4-D blocks.
        kernel_size: k of the 4-D kernel k x k x 1 x 1; odd.
        depth, width, stem: see ResNet.
    """

    sampling = Sampling(train=4, test=8, frames=4)
    about = About(
        "V4D", 2020, "clips", "Zhang et al., V4D: 4D Convolutional Neural Networks for Video-level Representation Learning, ICLR 2020",
        "ImageNet",
    )  # fmt: skip

    def __init__(
        self, *, frames: int = 4, stages: tuple[int, ...] = (2,), kernel_size: int = 3, **backbone
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(
                f"V4D needs an odd kernel_size to keep the snippets and frames, not {kernel_size}"
            )
        self.frames = frames
        self.backbone = ResNet(block=V4DBottleneck, **backbone)
        inflate_stages(self.backbone, frames)
        for number in stages:
            for block in every_second(self.backbone.stages()[number - 1]):
                block.residual4d = Residual4D(block.conv3.out_channels, frames, kernel_size)

    def pretrained(self, file: Path | None = None) -> str:
        """ImageNet weights, inflated; see dfil.models.baselines.inflated.load_inflated."""
        return load_inflated(self.backbone, file)

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T): the classifier on every frame's features, before they are averaged."""
        b, u, t = check_input("V4D", x, self.frames)
        return self.backbone(x.flatten(0, 2), snippets=u).unflatten(0, (b, u, t))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B,)."""
        return self.frame_logits(x).float().mean((1, 2))
