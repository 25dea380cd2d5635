"""DSANet: a kernel predicted from the video mixes neighbouring snippets (Wu et al., ACM Multimedia
2021)."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.baselines.inflated import InflatedDetector, every_second, inflate_stages
from dfil.models.detector import About, Sampling, check_input
from dfil.models.fast import convolve
from dfil.models.resnet import ResNet


class DSA(nn.Module):
    """Dynamic Segment Aggregation: a convolution along the snippets whose kernel each video and
    channel gets from its own features.

    For the first βC channels: z = GAP over T, H, W, a vector of length U per channel; K =
    softmax(W2 ReLU(BN(W1 z))) with W1 U -> αU and W2 αU -> k, shared by all channels; then a
    depthwise convolution along U with K, zeros beyond the ends. The other channels pass.

    Args:
        channels: C.
        frames: T, needed to unfold the batch.
        segments: U of the fully connected layers, fixed. A video of more snippets, a multiple of
            U, is taken U at a time.
        split: β, the share of the channels that are mixed; at least one channel is.
        alpha: widening of the hidden layer.
        kernel_size: k; odd.
    """

    def __init__(self, channels, frames, segments=4, *, split=1 / 8, alpha=2, kernel_size=3):
        super().__init__()
        self.frames, self.segments, self.mixed = frames, segments, max(1, int(channels * split))
        hidden = alpha * segments
        self.generate = nn.Sequential(
            nn.Linear(segments, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, kernel_size, bias=False),
            nn.Softmax(-1),
        )

    def kernels(self, mixed: torch.Tensor) -> torch.Tensor:
        """mixed (G, U, T, βC, H, W) -> K (G, βC, k)."""
        pooled = mixed.mean((2, 4, 5)).transpose(1, 2)  # G, βC, U
        return self.generate(pooled.flatten(0, 1)).unflatten(0, pooled.shape[:2])

    def forward(self, x: torch.Tensor, snippets: int, keep: dict | None = None) -> torch.Tensor:
        """x (B·U·T, C, H, W), snippets = U of the video -> the same shape. `keep` receives
        kernel (G, βC, k).

        G = B·snippets / segments; `snippets` itself is not needed, because consecutive groups of
        `segments` lie behind one another.
        """
        shape = -1, self.segments, self.frames
        mixed = x[:, : self.mixed].unflatten(0, shape)  # G, U, T, βC, H, W
        kernel = self.kernels(mixed)
        if keep is not None:
            keep["kernel"] = kernel
        taps = kernel.permute(2, 0, 1)[:, :, None, None, :, None, None]  # k, G, 1, 1, βC, 1, 1
        return torch.cat([convolve(mixed, taps).flatten(0, 2), x[:, self.mixed :]], 1)


class DSANet(InflatedDetector):
    """DSANet, Wu et al., "DSANet: Dynamic Segment Aggregation Network for Video-Level
    Representation Learning", ACM Multimedia 2021 (arXiv 2105.12085).

    The I3D variant (the source's Figure 2b): a ResNet whose first 1x1 is 3x1x1 in stages 3 and 4,
    with DSA between the first and the second convolution of every second block of stages 2 and 3;
    a video's score is the mean of its snippets'.

    Readings, checked against the published code and its configuration for Kinetics:
        - Places: blocks 2, 4 of stage 2 and 2, 4, 6 of stage 3; a stage of one block, which only
          small networks have, gets it there.
        - β = 1/8, α = 2, k = 3, batch normalisation in the kernel's generator.
        - More snippets in testing than in training: consecutive groups of U, whose logits are
          averaged.
        - Dropout of 0.5 before the classifier is left out; DIL has none.
        - The start is ImageNet, inflated, as in the code.

    Sampling: U = 4 snippets in training and 8 in testing, as in the source. Its snippets are 8
    frames, 8 apart; here they are DIL's (T = 4, neighbouring frames), because the comparison of
    the two is about what happens between the same snippets. No number of parameters is published.

    segments: U of the kernel's generator; the U of an input is a multiple of it.
    """

    sampling = Sampling(train=4, test=8, frames=4)
    any_number = False  # of `segments` at a time
    about = About(
        "DSANet", 2021, "clips",
        "Wu et al., DSANet: Dynamic Segment Aggregation Network for Video-Level Representation "
        "Learning, ACM Multimedia 2021",
    )  # fmt: skip

    def __init__(self, *, frames: int = 4, segments: int = 4, **backbone):
        super().__init__()
        self.frames, self.segments = frames, segments
        self.backbone = ResNet(**backbone)
        inflate_stages(self.backbone, frames)
        for stage in (self.backbone.layer2, self.backbone.layer3):
            for block in every_second(stage):
                block.inter = DSA(block.conv1.out_channels, frames, segments)

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W), U a multiple of `segments` -> (B, U, T)."""
        _, u, _ = check_input("DSANet", x, self.frames)
        if u % self.segments:
            built = f"DSANet was built for U = {self.segments} snippets or a multiple"
            raise ValueError(f"{built}; this input {tuple(x.shape)} has U = {u}")
        return super().frame_logits(x)
