"""Runs on the disk, found by words: method, data, switches, seed, or the end of their name.

Only records are read (dfil.train.run): neither crops nor weights need to be there.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
from scipy.special import expit

from dfil.paper import ALL_MANIPULATIONS
from dfil.profiles import PROFILES, Profile, Training
from dfil.results import metrics
from dfil.results.scores import ranked
from dfil.system import paths
from dfil.system.errors import DataError, RunError
from dfil.train.run import OWN, Run, digest_of
from dfil.train.self_blended import SelfBlended
from dfil.train.self_warped import SelfWarped
from dfil.train.spec import RunSpec, select

SHORTEST = 4  # letters of a name's end that are taken for it


@dataclass(frozen=True)
class Scores:
    """A kept table of scores (SCORE_COLUMNS) and whose videos it holds. own: whether of the data
    that the run was trained on, and not of another tree of the same name."""

    dataset: str
    compression: str
    split: str
    table: pd.DataFrame
    own: bool


@dataclass(frozen=True)
class Found:
    """A trained run: its folder, run.json and config.json."""

    folder: Path
    record: dict
    config: dict

    @property
    def settings(self) -> dict:
        return self.record["settings"]

    @property
    def run(self) -> Run:
        """As the run store knows it, with the settings it was trained with."""
        settings = self.settings
        profile = PROFILES.get(settings["profile"]) or Profile(settings["profile"], "")
        own = {name: settings[name] for name in ("size", "frames", "pretrained")}
        snippets = self.config["sampling"]["snippets"]
        backbone = {k: _tuples(v) for k, v in settings["backbone"].items()}
        own |= {"backbone": backbone, "test_snippets": snippets}
        return Run(self.folder, _spec(settings), replace(profile, **own))

    @property
    def setting(self) -> str:
        """The built-in tree's setting ("temporal-only"); empty for a real one."""
        data = self.settings["data"]
        return data["setting"]["name"] if isinstance(data, dict) else ""

    @property
    def synthetic(self) -> bool:
        """Whether it learnt from built-in clips, a tree of them or a folder."""
        return bool(self.setting or self.config.get("synthetic"))

    @property
    def dataset(self) -> str:
        """The adapter that read its videos: "dfdc" also where the preview was asked for and the
        full release was there."""
        return self.record["made"].get("dataset", self.settings["dataset"])

    @property
    def data(self) -> str:
        """What it was trained on, in words."""
        kind = self.setting or ("synthetic" if self.synthetic else "real")
        spec = replace(self.run.spec, dataset=self.dataset)
        if set(spec.manipulations) == set(ALL_MANIPULATIONS):
            spec = replace(spec, manipulations=())
        return f"{spec.videos}, {kind}"

    @property
    def switches(self) -> str:
        """What differs from the method's own form; empty if nothing does."""
        spec = self.run.spec
        pairs = [*spec.switches, *[("stride", spec.stride)] * (spec.stride > 1)]
        pairs += [("box", spec.box)] * (spec.box != "snippet")
        pairs += [("jitter", spec.fakes.jitter)] if spec.fakes else []
        return " ".join(f"{name}={value}" for name, value in pairs)

    @property
    def words(self) -> set[str]:
        """What it can be found by, besides the end of its name; lower case."""
        spec = self.run.spec
        told = {spec.method, spec.dataset, spec.compression, *spec.manipulations}
        told |= {self.settings["profile"], self.setting, self.folder.name}
        told |= {"synthetic" if self.synthetic else "real"}
        own_fakes = {"all"} if len(spec.manipulations) != 1 else set()
        told |= {spec.fakes.name} if spec.fakes else own_fakes
        told |= {f"seed={spec.seed}", *self.switches.split()}
        return {word.lower() for word in told if word}

    @property
    def validation_auc(self) -> float:
        """Of the epoch whose weights it has."""
        history = self.run.history
        return float(history.loc[history["kept"], "val_auc"].iloc[-1])

    @property
    def is_whole(self) -> bool:
        """Whether its epochs are known, too."""
        try:
            return self.validation_auc is not None
        except (OSError, ValueError, KeyError, IndexError):
            return False

    @property
    def days(self) -> float:
        """Since its training ended; of an older record, since it was written here."""
        file = self.folder / "run.json"
        ended = self.record["made"].get("ended", file.stat().st_mtime)
        return max(0.0, time.time() - ended) / 86400  # `ended` is rounded to a second

    @property
    def has_weights(self) -> bool:
        return (self.folder / "weights.safetensors").is_file()

    def scores(self, split: str = "test") -> Iterator[Scores]:
        """The kept scores of one split. Raises DataError for a damaged table."""
        for path in sorted((self.folder / "scores").glob("*.parquet")):
            *dataset, of_split, digest = path.stem.split("-")
            if of_split != split:
                continue
            try:
                table = pd.read_parquet(path)
                compressions = set(table["compression"])
            except (OSError, ValueError, KeyError) as error:
                raise DataError(f"{path}: damaged; delete it, it is made again") from error
            only = compressions.pop() if len(compressions) == 1 else ""
            name = "-".join(dataset).removesuffix(f"-{only}" if only else "")
            own = table.attrs.get(OWN, digest == digest_of(self.settings["data"]))
            table = table.assign(score=expit(table["logit"].to_numpy(float)))
            yield Scores(name, only, split, table, own)

    def own_scores(self, split: str = "test") -> pd.DataFrame | None:
        """Its scores of videos like those it was trained on; None if there are none."""
        spec = self.run.spec
        for kept in self.scores(split):
            if kept.own and kept.compression == spec.compression:
                return select(kept.table, split, spec.compression, spec.manipulations)
        return None

    @property
    def test_auc(self) -> metrics.Estimate | None:
        """On the test videos like those it was trained on, if they have been scored."""
        table = self.own_scores()
        if table is None or table["label"].nunique() < 2:
            return None
        return metrics.auc(table["label"], ranked(table), metrics.people(table))


