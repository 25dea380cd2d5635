"""The last layer of a method, in full precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


class Logit(nn.Linear):
    """A method's last layer, (..., C) -> (..., 1), never in bfloat16: on its grid, 1/16 wide from 8
    to 16, the logits of many videos would be the same and tie in the AUC."""

    def __init__(self, channels: int):
        super().__init__(channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with exactly(features):
            return super().forward(features.to(self.weight.dtype))


def exactly(x: torch.Tensor) -> AbstractContextManager:
    """A context in which autocast leaves computations on x's device as they are."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
