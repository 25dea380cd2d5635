"""What the six tables take before anything is started: the distinct runs, hours, and disk.

    hours of a run = (epochs x (training clips x seconds per training clip
                                + validation videos x their seconds)
                      + test videos x seconds per scored video) / 3600

Seconds come from throughputs.json, which the package ships, and from the file of the same form in
the data folder, which `dfil plan --measure` and `dfil bench gpu` write for their machine. On a CPU
they are processor time of one core, which several cores share at best evenly. They are those of
each method's full model on noise already in memory: ablated models, which are smaller, are
overestimated a little, and loading the crops is not counted (`dfil bench data` compares it).
Numbers of videos are the owners' published ones, or the profile's for its synthetic trees. Cutting
the crops is not in the hours: `dfil preprocess` forecasts that from its first videos.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from dfil import datasets, models, paper, synthetic
from dfil.datasets import REAL, celebdf, dfdc_preview, wilddeepfake
from dfil.faces.preprocess import PATCH
from dfil.faces.settings import COMPACT
from dfil.profiles import PROFILES, Profile
from dfil.system import paths
from dfil.system.files import atomic
from dfil.system.progress import progress_bar
from dfil.tools import environment
from dfil.tools.bench.common import using_threads
from dfil.train import data, experiments, parallel
from dfil.train.devices import pick_device, place, precision
from dfil.train.recorded import Gradients, Recorded
from dfil.train.runs import Run, RunSpec
from dfil.train.snippets import batches, normalise

# Real and fake videos by split. FaceForensics++: people, of whom each has one real video and one
# fake per manipulation.
FFPP = {"train": 720, "val": 140, "test": 140}
DFDC_TEST = {"real": 276, "fake": 504}  # of the preview's dataset.json: 780 test clips
# Mean frames per video as the owners publish them: 1.8 million images of 4000 fakes and 0.5 of 1000
# reals; 2.34 million of 6229 videos; clips of 15 seconds; 1.18 million of 7314 sequences.
FRAMES = {"ffpp": 500, "celebdf": 376, "dfdc-preview": 450, "wilddeepfake": 161}
MEGAPIXELS = 1.0  # about what a CPU is given in one measured step; a GPU gets the profile's batch
DEVICES = ("cpu", "gpu")
UNMEASURED = "not measured yet"

Seconds = dict[str, dict[str, float]]  # by method: train, test, parameters


def selections(profile: Profile, methods: Sequence[str] = ()) -> dict[str, dict]:
    """Plans by title: of the named methods, or of DIL alone and of all that the profile runs."""
    if methods:
        return {", ".join(methods): make(profile, methods)}
    return {"dil alone": make(profile, ["dil"]), "all methods": make(profile)}


def make(profile: Profile, methods: Sequence[str] = ()) -> dict:
    """The plan as plain values: `devices`, `methods` (seconds per clip), `runs`, `tables` (runs and
    hours, shared runs in each table that needs them), `hours` in all, each run once, and
    `gigabytes` of crops by dataset and of weights. Hours are by device, None where a method that
    they need was not measured there.

    methods: registry names, default the profile's. Raises RunError for one that is not registered.
    """
    stores = {dataset: expected(profile, dataset) for dataset in FRAMES}
    needed, known = needs(profile, methods, stores), throughputs(profile)
    runs = [_run(profile, spec, need, stores, known) for spec, need in needed.items()]
    feeding = {key: [run for run in runs if key in run["tables"]] for key in paper.TABLES}
    measured = {method: seconds for d in DEVICES for method, seconds in known[d][1].items()}
    sizes = [measured.get(run["method"], {}).get("parameters", 0.0) for run in runs]
    crops = {d: _crops(profile, d, videos) for d, videos in _read(needed, stores).items()}
    used = dict.fromkeys(spec.method for spec in needed)
    return {
        "profile": profile.name,
        "devices": {device: known[device][0] or UNMEASURED for device in DEVICES},
        "methods": {m: {d: known[d][1].get(m) for d in DEVICES} for m in used},
        "runs": runs,
        "tables": {k: {"runs": len(each), "hours": _sum(each)} for k, each in feeding.items()},
        "hours": _sum(runs),
        "gigabytes": {"crops": crops, "weights": 4e-9 * sum(sizes)},
    }


def _sum(runs: Sequence[dict]) -> dict[str, float | None]:
    hours = {device: [run["hours"][device] for run in runs] for device in DEVICES}
    return {d: None if None in each else sum(each) for d, each in hours.items()}


def throughputs(profile: Profile) -> dict[str, tuple[str, Seconds]]:
    """By device: what was measured, and the seconds by method, for networks of the profile's size.

    The file of this machine counts more than the one that the package ships.
    """
    shipped = json.loads((files("dfil.tools") / "throughputs.json").read_text(encoding="utf-8"))
    own = _own()
    found = {}
    for device in DEVICES:
        names, seconds = [], {}
        for source in (shipped.get(device, {}), own.get(device, {})):
            for name, by_method in source.get("seconds", {}).items():
                if name in PROFILES and _network(PROFILES[name]) == _network(profile):
                    seconds |= by_method
                    names = [*names, source["device"]]
        found[device] = ("; ".join(dict.fromkeys(names)), seconds)
    return found


def _network(profile: Profile) -> tuple:
    sampling = (profile.frames, profile.training.snippets, profile.test_snippets)
    return profile.size, sampling, sorted(profile.backbone.items())


def _own() -> dict:
    file = paths.data() / "throughputs.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        print(f"{file} is no JSON ({error}) and is not used; dfil plan --measure writes it anew.")
        return {}


def keep(profile: Profile, seconds: Seconds) -> Path:
    """Add what was measured on this machine to its file, and return that."""
    gpu, own, file = torch.cuda.is_available(), _own(), paths.data() / "throughputs.json"
    device = torch.cuda.get_device_name(0) if gpu else f"one core of {environment.cpu()}"
    entry = own.setdefault("gpu" if gpu else "cpu", {"seconds": {}})
    entry |= {"device": device, "torch": torch.__version__, "python": platform.python_version()}
    entry["seconds"].setdefault(profile.name, {}).update(seconds)
    with atomic(file) as part:
        part.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")
    return file


def measure_all(profile: Profile, methods: Sequence[str], until: float = float("inf")) -> Seconds:
    """`measure` of every method that is begun before the clock (time.monotonic) shows `until`."""
    found = {}
    for method in progress_bar(methods, desc="measuring"):
        if time.monotonic() < until:
            found[method] = measure(profile, method)
    return found


# Of the tables that a profile may leave to a call of their own (Profile.on_request)
NOTEBOOKS = {"table3": "40", "table4": "50", "table5": "52", "table6": "54"}


def needs(
    profile: Profile, methods: Sequence[str], stores: dict[str, SimpleNamespace]
) -> dict[RunSpec, dict]:
    """Every distinct run behind the six tables that the profile makes unless more is asked for,
    with the names of the `tables` it feeds and the (dataset, compression) of its `tests`."""
    found: dict[RunSpec, dict] = {}
    chosen = partial(experiments.methods, profile, methods)
    for table, cell, spec in runs_of_tables(profile, chosen, stores.get):
        left_out = profile.qualities and cell.train.compression not in ("", *profile.qualities)
        if left_out or NOTEBOOKS.get(table) in profile.on_request:
            continue
        need = found.setdefault(spec, {"tables": {}, "tests": {}})
        need["tables"][table] = need["tests"][cell.test.dataset, cell.test.compression] = True
    return found


def runs_of_tables(
    profile: Profile, methods: Callable[[str], Sequence[str]], store: Callable
) -> Iterator[tuple[str, paper.Cell, RunSpec]]:
    """Every run behind every cell of the paper's tables, with the table's key and the cell.

    methods: of a table by its key. store: what stands for a dataset's crop store.
    """
    for table in paper.TABLES.values():
        chosen = methods(table.key)
        for cell in table.extended(chosen).cells():
            if cell.method in chosen:
                for spec in experiments.specs(cell, profile, store(cell.train.dataset)):
                    yield table.key, cell, spec


def expected(profile: Profile, dataset: str, setting: str = "") -> SimpleNamespace:
    """What a crop store of the dataset will hold, as far as experiments.specs and RunSpec.select
    look at one: an index of usable videos."""
    setting = setting or datasets.get(dataset).setting
    tree = profile.trees.get(setting, {})
    rows: list[tuple] = []  # split, manipulation, compression, target
    if dataset == "ffpp":
        kinds = (REAL, *tree.get("manipulations", paper.ALL_MANIPULATIONS))
        for split, people in FFPP.items():
            for compression in tree.get("qualities", paper.COMPRESSIONS.values()):
                for n in range(tree.get(split, people)):
                    rows += [(split, kind, compression, f"{split}{n}") for kind in kinds]
    else:
        for (split, label), count in _counts(dataset, tree).items():
            validation = round(profile.validation * count) if split == "train" else 0
            kind = REAL if label == "real" else "fake"
            for n in range(count):
                rows.append(("val" if n < validation else split, kind, "", f"{split}{n}"))
    index = pd.DataFrame(rows, columns=["split", "manipulation", "compression", "target"])
    index["label"], index["status"] = (index["manipulation"] != REAL).astype(int), "ok"
    index["video_id"] = index.index.astype(str)
    meta = data.planned(profile, dataset, setting) if tree else {}
    return SimpleNamespace(index=index, folder=Path(dataset), meta=meta)


def _counts(dataset: str, tree: dict) -> dict[tuple[str, str], int]:
    """Videos by split and label, validation not yet carved."""
    if tree:
        return {(s, label): tree[s] for s in ("train", "test") for label in ("real", "fake")}
    if dataset == "dfdc-preview":
        (total,) = dfdc_preview.EXPECTED.values()
        train = {("train", label): total["", label] - DFDC_TEST[label] for label in DFDC_TEST}
        return train | {("test", label): count for label, count in DFDC_TEST.items()}
    releases = {"celebdf": "Celeb-DF v2", "wilddeepfake": "WildDeepfake"}
    return (celebdf.EXPECTED | wilddeepfake.EXPECTED)[releases[dataset]]


@using_threads(1)
def measure(
    profile: Profile, method: str, steps: int = 3, patience: float = 10.0
) -> dict[str, float]:
    """Seconds per clip of a training step (`train`) and per video of scoring (`test`), medians of
    up to `steps` steps after one that is not counted, the last begun within `patience` seconds;
    `clips` in a step, and the model's `parameters`."""
    run = Run(Path(), RunSpec.of_table(profile, "table1", method, ""), profile)
    device, how, size, batch = pick_device(), run.sampling, profile.size, profile.training.batch
    torch.manual_seed(0)
    model = run.build()
    place(model, device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-6)  # small, so that noise leads nowhere
    found = {"parameters": float(sum(p.numel() for p in model.parameters()))}
    for what, snippets in (("train", how.train), ("test", how.test)):
        most = round(1e6 * MEGAPIXELS / (snippets * how.frames * size**2))
        clips = min(batch, max(1, most)) if device.type == "cpu" else batch
        shape = (clips, snippets, how.frames, 3, size, size)
        x = torch.randint(256, shape, dtype=torch.uint8, device=device)
        y = (torch.arange(clips, device=device) % 2).float()
        step = _training_step if what == "train" else _scoring_step
        take = step(model, optimiser, device)
        model.train(what == "train")
        times: list[float] = []
        end = time.perf_counter() + patience
        while len(times) < 2 or (len(times) <= steps and time.perf_counter() < end):
            start = clock()
            take(x, y)
            times.append(clock() - start)
        found |= {what: statistics.median(times[1:]) / clips, f"{what} clips": clips}
    return found


