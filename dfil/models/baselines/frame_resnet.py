"""The frame-based baseline: a ResNet that sees one frame at a time; a video's probability is the
mean of its frames'."""

from __future__ import annotations

import torch

from dfil.models.baselines.frames import FrameDetector
from dfil.models.detector import About, check_input
from dfil.models.resnet import ResNet


class FrameResNet(FrameDetector):
    """ResNet-50 (He et al. 2016) on single frames, "video-level results are averaged from
    frame-level predictions".

    Trained on every frame by itself with its video's label. Arguments are ResNet's; `frames` is
    accepted and ignored, because a frame model has no T.
    """

    about = About(
        "ResNet-50", 2016, "frames",
        "He et al., Deep Residual Learning for Image Recognition, CVPR 2016", "ImageNet", 23.51,
        "torchvision's 25.56 million less the 1000-class head, plus one logit",
    )  # fmt: skip

    def __init__(self, *, frames: int = 4, **backbone):
        super().__init__()
        self.backbone = ResNet(**backbone)

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T)."""
        shape = check_input("FrameResNet", x)
        return self.backbone(x.flatten(0, 2)).unflatten(0, shape)
