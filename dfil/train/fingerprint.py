"""A fingerprint of the code behind a run: what model, data and loop make of a small fixed input.

It is written into a run's record. Numbers that come out otherwise today say that the record was
made by other code. Sums in another order, of other threads or another processor, move them by far
less than TOLERANCE.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from dfil.faces.crops import Crops
from dfil.models import Detector, Sampling
from dfil.profiles import Training
from dfil.train import parallel
from dfil.train.loop import train
from dfil.train.repeat import repeatable
from dfil.train.snippets import SnippetDataset

TOLERANCE = 0.02  # of the larger value; the smallest change that is called one
SMALLEST = 1e-4  # values below it are noise
FRAMES, SIDE = 40, 48  # of the fixed videos


def of(build, sampling: Sampling, size: int, training: Training) -> dict[str, list[float]]:
    """The parts "model", "data" and "loop", each a few numbers of four significant digits.

    build: makes the untrained model; size: crop side in pixels.
    """
    data, loop = _data_and_loop(replace(training, epochs=2), size)
    with repeatable(training), torch.random.fork_rng(devices=[]), _seeded():
        torch.manual_seed(0)
        found = {"model": _model(build(), sampling, size), "data": data, "loop": loop}
    return {part: [float(f"{v:.4g}") for v in values] for part, values in found.items()}


def changed(before: dict[str, list[float]], now: dict[str, list[float]]) -> list[str]:
    """The parts that differ by more than rounding."""
    return [part for part in now if not _same(before.get(part, []), now[part])]


@contextmanager
def _seeded() -> Iterator[None]:
    """Random numbers that are not torch's begin anew too, for methods that draw some; then they go
    on as they were."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


def _same(before: list[float], now: list[float]) -> bool:
    alike = {"rel_tol": TOLERANCE, "abs_tol": SMALLEST}
    pairs = zip(before, now, strict=False)
    return len(before) == len(now) and all(math.isclose(a, b, **alike) for a, b in pairs)


def _model(model: Detector, sampling: Sampling, size: int) -> list[float]:
    """Logits of two clips with batch and with running statistics, loss, and gradients' norms."""
    shape = (2, sampling.train, sampling.frames, 3, size, size)
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    walk = np.cumsum(noise, axis=2) / np.sqrt(np.arange(1, shape[2] + 1))[:, None, None, None]
    x, y = torch.from_numpy(walk).float(), torch.tensor([0.0, 1.0])
    for module in model.modules():  # whose masks are the processor's
        if isinstance(module, nn.Dropout | nn.Dropout2d | nn.Dropout3d):
            module.p = 0.0
    loss = model.train().loss(x, y)
    loss.backward()
    norms = [p.grad.norm().item() for p in model.parameters() if p.grad is not None]
    with torch.no_grad():
        logits = model.eval()(x).tolist()
    some = np.linspace(0, len(norms) - 1, min(12, len(norms))).astype(int)
    total = math.sqrt(sum(n * n for n in norms))
    return [loss.item(), *logits, len(norms), total, *(norms[i] for i in some)]


class _MeanColour(Detector):
    """The smallest detector that learns: it shows what the loop does, whatever the method."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean((1, 2, 4, 5)))[:, 0]


@lru_cache
def _data_and_loop(training: Training, size: int) -> tuple[list[float], list[float]]:
    """Statistics of a training batch of fixed videos; what two epochs on them lose and leave."""
    with tempfile.TemporaryDirectory(prefix="dfil-") as folder:
        store = _FixedStore(Path(folder))
        how = {"snippets": 2, "frames": 4, "size": size, "seed": 0}
        how["paired"] = training.paired and not training.redraw
        data = SnippetDataset(store, store.index, train=True, **how)
        x = data.__getitems__([(0, 1), (1, 1), (2, 2)])[0].double()
        means = [*x.mean((1, 2, 4, 5)).flatten().tolist(), x.std().item()]
        corners = x[..., :2, :2].mean((1, 2, 3, 4, 5)).tolist()
        model = _MeanColour()
        val = SnippetDataset(store, store.index, **how)
        settings = replace(training, batch=4, lr=0.1, deterministic=False)
        cpu = torch.device("cpu")
        with parallel.alone():  # the first process alone writes records
            history = train(model, data, val, settings, device=cpu, label="fingerprint")
    losses = [line[name] for line in history for name in ("train_loss", "val_loss", "lr")]
    return [*means, *corners], [*losses, *model.linear.weight[0].tolist(), model.linear.bias.item()]


class _FixedStore:
    """Four people, a real clip and a fake of each, as a crop store would serve them."""

    meta = {"tracks": "largest"}

    def __init__(self, folder: Path):
        rows = []
        for video in range(8):
            person, label = divmod(video, 2)
            self._write(folder / f"{video}.npy", person, label)
            rows.append((str(video), label, ("real", "Deepfakes")[label], f"{person:03d}"))
        columns = ["video_id", "label", "manipulation", "target"]
        self.folder, self.index = folder, pd.DataFrame(rows, columns=columns)
        fixed = {"compression": "c23", "split": "train", "status": "ok", "tracks": 1}
        self.index = self.index.assign(**fixed, person=self.index["target"])

    @staticmethod
    def _write(path: Path, person: int, label: int) -> None:
        t, y, x, c = np.ogrid[:FRAMES, :SIDE, :SIDE, :3]
        waves = np.sin(x / (3 + person) + t / 5) * np.cos(y / 7 + c) + 0.5 * label * (c == 0)
        np.save(path, np.clip(128 + 80 * waves, 0, 255).astype(np.uint8))
        box = np.array([16, 16, 32, 32]) + (np.arange(FRAMES) % 5)[:, None] / 2
        meta = {"scale": 1.0, "count": FRAMES, "grid": (SIDE, SIDE), "source": (SIDE, SIDE)}
        meta |= {"frames": np.arange(FRAMES), "origins": np.zeros((FRAMES, 2), int), "boxes": box}
        np.savez(path.with_suffix(".npz"), **meta)

    def open(self, video_id: str, track: int = 0) -> Crops:
        return Crops(self.folder / f"{video_id}.npy")
