"""I3D: Inception-v1 with every kernel grown a time axis."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import GoogLeNet_Weights
from torchvision.models.googlenet import Inception

from dfil.models.baselines.frames import ClipDetector, dense, to_unit_range
from dfil.models.baselines.inflated import inflate
from dfil.models.detector import About, Sampling, check_choice
from dfil.models.logit import Logit
from dfil.models.resnet import he_normal
from dfil.models.weights import State, find_state, load_strictly, torchvisions

# Inception-v1's modules: 1x1, 3x3 after its squeeze, "5x5" after its squeeze, behind the pooling
# (Szegedy et al. 2015, Table 1).
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class I3D(ClipDetector):
    """RGB I3D (Carreira and Zisserman, CVPR 2017, Figure 3): Inception-v1 with batch
    normalisation, k x k kernels become k x k x k.

    The first convolution and the last two poolings between modules halve time as well as space,
    the first two poolings space only: "it can be helpful to not perform temporal pooling in the
    first two max-pooling layers". The modules are torchvision's, built of 3-D convolutions; its
    third branch has 3x3 where Inception-v1 has 5x5, and so has the authors' released I3D (3x3x3).

    The start is the paper's section 2.4: ImageNet kernels "repeating the weights of the 2D filters
    N times along the time dimension, and rescaling them by dividing by N". They are torchvision's
    GoogLeNet, whose names and shapes these are. The authors go on to Kinetics; no library that
    this project could use has those weights.

    Left open, and read so: paddings are symmetric as torchvision's (one pixel's shift from the
    released TensorFlow graph at stride 2); the 2x7x7 average pooling and the mean over time are
    one global mean, which is the same for up to 16 frames; no dropout, since the paper names none.
    The authors train on 64 frames and test on whole videos; here 16, the longest dense clip that
    the crop store serves, and two of them in testing, whose probabilities are averaged. The
    optical-flow stream is left out: the row is an RGB model.

    Args:
        depth: of the ResNet it stands beside; groups 3, 4 and 5 keep their last min(published
            number, depth of stages 2 to 4) modules.
        width: channels of the first convolution; everything else scales with it.
        stem: `imagenet`, or `small` (3x3x3 instead of 7x7x7 and no first pooling: the next layers
            at half the input).
    """

    sampling = Sampling(train=1, test=2, frames=16)
    about = About(
        "I3D", 2017, "clips",
        "Carreira and Zisserman, Quo Vadis, Action Recognition? A New Model and the Kinetics "
        "Dataset, CVPR 2017",
        "ImageNet", 12.28,
        "12.69 million of the authors' released RGB graph (Table 1: 25 for two streams), less the "
        "400-class head",
    )  # fmt: skip

    def __init__(self, *, frames=16, depth=(3, 4, 6, 3), width=64, stem="imagenet"):
        super().__init__()
        check_choice("I3D", "stem", stem, "imagenet", "small")
        self.frames = frames
        kernel, channels = (7 if stem == "imagenet" else 3), 192 * width // 64
        # Names are torchvision's, so that GoogLeNet's weights load by name.
        self.conv1 = _Unit3D(3, width, kernel_size=kernel, stride=2, padding=kernel // 2)
        self.conv2 = _Unit3D(width, width, kernel_size=1)
        self.conv3 = _Unit3D(width, channels, kernel_size=3, padding=1)
        space = nn.MaxPool3d((1, 3, 3), (1, 2, 2), ceil_mode=True)
        first = space if stem == "imagenet" else nn.Identity()
        both = [nn.MaxPool3d(k, 2, ceil_mode=True) for k in (3, 2)]
        self.pools = nn.ModuleList([first, space, *both])
        self.groups: list[list[str]] = []
        for group, there in zip("345", depth[1:], strict=True):
            names = [name for name in MODULES if name[0] == group][-there:]
            for name in names:
                widths = [c * width // 64 for c in MODULES[name]]
                self.add_module(f"inception{name}", _Inception3D(channels, *widths))
                channels = widths[0] + widths[2] + widths[4] + widths[5]
            self.groups.append([f"inception{name}" for name in names])
        self.fc = Logit(channels)
        he_normal(self)

    def clip_logits(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, 3, H, W) -> logits (N,)."""
        x = dense(to_unit_range(clips_ntchw))
        x = self.pools[0](self.conv1(x))
        x = self.conv3(self.conv2(x))
        for pool, names in zip(self.pools[1:], self.groups, strict=True):
            x = pool(x)
            for name in names:
                x = self.get_submodule(name)(x)
        return self.fc(x.mean((2, 3, 4))).squeeze(1)

    def pretrained(self, file: Path | None = None) -> str:
        """Load inflated ImageNet weights and return where they came from: `file` or
        $DFIL_GOOGLENET_WEIGHTS (a state dict of torchvision's googlenet), else torchvision's own,
        fetched into torch's cache.

        Raises RunError if they cannot be had or are another network's.
        """
        known = GoogLeNet_Weights.IMAGENET1K_V1
        whose = "torchvision's ImageNet weights of GoogLeNet (googlenet-1378be20.pth)"
        state, source = find_state(
            file, "DFIL_GOOGLENET_WEIGHTS", lambda: torchvisions(known), whose
        )
        load_strictly(self, inflated(self, state), ("fc.", "aux1.", "aux2."), source)
        return f"{source}, inflated"


def inflated(model: nn.Module, state: State) -> dict[str, torch.Tensor]:
    """2-D kernels (O, I, h, w) -> (O, I, k, h, w), each of the k slices 1/k of the 2-D kernel, k
    being that of `model`'s kernel.

    A clip that stands still then gets the frame's response at every moment.
    """
    own = model.state_dict()
    grown = {k for k, v in state.items() if v.ndim == 4 and k in own and own[k].ndim == 5}
    return {k: inflate(v, own[k].shape[2]) if k in grown else v for k, v in state.items()}


class _Unit3D(nn.Module):
    """Convolution, batch normalisation, ReLU; arguments are nn.Conv3d's. The 3-D sibling of
    torchvision's BasicConv2d."""

    def __init__(self, channels: int, out: int, **convolution):
        super().__init__()
        self.conv = nn.Conv3d(channels, out, bias=False, **convolution)
        self.bn = nn.BatchNorm3d(out, eps=0.001)  # GoogLeNet's ε

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.bn(self.conv(x)))


class _Inception3D(Inception):
    """torchvision's Inception module on (N, C, T, H, W); widths as in MODULES."""

    def __init__(self, channels: int, *widths: int):
        super().__init__(channels, *widths, conv_block=_Unit3D)
        self.branch4[0] = nn.MaxPool3d(3, stride=1, padding=1)
