"""Batch statistics for weights that are the mean of several epochs'."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn


def new_statistics(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Take the running statistics of batch normalisation anew from batches as `model` takes them.

    Layers that stay in evaluation mode in training, such as those of a frozen face recogniser, keep
    theirs: torch's function would wipe them and put nothing in their place.
    """
    model.train()
    frozen = [m for m in model.modules() if isinstance(m, _BatchNorm) and not m.training]
    for layer in frozen:
        layer.reset_running_stats = lambda: None
    try:
        update_bn(batches, model)
    finally:
        for layer in frozen:
            del layer.reset_running_stats
