"""V4D: convolutions over the snippets and their frames at once, as residuals (Zhang et al.,
2020)."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.baselines.inflated import InflatedDetector, every_second, inflate_stages
from dfil.models.detector import About, Sampling
from dfil.models.resnet import ResNet, SnippetBottleneck


class Residual4D(nn.Module):
    """The residual 4-D block: Y = X + ReLU(BN(F_4D(X))), F_4D over the snippets of each video.

    F_4D is a bias-free C x C convolution over U x T x H x W of kernel k x k x 1 x 1, zero padded.
    Positions in H and W do not mix, so a 3-D convolution over U, T and the H·W positions is exact.

    The scale of the normalisation starts at 0.01, so that the block is all but the identity. It
    does not start at zero, because behind a ReLU it could then never leave it. norm=False leaves
    both out: Y = X + F_4D(X).
    """

    def __init__(self, channels: int, frames: int, kernel_size: int = 3, norm: bool = True):
        super().__init__()
        self.frames = frames
        kernel, padding = (kernel_size, kernel_size, 1), (kernel_size // 2, kernel_size // 2, 0)
        self.conv = nn.Conv3d(channels, channels, kernel, padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(channels) if norm else None
        if norm:
            nn.init.constant_(self.bn.weight, 0.01)

    def forward(self, x: torch.Tensor, snippets: int) -> torch.Tensor:
        """x (B·U·T, C, H, W), snippets = U -> the same shape."""
        videos = x.unflatten(0, (-1, snippets, self.frames))
        moved = self.conv(videos.permute(0, 3, 1, 2, 4, 5).flatten(4))  # B, C, U, T, H·W
        if self.bn is not None:
            moved = torch.relu(self.bn(moved))
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


class V4D(InflatedDetector):
    """V4D, Zhang et al., "V4D: 4D Convolutional Neural Networks for Video-level Representation
    Learning", ICLR 2020 (arXiv 2002.07442).

    A ResNet whose first 1x1 is 3x1x1 in stages 3 and 4 (the slow pathway of SlowFast), with
    residual 4-D blocks between its residual blocks; a video's score is the mean of its snippets'.
    U is free at run time.

    Readings and differences:
        - Text and published code differ. Text, the default: batch normalisation and ReLU follow
          the 4-D convolution, 4-D blocks stand after every other block of res3 and res4, which are
          stages 2 and 3 here, and the 4-D part starts at nothing. Code for ResNet-50:
          `stages=(2,), norm=False`, started at random. The default is the stronger one on the
          built-in clips.
        - A stage of one block, which only small networks have, gets its 4-D block there.
        - Kernel: 3 x 3 x 1 x 1, which the code has, of the several that the text compares.
        - "V4D inference" pairs many more snippets in testing than in training, against memory.
          U = 8 snippets need none of it.
        - Dropout of 0.5 before the classifier is left out; DIL has none.
        - The start is ImageNet, as in the code; Kinetics was the authors' task, not their start.
        - The frames of its snippets are many frames apart; here they are neighbours, as DIL's, so
          that the two differ only in what happens between the same snippets. No number of
          parameters is published.

    Args:
        stages: the stages that get 4-D blocks.
        kernel_size: k of the 4-D kernel k x k x 1 x 1; odd.
        norm: batch normalisation and ReLU after the 4-D convolution.
    """

    sampling = Sampling(train=4, test=8, frames=4)
    about = About(
        "V4D", 2020, "clips",
        "Zhang et al., V4D: 4D Convolutional Neural Networks for Video-level Representation "
        "Learning, ICLR 2020",
    )  # fmt: skip

    def __init__(self, *, frames=4, stages=(2, 3), kernel_size=3, norm=True, **backbone):
        super().__init__()
        if kernel_size % 2 == 0:
            needs = "needs an odd kernel_size to keep the snippets and frames"
            raise ValueError(f"V4D {needs}, not {kernel_size}")
        self.frames = frames
        self.backbone = ResNet(block=V4DBottleneck, **backbone)
        inflate_stages(self.backbone, frames)
        for number in stages:
            for block in every_second(self.backbone.stages()[number - 1]):
                wide = block.conv3.out_channels
                block.residual4d = Residual4D(wide, frames, kernel_size, norm)
