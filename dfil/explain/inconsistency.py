"""A model-free measure of local inconsistency: how much of the change is jitter and not motion.

Forgeries betray themselves between neighbouring frames, says the paper, so snippets of consecutive
frames are better than frames sampled far apart. This shows it without any training: natural motion
is smooth and hardly changes direction from one frame to the next, while errors made anew in every
frame change direction all the time. Between distant frames motion has turned as well.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def difference_ratio(
    crops_thwc: np.ndarray, gap: int = 1, mask_thw: np.ndarray | None = None
) -> float:
    """mean |x[t+g] - 2 x[t] + x[t-g]| / mean |x[t+g] - x[t]| over t, pixels and channels.

    About 0 for uniform motion of a smooth image, sqrt(3) for independent noise in every frame; nan
    where nothing changes at all.

    crops_thwc: consecutive native frames (T, H, W, C), any dtype, cut by one box so that the crop
    itself does not move. gap: distance g. mask_thw: pixels to count, (T, H, W) or (H, W), non-zero
    where counted; each difference uses the mask of its frame t. Raises ValueError if the clip is
    too short.
    """
    frames = len(crops_thwc)
    if gap < 1 or frames < 2 * gap + 1:
        needs = "difference_ratio needs at least 2 * gap + 1 frames with gap >= 1"
        raise ValueError(f"{needs}, it got {frames} frames and gap {gap}.")
    x = np.asarray(crops_thwc, np.float32)
    first = np.abs(x[gap:] - x[:-gap])  # (T - g, H, W, C), at t = 0 ...
    second = np.abs(x[2 * gap :] - 2 * x[gap:-gap] + x[: -2 * gap])  # (T - 2 g, H, W, C), at g ...
    if mask_thw is None:
        numerator, denominator = second.mean(dtype=np.float64), first.mean(dtype=np.float64)
    else:
        counted = np.broadcast_to(np.asarray(mask_thw) != 0, x.shape[:3])
        numerator = _masked_mean(second, counted[gap:-gap])
        denominator = _masked_mean(first, counted[:-gap])
    return float(numerator / denominator) if denominator > 0 else float("nan")


def difference_ratios(crops_thwc: np.ndarray, gaps: Iterable[int] = (1, 2, 4)) -> dict[int, float]:
    """`difference_ratio` at several gaps: the paper's argument in one row per clip."""
    return {gap: difference_ratio(crops_thwc, gap) for gap in gaps}


def _masked_mean(values_thwc: np.ndarray, counted_thw: np.ndarray) -> float:
    return float(values_thwc[counted_thw].mean(dtype=np.float64)) if counted_thw.any() else 0.0
