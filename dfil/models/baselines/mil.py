"""Multiple instance learning: from the instances of a bag (the faces of a video) to the bag's
logit. Shared by S-MIL and S-MIL-T.

p_j = sigmoid(l_j) is the probability that instance j is fake. A bag is real if all of its
instances are, fake if any is.
"""

from __future__ import annotations

import torch
from torch.nn import functional

PAPER = "Li et al., Sharp Multiple Instance Learning for DeepFake Video Detection, ACM MM 2020"


def sharp(logits: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """S-MIL's bag: P = 1 / (1 + Π_j (1 / p_j - 1)). Instances' logits along `dim` -> the bag's
    logit.

    1 / p_j - 1 = exp(-l_j), so P = sigmoid(Σ_j l_j): embeddings map to the bag directly, and the
    sum is exact and cannot overflow. The gradient with respect to every instance's logit is P - y,
    however small that instance's own p_j is.
    """
    return logits.sum(dim)


def noisy_or(logits: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Traditional MIL's bag: P = 1 - Π_j (1 - p_j). Instances' logits along `dim` -> the bag's
    logit.

    The gradient with respect to l_j carries a factor p_j: in a fake video, faces that the model
    still takes for real learn next to nothing. It is what S-MIL is compared with.
    """
    real = functional.logsigmoid(-logits).sum(dim)  # log Π (1 - p_j), at most 0
    real = real.clamp_max(-torch.finfo(real.dtype).tiny)  # a finite logit where all p_j round to 0
    return torch.log(-torch.expm1(real)) - real


POOLINGS = {"sharp": sharp, "mil": noisy_or}
