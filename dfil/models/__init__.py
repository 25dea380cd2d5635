"""Methods by name: `build("dil")`, `available()`. A new method is one file and one line here."""

from __future__ import annotations

from dfil.models.detector import About, Detector, Sampling
from dfil.models.dil import DIL
from dfil.models.frame_resnet import FrameResNet

_METHODS: dict[str, type[Detector]] = {
    "dil": DIL,
    "resnet50": FrameResNet,
}


def available() -> list[str]:
    """The names that `build` takes."""
    return list(_METHODS)


def sampling(name: str) -> Sampling | None:
    """What the method called `name` looks at; None for the profile's snippets. Raises ValueError for an unknown name."""
    return _method(name).sampling


def about(name: str) -> About:
    """Where the method called `name` comes from. Raises ValueError for an unknown name."""
    return _method(name).about


def build(name: str, **switches) -> Detector:
    """The detector called `name`: (B, U, T, 3, H, W) float, ImageNet-normalised -> logits (B,), positive = fake.

    switches are the constructor's keyword arguments; the defaults are the paper's. Raises ValueError for an unknown name or switch.
    """
    method = _method(name)
    try:
        return method(**switches)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def _method(name: str) -> type[Detector]:
    if name not in _METHODS:
        raise ValueError(f"no method is called {name!r}; there are {', '.join(available())}")
    return _METHODS[name]
