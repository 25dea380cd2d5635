"""Classification weights of backbones other than ResNet-50: found, and loaded whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import nn

from dfil.system.errors import RunError

State = Mapping[str, torch.Tensor]


def find_state(
    file: Path | None, variable: str, fetch: Callable[[], State], what: str
) -> tuple[State, str]:
    """A state dict and where it came from: `file`, else the file named by the environment's `variable`, else what `fetch` returns.

    what: whose weights these are, with the file's usual name, for the message. Raises RunError where none can be had.
    """
    named = file or os.environ.get(variable)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise RunError(f"{path}: no such file; name a file with {what} by ${variable}")
        return load_file(path) if path.suffix == ".safetensors" else torch.load(
            path, map_location="cpu", weights_only=True
        ), str(path)
    try:
        return fetch(), what
    except (
        URLError,
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: torch's answer to a download with the wrong hash
        raise RunError(
            f"{what} could not be fetched ({error}); download the file elsewhere and name it by ${variable}"
        ) from error


def load_strictly(model: nn.Module, state: State, heads: tuple[str, ...], source: str) -> None:
    """Load `state` into `model`, everything but the classifiers whose names start with one of `heads`.

    Raises RunError naming `source` if anything else is missing, left over or of another shape. Counters of batches are left out of
    this: files from before torch 0.4.1 have none, and nothing here depends on them.
    """
    own = {k: v for k, v in model.state_dict().items() if _counts(k, heads)}
    given = {k: v for k, v in state.items() if _counts(k, heads)}
    wrong = sorted(own.keys() ^ given.keys()) + sorted(
        k for k in own.keys() & given.keys() if own[k].shape != given[k].shape
    )
    if wrong:
        raise RunError(
            f"{source}: these are not the weights of {type(model).__name__} ({len(wrong)} parameters differ, first {wrong[0]}); "
            "give the file that the method's description names, and build the model at its full size"
        )
    model.load_state_dict(given, strict=False)


def _counts(name: str, heads: tuple[str, ...]) -> bool:
    return not name.startswith(heads) and not name.endswith(".num_batches_tracked")
