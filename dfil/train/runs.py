"""The run store: a model is trained once and found again by every table that needs it.

A run is (method, switches, training data, compression, manipulations, seed, profile); its key is a hash of that. Its folder holds
`run.json` (all of it, readable), `history.csv`, `weights.safetensors` with `config.json` beside it, and `scores/*.parquet`, the
per-video scores, from which metrics and intervals are computed afterwards. While a run trains there is `checkpoint.pt`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

import dfil
from dfil import models
from dfil.faces.store import CropStore
from dfil.models import Detector, Sampling, build, weights
from dfil.paper import ALL_MANIPULATIONS
from dfil.profiles import Profile, Training
from dfil.system import cluster, workers
from dfil.system.cores import cores
from dfil.system.errors import RunError
from dfil.system.files import atomic
from dfil.train import data
from dfil.train.loop import train
from dfil.train.parallel import in_first_process, is_first, wait_for_all
from dfil.train.scoring import score
from dfil.train.snippets import SnippetDataset


@dataclass(frozen=True)
class RunSpec:
    """What is trained on what, and how: all of a run but its data's contents and its profile.

    switches are the model's, as sorted pairs; stride is the distance of a snippet's frames (1:
    neighbours). manipulations are those of the fakes trained on, none named meaning all. box: one
    crop box per "snippet", or per "frame" (Crops.snippet). start: the run on the profile's built-in
    data with whose weights this one begins; None: with ImageNet's or random ones, as the profile says.
    """

    method: str
    dataset: str
    compression: str
    manipulations: tuple[str, ...]
    switches: tuple[tuple[str, object], ...] = ()
    stride: int = 1
    box: str = "snippet"
    seed: int = 0
    training: Training = field(kw_only=True)
    start: RunSpec | None = field(default=None, kw_only=True)

    @classmethod
    def of_table(
        cls,
        profile: Profile,
        table: str,
        method: str,
        dataset: str,
        compression: str = "",
        manipulations: tuple[str, ...] = (),
        **others,
    ) -> RunSpec:
        """A run as `profile` trains it for a table ("table1", ..., or "temporal-only")."""
        how = profile.training_for(method, table)
        spec = cls(method, dataset, compression, manipulations, training=how, **others)
        if table != "table2" or not profile.within_starts:
            return spec
        first = profile.training_for(method, "table1")
        first = replace(
            spec, dataset="ffpp", compression="c23", manipulations=ALL_MANIPULATIONS, training=first
        )
        return replace(spec, start=first)

    def select(self, store: CropStore, split: str) -> pd.DataFrame:
        """The rows of the store's index that this run uses of one split: all reals, and the fakes of its manipulations, or all."""
        rows = store.index
        wanted = rows["manipulation"].isin(self.manipulations or rows["manipulation"]) | (
            rows["label"] == 0
        )
        rows = rows[wanted & (rows["split"] == split) & (rows["status"] == "ok")]
        rows = rows[rows["compression"] == self.compression] if self.compression else rows
        if rows["label"].nunique() < 2:
            raise RunError(
                f"{store.folder}: the {split} split has {len(rows)} usable videos of {self.dataset} {self.compression} "
                f"{'+'.join(self.manipulations) or 'all fakes'}, not both classes; look at the status and reason columns of its index"
            )
        return rows


