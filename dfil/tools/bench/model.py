"""`dfil bench model`: what DIL costs beside the plain backbone, scoring and training, at the paper's size and at that of `demo`.

At the paper's size the plain network is torchvision's own ResNet-50 on the same frames. torchvision has none as narrow as `demo`'s, so
there it is the frame baseline, the project's ResNet without modules. All networks take turns and the ratios are medians over the turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torchvision
from torch import nn
from torch.optim.swa_utils import update_bn

from dfil import models, profiles
from dfil.system.cores import cores
from dfil.system.memory import keep_freed
from dfil.train.scoring import pick_device, place

SNIPPET = 4  # frames; U follows from the number of frames
MODES = {"cpu": ("float32",), "cuda": ("float32", "bfloat16", "bfloat16, compiled")}
CLIPS = {"cpu": 1, "cuda": 10}  # at the paper's size; 10 is its batch


class _Plain(nn.Module):
    """torchvision's ResNet-50 with one logit per frame, averaged over a video like DIL's."""

    def __init__(self):
        super().__init__()
        self.network = torchvision.models.resnet50(weights=None, num_classes=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        return self.network(frames).float().unflatten(0, (len(x), -1)).mean((1, 2))


def measure(
    size: int = 224,
    frames: int = 16,
    threads: int = 2,
    repeats: int = 7,
    device: torch.device | None = None,
) -> dict:
    """Seconds of a forward pass and of a training step of both networks and the ratio of the two, per scale and mode.

    size, frames: of a clip at the paper's scale; at `demo`'s they are its own. threads: on a CPU, at most its cores; at `demo`'s scale
    one, because its runs train side by side with one thread each. repeats: turns. Wall-clock time; the device's work is waited for.
    Freed memory is kept, for both networks, as training and scoring do.
    """
    keep_freed()
    device, before = device or pick_device(), torch.get_num_threads()
    threads, demo = min(threads, cores()), profiles.get("demo")
    large = torch.randn(CLIPS[device.type], frames // SNIPPET, SNIPPET, 3, size, size)
    small = torch.randn(
        demo.training.batch, demo.training.snippets, demo.frames, 3, demo.size, demo.size
    )
    switches = {"frames": demo.frames, **demo.backbone}
    scales = {
        "paper": (
            large,
            threads,
            {"plain": _Plain, "dil": lambda: models.build("dil", frames=SNIPPET)},
        ),
        "demo": (
            small,
            1,
            {
                "plain": lambda: models.build("resnet50", **switches),
                "dil": lambda: models.build("dil", **switches),
            },
        ),
    }
    rows = []
    try:
        for scale, (x, used, networks) in scales.items():
            torch.set_num_threads(used)
            for mode in MODES[device.type]:
                found = compare(networks, x.to(device), mode, repeats)
                rows.append(
                    {
                        "scale": scale,
                        "mode": mode,
                        "clips": len(x),
                        "size": x.shape[-1],
                        "threads": used,
                        **found,
                    }
                )
    finally:
        torch.set_num_threads(before)
    return {
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "cores": cores(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "repeats": repeats,
        "rows": rows,
    }


def compare(
    networks: dict[str, Callable[[], nn.Module]],
    x: torch.Tensor,
    mode: str = "float32",
    repeats: int = 7,
) -> dict:
    """`networks`, of which one is called "plain", by turns on x (B, U, T, 3, H, W): medians over `repeats` turns after one to warm up.

    Returns {"forward" | "step": {name: seconds, ..., "ratio": {name: ratio to "plain"}}}. A step is the cross-entropy of half fakes,
    its gradients and Adam's update; a forward pass is in evaluation mode without gradients. The running statistics are those of x, as
    they would be of the training videos: with those of a new network activations grow from block to block until sigmoids underflow,
    which costs time that no trained network takes.
    """
    y = (torch.arange(len(x), device=x.device) % 2).float()
    made, calls, optimisers = {}, {}, {}
    for name, make in networks.items():
        torch.manual_seed(0)
        made[name] = make()
        place(made[name], x.device)
        update_bn([x], made[name])
        calls[name] = torch.compile(made[name]) if "compiled" in mode else made[name]
        optimisers[name] = torch.optim.Adam(
            made[name].parameters(), lr=1e-4, fused=x.device.type == "cuda"
        )
    seconds: dict[str, dict[str, list[float]]] = {
        what: {name: [] for name in networks} for what in ("forward", "step")
    }
    for _ in range(repeats + 1):
        for name, model in made.items():
            model.eval()
            with (
                torch.no_grad(),
                _timed(seconds["forward"][name], x.device),
                _autocast(x.device, mode),
            ):
                calls[name](x)
            model.train()
            with _timed(seconds["step"][name], x.device):
                with _autocast(x.device, mode):
                    loss = nn.functional.binary_cross_entropy_with_logits(calls[name](x), y)
                optimisers[name].zero_grad(set_to_none=True)
                loss.backward()
                optimisers[name].step()
    result = {}
    for what, times in seconds.items():
        turns = {
            name: values[1:] for name, values in times.items()
        }  # the first turn also chooses algorithms, compiles, ...
        ratio = {
            n: statistics.median(a / b for a, b in zip(v, turns["plain"], strict=True))
            for n, v in turns.items()
            if n != "plain"
        }
        result[what] = {name: statistics.median(values) for name, values in turns.items()} | {
            "ratio": ratio
        }
    return result


def _autocast(device: torch.device, mode: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=mode.startswith("bfloat16"))


@contextmanager
def _timed(times: list[float], device: torch.device):
    _wait(device)
    start = time.perf_counter()
    yield
    _wait(device)
    times.append(time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(result: dict) -> str:
    """The result as text."""
    where = result["gpu"] or f"CPU with {result['cores']} cores"
    lines = [
        f"{where}, torch {result['torch']}; milliseconds, medians of {result['repeats']} turns",
        f"{'scale':7}{'mode':20}{'clips':>6}{'px':>5}{'threads':>9}  {'':8}{'plain':>9}{'DIL':>9}{'ratio':>8}",
    ]
    for row in result["rows"]:
        start = (
            f"{row['scale']:7}{row['mode']:20}{row['clips']:6}{row['size']:5}{row['threads']:9}  "
        )
        for what in ("forward", "step"):
            found = row[what]
            lines.append(
                f"{start}{what:8}{1e3 * found['plain']:9.1f}{1e3 * found['dil']:9.1f}{found['ratio']['dil']:8.2f}"
            )
            start = " " * len(start)
    lines.append("plain: torchvision's ResNet-50 at the paper's size, the frame baseline at demo's")
    return "\n".join(lines)
