"""What the six tables take before anything is started: the distinct runs, hours by a short measurement on this machine, and disk.

    hours of a run = (epochs x (training clips x seconds per training clip + validation videos x their seconds)
                      + test videos x seconds per scored video) / 3600

On a GPU these are hours of it. On a CPU they are hours of one core, measured as the processor time of one thread, so that other work on
the machine does not count; several cores share them at best evenly. Numbers of videos are the owners' published ones, or the profile's
for its synthetic trees. Seconds are those of each method's full model on noise already in memory: ablated models, which are smaller, are
overestimated a little, and loading the crops is not counted (`dfil bench data` compares it). Cutting the crops is not in the hours
either: `dfil preprocess` forecasts that from its first videos.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from dfil import datasets, models, paper, synthetic
from dfil.datasets import REAL, celebdf, dfdc_preview, wilddeepfake
from dfil.profiles import Profile
from dfil.system import paths
from dfil.system.cores import cores
from dfil.train import data, experiments
from dfil.train.runs import Run, RunSpec
from dfil.train.scoring import pick_device, place, precision
from dfil.train.snippets import batches, normalise

# Real and fake videos by split. FaceForensics++: people, of whom each has one real video and one fake per manipulation.
FFPP = {"train": 720, "val": 140, "test": 140}
DFDC_TEST = {"real": 276, "fake": 504}  # of the preview's dataset.json: 780 test clips
# Mean frames per video as the owners publish them: 1.8 million images of 4000 fakes and 0.5 of 1000 reals; 2.34 million of 6229 videos;
# clips of 15 seconds; 1.18 million of 7314 sequences.
FRAMES = {"ffpp": 500, "celebdf": 376, "dfdc-preview": 450, "wilddeepfake": 161}
PATCH = (
    300 / 224
)  # side of a stored patch over the crop's, see dfil.faces.store; one person per video
MEGAPIXELS = 1.0  # about what a CPU is given in one measured step; a GPU gets the profile's batch


def make(profile: Profile, methods: Sequence[str] = ()) -> dict:
    """The plan as plain values: `device` and what its hours are `hours_of`, `methods` (seconds per clip), `runs`, `tables` (runs and
    hours, shared runs in each table that needs them), `hours` in all, each run once, and `gigabytes` of crops by dataset and of weights.

    methods: registry names, default the profile's. Raises RunError for a name that is not registered.
    """
    stores = {dataset: expected(profile, dataset) for dataset in FRAMES}
    needed = needs(profile, methods, stores)
    used = list(dict.fromkeys(spec.method for spec in needed))
    seconds = {
        method: measure(profile, method)
        for method in tqdm(used, desc="measuring", disable=None, leave=False)
    }
    runs = [
        _run(profile, spec, need, stores, seconds[spec.method]) for spec, need in needed.items()
    ]
    tables = {}
    for key in paper.TABLES:
        there = [run for run in runs if key in run["tables"]]
        tables[key] = {"runs": len(there), "hours": sum(run["hours"] for run in there)}
    return {
        "profile": profile.name,
        "device": torch.cuda.get_device_name(0)
        if torch.cuda.is_available()
        else f"CPU ({cores()} cores)",
        "hours_of": "a GPU" if torch.cuda.is_available() else "a core",
        "methods": seconds,
        "runs": runs,
        "tables": tables,
        "hours": sum(run["hours"] for run in runs),
        "gigabytes": {
            "crops": {d: _crops(profile, d, rows) for d, rows in _read(needed, stores).items()},
            "weights": sum(4e-9 * seconds[run["method"]]["parameters"] for run in runs),
        },
    }


def needs(
    profile: Profile, methods: Sequence[str], stores: dict[str, SimpleNamespace]
) -> dict[RunSpec, dict]:
    """Every distinct run behind the six tables, with the names of the `tables` it feeds and the (dataset, compression) of its `tests`."""
    found: dict[RunSpec, dict] = {}
    for table in paper.TABLES.values():
        chosen = experiments.methods(profile, methods, table.key)
        for cell in table.cells():
            if cell.quoted or cell.method not in chosen:
                continue
            for spec in experiments.specs(cell, profile, stores[cell.train.dataset]):
                need = found.setdefault(spec, {"tables": {}, "tests": {}})
                need["tables"][table.key] = need["tests"][
                    cell.test.dataset, cell.test.compression
                ] = True
    return found


def expected(profile: Profile, dataset: str, setting: str = "") -> SimpleNamespace:
    """What a crop store of the dataset will hold, as far as experiments.specs and RunSpec.select look at one: an index of usable videos."""
    setting = setting or datasets.get(dataset).setting
    tree = profile.trees.get(setting, {})
    rows: list[tuple] = []  # split, manipulation, compression, target
    if dataset == "ffpp":
        for split, people in FFPP.items():
            for compression in tree.get("qualities", paper.COMPRESSIONS.values()):
                for manipulation in (REAL, *tree.get("manipulations", paper.ALL_MANIPULATIONS)):
                    rows += [
                        (split, manipulation, compression, f"{split}{n}")
                        for n in range(tree.get(split, people))
                    ]
    else:
        for (split, label), count in _counts(dataset, tree).items():
            validation = round(profile.validation * count) if split == "train" else 0
            for n in range(count):
                rows.append(
                    (
                        "val" if n < validation else split,
                        REAL if label == "real" else "fake",
                        "",
                        f"{split}{n}",
                    )
                )
    index = pd.DataFrame(rows, columns=["split", "manipulation", "compression", "target"])
    index = index.assign(
        label=(index["manipulation"] != REAL).astype(int),
        status="ok",
        video_id=np.arange(len(index)).astype(str),
    )
    meta = data.planned(profile, dataset, setting) if tree else {}
    return SimpleNamespace(index=index, folder=Path(dataset), meta=meta)


def _counts(dataset: str, tree: dict) -> dict[tuple[str, str], int]:
    """Videos by split and label, validation not yet carved."""
    if tree:
        return {
            (split, label): tree[split] for split in ("train", "test") for label in ("real", "fake")
        }
    if dataset == "dfdc-preview":
        (total,) = dfdc_preview.EXPECTED.values()
        train = {("train", label): total["", label] - DFDC_TEST[label] for label in DFDC_TEST}
        return train | {("test", label): count for label, count in DFDC_TEST.items()}
    return {
        "celebdf": celebdf.EXPECTED["Celeb-DF v2"],
        "wilddeepfake": wilddeepfake.EXPECTED["WildDeepfake"],
    }[dataset]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def measure(
    profile: Profile, method: str, steps: int = 3, patience: float = 10.0
) -> dict[str, float]:
    """Seconds per clip of a training step (`train`) and per video of scoring (`test`), medians of up to `steps` steps after one that is
    not counted, the last begun within `patience` seconds; `clips` in a step, and the model's `parameters`."""
    run = Run(Path(), RunSpec.of_table(profile, "table1", method, ""), profile)
    device, how = pick_device(), run.sampling
    torch.manual_seed(0)
    model = run.build()
    place(model, device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-6)  # small, so that noise leads nowhere
    found = {"parameters": float(sum(p.numel() for p in model.parameters()))}
    for what, snippets in (("train", how.train), ("test", how.test)):
        clips = profile.training.batch
        if device.type == "cpu":
            clips = min(
                clips, max(1, round(1e6 * MEGAPIXELS / (snippets * how.frames * profile.size**2)))
            )
        shape = (clips, snippets, how.frames, 3, profile.size, profile.size)
        x, y = (
            torch.randint(256, shape, dtype=torch.uint8, device=device),
            (torch.arange(clips, device=device) % 2).float(),
        )
        step = _training_step if what == "train" else _scoring_step
        model.train(what == "train")
        times: list[float] = []
        end = time.perf_counter() + patience
        while len(times) < 2 or (len(times) <= steps and time.perf_counter() < end):
            start = clock()
            step(model, optimiser, x, y)
            times.append(clock() - start)
        found |= {what: statistics.median(times[1:]) / clips, f"{what} clips": clips}
    return found