def _training_step(
    model: models.Detector, optimiser: torch.optim.Adam, device: torch.device
) -> Callable:
    """A step of training as train/loop.py takes it; waits for a GPU."""
    gradients = Gradients(parallel.shared_loss(model, device), device)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        loss = gradients(normalise(x), y)
        optimiser.step()
        loss.item()

    return step


def _scoring_step(
    model: models.Detector, optimiser: torch.optim.Adam, device: torch.device
) -> Callable:
    """A batch's logits as train/scoring.py takes them."""

    @torch.no_grad()
    def forward(x: torch.Tensor) -> torch.Tensor:
        with precision(device):
            return model(x).float()

    recorded = Recorded(forward)
    return lambda x, y: recorded(normalise(x))[0].cpu()


def _run(
    profile: Profile,
    spec: RunSpec,
    need: dict,
    stores: dict,
    known: Mapping[str, tuple[str, Seconds]],
) -> dict:
    """One run as plain values, its hours by device among them."""
    store, how, t = stores[spec.dataset], Run(Path(), spec, profile).sampling, spec.training
    epochs = 1 if models.is_fitted(spec.method) else t.epochs
    videos, chance = spec.select(store, "train"), np.random.default_rng(0)
    more = {"redraw": t.redraw, "balance": t.balance}
    order = batches(videos, t.batch, t.paired, chance, **more)
    clips, validation = sum(map(len, order)), len(spec.select(store, "val"))
    test = 0
    for dataset, quality in need["tests"]:
        rows = stores[dataset].index.query("split == 'test'")
        test += int((rows["compression"] == quality).sum()) if quality else len(rows)

    def hours(seconds: Mapping[str, float] | None) -> float | None:
        if seconds is None:
            return None
        validated = validation * seconds["test"] * how.train / how.test
        trained = epochs * (clips * seconds["train"] + validated)
        return (trained + test * seconds["test"]) / 3600

    names = ("method", "dataset", "compression", "manipulations", "seed")
    return {name: getattr(spec, name) for name in names} | {
        "switches": dict(spec.switches),
        "tables": list(need["tables"]),
        "epochs": epochs,
        "clips per epoch": clips,
        "validation videos": validation,
        "test videos": test,
        "hours": {device: hours(known[device][1].get(spec.method)) for device in DEVICES},
    }


