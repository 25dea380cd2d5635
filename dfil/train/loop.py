"""The training loop that all methods share: Adam, cross-entropy, selection by validation videos."""

from __future__ import annotations

import copy
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from dfil.models import Detector
from dfil.models.resnet import ResNet
from dfil.profiles import Training
from dfil.system.errors import RunError, machine_fault
from dfil.system.files import atomic
from dfil.system.memory import keep_freed
from dfil.train.parallel import (
    in_first_process,
    is_first,
    mean_over_processes,
    part_of,
    rank_and_world,
    shared_loss,
)
from dfil.train.scoring import loader, pick_device, place, precision, score
from dfil.train.snippets import SnippetDataset, batches, normalise

# Set: gradient checkpointing, less memory for more time and the same result, so no part of a run.
CHECKPOINT = "DFIL_CHECKPOINT"
KEEP = ("best", "last", "average")
LINE = "epoch lr train_loss val_loss val_auc val_accuracy seconds clips best".split()
# What an epoch is judged by, the larger the better; equals are decided by the next one.
JUDGED_BY = {
    "auc": lambda h: (h["val_auc"], -h["val_loss"]),
    "loss": lambda h: (-h["val_loss"],),
    "accuracy": lambda h: (h["val_accuracy"], -h["val_loss"]),
}


@contextmanager
def repeatable(settings: Training) -> Iterator[None]:
    """Let a run's sums not depend on the machine's number of cores, and on a GPU not on chance.

    CPU: `settings.threads` threads, whatever this process had; with the same number, kind of
    processor and versions a run repeats bit for bit, alone or beside others.
    GPU: data, order, dropout and flips repeat always. Sums do not: torch's backward passes of
    indexing and interpolation add in any order, cuDNN chooses its algorithms by timing, and all is
    in bfloat16. `settings.deterministic` has torch take its deterministic algorithms, which are
    slower, and warn of an operation that has none; then a run should repeat bit for bit on the same
    kind of card and the same versions. That has not been tried on a card yet. Another kind of card,
    or a CPU, never gives the same bits.
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


def train(
    model: Detector,
    train_data: SnippetDataset,
    val_data: SnippetDataset,
    settings: Training,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    device: torch.device | None = None,
    label: str = "training",
) -> list[dict]:
    """Train `model` in place and leave in it the weights that `settings.keep` names.

    `checkpoint`, written after each epoch, holds all that the next one needs; a second call with
    the same file goes on where it ended and arrives where an uninterrupted training would have.
    Inside `parallel.processes`, all of them call this with the same arguments and end with the same
    weights; the first one validates and writes.

    Returns one dict per epoch: epoch, lr, train_loss, val_loss, val_auc, val_accuracy, seconds,
    clips (seen so far), best (so far) and kept (whether the weights left are this epoch's, or their
    mean has them). Raises RunError for settings that do not exist, if the loss stops being a
    number, or if the validation split lacks a class.
    """
    with repeatable(settings):
        return _train(model, train_data, val_data, settings, seed, checkpoint, device, label)


def _train(model, train_data, val_data, settings, seed, checkpoint, device, label) -> list[dict]:
    keep_freed()
    _check(settings, val_data, label)
    device, (rank, world) = device or pick_device(), rank_and_world()
    place(model, device)
    backbone = getattr(model, "backbone", None)
    if os.environ.get(CHECKPOINT) and isinstance(backbone, ResNet):
        backbone.checkpoint = True
    criterion = shared_loss(model, device)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
    plan = [
        batches(
            train_data.rows,
            settings.batch,
            settings.paired,
            np.random.default_rng([seed, e]),
            redraw=settings.redraw,
            balance=settings.balance,
        )
        for e in range(settings.epochs)
    ]
    steps = sum(map(len, plan))
    schedule = _schedule(optimiser, settings, steps)
    state = _State(model, optimiser, schedule, device)
    if checkpoint is not None and checkpoint.is_file():
        state.load(checkpoint)
    history = state.history

    for epoch in range(len(history), settings.epochs):
        start, losses = time.perf_counter(), []
        train_data.epoch = epoch
        criterion.train()
        if world > 1:  # every process its own dropout, also after resuming
            torch.manual_seed((seed * settings.epochs + epoch) * world + rank)
        mine, weights = zip(*(part_of(batch, rank, world) for batch in plan[epoch]), strict=True)
        feed = loader(train_data, list(mine), device)
        title = f"{label}, epoch {epoch + 1}/{settings.epochs}"
        bar = tqdm(feed, desc=title, disable=rank > 0 or None, leave=False)
        for (x, y, _), weight in zip(bar, weights, strict=True):
            x, y = x.to(device, non_blocking=True), y.to(device)
            with precision(device):
                loss = weight * criterion(normalise(x), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if settings.schedule == "one-cycle":
                schedule.step()
            losses.append(loss.detach())
            if rank == epoch == 0 and len(losses) == 5:
                minutes = max((time.perf_counter() - start) / 5 * steps / 60, 0.1)
                about = f"{settings.epochs} epochs, about {minutes:.1f} min and the validation"
                print(f"{label}: {about}", flush=True)

        sizes = [len(batch) for batch in plan[epoch]]
        train_loss = float(np.average(mean_over_processes(losses), weights=sizes))
        if not math.isfinite(train_loss):
            raise RunError(
                f"{label}: the training loss is {train_loss} in epoch {epoch + 1}; lower the "
                f"learning rate ({settings.lr:g})"
            )
        line = {"epoch": epoch + 1, "lr": optimiser.param_groups[0]["lr"], "train_loss": train_loss}
        line |= in_first_process(_validate, model, val_data, settings.batch, device)
        if settings.schedule == "plateau":
            schedule.step(line["val_auc"] if settings.plateau_on == "auc" else -line["val_loss"])
            line["lr"] = optimiser.param_groups[0]["lr"]
        judge = JUDGED_BY[settings.best_by]
        line["seconds"] = time.perf_counter() - start
        line["clips"] = (history[-1]["clips"] if history else 0) + sum(sizes)
        line["best"] = not history or judge(line) > max(map(judge, history))
        state.keep(line, settings)
        history.append(line)
        if checkpoint is not None and is_first():
            state.save(checkpoint)

    if state.kept:
        model.load_state_dict(state.kept)
    if settings.keep == "average":
        feed = loader(train_data, plan[-1], device)
        criterion.train()
        with precision(device):
            update_bn((normalise(x.to(device)) for x, _, _ in feed), model)
    best = max(range(len(history)), key=lambda e: history[e]["best"] * (e + 1))
    for epoch, line in enumerate(history):
        last = len(history) - epoch  # 1 for the last one
        line["kept"] = epoch == best if settings.keep == "best" else last <= _window(settings)
    return history


def _window(settings: Training) -> int:
    """How many of the last epochs' weights are kept where it is not the best one's."""
    return min(settings.averaged, settings.epochs) if settings.keep == "average" else 1


class _State:
    """What a training goes on from: model, optimiser, schedule, random state, history, weights."""

    def __init__(self, model, optimiser, schedule, device: torch.device):
        self.parts = {"model": model, "optimiser": optimiser, "schedule": schedule}
        self.device, self.history, self.kept = device, [], {}

    def keep(self, line: dict, settings: Training) -> None:
        """Take the weights after an epoch if they belong to those that `settings.keep` names."""
        weights = {k: v.detach().cpu() for k, v in self.parts["model"].state_dict().items()}
        first = settings.epochs - _window(settings) + 1  # of those that are averaged
        if settings.keep == "best" and line["best"]:
            self.kept = {k: v.clone() for k, v in weights.items()}
        elif settings.keep == "average" and line["epoch"] >= first:
            share = 1 / (line["epoch"] - first + 1)
            self.kept = {
                k: torch.lerp(self.kept.get(k, v), v, share) if v.is_floating_point() else v.clone()
                for k, v in weights.items()
            }

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"history": self.history, "kept": self.kept, "random": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state_all()
        with atomic(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint;

        one that is damaged is named, removed, and training begins anew.
        """
        before = copy.deepcopy({name: part.state_dict() for name, part in self.parts.items()})
        random_before = torch.get_rng_state()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            torch.set_rng_state(state["random"])
            history, kept = state["history"], dict(state["kept"])
            numbers = [line[name] for line in history for name in LINE]
            if not all(isinstance(number, int | float) for number in numbers):
                raise ValueError("the history holds no numbers")
            if kept and kept.keys() != before["model"].keys():
                raise ValueError("the weights that were kept are of another model")
        except Exception as error:  # of a damaged file torch raises whatever its bytes lead to
            if machine_fault(error):
                raise
            print(f"{path}: damaged; this training begins anew.", file=sys.stderr, flush=True)
            for name, part in self.parts.items():
                part.load_state_dict(before[name])
            torch.set_rng_state(random_before)
            path.unlink()
            return
        self.history[:], self.kept = history, kept
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state_all(state["random_cuda"])


