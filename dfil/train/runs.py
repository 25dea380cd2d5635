"""The run store: a model is trained once and found again by every table that needs it.

A run's key is a hash of all that decides its result (RunStore.describe). run.py says what its
folder holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

from dfil import models
from dfil.faces.store import CropStore
from dfil.models import load_weights, weights
from dfil.models.saved import save_weights
from dfil.profiles import Profile
from dfil.system import cluster, workers
from dfil.system.cores import cores
from dfil.system.files import atomic
from dfil.system.locks import owner
from dfil.train import data, origin
from dfil.train.fit import fit
from dfil.train.loop import train
from dfil.train.parallel import in_first_process, is_first, wait_for_all
from dfil.train.run import Run, digest_of, machine_errors, made
from dfil.train.spec import RunSpec

__all__ = ["Run", "RunSpec", "RunStore", "load_weights", "save_weights"]


class RunStore:
    """Runs of one profile under `folder` (usually outputs/<profile>/runs)."""

    def __init__(self, folder: Path, profile: Profile):
        # absolute, because workers elsewhere stand in another folder
        self.folder, self.profile = Path(folder).absolute(), profile

    def describe(self, spec: RunSpec, store: CropStore) -> dict:
        """All that decides a run's outcome, as JSON types. Only the store's meta is looked at."""
        return _described(self.profile, spec, store.meta)

    def key(self, spec: RunSpec, store: CropStore) -> str:
        """A readable name that ends in the hash of `describe`."""
        what = spec.manipulations[0] if len(spec.manipulations) == 1 else "all"
        what = spec.fakes.name if spec.fakes else what
        name = (spec.method, spec.dataset, spec.compression, what)
        return "-".join(filter(None, (*name, digest_of(self.describe(spec, store)))))

    def run(self, spec: RunSpec, store: CropStore) -> Run:
        """The run, trained or not (Run.is_trained)."""
        return Run(self.folder / self.key(spec, store), spec, self.profile)

    def is_trained(self, spec: RunSpec, store: CropStore) -> bool:
        """Whether `get` would find the run and not train it."""
        return self.run(spec, store).is_trained

    def get(self, spec: RunSpec, store: CropStore) -> Run:
        """The trained run, trained now if it is not there yet, gone on with if it was interrupted.

        Whoever asks for it while another process trains it waits. Raises MachineError for a full
        disk and the like; then the same call goes on afterwards.
        """
        run = self.run(spec, store)
        with machine_errors():
            if not in_first_process(lambda: run.is_trained):
                with owner(run.folder, f"train {run.key}") if is_first() else nullcontext():
                    if not in_first_process(lambda: run.is_trained):  # it may be by now
                        self._train(run, store)
        wait_for_all()  # whoever asks for the run now finds it
        origin.refuse_other_code(run)
        return run

    def get_all(self, specs: Sequence[RunSpec], store: CropStore) -> list[Run]:
        """`get` of every spec.

        The untrained ones go to the cluster if one is named, and are scored there. Otherwise, on
        a CPU, they are trained side by side, one core each. Full-size networks gain from every
        thread and would fill the memory together, so they come one after the other.
        """
        todo = [s for s in dict.fromkeys(specs) if not self.is_trained(s, store)]
        if starts := [spec.start for spec in todo if spec.start]:
            self.get_all(starts, self._built_in(*starts))
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
                for done, run in enumerate(workers.results(pool, waiting), 1):
                    _say(run.key, done, len(todo), begun)
        return [self.get(spec, store) for spec in specs]

    def _on_cluster(self, specs: Sequence[RunSpec], store: CropStore) -> None:
        print(f"{len(specs)} runs are handed to the cluster at {cluster.address()}.", flush=True)
        begun, folder = time.perf_counter(), store.folder.absolute()
        calls = {spec: (_get_and_score, (self, spec, folder)) for spec in specs}
        tasks = {str(self.run(spec, store).folder): call for spec, call in calls.items()}
        for done, (name, _) in enumerate(cluster.each(tasks), 1):
            _say(Path(name).name, done, len(specs), begun)

    def _built_in(self, *specs: RunSpec) -> CropStore | SimpleNamespace:
        """The crops of the profile's built-in tree of the runs' dataset, made now if need be; of
        runs that are trained only the meta, which is all that finds them again."""
        profile, dataset = self.profile, specs[0].dataset
        store = SimpleNamespace(meta=data.planned(profile, dataset))
        if in_first_process(lambda: all(self.is_trained(spec, store) for spec in specs)):
            return store
        return in_first_process(lambda: data.crops(profile, data.tree(profile, "", dataset)))

    def _train(self, run: Run, store: CropStore) -> None:
        spec, folder = run.spec, run.folder
        folder.mkdir(parents=True, exist_ok=True)
        began = in_first_process(origin.begin, run)
        torch.manual_seed(spec.seed)
        model = run.build()
        if spec.start:
            first = self.get(spec.start, self._built_in(spec.start))
            model.load_state_dict(first.model().state_dict())
        elif self.profile.pretrained:
            began |= origin.weights(weights.load_imagenet(model))
        rows = {split: spec.select(store, split) for split in ("train", "val")}
        if is_first() and (text := spec.lacking(store)):
            print(f"{run.key}: {text}; see the index of {store.folder}.", flush=True)
        snippets = run.sampling.train
        videos = {s: run.dataset(store, rows[s], snippets, train=s == "train") for s in rows}
        arguments = model, videos["train"], videos["val"], spec.training
        how = {"seed": spec.seed, "label": folder.name}
        if models.is_fitted(spec.method):
            history = fit(*arguments, **how)
        else:
            history = train(*arguments, checkpoint=folder / "checkpoint.pt", **how)
        if is_first():
            with atomic(folder / "history.csv") as temporary:
                pd.DataFrame(history).to_csv(temporary, index=False)
            save_weights(model, folder / "weights.safetensors", config=run.config(store))
            began |= made(run, store, history, rows, text)
            origin.end(run, {"settings": self.describe(spec, store), "made": began})


def _described(profile: Profile, spec: RunSpec, meta: Mapping) -> dict:
    described = asdict(replace(spec, start=None))
    described["data"] = data.contents(meta, profile, spec.compression, spec.looked_at)
    del described["training"]
    if spec.fakes is None:  # so a run from before there were others keeps its key
        del described["fakes"]
    described |= {"profile": profile.name, **profile.settings(spec.training), "start": ""}
    if own := models.sampling(spec.method):
        described["sampling"] = asdict(own)
    if start := spec.start:
        described["start"] = _described(profile, start, data.planned(profile, start.dataset))
    return json.loads(json.dumps(described, sort_keys=True))


def _say(key: str, done: int, of: int, begun: float) -> None:
    print(f"{key}: trained, {done} of {of}, after {time.perf_counter() - begun:.0f} s", flush=True)


def _get_and_score(runs: RunStore, spec: RunSpec, folder: Path) -> None:
    """What a worker of a cluster does for one run; it opens the store, so that no index travels."""
    store = CropStore(folder)
    runs.get(spec, store).scores(store, spec.compression)
