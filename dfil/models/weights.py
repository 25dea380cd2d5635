"""Pretrained weights: found, read without unpickling code, and loaded whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models import ResNet50_Weights, WeightsEnum

from dfil.system.errors import MachineError, RunError, machine_fault

State = Mapping[str, torch.Tensor]
# What readers of weights raise for a file that is none.
_NO_WEIGHTS = (
    SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError,
    LookupError, AttributeError, TypeError,
)  # fmt: skip


def read_state(path: Path) -> State:
    """The state dict in a .safetensors or a torch file, on the CPU; code in it is never run.

    Raises RunError with what the file looks like if it is none.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # it may still be read
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _NO_WEIGHTS as error:
        if machine_fault(error):
            raise MachineError(f"{path}: {machine_fault(error)}") from error
        raise RunError(f"{path}: {looks_like(path)}") from error
    if not isinstance(state, Mapping) or not all(map(torch.is_tensor, state.values())):
        raise RunError(
            f"{path}: this holds {type(state).__name__} and not only tensors by name; give the "
            "state dict itself (often under the key 'state_dict' or 'model')"
        )
    return state


def read_json(path: Path) -> dict:
    """A JSON file that holds one object. Raises RunError with what it looks like if it does not."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: {looks_like(path)}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: this holds {type(found).__name__} and no settings; fetch it again")
    return found


def looks_like(path: Path) -> str:
    """What a file that could not be read seems to be instead, and what to do about it."""
    with path.open("rb") as file:
        start = file.read(512)
    size = path.stat().st_size
    text = start.lstrip().lower()
    header = int.from_bytes(start[:8], "little")
    if not start:
        return "an empty file; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, which stands for the file; fetch the file with `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page and not the file that it leads to; download that again"
    if start.startswith(b"PK"):
        return f"a torch file that is cut short or damaged ({size} bytes); fetch it again"
    if start.startswith(b"\x80"):
        return (
            "a pickle with more in it than tensors, or cut short; pickled code is never run here: "
            "give the weights as .safetensors or as a plain state dict"
        )
    if path.suffix == ".safetensors" and start[8:9] == b"{" and header + 8 <= size:
        return f"cut short or damaged ({size} bytes); fetch it again"
    kind = {".json": "JSON", ".safetensors": "safetensors"}.get(path.suffix, "torch")
    return f"cut short or no {kind} file at all ({size} bytes); fetch it again"


def find_state(
    file: Path | None, variable: str, fetch: Callable[[], State], what: str
) -> tuple[State, str]:
    """A state dict and where it came from: `file`, else the file that the environment's `variable`
    names, else what `fetch` returns.

    what: whose weights these are, for the message. Raises RunError where none can be had.
    """
    named = file or os.environ.get(variable)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise RunError(f"{path}: no such file; name a file with {what} by ${variable}")
        return read_state(path), str(path)
    try:
        return fetch(), what
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the hash of torch.hub
        what_now = f"download the file elsewhere and name it by ${variable}"
        raise RunError(f"{what} could not be fetched ({error}); {what_now}") from error


def check_named() -> None:
    """Raise RunError now, not hours later, if a $DFIL_..._WEIGHTS names no file of tensors."""
    for variable, named in os.environ.items():
        if variable.startswith("DFIL_") and variable.endswith("_WEIGHTS") and named:
            find_state(None, variable, dict, "weights")


def download(url: str) -> State:
    """A state dict fetched into torch's cache and checked against the hash in its name."""
    how = {"progress": False, "check_hash": True, "weights_only": True}
    return torch.hub.load_state_dict_from_url(url, map_location="cpu", **how)


def torchvisions(weights: WeightsEnum) -> State:
    """Weights of torchvision's, fetched into torch's cache and checked."""
    return weights.get_state_dict(progress=False, check_hash=True)


THE_FILE = "give the file that the method's description names, and build the model at its full size"


def load_strictly(
    model: nn.Module, state: State, heads: tuple[str, ...], source: str, whose="", advice=THE_FILE
) -> None:
    """Load `state` into `model`, everything but the classifiers whose names start with `heads`.

    whose: the network's name in the message, by default its class's. Raises RunError naming
    `source`, with the advice, if anything else is missing, left over or of another shape. Counters
    of batches are left out: files from before torch 0.4.1 have none, nothing needs them.
    """

    def counts(name: str) -> bool:
        return not name.startswith(heads) and not name.endswith(".num_batches_tracked")

    own = {k: v for k, v in model.state_dict().items() if counts(k)}
    given = {k: v for k, v in state.items() if counts(k)}
    wrong = sorted(own.keys() ^ given.keys())
    wrong += sorted(k for k in own.keys() & given.keys() if own[k].shape != given[k].shape)
    if wrong:
        differ = f"({len(wrong)} parameters differ, first {wrong[0]})"
        whose = whose or type(model).__name__
        raise RunError(f"{source}: these are not the weights of {whose} {differ}; {advice}")
    model.load_state_dict(given, strict=False)


def load_backbone(model: nn.Module, state: State, source: str) -> None:
    """Load classification weights of torchvision's ResNet into `model`: everything but its
    1000-class head, and nothing silently.

    Raises RunError naming `source` if a backbone parameter is missing, left over, or of another
    shape. The blocks' added modules and the head have no pretrained weights and keep their
    initialisation.
    """
    added = tuple(f".{name}." for name in model.block.added)
    own = {k: v for k, v in model.state_dict().items() if any(name in k for name in added)}
    advice = "give torchvision's resnet50 weights, or change the backbone's depth and width"
    load_strictly(model, {**state, **own}, ("fc.",), source, "this backbone", advice)


def load_imagenet(model: nn.Module, file: Path | None = None) -> str:
    """Load ImageNet weights into `model.backbone` and return where they came from; a method with
    weights of its own loads those, and one without any starts from scratch.

    `file` (or $DFIL_BACKBONE_WEIGHTS) is a state dict of torchvision's resnet50; without one
    torchvision fetches its own into torch's cache. Raises RunError with what to do otherwise.
    """
    if hasattr(model, "pretrained"):
        return model.pretrained(file)
    if model.about.start == "scratch":
        return "scratch"
    if not hasattr(getattr(model, "backbone", None), "block"):
        raise RunError(
            f"{type(model).__name__} has no `backbone` of dfil.models.resnet that takes ImageNet"
            ' weights: give it a method `pretrained`, or its `about` start="scratch"'
        )
    known = ResNet50_Weights.IMAGENET1K_V1
    whose = (
        f"torchvision's ResNet-50 ({known}, resnet50-0676ba61.pth; also --backbone-weights FILE)"
    )
    state, source = find_state(file, "DFIL_BACKBONE_WEIGHTS", lambda: torchvisions(known), whose)
    load_backbone(model.backbone, state, source)
    return source
