"""What detectors reach that know nothing of forgery: the control beside every other number.

Each looks at something that ought to say nothing; a logistic regression makes of it what it can,
trained on other people than it is tested on:

- "single frames": eleven features of one frame at its full size, how sharp and how flat it is in
  the face, in its middle and beside it, then the mean logit of a video's frames;
- "mean colour" of the face over the whole video;
- "file size", "packet sizes" (mean, spread and three quantiles) and "number of frames".

Where one of them does better than chance, the data leak, and a detector's score there may be that
leak. Intervals take people, not videos, as independent (dfil.results.decide).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dfil.datasets.sequences import is_sequence
from dfil.faces.one_video import frame_numbers
from dfil.faces.store import CropStore
from dfil.faces.video import read_frames, read_sequence
from dfil.profiles import Profile
from dfil.results import decide, metrics, tables
from dfil.synthetic import DATASET_OF
from dfil.system.cores import cores
from dfil.system.progress import progress_bar
from dfil.train import data

DETECTORS = ("single frames", "mean colour", "file size", "packet sizes", "number of frames")
TITLE = "What trivial detectors reach, which ought to be nothing"
MOST = 60  # videos of a kind; at least 56, so that an AUC of 0.65 is told from 0.5
FRAMES = 12  # of a video that are looked at one by one
FOLDS = 7  # groups of people; each is tested by what was trained on the others
NO_PACKETS = "its videos are numbered pictures, which have no packets"


def everywhere(profile: Profile) -> dict[str, pd.DataFrame]:
    """`features` of every built-in setting of a profile, at the lighter compression of two."""
    stores = {
        setting: data.crops(profile, data.tree(profile, setting=setting), DATASET_OF[setting])
        for setting in profile.trees
    }
    return {
        name: features(store, store.index["compression"].min()) for name, store in stores.items()
    }


def features(store: CropStore, compression: str = "", most: int = MOST) -> pd.DataFrame:
    """A row per usable video of all splits: video_id, label, manipulation, person, and a matrix of
    features (K, F) per detector, K of them for each video; empty where a video has none.

    most: of each kind of video take the first so many, in the order of their targets.
    """
    rows = store.index[store.index["status"] == "ok"]
    rows = rows[rows["compression"] == compression] if compression else rows
    rows = rows.sort_values("target", kind="stable").groupby("manipulation").head(most)
    rows = rows.reset_index(drop=True)
    with ThreadPoolExecutor(cores()) as pool:  # decoding leaves the interpreter to others
        looks = pool.map(partial(_look, store), rows.itertuples())
        found = list(progress_bar(looks, total=len(rows), desc="looking"))
    return rows[["video_id", "label", "manipulation", "person"]].join(
        pd.DataFrame(found, columns=DETECTORS)
    )


def _look(store: CropStore, row) -> dict[str, np.ndarray]:
    path, crops = Path(row.path), store.open(row.video_id)
    wanted = set(crops.frames[:: max(1, len(crops.frames) // FRAMES)].tolist())
    single, colours = [], []
    for number, frame_hwc in _pictures(path):
        if number in wanted:
            x, y, side = (round(v / crops.scale) for v in crops.square(number, 1, 1.0))
            box = np.s_[max(0, y) : y + side, max(0, x) : x + side]
            single.append(sharpness(frame_hwc, box))
            colours.append(frame_hwc[box].mean((0, 1)))
    found = {"single frames": np.array(single), "mean colour": np.mean(colours, 0)[None]}
    found["number of frames"] = np.array([[row.frames]])
    if is_sequence(path):
        return found | dict.fromkeys(("file size", "packet sizes"), np.empty((0, 1)))
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    spread = [np.mean(sizes), np.std(sizes), *np.quantile(sizes, (0.1, 0.5, 0.9))]
    found["packet sizes"] = np.log1p(spread)[None]
    return found | {"file size": np.log([[path.stat().st_size]])}


def _pictures(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Frames by the numbers that the crop store gives them; pictures' file numbers are others."""
    if not is_sequence(path):
        return enumerate(read_frames(path))
    pictures = read_sequence(path)
    numbers = frame_numbers(np.array(list(pictures)), [])
    return zip(numbers.tolist(), pictures.values(), strict=True)


