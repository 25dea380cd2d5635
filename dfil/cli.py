"""The console script `dfil`: what can be typed. What a verb does stands in dfil/tools/verbs.

A verb's module is imported when the verb is called, so that help and errors of arguments come at
once, before torch.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import dfil
from dfil.datasets import BUILT_IN, get
from dfil.paper import ALL_MANIPULATIONS
from dfil.profiles import PROFILES
from dfil.system import paths
from dfil.system.errors import DfilError, machine_fault

Option = tuple[tuple[str, ...], dict]  # what add_argument takes


def _option(*names: str, **settings) -> Option:
    return names, settings


def _flag(name: str, text: str) -> Option:
    return _option(name, action="store_true", help=text)


def _text(name: str, metavar: str, text: str, **settings) -> Option:
    return _option(name, metavar=metavar, help=text, **settings)


def _path(text: str) -> Path:
    """The shell leaves ~ as it is after an equals sign, and of an unset variable nothing."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name; give a file or a folder")
    return Path(text).expanduser()


def _file(name: str, metavar: str, text: str, **settings) -> Option:
    return _option(name, metavar=metavar, help=text, type=_path, **settings)


def _several(name: str, metavar: str, text: str, **settings) -> Option:
    return _option(name, metavar=metavar, help=text, nargs="+", **settings)


