"""DIANet: inconsistencies between two neighbouring frames, over the whole face and at its
organs."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import roi_align

from dfil.models.baselines.frames import ClipDetector, numbers
from dfil.models.detector import About, Sampling, check_input
from dfil.models.logit import Logit
from dfil.models.resnet import ResNet, conv_norm, he_normal

# Boxes around the eyes, the nose and the mouth of an average face in the crop: x0, y0, x1, y1 in
# fractions of its side (see addnet_3d.py for where they are from).
ORGANS = ((0.2, 0.26, 0.5, 0.46), (0.5, 0.26, 0.8, 0.46), (0.36, 0.36, 0.64, 0.64),
          (0.3, 0.6, 0.7, 0.82))  # fmt: skip
CELLS = 7  # a side, of what is pooled from an organ


class DIANet(ClipDetector):
    """Dynamic inconsistency-aware network (Hu et al., IJCAI 2021): pairs of adjacent frames.

    Known from the source's abstract and excerpts: 256 features at every position of both frames; a
    global branch on the map of similarities between all positions of the one and all of the other;
    a local branch on the differences of critical regions; both together are classified. All else
    is a reading:
    - Features: ResNet-50 up to its second stage (28 x 28 positions at 224 px; the source has
      29 x 29) and a 1x1 convolution to 256.
    - Global: S = softmax over j of f_1(i) · f_2(j) / 16; the frame's features beside those that it
      finds in the other one, S f_2, and the same the other way round, go through ResNet's third
      and fourth stage, whose pooled features are averaged over both directions.
    - Local: the crop store holds no landmarks, so the regions are those of an average face in the
      crop; 7 x 7 cells of each in both frames, their absolute difference through a 3x3
      convolution, pooled.
    - Pairs lie in equal segments of the video; their probabilities are averaged.

    Args:
        frames: T = 2.
        depth, width, stem: see ResNet; 4 · width features at a position.
    """

    sampling = Sampling(train=8, test=16, frames=2)
    about = About(
        "DIANet", 2021, "forgery",
        "Hu et al., Dynamic Inconsistency-aware DeepFake Video Detection, IJCAI 2021",
        read=True,
    )  # fmt: skip

    def __init__(self, *, frames: int = 2, **backbone):
        super().__init__()
        if frames != 2:
            raise ValueError(f"DIANet compares two frames, not {frames}")
        self.frames = frames
        self.backbone = ResNet(**backbone)
        wide = self.backbone.layer2[0].conv3.out_channels
        features = wide // 2
        self.reduce = conv_norm(wide, features, 1)
        self.both = conv_norm(2 * features, wide, 1)
        self.local = conv_norm(features, features, 3)
        self.fc = Logit(self.backbone.fc.in_features + len(ORGANS) * features)
        self.backbone.fc = nn.Identity()
        for added in (self.reduce, self.both, self.local):
            he_normal(added)

    def clip_logits(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Pairs (N, 2, 3, H, W) -> logits (N,)."""
        frames = clips_ntchw.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        f_n2chw = torch.relu(self.reduce(self.backbone.maps(frames, last=2)))
        f_n2chw = f_n2chw.unflatten(0, (-1, 2))
        first, second = f_n2chw.unbind(1)
        beside = [torch.cat([a, found_in(a, b)], 1) for a, b in ((first, second), (second, first))]
        joined = torch.relu(self.both(torch.stack(beside, 1).flatten(0, 1)))
        deep = self.backbone.through(joined, 3, 4).mean((2, 3)).unflatten(0, (-1, 2)).mean(1)
        local = torch.relu(self.local((at_organs(first) - at_organs(second)).abs()))
        local = local.mean((2, 3)).unflatten(0, (-1, len(ORGANS))).flatten(1)
        return self.fc(torch.cat([deep, local], 1)).squeeze(1)

    def part_logits(self, x: torch.Tensor) -> torch.Tensor:
        check_input("DIANet", x, 2)
        return super().part_logits(x)


def found_in(f_nchw: torch.Tensor, other_nchw: torch.Tensor) -> torch.Tensor:
    """For every position of f the features of `other` where they are like it:

    softmax over j of f(i) · other(j) / sqrt(C), times other(j). All (N, C, H, W).
    """
    a, b = (t.flatten(2).transpose(1, 2) for t in (f_nchw, other_nchw))  # N, HW, C
    found = nn.functional.scaled_dot_product_attention(a, b, b)
    return found.transpose(1, 2).unflatten(2, f_nchw.shape[2:])


def at_organs(maps_nchw: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (4 N, C, 7, 7): the eyes, nose and mouth of every map, in this order."""
    n, _, h, w = maps_nchw.shape
    boxes = torch.stack([numbers(box, maps_nchw) for box in ORGANS])
    boxes = boxes * numbers((w, h, w, h), maps_nchw)
    return roi_align(maps_nchw, [boxes] * n, CELLS, aligned=True)
