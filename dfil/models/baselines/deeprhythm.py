"""DeepRhythm: a map of how the face's colour beats, magnified, with attention over its blocks and
frames."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d, normalize
from torchvision.models.resnet import BasicBlock

from dfil.models.baselines.frames import ClipDetector, to_unit_range
from dfil.models.detector import About, Sampling, check_choice
from dfil.models.logit import exactly
from dfil.models.resnet import conv_norm

GRID = 5  # blocks across and down the face
CHEEKS = (3, 8, 12, 14, 17, 19)  # blocks that the prior attends to [code]
BAND = (0.833, 2.0)  # Hz: 50 to 120 beats a minute [code]
MAGNIFIED = 10.0  # times [code]
RATE = 25.0  # frames per second
MARGIN = 1.3  # of the project's crops: their side over the face box's
REACH = 15  # frames of the spatial attention's filter and of its pooling [code]


class DeepRhythm(ClipDetector):
    """DeepRhythm (Qi et al., ACM Multimedia 2020): blood makes skin pulse, and a forgery breaks it.

    From the source's code [code]: 5 x 5 blocks of the face, the mean colour of each in every frame,
    ten times what lies between 0.833 and 2 Hz added: a map of T x 25 x 3. Spatial attention s
    by a filter along time and a dense layer, temporal attention t by an LSTM over the frames, a
    prior p on six blocks, and a MesoInception-4's verdict m on every frame:

        A = t s^T + p,    W = alpha m A + beta m,    logit = ResNet-18(W * map)

    What is read, and how:
    - 32 frames; the source has 300, ten seconds. The band-pass then leaves one frequency, 1.6 Hz,
      and of a heart's beat one or two periods. Where fewer frames follow each other (16 in the
      stretches that are kept of real videos by default) the last one is held.
    - For maps so short ResNet-18 goes without its max pooling, and its last map is averaged.
    - Every frame is cut by its own box; the code levels the eyes by 81 landmarks, and blacks out
      eyes and background. Blocks lie in the face's box.
    - 25 frames a second: the models are not told.
    - The map is magnified after the blocks' means were taken, which is the same, as both are
      linear, up to the pyramid's first level; and each block's mean over time is subtracted, so
      that how the face looks is left to m.
    - alpha and beta are learnt from 1. m is the mean over the frame's places, at any size.
    - The weights of the epoch that all methods are selected by; the authors' are chosen on a block
      of test videos [code].

    Args:
        frames: T, at least 29.
        depth: of the ResNet it stands beside; ResNet-18's stages have min(2, depth) blocks.
        width: channels of ResNet-18's first stage and of the filter; the LSTM has 300 width / 64
            units.
        stem: accepted and ignored: the maps are small.
    """

    sampling = Sampling(train=1, test=1, frames=32)
    about = About(
        "DeepRhythm", 2020, "forgery",
        "Qi et al., DeepRhythm: Exposing DeepFakes with Attentional Visual Heartbeat Rhythms, ACM "
        "Multimedia 2020",
        "scratch", 23.0, "about 23 million of the authors' code, at 300 frames",
        note="32 frames in place of 300: a heart beats once or twice in them, and in built-in "
        "faces not at all",
    )  # fmt: skip

    def __init__(self, *, frames: int = 300, depth=(3, 4, 6, 3), width=64, stem="imagenet"):
        super().__init__()
        check_choice("DeepRhythm", "stem", stem, "imagenet", "small")
        left = frames - 2 * (REACH - 1)
        if left < 1:
            raise ValueError(f"DeepRhythm needs at least {2 * REACH - 1} frames, not {frames}")
        self.frames, blocks, units = frames, GRID * GRID, 300 * width // 64
        self.along = nn.Sequential(
            nn.Conv2d(3, width, (REACH, 1)), nn.ReLU(inplace=True), nn.BatchNorm2d(width),
            nn.MaxPool2d((REACH, 1), 1), nn.Flatten(), nn.Linear(width * left * blocks, blocks),
        )  # fmt: skip
        self.lstm = nn.LSTM(3 * blocks, units, batch_first=True)
        self.moments = nn.Linear(units, frames)
        self.verdict = MesoInception()
        self.mix = nn.Parameter(torch.ones(2))  # alpha, beta
        prior = torch.zeros(blocks).index_fill_(0, torch.tensor(CHEEKS), 1.0)
        self.register_buffer("prior", prior, persistent=False)
        self.resnet = _resnet18(depth, width)

    def clip_logits(self, clips_ntchw: torch.Tensor) -> torch.Tensor:
        """Clips (N, T, 3, H, W) -> logits (N,)."""
        with exactly(clips_ntchw):  # a pulse is less than a grey level: never in bfloat16
            map_n3tb = rhythm(clips_ntchw)
            s_nb = normalize(self.along(map_n3tb), dim=1)
            states_ntc, _ = self.lstm(map_n3tb.permute(0, 2, 3, 1).flatten(2))
            t_nt = normalize(self.moments(states_ntc[:, -1]), dim=1)
            attention = t_nt[:, :, None] * s_nb[:, None] + self.prior  # N, T, blocks
            frames = clips_ntchw.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            m_nt = torch.sigmoid(self.verdict(frames))
            m_nt1 = m_nt.unflatten(0, clips_ntchw.shape[:2])[..., None]
            alpha, beta = self.mix
            weights = alpha * m_nt1 * attention + beta * m_nt1
            return self.resnet(weights[:, None] * map_n3tb).squeeze(1)


def rhythm(clips_ntchw: torch.Tensor) -> torch.Tensor:
    """The magnified map of ImageNet-normalised clips: (N, T, 3, H, W) -> (N, 3, T, 25).

    A block's colour less its mean over time, plus MAGNIFIED times the part of it in BAND; 0 to 255
    has become -1 to 1.
    """
    n, t, _, h, w = clips_ntchw.shape
    top, left = (round(side * (1 - 1 / MARGIN) / 2) for side in (h, w))
    face = to_unit_range(clips_ntchw[..., top : h - top, left : w - left].float())
    blocks = adaptive_avg_pool2d(face.flatten(0, 1), GRID).reshape(n, t, 3, -1).transpose(1, 2)
    blocks = blocks - blocks.mean(2, keepdim=True)
    frequency = torch.fft.rfftfreq(t, 1 / RATE, device=clips_ntchw.device)
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    beats = torch.fft.irfft(torch.fft.rfft(blocks, dim=2) * inside[:, None], n=t, dim=2)
    return blocks + MAGNIFIED * beats


class MesoInception(nn.Module):
    """MesoInception-4 (Afchar et al., WIFS 2018) [memory]: frames (N, 3, H, W) -> logits (N,)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = _Inception(3, (1, 4, 4, 2)), _Inception(11, (2, 4, 4, 2))
        self.third = nn.Sequential(nn.Conv2d(12, 16, 5, padding=2), nn.ReLU(), nn.BatchNorm2d(16))
        self.fourth = nn.Sequential(nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.BatchNorm2d(16))
        self.fc = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.first, self.second, self.third):
            x = max_pool2d(layer(x), 2)
        return self.fc(self.fourth(x).mean((2, 3))).squeeze(1)


