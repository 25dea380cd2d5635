"""What metrics take of a table of scores."""

from __future__ import annotations

import numpy as np
import pandas as pd


def ranked(scores: pd.DataFrame) -> np.ndarray:
    """What the metrics take of a scores table: at least one half where a video is called fake.

    Logits, where there are any, moved to that threshold: probabilities round to 1 and would tie.
    """
    if "logit" in scores:
        return scores["logit"].to_numpy(np.float64) + 0.5
    return scores["score"].to_numpy(np.float64)
