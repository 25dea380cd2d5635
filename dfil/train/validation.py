"""What the validation videos are asked in a training, and when: they choose the weights, or show a
curve."""

from __future__ import annotations

import math

import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from dfil.models import Detector
from dfil.profiles import Training
from dfil.system.errors import DivergedError, RunError
from dfil.train.scoring import score
from dfil.train.snippets import SnippetDataset

# What an epoch is judged by, the larger the better; equals are decided by the next one.
JUDGED_BY = {
    "auc": lambda line: (line["val_auc"], -line["val_loss"]),
    "loss": lambda line: (-line["val_loss"],),
    "accuracy": lambda line: (line["val_accuracy"], -line["val_loss"]),
}
POINTS = 6  # of a validation curve on which nothing hangs
UNKNOWN = dict.fromkeys(("val_loss", "val_auc", "val_accuracy"), math.nan)
CHOICES = {
    "schedule": ("plateau", "one-cycle"),
    "plateau_on": ("loss", "auc"),
    "keep": ("best", "last", "average"),
    "best_by": tuple(JUDGED_BY),
}


def check(settings: Training, val_data: SnippetDataset, label: str) -> None:
    """Raises RunError for settings that do not exist and a validation split that lacks a class."""
    for name, known in CHOICES.items():
        if (asked := getattr(settings, name)) not in known:
            raise RunError(f"no {name} is called {asked!r}; choose {', '.join(known)}")
    if len(set(val_data.rows["label"])) < 2:
        raise RunError(
            f"{label}: the validation split needs real and fake videos to select by; it has "
            f"{len(val_data)} of one class"
        )


def is_validated(epoch: int, settings: Training) -> bool:
    """Every epoch, where a choice hangs on it. Else the validation videos only show a curve, for
    which six points are enough and the others' time is saved."""
    chosen = settings.keep == "best" or settings.schedule == "plateau"
    left = settings.epochs - 1 - epoch
    return chosen or left % math.ceil(settings.epochs / POINTS) == 0


def validate(model: Detector, data: SnippetDataset, batch: int, device: torch.device) -> dict:
    """AUC, accuracy and mean cross-entropy of the validation videos. Raises DivergedError where a
    logit is not a number."""
    rows = score(model, data, batch=batch, device=device)
    logits_n, labels_n = (torch.tensor(rows[name].tolist()).float() for name in ("logit", "label"))
    if not torch.isfinite(logits_n).all():
        raise DivergedError("a validation logit is not a number; lower the learning rate")
    return {
        "val_loss": float(binary_cross_entropy_with_logits(logits_n, labels_n)),
        "val_auc": float(roc_auc_score(labels_n, logits_n)),
        "val_accuracy": float(((logits_n >= 0) == (labels_n == 1)).float().mean()),
    }
