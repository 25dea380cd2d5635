"""The training loop that all methods share: Adam, cross-entropy, selection by validation videos."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from dfil.models import Detector
from dfil.models.resnet import ResNet
from dfil.profiles import Training
from dfil.system.errors import DivergedError
from dfil.system.memory import reuse_freed_memory
from dfil.system.progress import progress_bar
from dfil.train import parallel, repeat
from dfil.train.averaged import new_statistics
from dfil.train.devices import pick_device, place, precision
from dfil.train.recorded import Gradients
from dfil.train.scoring import loader
from dfil.train.snippets import SnippetDataset, batches, normalise
from dfil.train.validation import JUDGED_BY, UNKNOWN, check, is_validated, validate

# Set: gradient checkpointing, less memory for more time and the same result, so no part of a run.
CHECKPOINT = "DFIL_CHECKPOINT"


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

    Returns one dict per epoch: epoch, lr, train_loss, val_loss, val_auc, val_accuracy (not numbers
    where an epoch was not validated, `is_validated`), seconds, clips (seen so far), best (so far)
    and kept (whether the weights left are this epoch's, or their mean has them).

    Raises RunError for settings that do not exist or if the validation split lacks a class, and
    DivergedError, which is one, if the loss stops being a number.
    """
    check(settings, val_data, label)
    reuse_freed_memory()
    device = device or pick_device()
    with repeat.repeatable(settings):
        state = _State(model, train_data, settings, seed, device, label)
        if checkpoint and checkpoint.is_file():
            repeat.load(state, checkpoint)
        for epoch in range(len(state.history), settings.epochs):
            begun = time.perf_counter()
            loss = state.learn(epoch)
            found = UNKNOWN
            if is_validated(epoch, settings):
                found = parallel.in_first_process(validate, model, val_data, settings.batch, device)
            state.judge(epoch, loss, found, begun)
            if checkpoint and parallel.is_first():
                repeat.save(state, checkpoint)
        return state.end()


