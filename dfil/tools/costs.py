"""What a method costs: parameters, arithmetic and time per video at its own sampling."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from dfil import models, paper
from dfil.models import Detector, Sampling
from dfil.train.devices import pick_device, place, precision

PAPER_SAMPLING = Sampling(
    paper.SETTINGS.train_snippets, paper.SETTINGS.test_snippets, paper.SETTINGS.frames_per_snippet
)


def sampling(name: str) -> Sampling:
    """What the method called `name` looks at: its own sampling, or the paper's snippets."""
    return models.sampling(name) or PAPER_SAMPLING


def parameters(model: Detector) -> float:
    """Number of parameters in millions, the classifier of one logit included."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def gflops(name: str, size: int = paper.SETTINGS.image_size, **switches) -> float:
    """Thousand million multiply-adds of one test video (two floating-point operations each, counted
    as one, as papers do).

    Convolutions and matrix products are counted, from shapes alone: nothing is computed.
    Elementwise work is not in the count, and it is what the temporal modules mostly consist of, so
    compare `milliseconds` as well.
    """
    with torch.device("meta"):
        model = models.build(name, frames=sampling(name).frames, **switches).eval()
        x = _video(name, size)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() / 2e9


@torch.no_grad()
def milliseconds(
    name: str, size: int = paper.SETTINGS.image_size, repeats: int = 3, **switches
) -> float:
    """Median wall time of scoring one test video on the GPU if there is one, else on the CPU with
    the threads that torch has."""
    device = pick_device()
    model = models.build(name, frames=sampling(name).frames, **switches).eval()
    place(model, device)
    x, times = _video(name, size).to(device), []
    for _ in range(repeats + 1):  # the first is a warm-up
        start = time.perf_counter()
        with precision(device):
            model(x).cpu()  # waits for a GPU
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def _video(name: str, size: int) -> torch.Tensor:
    how = sampling(name)
    return torch.zeros(1, how.test, how.frames, 3, size, size)  # B, U, T, 3, H, W


def frame(names: Sequence[str]) -> pd.DataFrame:
    """A row per method, full size at the paper's resolution: year, kind, start, parameters,
    arithmetic and what a test video is to it."""
    rows = {}
    for name in names:
        about, how = models.about(name), sampling(name)
        with torch.device("meta"):
            million = parameters(models.build(name))
        rows[name] = {"year": about.year, "kind": about.kind, "starts from": about.start}
        rows[name] |= {"million": round(million, 2), "GFLOPs": round(gflops(name), 1)}
        for what, snippets in (("training", how.train), ("test", how.test)):
            rows[name][f"{what} video"] = f"{snippets} x {how.frames} frames"
    return pd.DataFrame(rows).T
