"""Inter-SIM, the Inter-Snippet Interaction Module (Eq. 7-11): what the snippets of one video tell each other."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.ops import (
    as_rows,
    difference_to_next,
    difference_to_previous,
    from_rows,
    per_row,
    shift_multiply_add,
)


class InterSIM(nn.Module):
    """Weighs every position of the U x T plane by two attentions on the pooled features, then convolves along the snippets.

    Args:
        channels: C of the input.
        frames: T, needed to unfold the batch; the number of snippets U is free at run time.
        reduction: r of Eq. 7 and of the squeeze before Eq. 8.
        min_channels: the least number of squeezed channels.
        conv_u: Conv_U of Eq. 11, `depthwise` (its taps start as the identity, so that pretrained features survive) or `full` (C x C x 3,
            also started as the identity).
    """

    def __init__(
        self,
        channels: int,
        frames: int,
        *,
        reduction: int = 16,
        min_channels: int = 4,
        conv_u: str = "depthwise",
    ):
        super().__init__()
        if conv_u not in ("depthwise", "full"):
            raise ValueError(f"InterSIM: conv_u is 'depthwise' or 'full', not {conv_u!r}")
        squeezed = min(channels, max(channels // reduction, min_channels))
        self.frames, self.conv_u = frames, conv_u
        # The pooled map is (B, C, U, T): a 3x1 kernel runs along the snippets, a 1x3 kernel along the frames of one snippet.
        self.branch1 = nn.Sequential(
            nn.Conv2d(channels, squeezed, (3, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(squeezed),
            nn.Conv2d(squeezed, channels, 1, bias=False),
        )
        self.squeeze = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.within = nn.Conv2d(squeezed, squeezed, (1, 3), padding=(0, 1), bias=False)
        self.neighbour = nn.Conv2d(
            squeezed, squeezed, (1, 3), padding=(0, 1), groups=squeezed, bias=False
        )  # Conv1x3 of Eq. 8-9
        self.recover = nn.Conv2d(squeezed, channels, 1, bias=False)
        if conv_u == "depthwise":
            taps = torch.zeros(channels, 3)
            taps[:, 1] = 1.0
        else:
            taps = torch.zeros(channels, channels, 3)
            taps[:, :, 1] = torch.eye(channels)
        self.taps_u = nn.Parameter(taps)  # (C, 3) or (C, C, 3)

    def attention(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Eq. 7-10: pooled (B, C, U, T) -> F1, F2, both (B, C, U, T) in (0, 1)."""
        f1 = torch.sigmoid(self.branch1(pooled))
        f_hat = self.within(self.squeeze(pooled))
        neighbour = self.neighbour(f_hat)
        both = difference_to_next(f_hat, neighbour, dim=2) + difference_to_previous(
            f_hat, neighbour, dim=2
        )
        return f1, torch.sigmoid(self.recover(both))

    def forward(self, x: torch.Tensor, snippets: int, keep: dict | None = None) -> torch.Tensor:
        """x (B·U·T, C, H, W), snippets = U -> the same shape (Eq. 11). `keep` receives f1, f2 and ut_map (B, U, T) = mean_C F1 ⊙ F2."""
        pooled = (
            x.mean((2, 3)).unflatten(0, (-1, snippets, self.frames)).permute(0, 3, 1, 2)
        )  # B, C, U, T
        f1, f2 = self.attention(pooled)
        product = f1 * f2
        if keep is not None:
            keep.update(f1=f1, f2=f2, ut_map=product.mean(1))
        weight = (1 + product).permute(
            0, 2, 3, 1
        )  # B, U, T, C: F1 ⊙ F2 ⊙ F + F = (1 + F1 ⊙ F2) ⊙ F
        if self.conv_u == "full":
            return self._full(
                weight[..., None, None] * x.unflatten(0, (-1, snippets, self.frames))
            ).flatten(0, 2)
        # Conv_U acts on weight · F: folding the weight into the taps leaves one pass over the activations instead of two.
        centre = (
            self.taps_u.t()[:, None, None, None] * weight
        )  # 3, B, U, T, C, at the position it is read from
        before = torch.cat(
            [torch.zeros_like(centre[0, :, :1]), centre[0, :, :-1]], 1
        )  # moved to the position it is written to
        after = torch.cat([centre[2, :, 1:], torch.zeros_like(centre[2, :, :1])], 1)
        rows = as_rows(x)
        taps = per_row(
            torch.stack([before, centre[1], after])[..., None, :], rows
        )  # 3, B, U, T, 1, r·C
        return from_rows(
            shift_multiply_add(rows.unflatten(0, (-1, snippets, self.frames)), taps), x
        )

    def _full(self, weighed: torch.Tensor) -> torch.Tensor:
        """Conv_U as a full C x C x 3 convolution along U: (B, U, T, C, H, W) -> the same shape."""
        b, u, t, c, h, w = weighed.shape
        rows = weighed.permute(0, 2, 4, 5, 3, 1).reshape(-1, c, u)
        out = nn.functional.conv1d(rows, self.taps_u, padding=1)
        return out.reshape(b, t, h, w, c, u).permute(0, 5, 1, 4, 2, 3)