def sharpness(frame_hwc: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """Eleven features of one frame with a face in `box`: edges, contrast, flat areas."""
    grey = cv2.cvtColor(np.ascontiguousarray(frame_hwc), cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = cv2.Laplacian(grey, cv2.CV_32F)
    coarse = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.5), cv2.CV_32F)
    face = np.abs(fine[box])
    quarter_h, quarter_w = face.shape[0] // 4, face.shape[1] // 4
    middle = np.s_[quarter_h : 3 * quarter_h, quarter_w : 3 * quarter_w]
    above = fine[: max(8, box[0].start)]
    parts = (face, above, face[middle], coarse[box], coarse[box][middle])
    edges = [np.log(np.mean(part**2) + 1e-3) for part in parts]
    flat = [np.mean(face < 1), np.mean(face < 0.5)]
    quantiles = [np.log(np.quantile(face, q) + 0.1) for q in (0.5, 0.9)]
    return np.array([*edges, grey[box].std(), grey[box].mean(), *flat, *quantiles])


def scores(looked: pd.DataFrame, detector: str) -> pd.DataFrame:
    """What a detector says of each video: video_id, label, person, score (a logit).

    looked: `features` of real videos and of the fakes of one kind. Logistic regression, tested in
    FOLDS groups of people; the score of a video is the mean over its K rows.
    """
    matrices = [m for m in looked[detector] if len(m)]
    if len(matrices) < len(looked):
        return looked.iloc[:0].assign(score=[])[["video_id", "label", "person", "score"]]
    video = np.repeat(np.arange(len(looked)), [len(m) for m in matrices])
    label, person = (looked[name].to_numpy()[video] for name in ("label", "person"))
    folds = GroupKFold(min(FOLDS, looked["person"].nunique()))
    # Balanced: a fold with more fakes leaves fewer to learn from, and a lower intercept would order
    # the folds' logits against their labels.
    learner = LogisticRegression(max_iter=3000, class_weight="balanced")
    model = make_pipeline(StandardScaler(), learner)
    how = {"groups": person, "cv": folds, "method": "decision_function"}
    logits = cross_val_predict(model, np.concatenate(matrices), label, **how)
    means = pd.Series(logits).groupby(video).mean()
    return looked[["video_id", "label", "person"]].assign(score=means.to_numpy())


def auc(scored: pd.DataFrame) -> metrics.Estimate:
    """AUC with its 95 % interval over people."""
    found = decide.compare({"": [scored]}, 0.5, "auc")
    low, value, high = np.clip(np.array([found.low, found.difference, found.high]) + 0.5, 0, 1)
    fakes = int(scored["label"].sum())
    return metrics.Estimate(float(value), float(low), float(high), len(scored), fakes)


def reach(settings: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The AUC of every trivial detector in the usual columns, a column per kind of fake.

    settings: name -> `features` of its store. Each kind of fake is set against all real videos.
    """
    cells, columns = {}, []
    for setting, looked in settings.items():
        for kind in looked.loc[looked["label"] == 1, "manipulation"].unique():
            columns.append(f"{setting} {kind}")
            part = looked[(looked["label"] == 0) | (looked["manipulation"] == kind)]
            note = f"{part['person'].nunique()} people"
            for detector in DETECTORS:
                scored = scores(part, detector)
                if len(scored):
                    cells[detector, columns[-1]] = tables.Measured(auc(scored), notes=(note,))
    layout = tables.grid("trivial", TITLE, "auc", DETECTORS, columns)
    return tables.build(layout, cells, NO_PACKETS, synthetic=True)
