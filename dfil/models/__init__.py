"""Methods by name: `build("dil")`, `available()`. A new method is one file and one line here."""

from __future__ import annotations

from dfil.models.detector import Detector
from dfil.models.dil import DIL
from dfil.models.frame_resnet import FrameResNet

_METHODS: dict[str, type[Detector]] = {
    "dil": DIL,
    "resnet50": FrameResNet,
}


def available() -> list[str]:
    """The names that `build` takes."""
    return list(_METHODS)


def build(name: str, **switches) -> Detector:
    """The detector called `name`: (B, U, T, 3, H, W) float, ImageNet-normalised -> logits (B,), positive = fake.

    switches are the constructor's keyword arguments; the defaults are the paper's. Raises ValueError for an unknown name or switch.
    """
    if name not in _METHODS:
        raise ValueError(f"no method is called {name!r}; there are {', '.join(available())}")
    try:
        return _METHODS[name](**switches)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
