"""A view of the differences (Eq. 2 and 3): the planes of time and one side of the picture."""

import torch
from torch import nn
from torch.nn import functional as F


class PlaneConv(nn.Module):
    """BN(Conv3x3(D)) + D on planes of T x H (along=2) or T x W (3) of D (G, c, T, H, W)."""

    def __init__(self, channels: int, along: int):
        super().__init__()
        self.along, self.bn = along, nn.BatchNorm2d(channels)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))  # out, in, T, H or W
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, d: torch.Tensor) -> torch.Tensor:
        weight = self.weight.unsqueeze(4 if self.along == 2 else 3)
        out = F.conv3d(d, weight, padding=(1, 1, 0) if self.along == 2 else (1, 0, 1))
        rows = out.flatten(2).unsqueeze(2)  # torch 2.14 on a CPU errs in (N, C, H, 1)'s gradient
        return self.bn(rows).view_as(d) + d
