"""What GenD adds to cross-entropy (Yermakov et al., WACV 2026; after Wang and Isola, ICML 2020).

With z_i the embeddings of a batch's videos, scaled to length 1, and y_i their labels:

    alignment  = mean of |z_i - z_j|^2 over the pairs i < j with y_i = y_j
    uniformity = log of the mean of exp(-2 |z_i - z_j|^2) over all pairs i < j

Both are to be small: videos of one class close together, all videos far apart. GenD weighs them by
0.1 and 0.5.

Readings: the classifier still reads the embedding at its own length; GenD's reads z, which would
change the model and not only the loss. And the terms give their gradients and not their values, so
that the training loss stays cross-entropy: a run is judged by it to have left chance or not.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize


def alignment_and_uniformity(
    embeddings_bc: torch.Tensor, labels_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both terms of embeddings (B, C), of any length, and labels (B,): scalars; 0 without pairs."""
    z_bc = normalize(embeddings_bc, dim=1)
    i, j = torch.triu_indices(len(z_bc), len(z_bc), 1, device=z_bc.device)
    squared_p = (z_bc[i] - z_bc[j]).square().sum(1)
    same_p = labels_b[i] == labels_b[j]
    alignment = (squared_p * same_p).sum() / same_p.sum().clamp(min=1)
    uniformity = (-2 * squared_p).exp().mean().log() if len(squared_p) else squared_p.sum()
    return alignment, uniformity


def with_gradients(
    entropy: torch.Tensor,
    embeddings_bc: torch.Tensor,
    labels_b: torch.Tensor,
    alignment: float,
    uniformity: float,
) -> torch.Tensor:
    """The cross-entropy as it is, with the gradients of both terms, each times its weight, added
    to its own."""
    terms = alignment_and_uniformity(embeddings_bc.float(), labels_b)
    weighed = alignment * terms[0] + uniformity * terms[1]
    return entropy + weighed - weighed.detach()
