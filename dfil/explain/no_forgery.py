"""Detectors that were trained on no forgery (dfil.train.self_blended), tried on forgeries.

Rows are a method and what stood for the fakes in its training: the four manipulations of
FaceForensics++, as in Table 1, or pseudo-forgeries of the same real videos at three doses of
jitter. Columns are the forgeries that a profile has: each manipulation at both qualities, and those
of the other datasets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from dfil.faces.store import CropStore
from dfil.paper import ALL_MANIPULATIONS, AUC, Table, Videos
from dfil.profiles import Profile
from dfil.results import compare, decide, tables
from dfil.system.errors import DataError
from dfil.train import data, experiments
from dfil.train.experiments import CellResult
from dfil.train.repeat import repeatable
from dfil.train.runs import Run, RunSpec, RunStore
from dfil.train.scoring import score
from dfil.train.self_blended import SelfBlended, default_hull

TITLE = "Trained on no forgery: AUC on forgeries"
FORGERIES = "forgeries"
JITTERS = (0.0, 0.5, 1.0)
TRAINED = "ffpp", "c23"  # dataset and compression of the training videos
DATASETS = "ffpp", "celebdf", "dfdc-preview"  # whose forgeries it is tried on
METHODS = "dil", "resnet50", "i3d", "stil"  # of the study
Results = dict[tuple[str, str], CellResult]  # by (row, column)


def row(method: str, jitter: float | None) -> str:
    """The name of a row; jitter None: trained on forgeries."""
    return f"{method}, {FORGERIES if jitter is None else f'jitter {jitter:g}'}"


def specs(profile: Profile, methods: Sequence[str], seed: int) -> dict[str, RunSpec]:
    """The run behind each row."""
    found = {}
    for method in methods:
        what = method, *TRAINED
        found[row(method, None)] = RunSpec.of_table(
            profile, "table1", *what, ALL_MANIPULATIONS, seed=seed
        )
        for jitter in JITTERS:
            fakes = SelfBlended(jitter)
            found[row(method, jitter)] = RunSpec.of_reals(profile, *what, fakes=fakes, seed=seed)
    return found


def tests(stores: Mapping[str, CropStore]) -> dict[str, Videos]:
    """The columns: forgeries, with the real videos beside them, that there are test videos of."""
    found = {}
    for dataset, store in stores.items():
        fakes = store.index.query("split == 'test' and status == 'ok' and label == 1")
        if dataset != TRAINED[0]:
            found |= {dataset: Videos(dataset)} if len(fakes) else {}
            continue
        kinds = fakes[["compression", "manipulation"]].drop_duplicates()
        for compression, name in sorted(kinds.itertuples(index=False, name=None)):
            found[f"{name} {compression}"] = Videos(dataset, compression, (name,))
    return found


def response(runs: RunStore, stores: Mapping[str, CropStore], methods: Sequence[str]) -> Results:
    """What feeds each cell, trained or found again; stores: by dataset, FaceForensics++ first."""
    wanted = [specs(runs.profile, methods, s) for s in runs.profile.seeds_for("table1")]
    return scored(runs, stores, wanted, tests(stores))


def scored(
    runs: RunStore,
    stores: Mapping[str, CropStore],
    wanted: Sequence[Mapping[str, RunSpec]],
    columns: Mapping[str, Videos],
) -> Results:
    """What feeds each cell of rows trained on FaceForensics++. wanted: the runs by row, one mapping
    per seed; columns: the test videos by column."""
    home, results = stores[TRAINED[0]], {}
    runs.get_all([spec for each in wanted for spec in each.values()], home)
    for name in wanted[0]:
        trained = [runs.get(each[name], home) for each in wanted]
        for column, videos in columns.items():
            results[name, column] = experiments.result(trained, stores[videos.dataset], videos)
    return results


def real_people(
    runs: RunStore, folder: str | Path, methods: Sequence[str], epochs: int = 0
) -> Results:
    """Trained on the real people of a folder (dfil.datasets.folder), but for two in five: these
    against their own pseudo-forgeries are the one column. Nothing where no folder is named.

    The people left out are in the place of validation, which has no say: the last epoch is kept,
    and the rate falls by the step. epochs: of training; 0: the profile's, or more if the videos
    are few. Raises DataError, before anything is trained, if a person alone is left out.
    """
    if not folder:
        print("No folder of real people is named, so nothing is trained on any.")
        return {}
    profile = replace(runs.profile, validation=0.4)
    store = data.crops(profile, Path(folder).expanduser(), "folder")
    people = store.index.query("status == 'ok'").groupby("split")["person"].nunique()
    if people.get("val", 0) < 2 or "train" not in people:
        raise DataError(
            f"{folder} has usable faces of {people.sum()} people, of whom two in five are left"
            " out: a comparison needs at least two of these; add people, a sub-folder each, until"
            " there are four"
        )
    how, seeds = {"keep": "last", "schedule": "one-cycle"}, profile.seeds_for("table1")
    how |= {"epochs": epochs} if epochs else {}
    wanted, results = {}, {}
    for method, jitter in itertools.product(methods, JITTERS):
        of = profile, method, "folder"
        fakes = SelfBlended(jitter, default_hull())
        each = [RunSpec.of_reals(*of, fakes=fakes, seed=seed) for seed in seeds]
        each = [replace(s, training=replace(s.training, **how)) for s in each]
        least = 0 if epochs else profile.least_updates
        wanted[row(method, jitter)] = [s.long_enough(store, least) for s in each]
    runs.get_all(list(itertools.chain(*wanted.values())), store)
    for name, each in wanted.items():
        trained = [runs.get(spec, store) for spec in each]
        scores = [_left_out(run, store) for run in trained]
        keys = [run.key for run in trained]
        results[name, "other people"] = CellResult(scores, keys, (), seeds)
    what = f"{people['train']} people were trained on, {people['val']} left out are tested"
    print(f"{what}{', all of them synthetic' * bool(store.meta['synthetic'])}.")
    return results


def _left_out(run: Run, store: CropStore) -> pd.DataFrame:
    """The run's scores of its validation videos and their pseudo-forgeries."""
    how, training = run.sampling, run.spec.training
    videos = run.dataset(store, run.spec.select(store, "val"), how.test)
    with repeatable(training):
        return score(run.model(), videos, batch=training.batch, views=how.views)


