"""Decoding video files with PyAV (FFmpeg), and sequences of numbered pictures with OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from dfil.datasets.sequences import read_pictures
from dfil.errors import DataError

KEEP_BYTES = 256 * 2**20  # decoded frames that a Clip may hold: 48 frames of 320x320 are 15 MB, 500 of 1920x1080 are 3 GB
LOST = 0.95  # fewer frames than this share of those announced means a cut file; edit lists may rightly drop one or two


class VideoError(DataError):
    """A video file from which no frame can be decoded."""


def read_frames(path: str | Path, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """The frames of a video in display order, each (H, W, 3) uint8 RGB, turned as the file's rotation entry says.

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
            for frame in _intact(container, stream):
                image_hwc = np.rot90(frame.to_ndarray(format="rgb24"), k=round(getattr(frame, "rotation", 0) / 90))
                if shape is not None and image_hwc.shape != shape:
                    notes.append(f"frame size changes after {count} frames")
                    return
                shape = image_hwc.shape
                count += 1
                yield np.ascontiguousarray(image_hwc)
    except av.FFmpegError as error:  # before the first frame: not a video; later: cut or damaged
        if not count:
            raise VideoError(f"{path}: cannot be decoded ({error.strerror}); fetch the file again.") from error
        notes.append(f"truncated after {count} frames ({error.strerror})")
        return
    if not count:
        raise VideoError(f"{path}: holds no intact video frame; fetch the file again.")
    if count < LOST * announced:
        notes.append(f"truncated after {count} frames of {announced}")


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
        image_hwc = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        if image_hwc is None or (frames and image_hwc.shape != next(iter(frames.values())).shape):
            bad.append(number)
        else:
            frames[number] = cv2.cvtColor(image_hwc, cv2.COLOR_BGR2RGB)
    if not frames:
        raise VideoError(f"{path}: none of its {len(encoded)} pictures can be decoded; fetch it again.")
    if notes is not None and bad:
        notes.append(f"{len(bad)} of {len(encoded)} pictures damaged or of another size, the first is {bad[0]}")
    return frames


def count_frames(path: str | Path) -> int:
    """Number of frames by the container's word, or by counting packets (nothing is decoded). Raises VideoError."""
    path = Path(path)
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            return stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
    except av.FFmpegError as error:
        raise VideoError(f"{path}: cannot be opened as a video ({error.strerror}); fetch the file again.") from error


class Clip:
    """A video that can be gone through several times; `for frame_hwc in clip`.

    Frames stay in memory while they fit into KEEP_BYTES; a longer video is decoded again. After the first complete pass
    `count` is its number of frames and `notes` says what was wrong with the file, if anything.
    """

    def __init__(self, path: str | Path):
        self.path, self.notes, self.count = Path(path), [], None
        self._kept: list[np.ndarray] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        if self._kept is not None:
            yield from self._kept
            return
        notes, kept, count = [], [], 0
        for frame_hwc in read_frames(self.path, notes):
            count += 1
            if kept is not None:
                kept.append(frame_hwc)
                if len(kept) * frame_hwc.nbytes > KEEP_BYTES:
                    kept = None
            yield frame_hwc
        self._kept, self.count, self.notes = kept, count, notes


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
