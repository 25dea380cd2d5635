"""The study: every run behind the tables and the claims, the most decisive first.

It goes on wherever it was stopped, on this machine or another: what a run leaves in
`outputs/study/runs/<key>/` (run.json, history.csv, per-video scores) is its record, kept in git,
and a run whose record is there is done. `dfil verify` makes the published numbers of the records.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import torch

from dfil import models, paper
from dfil.explain import additions, no_forgery
from dfil.faces.store import CropStore
from dfil.profiles import Profile
from dfil.results.beyond import QUESTIONS
from dfil.results.claims import CLAIMS
from dfil.system import paths, workers
from dfil.system.cores import cores, share_cores
from dfil.system.errors import DivergedError, RunError
from dfil.tools import plan
from dfil.train import data, experiments, rates
from dfil.train.devices import full_precision
from dfil.train.runs import Run, RunSpec, RunStore

MECHANISM = "temporal-only"  # the built-in tree that feeds the table of this name
ROUND = 3  # seeds that every claim gets before any gets more
ON_GPU = 2**31  # bytes of a GPU's memory for one run: CUDA itself, and the small network


@dataclass(frozen=True)
class Item:
    """One run: the data it trains on (a dataset, or MECHANISM), the tables it feeds, the (data,
    compression) of the test videos it is scored on, and whether a claim waits for it."""

    spec: RunSpec
    source: str
    tables: tuple[str, ...]
    tests: tuple[tuple[str, str], ...]
    claimed: bool

    @property
    def urgency(self) -> tuple:
        """Smaller is earlier: claimed runs, in rounds of seeds, by the first table they feed.

        Tables come in the order of the claims that they decide per run: Table 2's claim is one for
        18 runs a round, Table 4's are three for nine. Methods that the paper only quotes come last.
        """
        order = ["temporal_only", "table4", "table5", "table6", "table1", "table3", "table2"]
        order += QUESTIONS
        first = min(order.index(name) for name in self.tables)
        quoted = self.spec.method in paper.quoted_methods()
        return not self.claimed, quoted, self.spec.seed // ROUND, first, self.spec.seed


def work(profile: Profile, methods: Sequence[str] = ()) -> list[Item]:
    """Every distinct run of the study, in the order in which they are trained.

    methods: registry names, default all. Nothing is rendered, cut or read for it.
    """
    asked, stores = list(methods) or models.available(), cache(partial(expected, profile))
    waited_for = {(c.table, row) for c in CLAIMS for row in (c.better, c.than)}
    found: dict[RunSpec, Item] = {}

    def add(spec: RunSpec, source: str, table: str, row: str, test: tuple[str, str]) -> None:
        before = found.get(spec) or Item(spec, source, (), (), False)
        tables = dict.fromkeys((*before.tables, table))
        tests = dict.fromkeys((*before.tests, test))
        claimed = before.claimed or (table, row) in waited_for
        found[spec] = Item(spec, source, tuple(tables), tuple(tests), claimed)

    for seed in profile.seeds_for(MECHANISM):
        rows = experiments.temporal_only_specs(profile, asked, seed)
        for row, spec in rows.items():
            add(spec, MECHANISM, "temporal_only", row, (MECHANISM, "c23"))
    for table, cell, spec in plan.runs_of_tables(profile, lambda _: asked, stores):
        test = cell.test.dataset, cell.test.compression
        add(spec, cell.train.dataset, table, cell.row, test)
    for table, (row, _), spec, videos in feeding_beyond(profile, asked, stores):
        add(spec, "ffpp", table, row, (videos.dataset, videos.compression))
    return sorted(found.values(), key=lambda item: item.urgency)


def feeding_beyond(
    profile: Profile, methods: Sequence[str], stores: Callable[[str], CropStore]
) -> Iterator[tuple[str, tuple[str, str], RunSpec, paper.Videos]]:
    """What feeds the tables beyond the paper: table, row and column, run, test videos."""
    forgeries = no_forgery.tests({name: stores(name) for name in no_forgery.DATASETS})
    of_ffpp = additions.tests(stores("ffpp"))
    asked = [method for method in no_forgery.METHODS if method in methods]
    for seed in profile.seeds_for("table1"):
        added = additions.specs(profile, seed) if "dil" in methods else {}
        rows = no_forgery.specs(profile, asked, seed)
        both = ("no_forgery", rows, forgeries), ("additions", added, of_ffpp)
        for table, specs, columns in both:
            for row, spec in specs.items():
                for column, videos in columns.items():
                    yield table, (row, column), spec, videos


def expected(profile: Profile, source: str) -> SimpleNamespace:
    """What stands for a crop store that is not there: enough to name runs and their scores."""
    return plan.expected(profile, *(("ffpp", source) if source == MECHANISM else (source,)))


class Study:
    """The work list beside what is done of it, under outputs/<profile>/runs."""

    def __init__(self, profile: Profile, methods: Sequence[str] = ()):
        if not profile.trees:
            raise RunError(
                f"the study is of built-in data, which the profile {profile.name} has not; real"
                " data go through `dfil reproduce`"
            )
        self.profile, self.methods = profile, list(methods) or models.available()
        self.expected = cache(partial(expected, profile))
        self._done: set[RunSpec] = set()
        self._failed: set[RunSpec] = set()  # in this call; another one tries them again
        self._plan()

    def _plan(self) -> None:
        """The work with the learning rates that the searches have decided so far."""
        folder, store = paths.runs(self.profile.name), self.expected("ffpp")
        every = models.available() if self.profile.search_rates else ()  # tables have all rows
        runs = RunStore(folder, self.profile)
        wanted = (method for method in self.methods if method in every)
        self._wanted = {method: rates.wanted(runs, store, method) for method in wanted}
        self.profile = rates.applied(runs, store, every)
        self.runs = RunStore(folder, self.profile)
        self.items = work(self.profile, self.methods)

    def searches(self, methods: Sequence[str] = ()) -> list[Item]:
        """The runs that try learning rates, of all methods or of some: before the methods' others,
        because these are named by what they find."""
        wanted = (self._wanted.get(method, ()) for method in methods or self.methods)
        specs = [spec for each in wanted for spec in each if spec not in self._failed]
        return [Item(spec, "ffpp", ("rates",), (), True) for spec in specs]

    def run(self, item: Item) -> Run:
        """The run of an item, trained or not; its name needs no data."""
        return self.runs.run(item.spec, self.expected(item.source))

    def is_done(self, item: Item) -> bool:
        """Whether the record is there with the scores of every test that the tables need."""
        if item.spec not in self._done and (run := self.run(item)).is_trained:
            scores = (run.scores_file(self.expected(name), how) for name, how in item.tests)
            if all(file.is_file() for file in scores):
                self._done.add(item.spec)
        return item.spec in self._done

    def todo(self) -> list[Item]:
        return [item for item in self.items if not self.is_done(item)]

    def seconds(self) -> dict[str, float]:
        """Median seconds of a training by method, of the records there are."""
        taken: dict[str, list[float]] = {}
        for item in self.items:
            if (run := self.run(item)).is_trained:
                taken.setdefault(item.spec.method, []).append(run.record["made"]["seconds"])
        return {method: statistics.median(values) for method, values in taken.items()}

    def forecast(self, todo: Sequence[Item]) -> str:
        """One sentence: how much is left, and about how long it takes where that is known."""
        done, known = len(self.items) - len(todo), self.seconds()
        said = f"{done} of {len(self.items)} runs are done, {len(todo)} are to be trained"
        if not known:
            return f"{said}; how long they take is known after the first."
        usual = statistics.median(known.values())
        hours = sum(known.get(item.spec.method, usual) for item in todo) / 3600
        beside = at_a_time(self.profile)
        return f"{said}: about {hours / beside:.1f} hours, {beside} at a time."

    def ready(self) -> Iterator[Item]:
        """What can be begun now, most decisive first: searches in place of their methods' runs."""
        searched = set()
        for item in self.items:
            if self._wanted.get(method := item.spec.method):
                yield from () if method in searched else self.searches([method])
                searched.add(method)
            elif item.spec not in self._failed and not self.is_done(item):
                if not self.run(item).has_diverged:
                    yield item

    def go_on(self, hours: float | None = None) -> int:
        """Train and score what is missing, most decisive first; the number of runs that were added.

        hours: no run is begun after so many. What is interrupted goes on from its last epoch.
        """
        end = time.monotonic() + 3600 * hours if hours is not None else float("inf")
        added, waiting, beside = 0, {}, at_a_time(self.profile)
        folder = cache(partial(_crops, self.profile))
        print(self.forecast(self.todo()), flush=True)
        with workers.pool(beside, begin, beside) as pool:
            while True:
                while len(waiting) < beside and time.monotonic() < end:
                    if (item := self._next(waiting.values())) is None:
                        break
                    folders = {name: folder(name) for name in (item.source, *dict(item.tests))}
                    waiting[pool.submit(_train_and_score, self.runs, item, folders)] = item
                if not waiting:
                    return added
                added += self._wait(waiting)

    def _next(self, begun: Iterable[Item]) -> Item | None:
        specs = {item.spec for item in begun}
        return next((item for item in self.ready() if item.spec not in specs), None)

    def _wait(self, waiting: dict[Future, Item]) -> int:
        """Wait for the next runs to end and say so; the number of those that left a record."""
        added = 0
        ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ended:
            item = waiting.pop(future)
            run = self.run(item)
            try:
                took = f"seed {item.spec.seed}: {future.result():.0f} s"
            except RunError as error:  # a rate too high, say; the other runs need not wait for it
                self._failed.add(item.spec)
                again = ""
                if isinstance(error, DivergedError):
                    again = f"; remove {run.diverged(error)} to try it again"
                print(f"{run.key} ended without a result: {error}{again}", flush=True)
            else:
                added += 1
                auc = f"validation AUC {run.history['val_auc'].iloc[-1]:.3f}"
                print(
                    f"{run.key}, {took}, {auc}{', never left chance' * run.at_chance}", flush=True
                )
            if item.tables == ("rates",):
                self._plan()
        return added


