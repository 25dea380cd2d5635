"""What the notebooks share: the data they need, training for a table, the table and its checks.

A notebook begins with `lesson = Notebook(profile, {"ffpp": root})`, which stops it with a sentence
where the data are not there, goes on with `trained = lesson.train("table1", methods)` and
`df = lesson.save_trained(trained)`, and ends with `lesson.check_table(df, "table1")`.
"""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from dfil import paper, profiles
from dfil.faces.store import CropStore
from dfil.models import available
from dfil.profiles import Profile, Training
from dfil.results import beyond, claims, compare, figures, located, tables
from dfil.synthetic import DATASET_OF
from dfil.system import paths
from dfil.system.errors import DataError
from dfil.system.locks import owner
from dfil.tools import environment
from dfil.tools.plan import expected
from dfil.tools.publish import refresh
from dfil.train import data, experiments, rates
from dfil.train.runs import RunStore
from dfil.train.spec import check_quality

Results = dict[tuple[str, str], tables.CellResult]  # by (row, column)
BESIDE = ["row", "column", "paper", "ours", "ci_low", "ci_high", "n_videos", "seeds", "note"]


class Absent(DataError):
    """A notebook's data are not there; shown in JupyterLab as one sentence, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Nothing to run here: {self}."]


def lacks(profile: Profile, needs: str, root: str = "") -> str:
    """Why a notebook cannot run, as a sentence; empty if it can.

    needs: a dataset, or a built-in tree by its setting.
    """
    if needs not in DATASET_OF:
        return data.absent(profile, root, needs)
    if needs in profile.trees:
        return ""
    return f"the profile {profile.name} has no synthetic data; take --profile demo"


def save_empty_table(profile: Profile, name: str, column: str, reason: str) -> None:
    """Write a table of the paper, or a column of it, with the reason why it has no values.

    A cell that has a value keeps it.
    """
    table = paper.TABLES[name]
    df = tables.build(table, {}, reason, synthetic=False)
    columns = [column] if column else []
    tables.save(df, paths.outputs(profile.name) / "tables", name, table.title, columns=columns)


@dataclass(frozen=True)
class Trained:
    """A table's results by (row, column), and the reasons of its empty cells."""

    table: paper.Table
    results: Results
    reasons: dict[tuple[str, str], str]

    def reason(self, cell: paper.Cell) -> str:
        return self.reasons[cell.row, cell.column]

    @property
    def main(self) -> str:
        """The row that the others are compared with: DIL's, or the first where it was left out.

        Raises Absent where none of the methods asked for has a row here.
        """
        rows = list(dict.fromkeys(row for row, _ in self.results))
        if not rows:
            raise Absent(f"none of the methods asked for was run for {self.table.title}")
        return "dil" if "dil" in rows else rows[0]

    @property
    def keys(self) -> list[str]:
        return sorted({key for result in self.results.values() for key in result.runs})

    def scores(self, row: str = "") -> pd.DataFrame:
        """Per-video scores of the first seed; `row` names the row, or of one row the test sets."""
        wanted = {}
        for (name, column), result in self.results.items():
            if row in ("", name):
                wanted[f"{name}: {column}" if row else name] = result.scores[0]
        return pd.concat([df.assign(row=name) for name, df in wanted.items()])


