"""DSP-FWA, called D-FWA in the tables: a ResNet with spatial pyramid pooling, one frame at a
time."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import adaptive_max_pool2d, logsigmoid

from dfil.models.baselines.frames import BackboneDetector, FrameDetector
from dfil.models.detector import About, Sampling, check_input
from dfil.models.logit import Logit
from dfil.models.resnet import ResNet

GRIDS = (1, 2, 6)


class DFWA(BackboneDetector, FrameDetector):
    """Dual spatial pyramid face-warping-artefact detector, the authors' successor of Li and Lyu
    (CVPR Workshops 2019).

    ResNet-50; its last map is pooled by maximum on grids of 1, 2 and 6 cells a side, and all cells
    go to one linear layer [code]. At the published 7 x 7 cells torch's adaptive pooling has the
    code's windows (kernel ceil(7 / n), stride floor(7 / n)); other sizes have their like.

    One name stands for two things. Table 2's row is this network trained on the dataset, as the
    paper cites it. Table 3's is the authors' network, which has seen no forgery but its own warps
    of real faces: there it is trained so (dfil.train.self_warped).

    What is read, and how:
    - Frames of the project's crops; the code draws boxes around 68 landmarks at random, scores ten
      of them per test frame and takes the mean of the upper half [code].
    - A video's probability is the mean of its frames', as all frame models' is. The code takes the
      upper third of them [code], which Table 3's row does: the mean over the highest calls nearly
      everything forged where frames have been trained to be right on the average.
    - Adam, as all rows; the code has SGD at 0.001 [code].

    Args:
        frames: accepted and ignored: a frame model has no T.
        upper: of how many frames one counts, from the highest on: 1 all, 3 the upper third.
        depth, width, stem: see ResNet.
    """

    sampling = Sampling(train=16, test=32, frames=1)
    about = About(
        "D-FWA", 2019, "forgery",
        "Li and Lyu, Exposing DeepFake Videos by Detecting Face Warping Artifacts, CVPR Workshops "
        "2019; DSP-FWA in the authors' code",
        "ImageNet", 23.68,
        "23,675,970 of the authors' code, with two outputs",
    )  # fmt: skip

    def __init__(self, *, frames: int = 1, upper: int = 1, **backbone):
        super().__init__()
        self.upper = upper
        self.backbone = ResNet(**backbone)
        cells = sum(n * n for n in GRIDS)
        self.fc = Logit(cells * self.backbone.fc.in_features)
        self.backbone.fc = nn.Identity()

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T)."""
        shape = check_input("DFWA", x)
        return self.fc(pyramid(self.backbone.maps(x.flatten(0, 2)))).squeeze(1).unflatten(0, shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B,) of the mean probability over the highest frames, one
        at least."""
        logits = self.frame_logits(x).float().flatten(1)
        logits = logits.topk(max(1, logits.shape[1] // self.upper), 1).values
        return torch.logsumexp(logsigmoid(logits), 1) - torch.logsumexp(logsigmoid(-logits), 1)


def pyramid(maps_nchw: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, 41 C): the maxima of the cells of every grid, grid after grid."""
    return torch.cat([adaptive_max_pool2d(maps_nchw, n).flatten(1) for n in GRIDS], 1)
