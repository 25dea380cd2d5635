"""ADDNet-3D: face masks raise the weight of low-level features, a 3-D network judges the sequence
(Zi et al., ACM Multimedia 2020)."""

from __future__ import annotations

import torch
from torch import nn

from dfil.models.detector import About, Detector, Sampling, check_choice, check_input
from dfil.models.logit import Logit
from dfil.models.resnet import conv_norm, he_normal

# An average upright face in the crop, as (x, y) in fractions of its side: hulls in order around
# their border, mirror-symmetric. Proportions of the usual 68 landmarks; on 20 crops of the
# built-in clips (dlib boxes x 1.3) MTCNN's five landmarks had their means within 0.02 of these
# organs' centres and corners, and standard deviations of 0.03 to 0.05, which is why the borders
# are soft.
_FACE = (
    (0.12, 0.34), (0.2, 0.26), (0.36, 0.22), (0.64, 0.22), (0.8, 0.26), (0.88, 0.34),
    (0.86, 0.52), (0.81, 0.68), (0.72, 0.8), (0.6, 0.875), (0.5, 0.89), (0.4, 0.875),
    (0.28, 0.8), (0.19, 0.68), (0.14, 0.52),
)  # fmt: skip
_EYE = ((0.25, 0.36), (0.3, 0.32), (0.39, 0.32), (0.44, 0.36), (0.39, 0.4), (0.3, 0.4))
_NOSE = ((0.465, 0.38), (0.535, 0.38), (0.59, 0.56), (0.55, 0.595), (0.45, 0.595), (0.41, 0.56))
_MOUTH = ((0.36, 0.71), (0.43, 0.665), (0.57, 0.665), (0.64, 0.71), (0.57, 0.765), (0.43, 0.765))
_OTHER_EYE = tuple((1 - x, y) for x, y in reversed(_EYE))
_ORGANS = (_EYE, _OTHER_EYE, _NOSE, _MOUTH)
_SOFT = 0.04  # half the width of a mask's border, in fractions of the crop: the landmarks' spread


def hull_mask(corners_xy: tuple[tuple[float, float], ...], size: int) -> torch.Tensor:
    """(size, size): 1 inside the convex polygon, 0 outside, linear in the distance to its nearest
    side within ±0.04, half on the side.

    corners_xy: clockwise on the screen (x right, y down), in fractions of the side. Values are
    taken at the pixels' centres.
    """
    centre = (torch.arange(size) + 0.5) / size
    x, y = centre[None, :], centre[:, None]
    inside = torch.full((size, size), float("inf"))
    for (x0, y0), (x1, y1) in zip(corners_xy, corners_xy[1:] + corners_xy[:1], strict=True):
        dx, dy = x1 - x0, y1 - y0
        inside = torch.minimum(inside, (dx * (y - y0) - dy * (x - x0)) / (dx * dx + dy * dy) ** 0.5)
    return (0.5 + inside / (2 * _SOFT)).clamp(0, 1)


def face_mask(size: int) -> torch.Tensor:
    """(size, size) in [0, 1]: the mean of the face mask and the organ mask (eyes, nose and mouth),
    so 0, about ½ and 1."""
    organs = torch.stack([hull_mask(organ, size) for organ in _ORGANS]).amax(0)
    return (hull_mask(_FACE, size) + organs) / 2


