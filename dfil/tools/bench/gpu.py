"""`dfil bench gpu`: everything that only a machine with a GPU can say, in at most eight minutes.

A step and a forward pass of DIL against ResNet-50 (float32, bfloat16, compiled), loading against
the step, the memory of the paper's batch, training in bfloat16 against float32, the link between
two GPUs, and hours of every table, which `dfil plan` then knows. Without a GPU the same is done at
the smallest size, so that it is known to run; those numbers say nothing of a GPU.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import distributed, multiprocessing
from torch.nn.functional import cosine_similarity

from dfil import models, profiles
from dfil.profiles import Profile
from dfil.system.cores import cores
from dfil.system.errors import DfilError
from dfil.tools import plan
from dfil.tools.bench import train
from dfil.tools.bench.common import network, now
from dfil.tools.bench.model import MODES, compare
from dfil.train.devices import pick_device

LIMIT = 480.0  # seconds
WANTED = {"step": 1.15, "forward": 1.10}  # at most, times ResNet-50's
UPDATES = {"cpu": 4, "cuda": 60}  # of the two trainings that are compared


def measure(limit: float = LIMIT) -> dict:
    """Sections by name, each with its `seconds`; one for which no time is left says so."""
    device = pick_device()
    profile = profiles.get("paper" if device.type == "cuda" else "smoke")
    if device.type != "cuda":
        said = "no GPU is there, so all of it is measured in small on the CPU, a minute or two"
        print(f"bench gpu: {said}.", file=sys.stderr, flush=True)
    begun, until = time.monotonic(), time.monotonic() + limit
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "gpus": torch.cuda.device_count(),
        "cores": cores(),
        "torch": torch.__version__,
        "profile": profile.name,
    }
    for name, section in SECTIONS.items():
        start = time.monotonic()
        if start > until:
            result[name] = {"missing": f"not begun: {limit:.0f} s were over"}
            continue
        try:
            result[name] = section(profile, device, until)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            result[name] = {"missing": "the GPU's memory did not suffice"}
        except DfilError as error:  # the other sections' figures need not go with it
            result[name] = {"missing": str(error)}
        result[name]["seconds"] = time.monotonic() - start
    return result | {"seconds": time.monotonic() - begun}


def ratios(profile: Profile, device: torch.device, until: float, compiled: bool = False) -> dict:
    """By mode: medians of DIL and ResNet-50 by turns, and DIL's ratio to it."""
    shape = (profile.training.snippets, profile.frames, 3, profile.size, profile.size)
    x = torch.randn(profile.training.batch, *shape, device=device)
    networks = {name: partial(network, name, profile, device) for name in ("resnet50", "dil")}
    found = {}
    for mode in MODES[device.type]:
        if ("compiled" in mode) == compiled and time.monotonic() < until:
            times = compare(networks, x, mode, repeats=5)
            found[mode] = {what: t | {"ratio": t["ratio"]["dil"]} for what, t in times.items()}
    return {"modes": found}


def loading(profile: Profile, device: torch.device, until: float) -> dict:
    """The real training loop: see dfil.tools.bench.train."""
    cuda = device.type == "cuda"
    return train.measure(profile.name, steps=8 if cuda else 2, people=6 if cuda else 2)


def curves(profile: Profile, device: torch.device, until: float) -> dict:
    """The same training in float32 and in bfloat16: losses by update, their largest difference, and
    the cosine between the first update's gradients, for DIL and for ResNet-50."""
    found = {}
    for name in ("dil", "resnet50"):
        losses, gradients = {}, {}
        for kind in ("float32", "bfloat16"):
            losses[kind], gradients[kind] = _train(name, kind, profile, device, until)
        apart = [abs(a - b) for a, b in zip(*losses.values(), strict=False)]
        cosine = cosine_similarity(*gradients.values(), dim=0).item()
        found[name] = {"losses": losses, "largest difference": max(apart), "cosine": cosine}
    return {"networks": found}


def _train(
    name: str, kind: str, profile: Profile, device: torch.device, until: float
) -> tuple[list[float], torch.Tensor]:
    model = network(name, profile, device)
    optimiser = torch.optim.Adam(model.parameters(), lr=profile.training.lr)
    chance, losses, first = torch.Generator().manual_seed(0), [], None
    for _ in range(UPDATES[device.type]):
        x, y = (tensor.to(device) for tensor in _clips(profile, chance))
        with torch.autocast(device.type, torch.bfloat16, enabled=kind == "bfloat16"):
            loss = model.loss(x, y)
        optimiser.zero_grad()
        loss.backward()
        if first is None:
            grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            first = torch.cat(grads).double().cpu()
        optimiser.step()
        losses.append(loss.item())
        if time.monotonic() > until:
            break
    return losses, first