class _State:
    """A training under way: what learns, from what and how, and what a checkpoint keeps of it."""

    def __init__(self, model, data, settings: Training, seed: int, device, label: str):
        self.model, self.data, self.settings, self.seed = model, data, settings, seed
        self.device, self.label = device, label
        place(model, device)
        backbone, checkpoint = getattr(model, "backbone", None), bool(os.environ.get(CHECKPOINT))
        if checkpoint and isinstance(backbone, ResNet):
            backbone.checkpoint = True
        how = {"redraw": settings.redraw, "balance": settings.balance}
        draws = (np.random.default_rng([seed, epoch]) for epoch in range(settings.epochs))
        self.plan = [
            batches(data.rows, settings.batch, settings.paired, rng, **how) for rng in draws
        ]
        self.criterion = parallel.shared_loss(model, device)
        self.gradients = Gradients(self.criterion, device, wanted=not checkpoint)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
        self.schedule = _schedule(self.optimiser, settings, sum(map(len, self.plan)))
        self.history: list[dict] = []
        self.kept: dict[str, torch.Tensor] = {}  # the weights that the training ends with

    def learn(self, epoch: int) -> float:
        """Go once through the training videos; their mean loss."""
        (rank, world), losses = parallel.rank_and_world(), []
        self.data.epoch, plan, begun = epoch, self.plan[epoch], time.perf_counter()
        self.criterion.train()
        if world > 1:  # every process its own dropout, also after resuming
            torch.manual_seed((self.seed * self.settings.epochs + epoch) * world + rank)
        parts = [parallel.part_of(batch, rank, world) for batch in plan]
        title = f"{self.label}, epoch {epoch + 1}/{self.settings.epochs}"
        feed = loader(self.data, [mine for mine, _ in parts], self.device)
        bar = progress_bar(feed, desc=title, quiet=rank > 0)
        for (x, y, _), (_, weight) in zip(bar, parts, strict=True):
            losses.append(self.step(x, y, weight))
            if rank == epoch == 0 and len(losses) == 5:
                minutes = (time.perf_counter() - begun) / 5 * sum(map(len, self.plan)) / 60
                about = f"about {max(minutes, 0.1):.1f} min and the validation"
                print(f"{self.label}: {self.settings.epochs} epochs, {about}", flush=True)
        sizes = [len(batch) for batch in plan]
        loss = float(np.average(parallel.mean_over_processes(losses), weights=sizes))
        if not math.isfinite(loss):
            raise DivergedError(
                f"{self.label}: the training loss is {loss} in epoch {epoch + 1}; lower the "
                f"learning rate ({self.settings.lr:g})"
            )
        return loss

    def step(self, x: torch.Tensor, y: torch.Tensor, weight: float) -> torch.Tensor:
        """One update: x (B, U, T, 3, H, W) uint8, y (B,); the loss times the process's weight."""
        x, y = x.to(self.device, non_blocking=True), y.to(self.device)
        loss = self.gradients(normalise(x), y, weight)
        self.optimiser.step()
        if self.settings.schedule == "one-cycle":
            self.schedule.step()
        return loss

    def judge(self, epoch: int, train_loss: float, validated: dict, begun: float) -> None:
        """Write an epoch's line into the history, and keep its weights if they are to be kept."""
        settings, worth = self.settings, JUDGED_BY[self.settings.best_by]
        if settings.schedule == "plateau":
            falls = settings.plateau_on == "loss"
            self.schedule.step(-validated["val_loss"] if falls else validated["val_auc"])
        rate = self.optimiser.param_groups[0]["lr"]
        line = {"epoch": epoch + 1, "lr": rate, "train_loss": train_loss, **validated}
        line["seconds"] = time.perf_counter() - begun
        line["clips"] = sum(len(batch) for plan in self.plan[: epoch + 1] for batch in plan)
        judged = [before for before in (*self.history, line) if not math.isnan(before["val_auc"])]
        line["best"] = line in judged and all(worth(line) > worth(b) for b in judged[:-1])
        self.history.append(line)

        weights = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        nth = epoch + 1 - settings.epochs + _window(settings)  # of those that are averaged
        if settings.keep == "best" and line["best"]:
            self.kept = weights
        elif settings.keep == "average" and nth > 0:
            self.kept = {
                k: torch.lerp(self.kept.get(k, v), v, 1 / nth) if v.is_floating_point() else v
                for k, v in weights.items()
            }

    def end(self) -> list[dict]:
        """Leave in the model the weights that were kept, and say in the history whose they are."""
        if self.kept:
            self.model.load_state_dict(self.kept)
        if self.settings.keep == "average":
            self.criterion.train()
            self.data.epoch = self.settings.epochs - 1  # as learnt from last, also after resuming
            feed = loader(self.data, self.plan[-1], self.device)
            with precision(self.device):
                new_statistics(self.model, (normalise(x.to(self.device)) for x, _, _ in feed))
        best = max(line["epoch"] for line in self.history if line["best"])
        first = len(self.history) - _window(self.settings) + 1
        for epoch, line in enumerate(self.history, 1):
            line["kept"] = epoch == best if self.settings.keep == "best" else epoch >= first
        return self.history


def _window(settings: Training) -> int:
    """How many of the last epochs' weights are kept where it is not the best one's."""
    return min(settings.averaged, settings.epochs) if settings.keep == "average" else 1


def _schedule(optimiser: torch.optim.Optimizer, settings: Training, steps: int):
    if settings.schedule == "one-cycle":
        return OneCycleLR(optimiser, max_lr=settings.lr, total_steps=max(steps, 5), pct_start=0.25)
    how = {"patience": settings.patience, "min_lr": settings.lowest_lr, "threshold": 0.0}
    return ReduceLROnPlateau(optimiser, "max", factor=0.1, threshold_mode="abs", **how)
