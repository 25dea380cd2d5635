"""Decoding video files with PyAV (FFmpeg), and sequences of numbered pictures with OpenCV."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np

from dfil.datasets.sequences import read_pictures
from dfil.faces.frame import Frame, square_pixels
from dfil.system.errors import DataError, MachineError, machine_fault

LOST = 0.95  # fewer frames than this share of those announced means a cut file
WAITING = 99  # packets of which it is known where they were; a decoder holds back 16 frames or so


class VideoError(DataError):
    """A video file from which no frame can be decoded."""


def decode(path: str | Path, notes: list[str] | None = None) -> Iterator[Frame]:
    """The frames that a player shows, in order, each once, however they are spaced in time.

    They are turned upright and their pixels are square. Where the file is damaged, frames are left
    out up to the next key frame, because FFmpeg conceals damage with made-up pixels, which must not
    pass for a forgery's traces; so are frames of another size than the first one. Frames marked
    `lost` stand for them, so that numbers stay right.
    `notes` receives a sentence about all that is unusual. Raises VideoError where not even one
    frame can be decoded, MachineError where the disk is at fault.
    """
    notes = [] if notes is None else notes
    with _opened(Path(path)) as (container, stream):
        reader = _Reader(container, stream)
        pixel = float(stream.sample_aspect_ratio or 1)
        pixel = pixel if 0.05 < pixel < 20 and abs(pixel - 1) > 0.01 else 1.0
        count, left_out, resized, shape, interlaced = 0, 0, 0, None, 0
        for decoded, lost in reader.frames():
            shown = square_pixels(decoded, pixel) if pixel != 1 else decoded
            turns = round(getattr(decoded, "rotation", 0) / 90)
            frame = Frame(shown, turns)
            shape = shape or (frame.width, frame.height)
            fits = (frame.width, frame.height) == shape
            if fits:
                whole = shown, turns
            for _ in range(lost + (not fits)):
                yield Frame(*whole, lost=True)
            if fits:
                yield frame
            count, left_out, resized = count + lost + 1, left_out + lost, resized + (not fits)
            interlaced += bool(decoded.interlaced_frame)
        if not count:
            raise VideoError(f"{path}: holds no intact video frame; fetch the file again.")
        notes += reader.notes
        if pixel != 1:
            size = f"{shape[0]}x{shape[1]}"
            notes.append(f"pixels {pixel:.3g} times as wide as high, shown as {size}")
        if interlaced > count / 2:
            notes.append("interlaced: a frame shows two moments; deinterlace it (ffmpeg -vf bwdif)")
        if resized:
            other = f"{resized} of {count} frames have another size than the first"
            notes.append(f"{other} and were left out; convert the video to one size")
        if left_out:
            places = f"{reader.places} place{'s' * (reader.places > 1)}"
            notes.append(f"damaged in {places}: {left_out} of {count} frames left out")
        announced = stream.frames - reader.hidden
        if reader.end:
            notes.append(f"truncated after {count} frames ({reader.end})")
        elif count < LOST * announced:
            notes.append(f"truncated after {count} frames of {announced}")


class _Reader:
    """Intact frames of a stream, and what is wrong with the others.

    places: damaged ones after which it went on. end: why it ended early. hidden: frames that are
    stored and not shown, as an edit list says.
    """

    def __init__(self, container, stream):
        self._packets, self.stream = container.demux(stream), stream
        self.places, self.hidden, self.end, self.notes = 0, 0, "", []
        videos = [s for s in container.streams.video if not _is_cover(s)]
        if len(videos) > 1:
            self.notes.append(f"stream {stream.index} of {len(videos)} video streams")

    def frames(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Each intact frame, and how many before it were lost."""
        last, steps, missed = None, Counter(), 0
        # Frames come later than their packets. By the packets' order, not by time, it is known what
        # comes after a damage: where streams were joined, the clock starts anew.
        damage, read = None, {}  # the last damaged packet's place in the file; places by time
        for place, (packet, decoded) in enumerate(self._decoded()):
            read[packet.pts] = place
            if len(read) > WAITING:
                del read[next(iter(read))]
            if decoded is None or packet.is_corrupt:
                damage, missed = place, missed + (decoded is None)
            for frame in decoded or ():
                at = read.pop(frame.pts, place)
                if frame.is_corrupt:
                    damage = at if damage is None else max(damage, at)
                after = damage is None or frame.key_frame and at > damage
                if not after or frame.is_corrupt:
                    missed += 1
                    continue
                lost = 0 if damage is None else max(1, _between(last, frame.pts, steps, missed))
                self.places += lost > 0
                if None not in (last, frame.pts) and not lost:
                    steps[frame.pts - last] += 1
                last, missed, damage = frame.pts, 0, None
                yield frame, lost
        if damage is not None:
            self.end = self.end or "the rest is damaged"

    def _decoded(self) -> Iterator[tuple[av.Packet, list | None]]:
        """Packets, and what came out of the decoder with them; None where it failed."""
        while True:
            try:
                packet = next(self._packets, None)
            except av.FFmpegError as error:
                self.end = error.strerror
                return
            if packet is None:
                return
            self.hidden += packet.is_discard
            try:
                yield packet, packet.decode()
            except av.FFmpegError:
                yield packet, None


