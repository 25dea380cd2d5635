"""S-MIL: a video is a bag of faces, and the faces' embeddings give the bag's probability
directly."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.baselines.frames import BackboneDetector
from dfil.models.baselines.mil import PAPER, POOLINGS
from dfil.models.detector import About, Sampling, check_choice
from dfil.models.resnet import ResNet


class SMIL(BackboneDetector):
    """Sharp Multiple Instance Learning, Li et al., ACM MM 2020: P = 1 / (1 + Π_j (1 / p_j - 1)),
    p_j = sigmoid(θ · h_j).

    h_j is the embedding of frame j, P the video's probability; see `dfil.models.baselines.mil`.
    The order of the frames plays no part.

    Published: in the source's abstract, that faces are instances and the video is their bag, and
    that embeddings give the bag's prediction directly, not by way of predictions of the instances;
    in its Figure 2, the order of the parts: faces, CNN, instances, bags, S-MIL. No code: the
    source's repository holds none.

    A reading: the formula above. It is the rule by which the method is generally known and does
    what the abstract says, because P = sigmoid(Σ_j θ · h_j). That the source's equations are
    the same to the letter is not established; so none is cited by number. Also read:
    - Embedding: the globally pooled features of the backbone, without a further layer. The paper's
      own backbone is not established; here it is the ResNet-50 that DIL stands on, with the same
      ImageNet weights.
    - Instances: all U·T frames given, which are sparse.
    - P is the literal product, so a logit grows with the number of frames. Its sign, and with it
      accuracy at 0.5, does not; nor does the order of videos tested with one number of frames.
    - θ starts near zero (deviation 0.001), because a bag multiplies a random start by its number
      of instances.

    pooling: `sharp`, or `mil` for the traditional bag that S-MIL is compared with.
    """

    sampling = Sampling(train=16, test=32, frames=1)
    any_number = False  # a sum over the instances
    about = About("S-MIL", 2020, "forgery", PAPER)

    def __init__(self, *, frames: int = 1, pooling: str = "sharp", **backbone):
        super().__init__()
        check_choice("SMIL", "pooling", pooling, *POOLINGS)
        self.pooling = pooling
        self.backbone = ResNet(**backbone)
        nn.init.normal_(self.backbone.fc.weight, std=0.001)
        nn.init.zeros_(self.backbone.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B,) of the bags, through which alone instances learn."""
        return POOLINGS[self.pooling](self.frame_logits(x).float().flatten(1))
