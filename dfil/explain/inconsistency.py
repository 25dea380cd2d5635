"""A model-free measure of local inconsistency: how much frame-to-frame change is jitter rather than motion.

The paper argues that forgeries betray themselves between neighbouring frames, and that snippets of consecutive frames are therefore
better than frames sampled far apart. The statistic below shows that without any training: natural motion is smooth, so from one frame
to the next it hardly changes direction, while errors made anew in every frame change direction all the time. Between distant frames
natural motion has turned as well, and the difference fades.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def difference_ratio(
    crops_thwc: np.ndarray, gap: int = 1, mask_thw: np.ndarray | None = None
) -> float:
    """mean |x[t+g] - 2 x[t] + x[t-g]| / mean |x[t+g] - x[t]| over all t, pixels and channels that allow it.

    About 0 for uniform motion of a smooth image, sqrt(3) for independent Gaussian noise in every frame.

    crops_thwc: the face in consecutive native frames, (T, H, W, C), any dtype, cut by one box so that the crop itself does not move.
    gap: distance g between the compared frames. mask_thw: pixels to count, (T, H, W) or (H, W), non-zero where counted; each
    difference uses the mask of its frame t. Returns nan where nothing changes at all. Raises ValueError if the clip is too short.
    """
    frames = len(crops_thwc)
    if gap < 1 or frames < 2 * gap + 1:
        raise ValueError(
            f"difference_ratio needs at least 2 * gap + 1 frames with gap >= 1, it got {frames} frames and gap {gap}."
        )
    x = np.asarray(crops_thwc, np.float32)
    first = np.abs(x[gap:] - x[:-gap])  # (T - g, H, W, C), at t = 0 ...
    second = np.abs(
        x[2 * gap :] - 2 * x[gap:-gap] + x[: -2 * gap]
    )  # (T - 2 g, H, W, C), at t = g ...
    if mask_thw is None:
        numerator, denominator = second.mean(dtype=np.float64), first.mean(dtype=np.float64)
    else:
        counted = np.broadcast_to(np.asarray(mask_thw) != 0, x.shape[:3])
        numerator, denominator = (
            _masked_mean(second, counted[gap:-gap]),
            _masked_mean(first, counted[:-gap]),
        )
    return float(numerator / denominator) if denominator > 0 else float("nan")


def difference_ratios(
    crops_thwc: np.ndarray, gaps: Iterable[int] = (1, 2, 4), mask_thw: np.ndarray | None = None
) -> dict[int, float]:
    """`difference_ratio` at several gaps, neighbouring to distant: the paper's argument in one row per clip."""
    return {gap: difference_ratio(crops_thwc, gap, mask_thw) for gap in gaps}


def _masked_mean(values_thwc: np.ndarray, counted_thw: np.ndarray) -> float:
    return float(values_thwc[counted_thw].mean(dtype=np.float64)) if counted_thw.any() else 0.0
