"""One number without a table: accuracy and AUC of a trained model on a dataset's videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from dfil import datasets, models, profiles
from dfil.datasets import REAL
from dfil.models.saved import wrong_sampling
from dfil.paper import ALL_MANIPULATIONS
from dfil.results import metrics
from dfil.results.metrics import Estimate
from dfil.results.scores import ranked
from dfil.system.errors import DataError, RunError
from dfil.tools import plan
from dfil.tools.found import Found
from dfil.train import data
from dfil.train.origin import refuse_other_code
from dfil.train.scoring import score
from dfil.train.snippets import SnippetDataset
from dfil.train.spec import select


@dataclass(frozen=True)
class Videos:
    """Which videos are to be judged; an empty manipulations stands for all, as does compression."""

    dataset: str
    compression: str = ""
    manipulations: tuple[str, ...] = ()
    split: str = "test"

    def __str__(self) -> str:
        every = set(self.manipulations) in (set(), set(ALL_MANIPULATIONS))
        fakes = "all forgeries" if every else "+".join(self.manipulations)
        return " ".join(filter(None, (self.dataset, self.compression, fakes)))


@dataclass(frozen=True)
class Evaluation:
    """What came out. people: how many, None where it is not known whom the videos show. missing:
    videos of the selection that could not be judged, by reason. learnt_synthetic: whether the model
    has seen built-in clips only; synthetic: whether the videos are such."""

    model: str
    videos: Videos
    accuracy: Estimate
    auc: Estimate
    people: int | None
    missing: dict[str, int]
    learnt_synthetic: bool
    synthetic: bool

    def as_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        """Lines for the terminal."""
        n, fakes, lost = self.auc.n, self.auc.n_positive, sum(self.missing.values())
        whom = "intervals by video" if self.people is None else f"{self.people} people or pairs"
        why = ", ".join(f"{count} {reason}" for reason, count in self.missing.items())
        covered = f"{lost} of {n + lost} are missing ({why})" if lost else "none is missing"
        kind = "synthetic " * self.synthetic
        lines = [
            f"{self.model} on {self.videos}, {kind}{self.videos.split} videos",
            f"  accuracy at 0.5  {_text(self.accuracy)}",
            f"  AUC              {_text(self.auc)}",
            f"  {n} videos, {fakes} forged; {whom}; {covered}; 95 % intervals",
        ]
        if self.learnt_synthetic and not self.synthetic:
            lines.append("  These weights have seen synthetic clips only.")
        if self.videos.split != "test":
            lines.append(f"  The {self.videos.split} videos took part in making the model.")
        return "\n".join(lines)


def of_run(run: Found, videos: Videos, root: Path | None = None, profile: str = "") -> Evaluation:
    """A run on videos of a real tree (root) or of a profile's data, by default of its own; kept
    scores are used again. What has learnt from real videos is judged on real ones, unless a profile
    is named.

    Raises RunError where the videos are to be scored and the weights are not there, or a selection
    has not both classes; DataError where the data are not there.
    """
    refuse_other_code(run.run)
    made, root = run.run, root or _real(run.synthetic or bool(profile), videos.dataset)
    if profile:
        of = profiles.get(profile)
        data_of = {"name": of.name, "trees": of.trees, "validation": of.validation}
        made = replace(made, profile=replace(made.profile, **data_of))
    setting = run.setting if videos.dataset == made.spec.dataset else ""
    store = _planned(made.profile, videos.dataset, setting, root)
    if not store or not made.scores_file(store, videos.compression, videos.split).is_file():
        if not run.has_weights:
            raise RunError(
                f"{run.folder}: only the run's record is here, with no scores of these videos; take"
                " the weights from where it was trained, or remove the folder and train it again"
            )
        store = _store(made.profile, videos.dataset, setting, root)
    scores = made.scores(store, videos.compression, videos.split)
    return measured(run.folder.name, scores, store, videos, run.synthetic)


def of_weights(
    where: str | Path, videos: Videos, root: Path | None = None, profile: str = ""
) -> Evaluation:
    """Weights of one's own, as dfil.models.load_weights takes them, on a real tree or on a
    profile's data, by default of the one they were trained in. Raises as `of_run`."""
    model, config = models.load_weights(where)
    looks = config.get("sampling")
    if wrong := wrong_sampling(looks if isinstance(looks, dict) else {}):
        said = ", ".join(wrong)
        raise RunError(f"{where}: what its settings say of {said} cannot be used; export again")
    mine, synthetic = _told(where, config), bool(config.get("synthetic"))
    root = root or _real(synthetic or bool(profile), videos.dataset)
    usual = mine.get("profile") or ("demo" if synthetic else "paper")
    scale = replace(profiles.get(profile or usual), size=looks["size"])
    setting = mine.get("setting", "") if mine.get("dataset") == videos.dataset else ""
    store = _store(scale, videos.dataset, setting, root)
    rows = _rows(store.index, videos)
    clips = SnippetDataset(
        store,
        rows[rows["status"] == "ok"],
        snippets=looks["snippets"],
        frames=looks["frames"],
        size=looks["size"],
        stride=looks["stride"],
        box=looks.get("box", "snippet"),
        all_tracks=store.meta["tracks"] == "all",
    )
    scores = score(model, clips, views=looks.get("views", 1))
    return measured(str(where), scores, store, videos, synthetic)


