"""Inter-SIM, the Inter-Snippet Interaction Module (Eq. 7-11): what snippets tell each other.
This file is the equations; training and scoring take the same in fewer passes (fast.py)."""

import torch
from torch import nn
from torch.nn import functional as F

from dfil.models.detector import check_choice
from dfil.models.difference import differences
from dfil.models.fast import inter_sim, takes


class InterSIM(nn.Module):
    """Weighs each place of the U x T plane by two attentions, then convolves along the snippets.

    Args:
        channels, frames: C and T; the number of snippets U is free at run time.
        reduction, min_channels: branches have max(C / reduction, min_channels) channels, at most C.
        conv_u: Conv_U of Eq. 11, `depthwise` or `full` (C x C x 3), else ValueError. Both start as
            the identity, so that pretrained features survive.
    """

    def __init__(self, channels: int, frames: int, *, reduction: int = 16, min_channels: int = 4,
                 conv_u: str = "depthwise"):  # fmt: skip
        super().__init__()
        check_choice("InterSIM", "conv_u", conv_u, "depthwise", "full")
        self.frames, self.conv_u = frames, conv_u
        c = min(channels, max(channels // reduction, min_channels))
        # On (B, C, U, T) a 3x1 kernel runs along the snippets, a 1x3 kernel inside one snippet.
        along_u = nn.Conv2d(channels, c, (3, 1), padding=(1, 0), bias=False)
        recover = nn.Conv2d(c, channels, 1, bias=False)
        self.branch1 = nn.Sequential(along_u, nn.BatchNorm2d(c), recover)
        self.squeeze = nn.Conv2d(channels, c, 1, bias=False)
        self.within = nn.Conv2d(c, c, (1, 3), padding=(0, 1), bias=False)
        self.neighbour = nn.Conv2d(c, c, (1, 3), padding=(0, 1), groups=c, bias=False)  # Eq. 8, 9
        self.recover = nn.Conv2d(c, channels, 1, bias=False)
        centre = torch.tensor([0.0, 1.0, 0.0])
        taps = centre.expand(channels, 3) if conv_u == "depthwise" else None
        taps = torch.eye(channels)[..., None] * centre if taps is None else taps.clone()
        self.taps_u = nn.Parameter(taps)  # (C, 3) or (C, C, 3)

    def attention(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled features (B, C, U, T) -> F1 and F2, both (B, C, U, T) in (0, 1)."""
        f1 = torch.sigmoid(self.branch1(pooled))  # Eq. 7
        f = self.within(self.squeeze(pooled))
        forward, backward = differences(f, self.neighbour(f), dim=2)  # Eq. 8 and 9
        return f1, torch.sigmoid(self.recover(forward + backward))  # Eq. 10

    def forward(self, x, snippets: int, keep: dict | None = None) -> torch.Tensor:
        """x (B·U·T, C, H, W), snippets = U -> the same shape. `keep` receives f1 and f2
        (B, C, U, T) and ut_map (B, U, T), the mean over channels of their product."""
        if keep is None and self.conv_u == "depthwise" and takes(x, self.branch1[1]):
            return inter_sim(self, x, snippets)
        videos = x.unflatten(0, (-1, snippets, self.frames)).transpose(2, 3)  # B, U, C, T, H, W
        f1, f2 = self.attention(videos.mean((4, 5)).transpose(1, 2))
        if keep is not None:
            keep.update(f1=f1, f2=f2, ut_map=(f1 * f2).mean(1))
        weighed = (f1 * f2).transpose(1, 2)[..., None, None] * videos + videos
        full = self.conv_u == "full"
        weight, groups = (self.taps_u, 1) if full else (self.taps_u[:, None], len(self.taps_u))
        rows = weighed.permute(0, 3, 4, 5, 2, 1).flatten(0, 3)  # B·T·H·W, C, U
        out = F.conv1d(rows, weight, padding=1, groups=groups)  # Eq. 11
        out = out.unflatten(0, (len(videos), self.frames, *x.shape[2:]))
        return out.permute(0, 5, 1, 4, 2, 3).flatten(0, 2)
