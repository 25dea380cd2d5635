"""A trained model's probability for every video of a crop store."""

from __future__ import annotations

import pandas as pd
import torch
from torch.utils.data import DataLoader

from dfil.models import Detector
from dfil.system.cores import cores
from dfil.system.errors import RunError
from dfil.system.memory import reuse_freed_memory
from dfil.system.progress import progress_bar
from dfil.train.devices import pick_device, precision
from dfil.train.recorded import FEWEST, Recorded
from dfil.train.snippets import SnippetDataset, batch_as_read, normalise

VIDEO_COLUMNS = ["video_id", "label", "manipulation", "compression", "split", "person"]
SCORE_COLUMNS = [*VIDEO_COLUMNS, "logit", "score"]


def loader(data: SnippetDataset, batches: list[list[int]], device: torch.device) -> DataLoader:
    """Batches by index, the same however many processes feed them.

    Only a GPU is fed by others: beside a training on the CPU they would take its cores.
    """
    gpu = device.type == "cuda"
    how = {"num_workers": min(8, cores() - 1) if gpu else 0, "pin_memory": gpu}
    return DataLoader(data, batch_sampler=batches, collate_fn=batch_as_read, **how)


def video_logits(model: Detector, x: torch.Tensor, views: int = 1) -> torch.Tensor:
    """Logits (B,) of x (B, U, T, 3, H, W), shown as `views` clips of U / views (Sampling.views)."""
    if views == 1 or x.shape[1] % views:
        return model(x)
    x_bvu = x.unflatten(1, (-1, views)).transpose(1, 2)
    return model(x_bvu.flatten(0, 1)).unflatten(0, (-1, views)).mean(1)


@torch.no_grad()
def score(
    model: Detector,
    data: SnippetDataset,
    *,
    batch: int = 10,
    device: torch.device | None = None,
    views: int = 1,
) -> pd.DataFrame:
    """One row per video of `data`, in its order, with SCORE_COLUMNS.

    score = sigmoid(logit), the probability of being fake. A video's logit is that of its track most
    likely to be forged. Raises RunError for a model that gives other than one logit per video.
    """
    reuse_freed_memory()
    device = device or pick_device()
    model.to(device).eval()
    order = [list(range(i, min(i + batch, len(data)))) for i in range(0, len(data), batch)]

    def forward(x: torch.Tensor) -> torch.Tensor:
        with precision(device):
            return video_logits(model, x, views).float()

    logits, recorded = [], Recorded(forward, wanted=len(order) >= FEWEST)
    for x, _, _ in progress_bar(loader(data, order, device), desc="scoring", unit="batch"):
        found, _ = recorded(normalise(x.to(device, non_blocking=True)))
        if found.shape != (len(x),):
            who = type(model).__name__
            raise RunError(f"{who}: {[*found.shape]} logits of {len(x)} videos, not one each")
        logits.append(found.cpu())
    rows = data.rows[VIDEO_COLUMNS]
    logits_n = torch.full((len(rows),), -torch.inf, dtype=torch.double)
    if logits:
        found, row = torch.cat(logits).double(), torch.tensor(data.videos)
        logits_n = logits_n.scatter_reduce(0, row, found, "amax")
    return rows.assign(logit=logits_n.numpy(), score=torch.sigmoid(logits_n).numpy())
