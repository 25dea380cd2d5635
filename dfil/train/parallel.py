"""One training shared by several processes, as `torchrun` starts them; alone, all this does
nothing.

Each process takes its part of every batch, and the gradients are averaged to those of the whole
batch. So the result is that of one process, to rounding, but for two things. Batch normalisation
sees the whole batch on GPUs (SyncBatchNorm); on CPUs torch has no such layer, and each process
normalises by its own part. And dropout draws other masks. A loss that is not a mean over videos
is averaged over the parts, weighted by their numbers of videos.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

LONGEST_WAIT = timedelta(hours=24)  # one process may cut a whole dataset's crops; the others wait


@contextmanager
def processes() -> Iterator[int]:
    """Join the processes that torchrun started, on NCCL with one GPU each or on gloo.

    Yields this process's rank, 0 without torchrun.
    """
    if "LOCAL_RANK" not in os.environ:
        yield 0
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Convolutions with one input pixel leave it open which memory order their gradient has; the
    # buckets are right either way.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    distributed.init_process_group("nccl" if gpu else "gloo", timeout=LONGEST_WAIT)
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process computes for itself, whatever others do: only one of them need come
    here, where everything that is done together would wait for all."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def _together() -> bool:
    return distributed.is_initialized() and not _alone


def rank_and_world() -> tuple[int, int]:
    """Which of how many processes of one training this is: (0, 1) outside `processes`."""
    if not _together():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def is_first() -> bool:
    """Whether this is the process that validates, writes and speaks."""
    return rank_and_world()[0] == 0


def in_first_process(function: Callable, *arguments) -> object:
    """function(*arguments), called in the first process only, and its result in all of them."""
    result = [function(*arguments) if is_first() else None]
    if _together():
        distributed.broadcast_object_list(result, src=0)
    return result[0]


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if _together():
        distributed.barrier()


def shared_loss(model: nn.Module, device: torch.device) -> nn.Module:
    """A module that maps (x, y) to `model.loss(x, y)` and averages the gradients over processes."""
    if not _together():
        return _Loss(model)
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(_Loss(model))


class _Loss(nn.Module):
    """`model.loss` as a forward pass, which is what DistributedDataParallel watches."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.model.loss(x, y)


def part_of(batch: list[int], rank: int, world: int) -> tuple[list[int], float]:
    """(videos, w): the videos of a batch that one process takes, and the weight w of its loss L.

    The mean of w L over the processes is the mean over the whole batch. Where there are more
    processes than videos, some take the first video too, at weight 0, because all must take part.
    """
    mine = batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]
    return mine or batch[:1], len(mine) * world / len(batch)


def mean_over_processes(losses: list[torch.Tensor]) -> list[float]:
    """Of each step's loss."""
    steps_n = torch.stack(losses)
    if _together():
        distributed.all_reduce(steps_n)
    return (steps_n / rank_and_world()[1]).tolist()
