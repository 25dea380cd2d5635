"""Intra-SIM, the Intra-Snippet Inconsistency Module (Eq. 1-6): short-term motion in a snippet.
This file is the equations; training and scoring take the same in fewer passes (fast.py)."""

import torch
from torch import nn
from torch.nn import functional as F

from dfil.models.difference import differences
from dfil.models.fast import intra_sim, takes
from dfil.models.plane_conv import PlaneConv


class IntraSIM(nn.Module):
    """The first half of a snippet's channels, I1, passes. The second, I2, is weighed by attention
    to the differences of its frames and aggregated over time with kernels predicted from itself.

    channels, frames: C, even, and T, fixed by the linear layers of Eq. 4. reduction, min_channels:
    differences are taken of c = max(C/2 / reduction, min_channels) channels, at most C/2. gamma,
    kernel_size: γ and k of Eq. 4, k odd, else ValueError. bp, ca, lk (Table 5): without bp forward
    differences only, without ca one map of the squeezed difference itself, without lk one learnt
    kernel for all snippets. kernel_bn: batch normalisation after φ1, as in TAM, not the paper."""

    def __init__(self, channels, frames, *, reduction=16, min_channels=4, gamma=2, kernel_size=3,
                 bp=True, ca=True, lk=True, kernel_bn=False):  # fmt: skip
        super().__init__()
        if channels % 2 or kernel_size % 2 == 0:
            given = f"{channels} and {kernel_size}"
            raise ValueError(f"IntraSIM takes even channels and an odd kernel_size, not {given}")
        self.frames, self.kernel_size, self.bp, self.ca, self.lk = frames, kernel_size, bp, ca, lk
        self.half = half = channels // 2
        c = min(half, max(half // reduction, min_channels))
        self.squeeze = nn.Sequential(nn.Conv2d(half, c, 1, bias=False), nn.BatchNorm2d(c))
        self.neighbour = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)  # Conv3x3 of Eq. 1
        if ca:
            self.view_h, self.view_w = PlaneConv(c, along=2), PlaneConv(c, along=3)
        for name in ("recover_h", "recover_w") if ca else ("recover",):  # Conv1x1 of Eq. 2 and 3
            conv = nn.Conv2d(c, half, 1, bias=False)
            setattr(self, name, nn.Sequential(conv, nn.BatchNorm2d(half)))
        if lk:
            norm = [nn.BatchNorm1d(gamma * frames)] if kernel_bn else []
            self.phi1 = nn.Sequential(nn.Linear(frames, gamma * frames, bias=False), *norm)
            self.phi2 = nn.Linear(gamma * frames, kernel_size, bias=False)
        else:
            centre = torch.eye(kernel_size)[kernel_size // 2]
            self.static_kernel = nn.Parameter(centre.repeat(half, 1))  # C/2, k

    def clips(self, x: torch.Tensor) -> torch.Tensor:  # (B·U·T, C, H, W) -> (B·U, C, T, H, W)
        return x.unflatten(0, (-1, self.frames)).transpose(1, 2)

    def differences(self, i2: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Eq. 1, forward and, with bp, backward: I2 -> each (B·U, c, T, H, W)."""
        f = self.squeeze(i2)
        both = differences(self.clips(f), self.clips(self.neighbour(f)), dim=2)
        return both if self.bp else both[:1]

    def attention(self, i2: torch.Tensor) -> list[torch.Tensor]:
        """Eq. 2-3: I2 (B·U·T, C/2, H, W) -> [A_h, A_w], or [A] without ca, alike, in (0, 1).
        Directions are averaged first; views and recovery are linear, so it is the same."""
        d = torch.stack(self.differences(i2)).mean(0)
        views = [self.view_h(d), self.view_w(d)] if self.ca else [d]
        recover = [self.recover_h, self.recover_w] if self.ca else [self.recover]
        frames = [view.transpose(1, 2).flatten(0, 1) for view in views]
        return [torch.sigmoid(r(view)) for r, view in zip(recover, frames, strict=True)]

    def kernels(self, i2: torch.Tensor) -> torch.Tensor:
        """Eq. 4: (B·U, C/2, k), softmax over k, or (1, C/2, k) without lk."""
        if not self.lk:
            return self.static_kernel[None]
        pooled = i2.mean((2, 3)).unflatten(0, (-1, self.frames)).transpose(1, 2)  # B·U, C/2, T
        hidden = torch.relu(self.phi1(pooled.flatten(0, 1)))
        return torch.softmax(self.phi2(hidden), -1).unflatten(0, pooled.shape[:2])

    def forward(self, x, keep: dict | None = None, overwrite: bool = False) -> torch.Tensor:
        """x (B·U·T, C, H, W) -> the same shape, perhaps written over x with `overwrite`. `keep`
        receives attention_h and attention_w, or attention, and kernel."""
        if keep is None and takes(x, self.squeeze[1]):
            return intra_sim(self, x, overwrite)
        i1, i2 = x.chunk(2, 1)
        attention, kernel = self.attention(i2), self.kernels(i2)
        if keep is not None:
            names = ("attention_h", "attention_w") if self.ca else ("attention",)
            keep.update(zip(names, attention, strict=True), kernel=kernel)
        weighed = self.clips(torch.stack(attention).prod(0) * i2 + i2)
        padded = F.pad(weighed, (0, 0, 0, 0, kernel.shape[2] // 2, kernel.shape[2] // 2))
        taps = kernel[..., None, None, None].unbind(2)  # k times (B·U, C/2, 1, 1, 1)
        o2 = sum(tap * padded[:, :, j : j + self.frames] for j, tap in enumerate(taps))  # Eq. 5
        return torch.cat([i1, o2.transpose(1, 2).flatten(0, 1)], 1)  # Eq. 6