def _training_step(
    model: models.Detector, optimiser: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    with precision(x.device):
        loss = model.loss(normalise(x), y)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    loss.item()  # waits for a GPU


@torch.no_grad()
def _scoring_step(
    model: models.Detector, _: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    with precision(x.device):
        model(normalise(x)).cpu()


def _run(
    profile: Profile, spec: RunSpec, need: dict, stores: dict, seconds: dict[str, float]
) -> dict:
    """One run as plain values, its hours among them."""
    store, how, training = stores[spec.dataset], Run(Path(), spec, profile).sampling, spec.training
    clips = sum(
        map(
            len,
            batches(
                spec.select(store, "train"),
                training.batch,
                training.paired,
                np.random.default_rng(0),
            ),
        )
    )
    validation = len(spec.select(store, "val"))
    test = sum(
        len(_split(stores[dataset].index, "test", compression))
        for dataset, compression in need["tests"]
    )
    trained = training.epochs * (
        clips * seconds["train"] + validation * seconds["test"] * how.train / how.test
    )
    about = {
        name: value
        for name, value in vars(spec).items()
        if name in ("method", "dataset", "compression", "manipulations", "seed")
    }
    return about | {
        "switches": dict(spec.switches),
        "tables": list(need["tables"]),
        "epochs": training.epochs,
        "clips per epoch": clips,
        "validation videos": validation,
        "test videos": test,
        "hours": (trained + test * seconds["test"]) / 3600,
    }


def _split(index: pd.DataFrame, split: str, compression: str) -> pd.DataFrame:
    rows = index[index["split"] == split]
    return rows[rows["compression"] == compression] if compression else rows


def _read(needed: dict, stores: dict) -> dict[str, int]:
    """Videos whose crops are needed, by dataset: every manipulation of the compressions that a run trains or is tested on."""
    wanted = {(spec.dataset, spec.compression) for spec in needed} | {
        test for need in needed.values() for test in need["tests"]
    }
    counts: dict[str, int] = {}
    for dataset, compression in sorted(wanted):
        index = stores[dataset].index
        counts[dataset] = counts.get(dataset, 0) + int((index["compression"] == compression).sum())
    return counts


def _crops(profile: Profile, dataset: str, videos: int) -> float:
    frames = profile.trees.get(datasets.get(dataset).setting, {}).get("frames", FRAMES[dataset])
    return 1e-9 * videos * frames * 3 * (PATCH * profile.size) ** 2


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


def text(plan: dict, each_run: bool = False) -> str:
    """The plan for a terminal; each_run adds a line per run."""
    lines = [
        f"Profile {plan['profile']}, measured on this machine's {plan['device']}; seconds and hours are those of {plan['hours_of']}."
    ]
    lines += [
        "",
        f"{'method':12}{'s/training clip':>17}{'s/scored video':>17}{'clips in a step':>17}",
    ]
    for name, found in plan["methods"].items():
        steps = f"{found['train clips']:.0f} and {found['test clips']:.0f}"
        lines.append(f"{name:12}{found['train']:17.4f}{found['test']:17.4f}{steps:>17}")
    lines += ["", f"{'table':12}{'runs':>6}{'hours':>12}"]
    lines += [
        f"{name:12}{table['runs']:6}{table['hours']:12.2f}"
        for name, table in plan["tables"].items()
    ]
    lines += [
        f"{'in all':12}{len(plan['runs']):6}{plan['hours']:12.2f}   ({plan['hours'] / 24:.1f} days; a shared run counts once)"
    ]
    if each_run:
        lines += ["", f"{'hours':>9}{'epochs':>8}{'clips':>7}  run"]
        for run in plan["runs"]:
            switches = " ".join(f"{name}={value}" for name, value in run["switches"].items())
            what = (
                run["method"],
                switches,
                run["dataset"],
                run["compression"],
                "+".join(run["manipulations"]),
                f"seed {run['seed']}",
            )
            name = " ".join(filter(None, what))
            lines.append(
                f"{run['hours']:9.3f}{run['epochs']:8}{run['clips per epoch']:7}  {name} ({', '.join(run['tables'])})"
            )
    crops = plan["gigabytes"]["crops"]
    lines += ["", *(f"crops of {name:14}{gigabytes:10.1f} GB" for name, gigabytes in crops.items())]
    lines += [
        f"{'weights':23}{plan['gigabytes']['weights']:10.1f} GB",
        f"{'in all':23}{_total(plan):10.1f} GB",
    ]
    return "\n".join(lines)


def _total(plan: dict) -> float:
    return sum(plan["gigabytes"]["crops"].values()) + plan["gigabytes"]["weights"]