def every() -> list[Found]:
    """All trained runs of all profiles, the latest first; damaged records are left out."""
    found = [read(file.parent) for file in _top().glob("*/runs/*/run.json")]
    there = [each for each in found if each and each.folder.parts[-3][0] != "." and each.is_whole]
    return sorted(there, key=lambda each: each.days)


def damaged() -> list[Path]:
    """Folders of runs whose record is there and cannot be read."""
    folders = (file.parent for file in _top().glob("*/runs/*/run.json"))
    seen = {each: read(each) for each in folders if each.parts[-3][0] != "."}
    return sorted(each for each, run in seen.items() if run is None or not run.is_whole)


def unfinished() -> list[Path]:
    """Folders of runs that are being trained, or were interrupted."""
    begun = [file.parent for file in _top().glob("*/runs/*/checkpoint.pt")]
    return sorted(folder for folder in begun if not (folder / "run.json").is_file())


def read(folder: Path) -> Found | None:
    """The run in a folder; None if its record is not there or damaged."""
    try:
        record, config = (
            json.loads((folder / name).read_text()) for name in ("run.json", "config.json")
        )
        found = Found(Path(folder).absolute(), record, config)
        return found if found.words and record["made"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def matching(words: Sequence[str], runs: Sequence[Found] | None = None) -> list[Found]:
    """The runs that all words fit. "seed 1" and "seed=1" are the same; the last letters of a run's
    name are enough."""
    asked = " ".join(words).lower().replace("seed ", "seed=").split()
    runs = every() if runs is None else runs
    return [run for run in runs if all(_fits(word, run) for word in asked)]


def one(words: Sequence[str]) -> Found:
    """The one run that all words fit, or that lies in the folder they name. Of several, the one
    without switches: the method itself is asked for, and a variant by its switch.

    Raises RunError if none or several fit, naming some.
    """
    text = " ".join(words)
    if found := read(Path(text).expanduser()):
        return found
    runs = every()
    fitting = matching(words, runs)
    plain = [run for run in fitting if not run.switches]
    for chosen in (fitting, plain):
        if len(chosen) == 1:
            return chosen[0]
    if not fitting:
        lost = f"; {count} more are damaged" if (count := len(damaged())) else ""
        raise RunError(
            f"no run fits {text!r}{_near(words, runs)}; `dfil runs` lists those there are{lost}"
        )
    fitting = plain or fitting
    shown = ", ".join(each.folder.name for each in fitting[:3])
    more = f" and {len(fitting) - 3} more" * (len(fitting) > 3)
    raise RunError(
        f"{len(fitting)} runs fit {text!r}: {shown}{more}; add a word"
        f"{_telling(fitting)}, or give the end of a name"
    )


def _telling(runs: Sequence[Found]) -> str:
    """As a hint a word that the first of some runs has and another lacks; empty if none tells."""
    shared = set.intersection(*(run.words for run in runs))
    names = {run.folder.name.lower() for run in runs}
    return next((f", such as {word}" for word in sorted(runs[0].words - shared - names)), "")


def _fits(word: str, run: Found) -> bool:
    end = len(word) >= SHORTEST and run.folder.name.lower().rpartition("-")[2].startswith(word)
    return word in run.words or end


def _near(words: Sequence[str], runs: Sequence[Found]) -> str:
    known = set().union(*(run.words for run in runs)) - {run.folder.name.lower() for run in runs}
    for word in " ".join(words).lower().replace("seed ", "seed=").split():
        if not any(_fits(word, run) for run in runs):
            near = difflib.get_close_matches(word, sorted(known), 1)
            return f" ({word!r} is in none{f'; {near[0]!r} is' if near else ''})"
    return ""


def _spec(settings: dict) -> RunSpec:
    own = {each.name: settings[each.name] for each in fields(Training)}
    start = _spec(settings["start"]) if settings["start"] else None
    names = ("method", "dataset", "compression", "stride", "box", "seed")
    told = {name: settings[name] for name in names}
    switches = tuple((name, _tuples(value)) for name, value in settings["switches"])
    manipulations = tuple(settings["manipulations"])
    others = {"switches": switches, "manipulations": manipulations}
    if made := settings.get("fakes"):
        kind = SelfWarped if "smallest" in made else SelfBlended
        others["fakes"] = kind(**{name: _tuples(value) for name, value in made.items()})
    return RunSpec(**told, **others, training=Training(**own), start=start)


def _tuples(value):
    """Lists as tuples: JSON knows lists only."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _top() -> Path:
    return paths.published("demo").parent
