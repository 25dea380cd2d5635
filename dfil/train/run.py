"""One run: its record, its model and its scores.

Its folder holds

    run.json                           "settings", what the key is made of, and "made", see `made`
    history.csv                        a line per epoch
    weights.safetensors, config.json   the model and how it is used
    scores/<data>.parquet              a logit per video; metrics and intervals come from these
    checkpoint.pt, begun.json          only while it trains
    diverged.json                      in the place of a record: its loss became no number

run.json is written last: a run that has one is trained. Weights apart, this is the record of a run,
a few tens of kB, from which every table can be computed again on any machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import dfil
from dfil import models, paper
from dfil.faces.store import CropStore
from dfil.models import Detector, Sampling, build, load_weights
from dfil.profiles import Profile
from dfil.system.errors import DivergedError, MachineError, RunError, machine_fault
from dfil.system.files import atomic
from dfil.train import data, fingerprint
from dfil.train.devices import autocast_type, pick_device
from dfil.train.repeat import repeatable
from dfil.train.scoring import SCORE_COLUMNS, score
from dfil.train.self_blended import SelfBlendedDataset
from dfil.train.snippets import SnippetDataset
from dfil.train.spec import RunSpec, missing, select

# A training loss above this share of the loss of whoever knows but how frequent the classes are
# (ln 2 where they are equally so) has not left chance.
AT_CHANCE = 0.98
OWN = "own"  # in the attrs of kept scores: whether of the data that the run was trained on


@dataclass(frozen=True)
class Run:
    """One run of a run store: its record, its model and its scores."""

    folder: Path
    spec: RunSpec
    profile: Profile

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def is_trained(self) -> bool:
        """Whether its record is there and whole; a damaged file is named, and nothing else said."""
        file, history = self.folder / "run.json", self.folder / "history.csv"
        if not file.is_file():
            return False
        if damaged := self._damaged():
            _say_damaged(damaged, "the run is trained again")
        return not damaged and history.is_file()

    def _damaged(self) -> Path | None:
        """The first file of its record that is there and not what was written."""
        try:
            record = self.record
            sizes, said = record["made"]["bytes"], record["made"]["at_chance"]
            if not (isinstance(sizes, dict) and isinstance(said, bool) and record["settings"]):
                return self.folder / "run.json"
            if digest_of(record["settings"]) != self.key.rpartition("-")[2]:  # another run's copy
                return self.folder / "run.json"
        except (ValueError, KeyError, TypeError, RecursionError):
            return self.folder / "run.json"
        for there, size in ((self.folder / name, size) for name, size in sizes.items()):
            if there.is_file() and there.stat().st_size != size:
                return there
        if not (beside := self.folder / "history.csv").is_file():
            return None
        try:
            kinds = [kind.kind for kind in self.history[["kept", "val_auc", "train_loss"]].dtypes]
        except (ValueError, KeyError):  # pandas' errors of parsing are ValueErrors
            return beside
        return None if kinds == ["b", "f", "f"] else beside

    @property
    def has_diverged(self) -> bool:
        """Whether it was tried, and its loss became no number (`diverged`)."""
        return (self.folder / "diverged.json").is_file() and not self.is_trained

    def diverged(self, error: DivergedError) -> Path:
        """Write down that its training ended so, for whoever would try the same again."""
        file = self.folder / "diverged.json"
        with atomic(file) as temporary:
            temporary.write_text(json.dumps({"ended": str(error)}) + "\n")
        return file

    @property
    def record(self) -> dict:
        """run.json: "settings" and "made"."""
        return json.loads((self.folder / "run.json").read_text())

    @property
    def at_chance(self) -> bool:
        """Whether its training never left chance, by the last epoch's training loss (AT_CHANCE)."""
        return self.record["made"]["at_chance"]

    @property
    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "history.csv")

    @property
    def sampling(self) -> Sampling:
        """What its model looks at: the method's own, or the profile's at the run's stride."""
        training, profile = self.spec.training, self.profile
        if own := models.sampling(self.spec.method):
            return own if training.same_gap else replace(own, views=1)
        return Sampling(training.snippets, profile.test_snippets, profile.frames, self.spec.stride)

    @property
    def switches(self) -> dict:
        """The arguments of the model's constructor."""
        return {**self.profile.backbone, "frames": self.sampling.frames, **dict(self.spec.switches)}

    def config(self, store: CropStore) -> dict:
        """What is needed to use the weights: the model's arguments, how to find and sample faces,
        and whether it learnt from synthetic data."""
        how, detector = self.sampling, store.meta["detector"]
        sampling = {"size": self.profile.size, "frames": how.frames, "stride": how.stride}
        sampling |= {"snippets": how.test, "views": how.views, "detector": detector}
        sampling |= {"box": self.spec.box} if self.spec.box != "snippet" else {}
        return {
            "method": self.spec.method,
            "switches": self.switches,
            "sampling": sampling,
            "trained_on": self.key,
            **({"fakes": asdict(self.spec.fakes)} if self.spec.fakes else {}),
            "synthetic": bool(store.meta["synthetic"]),
        }

    def build(self) -> Detector:
        """The untrained model."""
        return build(self.spec.method, **self.switches)

    def model(self) -> Detector:
        """The trained model, in evaluation mode on the CPU.

        Raises RunError where the run's record is there without its weights, as in git.
        """
        file = self.folder / "weights.safetensors"
        if not file.exists() and self.is_trained:
            raise RunError(
                f"{self.folder} is a record without its weights, which only videos that it has no"
                " scores of need; remove the folder to train the run again"
            )
        return load_weights(file)[0]

    def fingerprint(self) -> dict[str, list[float]]:
        """Of today's code behind this run; `fingerprint.changed` compares it with the record's."""
        return fingerprint.of(self.build, self.sampling, self.profile.size, self.spec.training)

    def dataset(
        self, store: CropStore, rows: pd.DataFrame, snippets: int, train: bool = False
    ) -> SnippetDataset:
        training, fakes = self.spec.training, self.spec.fakes
        kind = partial(SelfBlendedDataset, fakes=fakes) if fakes else SnippetDataset
        how = {"frames": self.sampling.frames, "stride": self.sampling.stride, "train": train}
        how |= {"size": self.profile.size, "seed": self.spec.seed, "box": self.spec.box}
        how["paired"] = training.paired and not training.redraw
        how["all_tracks"] = not train and store.meta["tracks"] == "all"
        return kind(store, rows, snippets=snippets, **how)

    def scores_file(self, store: CropStore, compression: str = "", split: str = "test") -> Path:
        """Where `scores` keeps what it computed. Only the store's meta is looked at."""
        videos = data.contents(store.meta, self.profile, compression)
        how_many, of_method = self.profile.test_snippets, models.sampling(self.spec.method)
        usual = of_method or how_many == paper.SETTINGS.test_snippets
        digest = digest_of(videos if usual else [videos, how_many])
        name = "-".join(filter(None, (store.meta["dataset"], compression, split, digest)))
        return self.folder / "scores" / f"{name}.parquet"

    def scores(self, store: CropStore, compression: str = "", split: str = "test") -> pd.DataFrame:
        """Per-video scores (scoring.SCORE_COLUMNS) on a split of `store`; score = sigmoid(logit).

        compression: empty for all. Computed once and kept; what is kept needs only the store's
        meta.
        """
        path = self.scores_file(store, compression, split)
        with machine_errors():
            try:
                found = pd.read_parquet(path)
                for name in found:
                    found[name].tolist()  # Arrow finds broken text only when it is looked at
                if lacks := set(SCORE_COLUMNS) - {*found.columns, "score"}:
                    raise ValueError(f"it lacks {lacks}")
                floats, once = found["logit"].dtype.kind == "f", found["video_id"].is_unique
                if found.empty or not floats or not once:
                    raise ValueError("it holds no logit per video")
            except Exception as error:  # of a damaged file Arrow raises whatever its bytes lead to
                if not isinstance(error, FileNotFoundError):
                    if isinstance(error, OSError) and machine_fault(error):
                        raise
                    _say_damaged(path, "the videos are scored again")
                found = self._score(store, compression, split)
                with atomic(path) as temporary:
                    found.to_parquet(temporary, index=False, compression="zstd")
        index = getattr(store, "index", None)
        if index is not None and "person" in index:  # corrected lists change no pixel and no logit
            who = found["video_id"].map(index.set_index("video_id")["person"])
            named = found.assign(person=who.fillna(found["person"]))
            if (named["person"] != found["person"]).any():
                with atomic(path) as temporary:  # the file serves others, too
                    named.to_parquet(temporary, index=False, compression="zstd")
            found = named
        logits = torch.tensor(found["logit"].to_numpy(np.float64))
        found = found.assign(logit=logits.numpy(), score=torch.sigmoid(logits).numpy())
        return found[SCORE_COLUMNS]

    def _score(self, store: CropStore, compression: str, split: str) -> pd.DataFrame:
        rows = select(store.index, split, compression)
        if text := missing(rows):
            where = f"see the reasons in the index of {store.folder}"
            print(f"{self.key}: {text}; {where}.", flush=True)
        rows = rows[rows["status"] == "ok"]
        with repeatable(self.spec.training):
            videos = self.dataset(store, rows, self.sampling.test)
            how = {"batch": self.spec.training.batch, "views": self.sampling.views}
            scored = score(self.model(), videos, **how)
        logits = scored["logit"].astype(np.float32)  # what the models compute in
        scored = scored.assign(logit=logits).drop(columns="score")
        how = self.spec.compression, self.spec.looked_at
        own = json.loads(json.dumps(data.contents(store.meta, self.profile, *how)))
        scored.attrs[OWN] = own == self.record["settings"]["data"]
        return scored