def _read(needed: dict, stores: dict) -> dict[str, int]:
    """Videos whose crops are needed, by dataset: every manipulation of the compressions that a run
    trains or is tested on."""
    trained = {(spec.dataset, spec.compression) for spec in needed}
    wanted = trained | {test for need in needed.values() for test in need["tests"]}
    counts: dict[str, int] = {}
    for dataset, compression in sorted(wanted):
        there = (stores[dataset].index["compression"] == compression).sum()
        counts[dataset] = counts.get(dataset, 0) + int(there)
    return counts


def _crops(profile: Profile, dataset: str, videos: int) -> float:
    tree = profile.trees.get(datasets.get(dataset).setting, {})
    kept, length = COMPACT["stretches"]  # of real videos; of built-in clips all frames are kept
    frames = tree.get("frames", min(kept * length, FRAMES[dataset]))
    side = PATCH[bool(tree)] * profile.size
    side = min(side, wilddeepfake.PICTURE) if dataset == "wilddeepfake" else side
    return 1e-9 * videos * frames * 3 * side**2


def gigabytes_to_come(profile: Profile, roots: Mapping[str, Path]) -> float:
    """What the profile still has to write, roughly: crops of the trees that are there (`roots`, or
    the profile's own) and have no crop store yet."""
    total = 0.0
    for dataset in FRAMES:
        if (setting := datasets.get(dataset).setting) in profile.trees:
            folder = synthetic.SETTINGS[setting].folder
            root = paths.data() / "trees" / profile.name / folder
        elif not (root := roots.get(dataset)):
            continue
        store = data.store_folder(data.release(dataset, root), root, profile.size)
        if not (store / "index.parquet").is_file():
            total += _crops(profile, dataset, len(expected(profile, dataset).index))
    return total