def _between(last: int | None, now: int | None, steps: Counter, missed: int) -> int:
    """How many frames are between two times: by the usual step if that fits what was missed."""
    if None in (last, now) or not steps:
        return missed
    step, often = steps.most_common(1)[0]
    if step <= 0 or often < 0.9 * steps.total():
        return missed
    by_time = round((now - last) / step) - 1
    return by_time if abs(by_time - missed) <= 2 + missed else missed


def read_frames(path: str | Path, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """The frames of `decode`, each (H, W, 3) uint8 RGB."""
    for frame in decode(path, notes):
        yield frame.rgb()


def read_sequence(path: str | Path, notes: list[str] | None = None) -> dict[int, np.ndarray]:
    """The pictures of a sequence by their numbers, rising: each (H, W, 3) uint8 RGB, of one size.

    Pictures that cannot be decoded or have another size than the first are left out, with one
    sentence to `notes` for all of them. Raises VideoError where not even one can be decoded or the
    archive is damaged or refused.
    """
    try:
        encoded = read_pictures(path)
    except DataError as error:
        raise VideoError(str(error)) from error
    frames, bad = {}, []
    for number, content in encoded.items():
        buffer = np.frombuffer(content, np.uint8)
        image_hwc = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if content else None
        if image_hwc is None or (frames and image_hwc.shape != next(iter(frames.values())).shape):
            bad.append(number)
        else:
            frames[number] = cv2.cvtColor(image_hwc, cv2.COLOR_BGR2RGB)
    if not frames:
        raise VideoError(
            f"{path}: none of its {len(encoded)} pictures can be decoded; fetch it again."
        )
    if notes is not None and bad:
        many = f"{len(bad)} of {len(encoded)} pictures"
        notes.append(f"{many} damaged or of another size, the first is {bad[0]}")
    return frames


def count_frames(path: str | Path) -> int:
    """Number of frames that are shown, by the packets that are there; decodes nothing."""
    with _opened(Path(path)) as (container, stream):
        return sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))


def frame_rate(path: str | Path) -> float:
    """Frames a second, on average; 25 where the file does not say."""
    with _opened(Path(path)) as (_, stream):
        return float(stream.average_rate or 25)


@contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    """The file's container and the stream that a player shows.

    Raises VideoError for what is no video, MachineError for what cannot be read.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.I) and not path.exists():
        raise VideoError(f"{path}: is an address; fetch the video and give the file.")
    if path.is_dir():
        raise VideoError(f"{path}: is a folder; give the video files in it.")
    try:
        with open(path, "rb") as file:
            file.read(1)
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file; look at its name, or fetch it.") from error
    except OSError as error:
        raise MachineError(machine_fault(error) or f"{path}: {error.strerror}") from error
    try:
        # A file's name may hold a colon, before which FFmpeg would look for a protocol.
        with av.open(f"file:{path}", metadata_errors="replace") as container:  # titles in Latin-1
            stream = container.streams.best("video")
            if stream is None or _is_cover(stream):
                what = "no video stream" if stream is None else "only a cover picture"
                raise VideoError(f"{path}: has {what}; give a video file.")
            if stream.codec_context is None:  # a codec that FFmpeg does not know, or a broken name
                raise VideoError(f"{path}: no decoder for its video stream; convert it to H.264.")
            stream.codec_context.thread_count = 1  # parallel work is one video per process
            yield container, stream
    except av.FFmpegError as error:
        if fault := machine_fault(error):
            raise MachineError(fault) from error
        why = f"cannot be opened as a video ({error.strerror}); fetch the file again"
        raise VideoError(f"{path}: {why}.") from error


def _is_cover(stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)
