"""Whether a map points at the forgery: in space (Figures 3 and 4) and in time (Figure 5).

Space: against the forged mask, two measures per video over its U·T frames that show it.
- Pointing game (Zhang et al., IJCV 2018): the share of frames whose highest pixel lies inside the
  mask. Of several equally high ones (enlarged maps have plateaus at their borders) the share inside
  counts. A map that is zero everywhere points nowhere and misses.
- Energy in the mask (Wang et al., CVPR Workshops 2020): the sum of the map inside the masks divided
  by its sum over all those frames together, so that frames with stronger activation weigh more.
Both favour large masks and centred faces, whatever the model does. So they are read beside maps
that know nothing: one that is the same everywhere (both measures are then the mask's share of the
crop), one that is high in the middle, and differences of pixels.

Time: per video the AUC of the frames' values, forged frames against the others of the same video,
averaged over videos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from dfil import paper
from dfil.datasets import is_synthetic
from dfil.datasets.truth import forged_frames
from dfil.explain.activation import batch
from dfil.explain.frame_level import auc_over_videos
from dfil.faces.store import CropStore
from dfil.models import Detector
from dfil.results import located, metrics, tables
from dfil.synthetic.partial import SPANS, write_partial
from dfil.system import paths
from dfil.system.errors import DataError, RunError
from dfil.system.progress import progress_bar
from dfil.train import data
from dfil.train.experiments import specs
from dfil.train.runs import Run, RunStore
from dfil.train.snippets import snippet_starts
from dfil.train.spec import check_quality

# x (U, T, 3, H, W) uint8 -> maps by name, each (U, T, H, W) >= 0
Explainer = Callable[[torch.Tensor], Mapping[str, np.ndarray]]
METRIC = located.METRIC
NO_MASK = "no mask"
MEASURES = {"pointing": "pointing game", "energy": "energy in the mask"}


@dataclass(frozen=True)
class Video:
    """One test video as a detector sees it.

    x: (U, T, 3, H, W) uint8. numbers: native frame numbers (U, T).
    masks: bool (U, T, H, W), True where forged; None where the tree has no masks.
    """

    video_id: str
    manipulation: str
    x: torch.Tensor
    numbers: np.ndarray
    masks: np.ndarray | None

    @property
    def clip_uthwc(self) -> np.ndarray:
        return self.x.permute(0, 1, 3, 4, 2).numpy()


def dil_runs(
    runs: RunStore, store: CropStore, compression: str = "c23", method: str = "dil"
) -> dict[str, Run]:
    """The runs behind a method's row of Table 1 at one quality, by manipulation (first seed).

    Trained now if they are not there. Manipulations without test videos in the store are left out;
    RunError where all are.
    """
    found = {}
    check_quality(compression)
    for cell in paper.TABLES["table1"].cells():
        (kind,) = cell.test.manipulations
        asked = (cell.row, cell.test.compression) == (method, compression)
        if asked and fakes(store, compression, kind):
            found[kind] = runs.get(specs(cell, runs.profile, store)[0], store)
    if not found:
        raise RunError(f"no test video of {compression} is forged and usable in {store.folder}")
    return found


def load(run: Run, store: CropStore, video_id: str, masks: bool = True) -> Video:
    """A video at the snippets that `run` tests on, with its forged region if the tree has it.
    Raises DataError for an id that the store lacks."""
    rows, shape = store.index[store.index["video_id"] == video_id], run.sampling
    if rows.empty:
        where = f"the crop store {store.folder}; see video_id in its index"
        raise DataError(f"no video {video_id!r} in {where}")
    x = run.dataset(store, rows, shape.test)[0][0]
    starts = snippet_starts(store.open(video_id).runs, shape.test, shape.frames, shape.stride)
    numbers = starts[:, None] + shape.stride * np.arange(shape.frames)
    row, size = rows.iloc[0], x.shape[-1]
    found = None
    if masks and row["masks"]:
        found = store.mask_snippets(video_id, starts, shape.frames, size, stride=shape.stride)
    return Video(video_id, row["manipulation"], x, numbers, found)


def videos(
    run: Run, store: CropStore, manipulation: str, compression: str = "c23", most: int = 0
) -> Iterator[Video]:
    """`load` of every one of `fakes`, one after the other."""
    for video_id in fakes(store, compression, manipulation, most):
        yield load(run, store, video_id)


def fakes(store: CropStore, compression: str, manipulation: str, most: int = 0) -> list[str]:
    """The ids of the test fakes of one kind, sorted; most > 0: only the first so many. Raises
    RunError for fewer than none."""
    if most < 0:
        raise RunError(f"{most} videos at most: 0 stands for all of them, or say how many")
    rows = store.index.query(
        "status == 'ok' and split == 'test' and label == 1"
        " and compression == @compression and manipulation == @manipulation"
    )
    ids = sorted(rows["video_id"])
    return ids[:most] if most else ids


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> float:
    """Share of frames whose highest value lies inside the mask; maps, masks: (..., H, W).

    Ties count in part, frames with an empty mask not. Raises DataError if every mask is empty.
    """
    maps_nhw, masks_nhw = _forged_frames(maps, masks)
    highest_n = maps_nhw.max((1, 2), keepdims=True)
    peaks_nhw = (maps_nhw == highest_n) & (highest_n > 0)
    hits_n = (peaks_nhw & masks_nhw).sum((1, 2)) / np.maximum(peaks_nhw.sum((1, 2)), 1)
    return float(hits_n.mean())


def energy_inside(maps: np.ndarray, masks: np.ndarray) -> float:
    """Sum of the maps inside the masks divided by their sum, 0 for maps that are zero; maps >= 0.

    Frames with an empty mask are left out. Raises DataError if every mask is empty or a map has
    negative values.
    """
    maps_nhw, masks_nhw = _forged_frames(maps, masks)
    if maps_nhw.min() < 0:
        what_now = "cut them off or shift them first"
        raise DataError(f"energy_inside takes maps without negative values; {what_now}")
    total = maps_nhw.sum()
    return float(maps_nhw[masks_nhw].sum() / total) if total > 0 else 0.0


def _forged_frames(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if maps.shape != masks.shape:
        raise DataError(f"maps of shape {maps.shape} do not go with masks of shape {masks.shape}")
    size = maps.shape[-2:]
    maps_nhw, masks_nhw = maps.reshape(-1, *size), masks.reshape(-1, *size).astype(bool)
    forged = masks_nhw.any((1, 2))
    if not forged.any():
        nothing = "no frame has a forged pixel, so there is nothing to point at"
        raise DataError(f"{nothing}; take frames of a fake")
    return maps_nhw[forged], masks_nhw[forged]


def priors(x: torch.Tensor) -> dict[str, np.ndarray]:
    """Maps that know nothing of the video, the same in every frame.

    "whole crop" is the same everywhere: both its measures are the mask's share of the crop. "centre
    prior" is a Gaussian in the middle with a standard deviation of a quarter of the crop.
    """
    u, t, _, h, w = x.shape
    y, z = (np.arange(h) + 0.5) / h - 0.5, (np.arange(w) + 0.5) / w - 0.5
    centre_hw = np.exp(-(y[:, None] ** 2 + z[None] ** 2) / (2 * 0.25**2))
    maps = {"whole crop": np.ones((h, w)), "centre prior": centre_hw}
    return {name: np.broadcast_to(map_hw, (u, t, h, w)) for name, map_hw in maps.items()}


def peak_moves(maps: np.ndarray, least: float = 0.1) -> float:
    """Share of the steps inside snippets in which the highest point of maps (U, T, H, W) moves by
    more than `least` of the longer side."""
    u, t, h, w = maps.shape
    peaks = np.stack(np.unravel_index(maps.reshape(u, t, -1).argmax(-1), (h, w)), -1)  # U, T, 2
    steps = np.linalg.norm(np.diff(peaks, axis=1), axis=-1)
    return float(np.mean(steps > least * max(h, w)))


def second_difference(x: torch.Tensor) -> dict[str, np.ndarray]:
    """|x[t+1] - 2 x[t] + x[t-1]|, mean over channels; end frames take their inner neighbour's."""
    clip = x.numpy().astype(np.float64)
    inner = np.abs(clip[:, 2:] - 2 * clip[:, 1:-1] + clip[:, :-2]).mean(2)  # U, T - 2, H, W
    return {"second difference": np.concatenate([inner[:, :1], inner, inner[:, -1:]], 1)}


