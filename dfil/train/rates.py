"""Learning rates, searched alike for every method.

Three values are tried, and their neighbours where the best is at an edge, trained as for Table 1
at c23 with a seed that no table uses, and judged by the validation videos of the weights that are
kept: AUC first, then loss. Test videos are not looked at. Methods that are fitted have no rate. A
rate at which a training diverges is one that was tried and is not good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from dfil import models
from dfil.faces.store import CropStore
from dfil.paper import ALL_MANIPULATIONS
from dfil.profiles import Profile
from dfil.train.runs import Run, RunSpec, RunStore

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FIRST = (1e-3, 3e-3, 1e-2)
SEED = 100


def spec(profile: Profile, method: str, rate: float) -> RunSpec:
    """The run that tries a rate."""
    videos = "ffpp", "c23", ALL_MANIPULATIONS
    tried = RunSpec.of_table(profile, "table1", method, *videos, seed=SEED)
    return replace(tried, training=replace(tried.training, lr=rate))


def wanted(runs: RunStore, store: CropStore, method: str) -> list[RunSpec]:
    """The runs that a method's search needs next; empty when its rate is decided."""
    if models.is_fitted(method):
        return []
    there = _trained(runs, store, method)

    def missing(tried: Iterable[float]) -> list[RunSpec]:
        specs = [spec(runs.profile, method, rate) for rate in tried if rate not in there]
        return [each for each in specs if not runs.run(each, store).has_diverged]

    todo = missing(FIRST)
    if there and not todo:
        place = RATES.index(_best(there))
        todo = missing(RATES[max(place - 1, 0) : place + 2])
    elif not todo:  # all have diverged: smaller ones, one by one
        smaller = (missing([rate]) for rate in reversed(RATES) if rate < min(FIRST))
        todo = next(filter(None, smaller), [])
    return todo


def decided(runs: RunStore, store: CropStore, methods: Iterable[str]) -> dict[str, float]:
    """The rates of those methods whose search has ended. Trains nothing, only needs the meta."""
    ended = [method for method in methods if not wanted(runs, store, method)]
    tried = {method: _trained(runs, store, method) for method in ended}
    return {method: _best(there) for method, there in tried.items() if there}


def applied(runs: RunStore, store: CropStore, methods: Iterable[str]) -> Profile:
    """The profile of the runs with the rates that are decided so far."""
    found = decided(runs, store, methods)
    return replace(runs.profile, rates=runs.profile.rates | found)


def table(runs: RunStore, store: CropStore, methods: Iterable[str]) -> pd.DataFrame:
    """A line per method and rate that was tried: method, rate, val_auc, val_loss, chosen."""
    lines = []
    for method in methods:
        there = _trained(runs, store, method)
        for rate, (auc, loss) in sorted(there.items()):
            line = {"method": method, "rate": rate, "val_auc": auc, "val_loss": -loss}
            lines.append(line | {"chosen": rate == _best(there)})
    return pd.DataFrame(lines, columns=["method", "rate", "val_auc", "val_loss", "chosen"])


def _trained(runs: RunStore, store: CropStore, method: str) -> dict[float, tuple[float, float]]:
    """Of the rates tried: validation AUC and minus validation loss of the weights kept."""
    found = {rate: runs.run(spec(runs.profile, method, rate), store) for rate in RATES}
    return {rate: _judged(run) for rate, run in found.items() if run.is_trained}


def _judged(run: Run) -> tuple[float, float]:
    kept = run.history.query("kept").iloc[-1]
    return float(kept["val_auc"]), -float(kept["val_loss"])


def _best(judged: Mapping[float, tuple[float, float]]) -> float:
    return max(judged, key=judged.get)
