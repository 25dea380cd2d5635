"""`dfil bench train`: the real training loop on a small synthetic crop store: frames per second,
waiting for data, peak memory.

Each variant (precision, gradient checkpointing) trains in a process of its own, so that its peak
memory is its own. What an update of the paper's batch needs on a graphics card is counted beside
that, on any machine, and without any arithmetic.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

# torch's own counting; its place may change from one release to the next
from torch.distributed._tools.mem_tracker import MemTracker
from torch.optim.optimizer import register_optimizer_step_post_hook

from dfil import models, profiles
from dfil.datasets import load_records
from dfil.faces.preprocess import preprocess
from dfil.faces.store import CropStore
from dfil.profiles import Profile
from dfil.system import workers
from dfil.system.errors import RunError
from dfil.tools.bench.common import machine, network, now, peak_bytes, small_tree, where
from dfil.tools.plan import FFPP
from dfil.train.devices import pick_device
from dfil.train.loop import train
from dfil.train.recorded import Gradients
from dfil.train.snippets import SnippetDataset

VARIANTS = {  # precision, checkpointing
    "cpu": (("float32", False), ("float32", True)),
    "cuda": (("bfloat16", False), ("bfloat16", True), ("float32", False), ("float32", True)),
}
CARD = 12e9  # bytes of the graphics card that the paper's batch should fit


def measure(
    profile: str = "", steps: int = 10, people: int = 8, threads: int | None = None
) -> dict:
    """Train DIL for `steps` updates per variant and time it.

    profile: whose size, network and batch; without one `paper` on a GPU and `demo` on a CPU.
    people: real clips of the store, each with a forgery; they repeat until the updates have enough.
    threads: on a CPU, default torch's own number.

    Returns, per variant, frames_per_second; waiting, the share of the time between the end of an
    update and the start of the next forward pass, which is loading, transfer and normalisation;
    peak_mib, on a GPU of the tensors, on a CPU of the whole process; and epoch_minutes, projected
    for one manipulation of FaceForensics++. The first update is not in the times. paper_batch:
    `count` of the `paper` profile for every variant of a GPU.
    """
    device, paper = pick_device(), profiles.get("paper")
    chosen = profiles.get(profile or ("paper" if device.type == "cuda" else "demo"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="dfil-bench-") as folder:
        tree, store = small_tree(Path(folder) / "tree", people, 40, val=2), Path(folder) / "store"
        preprocess(load_records("ffpp", tree), store, chosen.size, jobs=1, progress=False)
        for variant in VARIANTS[device.type]:
            with workers.pool(1) as pool:
                rows.append(pool.submit(run, chosen, store, *variant, steps, threads).result())
    training = chosen.training
    about = {"profile": chosen.name, "size": chosen.size, "steps": steps, "rows": rows}
    about["batch"] = [training.batch, training.snippets, chosen.frames]
    about["paper_batch"] = [
        {"precision": p, "checkpoint": c, "gigabytes": 1e-9 * count(paper, p, c)}
        for p, c in VARIANTS["cuda"]
    ]
    return machine(device) | about


class _Clock(models.Detector):
    """A detector at the precision asked for. `gradients`, in the place of the loop's, notes when
    the loss and its gradients are begun, and `updated` the ends of the updates."""

    def __init__(self, model: models.Detector, precision: str, device: torch.device):
        super().__init__()
        self.model, self.precision, self.device = model, precision, device
        self.starts: list[float] = []
        self.ends: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        low = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low, cache_enabled=False):
            return self.model.loss(x, y)

    def gradients(self, *how, **options) -> Callable:
        taken = Gradients(*how, **options)

        def noted(*batch) -> torch.Tensor:
            self.starts.append(now(self.device))
            return taken(*batch)

        return noted

    def updated(self, *_) -> None:
        self.ends.append(now(self.device))


def run(
    profile: Profile,
    store: Path,
    precision: str,
    checkpoint: bool,
    steps: int,
    threads: int | None = None,
) -> dict:
    """One variant's row: `steps` updates of the profile's training on the crops of `store`, in this
    process."""
    if steps < 2:
        raise RunError(
            f"bench train: {steps} updates are too few, because the first is not counted; give at"
            " least 2"
        )
    threads = threads or profile.training.threads
    device, training = pick_device(), replace(profile.training, epochs=1, threads=threads)
    model = network("dil", profile)
    model.backbone.checkpoint = checkpoint
    clock = _Clock(model, precision, device)
    data = _rows(CropStore(store), profile, steps)
    label = f"{precision}{', checkpointed' if checkpoint else ''}"
    hook = register_optimizer_step_post_hook(clock.updated)
    try:
        with patch("dfil.train.loop.Gradients", clock.gradients):
            train(clock, *data, training, device=device, label=label)
    finally:
        hook.remove()
    return summary(clock, data[0], training.batch) | {
        "precision": precision,
        "checkpoint": checkpoint,
        "threads": threads or torch.get_num_threads(),
        "peak_mib": _peak(device) / 2**20,
        "fits_card": _peak(device) < CARD if device.type == "cuda" else None,
    }


def count(profile: Profile, precision: str, checkpoint: bool) -> int:
    """Bytes of all tensors that are alive at the peak of an update of DIL: weights, gradients,
    Adam's state, the batch, activations.

    Fake tensors have shapes and no contents, so the second update, the first to begin with Adam's
    state, goes through in seconds. What is not counted: the CUDA context, convolutions' workspaces,
    and what the allocator loses; a gigabyte or two.
    """
    training = profile.training
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = models.build("dil", frames=profile.frames, **profile.backbone).train()
        model.backbone.checkpoint = checkpoint
        clip = training.snippets, profile.frames, 3, profile.size, profile.size
        x, y = torch.zeros(training.batch, *clip), torch.ones(training.batch)
        optimiser = torch.optim.Adam(model.parameters(), lr=training.lr)
        tracker = MemTracker()
        tracker.track_external(model, optimiser, x, y)
        with tracker:
            for _ in range(2):
                tracker.reset_mod_stats()
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    loss = model.loss(x, y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return max(device["Total"] for device in tracker.get_tracker_snapshot("peak").values())


def _rows(store: CropStore, profile: Profile, steps: int) -> tuple[SnippetDataset, SnippetDataset]:
    """Training and validation snippets; the training clips repeat until one epoch has `steps`
    batches."""
    training, good = profile.training, store.index[store.index["status"] == "ok"]
    clips = good[good["split"] == "train"]
    real, fake, batch = clips[clips["label"] == 0], clips[clips["label"] == 1], training.batch
    # In pairs every fake brings its real clip, so the fakes decide how many batches there are.
    many, wanted = (fake, steps * batch // 2) if training.paired else (clips, steps * batch)
    copies = pd.concat([many] * -(-wanted // len(many))).head(wanted)
    copies = pd.concat([real, copies]) if training.paired else copies
    how = {"snippets": training.snippets, "frames": profile.frames, "size": profile.size}
    how["paired"] = training.paired
    val = good[good["split"] == "val"]
    return SnippetDataset(store, copies, train=True, **how), SnippetDataset(store, val, **how)


def summary(clock: _Clock, data: SnippetDataset, batch: int) -> dict:
    """What the clock's times of the updates after the first one say; medians over them."""
    whole = [b - a for a, b in pairwise(clock.ends)]  # update to update
    waited = [start - end for end, start in zip(clock.ends[:-1], clock.starts[1:], strict=True)]
    frames = batch * data.snippets * data.frames
    per_second = frames / statistics.median(whole)
    epoch = 2 * FFPP["train"] * data.snippets * data.frames  # reals and as many fakes
    return {
        "frames_per_second": per_second,
        "seconds_per_step": statistics.median(whole),
        "waiting": sum(waited) / sum(whole),
        "epoch_minutes": epoch / per_second / 60,
    }


