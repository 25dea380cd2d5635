"""A trained model on the disk, or on the Hugging Face Hub.

A run's folder holds weights.safetensors and config.json; one that `dfil export` wrote, in the Hub's
layout, model.safetensors, config.json and preprocessor_config.json. config.json says the method,
its constructor's arguments ("switches"), the weights' checksum and what the model looks at
("sampling"), which preprocessor_config.json repeats (in older exports it stands only there).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from dfil.models.weights import State, read_json, read_state
from dfil.system.errors import MachineError, RunError, machine_fault
from dfil.system.files import atomic, checksum

EXPORTED, OF_A_RUN = "model.safetensors", "weights.safetensors"
CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"
LARGEST = 2048  # pixels a side of a crop; more is a slip
_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name


def save_weights(model: nn.Module, path: Path, config: dict) -> None:
    """`path` (.safetensors) and, beside it, `config` with the weights' checksum as config.json."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(state, temporary)
        config = {**config, "sha256": checksum(temporary)}
        with atomic(path.with_name(CONFIG)) as beside:
            beside.write_text(json.dumps(config, indent=1) + "\n")


def read(where: str | Path, revision: str | None = None) -> tuple[State, dict]:
    """The state dict and the config of a .safetensors file, a folder, or a repository on the Hub.

    Nothing is unpickled. revision: of the repository, a branch, tag or commit. Raises RunError if
    the weights or their config.json are not there, damaged or something else.
    """
    path = _file(where, revision)
    beside = path.with_name(CONFIG)
    for file in (path, beside):
        if not file.is_file():
            raise RunError(
                f"{file}: no such file; weights are a .safetensors file with its config.json"
                " beside it"
            )
    config, state = read_json(beside), read_state(path)
    if (extra := path.with_name(PREPROCESSING)).is_file():
        sampling = read_json(extra).get("sampling")
        if config.setdefault("sampling", sampling) != sampling:
            raise RunError(
                f"{extra}: says other crops and snippets than {beside.name}, so the two are not of"
                " one export; fetch both again, or export the run again"
            )
    if not isinstance(config.get("switches"), dict) or not isinstance(config.get("method"), str):
        raise RunError(f"{beside}: names no method and switches; use the one saved with {path}")
    if config.get("sha256", "") not in ("", checksum(path)):
        raise RunError(
            f"{path}: not the weights that {beside.name} was saved with, by their checksum; they"
            " are damaged or others: fetch both again, or remove the folder and train again"
        )
    return state, config


def fill(model: nn.Module, state: State, source: str | Path) -> None:
    """Load a whole state dict, and go to evaluation mode. Raises RunError if it does not fit."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(
            f"{source}: these weights do not fit {type(model).__name__} as their {CONFIG} describes"
            " it; use the pair that was saved together"
        ) from error
    model.eval()


def described(cls: type, config: dict, where: str | Path) -> nn.Module:
    """The untrained model of a class that a config describes. Raises RunError for the config of
    another method, whose parameters may have the same names and shapes."""
    other = f"{where}: the weights of {config['method']!r}, which do not fit {cls.__name__}"
    what_now = "dfil.models.load_weights takes those of every method"
    if vars(cls).get("registered", config["method"]) != config["method"]:
        raise RunError(f"{other}; {what_now}")
    try:
        return cls(**switches(config))
    except (TypeError, ValueError) as error:
        raise RunError(f"{other} ({error}); {what_now}") from error


def switches(config: dict) -> dict:
    """The constructor's arguments in a config; JSON knows lists only."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in config["switches"].items()}


def wrong_sampling(looks: dict) -> list[str]:
    """Which of a config's settings of crops and snippets are no numbers that a model can take."""
    least = {"size": 8, "frames": 1, "stride": 1, "snippets": 1, "views": 1}
    found = {"views": 1} | looks
    wrong = [n for n, low in least.items() if type(found.get(n)) is not int or found[n] < low]
    if "size" not in wrong and found["size"] > LARGEST:
        wrong.append("size")
    return wrong or ["views"] * bool(found["snippets"] % found["views"])


def _file(where: str | Path, revision: str | None) -> Path:
    path = Path(where).expanduser()
    if path.suffix == ".json" and path.is_file():
        raise RunError(f"{path}: settings and no weights; give the folder that it is in")
    if path.suffix == ".safetensors" or path.is_file():
        return path
    if path.is_dir():
        there = [path / name for name in (EXPORTED, OF_A_RUN) if (path / name).is_file()]
        if not there:
            raise RunError(
                f"{path}: a folder without {EXPORTED} or {OF_A_RUN}; give one that `dfil export`"
                " wrote, or a run's"
            )
        return there[0]
    if not _ON_THE_HUB.fullmatch(str(where)):
        raise RunError(
            f"{where}: no such file; give a .safetensors file, a folder that `dfil export` wrote, a"
            " run's folder, or OWNER/NAME on the Hugging Face Hub"
        )
    return _fetched(str(where), revision) / EXPORTED


def _fetched(repository: str, revision: str | None) -> Path:
    """A repository of the Hub in huggingface_hub's cache, from there where it was fetched before.

    The package is asked for only now: files and folders need neither it nor a network.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise RunError(
            f"{repository}: no such file or folder; to fetch it from the Hugging Face Hub:"
            ' pip install "dfil[hub]"'
        ) from error
    wanted = [EXPORTED, CONFIG, PREPROCESSING]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError) as error:  # its errors of network, names and rights are of these
        if said := machine_fault(error):
            raise MachineError(said) from error
        reason = str(error).strip().split("\n")[0]
        raise RunError(
            f"{repository}: no such folder here, and not to be had from the Hugging Face Hub"
            f" ({reason}); check the name and the connection"
        ) from error
