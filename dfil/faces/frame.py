"""A decoded frame, of which only what is asked for becomes colours.

Two thirds of the work of "decode to RGB, then look at the face" is the conversion of pixels that
nobody looks at. So a frame gives its brightness without copying, the colours of a part, and the
samples of a part as the decoder left them, which take half the memory of its colours or less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

# Planar formats of 8 bits, and how many pixels share a colour sample, across and down. A part of
# such a frame can be converted by itself (one of yuv422p comes out a grey level off).
SHARED = {"yuv420p": 2, "yuvj420p": 2, "yuv444p": 1, "yuvj444p": 1}
LUMA_FIRST = (*SHARED, "yuv422p", "yuvj422p", "nv12", "gray")  # the first plane is the brightness
STEP = 64  # pixels: by which the sizes of parts differ that are converted to colours
_to = VideoReformatter()  # keeps its tables from frame to frame


@dataclass(frozen=True)
class Part:
    """The samples of a part of a frame: all planes one after another.

    size: (width, height) in samples. inner: left, top, right, bottom of what was asked for in it.
    """

    samples: np.ndarray
    format: str
    size: tuple[int, int]
    inner: tuple[int, int, int, int]
    turns: int = 0
    colours: tuple = ()  # colorspace and color_range of the frame

    def rgb(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB: the very pixels of the whole frame."""
        (wide, high), (left, top, right, bottom) = self.size, self.inner
        if self.format == "rgb24":
            whole_hwc = self.samples.reshape(high, wide, 3)
        else:
            # In whole steps, because for each new size the converter makes its tables anew.
            frame, at = av.VideoFrame(_up(wide, STEP), _up(high, STEP), self.format), 0
            for k, (w, h) in enumerate(_plane_sizes(self.format, wide, high)):
                _plane(frame, k)[:h, :w] = self.samples[at : at + w * h].reshape(h, w)
                at += w * h
            frame.colorspace, frame.color_range = self.colours
            whole_hwc = _rgb_of(frame)
        part_hwc = whole_hwc[top:bottom, left:right]
        return np.ascontiguousarray(np.rot90(part_hwc, self.turns)) if self.turns else part_hwc


class Frame:
    """A frame as the decoder left it, turned as the file's rotation entry says.

    width, height: pixels as shown. lost: it stands for one that could not be decoded.
    """

    def __init__(self, decoded: av.VideoFrame, turns: int = 0, lost: bool = False):
        """turns: quarter turns counterclockwise from how it was decoded to how it is shown."""
        self._decoded, self._turns, self.lost = decoded, turns % 4, lost
        across = decoded.width, decoded.height
        self.width, self.height = across[::-1] if self._turns % 2 else across

    @property
    def seconds(self) -> float | None:
        """When it is shown, by the file's clock; None where the file does not say."""
        return self._decoded.time

    @classmethod
    def of(cls, picture_hwc: np.ndarray) -> Frame:
        """A picture, RGB uint8, as a frame."""
        return cls(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_hwc), format="rgb24"))

    @cached_property
    def luma_hw(self) -> np.ndarray:
        """Brightness (H, W) uint8, read only; in the file's own range, which may be 16 to 235."""
        decoded = self._decoded
        if decoded.format.name not in LUMA_FIRST:
            decoded = _to.reformat(decoded, format="gray", threads=1)
        return np.rot90(_plane(decoded, 0)[: decoded.height, : decoded.width], self._turns)

    def rgb(
        self, x0: int = 0, y0: int = 0, x1: int | None = None, y1: int | None = None
    ) -> np.ndarray:
        """The part [y0, y1) x [x0, x1), default all: (h, w, 3) uint8 RGB, contiguous if all."""
        if (x0, y0, x1, y1) == (0, 0, None, None):
            return np.ascontiguousarray(np.rot90(self._rgb_hwc, self._turns))
        return self.part(x0, y0, x1 or self.width, y1 or self.height).rgb()

    def part(self, x0: int, y0: int, x1: int, y1: int) -> Part:
        """The samples of the part [y0, y1) x [x0, x1), copied, so that the frame can be let go."""
        decoded, wide, high = self._decoded, self._decoded.width, self._decoded.height
        left, top, right, bottom = (  # where the part lies before the turn
            (x0, y0, x1, y1),
            (wide - y1, x0, wide - y0, x1),
            (wide - x1, high - y1, wide - x0, high - y0),
            (y0, high - x1, y1, high - x0),
        )[self._turns]
        shared = SHARED.get(decoded.format.name, 0)
        if not shared or wide % shared or high % shared:
            samples = self._rgb_hwc[top:bottom, left:right].ravel()
            size = right - left, bottom - top
            return Part(samples, "rgb24", size, (0, 0, *size), self._turns)
        a, b = left // shared * shared, top // shared * shared
        size = _up(right - a, shared), _up(bottom - b, shared)
        inner = left - a, top - b, right - a, bottom - b
        name, colours = decoded.format.name, (decoded.colorspace, decoded.color_range)
        sizes, at = _plane_sizes(name, *size), 0
        samples = np.empty(sum(w * h for w, h in sizes), np.uint8)
        for k, (w, h) in enumerate(sizes):
            x, y = (a, b) if k == 0 else (a // shared, b // shared)
            samples[at : at + w * h].reshape(h, w)[:] = _plane(decoded, k)[y : y + h, x : x + w]
            at += w * h
        return Part(samples, name, size, inner, self._turns, colours)

    @cached_property
    def _rgb_hwc(self) -> np.ndarray:
        return _rgb_of(self._decoded)


def square_pixels(decoded: av.VideoFrame, shape: float) -> av.VideoFrame:
    """A frame whose pixels are `shape` times as wide as high, enlarged so that they are square."""
    wide = round(decoded.width * max(1, shape) / 2) * 2
    high = round(decoded.height * max(1, 1 / shape) / 2) * 2
    return decoded.reformat(width=wide, height=high, interpolation="BICUBIC", threads=1)


def _rgb_of(frame: av.VideoFrame) -> np.ndarray:
    """(h, w, 3) uint8 RGB. FFmpeg turns yuv444p into three planes several times as fast as into
    pixels, and to the same values."""
    if SHARED.get(frame.format.name) != 1:
        return _to.reformat(frame, format="rgb24", threads=1).to_ndarray()
    planes = _to.reformat(frame, format="gbrp", threads=1)
    return cv2.merge([_plane(planes, k)[: frame.height, : frame.width] for k in (2, 0, 1)])


def _up(length: int, step: int) -> int:
    """The next multiple of a step."""
    return -(-length // step) * step


def _plane_sizes(format: str, wide: int, high: int) -> list[tuple[int, int]]:
    return [(wide, high), *[(wide // SHARED[format], high // SHARED[format])] * 2]


def _plane(frame: av.VideoFrame, k: int) -> np.ndarray:
    plane = frame.planes[k]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
