"""From a table to its scores: which runs feed a cell, trained or found again, on which test videos.

`fill` gives per-video scores; `dfil.results.tables.build` makes numbers of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dfil import models, paper
from dfil.faces.store import CropStore
from dfil.profiles import Profile
from dfil.system.errors import RunError
from dfil.train.runs import Run, RunSpec, RunStore
from dfil.train.self_warped import SelfWarped
from dfil.train.spec import known_people, missing, select, what_crops

POOLED = "one model for all manipulations"
WARPED = "trained on real videos and warps of them, on no forgery"
READ = "built mostly on readings of its source"
STARTED = "begun with the weights of this method's built-in HQ run of Table 1"


@dataclass(frozen=True)
class CellResult:
    """What feeds one cell: per-video scores of each seed, the keys of the runs, and notes.

    The columns of scores are video_id, label (1 = fake), score (the probability of fake) and, where
    it is known, person. Every seed must have scored the same videos.
    """

    scores: Sequence[pd.DataFrame]
    runs: Sequence[str] = ()
    notes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)


def fill(
    table: paper.Table,
    runs: RunStore,
    stores: Mapping[str, CropStore],
    methods: Sequence[str],
    qualities: Sequence[str] = (),
) -> tuple[dict[tuple[str, str], CellResult], dict[tuple[str, str], str]]:
    """(results, reasons), both by (row, column): what feeds every cell that can be run, and for
    every other one why it cannot.

    stores: by dataset name, as in paper.Videos; methods: the registry names to run. Of those,
    methods that the paper does not know get rows of their own. qualities: the only compressions to
    train on, default all. Whether one model per manipulation or one for all of them is trained is
    the profile's choice.
    """
    results, reasons, possible = {}, {}, []
    for cell in table.extended(methods).cells():
        reason = _obstacle(cell, stores, methods)
        if not reason and qualities and cell.train.compression not in qualities:
            reason = f"this run trains {', '.join(qualities)} only"
        reasons[cell.row, cell.column] = reason
        possible += [] if reason else [cell]
    for dataset, store in stores.items():
        cells = [cell for cell in possible if cell.train.dataset == dataset]
        runs.get_all([spec for cell in cells for spec in specs(cell, runs.profile, store)], store)
    for cell in possible:
        home, tests = stores[cell.train.dataset], stores[cell.test.dataset]
        trained = [runs.get(spec, home) for spec in specs(cell, runs.profile, home)]
        notes = remarks(cell, [run.spec for run in trained], runs.profile)
        notes += known_people(trained[0].spec, home, tests, _which(cell.test))
        results[cell.row, cell.column] = result(trained, tests, cell.test, notes)
    return results, {place: reason for place, reason in reasons.items() if reason}


def keys(
    table: paper.Table, runs: RunStore, stores: Mapping[str, CropStore]
) -> dict[tuple[str, str], list[str]]:
    """By (row, column) the keys of those runs of `fill` that have scored the videos of today."""
    found, every = {}, models.available()
    for cell in table.extended(every).cells():
        if not _obstacle(cell, stores, every):
            home, tests = stores[cell.train.dataset], stores[cell.test.dataset]
            feeding = (runs.run(spec, home) for spec in specs(cell, runs.profile, home))
            kept = [r.key for r in feeding if r.scores_file(tests, cell.test.compression).is_file()]
            found[cell.row, cell.column] = kept
    return found


def methods(profile: Profile, asked: Sequence[str] = (), table: str = "") -> list[str]:
    """The registry names to run: those asked for, all for "all", else the profile's for the table.

    Raises RunError for an unknown name.
    """
    known, asked = models.available(), [asked] if isinstance(asked, str) and asked else list(asked)
    names = known if "all" in asked else asked or list(profile.runs(table)) or known
    if unknown := [name for name in names if name not in known]:
        choice = ", ".join(known)
        raise RunError(f"no method is called {unknown[0]!r}; choose all or some of {choice}")
    return names


# The mechanism, where a single frame carries no information about the label: row -> (method,
# distance of a snippet's frames).
TEMPORAL_ONLY = {
    "dil": ("dil", 1),
    "DIL, frames four apart": ("dil", 4),
    "resnet50": ("resnet50", 1),
}
MECHANISM = paper.Videos("ffpp", "c23", ("Deepfakes",))


def temporal_only_specs(
    profile: Profile, methods: Sequence[str] = (), seed: int = 0
) -> dict[str, RunSpec]:
    """The runs behind TEMPORAL_ONLY and, by their names, behind the further methods asked for."""
    rows = TEMPORAL_ONLY | {m: (m, 1) for m in methods if m not in TEMPORAL_ONLY}
    videos = MECHANISM.dataset, *_which(MECHANISM)
    return {
        row: RunSpec.of_table(profile, "temporal-only", method, *videos, stride=stride, seed=seed)
        for row, (method, stride) in rows.items()
    }


def temporal_only(
    runs: RunStore, store: CropStore, methods: Sequence[str] = ()
) -> dict[tuple[str, str], CellResult]:
    """The rows of `temporal_only_specs` as results of the one column "Deepfakes c23"."""
    rows = _by_seed(runs.profile, methods)
    runs.get_all([spec for each in rows for spec in each.values()], store)
    trained = {row: [runs.get(each[row], store) for each in rows] for row in rows[0]}
    return {(r, "Deepfakes c23"): result(row, store, MECHANISM) for r, row in trained.items()}


def temporal_only_keys(runs: RunStore, store: CropStore) -> dict[tuple[str, str], list[str]]:
    """The keys of the runs, one per seed, of every row that temporal_only has for all methods."""
    rows = _by_seed(runs.profile, models.available())
    keys = {row: [runs.key(each[row], store) for each in rows] for row in rows[0]}
    return {(row, "Deepfakes c23"): found for row, found in keys.items()}


def _by_seed(profile: Profile, methods: Sequence[str]) -> list[dict[str, RunSpec]]:
    seeds = profile.seeds_for("temporal-only")
    return [temporal_only_specs(profile, methods, seed) for seed in seeds]


def specs(cell: paper.Cell, profile: Profile, store: CropStore) -> list[RunSpec]:
    """The runs behind a cell, one per seed of the profile."""
    videos, kinds = cell.train, cell.train.manipulations
    if kinds and not profile.per_manipulation:
        there = paper.ALL_MANIPULATIONS
        kinds = tuple(kind for kind in there if _has(store, videos.compression, kind))
    where = videos.dataset, videos.compression, kinds
    beyond = paper.table(cell.table) is None and videos.dataset != "ffpp"
    table = "table2" if beyond else cell.table  # a dataset of one's own is trained like Table 2's
    if cell.warped:
        how = {"fakes": SelfWarped(), "table": table, "switches": cell.switches}
        what = cell.method, *where[:2]
        return [RunSpec.of_reals(profile, *what, **how, seed=n) for n in profile.seeds_for(table)]
    return [
        RunSpec.of_table(profile, table, cell.method, *where, switches=cell.switches, seed=seed)
        for seed in profile.seeds_for(table)
    ]


def remarks(cell: paper.Cell, found: Sequence[RunSpec], profile: Profile) -> tuple[str, ...]:
    """What is to be said of a cell beside its runs: whose number the paper's is, whether one model
    stands for all columns, and whether trainings at c40 are longer."""
    pooled = found[0].manipulations != cell.train.manipulations and not cell.warped
    by_epochs = found[0].compression and not (cell.warped or models.is_fitted(cell.method))
    longer = f"{profile.heavy_epochs} epochs at c40, {profile.training.epochs} at c23"
    return (
        (WARPED,) * cell.warped
        + (POOLED,) * pooled
        + (paper.QUOTED_VALUE,) * (cell.quoted and cell.value is not None)
        + (longer,) * bool(by_epochs and profile.heavy_epochs)
    )


def own_dataset(dataset: str, methods: Sequence[str]) -> paper.Table:
    """A table of a dataset that the paper does not have: trained and tested on it, by accuracy."""
    rows = tuple(paper.Row(name, name, (None,)) for name in methods)
    columns = (paper.Column(dataset, paper.Videos(dataset), paper.Videos(dataset)),)
    title = f"{dataset}: a dataset beyond the paper"
    caption = "Accuracy when trained and tested on this dataset, beyond the paper."
    return paper.Table(dataset, title, caption, paper.ACCURACY, columns, rows)


def _obstacle(cell: paper.Cell, stores: Mapping[str, CropStore], methods: Sequence[str]) -> str:
    """Why a cell cannot be run; empty if it can."""
    if cell.method not in models.available():
        return paper.QUOTED if cell.quoted else "this method is not part of the package yet"
    if cell.method not in methods:
        return "left out of this run"
    for videos in (cell.train, cell.test):
        if videos.dataset not in stores:
            return f"{videos.dataset} is not there"
        for manipulation in videos.manipulations:
            if not _has(stores[videos.dataset], videos.compression, manipulation):
                kind = " ".join(filter(None, (videos.compression, manipulation)))
                return f"the tree has no {kind} videos"
    usable = select(stores[cell.test.dataset].index, "test", *_which(cell.test))
    usable = usable[usable["status"] == "ok"]
    for label, kind in ((0, "real"), (1, "fake")):
        if not (usable["label"] == label).any():
            return f"the test split has no usable {kind} videos"
    return ""


def _has(store: CropStore, compression: str, manipulation: str) -> bool:
    rows = store.index[store.index["status"] == "ok"]
    rows = rows[rows["compression"] == compression] if compression else rows
    return (rows["manipulation"] == manipulation).any() and (rows["label"] == 0).any()


def _which(videos: paper.Videos) -> tuple[str, tuple[str, ...]]:
    return videos.compression, videos.manipulations


def result(
    trained: Sequence[Run], store: CropStore, videos: paper.Videos, notes: tuple[str, ...] = ()
) -> CellResult:
    """The runs' scores of the test videos that a selection names, and what is to be said of them:
    where their weights began, a learning rate and a length of their own, trainings that learnt
    nothing, and how many videos of those that the index lists are missing."""
    spec, seeds, which = trained[0].spec, tuple(run.spec.seed for run in trained), _which(videos)
    lost, about = [run.spec.seed for run in trained if run.at_chance], models.about(spec.method)
    profile = trained[0].profile
    said = (
        *notes,
        *what_crops(store.meta),
        _seeds(seeds),
        READ if about.read else "",
        about.note,
        STARTED if spec.start else "",
        f"learning rate {spec.training.lr:g}" if spec.method in profile.rates else "",
        f"{_seeds(lost)} never left chance in training" if lost else "",
        missing(select(store.index, "test", *which)),
    )
    scores = [select(run.scores(store, videos.compression), "test", *which) for run in trained]
    return CellResult(scores, [run.key for run in trained], tuple(filter(None, said)), seeds)


def _seeds(numbers: Sequence[int]) -> str:
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
