"""Methods by name: `build("dil")`, `available()`. A new method is one file and one line here.

From a package of one's own, with `Mine` a Detector:

    [project.entry-points."dfil.methods"]
    mine = "my_package.mine:Mine"

or, inside one Python process, dfil.models.register("mine", Mine). `with plain():` computes DIL's
modules by their equations and not by fast.py.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from dfil.models.baselines.addnet_3d import ADDNet3D
from dfil.models.baselines.c3d import C3D
from dfil.models.baselines.capsule import Capsule
from dfil.models.baselines.co_motion import CoMotion
from dfil.models.baselines.d_fwa import DFWA
from dfil.models.baselines.deeprhythm import DeepRhythm
from dfil.models.baselines.dianet import DIANet
from dfil.models.baselines.double_rnn import DoubleRNN
from dfil.models.baselines.dsanet import DSANet
from dfil.models.baselines.facenet_lstm import FaceNetLSTM
from dfil.models.baselines.fitted import FittedDetector
from dfil.models.baselines.frame_resnet import FrameResNet
from dfil.models.baselines.i3d import I3D
from dfil.models.baselines.lstm import FrameLSTM
from dfil.models.baselines.s_mil import SMIL
from dfil.models.baselines.s_mil_t import SMILT
from dfil.models.baselines.stil import STIL
from dfil.models.baselines.tei import TEINet
from dfil.models.baselines.v4d import V4D
from dfil.models.baselines.va_logreg import VALogReg
from dfil.models.baselines.xception import Xception
from dfil.models.detector import About, Detector, Sampling
from dfil.models.dil import DIL
from dfil.models.dil_and_later import DILAndLater
from dfil.models.fast import plain
from dfil.models.saved import fill, read, switches
from dfil.system import plugins
from dfil.system.errors import RunError

__all__ = [
    "About", "DIL", "Detector", "Sampling", "about", "available", "build", "is_fitted",
    "load_weights", "plain", "read", "register", "sampling",
]  # fmt: skip

BUILT_IN: dict[str, type[Detector]] = {
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
    "dil": DILAndLater,
    "capsule": Capsule,
    "d-fwa": DFWA,
    "facenet-lstm": FaceNetLSTM,
    "doublernn": DoubleRNN,
    "dianet": DIANet,
    "va-logreg": VALogReg,
    "deeprhythm": DeepRhythm,
    "co-motion-70": CoMotion,
}
ENTRY_POINTS = "dfil.methods"
_methods = dict(BUILT_IN)
for _name, _class in BUILT_IN.items():
    _class.registered = _name  # what weights of this very class are saved under


def register(name: str, cls: type[Detector]) -> None:
    """Make a method known by `name` in this process, after the others; its own name only once.

    cls is a Detector with `about`. Raises ValueError for anything else and for a name that is taken
    by another class.
    """
    if not (isinstance(cls, type) and issubclass(cls, Detector) and hasattr(cls, "about")):
        raise ValueError(f"{name}: a method is a subclass of Detector with `about`, not {cls!r}")
    if not isinstance(cls.about, About):
        raise ValueError(f"{name}: its `about` is a dfil.models.About, not {cls.about!r}")
    if _methods.setdefault(name, cls) is not cls:
        raise ValueError(f"{name}: this name is taken by {_methods[name].__name__}; take another")


def available() -> list[str]:
    """The names that `build` takes: built in, registered, and from entry points of packages.

    Raises RunError naming a package whose method cannot be loaded.
    """
    plugins.load(ENTRY_POINTS, _methods, register, RunError)
    return list(_methods)


def sampling(name: str) -> Sampling | None:
    """What the method called `name` looks at; None for the profile's snippets. Raises ValueError
    for an unknown name."""
    return _method(name).sampling


def about(name: str) -> About:
    """Where the method called `name` comes from. Raises ValueError for an unknown name."""
    return _method(name).about


def loss_at_chance(name: str, entropy: float) -> float:
    """What a method's training loss is as long as it tells nothing apart. Raises ValueError for an
    unknown name."""
    return _method(name).loss_at_chance(entropy)


def is_fitted(name: str) -> bool:
    """Whether scikit-learn fits the method called `name` in place of a training by gradient. Raises
    ValueError for an unknown name."""
    return issubclass(_method(name), FittedDetector)


def build(name: str, **switches) -> Detector:
    """The detector called `name`: (B, U, T, 3, H, W) float, ImageNet-normalised -> logits (B,),
    positive = fake.

    switches are the constructor's keyword arguments; the defaults are the paper's. Raises
    ValueError for an unknown name or switch.
    """
    method = _method(name)
    for switch, value in switches.items():  # any text counts as True
        if isinstance(value, str) and isinstance(_default(method, switch), bool):
            raise ValueError(f"{name}: {switch} is True or False, not {value!r}")
    try:
        return method(**switches)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def load_weights(where: str | Path, revision: str | None = None) -> tuple[Detector, dict]:
    """A trained model of any method, in evaluation mode on the CPU, and its config.

    where: a .safetensors file with its config.json beside it, a run's folder, one that
    `dfil export` wrote, or OWNER/NAME on the Hugging Face Hub (revision: a branch, tag or commit
    there). Raises RunError if it is missing, damaged or something else.
    """
    state, config = read(where, revision)
    try:
        model = build(config["method"], **switches(config))
    except ValueError as error:
        raise RunError(f"{where}: its config.json does not fit this version: {error}") from error
    fill(model, state, where)
    return model, config


def _method(name: str) -> type[Detector]:
    if name not in _methods and name not in available():
        raise ValueError(f"no method is called {name!r}; there are {', '.join(_methods)}")
    return _methods[name]


def _default(method: type[Detector], switch: str) -> object:
    """The value of a constructor's argument that is not given, of the class itself or a base."""
    parameters = (inspect.signature(cls.__init__).parameters for cls in method.__mro__)
    return next((found[switch].default for found in parameters if switch in found), None)
