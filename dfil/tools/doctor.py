"""`dfil doctor`: what of this machine the project needs, and what to do where it is not there.

Each check is one function that says what it found. It imports what it looks at, so that a broken
package is found by its own check, and the others still run.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dfil.system import paths
from dfil.system.cores import cores
from dfil.system.errors import DfilError

OK, NOTE, FAILED = "ok", "note", "failed"
LEAST_GB, USUAL_GB = 1, 10  # on the disk: smoke; demo with its crops
PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """state: OK, NOTE (something is left out) or FAILED (required). todo: what to do about it."""

    name: str
    state: str
    said: str
    todo: str = ""


def examine(names: Iterable[str] = ()) -> Iterator[Finding]:
    """The findings of the checks named, or of all, as they come."""
    for name, check in CHECKS.items():
        if names and name not in names:
            continue
        try:
            state, said, todo = check()
        except DfilError as error:
            state, said, todo = FAILED, str(error), ""
        except Exception as error:  # whatever a broken package raises is what was asked for
            state, said, todo = FAILED, f"{type(error).__name__}: {error}".split("\n")[0], _AGAIN
        yield Finding(name, state, said, todo)


Answer = tuple[str, str, str]  # state, said, todo
_AGAIN = "install again: pip install -c constraints.txt -e ."


def python() -> Answer:
    text = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < PYTHON:
        return FAILED, text, "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"
    return OK, text, ""


def packages() -> Answer:
    """Whether the required ones are there in versions that pyproject.toml allows."""
    from packaging.requirements import Requirement  # matplotlib brings it

    try:
        asked = [Requirement(text) for text in metadata.requires("dfil") or ()]
    except metadata.PackageNotFoundError:
        return NOTE, "dfil is not installed, only found by its folder", "pip install -e ."
    needed = [each for each in asked if not each.marker or each.marker.evaluate({"extra": ""})]
    wrong = []
    for each in needed:
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{each.name} is missing")
            continue
        if not each.specifier.contains(version, prereleases=True):
            wrong.append(f"{each.name} {version} is not {each.specifier}")
    if wrong:
        return FAILED, "; ".join(wrong), _AGAIN
    return OK, f"{len(needed)} required ones, in versions that go together", ""


def torch() -> Answer:
    torch = importlib.import_module("torch")
    importlib.import_module("torchvision.ops")  # fails where the two are of different builds
    clip_ncthw = torch.randn(1, 3, 4, 8, 8)
    seen = torch.nn.functional.conv3d(clip_ncthw, torch.randn(2, 3, 3, 3, 3))
    if not bool(seen.isfinite().all()):
        return FAILED, f"torch {torch.__version__} computes no finite numbers", _AGAIN
    return OK, f"torch {torch.__version__}, {cores()} CPU cores", ""


def gpu() -> Answer:
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        todo = "smoke and demo need none; for paper see docs/running.md"
        return NOTE, "none that torch can use", todo
    names = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        names.append(f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    torch.ones(8, device="cuda").sum().item()  # a driver that is too old fails only here
    return OK, "; ".join(names), ""


def video() -> Answer:
    """H.264 in and out, as the built-in clips and own videos need it."""
    import av
    import numpy as np

    from dfil.synthetic.codec import decode, encode

    frames_thwc = np.full((4, 64, 64, 3), 128, np.uint8)
    if decode(encode(frames_thwc, crf=20)).shape != frames_thwc.shape:
        return FAILED, f"PyAV {av.__version__} does not decode what it encoded", _AGAIN
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    return OK, f"PyAV {av.__version__} with FFmpeg's libavcodec {version}", ""


def detectors() -> Answer:
    """Both face detectors look at a drawn face."""
    from dfil.faces.detect import DETECTORS, detector
    from dfil.synthetic.render import render_target
    from dfil.synthetic.settings import SETTINGS

    clip = next(iter(render_target(0, 1, SETTINGS["temporal-only"], frames=1, methods=())))
    blind = [name for name in DETECTORS if not len(detector(name)(clip.frames_thwc)[0])]
    if blind:
        return FAILED, f"{' and '.join(blind)} found no face where there is one", _AGAIN
    return OK, f"{' and '.join(DETECTORS)} find a drawn face", ""


def disk() -> Answer:
    said, state = [], OK
    for name, folder in (("data", paths.data()), ("results", paths.published("demo").parent)):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not paths.writable(there):
            return (
                FAILED,
                f"{there} cannot be written",
                "let $DFIL_DATA and $DFIL_OUTPUTS name others",
            )
        free = shutil.disk_usage(there).free / 1e9
        state = FAILED if free < LEAST_GB else NOTE if free < USUAL_GB and state == OK else state
        said.append(f"{free:.0f} GB free for {name} in {folder}")
    todo = f"demo takes up to {USUAL_GB} GB; $DFIL_DATA and $DFIL_OUTPUTS may name another disk"
    return state, "; ".join(said), "" if state == OK else todo


def trees() -> Answer:
    named = {name: root for name in paths.ROOT_VARIABLES if (root := paths.real_root(name))}
    if not named:
        return NOTE, "no real dataset is named", "built-in clips are used; see docs/own-data.md"
    empty = [str(root) for root in named.values() if not any(root.iterdir())]
    if empty:
        return FAILED, f"{', '.join(empty)}: empty", "is the disk mounted?"
    return OK, ", ".join(f"{name}: {root}" for name, root in named.items()), ""


def imagenet() -> Answer:
    """Weights to begin with, which only `paper` needs."""
    torch = importlib.import_module("torch")
    named = os.environ.get("DFIL_BACKBONE_WEIGHTS")
    if named and not Path(named).expanduser().is_file():
        return FAILED, f"{named}: no such file", "correct $DFIL_BACKBONE_WEIGHTS"
    cached = Path(torch.hub.get_dir(), "checkpoints", "resnet50-0676ba61.pth")
    if named or cached.is_file():
        return OK, str(named or cached), ""
    todo = "the profile paper downloads them; offline see docs/own-data.md"
    return NOTE, "no ImageNet weights yet", todo


def kernel() -> Answer:
    """Jupyter's kernel "python3" starts and finds the package; `dfil reproduce` needs it not."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(
        kernel_name="python3", startup_timeout=60, extra_arguments=["--log-level=CRITICAL"]
    )
    try:
        asked = {"found": "__import__('dfil').__name__"}
        reply = client.execute("", user_expressions=asked, reply=True, timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    told = {name: value["status"] for name, value in reply["content"]["user_expressions"].items()}
    if told.get("found") != "ok":
        todo = f"{sys.executable} -m ipykernel install --sys-prefix --name python3"
        return NOTE, "Jupyter's kernel python3 belongs to a Python without dfil", todo
    return OK, "Jupyter's kernel python3 finds dfil", ""


def lab() -> Answer:
    try:
        return OK, f"JupyterLab {metadata.version('jupyterlab')}", ""
    except metadata.PackageNotFoundError:
        return NOTE, "no JupyterLab", 'to open notebooks: pip install "dfil[lab]" (make does)'


CHECKS: dict[str, Callable[[], Answer]] = {
    "Python": python,
    "packages": packages,
    "torch": torch,
    "GPU": gpu,
    "video": video,
    "faces": detectors,
    "disk": disk,
    "datasets": trees,
    "ImageNet": imagenet,
    "kernel": kernel,
    "JupyterLab": lab,
}