def _clips(profile: Profile, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Still noise; in every second clip, the fakes, it flickers from frame to frame."""
    b, u, t, size = profile.training.batch, profile.training.snippets, profile.frames, profile.size
    still = torch.randn(b, u, 1, 3, size, size, generator=chance).expand(-1, -1, t, -1, -1, -1)
    flicker = torch.randn(b, u, t, 3, 1, 1, generator=chance)
    y = (torch.arange(b) % 2).float()
    return still + 0.3 * flicker * y.view(-1, 1, 1, 1, 1, 1), y


def link(profile: Profile, device: torch.device, until: float) -> dict:
    """Seconds of averaging DIL's gradients between two GPUs with NCCL, and gigabytes per second."""
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        return {"missing": "this machine has one GPU"}
    numbers = sum(p.numel() for p in network("dil", profile).parameters())
    with tempfile.TemporaryDirectory(prefix="dfil-bench-") as folder:
        multiprocessing.spawn(_average, (device.type, folder, numbers), nprocs=2)
        took = float((Path(folder) / "seconds").read_text())
    return {"backend": _BACKEND[device.type], "average": took, "gb_per_s": 4e-9 * numbers / took}


_BACKEND = {"cpu": "gloo", "cuda": "nccl"}


def _average(rank: int, kind: str, folder: str, numbers: int) -> None:
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group(_BACKEND[kind], meeting, rank=rank, world_size=2)
    x, times = torch.ones(numbers, device=f"cuda:{rank}" if kind == "cuda" else "cpu"), []
    for _ in range(12):
        distributed.barrier()
        start = now(x.device)
        distributed.all_reduce(x)
        times.append(now(x.device) - start)
    if rank == 0:
        (Path(folder) / "seconds").write_text(str(statistics.median(times[2:])))
    distributed.destroy_process_group()


def hours(profile: Profile, device: torch.device, until: float) -> dict:
    """Hours of every table by `dfil plan`, which keeps what is measured here."""
    methods = list(dict.fromkeys(["dil", "resnet50", *models.available()]))
    seconds = plan.measure_all(profile, methods, until)
    file, kind, plans = plan.keep(profile, seconds), "gpu" if device.type == "cuda" else "cpu", {}
    for title, made in plan.selections(profile).items():
        tables = made["tables"] | {"in all": made}
        plans[title] = {name: table["hours"][kind] for name, table in tables.items()}
    unmeasured = [name for name in methods if name not in seconds]
    return {"methods": seconds, "plans": plans, "file": str(file), "unmeasured": unmeasured}


SECTIONS: dict[str, Callable[[Profile, torch.device, float], dict]] = {
    "ratios": ratios,
    "loading": loading,
    "curves": curves,
    "link": link,
    "hours": hours,
    "compiled": partial(ratios, compiled=True),  # last, because compiling takes minutes
}


def table(result: dict) -> str:
    """The result as one table: what, how much, and how much was wanted."""
    rows = []
    for name in SECTIONS:
        if missing := result[name].get("missing"):
            rows.append((name, "-", missing))
    modes = (result[name].get("modes", {}) for name in ("ratios", "compiled"))
    for mode, found in chain.from_iterable(each.items() for each in modes):
        for what, times in found.items():
            seconds = f"{1000 * times['dil']:.1f} ms against {1000 * times['resnet50']:.1f} ms"
            wanted = f"at most {WANTED[what]:.2f}; {seconds}"
            rows.append((f"{what}, {mode}, times ResNet-50", f"{times['ratio']:.3f}", wanted))
    for row in result["loading"].get("rows", ()):
        how = f"{row['precision']}{', checkpointed' if row['checkpoint'] else ''}"
        rows.append((f"waiting for data, {how}", f"{row['waiting']:.1%}", "a few per cent"))
        rows.append((f"memory of the batch, {how}", f"{row['peak_mib'] / 1024:.2f} GiB", ""))
    for name, found in result["curves"].get("networks", {}).items():
        apart, cosine = f"{found['largest difference']:.4f}", f"{found['cosine']:.4f}"
        rows.append((f"loss in bfloat16 less float32, {name}", apart, "largest of all updates"))
        rows.append((f"cosine of first gradients, {name}", cosine, "not below ResNet-50's"))
    if "average" in result["link"]:
        speed = f"{result['link']['gb_per_s']:.2f} GB/s"
        rows.append((f"averaging gradients, {result['link']['backend']}", speed, ""))
    for title, hours_of in result["hours"].get("plans", {}).items():
        for name, value in hours_of.items():
            shown = plan.UNMEASURED if value is None else f"{value:.2f} h"
            rows.append((f"{name}, {title}", shown, ""))
    where = f"{result['device']}, torch {result['torch']}, profile {result['profile']}"
    lines = [f"{where}: {result['seconds']:.0f} s"]
    if not result["gpus"]:
        lines.append("No GPU here: this only shows that the command runs, at the smallest size.")
    return "\n".join([*lines, *(f"{a:48}{b:>16}  {c}".rstrip() for a, b, c in rows)])
