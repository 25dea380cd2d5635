"""S-MIL-T: sharp multiple instance learning on instances that span several neighbouring frames."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.baselines.mil import PAPER, POOLINGS
from dfil.models.detector import About, Detector, Sampling, check_choice, check_input
from dfil.models.logit import Logit
from dfil.models.resnet import ResNet


class SMILT(Detector):
    """S-MIL with spatial-temporal encoded instances, Li et al., ACM MM 2020.

    For every kernel size k a temporal convolution turns the frames' embeddings h_1 ... h_N into N
    - k + 1 instances, each of k neighbouring frames: one bag per k, P_k = 1 / (1 + Π_j (1 / p_kj
    - 1)), p_kj = sigmoid(θ_k · ReLU(W_k * h)_j). The bags are integrated by the same rule, P = 1
    / (1 + Π_k (1 / P_k - 1)). See `dfil.models.baselines.mil`.

    What is left open beyond SMIL's points, and how it is read (in the manner of convolutions over
    words in a sentence, which the encoding resembles):
    - Kernel sizes 2, 3 and 4, without padding. Single frames, k = 1, are no bag of their own;
      `kernels=(1, 2, 3, 4)` adds them.
    - The convolutions are full, not depthwise, and halve the embedding twice: C -> C / 4, with a
      bias, and ReLU.
    - θ_k is one classifier per bag. Together the encoders add 9.44 million parameters to
      ResNet-50.
    - Frames are taken in order over U and T alike. "Neighbouring" means neighbouring among the
      sampled frames, which are sparse.

    kernels: sizes of the temporal kernels; a video needs as many frames as the largest. pooling:
    see SMIL.
    """

    sampling = Sampling(train=16, test=32, frames=1, views=2)
    any_number = False  # a sum over the instances
    about = About("S-MIL-T", 2020, "forgery", PAPER)

    def __init__(self, *, frames=1, kernels=(2, 3, 4), pooling="sharp", **backbone):
        super().__init__()
        check_choice("SMILT", "pooling", pooling, *POOLINGS)
        if not kernels or min(kernels) < 1:
            raise ValueError(f"SMILT: kernels are sizes of at least 1 frame, not {tuple(kernels)}")
        self.kernels, self.pooling = tuple(kernels), pooling
        self.backbone = ResNet(**backbone)
        channels = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()  # the backbone gives embeddings
        self.encoders = nn.ModuleList(nn.Conv1d(channels, channels // 4, k) for k in self.kernels)
        self.heads = nn.ModuleList(Logit(channels // 4) for _ in self.kernels)
        for encoder, head in zip(self.encoders, self.heads, strict=True):
            nn.init.kaiming_normal_(encoder.weight, nonlinearity="relu")
            nn.init.zeros_(encoder.bias)
            nn.init.normal_(head.weight, std=0.001)  # see SMIL
            nn.init.zeros_(head.bias)

    def instance_logits(self, h: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings h (B, N, C) in order -> per kernel size k the instances' logits (B, N - k +
        1)."""
        h = h.transpose(1, 2)  # B, C, N
        return [
            head(torch.relu(encode(h)).transpose(1, 2)).squeeze(2)
            for encode, head in zip(self.encoders, self.heads, strict=True)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W), U·T at least the largest kernel size -> logits (B,) of the
        bags."""
        b, u, t = check_input("SMILT", x)
        if u * t < (needed := max(self.kernels)):
            given = f"this input {tuple(x.shape)} has {u * t}"
            raise ValueError(f"SMILT has a temporal kernel of {needed} frames; {given}")
        pool = POOLINGS[self.pooling]
        embeddings = self.backbone(x.flatten(0, 2)).unflatten(0, (b, u * t))
        bags = [pool(logits.float()) for logits in self.instance_logits(embeddings)]
        return pool(torch.stack(bags, 1))
