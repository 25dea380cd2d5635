"""Which part of a video is fake, as DFDC makes one ask: snippet scores against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from dfil.faces.crops import Crops
from dfil.faces.store import CropStore
from dfil.results import metrics
from dfil.system.errors import DataError
from dfil.train.devices import pick_device, precision
from dfil.train.runs import Run
from dfil.train.snippets import normalise


def partly(truth: Mapping[str, np.ndarray], store: CropStore) -> dict[str, np.ndarray]:
    """The test videos of one person that are forged in part, with their truth by frame."""
    rows = store.index.query("split == 'test' and status == 'ok' and tracks == 1")["video_id"]
    return {name: truth[name] for name in rows if name in truth and 0 < np.mean(truth[name]) < 1}


@torch.no_grad()
def snippet_scores(run: Run, store: CropStore, truth: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A line per snippet: video_id, first_frame, last_frame, forged (share of its frames), logit.

    The snippets of a video follow each other without overlap and are given to the model together,
    as U; a snippet's logit is the mean of its frames'. truth: bool per frame by video id. Raises
    DataError if the truth is shorter than the video.
    """
    device, lines = pick_device(), []
    model, frames = run.model().to(device), run.profile.frames
    for video_id, forged_t in truth.items():
        crops = store.open(video_id)
        starts = neighbours(crops, frames)
        if starts[-1] + frames > len(forged_t):
            has = f"the truth has {len(forged_t)} frames and the video more"
            raise DataError(f"{video_id}: {has}; write the tree again")
        clip_uthwc = np.stack([crops.snippet(first, frames, run.profile.size) for first in starts])
        with precision(device):
            x = normalise(torch.from_numpy(clip_uthwc).permute(0, 1, 4, 2, 3)[None].to(device))
            logits_u = model.snippet_logits(x)[0].float().cpu()
        for first, logit in zip(starts, logits_u.tolist(), strict=True):
            share = float(np.mean(forged_t[first : first + frames]))
            lines.append((video_id, first, first + frames - 1, share, logit))
    columns = ["video_id", "first_frame", "last_frame", "forged", "logit"]
    return pd.DataFrame(lines, columns=columns)


def neighbours(crops: Crops, frames: int) -> list[int]:
    """First frames of all snippets of a video that follow each other without overlap."""
    every = (range(first, first + count - frames + 1, frames) for first, count in crops.runs)
    return [start for stretch in every for start in stretch]


def auc(scores: pd.DataFrame, within: bool = False) -> metrics.Estimate:
    """AUC of the snippets' logits; snippets that are forged in part are left out."""
    pure = scores[scores["forged"].isin((0.0, 1.0))]
    videos = [part for _, part in pure.groupby("video_id")]
    videos = [part for part in videos if not within or part["forged"].nunique() == 2]
    labels, logits = ([v[name].to_numpy() for v in videos] for name in ("forged", "logit"))
    return auc_over_videos(labels, logits, within)


def auc_over_videos(
    labels: Sequence[np.ndarray], scores: Sequence[np.ndarray], within=False, resamples=1000, seed=0
) -> metrics.Estimate:
    """AUC of the parts (frames, snippets) of videos, with a percentile interval that draws whole
    videos, because parts of one are no strangers.

    labels, scores: per video an array of 0/1 and one of scores. within: the mean over the videos of
    each one's own AUC, which no offset between videos can change, instead of the AUC of all parts
    together. n counts videos, n_positive those with a positive part.
    Raises DataError if a class is missing overall, or, with `within`, in a video.
    """
    videos = [metrics.checked(label, score) for label, score in zip(labels, scores, strict=True)]
    labels, scores = [label_p for label_p, _ in videos], [score_sp[0] for _, score_sp in videos]
    metrics.both_classes(np.concatenate(labels))
    if within:
        for label_p in labels:
            metrics.both_classes(label_p)
        own_n = np.array([roc_auc_score(*video) for video in zip(labels, scores, strict=True)])

    def value(drawn: np.ndarray) -> float:
        if within:
            return float(own_n[drawn].mean())
        label_p, score_p = (np.concatenate([part[i] for i in drawn]) for part in (labels, scores))
        mixed = 0 < label_p.sum() < label_p.size  # a draw of one class has no AUC
        return float(roc_auc_score(label_p, score_p)) if mixed else np.nan

    rng, n = np.random.default_rng(seed), len(labels)
    drawn = [value(rng.integers(n, size=n)) for _ in range(resamples)]
    low, high = np.nanquantile(drawn, [(1 - metrics.LEVEL) / 2, (1 + metrics.LEVEL) / 2])
    n_positive = sum(bool(label_p.any()) for label_p in labels)
    return metrics.Estimate(value(np.arange(n)), float(low), float(high), n, n_positive)
