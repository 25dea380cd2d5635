"""Fitting in place of training: methods of hand-made features see all training videos once."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from dfil.models.baselines.fitted import FittedDetector
from dfil.profiles import Training
from dfil.system.errors import RunError
from dfil.system.progress import progress_bar
from dfil.train import parallel, repeat
from dfil.train.devices import pick_device, place
from dfil.train.scoring import loader
from dfil.train.snippets import SnippetDataset, batches, normalise
from dfil.train.validation import check, validate


def fit(
    model: FittedDetector,
    train_data: SnippetDataset,
    val_data: SnippetDataset,
    settings: Training,
    *,
    seed: int = 0,
    label: str = "fitting",
) -> list[dict]:
    """Fit `model` in place to the batches of one epoch, or leave it as it is if it is `fixed`.

    Returns what `loop.train` does, of one epoch; of a fixed model no training loss. Raises RunError
    if the validation split lacks a class, or if no training video of one of the classes can be
    judged.
    """
    check(settings, val_data, label)
    begun, device = time.perf_counter(), pick_device()
    with repeat.repeatable(settings):
        place(model, device)
        how = {"redraw": settings.redraw, "balance": settings.balance}
        rng = np.random.default_rng([seed, 0])
        plan = batches(train_data.rows, settings.batch, settings.paired, rng, **how)
        loss = math.nan if model.fixed else _fit(model, train_data, plan, device, label)
        found = parallel.in_first_process(validate, model, val_data, settings.batch, device)
    line = {"epoch": 1, "lr": 0.0, "train_loss": loss, **found}
    line |= {"seconds": time.perf_counter() - begun, "clips": sum(map(len, plan))}
    return [line | {"best": True, "kept": True}]


@torch.no_grad()
def _fit(
    model: FittedDetector, data: SnippetDataset, plan: list, device: torch.device, label: str
) -> float:
    """The mean cross-entropy that the fit leaves, of the parts that can be judged."""
    features_nf, labels_n = _features(model.eval(), data, plan, device, label)
    if len(set(labels_n.tolist())) < 2:
        raise RunError(
            f"{label}: {len(labels_n)} frames or clips of the training videos can be judged, not"
            " of both classes; give it videos in which faces show what it looks at"
        )
    model.fit(features_nf.numpy(), labels_n.numpy())
    logits_n = model.decide(features_nf.to(device)).double().cpu()
    return float(binary_cross_entropy_with_logits(logits_n, labels_n.double()))


def _features(
    model: FittedDetector, data: SnippetDataset, plan: list, device: torch.device, label: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the parts that can be judged: features (N, F) float64, labels (N,)."""
    features, labels = [], []
    feed = loader(data, plan, device)
    for x, y, _ in progress_bar(feed, desc=label, quiet=not parallel.is_first()):
        found_bnf = model.part_features(normalise(x.to(device))).cpu()
        judged_bn = found_bnf.isfinite().all(-1)
        features.append(found_bnf[judged_bn])
        labels.append(y[:, None].expand_as(judged_bn)[judged_bn])
    return torch.cat(features), torch.cat(labels)
