"""Xception: depthwise separable convolutions, one frame at a time."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dfil.models.baselines.frames import FrameDetector, to_unit_range
from dfil.models.detector import About, Sampling, check_choice, check_input
from dfil.models.logit import Logit
from dfil.models.resnet import he_normal
from dfil.models.weights import download, find_state, load_strictly

WEIGHTS = (
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/"
    "xception-43020ad28.pth"
)


class Xception(FrameDetector):
    """Xception (Chollet, CVPR 2017, Figure 5), the network that Rössler et al. (FaceForensics++,
    ICCV 2019) made the usual frame baseline.

    Written from the paper's figure: entry flow, middle flow, exit flow; one logit in place of the
    1000 classes.

    Left open, and read so: Chollet's figure has 299 px, Rössler et al. too; here the project's
    crops (224 px), which the global pooling allows. The first two convolutions are unpadded and
    batch normalisation has torch's ε = 1e-5, as in the port whose weights are used. Rössler et
    al. take 270 frames of a training and 100 of a test video. They first train the new layer alone
    for three epochs; here everything is trained from the first step, as for the other rows.

    Args:
        depth: of the ResNet it stands beside; half the sum is the number of middle blocks (8 for
            ResNet-50's 3 + 4 + 6 + 3).
        width: 64 is the published network; all layers scale with it (728 becomes 91 at width 8).
        stem: `imagenet`, or `small`: the first block keeps its resolution, so that the blocks work
            at half, not a quarter of the input.
    """

    sampling = Sampling(train=16, test=32, frames=1)
    about = About(
        "Xception", 2017, "frames",
        "Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017",
        "ImageNet", 20.81,
        "22.856 million in the paper's Table 3, less the 1000-class head",
    )  # fmt: skip

    def __init__(self, *, frames=1, depth=(3, 4, 6, 3), width=64, stem="imagenet"):
        super().__init__()
        check_choice("Xception", "stem", stem, "imagenet", "small")
        c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
            c * width // 64 for c in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        # Names are the port's (conv1, block1.rep.0.pointwise, ...), so that its weights load by
        # name.
        self.conv1 = nn.Conv2d(3, c32, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(c32)
        self.conv2 = nn.Conv2d(c32, c64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(c64)
        blocks = [
            _Block(c64, (c128, c128), stride=2 if stem == "imagenet" else 1, relu_first=False),
            _Block(c128, (c256, c256), stride=2),
            _Block(c256, (c728, c728), stride=2),
            *(_Block(c728, (c728, c728, c728)) for _ in range(sum(depth) // 2)),
            _Block(c728, (c728, c1024), stride=2),
        ]
        self.blocks = [f"block{i}" for i in range(1, len(blocks) + 1)]
        for name, block in zip(self.blocks, blocks, strict=True):
            self.add_module(name, block)
        self.conv3 = _Separable(c1024, c1536)
        self.bn3 = nn.BatchNorm2d(c1536)
        self.conv4 = _Separable(c1536, c2048)
        self.bn4 = nn.BatchNorm2d(c2048)
        self.fc = Logit(c2048)
        he_normal(self)

    def frame_logits(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> (B, U, T)."""
        shape = check_input("Xception", x)
        x = to_unit_range(x.flatten(0, 2).contiguous(memory_format=torch.channels_last))
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        x = torch.relu(self.bn3(self.conv3(x)))
        x = torch.relu(self.bn4(self.conv4(x)))
        return self.fc(x.mean((2, 3))).squeeze(1).unflatten(0, shape)

    def pretrained(self, file: Path | None = None) -> str:
        """Load ImageNet weights and return where they came from: `file`, $DFIL_XCEPTION_WEIGHTS,
        or the port that timm calls legacy_xception, fetched into torch's cache and checked against
        the hash in its name.

        Raises RunError if they cannot be had or are another network's.
        """
        whose = "the ImageNet weights of Xception (xception-43020ad28.pth)"
        state, source = find_state(file, "DFIL_XCEPTION_WEIGHTS", lambda: download(WEIGHTS), whose)
        # The port's first files keep the 1x1 kernels as matrices.
        state = {
            k: v[..., None, None] if ".pointwise." in f".{k}" and v.ndim == 2 else v
            for k, v in state.items()
        }
        load_strictly(self, state, ("fc.", "last_linear."), source)
        return source


class _Separable(nn.Module):
    """Depthwise 3x3, then 1x1, nothing between: (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.conv1(x))


class _Block(nn.Module):
    """Separable convolutions of the given widths, each after a ReLU, then max pooling if it
    strides; plus the shortcut.

    (N, C, H, W) -> (N, widths[-1], H / stride, W / stride). relu_first: Figure 5's first block has
    none before its first convolution, because the stem has just had one.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], stride=1, relu_first=True):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((channels, *widths), widths, strict=False)):
            if i or relu_first:
                layers.append(nn.ReLU(inplace=i > 0))  # the shortcut needs the block's input
            layers += [_Separable(before, after), nn.BatchNorm2d(after)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*layers)
        plain = channels == widths[-1] and stride == 1
        self.skip = None if plain else nn.Conv2d(channels, widths[-1], 1, stride, bias=False)
        self.skipbn = None if plain else nn.BatchNorm2d(widths[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rep(x) + (x if self.skip is None else self.skipbn(self.skip(x)))
