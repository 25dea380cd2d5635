"""Where the networks compute, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def pick_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, its convolutions' weights in the memory order of channels-last."""
    model.to(device)
    nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    nn.utils.convert_conv3d_weight_memory_format(model, torch.channels_last_3d)


_full = False


def full_precision() -> None:
    """From now on this process computes in float32 on a GPU too, so that its results are those of
    a CPU but for the order of sums."""
    global _full
    _full = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def autocast_type(device: torch.device) -> torch.dtype:
    """What the networks compute in: bfloat16 on a GPU, float32 on a CPU or after full_precision."""
    return torch.bfloat16 if device.type == "cuda" and not _full else torch.float32


@contextmanager
def precision(device: torch.device) -> Iterator[None]:
    """Autocast to `autocast_type`. Casts are not kept: no weight is used twice in a pass, and what
    is kept from outside cannot be recorded (recorded.py)."""
    low = autocast_type(device) == torch.bfloat16
    with torch.autocast(device.type, torch.bfloat16, enabled=low, cache_enabled=False):
        yield
