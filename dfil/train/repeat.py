"""What lets a training repeat, and go on where it was interrupted: its sums and its checkpoint."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dfil.profiles import Training
from dfil.system.errors import machine_fault
from dfil.system.files import atomic

PARTS = ("model", "optimiser", "schedule")
LINE = "epoch lr train_loss val_loss val_auc val_accuracy seconds clips best".split()


@contextmanager
def repeatable(settings: Training) -> Iterator[None]:
    """Let a run's sums not depend on the machine's number of cores, and on a GPU not on chance.

    CPU: `settings.threads` threads, whatever this process had; with the same number, kind of
    processor and versions a run repeats bit for bit. GPU: data, order, dropout and flips repeat
    always. Sums do not: torch's backward passes of indexing and interpolation add in any order,
    cuDNN chooses its algorithms by timing, and all is in bfloat16. `settings.deterministic` has
    torch take its slower deterministic algorithms and warn of an operation that has none; that the
    same kind of card then gives the same bits has not been tried yet.
    """
    threads = torch.get_num_threads()
    algorithms = torch.are_deterministic_algorithms_enabled()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(algorithms)


def save(training, path: Path) -> None:
    """Write all that the next epoch of a training (loop._State) needs."""
    with atomic(path) as temporary:
        torch.save(_state(training), temporary)


def load(training, path: Path) -> None:
    """Go on from a checkpoint. A damaged one is named and removed: the training begins anew."""
    before = copy.deepcopy(_state(training))
    try:
        _take(training, torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # of a damaged file torch raises whatever its bytes lead to
        if machine_fault(error):
            raise
        print(f"{path}: damaged; this training begins anew.", file=sys.stderr, flush=True)
        _take(training, before)
        path.unlink(missing_ok=True)  # another process of the same training may have been first


def _state(training) -> dict:
    state = {name: getattr(training, name).state_dict() for name in PARTS}
    state |= {"history": training.history, "kept": training.kept, "random": torch.get_rng_state()}
    if training.device.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state_all()
    return state


def _take(training, state: dict) -> None:
    history, kept = list(state["history"]), dict(state["kept"])
    numbers = [line[name] for line in history for name in LINE]
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("the history holds no numbers")
    if kept and kept.keys() != training.model.state_dict().keys():
        raise ValueError("the weights that were kept are of another model")
    for name in PARTS:
        getattr(training, name).load_state_dict(state[name])
    torch.set_rng_state(state["random"])
    if training.device.type == "cuda" and "random_cuda" in state:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    training.history, training.kept = history, kept
