"""Methods of hand-made features: nothing is learnt by gradient, scikit-learn fits a small
classifier to the features of all training videos at once (dfil.train.fit)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dfil.models.baselines.frames import PartwiseDetector, to_unit_range
from dfil.models.logit import exactly


class FittedDetector(PartwiseDetector):
    """Parts of a video, frames or clips, are judged by features of theirs.

    A subclass has `part_features`, `decide` and `fit`. What `fit` finds lies in parameters and
    buffers, so that a fitted model is saved, loaded and scored like any other. A part that cannot
    be judged has features that are not numbers: it is left out of the fit and of its video's
    probability, and a video without any other gets one half.
    """

    fixed = False  # whether its numbers are given, so that nothing is fitted

    def part_features(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, n, F) float64: the features of the n parts."""
        raise NotImplementedError

    def decide(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., F) -> logits (...)."""
        raise NotImplementedError

    def fit(self, features_nf: np.ndarray, labels_n: np.ndarray) -> None:
        """Take over what scikit-learn finds. features_nf: of all parts that can be judged;
        labels_n: 1 = fake."""
        raise NotImplementedError

    def part_logits(self, x: torch.Tensor) -> torch.Tensor:
        with exactly(x):
            return self.decide(self.part_features(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B,) of the mean probability over the parts that can be
        judged."""
        share_bn = torch.sigmoid(self.part_logits(x))
        judged = share_bn.isfinite()
        count = judged.sum(1).clamp(min=1)
        half = 0.5 * ~judged.any(1)
        share = torch.where(judged, share_bn, 0).sum(1) / count + half
        return torch.logit(share, eps=1e-12).float()


def boxes(corners: Sequence[Sequence[float]], h: int, w: int) -> torch.Tensor:
    """1 where a pixel's centre lies in a box, else 0: (boxes, H, W) float64. corners: x0, y0, x1,
    y1 of each, in fractions of the picture's sides."""
    y, x = (torch.arange(n, dtype=torch.float64).add(0.5).div(n) for n in (h, w))
    y = y[:, None]
    inside = [(x0 < x) & (x < x1) & (y0 < y) & (y < y1) for x0, y0, x1, y1 in corners]
    return torch.stack(inside).double()


def to_grey(frames: torch.Tensor) -> torch.Tensor:
    """ImageNet-normalised (..., 3, H, W) -> grey levels 0 to 255 (..., H, W), float64."""
    levels = 127.5 * (to_unit_range(frames.double()) + 1)
    luma = levels.new_tensor((0.299, 0.587, 0.114))[:, None, None]
    return (levels * luma).sum(-3)