def text(plans: Mapping[str, dict], each_run: bool = False) -> str:
    """Plans for a terminal; each_run adds a line per run."""
    first = next(iter(plans.values()))
    lines = [f"Profile {first['profile']}. Hours on"]
    lines += [f"  {device}: {what}" for device, what in first["devices"].items()]
    if first["devices"]["gpu"] == UNMEASURED:
        lines[-1] += " (dfil bench gpu, on a machine with one, measures it)"
    for title, plan in plans.items():
        row = "{:22}{:>6}{:>14}{:>12}"
        lines += ["", row.format(title, "runs", "CPU core", "GPU")]
        asked_for = {}  # tables that only come by another call
        for name, table in plan["tables"].items():
            if NOTEBOOKS.get(name) in PROFILES[plan["profile"]].on_request:
                asked_for[name] = NOTEBOOKS[name]
            else:
                lines.append(row.format(name, table["runs"], *_hours(table["hours"])))
        lines.append(row.format("in all", len(plan["runs"]), *_hours(plan["hours"])))
        days = ["" if h is None else f"{h / 24:.1f} d" for h in plan["hours"].values()]
        lines.append(row.format("a shared run once", "", *days))
        if asked_for:
            only = (
                f"dfil reproduce --profile {plan['profile']} --only {' '.join(asked_for.values())}"
            )
            lines.append(f"{', '.join(asked_for)}: not in it, only by {only}")
        if each_run:
            lines += ["", f"{'CPU':>9}{'GPU':>9}{'epochs':>8}{'clips':>7}  run"]
            lines += [_line(run) for run in plan["runs"]]
        disk = plan["gigabytes"]
        named = {f"crops of {dataset}": size for dataset, size in disk["crops"].items()}
        named |= {"weights": disk["weights"]}
        named["disk in all"] = sum(named.values())
        lines += ["", *(f"{name:22}{size:10.1f} GB" for name, size in named.items())]
    return "\n".join(lines)


def _hours(hours: Mapping[str, float | None]) -> list[str]:
    return ["-" if value is None else f"{value:.2f}" for value in hours.values()]


def _line(run: dict) -> str:
    switches = [f"{name}={value}" for name, value in run["switches"].items()]
    kinds = "+".join(run["manipulations"])
    what = (run["method"], *switches, run["dataset"], run["compression"], kinds)
    name = f"{' '.join(filter(None, what))} seed {run['seed']} ({', '.join(run['tables'])})"
    cpu, gpu = _hours(run["hours"])
    return f"{cpu:>9}{gpu:>9}{run['epochs']:8}{run['clips per epoch']:7}  {name}"
