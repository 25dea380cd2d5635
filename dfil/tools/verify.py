"""From the study's records to its tables, without training; and whether the published ones agree.

A record keeps the per-video scores of its run, so that tables, intervals and claims are computed
again in a minute on any machine, and its code's fingerprint, so that a record is named that was
made by other code of the model, the data or the loop than today's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfil import models, paper
from dfil.results import arrange, beyond, claims, tables
from dfil.results.compare import Results
from dfil.system.progress import progress_bar
from dfil.tools.study import MECHANISM, Study, feeding_beyond
from dfil.train import experiments, fingerprint
from dfil.train.experiments import CellResult
from dfil.train.runs import Run, RunSpec
from dfil.train.spec import people_met, select

NOT_YET = "not trained yet"
TITLE = "The mechanism: synthetic clips without single-frame traces"


class Records:
    """What a study's records hold. Of each cell those seeds count that have a record."""

    def __init__(self, study: Study):
        self.study, self.profile = study, study.profile
        self.store = study.expected
        self._known: dict[str, bool] = {}

    def tables(self) -> Iterator[tuple[str, paper.Table, Results]]:
        """Every table by the name of its file, with the results that feed its cells."""
        yield "temporal_only", *self.mechanism()
        for table in paper.TABLES.values():
            cells = table.extended(models.available()).cells()
            found = {(cell.row, cell.column): self._cell(cell) for cell in cells}
            found = {place: each for place, each in found.items() if each}
            yield table.key, table, found
            if table.key in ("table1", "table2"):
                by_auc = table.measured_by(paper.AUC)
                yield by_auc.key, by_auc, found
        for name, found in self._beyond().items():
            yield name, beyond.QUESTIONS[name].layout(found), found

    def _beyond(self) -> dict[str, Results]:
        """The results of the tables beyond the paper, by the tables' names."""
        of_study = self.profile, models.available(), self.store
        feeding: dict[tuple, list[RunSpec]] = {}
        for name, place, spec, videos in feeding_beyond(*of_study):
            feeding.setdefault((name, place, videos), []).append(spec)
        found: dict[str, Results] = {name: {} for name in beyond.QUESTIONS}
        for (name, place, videos), specs in feeding.items():
            if result := self._result(specs, "ffpp", videos.dataset, videos):
                found[name][place] = result
        return found

    def mechanism(self) -> tuple[paper.Table, Results]:
        """The table of the mechanism, and the results of its one column."""
        seeds, names = self.profile.seeds_for(MECHANISM), models.available()
        every = [experiments.temporal_only_specs(self.profile, names, seed) for seed in seeds]
        (column,) = columns = ["Deepfakes c23"]
        videos, found = paper.Videos("ffpp", "c23", ("Deepfakes",)), {}
        for row in every[0]:
            specs = [specs[row] for specs in every]
            if result := self._result(specs, MECHANISM, MECHANISM, videos):
                found[row, column] = result
        rows = [row for row, _ in found] or ["dil"]
        return arrange.grid(MECHANISM, TITLE, paper.AUC, rows, columns), found

    def _cell(self, cell: paper.Cell) -> CellResult | None:
        if cell.method not in models.available():
            return None
        specs = experiments.specs(cell, self.profile, self.store(cell.train.dataset))
        notes = experiments.remarks(cell, specs, self.profile)
        return self._result(specs, cell.train.dataset, cell.test.dataset, cell.test, notes)

    def _result(
        self, specs: Sequence[RunSpec], source: str, test: str, videos: paper.Videos, notes=()
    ) -> CellResult | None:
        runs = [self.study.runs.run(spec, self.store(source)) for spec in specs]
        store = self.store(test)
        there = [run for run in runs if self._is_there(run, store, videos.compression)]
        if not there:
            return None
        if source == test:
            tested = there[0].scores(store, videos.compression)
            learnt = there[0].record["made"].get("people", ())
            which = videos.compression, videos.manipulations
            notes = *notes, *people_met(learnt, select(tested, "test", *which)["person"])
        return experiments.result(there, store, videos, notes)

    def _is_there(self, run: Run, store, compression: str) -> bool:
        if run.key not in self._known:
            self._known[run.key] = run.is_trained
        return self._known[run.key] and run.scores_file(store, compression).is_file()


def write(study: Study, folder: Path) -> list[Path]:
    """Write to `folder`, as outputs/<profile>, the tables of which the records fill a cell, and
    the claims that they decide. Returns the files.

    folder/runs holds the records.
    """
    written, frames = [], {}
    for name, table, results in Records(study).tables():
        if not results:
            continue
        df = tables.build(table, results, NOT_YET, study.profile.note, synthetic=True)
        path = tables.save(df, folder / "tables", name, table.title)
        written += [path, path.with_suffix(".md")]
        frames[name] = tables.load_file(path)
    if frames:
        claims.write(folder, frames, looks=study.profile.looks)
        decided = beyond.write(folder, frames)
        written += [folder / "claims.csv", *(folder / f"beyond_{name}.csv" for name in decided)]
    return written


def differences(study: Study, published: Path) -> list[str]:
    """The files below `published`, as outputs/<profile>, that today's code does not make of the
    records.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="dfil-") as temporary:
        (Path(temporary) / "runs").symlink_to(study.runs.folder)
        (Path(temporary) / "located").symlink_to(published.absolute() / "located")
        of_records = write(study, Path(temporary))
        known = {made.relative_to(temporary) for made in of_records}
        for table in sorted({table for item in study.items for table in item.tables}):
            files = f"tables/{table}.csv", f"tables/{table}_auc.csv", f"beyond_{table}.csv"
            stray = (published / name for name in files if Path(name) not in known)
            without = "no record gives its numbers; `dfil study` trains what it lacks"
            found += [f"{there}: {without}" for there in stray if there.is_file()]
        for made in of_records:
            there = published / made.relative_to(temporary)
            if not there.is_file():
                found.append(f"{there}: not there; `dfil study --publish` writes it")
            elif there.read_bytes() != made.read_bytes():
                found.append(f"{there}: the records give other numbers or texts")
    return found


def stale(study: Study) -> list[str]:
    """The records that were made by other code than today's: "<key>: model, loop"."""
    found, now = [], {}
    runs = [run for item in study.items if (run := study.run(item)).is_trained]
    for run in progress_bar(runs, desc="fingerprints"):
        kind = (run.spec.method, run.spec.switches, run.spec.stride, run.spec.training)
        if kind not in now:
            now[kind] = run.fingerprint()
        if parts := fingerprint.changed(run.record["made"]["fingerprint"], now[kind]):
            found.append(f"{run.key}: made by other code of the {', '.join(parts)}")
    return found