def made(
    run: Run, store: CropStore, history: list[dict], rows: Mapping[str, pd.DataFrame], lost: str
) -> dict:
    """What is worth knowing of how a run came about and is no part of its key, besides what it
    began with (dfil.train.origin)."""
    spec, device = run.spec, pick_device()
    fakes = 0.5 if spec.training.paired or spec.training.balance else rows["train"]["label"].mean()
    entropy = -fakes * math.log(fakes) - (1 - fakes) * math.log(1 - fakes)
    chance = models.loss_at_chance(spec.method, entropy)
    files = ("history.csv", "weights.safetensors", "config.json")
    return {
        "dataset": store.meta["dataset"],  # of two releases under one name the one that was read
        "data": store.meta["digest"],
        "videos": {split: len(found) for split, found in rows.items()},
        "people": sorted(set().union(*(found["person"] for found in rows.values())) - {""}),
        "missing": lost,
        "kept": spec.training.keep,
        "at_chance": history[-1]["train_loss"] > AT_CHANCE * chance,
        "seconds": round(sum(line["seconds"] for line in history), 1),
        "ended": round(time.time()),  # seconds since 1970
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "precision": str(autocast_type(device)).removeprefix("torch."),
        "versions": {
            **{module.__name__: module.__version__ for module in (dfil, torch, np)},
            "python": platform.python_version(),
        },
        "bytes": {name: (run.folder / name).stat().st_size for name in files},
    }


def digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


@contextmanager
def machine_errors() -> Iterator[None]:
    """Faults of the disk, the memory or permissions as one sentence."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, MachineError) and (sentence := machine_fault(error)):
            raise MachineError(sentence) from error
        raise


def _say_damaged(file: Path, what_now: str) -> None:
    print(f"{file}: damaged; {what_now}.", file=sys.stderr, flush=True)