def at_a_time(profile: Profile) -> int:
    """Runs trained side by side: one per core, of which small networks leave a GPU idle as long as
    its memory holds them; one at full size."""
    if profile.pretrained:
        return 1
    if torch.cuda.is_available():
        return max(1, min(cores(), int(torch.cuda.mem_get_info()[0] / ON_GPU)))
    return cores()


def begin(beside: int) -> None:
    """A worker's start. All in float32: records of CPUs and GPUs stand beside each other, and such
    small networks gain nothing from less."""
    torch.set_num_threads(1)
    share_cores(beside)
    full_precision()


def _crops(profile: Profile, source: str) -> Path:
    """The folder of a crop store, made if it is not there."""
    dataset, setting = ("ffpp", source) if source == MECHANISM else (source, "")
    tree = data.tree(profile, dataset=dataset, setting=setting)
    return data.crops(profile, tree, dataset).folder.absolute()


def _train_and_score(runs: RunStore, item: Item, folders: Mapping[str, Path]) -> float:
    """In a process of its own: the run's record made whole; the seconds it took."""
    begun = time.perf_counter()
    store = CropStore(folders[item.source])
    run = runs.get(item.spec, store)
    run.scores(store, item.spec.compression, "val")
    for name, compression in item.tests:
        run.scores(CropStore(folders[name]), compression)
    return time.perf_counter() - begun