class _Inception(nn.Module):
    """A 1x1 convolution beside three of it and a 3x3 one, dilated 1, 2 and 3."""

    def __init__(self, channels: int, out: tuple[int, int, int, int]):
        super().__init__()
        one, *others = out
        branches = [nn.Sequential(nn.Conv2d(channels, one, 1), nn.ReLU())]
        for dilation, c in enumerate(others, 1):
            wide = nn.Conv2d(c, c, 3, padding=dilation, dilation=dilation)
            branches.append(nn.Sequential(nn.Conv2d(channels, c, 1), nn.ReLU(), wide, nn.ReLU()))
        self.branches, self.norm = nn.ModuleList(branches), nn.BatchNorm2d(sum(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(torch.cat([branch(x) for branch in self.branches], 1))


def _resnet18(depth: tuple[int, ...], width: int) -> nn.Sequential:
    """ResNet-18 with one logit for maps (N, 3, T, 25): torchvision's blocks at any width."""
    layers = [conv_norm(3, width, 7, 2), nn.ReLU(inplace=True)]
    channels = width
    for stage, there in enumerate(depth):
        out, stride = width * 2**stage, 1 if stage == 0 else 2
        for block in range(min(2, there)):
            down = conv_norm(channels, out, 1, stride) if block == 0 and stage else None
            layers.append(BasicBlock(channels, out, 1 if block else stride, down))
            channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))