def measure(videos: Iterable[Video], explainers: Sequence[Explainer]) -> pd.DataFrame:
    """A line per video and map: video_id, manipulation, row (the map's name), pointing, energy.

    Both measures are empty where the video has no mask.
    """
    lines = []
    for video in progress_bar(videos, desc="locating", unit="video"):
        found = {k: maps for explain in explainers for k, maps in explain(video.x).items()}
        for name, maps in found.items():
            line = {"video_id": video.video_id, "manipulation": video.manipulation, "row": name}
            if video.masks is not None and video.masks.any():
                line["pointing"] = pointing_game(maps, video.masks)
                line["energy"] = energy_inside(maps, video.masks)
            lines.append(line)
    return pd.DataFrame(lines, columns=["video_id", "manipulation", "row", *MEASURES])


def located(
    measured: pd.DataFrame,
    keys: Mapping[str, str],
    others: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[tuple[str, str], tables.Measured]:
    """`measure`'s lines as cells for `tables.build`: per map and measure a row.

    Wilson's interval for the pointing game, at n videos and not at n frames, because the frames of
    a video are not independent; bootstrap over videos for the energy. keys: the runs' keys by
    manipulation, the columns; others: by row those of another model's maps. Where there was no mask
    there is no cell.
    """
    estimates, found = {"pointing": _proportion, "energy": mean_over_videos}, {}
    for (row, manipulation), part in measured.groupby(["row", "manipulation"], sort=False):
        there, runs = part.dropna(subset=[*MEASURES]), [(others or {}).get(row, keys)[manipulation]]
        left_out = f"{len(part) - len(there)} of {len(part)} videos have no mask"
        notes = (left_out,) * (len(there) < len(part))
        for column, metric in MEASURES.items() if len(there) else ():
            estimate = estimates[column](there[column].to_numpy())
            found[f"{row}: {metric}", manipulation] = tables.Measured(estimate, runs, notes)
    return found


def rows(names: Iterable[str]) -> list[str]:
    """The rows of `located`'s table: the pointing game of all maps, then the energy of all."""
    return [f"{name}: {metric}" for metric in MEASURES.values() for name in names]


def missing(keys: Mapping[str, str], compression: str) -> Callable[[paper.Cell], str]:
    """Why a cell of `located`'s table is empty, for `tables.build`; keys as in `located`."""
    absent = f"the tree has no {compression} videos of it"
    return lambda cell: NO_MASK if cell.column in keys else absent


def gain_over(measured: pd.DataFrame, base: str) -> pd.DataFrame:
    """How much better each map is than the map `base`, a line per map, measure and manipulation.

    difference is the mean over videos of the paired differences, low and high its 95 % bootstrap
    interval; above 0 the map knows more than `base`. Videos without a mask are left out.
    """
    lines = []
    for manipulation, part in measured.dropna().groupby("manipulation", sort=False):
        for column, metric in MEASURES.items():
            values = part.pivot(index="video_id", columns="row", values=column)
            for row in [name for name in dict.fromkeys(part["row"]) if name != base]:
                gain = mean_over_videos((values[row] - values[base]).to_numpy())
                lines.append((row, metric, manipulation, gain.value, gain.low, gain.high, gain.n))
    columns = ["map", "measure", "manipulation", "difference", "low", "high", "n"]
    return pd.DataFrame(lines, columns=columns)


def panel(
    video: Video, model: Detector, u: int, explainers: Sequence[Explainer]
) -> tuple[str, tuple]:
    """One group of `figures.activations`: a heading with the video's probability, and of snippet u
    the frames, masks and maps."""
    maps = {name: found[u] for explain in explainers for name, found in explain(video.x).items()}
    with torch.no_grad():
        fake = torch.sigmoid(model(batch(model, video.x))).item()
    masks = None if video.masks is None else video.masks[u]
    head = f"{video.manipulation}, probability of fake {fake:.2f}"
    return head, (video.clip_uthwc[u], masks, maps)


@dataclass(frozen=True)
class PartlyForged:
    """Clips for Figure 5: ids of fakes in `store`, the run that looks at them, and which frames are
    forged ({}: nobody knows)."""

    run: Run
    store: CropStore
    ids: list[str]
    truth: dict[str, np.ndarray]

    def forged(self, video: Video) -> np.ndarray | None:
        """Which frames of the video's snippets are forged, bool (U, T); None where nobody knows."""
        return self.truth[video.video_id][video.numbers] if self.truth else None

    def kinds(self) -> dict[str, list[str]]:
        """The ids by movement, short before long; without truth "test fake 1" and "test fake 2"."""
        if not self.truth:
            return {f"test fake {i + 1}": self.ids[i::2] for i in range(min(2, len(self.ids)))}
        names = [f"{kind} movements" for kind in SPANS]
        by_kind = {name: [i for i in self.ids if movement(self.truth[i]) == name] for name in names}
        return {kind: ids for kind, ids in by_kind.items() if ids}


def partly_forged(runs: RunStore, root: str | Path = "") -> PartlyForged | str:
    """Partially forged test clips and DIL trained on data of their kind, or why there are none.

    Built-in data: clips of the test people of the FaceForensics++-like tree, rendered for this, and
    the model of Table 1 (HQ, DF). Real data: FaceForensics++ has no partially forged videos, so the
    test fakes of a DFDC tree, and DIL's run of Table 2. Trained now if it is not there yet.
    """
    profile = runs.profile
    if not data.absent(profile, root) and is_synthetic(like := data.tree(profile, root)):
        run = dil_runs(runs, data.crops(profile, like))["Deepfakes"]
        # another tree of that name has other clips
        place = hashlib.sha256(str(Path(like).resolve()).encode()).hexdigest()[:6]
        folder = paths.data() / "trees" / profile.name
        tree = write_partial(folder / f"{Path(like).name}-partial-{place}", like)
        store, truth = data.crops(profile, tree), forged_frames(tree)
        usable = set(store.index.loc[store.index["status"] == "ok", "video_id"])
        return PartlyForged(run, store, [i for i in truth if i in usable], truth)
    if data.absent(profile, "", "dfdc-preview"):
        variables = "$DFIL_DFDC_PREVIEW, $DFIL_DFDC or dfil.toml"
        none = "FaceForensics++ has no partially forged videos, and no DFDC tree is named by"
        return f"{none} {variables}"
    store = data.crops(profile, data.tree(profile, "", "dfdc-preview"), "dfdc-preview")
    cell = paper.TABLES["table2"].cell("dil", "DFDC")
    run = runs.get(specs(cell, profile, store)[0], store)
    fakes_ = store.index.query("status == 'ok' and split == 'test' and label == 1")
    return PartlyForged(run, store, sorted(fakes_["video_id"]), {})


def movement(forged_t: np.ndarray) -> str:
    """The column of Figure 5's table for a clip, by how many of its frames are forged."""
    kind = "short" if forged_t.sum() <= SPANS["short"][1] else "long"
    return f"{kind} movements"


def measure_in_time(clips: PartlyForged | str, explainers: Sequence[Explainer]) -> pd.DataFrame:
    """A line per clip, map and frame of its snippets: video_id, column, row, forged, value.

    The explainers' maps are (U, T) here. Only clips whose truth is known are measured; none if
    `clips` is the reason why there are none.
    """
    columns, lines = ["video_id", "column", "row", "forged", "value"], []
    known = [] if isinstance(clips, str) else [i for i in clips.ids if i in clips.truth]
    for video_id in progress_bar(known, desc="locating", unit="video"):
        video = load(clips.run, clips.store, video_id, masks=False)
        forged, kind = clips.forged(video).ravel(), movement(clips.truth[video_id])
        for explain in explainers:
            for name, values in explain(video.x).items():
                cells = video_id, kind, name, forged, values.ravel()
                lines.append(pd.DataFrame(dict(zip(columns, cells, strict=True))))
    return pd.concat(lines, ignore_index=True) if lines else pd.DataFrame(columns=columns)


def own_auc(frames: pd.DataFrame) -> pd.DataFrame:
    """Of `measure_in_time`'s lines, per video and map the AUC of the video's own frames: video_id,
    column, row, value. Videos whose frames are all of one kind are left out."""
    lines = [
        (*keys, roc_auc_score(part["forged"].astype(bool), part["value"]))
        for keys, part in frames.groupby(["video_id", "column", "row"], sort=False)
        if part["forged"].nunique() == 2
    ]
    return pd.DataFrame(lines, columns=["video_id", "column", "row", "value"])


def highest_in_time(frames: pd.DataFrame) -> pd.DataFrame:
    """Of `measure_in_time`'s lines, per video and map whether the map's highest value lies on a
    forged frame: video_id, column, row, hit, chance. Videos of one kind of frame are left out.

    Of several equally high frames the forged share counts; chance is that of all frames.
    """
    lines = []
    for keys, part in frames.groupby(["video_id", "column", "row"], sort=False):
        forged = part["forged"].astype(bool)
        if forged.nunique() == 2:
            highest = part["value"] == part["value"].max()
            lines.append((*keys, forged[highest].mean(), forged.mean()))
    return pd.DataFrame(lines, columns=["video_id", "column", "row", "hit", "chance"])


def in_time(frames: pd.DataFrame, key: str) -> dict[tuple[str, str], tables.Measured]:
    """Cells for `tables.build` from `measure_in_time`'s lines, a row per map.

    Each is the mean over videos of the AUC of the video's own frames, forged against others, with
    an interval that draws whole videos. Videos whose frames are all of one kind have none and are
    counted in the note.
    """
    found = {}
    for (row, column), part in frames.groupby(["row", "column"], sort=False):
        videos = [video for _, video in part.groupby("video_id")]
        mixed = [video for video in videos if video["forged"].nunique() == 2]
        if mixed:
            pairs = ([v[name].to_numpy(float) for v in mixed] for name in ("forged", "value"))
            estimate = auc_over_videos(*pairs, within=True)
            left_out = f"{len(videos) - len(mixed)} of {len(videos)} videos"
            notes = (f"{left_out} show one kind of frame only",) * (len(mixed) < len(videos))
            found[row, column] = tables.Measured(estimate, [key], notes)
    return found


def mean_over_videos(values_n: np.ndarray, resamples=2000, seed=0) -> metrics.Estimate:
    """Mean and its 95 % percentile interval, drawing videos with replacement."""
    n, mean = len(values_n), float(np.mean(values_n))
    drawn = np.random.default_rng(seed).choice(values_n, (resamples, n))
    low, high = np.quantile(drawn.mean(1), [(1 - metrics.LEVEL) / 2, (1 + metrics.LEVEL) / 2])
    return metrics.Estimate(mean, float(low), float(high), n, n)


def _proportion(values_n: np.ndarray) -> metrics.Estimate:
    n, value = len(values_n), float(np.mean(values_n))
    return metrics.Estimate(value, *metrics.wilson(value, n), n, n)
