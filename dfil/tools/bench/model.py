"""`dfil bench model`: DIL's two texts beside the plain backbone, scoring and training.

At the paper's size the backbone is torchvision's ResNet-50 on the same frames. torchvision has none
as narrow as `demo`'s: there it is the frame baseline, the project's ResNet without modules. The
networks take turns, and ratios are medians over the turns.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from statistics import median

import torch
import torchvision
from torch import nn
from torch.optim.swa_utils import update_bn

from dfil import models, profiles
from dfil.system.cores import cores
from dfil.system.memory import reuse_freed_memory
from dfil.tools.bench.common import machine, network, now, using_threads, where
from dfil.train.devices import pick_device, place
from dfil.train.recorded import Gradients, Recorded

SNIPPET = 4  # frames; U follows from the number of frames
MODES = {
    "cpu": ("float32",),
    "cuda": ("float32", "bfloat16", "bfloat16, recorded", "bfloat16, compiled"),
}
CLIPS = {"cpu": 1, "cuda": 10}  # at the paper's size; 10 is its batch


class _ResNet50(nn.Module):
    """torchvision's ResNet-50 with one logit per frame, averaged over a video like DIL's."""

    def __init__(self):
        super().__init__()
        self.network = torchvision.models.resnet50(weights=None, num_classes=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        return self.network(frames).float().unflatten(0, (len(x), -1)).mean((1, 2))


class _Loss(nn.Module):
    """The cross-entropy of a network, computed in bfloat16 or not."""

    def __init__(self, network: nn.Module, low: bool):
        super().__init__()
        self.network, self.low = network, low

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, self.low, cache_enabled=False):
            return self.network(x).float()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.logits(x), y)


def measure(
    size: int = 224,
    frames: int = 16,
    threads: int = 2,
    repeats: int = 7,
    device: torch.device | None = None,
) -> dict:
    """Seconds of a forward pass and of a training step of each network, per scale and mode.

    size, frames: of a clip at the paper's scale; at `demo`'s they are its own. threads: on a CPU,
    at most its cores; at `demo`'s scale one, because its runs train side by side with one thread
    each. repeats: turns. Wall-clock time; the device's work is waited for. Freed memory is
    kept, as training and scoring do.
    """
    reuse_freed_memory()
    device, demo = device or pick_device(), profiles.get("demo")
    batch, snippets = demo.training.batch, demo.training.snippets
    large = torch.randn(CLIPS[device.type], frames // SNIPPET, SNIPPET, 3, size, size)
    small = torch.randn(batch, snippets, demo.frames, 3, demo.size, demo.size)
    dil, narrow = partial(models.build, "dil", frames=SNIPPET), partial(network, profile=demo)
    full = {"resnet50": _ResNet50, "plain": dil, "dil": dil}
    thin = {name: partial(narrow, name.replace("plain", "dil")) for name in full}
    rows = []
    for scale, x, used, networks in (
        ("paper", large, min(threads, cores()), full),
        ("demo", small, 1, thin),
    ):
        for mode in MODES[device.type]:
            row = {"scale": scale, "mode": mode, "clips": len(x), "size": x.shape[-1]}
            with using_threads(used):
                row |= {"threads": used} | compare(networks, x.to(device), mode, repeats)
            rows.append(row)
    versions = {"torchvision": torchvision.__version__, "repeats": repeats}
    return {**machine(device), **versions, "rows": rows}


def compare(
    networks: dict[str, Callable[[], nn.Module]],
    x: torch.Tensor,
    mode: str = "float32",
    repeats: int = 7,
) -> dict:
    """`networks` by turns on x (B, U, T, 3, H, W): medians over `repeats` turns after a first one.

    Returns {"forward" | "step": {name: seconds, ..., "ratio": {name: ratio to the first}}}. The
    one called "plain" computes its modules' own text (models.plain). A step is the cross-entropy
    of half fakes, its gradients and Adam's update; a forward pass is in evaluation mode without
    gradients. "recorded" is how training and scoring launch them on a GPU (train/recorded.py). The
    running statistics are those of x, as they would be of the training videos: with a new
    network's, activations grow from block to block until sigmoids underflow, which costs time that
    no trained network takes.
    """
    y = (torch.arange(len(x), device=x.device) % 2).float()
    made, calls, optimisers = {}, {}, {}
    for name, make in networks.items():
        torch.manual_seed(0)
        made[name] = make()
        place(made[name], x.device)
        update_bn([x], made[name])
        network = torch.compile(made[name]) if "compiled" in mode else made[name]
        loss = _Loss(network, "bfloat16" in mode)
        calls[name] = {
            "forward": Recorded(loss.logits, wanted="recorded" in mode),
            "step": Gradients(loss, x.device, wanted="recorded" in mode),
        }
        optimisers[name] = torch.optim.Adam(made[name].parameters(), lr=1e-4, fused=x.is_cuda)
    seconds = {what: {name: [] for name in networks} for what in ("forward", "step")}
    for _ in range(repeats + 1):
        for name in networks:
            for what in seconds:
                step, text = what == "step", models.plain() if name == "plain" else nullcontext()
                made[name].train(step)
                start = now(x.device)
                with text, torch.set_grad_enabled(step):
                    calls[name][what](x, *[y] * step)
                if step:
                    optimisers[name].step()
                seconds[what][name].append(now(x.device) - start)
    first, *others = networks
    result = {}
    for what, by_name in seconds.items():
        turns = {name: times[1:] for name, times in by_name.items()}  # the first also compiles
        pairs = {name: zip(turns[name], turns[first], strict=True) for name in others}
        ratio = {name: median(a / b for a, b in pair) for name, pair in pairs.items()}
        result[what] = {name: median(times) for name, times in turns.items()} | {"ratio": ratio}
    return result


def table(result: dict) -> str:
    """The result as text."""
    turns = f"milliseconds, medians of {result['repeats']} turns; ratios to the backbone"
    names = f"{'backbone':>10}{'plain':>9}{'ratio':>7}{'fast':>9}{'ratio':>7}"
    lines = [
        f"{where(result)}; {turns}",
        f"{'scale':7}{'mode':20}{'clips':>6}{'px':>5}{'threads':>9}  {'':8}{names}",
    ]
    for row in result["rows"]:
        start = f"{row['scale']:7}{row['mode']:20}{row['clips']:6}{row['size']:5}{row['threads']:9}"
        for what in ("forward", "step"):
            found, ratio = row[what], row[what]["ratio"]
            dil = (f"{1e3 * found[n]:9.1f}{ratio[n]:7.2f}" for n in ("plain", "dil"))
            lines.append(f"{start}  {what:8}{1e3 * found['resnet50']:10.1f}{''.join(dil)}")
            start = " " * len(start)
    lines.append(
        "backbone: torchvision's ResNet-50 at the paper's size, the frame baseline at demo's"
    )
    lines.append("plain and fast: DIL by intra_sim.py and inter_sim.py, and by fast.py")
    return "\n".join(lines)