def layout(results: Results) -> Table:
    """The table that the results fill."""
    rows, columns = (list(dict.fromkeys(key[n] for key in results)) for n in (0, 1))
    return tables.grid("no-forgery", TITLE, AUC, rows, columns)


def table(results: Results, note: str, synthetic: bool) -> pd.DataFrame:
    """The results in the usual columns."""
    return tables.build(layout(results), results, "", note, synthetic=synthetic)


def asked(methods: Sequence[str]) -> dict[str, tuple[str, str | float]]:
    """By what it says, each claim about the rows: the better one, and the other one or a number."""
    found = {}
    for m in methods:
        found[f"{m} with jitter 1 recognises forgeries"] = row(m, 1), 0.5
        found[f"{m} gains from jitter (1 against 0)"] = row(m, 1), row(m, 0)
        found[f"{m} gains from forgeries (against jitter 1)"] = row(m, None), row(m, 1)
    if {"dil", "resnet50"} <= set(methods):
        found["dil is above resnet50 (both jitter 1)"] = row("dil", 1), row("resnet50", 1)
    return found


def decisions(results: Results, methods: Sequence[str]) -> pd.DataFrame:
    """What is asked of the rows, pooled over all columns and decided together, a line each."""
    return decided(results, asked(methods))


def decided(results: Results, asked: Mapping[str, tuple[str, str | float]]) -> pd.DataFrame:
    """By AUC, whether the first row is above the second or a number: a line per claim."""
    made = []
    for first, second in asked.values():
        other = second if isinstance(second, float) else compare.scores_of(results, second)
        made.append(decide.compare(compare.scores_of(results, first), other, AUC))
    return lines(made, asked)


def lines(made: Sequence[decide.Decision], claims: Iterable[str]) -> pd.DataFrame:
    """Comparisons decided together, a line per claim."""
    found = [[getattr(each, name) for name in compare.SHOWN] for each in decide.decide(made)]
    return pd.DataFrame(found, columns=compare.SHOWN, index=pd.Index(claims, name="claim"))
