"""TEI: feature differences weigh the channels, then every channel looks one frame to either side
(Liu et al., AAAI 2020)."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.baselines.frames import BackboneDetector
from dfil.models.baselines.stil import shift_taps
from dfil.models.detector import About, Sampling, check_choice
from dfil.models.fast import convolve
from dfil.models.resnet import ResNet, SnippetBottleneck


class MEM(nn.Module):
    """Motion Enhanced Module (the source's section "Motion Enhanced Module"): channel weights from
    temporal differences.

    With x̂_t = GAP(X_t): s_t = σ(Conv3(Conv1(x̂_t) − Conv2(x̂_{t+1}))) and U_t = s_t ⊙
    X_t. The last frame has no next one and keeps its features. Conv1 and Conv2 are two different
    1x1 convolutions C -> C/r, Conv3 is C/r -> C; on pooled features they are linear layers.

    Args:
        channels: C.
        reduction: r; 8 in the source.
        min_channels: the least number of squeezed channels, for networks narrower than the
            source's.
    """

    def __init__(self, channels: int, *, sigmoid="last", reduction=8, min_channels=4):
        super().__init__()
        self.sigmoid = sigmoid
        squeezed = min(channels, max(channels // reduction, min_channels))
        self.conv1 = nn.Linear(channels, squeezed)
        self.conv2 = nn.Linear(channels, squeezed)
        self.conv3 = nn.Linear(squeezed, channels)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """pooled x̂ (B, S, C) -> s (B, S, C) in (0, 1), one at the last frame."""
        difference = self.conv1(pooled[:, :-1]) - self.conv2(pooled[:, 1:])
        if self.sigmoid == "last":
            weight = torch.sigmoid(self.conv3(difference))
        else:
            weight = self.conv3(torch.sigmoid(difference))
        return torch.cat([weight, torch.ones_like(pooled[:, -1:])], 1)


class TIM(nn.Module):
    """Temporal Interaction Module (section "Temporal Interaction Module"): Y_{c,t} = sum_i V_{c,i}
    U_{c,t+i}, i = -1, 0, 1.

    A depthwise convolution over time with zeros beyond the ends. Its taps start as TSM's shift, of
    which it is the learnable form: an eighth of the channels takes the next frame, an eighth the
    previous one, the others stay.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.taps = nn.Parameter(shift_taps(channels, channels // 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, S, C, H, W) -> the same shape."""
        return convolve(x, self.taps[:, None, None, :, None, None])


class TEI(nn.Module):
    """MEM, then TIM. x (B·S, C, H, W) with S frames per video -> the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.mem = MEM(channels)
        self.tim = TIM(channels)

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        weight = self.mem(x.mean((2, 3)).unflatten(0, (-1, frames)))  # B, S, C
        return self.tim(weight[..., None, None] * x.unflatten(0, (-1, frames))).flatten(0, 1)


class TEIBottleneck(SnippetBottleneck):
    """The bottleneck with TEI at the head of its residual branch, before the first 1x1; the
    shortcut passes it by."""

    added = ("tei",)

    def __init__(self, channels: int, *args, **kwargs):
        super().__init__(channels, *args, **kwargs)
        self.tei = TEI(channels)

    def forward(self, x: torch.Tensor, snippets: int, keep: dict | None = None) -> torch.Tensor:
        """x (B·S, C, H, W) -> (B·S, 4·planes, H', W'); snippets = S, the frames of one video."""
        out = self.relu(self.bn1(self.conv1(self.tei(x, snippets))))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class TEINet(BackboneDetector):
    """TEINet, Liu et al., "TEINet: Towards an Efficient Architecture for Video Recognition", AAAI
    2020 (arXiv 1911.09435).

    Every block of a ResNet gets a TEI module; a video's score is the mean of its frames' (TSN's
    consensus). The S = U·T frames of a video are one sequence, whatever their division into
    snippets, and S is free at run time.

    What the source leaves open, and the reading:
        - Place: "inserted into the ResNet block". Before the first 1x1 of the residual branch, as
          in TSM: there the module has the block's input channels, and ResNet-50 with a 400-class
          head has 30.36 million parameters against 30.4 published; before the 3x3 it would have
          24.8.
        - The nonlinearity of the attention: a sigmoid after Conv3 (`sigmoid="last"`), so that
          weights lie in (0, 1). A public re-implementation has it before Conv3 (`"first"`), where
          weights can be negative and start near zero.
        - The start of TIM's taps: TSM's shift.

    Sampling: sparse, one frame from each segment. The source takes 8 or 16.
    """

    sampling = Sampling(train=16, test=32, frames=1, views=2)
    about = About(
        "TEI", 2020, "clips",
        "Liu et al., TEINet: Towards an Efficient Architecture for Video Recognition, AAAI 2020",
        "ImageNet", 30.4,
        "the source's comparison table, ResNet-50 with a 400-class head of 0.82 million",
    )  # fmt: skip

    def __init__(self, *, frames: int = 1, sigmoid: str = "last", **backbone):
        super().__init__()
        check_choice("TEINet", "sigmoid", sigmoid, "last", "first")
        self.backbone = ResNet(block=TEIBottleneck, **backbone)
        for _, block in self.backbone.blocks():
            block.tei.mem.sigmoid = sigmoid
