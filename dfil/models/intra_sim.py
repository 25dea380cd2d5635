"""Intra-SIM, the Intra-Snippet Inconsistency Module (Eq. 1-6): short-term motion inside each snippet."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.norms import PointwiseNorm, batch_norm, fold
from dfil.models.ops import (
    as_rows,
    difference_to_next,
    difference_to_previous,
    from_rows,
    mean_difference,
    per_row,
    pointwise,
    weigh_and_aggregate,
    weigh_and_aggregate_in_place,
)


class PlaneConv(nn.Module):
    """The full 3x3 convolution of Eq. 2-3 over H x T planes (`along` = 2) or T x W planes (`along` = 3), normalised, plus its input.

    An H x T plane with W folded into the batch is a convolution in 3-D whose kernel is 1 along W. Written so it needs no permute: folded
    channels_last frames are a snippet in channels_last_3d, without a copy.
    """

    def __init__(self, channels: int, along: int):
        super().__init__()
        self.along = along
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))  # out, in, T, H or W
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, d: torch.Tensor) -> torch.Tensor:
        """d (G, T, C, H, W) -> Conv3x3(d) + d, (G·T, C, H, W)."""
        if self.bn.training:
            return batch_norm(self.bn, self._conv(d, self.weight), residual=d.flatten(0, 1))
        weight, bias = fold(self.weight, self.bn)
        identity = nn.functional.pad(
            torch.eye(len(weight), dtype=weight.dtype, device=weight.device)[..., None, None],
            (1, 1, 1, 1),
        )
        return self._conv(
            d, weight + identity, bias
        )  # without statistics to take, all of it is one convolution

    def _conv(
        self, d: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        weight, padding = (
            (weight[..., None], (1, 1, 0))
            if self.along == 2
            else (weight[:, :, :, None], (1, 0, 1))
        )
        out = nn.functional.conv3d(
            d.transpose(1, 2), weight, bias, padding=padding
        )  # G, C, T, H, W
        return out.transpose(1, 2).flatten(0, 1)


class IntraSIM(nn.Module):
    """Two branches over the channel halves of a snippet's features.

    The short branch passes the first half I1 on untouched. The long branch weighs the second half I2 by two attention maps that come
    from the temporal differences of neighbouring frames, and then aggregates it over time with kernels predicted from the input.

    Args:
        channels: C of the input; even.
        frames: T, fixed, because the fully connected layers of Eq. 4 have T inputs.
        reduction: r, by which I2 is squeezed before differences are taken.
        min_channels: the least number of squeezed channels; stage 1 of ResNet-50 has only C/2 = 32, of which 1/16 is 2.
        gamma: widening of the hidden layer of Eq. 4.
        kernel_size: k, the number of taps of the learnable kernel; odd.
        bp: bi-directional path; False takes the forward differences only (Table 5).
        ca: coordinate attention over the H x T and T x W views; False takes one map from the squeezed difference itself (Table 5).
        lk: learnable kernels; False takes one static depthwise temporal convolution instead (Table 5).
        kernel_bn: batch normalisation after the first fully connected layer of Eq. 4, which TAM has and the paper does not show.
    """

    def __init__(
        self,
        channels: int,
        frames: int,
        *,
        reduction: int = 16,
        min_channels: int = 4,
        gamma: int = 2,
        kernel_size: int = 3,
        bp: bool = True,
        ca: bool = True,
        lk: bool = True,
        kernel_bn: bool = False,
    ):
        super().__init__()
        if channels % 2:
            raise ValueError(
                f"IntraSIM splits the channels into halves, so their number must be even, not {channels}"
            )
        if kernel_size % 2 == 0:
            raise ValueError(
                f"IntraSIM needs an odd kernel_size to keep the T frames, not {kernel_size}"
            )
        half = channels // 2
        squeezed = min(half, max(half // reduction, min_channels))
        self.frames, self.half, self.kernel_size = frames, half, kernel_size
        self.bp, self.ca, self.lk = bp, ca, lk
        self.squeeze = nn.Sequential(
            nn.Conv2d(half, squeezed, 1, bias=False), nn.BatchNorm2d(squeezed)
        )
        self.neighbour = nn.Conv2d(
            squeezed, squeezed, 3, padding=1, groups=squeezed, bias=False
        )  # Conv3x3 of Eq. 1
        if ca:
            self.view_h = PlaneConv(squeezed, along=2)
            self.view_w = PlaneConv(squeezed, along=3)
            self.recover_h = PointwiseNorm(squeezed, half)
            self.recover_w = PointwiseNorm(squeezed, half)
        else:
            self.recover = PointwiseNorm(squeezed, half)
        if lk:
            hidden = gamma * frames
            norm = [nn.BatchNorm1d(hidden)] if kernel_bn else []
            self.phi1 = nn.Sequential(nn.Linear(frames, hidden, bias=False), *norm)
            self.phi2 = nn.Linear(hidden, kernel_size, bias=False)
        else:
            identity = torch.zeros(half, kernel_size)
            identity[:, kernel_size // 2] = 1.0
            self.static_kernel = nn.Parameter(identity)  # (C/2, k)

    def _squeezed(self, i2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """F and Conv3x3(F) of Eq. 1, both (B·U, T, Cr, H, W)."""
        conv, bn = self.squeeze
        f = batch_norm(bn, conv(i2)) if bn.training else pointwise(i2, *fold(conv.weight, bn))
        return f.unflatten(0, (-1, self.frames)), self.neighbour(f).unflatten(0, (-1, self.frames))

    def differences(self, i2: torch.Tensor) -> list[torch.Tensor]:
        """Eq. 1: i2 (B·U·T, C/2, H, W) -> the forward and, with `bp`, the backward differences, each (B·U, T, C/2r, H, W)."""
        f, g = self._squeezed(i2)
        forward = difference_to_next(f, g, dim=1)
        return [forward, difference_to_previous(f, g, dim=1)] if self.bp else [forward]

    def attention(self, i2: torch.Tensor) -> list[torch.Tensor]:
        """Eq. 2-3: the attention maps, each (B·U·T, C/2, H, W) in (0, 1): [H, W], or one map without coordinate attention."""
        return [torch.sigmoid(logit) for logit in self.attention_logits(i2)]

    def _views(self, i2: torch.Tensor) -> list[tuple[torch.Tensor, PointwiseNorm]]:
        """The averaged difference in each view (B·U·T, C/2r, H, W), with the recovery that makes attention logits of it.

        The paper takes each direction through the views and the recovery and averages then. All of that is linear, so averaging first
        gives the same and costs half. The batch normalisations, which the paper does not show, therefore see the averaged difference.
        """
        f, g = self._squeezed(i2)
        d = mean_difference(f, g) if self.bp else difference_to_next(f, g, dim=1)
        if not self.ca:
            return [(d.flatten(0, 1), self.recover)]
        return [(self.view_h(d), self.recover_h), (self.view_w(d), self.recover_w)]

    def attention_logits(self, i2: torch.Tensor) -> list[torch.Tensor]:
        """The attention maps before the sigmoid."""
        return [recover(view) for view, recover in self._views(i2)]

    def kernels(self, i2: torch.Tensor) -> torch.Tensor:
        """Eq. 4: the temporal kernels (B·U, C/2, k), softmax over k; the static ones (1, C/2, k) without learnable kernels."""
        if not self.lk:
            return self.static_kernel[None]
        pooled = i2.mean((2, 3)).unflatten(0, (-1, self.frames)).transpose(1, 2)  # B·U, C/2, T
        hidden = torch.relu(self.phi1(pooled.flatten(0, 1)))  # B·U·C/2, γT
        return torch.softmax(self.phi2(hidden), -1).unflatten(0, pooled.shape[:2])

    def forward(
        self, x: torch.Tensor, keep: dict | None = None, overwrite: bool = False
    ) -> torch.Tensor:
        """x (B·U·T, C, H, W) -> the same shape (Eq. 6). `keep` receives attention_h, attention_w (or attention) and kernel.

        overwrite: the caller needs x no more, so that scoring on a CPU may write the result over it.
        """
        if overwrite and keep is None and self._may_overwrite(x):
            return self._overwrite(x)
        i1, i2 = x.split(self.half, 1)
        i2 = i2.contiguous(memory_format=torch.channels_last)
        logits, kernel = self.attention_logits(i2), self.kernels(i2)
        if keep is not None:
            names = ("attention_h", "attention_w") if self.ca else ("attention",)
            keep.update(
                {name: torch.sigmoid(logit) for name, logit in zip(names, logits, strict=True)}
            )
            keep["kernel"] = kernel
        rows, *weights = (
            as_rows(tensor).unflatten(0, (-1, self.frames)) for tensor in (i2, *logits)
        )  # B·U, T, H·W/r, r·C/2
        taps = per_row(kernel.permute(2, 0, 1)[:, :, None, None], rows)  # k, B·U, 1, 1, r·C/2
        o2 = weigh_and_aggregate(rows, taps, *weights)  # Eq. 5: K ⊗ (Atten_h ⊙ Atten_w ⊙ I2 + I2)
        return torch.cat([i1, from_rows(o2, i2)], 1)

    def _may_overwrite(self, x: torch.Tensor) -> bool:
        plain = x.dtype == self.squeeze[0].weight.dtype and x.is_contiguous(
            memory_format=torch.channels_last
        )
        keeps = (
            self.training
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
        )
        return x.device.type == "cpu" and plain and not keeps

    def _overwrite(self, x: torch.Tensor) -> torch.Tensor:
        """Eq. 5 written over the second half of x (channels_last): I1 stays where it is, nothing is cut out and put together again."""
        i2 = x[:, self.half :]
        kernel = self.kernels(i2).permute(2, 0, 1)  # k, B·U or 1, C/2
        views = [
            (self._by_snippet(view), *fold(conv.weight.flatten(1), bn))
            for view, (conv, bn) in self._views(i2)
        ]
        weigh_and_aggregate_in_place(self._by_snippet(i2), kernel, views)
        return x

    def _by_snippet(self, x_nchw: torch.Tensor) -> torch.Tensor:
        """(B·U·T, C, H, W) in channels_last -> (B·U, T, H·W, C), a view."""
        return x_nchw.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (-1, self.frames))
