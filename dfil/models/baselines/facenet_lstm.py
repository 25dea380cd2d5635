"""FaceNetLSTM: a face recogniser's embedding of every frame, read in order by an LSTM."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize

from dfil.models.baselines.frames import ClipDetector, to_unit_range
from dfil.models.detector import About, Sampling, check_choice
from dfil.models.logit import Logit
from dfil.models.resnet import ResNet
from dfil.models.weights import find_state, load_strictly

EMBEDDING = 512


class FaceNetLSTM(ClipDetector):
    """FaceNet's embedding (Schroff et al., CVPR 2015) of consecutive frames into one LSTM layer, as
    in Sohrawardi et al.'s poster at CCS 2019.

    Nearly all of it is a reading: the poster's layers are known from memory only.
    - Embedding: facenet-pytorch's Inception-ResNet-v1, 512 numbers of unit length, frames in
      [-1, 1]. With the weights of a face recogniser it stays as it is and only the LSTM learns;
      those weights are fetched at run time or given as a file. Without them it is trained with the
      rest.
    - One LSTM layer of 512 units, its last output, one linear layer.
    - Clips of 16 frames, two in testing, as the other methods of clips.
    - Inception-ResNet-v1 has no room in crops below 80 px and no sizes to scale. `stem="small"`
      puts the small ResNet of the other rows in its place, and an embedding of 8 numbers per unit
      of width.

    Args:
        frames: T, consecutive frames per clip. The number of clips U is free at run time.
        depth, width: of the small embedding; without effect on FaceNet's.
        stem: `imagenet`: FaceNet's network; `small`: see above.
    """

    sampling = Sampling(train=1, test=2, frames=16)
    about = About(
        "FaceNetLSTM", 2019, "forgery",
        "Sohrawardi et al., Poster: Towards Robust Open-World Detection of Deepfakes, CCS 2019",
        "VGGFace2", read=True,
    )  # fmt: skip

    def __init__(self, *, frames: int = 16, depth=(3, 4, 6, 3), width=64, stem="imagenet"):
        super().__init__()
        check_choice("FaceNetLSTM", "stem", stem, "imagenet", "small")
        self.frames, size = frames, EMBEDDING * width // 64
        if stem == "imagenet":
            from facenet_pytorch import InceptionResnetV1  # it takes a second to import

            self.backbone = InceptionResnetV1(pretrained=None)
            size = EMBEDDING
        else:
            self.backbone = ResNet(depth=depth, width=width, stem=stem)
            self.backbone.fc = nn.Linear(self.backbone.fc.in_features, size)
        self.lstm = nn.LSTM(size, size, batch_first=True)
        self.fc = Logit(size)

    def clip_logits(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, 3, H, W) -> logits (N,)."""
        frames = clips_ntchw.flatten(0, 1)
        if not isinstance(self.backbone, ResNet):
            frames = to_unit_range(frames)
        embedded = normalize(self.backbone(frames), dim=1).unflatten(0, clips_ntchw.shape[:2])
        outputs_ntc, _ = self.lstm(embedded)
        return self.fc(outputs_ntc[:, -1]).squeeze(1)

    def train(self, mode: bool = True):
        super().train(mode)
        if not any(p.requires_grad for p in self.backbone.parameters()):
            self.backbone.eval()  # what stays as it is keeps its statistics too
        return self

    def pretrained(self, file: Path | None = None) -> str:
        """Load a face recogniser's weights, keep them as they are, and return where they came from:
        `file` or $DFIL_FACENET_WEIGHTS (a state dict of facenet-pytorch's Inception-ResNet-v1),
        else that library's own, trained on VGGFace2, fetched into torch's cache.

        Raises RunError if they cannot be had or are another network's.
        """

        def fetch():
            from facenet_pytorch import InceptionResnetV1

            return InceptionResnetV1(pretrained="vggface2").state_dict()

        whose = "facenet-pytorch's weights of Inception-ResNet-v1 (20180402-114759-vggface2.pt)"
        state, source = find_state(file, "DFIL_FACENET_WEIGHTS", fetch, whose)
        load_strictly(self.backbone, state, ("logits.",), source)
        self.backbone.requires_grad_(False)
        return source
