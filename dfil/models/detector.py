"""What every method is to the rest of the project: videos in, one logit each out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import nn

from dfil.models.saved import described, fill, read

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video a method looks at: U snippets of T frames, `stride` apart, one
    snippet in each of U equal segments.

    train, test: U in training and in testing. frames: T. With T = 1 the frames are sparse, with U
    = 1 the clip is dense.
    views: in testing a method that compares sparse frames is shown them as so many clips, each with
    every views-th frame, and the mean of their logits counts; frames are then as far apart as in
    training.
    """

    train: int
    test: int
    frames: int
    stride: int = 1
    views: int = 1

    def __str__(self) -> str:
        kind = "dense clips" if self.frames > 4 else "snippets"
        what = "sparse frames" if self.frames == 1 else f"{kind} of {self.frames}"
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return f"{self.train} {what} (test {self.test}){stride}"


@dataclass(frozen=True)
class About:
    """Where a method comes from, for `dfil models` and the tables.

    title: as the paper prints it. year, citation: of its own publication. kind: "frames", "clips"
    (action recognition) or "forgery".
    start: what the full-size model's weights start from, "ImageNet", "Kinetics" or "scratch".
    parameters: published count in millions with its source in `source`; None where none is
    published. read: whether most of its layers are a reading, and note: what it cannot be on these
    data; every number of it then says so.
    """

    title: str
    year: int
    kind: str
    citation: str
    start: str = "ImageNet"
    parameters: float | None = None
    source: str = ""
    read: bool = False
    note: str = ""


class Detector(nn.Module):
    """Base of all methods. Input (B, U, T, 3, H, W), ImageNet-normalised; output logits (B,),
    positive = fake.

    A method meets the protocol in three places: `loss` is what training minimises, `forward` what
    videos are scored by, and `frame_logits` what snippets and frames are scored by. `sampling` is
    what it looks at; None is the profile's own, the paper's snippets.
    """

    sampling: Sampling | None = None
    any_number = True  # of snippets will do; False: a logit is one of as many as are tested with
    about: About

    @classmethod
    def from_pretrained(cls, where: str | Path, revision: str | None = None) -> Self:
        """A trained model of this class, in evaluation mode; `where` and `revision` as in
        dfil.models.load_weights. Raises RunError, also for weights of another method."""
        state, config = read(where, revision)
        model = described(cls, config, where)
        fill(model, state, where)
        return model

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the single frames: x (B, U, T, 3, H, W) -> (B, U, T)."""
        raise NotImplementedError(f"{type(self).__name__} has no logits of single frames")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B,); here the mean of the frames'."""
        return self.frame_logits(x).float().mean((1, 2))

    def snippet_logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the single snippets: x (B, U, T, 3, H, W) -> (B, U); here the mean of their
        frames'."""
        return self.frame_logits(x).float().mean(2)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy of the videos' logits. x (B, U, T, 3, H, W), y (B,) with 1 = fake;
        returns a scalar."""
        return nn.functional.binary_cross_entropy_with_logits(self(x).float(), y.float())

    @classmethod
    def loss_at_chance(cls, entropy: float) -> float:
        """What `loss` is for one and the same answer to all; entropy: of the classes, in nats."""
        return entropy


def check_input(name: str, x: torch.Tensor, frames: int | None = None) -> tuple[int, int, int]:
    """(B, U, T) of a detector's input, which must be (B, U, T, 3, H, W), and T = frames if given.

    Raises ValueError naming the detector and the shape."""
    shape = tuple(x.shape)
    if x.ndim != 6 or shape[3] != 3:
        raise ValueError(f"{name} takes (B, U, T, 3, H, W), not {shape}")
    if frames not in (None, shape[2]):
        built = f"{name} was built for snippets of T = {frames} frames"
        raise ValueError(f"{built}; this input {shape} has T = {shape[2]}")
    return shape[:3]


def check_choice(name: str, option: str, value: object, *choices: object) -> None:
    """Raises ValueError naming the detector and the option if `value` is none of the choices."""
    if value not in choices:
        known = " or ".join(map(repr, choices))
        raise ValueError(f"{name}: {option} is {known}, not {value!r}")
