"""The inflated ResNet ("I3D-S", "slow pathway") under V4D and DSANet: 3x1x1 in time in the last
two stages, everything else 2-D."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dfil.models.baselines.frame_resnet import FrameResNet
from dfil.models.baselines.frames import BackboneDetector
from dfil.models.resnet import ResNet
from dfil.models.weights import load_imagenet


class TemporalConv(nn.Conv3d):
    """A bias-free k x 1 x 1 convolution over the T frames of each snippet, zeros beyond its ends,
    on folded frames.

    Args:
        channels, out: input and output channels, fully connected.
        frames: T, needed to unfold the batch.
        kernel_size: k; odd.
    """

    def __init__(self, channels: int, out: int, frames: int, kernel_size: int = 3):
        kernel, padding = (kernel_size, 1, 1), (kernel_size // 2, 0, 0)
        super().__init__(channels, out, kernel, padding=padding, bias=False)
        self.frames = frames

    @classmethod
    def inflate(cls, conv: nn.Conv2d, frames: int, kernel_size: int = 3) -> TemporalConv:
        """The 1x1 convolution `conv` repeated k times along time and divided by k: the same output
        where nothing moves (Carreira and Zisserman 2017, section 2.1)."""
        inflated = cls(conv.in_channels, conv.out_channels, frames, kernel_size)
        with torch.no_grad():
            inflated.weight.copy_(inflate(conv.weight, kernel_size))
        return inflated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B·U·T, C, H, W) -> (B·U·T, out, H, W)."""
        # Nothing moves: channels_last frames are a snippet in channels_last_3d.
        snippets = x.unflatten(0, (-1, self.frames)).transpose(1, 2)  # B·U, C, T, H, W
        return super().forward(snippets).transpose(1, 2).flatten(0, 1)


def inflate(weight_2d: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """(out, in, h, w) -> (out, in, k, h, w), repeated and divided by k."""
    return weight_2d[:, :, None].expand(-1, -1, kernel_size, -1, -1) / kernel_size


def inflate_stages(backbone: ResNet, frames: int, stages: tuple[int, ...] = (3, 4)) -> None:
    """Replace the first 1x1 of every block of `stages` by its 3x1x1 inflation, in place.

    Stages 3 and 4 without any temporal stride are Feichtenhofer et al. 2019's slow pathway, which
    both sources take for their backbone.
    """
    for number in stages:
        for block in backbone.stages()[number - 1]:
            block.conv1 = TemporalConv.inflate(block.conv1, frames)


def every_second(stage: nn.ModuleList) -> list[nn.Module]:
    """Blocks 2, 4, ... of a stage, where V4D and DSANet put their modules; the only block of a
    stage that has just one."""
    return list(stage[1::2]) or list(stage)


class InflatedDetector(BackboneDetector):
    """A detector on such a backbone."""

    def pretrained(self, file: Path | None = None) -> str:
        """Load torchvision's ImageNet weights of the 2-D ResNet, inflated; where they came from.

        `file` as for dfil.models.weights.load_imagenet, which does the reading and raises RunError.
        Modules that the 2-D network has not, and the head, keep their initialisation.
        """
        conv = self.backbone.conv1
        stem = "imagenet" if conv.kernel_size == (7, 7) else "small"
        depth = tuple(len(stage) for stage in self.backbone.stages())
        flat = FrameResNet(depth=depth, width=conv.out_channels, stem=stem)
        source = load_imagenet(flat, file)
        own, state = self.backbone.state_dict(), flat.backbone.state_dict()
        for name in [name for name in state if not name.startswith("fc.")]:
            deeper, value = own[name].ndim > state[name].ndim, state[name]
            own[name] = inflate(value, own[name].shape[2]) if deeper else value
        self.backbone.load_state_dict(own)
        return source