class Notebook:
    """One notebook at work on the data of a profile, writing to that profile's folder."""

    def __init__(self, profile: str, roots: Mapping[str, str] | None = None, seeds=()):
        """profile: empty means $DFIL_PROFILE, else smoke. roots: datasets by name, each with the
        user's tree or "" for the profile's own; without the first the notebook cannot run. A
        built-in tree can be named by its setting.

        Raises Absent where the first dataset is not there, RunError for an unknown profile.
        """
        self.profile = profiles.get(profile or os.environ.get("DFIL_PROFILE") or "smoke", seeds)
        refresh(self.profile.name)
        self.out = paths.outputs(self.profile.name)
        self.runs = RunStore(paths.runs(self.profile.name), self.profile)
        if self.profile.search_rates:  # so that the study's runs are found
            self.profile = rates.applied(self.runs, expected(self.profile, "ffpp"), available())
            self.runs = RunStore(self.runs.folder, self.profile)
        self.roots = dict(roots or {})
        for needed, root in list(self.roots.items())[:1]:
            if reason := lacks(self.profile, needed, root):
                raise Absent(reason)
        print(f"Profile {self.profile.name}. {self.profile.what}")

    def need(self, found, reason: str = ""):
        """`found`, or Absent if it is empty or itself the reason, as text, why there is nothing."""
        if isinstance(found, str) or not found:
            raise Absent(reason or found)
        return found

    def tree(self, dataset: str) -> Path:
        return data.tree(self.profile, self.roots[dataset], dataset)

    @cached_property
    def stores(self) -> dict[str, CropStore]:
        """The crop stores by dataset, made now if they are not there yet; absent ones are said."""
        (first, *_) = self.roots
        if first in DATASET_OF:
            tree = data.tree(self.profile, setting=first)
            return {DATASET_OF[first]: data.crops(self.profile, tree)}
        return data.stores(self.profile, self.roots, self.roots)

    @property
    def store(self) -> CropStore:
        """The first store, which the notebook cannot do without."""
        return next(iter(self.stores.values()))

    @property
    def synthetic(self) -> bool:
        return any(store.meta["synthetic"] for store in self.stores.values())

    @property
    def kind(self) -> str:
        return "built-in synthetic clips" if self.synthetic else "real videos"

    def rows(self, query: str = "") -> pd.DataFrame:
        """The index of the first store, a row per video, or what a pandas query leaves of it."""
        return self.store.index.query(query) if query else self.store.index

    def count_videos(self, *by: str, query: str = "") -> pd.DataFrame:
        """How many videos the first store has by split, and by the named columns of its index."""
        print(self.kind, "in", self.store.folder.name)
        counted = self.rows(query).groupby([*by, "split", "status"]).size()
        return counted.unstack("split", fill_value=0)

    def first_snippets(self, title: str, each: int = 1, query: str = "index >= 0") -> Figure:
        """The first snippet of some test videos of every kind, as a model sees it."""
        rows = self.rows("status == 'ok' and split == 'test'").query(query)
        kinds = rows.sort_values("label", kind="stable").groupby("manipulation", sort=False)
        strips = {}
        for kind, videos in kinds:
            for number, video in enumerate(videos["video_id"].head(each), 1):
                crops = self.store.open(video)
                snippet = crops.snippet(crops.longest[0], self.profile.frames, self.profile.size)
                strips[f"{kind} {number}" if each > 1 else kind] = snippet
        heads = [[f"frame {t}" for t in range(self.profile.frames)]]
        heads += [[""] * self.profile.frames] * (len(strips) - 1)
        height = min(0.8, 5 / len(strips) - 0.2)  # inches: no taller than a screen
        return figures.strips(strips, heads, title=title, height=height, synthetic=self.synthetic)

    def settings(self, table: str) -> pd.DataFrame:
        """How a table's models are trained: the main settings, and what is not as in the paper."""
        training = asdict(self.profile.training_for("dil", table))
        usual, main = asdict(Training()), ("epochs", "lr", "batch", "schedule", "keep")
        shown = {k: v for k, v in training.items() if k in main or v != usual[k]}
        backbone = ", ".join(f"{name} {value}" for name, value in self.profile.backbone.items())
        shown |= {"size": self.profile.size, "backbone": backbone or "ResNet-50"}
        shown |= {f"lr of {method}": rate for method, rate in self.profile.rates.items()}
        return pd.Series(shown, name="value").astype(str).to_frame()

    def train(
        self, name: str, methods: Sequence[str] = ("dil",), qualities: Sequence[str] = ()
    ) -> Trained:
        """What a table of the paper needs: models trained or found again, test videos scored.

        qualities: the only compressions to train on, default all; of Table 1 the profile's, where
        the clips are built in.
        """
        table = paper.TABLES[name].extended(methods)  # by rows for methods of one's own
        qualities = [qualities] if isinstance(qualities, str) and qualities else qualities
        for quality in qualities:
            check_quality(quality)
        if name == "table1" and self.synthetic:
            qualities = qualities or self.profile.qualities
        results, reasons = experiments.fill(table, self.runs, self.stores, methods, qualities)
        results = results if self.synthetic else with_counts(table, results)
        trained = Trained(table, results, reasons)
        print(f"{len(results)} cells of {table.title} from {len(trained.keys)} trained models")
        return trained

    def histories(self, names: Mapping[str, str], title: str) -> Figure:
        """Loss and validation AUC by epoch. names: of the curves, by the run's key."""
        curves = {
            name: pd.read_csv(self.runs.folder / key / "history.csv") for key, name in names.items()
        }
        return figures.histories(curves, title=title, synthetic=self.synthetic)

    def save_table(
        self,
        table: paper.Table,
        results: Mapping,
        missing: str | Callable[[paper.Cell], str] = "",
        *,
        name: str = "",
        note: str = "",
        keys: Mapping | None = None,
        drop_empty: bool = False,
    ) -> pd.DataFrame:
        """Write `tables/<name>.csv` and `.md` and return the table in long form.

        missing: the reason of an empty cell, or what gives it for a cell. name: default the table's
        key. keys: of the runs by (row, column); cells that an earlier call filled from these runs
        stay. drop_empty: leave out cells without a value.
        """
        name, folder = name or table.key, self.out / "tables"
        df = self._build(table, results, missing, note)
        with owner(folder, f"the table {name}"):  # two notebooks may fill up one table
            df = tables.with_earlier(df, folder / f"{name}.csv", keys or {})
            df = df.dropna(subset="ours") if drop_empty else df
            tables.save(df, folder, name, table.title)
        return df

    def save_trained(self, trained: Trained, columns: Sequence[str] = ()) -> pd.DataFrame:
        """`save_table` of a table of the paper; what earlier calls found with the same data stays.

        columns: the only ones to write and return, where several notebooks share a table.
        """
        table, folder = trained.table, self.out / "tables"

        def missing(cell: paper.Cell) -> str:
            here = not columns or cell.column in columns
            return trained.reason(cell) if here else "the notebook of this column has not run yet"

        df = self._build(table, trained.results, missing)
        keys = experiments.keys(table, self.runs, self.stores)
        with owner(folder, f"the table {table.key}"):  # two notebooks may fill up one table
            df = tables.with_earlier(df, folder / f"{table.key}.csv", keys)
            tables.save(df, folder, table.key, table.title, columns=columns)
            if table.key in ("table1", "table2"):
                by_auc = table.measured_by(paper.AUC)
                beside = self._build(by_auc, trained.results, missing)
                beside = tables.with_earlier(beside, folder / f"{by_auc.key}.csv", keys)
                tables.save(beside, folder, by_auc.key, by_auc.title, columns=columns)
        return df[df["column"].isin(columns)] if columns else df

    def _build(self, table: paper.Table, results: Mapping, missing, note: str = "") -> pd.DataFrame:
        texts = (note, self.profile.note)
        return tables.build(table, results, missing, *texts, synthetic=self.synthetic)

    def save_figure(self, figure: Figure, name: str, title: str, what: str) -> Figure:
        """Write `figures/<name>.png` and `.pdf` with title and description; returns the figure."""
        figures.save(figure, self.out / "figures", name, title, what, self.synthetic)
        return figure

    def save_located(
        self,
        measured: pd.DataFrame,
        name: str,
        column: str = "column",
        value: str = "value",
        whole: bool = True,
    ) -> pd.DataFrame:
        """Keep what the claims about some maps are decided from: those that they name, per video.

        measured: a line per video and map. column, value: what its columns are called. whole:
        whether these are the videos that the claims are about; else what they rest on stays.
        """
        index = pd.concat([store.index[["video_id", "person"]] for store in self.stores.values()])
        asked = [*claims.CLAIMS, *(c for q in beyond.QUESTIONS.values() for c in q.claims)]
        named = {
            row for claim in asked if claim.table == name for row in (claim.better, claim.than)
        }
        df = measured[measured["row"].isin(named)]
        df = df.rename(columns={column: "column", value: "value"}).merge(index, on="video_id")
        if whole:
            located.save(df, self.out, name, self.synthetic)
        else:
            print("The claims keep what they rest on: all videos, at c23.")
        return df.groupby(["row", "column"])["value"].agg(["mean", "count"]).round(3)

    def seeds(self, results: Results, metric: str = paper.ACCURACY) -> pd.DataFrame:
        """How far the seeds lie apart, a line per row; for a single seed what to do."""
        spread = compare.seed_spread(results, metric).round(3)
        said = f"only {self.profile.seeds[0]}; more by dfil reproduce --seeds 0 1 2"
        return spread if len(spread) else pd.DataFrame({"seeds": [said]})

    def check_table(self, df: pd.DataFrame, name: str) -> None:
        """Assert what every saved table must hold."""
        filled = df[df["ours"].notna()]
        assert all((self.out / "tables" / f"{name}.{kind}").is_file() for kind in ("csv", "md"))
        assert filled["ours"].between(filled["ci_low"], filled["ci_high"]).all()
        assert (df["note"] != "").all(), "an empty cell without a reason"
        assert (filled["n_videos"] > 0).all(), "a number without videos"
        assert not self.synthetic or filled["note"].str.contains("synthetic").all()

    def stamp(self) -> str:
        """Versions and commit, the last line of every notebook."""
        return textwrap.fill(environment.stamp(), 80)


def with_counts(table: paper.Table, results: Results) -> Results:
    """Results that say how many test videos they have, where the paper's column has others: another
    release, or a part of a dataset, is no reproduction of its number."""
    paper_has = {column.key: column.n_videos for column in table.columns}
    said = {}
    for (row, column), result in results.items():
        n, theirs = len(result.scores[0]), paper_has[column]
        note = (f"{n} test videos, the paper's column has {theirs}",) * (theirs not in (None, n))
        said[row, column] = replace(result, notes=(*result.notes, *note))
    return said


def source(function: Callable) -> Markdown:
    """The text of a function of the package, to stand beside its formula."""
    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(function))}```")
