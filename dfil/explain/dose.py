"""How far a detector carries: AUC against the strength of the cue, its distance, noise and coding.

One built-in tree answers it. Its training people get one dose each, drawn at random, so that a
detector learns on a mixture; its test people are filmed once per dose, the same people every time.
A dose is what can be set of a clip:

- tau, the share of a fake's nuisances that is drawn anew in each frame: the cue itself;
- gap, of so many frames only one is kept, so that neighbours lie further apart in time;
- noise, a sensor's, in grey levels, the same in a real clip and its fakes;
- crf, H.264 with P and B frames at this rate factor; 0: each frame by itself at one quantiser.

How rough the footage is that results, is told by one number that real footage has as well: the
ratio of second to first differences of real clips (dfil.explain.inconsistency).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dfil.explain.inconsistency import difference_ratio
from dfil.explain.localisation import mean_over_videos
from dfil.faces.store import CropStore
from dfil.profiles import Profile
from dfil.results import figures, tables
from dfil.synthetic.camera import Camera
from dfil.synthetic.codec import encode
from dfil.synthetic.fields import generator
from dfil.synthetic.render import render_target
from dfil.synthetic.settings import RENDERER, SETTINGS
from dfil.synthetic.tree import MASK_CRF, claim, draw, write
from dfil.system import paths
from dfil.system.errors import DataError
from dfil.train import data
from dfil.train.runs import Run, RunSpec, RunStore

METHODS = ("dil", "resnet50", "i3d", "stil")
MODEL_FREE = "ratio of differences"
MANIPULATION, QUALITY, QP = "Deepfakes", "c23", 23
WINDOW = 16  # frames in which the ratio is taken, cut by one box
LEVELS = {"tau": (0.0, 0.1, 0.2, 0.4, 0.8), "gap": (1, 2, 4), "noise": (0, 4, 8, 16)}
LEVELS |= {"crf": (18, 28, 38)}
TITLES = {
    "tau": "share of the forgery drawn anew in each frame",
    "gap": "distance of neighbouring frames",
    "noise": "sensor noise, grey levels",
    "crf": "H.264, constant rate factor",
}
# The ratio of real people on video, measured once with `ratios`: the median of 24 freely licensed
# clips (signers and talking heads, 30 frames a second) in crops of 64 pixels, 10th to 90th
# percentile 1.08 to 1.30 (of 128 pixels: 1.25); and of the 52 real halves of modern face swaps in
# crops of 128 pixels. Neither clips nor crops are part of this project.
REAL_FOOTAGE = {"24 free clips": 1.22, "52 real halves of modern swaps": 1.37}
TITLE = "Dose and response: what a detector sees, in units of the cue"
RATIO_TITLE = "How rough the clips of each dose are: ratio of second to first differences"


@dataclass(frozen=True)
class Dose:
    """What is set of one clip and its fake; see above."""

    tau: float = 0.8
    gap: int = 1
    noise: float = 0
    crf: int = 0

    def coded(self, frames_thwc: np.ndarray) -> bytes:
        how = {"crf": self.crf} if self.crf else {"qp": QP}
        return encode(frames_thwc, **how)


@dataclass(frozen=True)
class _Job:
    root: Path
    number: int  # the name in the tree
    person: int
    other: int  # number of the person whose face the fake has, in the tree
    frames: int
    dose: Dose

    @property
    def files(self) -> dict[str, Path]:
        real = self.root / "original_sequences/youtube" / QUALITY / "videos"
        fake = self.root / "manipulated_sequences" / MANIPULATION
        both = f"{self.number:03d}_{self.other:03d}.mp4"
        return {
            "real": real / f"{self.number:03d}.mp4",
            "masks": fake / "masks/videos" / both,
            MANIPULATION: fake / QUALITY / "videos" / both,
        }


def doses() -> list[Dose]:
    """Every dose that is tested: each of LEVELS, the others at their defaults, none twice."""
    return list(dict.fromkeys(_dose(what, level) for what, row in LEVELS.items() for level in row))


def _dose(what: str, level: float) -> Dose:
    return replace(Dose(), **{what: level})


def plan(train: int, val: int, test: int) -> pd.DataFrame:
    """The tree's targets, a row each: number, split, person, and the fields of their dose.

    train, val: people who get one dose each; test: people who get every dose. Even numbers: the
    splits are pairs that lend each other their faces.
    """
    rows = []
    for number in range(train + val):
        rng = generator(0, number, "dose")
        tau, noise = round(float(rng.uniform(0.1, 1)), 3), float(rng.choice(LEVELS["noise"]))
        dose = Dose(tau, 1, noise, int(rng.choice((0, 0, 0, *LEVELS["crf"]))))
        rows.append((number, "train" if number < train else "val", number, *asdict(dose).values()))
    for i, dose in enumerate(doses()):
        for person in range(train + val, train + val + test):
            rows.append((person + i * test, "test", person, *asdict(dose).values()))
    return pd.DataFrame(rows, columns=["number", "split", "person", *asdict(Dose())])


def sizes(profile: Profile) -> dict[str, int]:
    """People of the tree by split, and frames of a clip: those of the mechanism's, half as many in
    each test. Raises DataError for a profile without built-in data."""
    if "temporal-only" not in profile.trees:
        raise DataError(f"the profile {profile.name} has no built-in data to vary: take demo")
    size = profile.trees["temporal-only"]
    people = {split: size[split] for split in ("train", "val")}
    return people | {"test": max(2, size["test"] // 4 * 2), "frames": size["frames"]}


def write_tree(root: str | Path, *, train: int, val: int, test: int, frames: int) -> Path:
    """Write the tree in FaceForensics++'s layout, with `plan` as doses.csv, and return it.

    Clips that are already there are kept.
    """
    root, planned = Path(root), plan(train, val, test)
    parameters = {"synthetic": True, "layout": "FaceForensics++", "renderer": RENDERER}
    parameters |= {"people": {"train": train, "val": val, "test": test}, "frames": frames}
    claim(root, parameters | {"doses": [asdict(dose) for dose in doses()]})
    write(root / "doses.csv", planned.to_csv(index=False).encode())
    for split, part in planned.groupby("split"):
        numbers = [f"{n:03d}" for n in part["number"]]
        pairs = [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        write(root / "splits" / f"{split}.json", json.dumps(pairs).encode())
    todo = [
        _Job(root, row.number, row.person, row.number ^ 1, frames, _of_row(row))
        for row in planned.itertuples()
    ]
    todo = [job for job in todo if not all(path.is_file() for path in job.files.values())]
    draw(todo, _write, root, unit="target", seconds=0.02 * frames, jobs=None, progress=True)
    return root


def _of_row(row) -> Dose:
    return Dose(**{name: getattr(row, name) for name in asdict(Dose())})


def _write(job: _Job) -> None:
    dose = job.dose
    setting = replace(SETTINGS["temporal-only"], tau=dose.tau)
    how = {"methods": [MANIPULATION], "frames": job.frames * dose.gap}
    for clip in render_target(job.person, job.person ^ 1, setting, **how):
        frames_thwc = clip.frames_thwc[:: dose.gap]
        if dose.noise:  # the same grain in the real clip and in its fake
            grain = generator(0, job.person, "noise of a dose")
            frames_thwc = Camera(noise=dose.noise).shoot(frames_thwc, grain)
        write(job.files[clip.method], dose.coded(frames_thwc))
        if clip.method != "real":
            masks = encode(clip.masks_thw[:: dose.gap], MASK_CRF, "veryfast")
            write(job.files["masks"], masks)


def benchmark(profile: Profile) -> tuple[CropStore, pd.DataFrame]:
    """The crops of the tree at a profile's sizes, made now if they are not there, and its plan."""
    tree = write_tree(paths.data() / "trees" / profile.name / "dose", **sizes(profile))
    return data.crops(profile, tree), pd.read_csv(tree / "doses.csv")


