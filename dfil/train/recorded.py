"""On a GPU: a step's loss and gradients, or a forward pass, recorded once and launched as a whole.

DIL's step at the paper's size is 4,600 small operations. A host takes longer to launch them one by
one than a fast card to compute them (177 ms against 68 on an H100 with a slow host), so they are
recorded as a CUDA graph and replayed for all batches of the same shape. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dfil.train import parallel
from dfil.train.devices import precision

FEWEST = 8  # batches for which recording, which takes as long as a few of them, is worth it


class Recorded:
    """A function of tensors, run on the GPU as recorded with its first arguments.

    What it returns must be tensors or None, and what it leaves elsewhere must always be the same
    tensors. Arguments of another shape are not replayed, nor is a function that cannot be recorded
    because it asks the GPU for a number on the way. Autocast belongs inside the function.
    """

    def __init__(self, function: Callable, buffers: Callable = dict, wanted: bool = True):
        self.function, self.buffers, self.wanted = function, buffers, wanted
        self.graph: torch.cuda.CUDAGraph | None = None
        self.given: list[torch.Tensor] = []

    def __call__(self, *given: torch.Tensor) -> tuple[object, bool]:
        """What the function returns, to be used before the next call, and whether by replaying."""
        if self.wanted and given[0].is_cuda:
            self.wanted = False
            self._record(given)
        if self.graph is None or [x.shape for x in given] != [x.shape for x in self.given]:
            return self.function(*given), False
        for mine, x in zip(self.given, given, strict=True):
            mine.copy_(x)
        self.graph.replay()
        return self.out, True

    def _record(self, given: tuple[torch.Tensor, ...]) -> None:
        """Trials leave no trace in the `buffers` by name and in the random numbers."""
        before = {name: value.clone() for name, value in self.buffers()}
        chance = torch.cuda.get_rng_state(given[0].device)
        self.given = [x.clone() for x in given]
        graph, beside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            self.function(*self.given)  # libraries set themselves up in the first call
        torch.cuda.current_stream().wait_stream(beside)
        try:
            # Another thread may meanwhile pin the memory of the next batch.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.out = self.function(*self.given)
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
            print(f"Operations are launched one by one, not as recorded: {why}", flush=True)
        else:
            self.graph = graph
        with torch.no_grad():
            for name, value in self.buffers():
                value.copy_(before[name])
        torch.cuda.set_rng_state(chance, given[0].device)


class Gradients:
    """loss(x, y) -> scalar, with its gradients left in the parameters.

    x (B, U, T, 3, H, W) normalised, y (B,), 1 = fake. Several processes' parts of a batch and
    gradient checkpointing are not recorded.
    """

    def __init__(self, loss: nn.Module, device: torch.device, wanted: bool = True):
        self.loss, self.device = loss, device
        self.left: list[tuple[nn.Parameter, torch.Tensor | None]] = []
        wanted = wanted and parallel.rank_and_world()[1] == 1
        self.recorded = Recorded(self._compute, loss.named_buffers, wanted)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
        """The loss times `weight`, which is 1 but for several processes' parts of a batch."""
        if weight != 1:  # a recording knows one weight
            return self._compute(x, y, weight)
        loss, is_replayed = self.recorded(x, y)
        if not is_replayed:
            return loss
        for parameter, grad in self.left:
            parameter.grad = grad
        return loss.clone()

    def _compute(self, x: torch.Tensor, y: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
        for parameter in self.loss.parameters():
            parameter.grad = None
        with precision(self.device):
            loss = weight * self.loss(x, y)
        loss.backward()
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            self.left = [(p, p.grad) for p in self.loss.parameters()]
        return loss.detach()
