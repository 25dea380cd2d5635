"""The frame-based baseline: a ResNet that sees one frame at a time; a video's probability is the mean of its frames'."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.detector import About, Detector, check_input
from dfil.models.resnet import ResNet


class FrameResNet(Detector):
    """ResNet-50 (He et al. 2016) on single frames, "video-level results are averaged from frame-level predictions".

    Trained on every frame by itself with its video's label. Arguments are ResNet's; `frames` is accepted and ignored, because a frame
    model has no T.
    """

    about = About(
        "ResNet-50", 2016, "frames", "He et al., Deep Residual Learning for Image Recognition, CVPR 2016", "ImageNet", 23.51,
        "torchvision's 25.56 million less the 1000-class head, plus one logit",
    )  # fmt: skip

    def __init__(self, *, frames: int = 4, **backbone):
        super().__init__()
        self.backbone = ResNet(**backbone)

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T)."""
        shape = check_input("FrameResNet", x)
        return self.backbone(x.flatten(0, 2)).unflatten(0, shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B,) of the mean probability over the U·T frames."""
        return torch.logit(torch.sigmoid(self.frame_logits(x).float()).mean((1, 2)), eps=1e-6)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = self.frame_logits(x).float()
        return nn.functional.binary_cross_entropy_with_logits(logits, y.float()[:, None, None].expand_as(logits))