def trained(runs: RunStore, store: CropStore) -> dict[str, list[Run]]:
    """The detectors of the mixture by method, one per seed, trained as those of the mechanism but
    as long as at c40: weak doses among strong ones are learnt as slowly. DIL's validation AUC in
    demo, on seeds that no table uses (100, 101): .79 and .53 after 12 epochs of 72, .93 and .96 at
    the end."""
    videos = "ffpp", QUALITY, (MANIPULATION,)
    specs, seeds = {}, runs.profile.seeds
    for method in METHODS:
        where = runs.profile, "temporal-only", method, *videos
        specs[method] = [_longer(RunSpec.of_table(*where, seed=n), runs.profile) for n in seeds]
    runs.get_all([spec for row in specs.values() for spec in row], store)
    return {method: [runs.get(spec, store) for spec in row] for method, row in specs.items()}


def _longer(spec: RunSpec, profile: Profile) -> RunSpec:
    epochs = profile.heavy_epochs or spec.training.epochs
    return replace(spec, training=replace(spec.training, epochs=epochs))


def ratios(store: CropStore, size: int) -> pd.DataFrame:
    """The model-free statistic of every usable test video: its rows of the index with `score`.

    The median over windows of WINDOW frames of the ratio of second to first differences.
    """
    rows = store.index[(store.index["split"] == "test") & (store.index["status"] == "ok")]
    found = []
    for video_id in rows["video_id"]:
        crops = store.open(video_id)
        starts = [
            np.arange(first, first + count - WINDOW + 1, WINDOW // 2) for first, count in crops.runs
        ]
        windows = (crops.snippet(int(s), WINDOW, size) for s in np.concatenate(starts))
        found.append(np.median([difference_ratio(window_thwc) for window_thwc in windows]))
    return rows.assign(score=found).reset_index(drop=True)


def by_dose(scores: pd.DataFrame, planned: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Scores of test videos by the columns of the table, "tau 0.2" and so on."""
    numbers = scores["video_id"].str.rpartition("/")[2].str.partition("_")[0].astype(int)
    given = planned.set_index("number").loc[numbers]
    found = {}
    for what, level in [(what, level) for what, levels in LEVELS.items() for level in levels]:
        fields = pd.Series(asdict(_dose(what, level)))
        found[f"{what} {level:g}"] = scores[(given[fields.index] == fields).all(axis=1).to_numpy()]
    return found


def response(
    rows: Mapping[str, Sequence[Run]], store: CropStore, planned: pd.DataFrame, free: pd.DataFrame,
    note: str = "",
) -> pd.DataFrame:  # fmt: skip
    """AUC by dose in the usual columns: of each method's runs, and of `ratios` as `free`."""
    columns = by_dose(free, planned)
    results = {(MODEL_FREE, c): tables.CellResult([scores]) for c, scores in columns.items()}
    for method, found in rows.items():
        seeds = [by_dose(run.scores(store, QUALITY), planned) for run in found]
        keys = [run.key for run in found]
        for column in seeds[0]:
            results[method, column] = tables.CellResult([seed[column] for seed in seeds], keys)
    layout = tables.grid("dose", TITLE, "auc", [*rows, MODEL_FREE], list(columns))
    return tables.build(layout, results, "", note, synthetic=True)


def roughness(free: pd.DataFrame, planned: pd.DataFrame) -> pd.DataFrame:
    """The mean ratio of real and of forged clips by dose in the usual columns."""
    results, rows, columns = {}, ["real clips", "forged clips"], by_dose(free, planned)
    for column, part in columns.items():
        for label, row in enumerate(rows):
            mean = mean_over_videos(part.loc[part["label"] == label, "score"])
            results[row, column] = tables.Measured(mean)
    layout = tables.grid("dose-ratio", RATIO_TITLE, "ratio", rows, list(columns))
    return tables.build(layout, results, synthetic=True)


def figure(df: pd.DataFrame, rough: pd.DataFrame) -> Figure:
    """`response` against dose, a panel for each of LEVELS; under a dose the ratio of real clips.

    Where the ratios of a panel reach those of REAL_FOOTAGE, lines mark the place.
    """
    real = rough[rough["row"] == "real clips"].set_index("column")["ours"]
    panels, marks = {}, {}
    for what, levels in LEVELS.items():
        names = [f"{what} {level:g}" for level in levels]
        part = df[df["column"].isin(names)]
        dose = part["column"].str.partition(" ")[2].astype(float)
        panels[what] = part.assign(dose=dose, ratio=part["column"].map(real))
        reached = real[names].to_numpy()
        if what == "noise" and (np.diff(reached) > 0).all():
            inside = [r for r in REAL_FOOTAGE.values() if reached[0] <= r <= reached[-1]]
            places = np.interp(inside, reached, range(len(reached))).tolist()
            marks[what] = {f"{r:.2f}": place for r, place in zip(inside, places, strict=True)}
    return figures.dose_curves(panels, TITLES, marks, title=TITLE, synthetic=True)
