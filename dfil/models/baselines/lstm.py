"""LSTM: a ResNet's features of every frame, read in order by a long short-term memory."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.baselines.frames import ClipDetector
from dfil.models.detector import About, Sampling
from dfil.models.logit import Logit
from dfil.models.resnet import ResNet


class FrameLSTM(ClipDetector):
    """Features of consecutive frames into one LSTM layer (Hochreiter and Schmidhuber 1997), the
    way Güera and Delp (2018) detect forgeries.

    Per clip: 2048 pooled features of each frame -> LSTM with as many units -> its last output ->
    512 units with ReLU -> one logit, and dropout of 0.5 on both hidden vectors, all as Güera and
    Delp have it.

    Left open, and read so: the DIL paper names only the LSTM itself. The features are those of
    ResNet-50, as in its other rows, where Güera and Delp have a fixed InceptionV3; and they are
    trained with the rest. Güera and Delp read 20, 40 or 80 consecutive frames of a video; here
    clips of 16, and two in testing, whose probabilities are averaged.

    Args:
        dropout: probability of a hidden unit's being left out in training.
        width: also the LSTM's, which has the features' number of units, and a quarter of it after.
    """

    sampling = Sampling(train=1, test=2, frames=16)
    about = About(
        "LSTM", 2018, "clips",
        "Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 1997; as in Güera "
        "and Delp, Deepfake Video Detection Using Recurrent Neural Networks, AVSS 2018",
    )  # fmt: skip

    def __init__(self, *, frames: int = 16, dropout: float = 0.5, **backbone):
        super().__init__()
        self.frames = frames
        self.backbone = ResNet(**backbone)
        features = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()  # the LSTM takes the pooled features
        self.lstm = nn.LSTM(features, features, batch_first=True)
        hidden = nn.Linear(features, features // 4), nn.ReLU()
        last = Logit(features // 4)
        self.head = nn.Sequential(nn.Dropout(dropout), *hidden, nn.Dropout(dropout), last)

    def clip_logits(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, 3, H, W) -> logits (N,)."""
        features_ntc = self.backbone(clips_ntchw.flatten(0, 1)).unflatten(0, clips_ntchw.shape[:2])
        outputs_ntc, _ = self.lstm(features_ntc)
        return self.head(outputs_ntc[:, -1]).squeeze(1)