def _peak(device: torch.device) -> float:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()


def table(result: dict) -> str:
    """The result as text."""
    clips = "{} clips of {} x {} frames".format(*result["batch"])
    size, updates = f"{result['size']} px", f"{result['steps']} updates each"
    lines = [f"{where(result)}; profile {result['profile']}: {clips}, {size}, {updates}"]
    row = "{:11}{:14}{:>7}{:>10}{:>10}{:>9}{:>10}{:>11}"
    heads = ("precision", "checkpointed", "threads", "frames/s", "s/update", "waiting")
    lines.append(row.format(*heads, "peak MiB", "min/epoch"))
    for each in result["rows"]:
        kind = (each["precision"], "yes" if each["checkpoint"] else "no", each["threads"])
        speed = (f"{each['frames_per_second']:.1f}", f"{each['seconds_per_step']:.2f}")
        rest = (f"{each['waiting']:.1%}", f"{each['peak_mib']:.0f}", f"{each['epoch_minutes']:.1f}")
        fits = {None: "", True: "  fits", False: "  does not fit"}[each["fits_card"]]
        lines.append(row.format(*kind, *speed, *rest) + (fits and f"{fits} {CARD / 1e9:.0f} GB"))
    lines.append(f"epoch: one manipulation of FaceForensics++, {2 * FFPP['train']} clips")
    lines.append(
        "Tensors of an update of the paper's batch, counted; beside them a card needs a gigabyte or"
        " two for CUDA itself:"
    )
    for each in result["paper_batch"]:
        checkpointed = "checkpointed" if each["checkpoint"] else ""
        lines.append(f"  {each['precision']:11}{checkpointed:14}{each['gigabytes']:6.1f} GB")
    return "\n".join(lines)
