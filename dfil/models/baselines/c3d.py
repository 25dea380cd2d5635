"""C3D: 3x3x3 convolutions all the way."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.baselines.frames import ClipDetector, dense
from dfil.models.detector import About, Sampling, check_choice
from dfil.models.logit import Logit


class C3D(ClipDetector):
    """C3D (Tran et al. 2015, Figure 3): eight 3x3x3 convolutions in five groups, max pooling after
    each group, two layers of 4096 units.

    conv1a 64, conv2a 128, conv3a-b 256, conv4a-b 512, conv5a-b 512, all with ReLU and none with
    batch normalisation; pool1 halves space only, the others space and time, so that 16 frames
    become one; dropout of 0.5 after both fully connected layers.

    Left open, and read so: the paper's clips have 112 px, which pool5 (padded by one pixel in
    space, as in the authors' network definition) leaves as 1 x 4 x 4, the input of the first fully
    connected layer. At other sizes, 224 px here, the maximum over a 4 x 4 grid makes the same of
    it; at 112 px it changes nothing. The authors' weights from Sports-1M are in no library that
    this project could use, so C3D starts from scratch, with He et al.'s (2015) initialisation. The
    published protocol averages ten clips of a video; here two.

    Args:
        dropout: probability of a hidden unit's being left out in training.
        depth: of the ResNet it stands beside; groups 2 to 5 have min(published number, depth of
            stages 1 to 4) convolutions.
        width: channels of conv1a; everything else scales with it.
        stem: accepted and without effect: the published stem already keeps half the input's
            resolution for group 2.
    """

    sampling = Sampling(train=1, test=2, frames=16)
    about = About(
        "C3D", 2015, "clips",
        "Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015",
        "scratch", 77.36,
        "79 million in Table 1 of Carreira and Zisserman (2017), less the 400-class head",
    )  # fmt: skip

    def __init__(self, *, frames=16, dropout=0.5, depth=(3, 4, 6, 3), width=64, stem="imagenet"):
        super().__init__()
        check_choice("C3D", "stem", stem, "imagenet", "small")
        self.frames = frames
        layers, channels = [], 3
        for i, (published, multiple) in enumerate(
            zip((1, 1, 2, 2, 2), (1, 2, 4, 8, 8), strict=True)
        ):
            for _ in range(min(published, (1, *depth)[i])):
                layers.append(nn.Conv3d(channels, width * multiple, 3, padding=1))
                layers.append(nn.ReLU(inplace=True))
                channels = width * multiple
            kernel, padding = (1, 2, 2) if i == 0 else 2, (0, 1, 1) if i == 4 else 0
            # ceil_mode changes nothing at the published sizes; it lets clips of fewer frames and
            # smaller crops through.
            layers.append(nn.MaxPool3d(kernel, kernel, padding, ceil_mode=True))
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool3d((1, 4, 4)))
        hidden = 64 * width
        self.fc6, self.fc7 = nn.Linear(channels * 16, hidden), nn.Linear(hidden, hidden)
        self.fc8 = Logit(hidden)
        self.dropout = nn.Dropout(dropout)
        for m in (*self.features, self.fc6, self.fc7):
            if isinstance(m, nn.Conv3d | nn.Linear):  # no normalisation will mend the scale later
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def clip_logits(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, 3, H, W) -> logits (N,)."""
        x = self.features(dense(clips_ntchw)).flatten(1)
        x = self.dropout(torch.relu(self.fc6(x)))
        x = self.dropout(torch.relu(self.fc7(x)))
        return self.fc8(x).squeeze(1)
