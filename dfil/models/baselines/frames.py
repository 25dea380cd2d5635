"""Methods that judge frames, or clips, one by one: a video's probability is the mean of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from dfil.models.detector import IMAGENET_MEAN, IMAGENET_STD, Detector, check_input


class BackboneDetector(Detector):
    """A detector that asks a ResNet, `backbone`, for a logit of every frame.

    A subclass whose modules are built for a fixed T sets `frames`; to any other one all U·T frames
    of a video are one sequence, whatever their division into snippets.
    """

    frames: int | None = None

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T): the classifier on every frame's features, before they
        are averaged."""
        b, u, t = check_input(type(self).__name__, x, self.frames)
        snippets = u if self.frames else u * t
        return self.backbone(x.flatten(0, 2), snippets=snippets).unflatten(0, (b, u, t))


class PartwiseDetector(Detector):
    """A detector that gives every part of a video a logit of its own; parts are trained by
    themselves with their video's label."""

    def part_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B, n) of the n parts."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B,) of the mean probability over the parts.

        logit(mean p) = log Σ p - log Σ (1 - p), in logarithms: where p rounds to 1, videos would
        otherwise tie.
        """
        logits = self.part_logits(x).float()
        return torch.logsumexp(logsigmoid(logits), 1) - torch.logsumexp(logsigmoid(-logits), 1)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean binary cross-entropy of the parts. x (B, U, T, 3, H, W), y (B,) with 1 = fake;
        returns a scalar."""
        logits = self.part_logits(x).float()
        return binary_cross_entropy_with_logits(logits, y.float()[:, None].expand_as(logits))


class FrameDetector(PartwiseDetector):
    """The parts are frames: "video-level results are averaged from frame-level predictions" (the
    paper's image-based methods).

    A subclass has `frame_logits`. It cannot see the order of frames.
    """

    def part_logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.frame_logits(x).flatten(1)


class ClipDetector(PartwiseDetector):
    """The parts are clips, that is snippets of T frames, as action recognition averages the
    predictions of a video's clips.

    A subclass sets `frames` = T and has `clip_logits`.
    """

    frames: int

    def clip_logits(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, 3, H, W) -> logits (N,)."""
        raise NotImplementedError

    def snippet_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the single clips: x (B, U, T, 3, H, W) -> (B, U). Raises ValueError if T is
        not `frames`."""
        b, u, _ = check_input(type(self).__name__, x, self.frames)
        return self.clip_logits(x.flatten(0, 1)).unflatten(0, (b, u))

    def part_logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.snippet_logits(x)


def dense(clips_ntchw: torch.Tensor) -> torch.Tensor:
    """Clips (N, T, 3, H, W) as 3-D convolutions take them: (N, 3, T, H, W), channels last in
    memory."""
    return clips_ntchw.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)


def numbers(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """`like.new_tensor(values)` of one dimension, written where `like` is: a GPU that copies
    numbers from the host cannot be recorded (dfil/train/recorded.py)."""
    return torch.cat([like.new_full((1,), value) for value in values])


def to_unit_range(frames: torch.Tensor) -> torch.Tensor:
    """ImageNet-normalised (..., 3, H, W) -> the range [-1, 1], which the Inception family's
    weights were trained on."""
    mean, deviation = (numbers(n, frames)[:, None, None] for n in (IMAGENET_MEAN, IMAGENET_STD))
    return frames * (deviation / 0.5) + (mean - 0.5) / 0.5
