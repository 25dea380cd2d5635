"""Clips to measure on. Some whose truth is known: built-in heads that move through a larger,
panning scene. And real footage, rescaled.

One walks about, two cross, of two one leaves, and a hand passes over the one who walks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from math import sin
from pathlib import Path

import av
import cv2
import numpy as np

from dfil.datasets.adapter import videos_in
from dfil.faces.video import count_frames, read_frames
from dfil.synthetic import SETTINGS, render_target
from dfil.synthetic.codec import X264
from dfil.system.errors import DataError

SIDE = 320  # pixels of a rendered head's frame
FACE = 125  # pixels of the face in it, about
DRAWN = 60  # frames of a head that are drawn; they are shown forwards and backwards
# grey levels at most that the sensor adds; at crf 23 a clip then has about 1.3 Mbit a second at
# 720p, 3.9 at 1080p
NOISE = 7
GRAIN = 5  # grey levels, standard deviation, in real footage that is rescaled

# Frame -> centre x, y and scale of a head; None where it is not there.
Path_ = Callable[[int], tuple[float, float, float] | None]


@dataclass(frozen=True)
class Scene:
    """paths: of each person's head, later ones in front; hand: of one before them all. size: width
    and height of the picture. frames: how many."""

    name: str
    paths: tuple[Path_, ...]
    size: tuple[int, int]
    frames: int
    hand: Path_ = lambda t: None


@cache
def rendered() -> list[np.ndarray]:
    """Two heads, (DRAWN, SIDE, SIDE, 3) each."""
    made = [render_target(k, k + 1, SETTINGS["ff-like"], methods=(), frames=DRAWN) for k in (0, 1)]
    return [next(iter(clips)).frames_thwc for clips in made]


def scenes(height: int, frames: int) -> tuple[Scene, ...]:
    """One person walking about, two crossing, two of whom one leaves, and the walking one again, a
    hand passing over the face every few seconds; 16:9."""
    width, scale = round(height * 16 / 9 / 2) * 2, 1.3 * height / 720

    def walking(t: int) -> tuple[float, float, float]:
        x = 0.5 + 0.12 * sin(t / 60) + 0.01 * sin(t / 9)  # half a face's width a second
        y = 0.47 + 0.05 * sin(t / 45) + 0.008 * sin(t / 8)
        return width * x, height * y, scale * (1 + 0.15 * sin(t / 50))

    def across(start: float, stop: float, y: float, size: float) -> Path_:
        return lambda t: (width * (start + (stop - start) * t / frames), height * y, scale * size)

    def staying(t: int) -> tuple[float, float, float]:
        return width * (0.3 + 0.01 * sin(t / 9)), height * 0.45, 0.9 * scale

    def leaving(t: int) -> tuple[float, float, float] | None:
        x = 0.65 + max(0.0, t / frames - 0.3) * 1.0
        return (width * x, height * 0.5, 1.1 * scale) if x < 1.15 else None

    def hand(t: int) -> tuple[float, float, float]:
        return width * (0.5 + 0.3 * sin(t / 15)), height * 0.55, scale

    crossing = across(0.2, 0.8, 0.45, 1.0), across(0.8, 0.2, 0.5, 1.08)
    return (
        Scene("walking", (walking,), (width, height), frames),
        Scene("crossing", crossing, (width, height), frames),
        Scene("leaving", (staying, leaving), (width, height), frames),
        Scene("occluded", (walking,), (width, height), frames, hand),
    )


def write(path: Path, scene: Scene, seed: int = 0, pixels: str = "yuv420p") -> Path:
    """The scene as H.264 at crf 23."""
    return encode(path, draw(scene, rendered(), seed), pixels)


def encode(path: Path, frames_hwc: Iterable[np.ndarray], pixels: str) -> Path:
    """RGB frames of one size as H.264 at crf 23."""
    options = {"crf": "23", "preset": "medium", **X264}
    rest_hwc = iter(frames_hwc)
    first_hwc = next(rest_hwc)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        (stream.height, stream.width), stream.pix_fmt = first_hwc.shape[:2], pixels
        for frame_hwc in chain([first_hwc], rest_hwc):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_hwc, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def footage(folder: Path) -> list[Path]:
    """A folder's videos, the longest first. Raises DataError if there is none."""
    found = videos_in(folder, (".mp4", ".mov", ".mkv", ".avi", ".webm"))
    if not found:
        raise DataError(f"{folder}: no video in it; name a folder of MP4, MOV or MKV files.")
    return sorted(found, key=count_frames, reverse=True)