def measured(
    model: str, scores: pd.DataFrame, store, videos: Videos, learnt_synthetic: bool
) -> Evaluation:
    """The numbers behind per-video scores, and what of the selection they do not cover.

    store: whose index (a row per video, with status) names all that should be there.
    """
    table = select(scores, videos.split, videos.compression, videos.manipulations)
    listed = _rows(store.index, videos)
    lost = listed.loc[listed["status"] != "ok", "status"].value_counts().to_dict()
    if (others := len(listed) - len(table) - sum(lost.values())) > 0:
        lost["without a score"] = others
    if table["label"].nunique() < 2:
        raise DataError(
            f"{store.folder}: {len(table)} usable {videos.split} videos of {videos}, not of both"
            " classes; `dfil data check` counts what is there"
        )
    people = metrics.people(table)
    videos = replace(videos, dataset=store.meta.get("dataset", videos.dataset))
    labels, ranks = table["label"], ranked(table)
    return Evaluation(
        model,
        videos,
        metrics.accuracy(labels, ranks, people),
        metrics.auc(labels, ranks, people),
        None if people is None else len(set(people)),
        lost,
        learnt_synthetic,
        bool(store.meta["synthetic"]),
    )


def chosen(
    dataset: str | None,
    compression: str | None,
    manipulations: Sequence[str] | None,
    split: str,
    like: Videos,
) -> Videos:
    """A selection as it was typed; what was not typed is as in `like`, on the same dataset."""
    same = like if dataset in (None, like.dataset) else Videos(dataset)
    order = {name: number for number, name in enumerate(ALL_MANIPULATIONS)}
    fakes = sorted(manipulations or (), key=lambda name: order.get(name, len(order)))
    return Videos(
        same.dataset, compression or same.compression, tuple(fakes) or same.manipulations, split
    )


def learnt_from(where: str | Path) -> Videos:
    """The kind of videos that weights of one's own were trained on, as far as they say so."""
    told = _told(where, models.read(where)[1])
    return Videos(
        told.get("dataset", "ffpp"),
        told.get("compression", ""),
        tuple(told.get("manipulations", ())),
    )


def _told(where: str | Path, config: dict) -> dict:
    """What weights say of the data they have learnt from. Raises RunError for what is no words."""
    told = config.get("data", {})
    if isinstance(told, dict):
        texts = [told.get(n, "") for n in ("dataset", "compression", "profile", "setting")]
        fakes = told.get("manipulations", [])
        if isinstance(fakes, list) and all(isinstance(text, str) for text in [*texts, *fakes]):
            return told
    raise RunError(f"{where}: what its config.json says of its data cannot be read; export again")


def _real(built_in: bool, dataset: str) -> Path | None:
    """The tree that the settings name for real videos; None where built-in ones are meant.

    Raises DataError if they name none.
    """
    if built_in:
        return None
    if found := data.real(dataset):
        return found
    raise DataError(
        f"this model has learnt from real videos: {data.how_to_name(dataset)}; or name by --profile"
        " whose built-in clips are meant"
    )


def _planned(profile, dataset: str, setting: str, root: Path | None):
    """What a built-in store will hold, while nothing is made for it; None for real data."""
    built_in = (setting or datasets.get(dataset).setting) in profile.trees
    return None if root or not built_in else plan.expected(profile, dataset, setting)


def _store(profile, dataset: str, setting: str, root: Path | None):
    root = Path(root).expanduser().absolute() if root else ""
    return data.crops(profile, data.tree(profile, root, dataset, setting), dataset)


def _rows(index: pd.DataFrame, videos: Videos) -> pd.DataFrame:
    """Of an index, those of the selection. Raises DataError if it has none of a kind asked for."""
    rows = select(index, videos.split, videos.compression, videos.manipulations)
    if len(several := sorted(rows["compression"].unique())) > 1:
        raise DataError(f"the tree has videos in {', '.join(several)}; name one by --compression")
    for kind in (REAL, *videos.manipulations):
        if not (rows["manipulation"] == kind).any():
            there = " ".join(filter(None, (videos.compression, kind)))
            raise DataError(f"the tree has no {there} videos in its {videos.split} split")
    return rows


def _text(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