class Attention(nn.Module):
    """Weighs features by (1 + M), M (1, H, W) in [0, 1]: the face counts more than its
    surroundings and its organs more still.

    kind: `face` takes the fixed `face_mask`; `learned` lets a 1x1 convolution and a sigmoid make M
    from the features.
    """

    def __init__(self, channels: int, kind: str):
        super().__init__()
        if kind == "learned":
            self.mask_conv = nn.Conv2d(channels, 1, 1)
        else:
            self.mask_conv = None
            self.register_buffer("mask", face_mask(112)[None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, C, H, W) -> the same shape."""
        if self.mask_conv is not None:
            mask = torch.sigmoid(self.mask_conv(x))
        else:
            mask = nn.functional.adaptive_avg_pool2d(self.mask, x.shape[2:]).to(x.dtype)
        return torch.addcmul(x, x, mask)


def _separable(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        *conv_norm(channels, out, 1),
    ]


class XceptionBlock(nn.Module):
    """Xception's residual block with two separable convolutions: strided by max pooling with a 1x1
    shortcut, or with the identity."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        pool = [nn.MaxPool2d(3, stride, 1)] if stride > 1 else []
        first, second = _separable(channels, out), _separable(out, out)
        self.body = nn.Sequential(nn.ReLU(), *first, nn.ReLU(inplace=True), *second, *pool)
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(channels, out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.shortcut(x)


class Block3D(nn.Module):
    """A residual block of two 3x3x3 convolutions; `stride` holds for time, height and width."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        first, second = _norm3d(channels, out, 3, stride), _norm3d(out, out, 3, 1)
        self.body = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else _norm3d(channels, out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ADDNet3D(Detector):
    """ADDNet-3D, Zi et al., "WildDeepfake: A Challenging Real-World Dataset for Deepfake
    Detection", ACM Multimedia 2020 (arXiv 2101.01456).

    One ADD block, the same for each frame, extracts low-level features and raises the weight of
    the face's region in them by attention masks; a 3-D CNN classifies the sequence of what comes
    out. The source and the dataset's page give: the ADD block is built from Xception's residual
    blocks, is shared by the L frames, and the classifier is the part that is 3-D. Code, layer
    sizes and a number of parameters are not published, so that the rest is a reading:
        - Masks: the source draws a face mask and organ masks from each image's landmarks. The crop
          store holds no landmarks, but its crops are square boxes around upright faces, so that
          the masks are those of an average face in crop coordinates, soft enough for its variation
          (`mask="face"`). They are known beforehand and the same for real and fake, as the
          source's are; a mask that the network learns itself (`mask="learned"`) is the
          alternative.
        - Weight: features ⊙ (1 + M), "to increase the weight of the region", after the stem and
          after each stage of the ADD block.
        - ADD block: two 3x3 convolutions (w/2, w channels; the first strided), then stages 1 and 2
          of Xception blocks (2w and 4w channels).
        - Classifier: stages 3 and 4 of residual 3x3x3 blocks (4w and 8w channels), strided by two
          in time too; average pooling, one logit.
        - Weights: none exist for this network; it starts from scratch.

    Sampling: sparse, which is what the DIL paper says of this method; all U·T frames of a video
    are one sequence.

    Args:
        mask: `face` or `learned`, see above.
        depth: blocks in each of the four stages; the first block of each stage is strided by two
            (and changes the channels).
        width: w; the source's scale is Xception's, w = 64.
        stem: `imagenet`: stage 1 at a quarter of the input; `small`: at half of it, for small
            crops.
    """

    sampling = Sampling(train=16, test=32, frames=1, views=2)
    about = About(
        "ADDNet-3D", 2020, "forgery",
        "Zi et al., WildDeepfake: A Challenging Real-World Dataset for Deepfake Detection, ACM "
        "Multimedia 2020",
        "scratch",
    )  # fmt: skip

    def __init__(self, *, frames=1, mask="face", depth=(2, 2, 2, 2), width=64, stem="imagenet"):
        super().__init__()
        check_choice("ADDNet3D", "mask", mask, "face", "learned")
        check_choice("ADDNet3D", "stem", stem, "imagenet", "small")
        half, first_stride = max(width // 2, 1), 2 if stem == "imagenet" else 1
        start, end = conv_norm(3, half, 3, 2), conv_norm(half, width, 3)
        first = nn.Sequential(*start, nn.ReLU(inplace=True), *end, nn.ReLU(inplace=True))
        self.add_block = nn.Sequential(
            *(first, Attention(width, mask)),
            *_stage(XceptionBlock, width, 2 * width, depth[0], first_stride),
            Attention(2 * width, mask),
            *_stage(XceptionBlock, 2 * width, 4 * width, depth[1], 2),
            Attention(4 * width, mask),
        )
        self.classifier = nn.Sequential(
            *_stage(Block3D, 4 * width, 4 * width, depth[2], 2),
            *_stage(Block3D, 4 * width, 8 * width, depth[3], 2),
        )
        self.fc = Logit(8 * width)
        he_normal(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, U, T, 3, H, W) -> logits (B,)."""
        b, _, _ = check_input("ADDNet3D", x)
        low = self.add_block(x.flatten(0, 2).contiguous(memory_format=torch.channels_last))
        sequence = low.unflatten(0, (b, -1)).transpose(1, 2)  # B, C, U·T, H, W
        return self.fc(self.classifier(sequence).mean((2, 3, 4))).squeeze(1)


def _stage(block: type, channels: int, out: int, blocks: int, stride: int) -> list[nn.Module]:
    return [block(channels, out, stride), *(block(out, out, 1) for _ in range(blocks - 1))]


def _norm3d(channels: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv3d(channels, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(out))