def rescaled(video: Path, height: int, frames: int) -> Iterator[np.ndarray]:
    """The first frames of a video at another height, with the grain that rescaling takes away."""
    rng = np.random.default_rng(0)
    for frame_hwc in islice(read_frames(video), frames):
        size = round(frame_hwc.shape[1] * height / frame_hwc.shape[0] / 2) * 2, height
        way = cv2.INTER_AREA if height < len(frame_hwc) else cv2.INTER_CUBIC
        frame_hwc = cv2.resize(frame_hwc, size, interpolation=way)
        grain_hwc = GRAIN * rng.standard_normal(frame_hwc.shape, np.float32)
        yield np.clip(frame_hwc + grain_hwc, 0, 255).astype(np.uint8)


def draw(scene: Scene, heads: Sequence[np.ndarray], seed: int = 0) -> Iterator[np.ndarray]:
    """The scene's frames, (height, width, 3) uint8 RGB. heads: (T, 320, 320, 3) each, shown
    forwards and backwards."""
    rng, (width, height) = np.random.default_rng(seed), scene.size
    behind_hwc = _background(rng, width + width // 4, height + height // 4)
    grain_hw = rng.integers(0, NOISE + 1, (height + 64, width + 64), np.uint8)
    grain_hwc = np.repeat(grain_hw[..., None], 3, -1)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    away_hw = ((columns - 160) / 118) ** 2 + ((rows - 150) / 140) ** 2
    inside_hw = np.clip((1 - away_hw) * 6, 0, 1)  # head and hair, without the room
    for t in range(scene.frames):
        x = int((0.5 + 0.5 * sin(t / 60)) * (width // 4 - 1))
        y = int((0.5 + 0.5 * sin(t / 83)) * (height // 4 - 1))
        frame_hwc = behind_hwc[y : y + height, x : x + width].copy()
        for head_thwc, path in zip(heads, scene.paths, strict=False):
            if (at := path(t)) is not None:
                turn = t % (2 * len(head_thwc) - 2)
                turn = min(turn, 2 * len(head_thwc) - 2 - turn)
                _place(frame_hwc, head_thwc[turn], inside_hw, at)
        if (at := scene.hand(t)) is not None:
            centre, axes = (int(at[0]), int(at[1])), (int(34 * at[2]), int(80 * at[2]))
            cv2.ellipse(frame_hwc, centre, axes, 15, 0, 360, (178, 134, 112), -1)
        y, x = rng.integers(0, 64, 2)
        yield cv2.add(frame_hwc, grain_hwc[y : y + height, x : x + width])


def _place(
    frame_hwc: np.ndarray,
    head_hwc: np.ndarray,
    inside_hw: np.ndarray,
    at: tuple[float, float, float],
) -> None:
    (height, width), (x, y, scale) = frame_hwc.shape[:2], at
    left, top = max(0, int(x - 165 * scale)), max(0, int(y - 155 * scale))
    right, bottom = min(width, int(x + 165 * scale)), min(height, int(y + 172 * scale))
    if left >= right or top >= bottom:
        return
    map_ = np.float32([[scale, 0, x - 160 * scale - left], [0, scale, y - 150 * scale - top]])
    size = right - left, bottom - top
    head_hwc = cv2.warpAffine(head_hwc, map_, size, borderMode=cv2.BORDER_REPLICATE)
    share_hw = cv2.warpAffine(inside_hw, map_, size)[..., None]
    part_hwc = frame_hwc[top:bottom, left:right]
    part_hwc[:] = part_hwc + (head_hwc.astype(np.float32) - part_hwc) * share_hw


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 8):
        coarse = rng.standard_normal((2**octave * 9 // 16 + 1, 2**octave, 3), dtype=np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    low, high = picture.min(), picture.max()
    return ((picture - low) / (high - low) * 200 + 20).astype(np.uint8)
