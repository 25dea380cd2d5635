"""What a run is: everything that names one training, but its data's contents and its profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from dfil.datasets import REAL
from dfil.datasets.ffpp import ACTORS, OF_ACTORS
from dfil.faces.settings import FEWER
from dfil.faces.store import CropStore
from dfil.paper import ALL_MANIPULATIONS, COMPRESSIONS
from dfil.profiles import Profile, Training
from dfil.system.errors import RunError
from dfil.train.self_blended import SelfBlended, with_fakes


@dataclass(frozen=True)
class RunSpec:
    """What is trained on what, and how.

    switches are the model's, as sorted pairs; stride is the distance of a snippet's frames (1:
    neighbours). manipulations are those of the fakes trained on, none named meaning all. box: one
    crop box per "snippet", or per "frame" (Crops.snippet). start: the run on the profile's built-in
    data with whose weights this one begins; None: ImageNet's or random ones, as the profile says.
    fakes: how pseudo-forgeries of the real videos are made, which take the place of all fakes in
    training and validation; None: the fakes are those of the dataset.
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
    fakes: SelfBlended | None = field(default=None, kw_only=True)

    @classmethod
    def of_table(
        cls, profile: Profile, table: str, method: str, dataset: str, compression: str = "",
        manipulations: tuple[str, ...] = (), **others,
    ) -> RunSpec:  # fmt: skip
        """A run as `profile` trains it for a table ("table1", ..., or "temporal-only")."""
        how = profile.training_for(method, table, compression)
        spec = cls(method, dataset, compression, manipulations, training=how, **others)
        if table != "table2" or not profile.within_starts:
            return spec
        how = profile.training_for(method, "table1")
        built_in = {"dataset": "ffpp", "compression": "c23", "manipulations": ALL_MANIPULATIONS}
        return replace(spec, start=replace(spec, **built_in, training=how))

    @classmethod
    def of_reals(
        cls,
        profile: Profile,
        method: str,
        dataset: str,
        compression: str = "",
        *,
        fakes: SelfBlended,
        table: str = "table1",
        **others,
    ) -> RunSpec:
        """A run on real videos and their pseudo-forgeries: trained as for a table, but never begun
        with weights that have seen forgeries, and with both of a pair in one batch. Its epochs are
        as many more as make up for having one fake of each real video, not one of each kind."""
        how = replace(profile.training_for(method, table, compression), paired=True)
        if dataset == "ffpp" and not profile.per_manipulation:
            how = replace(how, epochs=how.epochs * len(ALL_MANIPULATIONS))
        return cls(method, dataset, compression, (), training=how, fakes=fakes, **others)

    def long_enough(self, store: CropStore, updates: int) -> RunSpec:
        """With as many times the epochs, and the plateau's patience, as its training videos need
        for so many updates; with fewer it is a matter of luck whether anything is learnt."""
        how, videos = self.training, len(self.select(store, "train"))
        times = -(-updates // (how.epochs * -(-videos // how.batch)))
        if times <= 1:
            return self
        longer = replace(how, epochs=times * how.epochs, patience=times * how.patience)
        return replace(self, training=longer)

    @property
    def looked_at(self) -> tuple[str, ...]:
        """The manipulations whose videos it looks at; none named meaning all."""
        return (REAL,) if self.fakes else self.manipulations

    @property
    def videos(self) -> str:
        """Its data in words."""
        fakes = self.fakes.name if self.fakes else "+".join(self.manipulations) or "all fakes"
        return " ".join(filter(None, (self.dataset, self.compression, fakes)))

    def select(self, store: CropStore, split: str) -> pd.DataFrame:
        """The rows of the store's index that this run uses of one split: usable reals, its fakes.

        Raises RunError if they are not of both classes.
        """
        rows = self.listed(store, split)
        rows = rows[rows["status"] == "ok"]
        if self.fakes and rows.empty:
            raise RunError(
                f"{store.folder}: no usable real video in the {split} split; videos of at least two"
                " people are needed, one for validation; look at the reasons in its index"
            )
        rows = with_fakes(rows, self.fakes.name) if self.fakes else rows
        if rows["label"].nunique() < 2:
            raise RunError(
                f"{store.folder}: the {split} split has {len(rows)} usable videos of {self.videos},"
                " not both classes; look at the status and reason columns of its index"
            )
        return rows

    def listed(self, store: CropStore, split: str) -> pd.DataFrame:
        """The rows of one split that this run would use if all of them had crops."""
        rows = select(store.index, split, self.compression, self.manipulations)
        return rows[rows["label"] == 0] if self.fakes else rows

    def lacking(self, store: CropStore) -> str:
        """Which of its training and validation videos it does without, and why; empty if none."""
        lost = missing(pd.concat([self.listed(store, split) for split in ("train", "val")]))
        pairs = self.training.paired and not self.fakes
        alone = unpaired(self.select(store, "train")) if pairs else ""
        return ", ".join(filter(None, (lost, alone)))


def check_quality(name: str) -> None:
    """Raises RunError if no compression has this name."""
    if name not in (known := list(COMPRESSIONS.values())):
        raise RunError(f"there is no quality {name!r}; choose from {', '.join(known)}")


def select(
    index: pd.DataFrame, split: str, compression: str = "", manipulations: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Rows of a store's index, also those without crops: all reals and the fakes named, or all. The
    real videos of FaceForensics++'s actors go with their own forgeries alone."""
    rows = index[index["split"] == split]
    rows = rows[rows["compression"] == compression] if compression else rows
    if not manipulations:
        return rows
    reals, theirs = rows["label"] == 0, rows["video_id"].str.contains(OF_ACTORS)
    reals &= theirs if {*manipulations} == {ACTORS} else ~theirs | (ACTORS in manipulations)
    return rows[rows["manipulation"].isin(manipulations) | reals]


def known_people(
    spec: RunSpec, home: CropStore, tests: CropStore, which: tuple[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """What is to be said where a run has met test people in training: it may know their faces.
    Nothing where nobody is named, and of two datasets, whose people have other names."""
    if tests is not home or "person" not in home.index:
        return ()
    learnt = pd.concat([spec.listed(home, split) for split in ("train", "val")])
    return people_met(learnt["person"], select(home.index, "test", *which)["person"])


def people_met(learnt: Iterable[str], tested: Iterable[str]) -> tuple[str, ...]:
    """The same of the people of the training's videos and of the test's; "" names nobody."""
    tested = {*tested} - {""}
    known = len(tested & {*learnt})
    return (f"{known} of {len(tested)} test people are in training too",) * bool(known)


def what_crops(meta: Mapping) -> tuple[str, ...]:
    """What is to be said beside numbers from a store with this meta: which release where a name
    stands for two, and that frames were left out, so that nothing lies evenly over a video."""
    kept = meta.get("stretches")
    return ("the full DFDC, not the preview",) * (meta["dataset"] == "dfdc") + (
        f"of each video {kept[0]} stretches of {kept[1]} frames" if kept else "",
    )


def missing(rows: pd.DataFrame) -> str:
    """How many of an index's rows have no crops, by split and manipulation, and why.

    "2 of 48 train videos of Deepfakes missing (1 no face, 1 unreadable), ..."; and how many have
    fewer stretches than their real. Empty if all have all.
    """
    said = []
    for (split, manipulation), group in rows.groupby(["split", "manipulation"], sort=False):
        lost = group.loc[group["status"] != "ok", "status"]
        if len(lost):
            why = ", ".join(f"{n} {status}" for status, n in lost.value_counts().items())
            which = f"{len(lost)} of {len(group)} {split} videos of {manipulation}"
            said.append(f"{which} missing ({why})")
        reasons = group["reason"] if "reason" in group else pd.Series(dtype=str)
        if short := int(reasons.str.contains(FEWER, regex=False).sum()):
            which = f"{short} of {len(group)} {split} videos of {manipulation}"
            said.append(f"{which} are shorter than their real and have fewer stretches")
    return ", ".join(said)


def unpaired(rows: pd.DataFrame) -> str:
    """How many real videos no pair of `snippets.batches` shows, as nobody forged them; empty where
    all are shown, or may be, because a fake without its real is paired with any."""
    known = rows["target"].where(rows["target"] != "", rows["video_id"])
    which = known + " " + rows["compression"]
    real, fake = which[rows["label"] == 0], which[rows["label"] == 1]
    alone = ~real.isin(fake)
    if not alone.any() or not fake.isin(real).all():
        return ""
    return f"{alone.sum()} of {len(real)} real training videos have no fake and are in no pair"
