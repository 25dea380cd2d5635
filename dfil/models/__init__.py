"""Methods by name: `build("dil")`, `available()`. A new method is one file and one line here."""

from __future__ import annotations

from dfil.models.baselines.addnet_3d import ADDNet3D
from dfil.models.baselines.c3d import C3D
from dfil.models.baselines.dsanet import DSANet
from dfil.models.baselines.frame_resnet import FrameResNet
from dfil.models.baselines.i3d import I3D
from dfil.models.baselines.lstm import FrameLSTM
from dfil.models.baselines.s_mil import SMIL
from dfil.models.baselines.s_mil_t import SMILT
from dfil.models.baselines.stil import STIL
from dfil.models.baselines.tei import TEINet
from dfil.models.baselines.v4d import V4D
from dfil.models.baselines.xception import Xception
from dfil.models.detector import About, Detector, Sampling
from dfil.models.dil import DIL
from dfil.models.fast import plain

__all__ = [
    "About", "Detector", "Sampling", "about", "available", "build", "plain", "sampling",
]  # fmt: skip

_METHODS: dict[str, type[Detector]] = {
    "resnet50": FrameResNet,
    "xception": Xception,
    "lstm": FrameLSTM,
    "c3d": C3D,
    "i3d": I3D,
    "tei": TEINet,
    "dsanet": DSANet,
    "v4d": V4D,
    "addnet-3d": ADDNet3D,
    "s-mil": SMIL,
    "s-mil-t": SMILT,
    "stil": STIL,
    "dil": DIL,
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
