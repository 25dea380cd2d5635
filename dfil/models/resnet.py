"""The 2-D backbone: torchvision's bottleneck ResNet with free depth and width, and room for a
module before each 3x3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck

from dfil.models.detector import check_choice
from dfil.models.logit import Logit


def conv_norm(channels: int, out: int, kernel: int | tuple[int, int], stride=1) -> nn.Sequential:
    """A bias-free convolution that keeps the size but for its stride, then batch normalisation."""
    padding = kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
    conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


def he_normal(module: nn.Module) -> nn.Module:
    """Start every convolution in it from He et al.'s (2015) initialisation, as torchvision does."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
    return module


class SnippetBottleneck(Bottleneck):
    """torchvision's bottleneck with an optional Intra-SIM or Inter-SIM between conv1 and conv2,
    "right before the spatial convolution".

    With `intra` set it is the paper's Intra-SI block, with `inter` its Inter-SI block, with
    neither the plain residual block. A method with other modules derives its own block from this
    one and names them in `added`.
    """

    added: tuple[str, ...] = ("intra", "inter")  # submodules that ImageNet weights know nothing of

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.intra: nn.Module | None = None
        self.inter: nn.Module | None = None

    def forward(self, x: torch.Tensor, snippets: int, keep: dict | None = None) -> torch.Tensor:
        """x (B·U·T, C, H, W) -> (B·U·T, 4·planes, H', W'); snippets = U."""
        out = self.relu(self.bn1(self.conv1(x)))
        if self.intra is not None:
            out = self.intra(out, keep, overwrite=True)
        if self.inter is not None:
            out = self.inter(out, snippets, keep)
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """Bottleneck ResNet on folded frames. Parameter names and shapes are torchvision's, so its
    ImageNet weights load by name.

    `checkpoint`, False unless set on the model, trades time for memory in training: only the
    blocks' inputs are kept and each block is computed again when its gradient is due. Gradients
    and running statistics are the same.

    Args:
        depth: blocks per stage; (3, 4, 6, 3) is ResNet-50.
        width: planes of stage 1; 64 is ResNet-50.
        stem: `imagenet` (7x7, stride 2, then max pooling: stage 1 at a quarter of the input) or
            `small` (3x3, stride 2, no pooling: stage 1 at half the input, for crops so small that
            a quarter of them would hide the motion).
        block: the residual block, SnippetBottleneck or a class derived from it.
    """

    def __init__(
        self, *, depth: tuple[int, ...] = (3, 4, 6, 3), width=64, stem="imagenet",
        block: type[SnippetBottleneck] = SnippetBottleneck,
    ):  # fmt: skip
        super().__init__()
        self.block, self.checkpoint = block, False
        check_choice("ResNet", "stem", stem, "imagenet", "small")
        kernel = 7 if stem == "imagenet" else 3
        self.conv1 = nn.Conv2d(3, width, kernel, stride=2, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        channels, stages = width, []
        for i, blocks in enumerate(depth):
            stages.append(self._stage(channels, width * 2**i, blocks, stride=1 if i == 0 else 2))
            channels = width * 2**i * Bottleneck.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = Logit(channels)
        he_normal(self)

    def _stage(self, channels: int, planes: int, blocks: int, stride: int) -> nn.ModuleList:
        wide = planes * Bottleneck.expansion
        first = self.block(channels, planes, stride, conv_norm(channels, wide, 1, stride))
        return nn.ModuleList([first, *(self.block(wide, planes) for _ in range(blocks - 1))])

    def stages(self) -> list[nn.ModuleList]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def blocks(self, first: int = 1, last: int = 4) -> list[tuple[str, SnippetBottleneck]]:
        """The residual blocks of stages `first` to `last` with their names, for example
        ("layer3.5", block), in order."""
        stages = enumerate(self.stages()[first - 1 : last], first)
        return [(f"layer{i}.{j}", b) for i, stage in stages for j, b in enumerate(stage)]

    def forward(
        self, frames_nchw: torch.Tensor, snippets: int = 1, keep: dict | None = None
    ) -> torch.Tensor:
        """frames (B·U·T, 3, H, W) -> one logit per frame (B·U·T,). `keep` receives
        "layer3.5/attention_h" and the like."""
        return self.fc(self.maps(frames_nchw, snippets, keep).mean((2, 3))).squeeze(1)

    def maps(
        self, frames_nchw: torch.Tensor, snippets: int = 1, keep: dict | None = None, last: int = 4
    ) -> torch.Tensor:
        """frames (B·U·T, 3, H, W) -> the maps behind stage `last` (B·U·T, C, H', W')."""
        x = frames_nchw.contiguous(memory_format=torch.channels_last)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.through(x, 1, last, snippets, keep)

    def through(
        self, x: torch.Tensor, first: int, last: int, snippets: int = 1, keep: dict | None = None
    ) -> torch.Tensor:
        """Maps before stage `first` -> the maps behind stage `last`."""
        again = self.checkpoint and self.training and keep is None and torch.is_grad_enabled()
        for name, block in self.blocks(first, last):
            kept = None if keep is None else {}
            x = _checkpointed(block, x, snippets) if again else block(x, snippets, kept)
            if kept:
                keep.update({f"{name}/{key}": value for key, value in kept.items()})
        return x


def _checkpointed(block: nn.Module, x: torch.Tensor, snippets: int) -> torch.Tensor:
    both = nullcontext(), _statistics_kept(block)
    return checkpoint(block, x, snippets, use_reentrant=False, context_fn=lambda: both)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Within it the block's running statistics stay, because the first computation has already
    taken the batch into them."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta, counts = [m.momentum for m in norms], [m.num_batches_tracked.clone() for m in norms]
    for m in norms:  # and not without statistics: the same tensors must be saved as before
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum, count in zip(norms, momenta, counts, strict=True):
            m.momentum = momentum
            m.num_batches_tracked.copy_(count)
