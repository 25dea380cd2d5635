"""What the measurements share: threads, a clock, a network, a small tree."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch

from dfil import models, synthetic
from dfil.profiles import Profile
from dfil.system.cores import cores
from dfil.train.devices import place


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """torch and OpenCV with so many threads."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(number)
    cv2.setNumThreads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def now(device: torch.device) -> float:
    """Seconds of a clock, after all that the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def machine(device: torch.device) -> dict:
    """What a measurement was made on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {"device": device.type, "gpu": name, "cores": cores(), "torch": torch.__version__}


def where(result: dict) -> str:
    """`machine` in words."""
    name = result["gpu"] or f"CPU with {result['cores']} cores"
    return f"{name}, torch {result['torch']}"


def network(name: str, profile: Profile, device: torch.device | str = "cpu") -> models.Detector:
    """A method's network of the profile's size with new weights, the same each time."""
    torch.manual_seed(0)
    model = models.build(name, frames=profile.frames, **profile.backbone)
    place(model, torch.device(device))
    return model


def small_tree(root: Path, people: int, frames: int, val: int = 0) -> Path:
    """A FaceForensics++ tree of one quality: so many real clips to train, each with a forgery."""
    sizes = {"train": people, "val": val, "test": 0, "frames": frames}
    kinds = {"qualities": ("c23",), "manipulations": ("Deepfakes",)}
    return synthetic.write("ff-like", root, **sizes, **kinds, jobs=1, progress=False)


def peak_bytes() -> int:
    """Most memory that this process has held. On Linux getrusage's number begins with that of the
    process that started it, so the kernel is asked for this one's own."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [n for n in status.read_text().splitlines() if n.startswith("VmHWM:")]
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)
