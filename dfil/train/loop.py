"""The training loop that all methods share: Adam, binary cross-entropy, selection on the validation split only."""

from __future__ import annotations

import copy
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from tqdm import tqdm

from dfil.models import Detector
from dfil.models.resnet import ResNet
from dfil.profiles import Training
from dfil.system.errors import RunError
from dfil.system.files import atomic
from dfil.system.memory import keep_freed
from dfil.train.parallel import (
    in_first_process,
    mean_over_processes,
    part_of,
    rank_and_world,
    shared_loss,
)
from dfil.train.scoring import loader, pick_device, place, precision, score
from dfil.train.snippets import SnippetDataset, batches, normalise

CHECKPOINT = "DFIL_CHECKPOINT"  # set: gradient checkpointing, less memory for more time and the same result, so it is no part of a run


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
    """Train `model` in place and leave in it the weights of the epoch with the best validation score.

    The validation score is the AUC of the validation videos; equal AUCs are decided by the smaller validation loss. `checkpoint`,
    written after each epoch, holds model, best weights, optimiser, schedule and random states; a second call with the same file goes on
    where it ended and arrives where an uninterrupted training would have. Inside `processes`, all of them call this with the same
    arguments and end with the same weights; the first one validates and writes.

    Returns one dict per epoch: epoch, lr, train_loss, val_loss, val_auc, seconds, clips (seen so far), best (so far).
    Raises RunError if the loss stops being a number or the validation split lacks a class.
    """
    keep_freed()
    device, (rank, world) = device or pick_device(), rank_and_world()
    place(model, device)
    if os.environ.get(CHECKPOINT) and isinstance(
        backbone := getattr(model, "backbone", None), ResNet
    ):
        backbone.checkpoint = True
    criterion = shared_loss(model, device)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
    plan = [
        batches(train_data.rows, settings.batch, settings.paired, np.random.default_rng([seed, e]))
        for e in range(settings.epochs)
    ]
    schedule = _schedule(optimiser, settings, steps=sum(map(len, plan)))
    history: list[dict] = []
    best: dict[str, torch.Tensor] = {}
    if checkpoint is not None and checkpoint.is_file():
        history, best = _resume(checkpoint, model, optimiser, schedule, device)
    if len(set(val_data.rows["label"])) < 2:
        raise RunError(
            f"{label}: the validation split needs real and fake videos to select by; it has {len(val_data)} of one class"
        )

    for epoch in range(len(history), settings.epochs):
        start, losses = time.perf_counter(), []
        train_data.epoch = epoch
        criterion.train()
        if world > 1:
            torch.manual_seed(
                (seed * settings.epochs + epoch) * world + rank
            )  # every process its own dropout, also after resuming
        shares, weights = zip(*(part_of(batch, rank, world) for batch in plan[epoch]), strict=True)
        feed, title = (
            loader(train_data, list(shares), device),
            f"{label}, epoch {epoch + 1}/{settings.epochs}",
        )
        for (x, y, _), weight in zip(
            tqdm(feed, desc=title, disable=rank > 0 or None, leave=False), weights, strict=True
        ):
            with precision(device):
                loss = weight * criterion(normalise(x.to(device, non_blocking=True)), y.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if settings.schedule == "one-cycle":
                schedule.step()
            losses.append(loss.detach())
            if rank == epoch == 0 and len(losses) == 5:
                minutes = (time.perf_counter() - start) / 5 * sum(map(len, plan)) / 60
                print(
                    f"{label}: {settings.epochs} epochs, about {max(minutes, 0.1):.1f} min and the validation",
                    flush=True,
                )
        train_loss = float(
            np.average(mean_over_processes(losses), weights=[len(batch) for batch in plan[epoch]])
        )
        if not math.isfinite(train_loss):
            raise RunError(
                f"{label}: the training loss is {train_loss} in epoch {epoch + 1}; lower the learning rate ({settings.lr:g})"
            )
        auc, val_loss = in_first_process(_validate, model, val_data, settings.batch, device)
        if settings.schedule == "plateau":
            schedule.step(auc)
        is_best = not history or (auc, -val_loss) > max(
            (h["val_auc"], -h["val_loss"]) for h in history
        )
        if is_best:
            best = copy.deepcopy({k: v.detach().cpu() for k, v in model.state_dict().items()})
        history.append(
            {
                "epoch": epoch + 1,
                "lr": optimiser.param_groups[0]["lr"],
                "train_loss": train_loss,
                "val_loss": val_loss,
                "val_auc": auc,
                "seconds": time.perf_counter() - start,
                "clips": (history[-1]["clips"] if history else 0) + sum(map(len, plan[epoch])),
                "best": is_best,
            }
        )
        if checkpoint is not None and rank == 0:
            _save(checkpoint, model, best, optimiser, schedule, history)
    model.load_state_dict(best)
    return history


def _schedule(optimiser: torch.optim.Optimizer, settings: Training, steps: int):
    if settings.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, mode="max", factor=0.1, patience=settings.patience
        )
    if settings.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=settings.lr, total_steps=steps, pct_start=0.25
        )
    raise RunError(f"no schedule is called {settings.schedule!r}; choose 'plateau' or 'one-cycle'")


def _validate(
    model: Detector, data: SnippetDataset, batch: int, device: torch.device
) -> tuple[float, float]:
    """AUC and mean cross-entropy of the validation videos."""
    rows = score(model, data, batch=batch, device=device)
    logits, labels = (
        torch.tensor(rows["logit"].tolist()),
        torch.tensor(rows["label"].tolist()).float(),
    )
    if not torch.isfinite(logits).all():
        raise RunError("a validation logit is not a number; lower the learning rate")
    return float(roc_auc_score(labels, logits)), float(
        nn.functional.binary_cross_entropy_with_logits(logits, labels)
    )


def _save(path: Path, model, best, optimiser, schedule, history) -> None:
    state = {
        "model": model.state_dict(),
        "best": best,
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "history": history,
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with atomic(path) as temporary:
        torch.save(state, temporary)


def _resume(path: Path, model, optimiser, schedule, device) -> tuple[list[dict], dict]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["random"])
    if device.type == "cuda" and state["random_cuda"]:
        torch.cuda.set_rng_state_all(state["random_cuda"])
    return state["history"], state["best"]
