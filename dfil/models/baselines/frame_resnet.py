"""The frame-based baseline: a ResNet that sees one frame at a time; a video's probability is the
mean of its frames'."""

from __future__ import annotations

from dfil.models.baselines.frames import BackboneDetector, FrameDetector
from dfil.models.detector import About
from dfil.models.resnet import ResNet


class FrameResNet(BackboneDetector, FrameDetector):
    """ResNet-50 (He et al. 2016) on single frames, "video-level results are averaged from
    frame-level predictions".

    Trained on every frame by itself with its video's label.
    """

    about = About(
        "ResNet-50", 2016, "frames",
        "He et al., Deep Residual Learning for Image Recognition, CVPR 2016", "ImageNet", 23.51,
        "torchvision's 25.56 million less the 1000-class head, plus one logit",
    )  # fmt: skip

    def __init__(self, *, frames: int = 4, **backbone):
        super().__init__()
        self.backbone = ResNet(**backbone)