class RunStore:
    """Runs of one profile under `folder` (usually outputs/<profile>/runs)."""

    def __init__(self, folder: Path, profile: Profile):
        # absolute, because workers elsewhere stand in another folder
        self.folder, self.profile = Path(folder).absolute(), profile

    def describe(self, spec: RunSpec, store: CropStore) -> dict:
        """All that decides the outcome of a run, as JSON types. Makes and reads no data."""
        return self._described(spec, store.meta["digest"])

    def _described(self, spec: RunSpec, contents: object) -> dict:
        """`contents` says what the data are."""
        training = self.profile.settings(spec.training)
        described = {**asdict(spec), "data": contents, "profile": self.profile.name, **training}
        del described["training"]
        if own := models.sampling(spec.method):
            described["sampling"] = asdict(own)
        described["start"] = ""
        if spec.start:
            built_in = data.benchmark(self.profile, spec.start.dataset)
            described["start"] = self._described(spec.start, built_in)
        return json.loads(json.dumps(described, sort_keys=True))

    def key(self, spec: RunSpec, store: CropStore) -> str:
        """A readable name that ends in the hash of `describe`."""
        described = json.dumps(self.describe(spec, store), sort_keys=True)
        digest = hashlib.sha256(described.encode()).hexdigest()[:10]
        what = spec.manipulations[0] if len(spec.manipulations) == 1 else "all"
        return "-".join(filter(None, (spec.method, spec.dataset, spec.compression, what, digest)))

    def run(self, spec: RunSpec, store: CropStore) -> Run:
        """The run, trained or not (Run.is_trained)."""
        return Run(self.folder / self.key(spec, store), spec, self.profile)

    def is_trained(self, spec: RunSpec, store: CropStore) -> bool:
        """Whether `get` would find the run and not train it."""
        return self.run(spec, store).is_trained

    def get(self, spec: RunSpec, store: CropStore) -> Run:
        """The trained run, trained now if it is not there yet, and gone on with if it was interrupted."""
        run = self.run(spec, store)
        if not run.is_trained:
            self._train(run, store)
        return run

    def get_all(self, specs: Sequence[RunSpec], store: CropStore) -> list[Run]:
        """`get` of every spec. The untrained ones go to the cluster if one is named (dfil.system.cluster.address), and are scored there on
        their own test videos. Otherwise, on a CPU, they are trained side by side, the cores shared between them.

        Small networks gain little from a second thread, so two runs with one core each end sooner than one after the other with two.
        Full-size ones gain from every thread and would fill the memory together, so they come one after the other.
        """
        todo = [s for s in dict.fromkeys(specs) if not self.is_trained(s, store)]
        if starts := [spec.start for spec in todo if spec.start]:
            self.get_all(starts, self._built_in(starts[0]))
        if todo and cluster.address():
            self._on_cluster(todo, store)
            todo = []
        available, alone = cores(), torch.cuda.is_available() or self.profile.pretrained
        at_a_time = 1 if alone else max(1, min(len(todo), available))
        if todo and is_first():
            print(f"{len(todo)} runs are to be trained, {at_a_time} at a time.", flush=True)
        if at_a_time > 1:
            begun = time.perf_counter()
            with workers.pool(at_a_time, torch.set_num_threads, available // at_a_time) as pool:
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
        """The crops of the profile's built-in tree of a run's dataset, made now if they are not there yet."""
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
        videos = {
            split: run.dataset(
                store, spec.select(store, split), run.sampling.train, train=split == "train"
            )
            for split in ("train", "val")
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
            self._keep(run, store, model, videos, history)
        wait_for_all()  # whoever asks for the run now finds it

    def _keep(
        self,
        run: Run,
        store: CropStore,
        model: Detector,
        videos: dict[str, SnippetDataset],
        history: list[dict],
    ) -> None:
        """Write what a training left, `run.json` last."""
        spec, folder = run.spec, run.folder
        with atomic(folder / "history.csv") as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        save_weights(model, folder / "weights.safetensors", config=run.config(store))
        described = self.describe(spec, store)
        described |= {
            "videos": {split: len(d) for split, d in videos.items()},
            "versions": {
                "dfil": dfil.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        with atomic(folder / "run.json") as temporary:
            temporary.write_text(json.dumps(described, indent=1) + "\n")
        (folder / "checkpoint.pt").unlink()


def _say(key: str, done: int, of: int, begun: float) -> None:
    seconds = time.perf_counter() - begun
    print(f"{key} is trained, {done} of {of}, after {seconds:.0f} s", flush=True)


def _get_and_score(runs: RunStore, spec: RunSpec, folder: Path) -> None:
    """What a worker of a cluster does for one run; it opens the store, so that no index travels."""
    store = CropStore(folder)
    runs.get(spec, store).scores(store, spec.compression)


@dataclass(frozen=True)
class Run:
    """One trained model and its scores. `run.json` is written last, so its presence means that training ended."""

    folder: Path
    spec: RunSpec
    profile: Profile

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def is_trained(self) -> bool:
        return (self.folder / "run.json").is_file()

    @property
    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "history.csv")

    @property
    def sampling(self) -> Sampling:
        """What this run's model looks at: its method's own sampling, or the profile's snippets at the run's stride."""
        own = models.sampling(self.spec.method)
        return own or Sampling(
            self.spec.training.snippets,
            self.profile.test_snippets,
            self.profile.frames,
            self.spec.stride,
        )

    def config(self, store: CropStore) -> dict:
        """What is needed to use the weights: the model's arguments, how to find and sample faces, whether it learnt from synthetic data."""
        switches = {
            **self.profile.backbone,
            "frames": self.sampling.frames,
            **dict(self.spec.switches),
        }
        sampling = {
            "size": self.profile.size,
            "frames": self.sampling.frames,
            "stride": self.sampling.stride,
            "snippets": self.sampling.test,
            "detector": store.meta["detector"],
        }
        synthetic = bool(store.meta["synthetic"])
        return {
            "method": self.spec.method,
            "switches": switches,
            "sampling": sampling,
            "trained_on": self.key,
            "synthetic": synthetic,
        }

    def build(self) -> Detector:
        """The untrained model."""
        return build(
            self.spec.method,
            **self.profile.backbone | {"frames": self.sampling.frames} | dict(self.spec.switches),
        )

    def model(self) -> Detector:
        """The trained model, in evaluation mode on the CPU."""
        return load_weights(self.folder / "weights.safetensors")[0]

    def dataset(
        self, store: CropStore, rows: pd.DataFrame, snippets: int, train: bool = False
    ) -> SnippetDataset:
        return SnippetDataset(
            store, rows, snippets=snippets, frames=self.sampling.frames, size=self.profile.size, stride=self.sampling.stride,
            train=train, seed=self.spec.seed, paired=self.spec.training.paired, box=self.spec.box,
            all_tracks=not train and store.meta["tracks"] == "all",
        )  # fmt: skip

    def scores(self, store: CropStore, compression: str = "", split: str = "test") -> pd.DataFrame:
        """Per-video scores (scoring.SCORE_COLUMNS) on a split of `store` at a compression (empty: all); computed once and kept."""
        name = "-".join(
            filter(None, (store.meta["dataset"], compression, split, store.meta["digest"][:10]))
        )
        path = self.folder / "scores" / f"{name}.parquet"
        if not path.is_file():
            rows = store.index[(store.index["split"] == split) & (store.index["status"] == "ok")]
            rows = rows[rows["compression"] == compression] if compression else rows
            scored = score(
                self.model(),
                self.dataset(store, rows, self.sampling.test),
                batch=self.spec.training.batch,
            )
            with atomic(path) as temporary:
                scored.to_parquet(temporary, index=False)
        return pd.read_parquet(path)


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
