"""The run store: a model is trained once and found again by every table that needs it.

A run's key is a hash of all that decides its result (RunStore.describe). Its folder holds

    run.json                               "settings", what the key is made of, and "made", see _made
    history.csv                            a line per epoch
    weights.safetensors, config.json       the model and how it is used
    scores/<data>.parquet                  a logit per video; metrics and intervals come from these
    checkpoint.pt                          only while it trains

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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

import dfil
from dfil import models
from dfil.faces.store import CropStore
from dfil.models import Detector, Sampling, build, weights
from dfil.profiles import Profile
from dfil.system import cluster, workers
from dfil.system.cores import cores
from dfil.system.errors import MachineError, RunError, machine_fault
from dfil.system.files import atomic
from dfil.system.locks import owner
from dfil.train import data, fingerprint
from dfil.train.loop import repeatable, train
from dfil.train.parallel import in_first_process, is_first, wait_for_all
from dfil.train.scoring import SCORE_COLUMNS, pick_device, score
from dfil.train.snippets import SnippetDataset
from dfil.train.spec import RunSpec, missing, select

__all__ = ["Run", "RunSpec", "RunStore", "load_weights", "save_weights"]

# A training loss above this share of the loss of whoever knows but how frequent the classes are
# (ln 2 where they are equally so) has not left chance.
AT_CHANCE = 0.98


class RunStore:
    """Runs of one profile under `folder` (usually outputs/<profile>/runs)."""

    def __init__(self, folder: Path, profile: Profile):
        # absolute, because workers elsewhere stand in another folder
        self.folder, self.profile = Path(folder).absolute(), profile

    def describe(self, spec: RunSpec, store: CropStore) -> dict:
        """All that decides the outcome of a run, as JSON types. Only the store's meta is looked at."""
        return _described(self.profile, spec, store.meta)

    def key(self, spec: RunSpec, store: CropStore) -> str:
        """A readable name that ends in the hash of `describe`."""
        what = spec.manipulations[0] if len(spec.manipulations) == 1 else "all"
        name = (spec.method, spec.dataset, spec.compression, what)
        return "-".join(filter(None, (*name, _digest(self.describe(spec, store)))))

    def run(self, spec: RunSpec, store: CropStore) -> Run:
        """The run, trained or not (Run.is_trained)."""
        return Run(self.folder / self.key(spec, store), spec, self.profile)

    def is_trained(self, spec: RunSpec, store: CropStore) -> bool:
        """Whether `get` would find the run and not train it."""
        return self.run(spec, store).is_trained

    def get(self, spec: RunSpec, store: CropStore) -> Run:
        """The trained run, trained now if it is not there yet, and gone on with if it was interrupted.

        Whoever asks for it while another process trains it waits. Raises MachineError for a full
        disk and the like; then the same call goes on afterwards.
        """
        run = self.run(spec, store)
        with _machine_errors():
            if not in_first_process(lambda: run.is_trained):
                with owner(run.folder, f"train {run.key}") if is_first() else nullcontext():
                    if not in_first_process(lambda: run.is_trained):  # it may be by now
                        self._train(run, store)
        wait_for_all()  # whoever asks for the run now finds it
        return run

    def get_all(self, specs: Sequence[RunSpec], store: CropStore) -> list[Run]:
        """`get` of every spec. The untrained ones go to the cluster if one is named, and are scored there.

        Otherwise, on a CPU, they are trained side by side, one core each. Full-size networks gain
        from every thread and would fill the memory together, so they come one after the other.
        """
        todo = [s for s in dict.fromkeys(specs) if not self.is_trained(s, store)]
        if starts := [spec.start for spec in todo if spec.start]:
            self.get_all(starts, self._built_in(starts[0]))
        if todo and cluster.address():
            self._on_cluster(todo, store)
            todo = []
        alone = torch.cuda.is_available() or self.profile.pretrained
        at_a_time = 1 if alone else max(1, min(len(todo), cores()))
        if todo and is_first():
            print(f"{len(todo)} runs are to be trained, {at_a_time} at a time.", flush=True)
        if at_a_time > 1:
            begun = time.perf_counter()
            with workers.pool(at_a_time, torch.set_num_threads, cores() // at_a_time) as pool:
                waiting = [pool.submit(self.get, spec, store) for spec in todo]
                for done, future in enumerate(as_completed(waiting), 1):
                    _say(future.result().key, done, len(todo), begun)
        return [self.get(spec, store) for spec in specs]

    def _on_cluster(self, specs: Sequence[RunSpec], store: CropStore) -> None:
        print(f"{len(specs)} runs are handed to the cluster at {cluster.address()}.", flush=True)
        begun, folder = time.perf_counter(), store.folder.absolute()
        tasks = {
            str(self.run(spec, store).folder): (_get_and_score, (self, spec, folder))
            for spec in specs
        }
        for done, (name, _) in enumerate(cluster.each(tasks), 1):
            _say(Path(name).name, done, len(specs), begun)

    def _built_in(self, spec: RunSpec) -> CropStore:
        """The crops of the profile's built-in tree of a run's dataset, made if they are not there yet."""
        return in_first_process(
            lambda: data.crops(self.profile, data.tree(self.profile, "", spec.dataset))
        )

    def _train(self, run: Run, store: CropStore) -> None:
        spec, folder = run.spec, run.folder
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(spec.seed)
        model = run.build()
        if spec.start:
            first = self.get(spec.start, self._built_in(spec.start))
            model.load_state_dict(first.model().state_dict())
        elif self.profile.pretrained:
            weights.load_imagenet(model)
        rows = {split: spec.select(store, split) for split in ("train", "val")}
        lost = [select(store.index, split, spec.compression, spec.manipulations) for split in rows]
        if is_first() and (text := missing(pd.concat(lost))):
            print(f"{run.key}: {text}; see the reasons in the index of {store.folder}.", flush=True)
        videos = {
            split: run.dataset(store, rows[split], run.sampling.train, train=split == "train")
            for split in rows
        }
        history = train(
            model,
            videos["train"],
            videos["val"],
            spec.training,
            seed=spec.seed,
            checkpoint=folder / "checkpoint.pt",
            label=folder.name,
        )
        if is_first():
            with atomic(folder / "history.csv") as temporary:
                pd.DataFrame(history).to_csv(temporary, index=False)
            save_weights(model, folder / "weights.safetensors", config=run.config(store))
            settings = self.describe(spec, store)
            record = {"settings": settings, "made": _made(run, store, history, rows, text)}
            with atomic(folder / "run.json") as temporary:
                temporary.write_text(json.dumps(record, indent=1) + "\n")
            (folder / "checkpoint.pt").unlink(missing_ok=True)


def _described(profile: Profile, spec: RunSpec, meta: Mapping) -> dict:
    described = {**asdict(replace(spec, start=None)), "data": data.contents(meta, profile)}
    del described["training"]
    described |= {"profile": profile.name, **profile.settings(spec.training), "start": ""}
    if own := models.sampling(spec.method):
        described["sampling"] = asdict(own)
    if spec.start:
        described["start"] = _described(
            profile, spec.start, data.planned(profile, spec.start.dataset)
        )
    return json.loads(json.dumps(described, sort_keys=True))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _made(
    run: Run, store: CropStore, history: list[dict], rows: Mapping[str, pd.DataFrame], lost: str
) -> dict:
    """What is worth knowing of how a run came about and is no part of its key."""
    spec, device = run.spec, pick_device()
    fakes = 0.5 if spec.training.paired or spec.training.balance else rows["train"]["label"].mean()
    entropy = -fakes * math.log(fakes) - (1 - fakes) * math.log(1 - fakes)
    files = ("history.csv", "weights.safetensors", "config.json")
    return {
        "data": store.meta["digest"],
        "videos": {split: len(found) for split, found in rows.items()},
        "missing": lost,
        "kept": spec.training.keep,
        "at_chance": history[-1]["train_loss"] > AT_CHANCE * entropy,
        "seconds": round(sum(line["seconds"] for line in history), 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "versions": {
            "dfil": dfil.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "fingerprint": run.fingerprint(),
        "bytes": {name: (run.folder / name).stat().st_size for name in files},
    }


@contextmanager
def _machine_errors() -> Iterator[None]:
    """Faults of the disk, the memory or permissions as one sentence."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, MachineError) and (sentence := machine_fault(error)):
            raise MachineError(sentence) from error
        raise


def _say(key: str, done: int, of: int, begun: float) -> None:
    seconds = time.perf_counter() - begun
    print(f"{key} is trained, {done} of {of}, after {seconds:.0f} s", flush=True)


def _damaged(file: Path, what_now: str) -> None:
    print(f"{file}: damaged; {what_now}.", file=sys.stderr, flush=True)


def _get_and_score(runs: RunStore, spec: RunSpec, folder: Path) -> None:
    """What a worker of a cluster does for one run; it opens the store, so that no index travels."""
    store = CropStore(folder)
    runs.get(spec, store).scores(store, spec.compression)


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
        """Whether its record is there and whole. A damaged file is named; then the run is trained again."""
        file = self.folder / "run.json"
        if not file.is_file():
            return False
        try:
            sizes = self.record["made"]["bytes"]
        except (ValueError, KeyError, TypeError):
            _damaged(file, "the run is trained again")
            return False
        for name, size in sizes.items():
            there = self.folder / name
            if there.is_file() and there.stat().st_size != size:
                _damaged(there, "the run is trained again")
                return False
        return (self.folder / "history.csv").is_file()

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
        """What this run's model looks at: its method's own sampling, or the profile's snippets at the run's stride."""
        training = self.spec.training
        own = models.sampling(self.spec.method)
        if own:
            return own if training.same_gap else replace(own, views=1)
        profile = self.profile
        return Sampling(training.snippets, profile.test_snippets, profile.frames, self.spec.stride)

    @property
    def switches(self) -> dict:
        """The arguments of the model's constructor."""
        return {**self.profile.backbone, "frames": self.sampling.frames, **dict(self.spec.switches)}

    def config(self, store: CropStore) -> dict:
        """What is needed to use the weights: the model's arguments, how to find and sample faces, whether it learnt from synthetic data."""
        how = self.sampling
        sampling = {
            "size": self.profile.size,
            "frames": how.frames,
            "stride": how.stride,
            "snippets": how.test,
            "views": how.views,
            "detector": store.meta["detector"],
        }
        return {
            "method": self.spec.method,
            "switches": self.switches,
            "sampling": sampling,
            "trained_on": self.key,
            "synthetic": bool(store.meta["synthetic"]),
        }

    def build(self) -> Detector:
        """The untrained model."""
        return build(self.spec.method, **self.switches)

    def model(self) -> Detector:
        """The trained model, in evaluation mode on the CPU."""
        return load_weights(self.folder / "weights.safetensors")[0]

    def fingerprint(self) -> dict[str, list[float]]:
        """Of today's code behind this run; `fingerprint.changed` compares it with the record's."""
        return fingerprint.of(self.build, self.sampling, self.profile.size, self.spec.training)

    def dataset(
        self, store: CropStore, rows: pd.DataFrame, snippets: int, train: bool = False
    ) -> SnippetDataset:
        training = self.spec.training
        return SnippetDataset(
            store,
            rows,
            snippets=snippets,
            frames=self.sampling.frames,
            size=self.profile.size,
            stride=self.sampling.stride,
            train=train,
            seed=self.spec.seed,
            paired=training.paired and not training.redraw,
            box=self.spec.box,
            all_tracks=not train and store.meta["tracks"] == "all",
        )

    def scores_file(self, store: CropStore, compression: str = "", split: str = "test") -> Path:
        """Where `scores` keeps what it computed. Only the store's meta is looked at."""
        digest = _digest(data.contents(store.meta, self.profile))
        name = "-".join(filter(None, (store.meta["dataset"], compression, split, digest)))
        return self.folder / "scores" / f"{name}.parquet"

    def scores(self, store: CropStore, compression: str = "", split: str = "test") -> pd.DataFrame:
        """Per-video scores (scoring.SCORE_COLUMNS) on a split of `store` at a compression (empty: all).

        Computed once and kept; what is kept needs only the store's meta. score = sigmoid(logit).
        """
        path = self.scores_file(store, compression, split)
        try:
            found = pd.read_parquet(path)
        except FileNotFoundError:
            found = None
        except (OSError, ValueError) as error:
            with _machine_errors():
                if machine_fault(error):
                    raise
            _damaged(path, "the videos are scored again")
            found = None
        if found is None:
            found = self._score(store, compression, split)
            with _machine_errors(), atomic(path) as temporary:
                found.to_parquet(temporary, index=False, compression="zstd")
        logits = torch.tensor(found["logit"].to_numpy(np.float64))
        return found.assign(logit=logits.numpy(), score=torch.sigmoid(logits).numpy())[
            SCORE_COLUMNS
        ]

    def _score(self, store: CropStore, compression: str, split: str) -> pd.DataFrame:
        rows = select(store.index, split, compression)
        if text := missing(rows):
            print(
                f"{self.key}: {text}; see the reasons in the index of {store.folder}.", flush=True
            )
        rows = rows[rows["status"] == "ok"]
        with repeatable(self.spec.training):
            scored = score(
                self.model(),
                self.dataset(store, rows, self.sampling.test),
                batch=self.spec.training.batch,
                views=self.sampling.views,
            )
        logits = scored["logit"].astype(np.float32)  # what the models compute in
        return scored.assign(logit=logits).drop(columns="score")


def save_weights(model: Detector, path: Path, config: dict) -> None:
    """`path` (.safetensors) with `config` as JSON in its header and beside it."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic(path.with_name("config.json")) as temporary:
        temporary.write_text(json.dumps(config, indent=1) + "\n")
    with atomic(path) as temporary:
        save_file(state, temporary)


def load_weights(path: Path) -> tuple[Detector, dict]:
    """The model that `save_weights` wrote, in evaluation mode, and its config. Strict; nothing is unpickled.

    Raises RunError if the file, or the config.json beside it, is missing, or the two do not belong together.
    """
    path, beside = Path(path), Path(path).with_name("config.json")
    for file in (path, beside):
        if not file.is_file():
            raise RunError(
                f"{file}: no such file; weights are a .safetensors file with its config.json beside it"
            )
    config = json.loads(beside.read_text())
    model = build(
        config["method"],
        **{k: tuple(v) if isinstance(v, list) else v for k, v in config["switches"].items()},
    )
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise RunError(
            f"{path}: these weights do not fit the model in {beside}; use the pair that was saved together"
        ) from error
    return model.eval(), config
