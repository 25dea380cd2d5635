"""Decoding video files with PyAV (FFmpeg), and sequences of numbered pictures with OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from dfil.datasets.sequences import read_pictures
from dfil.system.errors import DataError

LOST = 0.95  # fewer frames than this share of those announced means a cut file; edit lists may rightly drop one or two
SLICED = (
    "yuv420p",
    "yuvj420p",
)  # 8 bits, chroma halved: almost every video; a part of such a frame can be converted by itself
LUMA_FIRST = (
    *SLICED,
    "yuv422p",
    "yuvj422p",
    "yuv444p",
    "yuvj444p",
    "nv12",
    "gray",
)  # the first plane is the brightness, 8 bits
_to = (
    VideoReformatter()
)  # keeps its tables from frame to frame, which a frame's own conversion would make anew each time


class VideoError(DataError):
    """A video file from which no frame can be decoded."""


class Frame:
    """A decoded frame as the decoder left it, turned as the file's rotation entry says; only what is asked for is converted.

    width, height: pixels as shown. Two thirds of the work of "decode to RGB, then look at the face" is the conversion of pixels that
    nobody looks at, so a frame gives its brightness without copying (`luma_hw`) and the colours of a part (`rgb`).
    """

    def __init__(self, decoded: av.VideoFrame, turns: int = 0):
        """turns: quarter turns counterclockwise from how it was decoded to how it is shown."""
        self._decoded, self._turns = decoded, turns % 4
        across = decoded.width, decoded.height
        self.width, self.height = across[::-1] if self._turns % 2 else across

    @cached_property
    def luma_hw(self) -> np.ndarray:
        """Brightness (H, W) uint8, read only; in the file's own range, which may be 16 to 235."""
        decoded = (
            self._decoded
            if self._decoded.format.name in LUMA_FIRST
            else _to.reformat(self._decoded, format="gray", threads=1)
        )
        return np.rot90(_plane(decoded, 0)[: decoded.height, : decoded.width], self._turns)

    def rgb(
        self, x0: int = 0, y0: int = 0, x1: int | None = None, y1: int | None = None
    ) -> np.ndarray:
        """The part [y0, y1) x [x0, x1), default all: (h, w, 3) uint8 RGB, the very pixels of the whole frame."""
        x1, y1 = x1 or self.width, y1 or self.height
        wide, high = self._decoded.width, self._decoded.height
        left, top, right, bottom = (  # where the part lies before the turn
            (x0, y0, x1, y1),
            (wide - y1, x0, wide - y0, x1),
            (wide - x1, high - y1, wide - x0, high - y0),
            (y0, high - x1, y1, high - x0),
        )[self._turns]
        whole = (left, top, right, bottom) == (0, 0, wide, high)
        if whole or self._decoded.format.name not in SLICED or wide % 2 or high % 2:
            part_hwc = self._rgb_hwc[top:bottom, left:right]
        else:
            a, b = left // 2 * 2, top // 2 * 2
            part_hwc = self._convert(a, b, (right + 1) // 2 * 2, (bottom + 1) // 2 * 2)[
                top - b : bottom - b, left - a : right - a
            ]
        return (
            np.ascontiguousarray(np.rot90(part_hwc, self._turns))
            if self._turns or whole
            else part_hwc
        )

    @cached_property
    def _rgb_hwc(self) -> np.ndarray:
        return _to.reformat(self._decoded, format="rgb24", threads=1).to_ndarray()

    def _convert(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """RGB of a part with even corners, from a small frame with only that part's samples."""
        planes = np.empty(((bottom - top) * 3 // 2, right - left), np.uint8)
        luma, chroma = (
            planes[: bottom - top],
            planes[bottom - top :].reshape(2, (bottom - top) // 2, (right - left) // 2),
        )
        luma[:] = _plane(self._decoded, 0)[top:bottom, left:right]
        for k in range(2):
            chroma[k] = _plane(self._decoded, k + 1)[top // 2 : bottom // 2, left // 2 : right // 2]
        part = av.VideoFrame.from_ndarray(planes, format=self._decoded.format.name)
        part.colorspace, part.color_range = self._decoded.colorspace, self._decoded.color_range
        return _to.reformat(part, format="rgb24", threads=1).to_ndarray()


def _plane(decoded: av.VideoFrame, k: int) -> np.ndarray:
    plane = decoded.planes[k]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)


def decode(path: str | Path, notes: list[str] | None = None) -> Iterator[Frame]:
    """The frames of a video in display order, each once, however they are spaced in time.

    A file that ends early, or breaks inside, yields the frames before that place; frames after it would have the wrong number.
    `notes` receives one sentence about it. Raises VideoError where not even one frame can be decoded.
    """
    path = Path(path)
    notes = [] if notes is None else notes
    count, shape, announced = 0, None, 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            announced = stream.frames
            for decoded in _intact(container, stream):
                frame = Frame(decoded, round(getattr(decoded, "rotation", 0) / 90))
                if shape is not None and (frame.width, frame.height) != shape:
                    notes.append(f"frame size changes after {count} frames")
                    return
                shape = frame.width, frame.height
                count += 1
                yield frame
    except av.FFmpegError as error:  # before the first frame: not a video; later: cut or damaged
        if not count:
            raise VideoError(
                f"{path}: cannot be decoded ({error.strerror}); fetch the file again."
            ) from error
        notes.append(f"truncated after {count} frames ({error.strerror})")
        return
    if not count:
        raise VideoError(f"{path}: holds no intact video frame; fetch the file again.")
    if count < LOST * announced:
        notes.append(f"truncated after {count} frames of {announced}")


def read_frames(path: str | Path, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """The frames of `decode`, each (H, W, 3) uint8 RGB."""
    for frame in decode(path, notes):
        yield frame.rgb()


def read_sequence(path: str | Path, notes: list[str] | None = None) -> dict[int, np.ndarray]:
    """The pictures of a sequence (dfil.datasets.sequences) by their numbers, rising: each (H, W, 3) uint8 RGB, all of one size.

    Pictures that cannot be decoded or have another size than the first are left out, with one sentence to `notes` for all of them.
    Raises VideoError where not even one picture can be decoded or the archive is damaged or refused.
    """
    try:
        encoded = read_pictures(path)
    except DataError as error:
        raise VideoError(str(error)) from error
    frames, bad = {}, []
    for number, content in encoded.items():
        image_hwc = (
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        )
        if image_hwc is None or (frames and image_hwc.shape != next(iter(frames.values())).shape):
            bad.append(number)
        else:
            frames[number] = cv2.cvtColor(image_hwc, cv2.COLOR_BGR2RGB)
    if not frames:
        raise VideoError(
            f"{path}: none of its {len(encoded)} pictures can be decoded; fetch it again."
        )
    if notes is not None and bad:
        notes.append(
            f"{len(bad)} of {len(encoded)} pictures damaged or of another size, the first is {bad[0]}"
        )
    return frames


def count_frames(path: str | Path, by_packets: bool = False) -> int:
    """Number of frames by the container's word, or by the packets that are there; decodes nothing. Raises VideoError."""
    path = Path(path)
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            announced = 0 if by_packets else stream.frames
            return announced or sum(packet.size > 0 for packet in container.demux(stream))
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: cannot be opened as a video ({error.strerror}); fetch the file again."
        ) from error


def _video_stream(container, path: Path):
    if not container.streams.video:
        raise VideoError(f"{path}: has no video stream; give a video file.")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # parallel work is one video per process
    return stream


def _intact(container, stream) -> Iterator[av.VideoFrame]:
    """Frames up to the first damaged one: FFmpeg conceals damage with made-up pixels, which must not pass for a forgery's traces."""
    for packet in container.demux(stream):
        if packet.is_corrupt:
            return
        for frame in packet.decode():
            if frame.is_corrupt:
                return
            yield frame
