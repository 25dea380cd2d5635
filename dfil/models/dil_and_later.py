"""DIL with two things that later detectors have and the paper's tables do not: the method `dil`
with everything off, which is the default, is the paper's (dil.py)."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from dfil.models.alignment import with_gradients
from dfil.models.detector import check_input
from dfil.models.dil import DIL
from dfil.models.query_pooling import QueryPooling


class DILAndLater(DIL):
    """DIL's arguments, and

        queries: number of queries that pool the last map (query_pooling.py); 0: its average.
        alignment, uniformity: weights of two terms of the loss (alignment.py).

    With `queries`, `explain` also gives "query_map" (B, U, T, H', W') of the last map's size.
    """

    def __init__(self, *, queries=0, alignment=0.0, uniformity=0.0, **switches):
        super().__init__(**switches)
        if min(queries, alignment, uniformity) < 0:
            raise ValueError("DIL: queries, alignment and uniformity are not below 0")
        self.alignment, self.uniformity = alignment, uniformity
        # last, so that a seed gives all other weights the same values with it and without
        channels = self.backbone.fc.in_features
        self.pool = QueryPooling(channels, queries) if queries else None

    def frame_features(self, x: torch.Tensor, keep: dict | None = None) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T, C), whose mean over U, T is the video's embedding."""
        shape = check_input("DIL", x, self.frames)
        maps = self.backbone.maps(x.flatten(0, 2), shape[1], keep)
        if self.pool is None:
            return maps.mean((2, 3)).unflatten(0, shape)
        return self.pool(maps.unflatten(0, shape), keep)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, U, T, C) -> logits (B, U, T)."""
        logits = self.backbone.fc(features.flatten(0, 2)).squeeze(1)
        return logits.unflatten(0, features.shape[:3])

    def frame_logits(self, x: torch.Tensor, keep: dict | None = None) -> torch.Tensor:
        if self.pool is None:
            return super().frame_logits(x, keep)
        return self.classify(self.frame_features(x, keep))

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not (self.alignment or self.uniformity):
            return super().loss(x, y)
        features = self.frame_features(x)
        logits, embeddings = self.classify(features).float().mean((1, 2)), features.mean((1, 2))
        entropy = binary_cross_entropy_with_logits(logits, y.float())
        return with_gradients(entropy, embeddings, y, self.alignment, self.uniformity)