def _from(least: int):
    """A type for argparse: whole numbers from `least` on."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is too small; give {least} or more")
        return value

    number.__name__ = "whole number"
    return number


def _hours(text: str) -> float:
    """A type for argparse: from 0 on."""
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} hours cannot be; give a number from 0 on")
    return value


_hours.__name__ = "number of hours"


def _seed(text: str) -> int:
    """A type for argparse: what torch takes."""
    if (value := _from(0)(text)) >= 2**63:
        raise argparse.ArgumentTypeError(f"{value} is too large; give less than 2**63")
    return value


_seed.__name__ = "whole number"


def _dataset(text: str) -> str:
    """A type for argparse: a name that the registry knows."""
    try:
        return get(text).name
    except DfilError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _number(name: str, metavar: str, text: str, least: int = 1, **settings) -> Option:
    return _option(name, metavar=metavar, help=text, type=_from(least), **settings)


WORDS = "method, dataset, compression, forgery, seed=N, switch=value, or the end of its name"
WEIGHTS = "a run's weights.safetensors, a folder that `dfil export` wrote, or OWNER/NAME on the Hub"
AS_TRAINED = "default: as it was trained"
SPLIT = "(default: %(default)s)"
SCALE = "scale of everything (default: %(default)s)"
DEMO = _option("--profile", choices=PROFILES, default="demo", help=SCALE)
STUDY = _option("--profile", choices=PROFILES, default="study", help=SCALE)
PAPER = _option("--profile", choices=PROFILES, default="paper", help=SCALE)
JSON = _flag("--json", "print everything as JSON")
CHECKPOINT = _flag(
    "--checkpoint", "gradient checkpointing: less memory, a quarter slower, the same"
)
DASK = "of a running dask cluster that does the work; see dfil.system.cluster"
SCHEDULER = _text("--scheduler", "ADDRESS", DASK, default="")
EACH = "every model is trained once for each seed, tables hold the mean (default: the profile's)"
SEEDS = _several("--seeds", "S", EACH, type=_seed, default=[])
ROWS = "rows of Tables 1-3, all for every one (default: the profile's)"
METHODS = _several("--methods", "NAME", ROWS, default=[])
SHIPPED = "(default: those that came along, which have seen synthetic clips only)"
FINDER = "face detector (default: the paper's for the dataset, or the training data's)"
DETECTOR = _option("--detector", choices=("dlib", "mtcnn"), help=FINDER)
MEASURE = _flag("--measure", "measure on this machine first, and keep that for later plans")
JOBS = _number("--jobs", "N", "files at a time (default: one per core)")
NAMED = "(default: the one that $DFIL_FFPP and so on or dfil.toml name)"
NAMES = ", ".join(each.name for each in BUILT_IN)
DATASETS = f"one of: {NAMES}, or one that an installed package brings along"
TREE = (
    _option("dataset", type=_dataset, metavar="DATASET", help=DATASETS),
    _file("--root", "TREE", f"top of the tree as the owners distribute it {NAMED}"),
    _several("--manipulations", "M", "only these (default: all that are there)"),
    _several("--compressions", "C", "only these (default: all that are there)"),
)
TORCHRUN = (
    "torchrun --nproc-per-node 2 -m dfil train dil --profile paper      # one run on two GPUs"
)
NO_FORGERY = "dfil train dil --fakes self-blended --real VIDEOS       # without any forgery"
FAKES = "train on real videos alone, against pseudo-forgeries made of them while they are read"
JITTER = "what changes from frame to frame in those: 0 nothing, 1 all of it (default: 0.5)"
SWITCH = "arguments of the model, such as bp=False; a name that it does not have lists all"
START = (
    "(default: %(default)s); in smoke and demo the others begin with the weights of a built-in ffpp"
    " run, which is trained first"
)
COMPACT = (
    "four stretches of 16 frames and crop margins up to 1.3: both qualities of FaceForensics++ in"
    " 140 GB (the default for real data)"
)
WHOLE = "every frame and crop margins up to 1.5: 1.45 TB (the default for built-in data)"
SETTINGS = (
    "ff-like or temporal-only (FaceForensics++; the latter has no traces in single frames),"
    " celebdf-like, dfdc-like, wild-like"
)
BENCHES = {
    "model": "forward and training step",
    "train": "frames per second, waiting, memory",
    "data": "crops to batches",
    "preprocess": "videos to crops",
    "reproduce": "smoke, notebook by notebook",
    "growth": "time and memory as work grows",
    "gpu": "all that needs one, in eight minutes",
}


@dataclass(frozen=True)
class Verb:
    """run: module and function below dfil.tools.verbs."""

    run: str
    what: str
    example: str
    options: tuple[Option, ...]


VERBS = {
    "doctor": Verb(
        "start.doctor",
        "check this machine and say what to do; exit status 1 if something required is not there",
        "dfil doctor",
        (JSON,),
    ),
    "notebooks": Verb(
        "start.notebooks",
        "copy the notebooks to a folder, to open and change them there",
        "dfil notebooks my-notebooks",
        (_file("folder", "FOLDER", "where to; what lies there already is kept"),),
    ),
    "reproduce": Verb(
        "reproduce.reproduce",
        "run the notebooks, publish what they made and build the report",
        "dfil reproduce --profile demo --only 20 90",
        (
            DEMO,
            _several("--only", "NN", "numbers or names of the notebooks to run (default: all)"),
            _text("--root", "TREE", "a real FaceForensics++ tree", default=""),
            METHODS,
            SEEDS,
            _file("--backbone-weights", "FILE", "ImageNet weights of ResNet-50, offline"),
            _option(
                "-p",
                dest="parameters",
                nargs=2,
                action="append",
                default=[],
                metavar=("NAME", "VALUE"),
                help="a further parameter of the notebooks; may be given several times",
            ),
            SCHEDULER,
            CHECKPOINT,
        ),
    ),
    "publish": Verb(
        "reproduce.publish",
        "bring what notebooks opened by hand have made to the published results",
        "dfil publish demo",
        (_option("profile", choices=PROFILES, metavar="PROFILE", help=", ".join(PROFILES)),),
    ),
    "selftest faults": Verb(
        "reproduce.faults",
        "kill a reproduction at random moments and start it again: the tables must be the same",
        "dfil selftest faults --kills 3 --only 20 30",
        (
            _number("--kills", "N", "how many (default: %(default)s)", default=20),
            _text("--seed", "S", f"of the moments {SPLIT}", type=_seed, default=0),
            _several("--only", "NN", "of these notebooks (default: all)", default=[]),
            JSON,
        ),
    ),
    "report": Verb(
        "reproduce.report",
        "build the report page, and the README's results for demo, from the tables",
        "dfil report",
        (DEMO, _flag("--latex", "also write the tables for LaTeX (booktabs), beside their .csv")),
    ),
    "data make": Verb(
        "data.make",
        "write synthetic clips as a tree of a dataset's layout",
        "dfil data make celebdf-like --root data/tiny --train 4 --test 2",
        (
            _text("setting", "SETTING", SETTINGS),
            _file("--root", "DIR", "where the tree goes", required=True),
            _number("--train", "N", "people (ffpp) or real clips to train (default: 60 or 40)", 0),
            _number("--val", "N", "people in validation, ffpp only (default: 10)", 0),
            _number("--test", "N", "the same in test (default: 20 or 16)", 0),
            _number("--frames", "F", "frames per clip (default: the setting's)"),
            _several("--qualities", "Q", "compressions, ffpp only (default: c23 c40)"),
            _number("--seed", "S", "of all that is drawn at random (default: 0)", 0),
            JOBS,
        ),
    ),
    "data check": Verb(
        "data.check",
        "count a tree's videos and name what is wrong; exit status 1 if something is",
        "dfil data check ffpp --root /data/FaceForensics++ --compressions c23",
        (*TREE, JSON),
    ),
    "preprocess": Verb(
        "data.preprocess",
        "cut the faces of a dataset's videos into a crop store; goes on where it stopped",
        "dfil preprocess ffpp --root /data/FaceForensics++ --compressions c23 --jobs 8",
        (
            *TREE,
            _file("--store", "DIR", "where the crops go (default: where the notebooks look)"),
            _number("--size", "PX", "of the typical crop (default: %(default)s)", default=224),
            DETECTOR,
            JOBS,
            _number("--every", "N", "frames between detections (default: %(default)s)", default=8),
            _option(
                "--tracks",
                choices=("largest", "all"),
                help="keep a video's largest face, or all (default: the dataset's protocol)",
            ),
            _number(
                "--stretches",
                ("N", "FRAMES"),
                "keep only N evenly spaced stretches of FRAMES frames per video",
                nargs=2,
            ),
            _flag("--compact", COMPACT),
            _flag("--whole", WHOLE),
            SCHEDULER,
        ),
    ),
    "train": Verb(
        "train.train",
        "train one run of the tables, where they find it, or go on with it",
        "dfil train dil --compression c40 --manipulations Deepfakes --profile paper\n"
        f"  {TORCHRUN}\n  {NO_FORGERY}",
        (
            _text("method", "METHOD", "a name that `dfil models` lists"),
            DEMO,
            _option("--dataset", type=_dataset, default="ffpp", help=START),
            _file("--root", "TREE", "the dataset's real tree instead of the profile's data"),
            _text("--compression", "C", "ffpp only (default: c23)"),
            _several("--manipulations", "M", "ffpp only (default: all)", choices=ALL_MANIPULATIONS),
            _flag("--across", "as long as Table 3 asks for"),
            _flag("--test", "then score the test videos of the same kind and print the numbers"),
            _option("--fakes", choices=("self-blended",), help=FAKES),
            _option("--jitter", type=float, metavar="J", help=JITTER),
            _file("--real", "DIR", "a folder of real videos, instead of --dataset; needs --fakes"),
            _several("--switch", "NAME=VALUE", SWITCH, default=[]),
            _text("--seed", "S", f"of weights and batches {SPLIT}", type=_seed, default=0),
            SCHEDULER,
            CHECKPOINT,
        ),
    ),
    "study": Verb(
        "study.study",
        "go on with the study: train what is missing, most decisive first, and write its tables",
        "dfil study --hours 3",
        (
            STUDY,
            METHODS,
            _option("--hours", type=_hours, metavar="H", help="begin no run after H hours"),
            _flag("--list", "only list its runs, in their order"),
            _flag("--publish", "only write the tables of the records there are"),
        ),
    ),
    "verify": Verb(
        "study.verify",
        "compute the study's published numbers again from its records, and name what differs",
        "dfil verify",
        (STUDY,),
    ),
    "plan": Verb(
        "train.plan",
        "what the six tables take: runs, hours on a CPU and a GPU, disk",
        "dfil plan --profile paper --methods dil resnet50",
        (PAPER, METHODS, SEEDS, MEASURE, _flag("--list", "a line for each run"), JSON),
    ),
    "score": Verb(
        "score.score",
        "probability of being forged of one's own videos, of the people in them and of moments",
        "dfil score suspicious.mp4 --weights outputs/paper/runs/RUN/weights.safetensors",
        (
            _file("videos", "VIDEO", "video files, folders of them, or patterns", nargs="+"),
            _file("--weights", "FILE", f"{WEIGHTS} {SHIPPED}"),
            _number("--snippets", "U", "snippets of each person (default: one a second or more)"),
            DETECTOR,
            JSON,
            _flag("--csv", "print a table, a row for each person"),
            _file("--report", "PAGE.html", "write what was found, and why, to one page"),
        ),
    ),
    "runs": Verb(
        "runs.runs",
        "list the trained runs, or those that words fit",
        "dfil runs dil c23 Deepfakes seed=0",
        (_option("words", nargs="*", metavar="WORD", help=WORDS), JSON),
    ),
    "export": Verb(
        "runs.export",
        "write a run as a folder for others: weights, settings, model card (Hugging Face layout)",
        "dfil export dil c23 Deepfakes seed=0 my-detector",
        (
            _several("which", "RUN", f"which run: {WORDS}, or its folder"),
            _file("folder", "FOLDER", "a new folder, or one of an earlier export"),
        ),
    ),
    "evaluate": Verb(
        "runs.evaluate",
        "accuracy and AUC with intervals of a run, or of weights, on a dataset's videos",
        "dfil evaluate dil c40 seed=0 --dataset ffpp --manipulations NeuralTextures",
        (
            _several("which", "RUN", f"which run: {WORDS}; or weights: {WEIGHTS}"),
            _option(
                "--dataset", type=_dataset, metavar="DATASET", help=f"{DATASETS}; {AS_TRAINED}"
            ),
            _text("--compression", "C", f"ffpp only; {AS_TRAINED}"),
            _several("--manipulations", "M", AS_TRAINED),
            _file("--root", "TREE", f"the dataset's real tree {NAMED}"),
            _option("--split", choices=("train", "val", "test"), default="test", help=SPLIT),
            _option(
                "--profile",
                choices=PROFILES,
                help="whose data (default: the one it was trained in)",
            ),
            JSON,
        ),
    ),
    "models": Verb(
        "train.models",
        "list the methods: parameters, arithmetic and time per video at their own sampling",
        "dfil models",
        (_flag("--quick", "leave out the time, which has to be measured"),),
    ),
    "bench": Verb(
        "train.bench",
        "measure ratios on this machine: ours against ResNet-50, decode-only, PNG files, ...",
        "dfil bench model --json",
        (
            _option(
                "what",
                choices=BENCHES,
                metavar="WHAT",
                help="; ".join(f"{name}: {text}" for name, text in BENCHES.items()),
            ),
            _file("--clips", "FOLDER", "preprocess, data: real videos, measured too"),
            JSON,
        ),
    ),
}
_GROUPS = {
    "data": "write or check a dataset's tree",
    "selftest": "test what takes too long for the tests",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for an error that one line explains, 130 after
    Ctrl-C."""
    typed = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(typed)
    arguments.command_line = shlex.join(["dfil", *typed])
    try:
        paths.fix()
        module, _, function = arguments.run.rpartition(".")
        verb = getattr(import_module(f"dfil.tools.verbs.{module}"), function)
        return verb(arguments)
    except KeyboardInterrupt:
        said = "interrupted; what was finished is kept, and the same command goes on from there."
        print(f"dfil: {said}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our lines, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DfilError, OSError, MemoryError, RuntimeError) as error:
        said = str(error) if isinstance(error, DfilError) else machine_fault(error)
        if not said:
            raise
        print(f"dfil: {said}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    top = argparse.ArgumentParser(
        prog="dfil",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Dynamic Inconsistency Learning for deepfake video detection (AAAI 2022),"
        " reproduced.",
        epilog="Example:\n  dfil reproduce --profile smoke",
    )
    top.set_defaults(run="start.next_steps")
    top.add_argument("--version", action="version", version=f"dfil {dfil.__version__}")
    groups = {"": top.add_subparsers(title="verbs", metavar="VERB")}
    for words, verb in VERBS.items():
        group, _, name = words.rpartition(" ")
        if group not in groups:
            parent = _add(groups[""], group, _GROUPS[group], verb.example)
            groups[group] = parent.add_subparsers(title="verbs", metavar="VERB", required=True)
        added = _add(groups[group], name, verb.what, verb.example)
        added.set_defaults(run=verb.run)
        for names, settings in verb.options:
            added.add_argument(*names, **settings)
    return top


def _add(verbs, name: str, what: str, example: str) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"Example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # an example is copied unwrapped
    )
