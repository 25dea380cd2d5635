"""Query pooling (QTFP, CVPR 2026) over all of a video, in the place of DIL's average pooling.

K learnt queries attend over all P = U T H W positions p = (u, t, h, w) of the last map x:

    a_p = 1/K sum_k softmax_p(q_k . x_p / sqrt(C))          z = sum_p a_p x_p

Where all a_p are 1/P, z is the average. a is a map of where and when the model looks.

Readings: a position is its own key and value, without projections, in one head. The queries start
near zero, so that a training begins with nearly the average, and apart, as equal ones would stay
equal. A frame's features are g_ut = U T sum_hw a_p x_p: their mean is z, so that the mean of the
frames' logits is the video's, as without queries.
"""

from __future__ import annotations

import torch
from torch import nn


class QueryPooling(nn.Module):
    """See the module. channels: C. queries: K."""

    def __init__(self, channels: int, queries: int):
        super().__init__()
        self.queries_kc = nn.Parameter(0.02 * torch.randn(queries, channels))

    def forward(self, maps: torch.Tensor, keep: dict | None = None) -> torch.Tensor:
        """maps (B, U, T, C, H, W) -> the frames' features (B, U, T, C). `keep` receives query_map,
        a (B, U, T, H, W), of which a video's sum to 1."""
        u, t, c = maps.shape[1:4]
        scores = torch.einsum("butchw,kc->bkuthw", maps, self.queries_kc) / c**0.5
        weights = scores.flatten(2).softmax(2).unflatten(2, scores.shape[2:]).mean(1)
        if keep is not None:
            keep["query_map"] = weights
        return u * t * torch.einsum("butchw,buthw->butc", maps, weights.to(maps.dtype))