def _check(settings: Training, val_data: SnippetDataset, label: str) -> None:
    choices = {
        "schedule": ("plateau", "one-cycle"),
        "plateau_on": ("loss", "auc"),
        "keep": KEEP,
        "best_by": tuple(JUDGED_BY),
    }
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            raise RunError(
                f"no {name} is called {getattr(settings, name)!r}; choose {', '.join(known)}"
            )
    if len(set(val_data.rows["label"])) < 2:
        raise RunError(
            f"{label}: the validation split needs real and fake videos to select by; it has "
            f"{len(val_data)} of one class"
        )


def _schedule(optimiser: torch.optim.Optimizer, settings: Training, steps: int):
    if settings.schedule == "one-cycle":
        return OneCycleLR(optimiser, max_lr=settings.lr, total_steps=max(steps, 5), pct_start=0.25)
    return ReduceLROnPlateau(
        optimiser,
        mode="max",
        factor=0.1,
        patience=settings.patience,
        threshold_mode="abs",
        min_lr=settings.lowest_lr,
    )


def _validate(model: Detector, data: SnippetDataset, batch: int, device: torch.device) -> dict:
    """AUC, accuracy and mean cross-entropy of the validation videos."""
    rows = score(model, data, batch=batch, device=device)
    logits_n = torch.tensor(rows["logit"].tolist())
    labels_n = torch.tensor(rows["label"].tolist()).float()
    if not torch.isfinite(logits_n).all():
        raise RunError("a validation logit is not a number; lower the learning rate")
    return {
        "val_loss": float(binary_cross_entropy_with_logits(logits_n, labels_n)),
        "val_auc": float(roc_auc_score(labels_n, logits_n)),
        "val_accuracy": float(((logits_n >= 0) == (labels_n == 1)).float().mean()),
    }
