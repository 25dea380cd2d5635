"""Frames in which a face is the very one of the frame before: a still picture, or frames shown
twice. Only coding noise changes there, and what a detector has learnt of moving faces says nothing.

A picture is shrunk to 256 pixels across and cut into squares of 8. A square has changed if its
brightness differs by more than half a grey level on average; the face is the one before if at most
a tenth of its squares have. Share of such frames, measured on at most 60 frames each:

    talking heads, as filmed and at crf 32 and 40                .00 to .03
    signing people whose heads rest, as filmed                   .00 to .14
    the one of them that rests most, at crf 18, 28 and 36        .23, .26, .54
    built-in clips                                               .00
    every frame twice, up to crf 23 or in MPEG-4                 .43 to .51
    five pictures a second, each shown five times                .82
    a still picture (H.264 at crf 12 to 40, MPEG-4)              .94 to 1.00
    a still picture of a coder that keeps refreshing it          .65 (MJPEG), .85 (MPEG-2)

Frames shown twice and coded worse than that differ as much as a head that rests does, and go unseen
(.13 to .28 at crf 28).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dfil.faces.frame import Frame
from dfil.faces.kept import Track

ACROSS, CELL = 256, 8  # pixels
WIDE = ACROSS // CELL // 8  # bytes of a row of squares
CHANGED, FEW = 0.5, 0.1  # grey levels of a square; share of a face's squares
STILL = 0.9  # share of frames like the one before from which on it is a still picture
NOTABLE = 1 / 3  # and from which on it is said


class Changes:
    """Which squares of the picture change from each frame to the next, a bit each."""

    def __init__(self):
        self.before_hw: np.ndarray | None = None
        self.shape = (0, 0)
        self.packed = bytearray()

    def add(self, frame: Frame) -> None:
        """The next frame."""
        high = max(1, round(ACROSS / CELL * frame.height / frame.width))
        self.shape = high, ACROSS // CELL
        luma_hw = np.ascontiguousarray(frame.luma_hw)
        now_hw = cv2.resize(luma_hw, (ACROSS, high * CELL), interpolation=cv2.INTER_AREA)
        before_hw = 255 - now_hw if self.before_hw is None else self.before_hw
        change_hw = cv2.absdiff(now_hw, before_hw).astype(np.float32)
        cells_hw = cv2.resize(change_hw, self.shape[::-1], interpolation=cv2.INTER_AREA)
        self.packed += np.packbits(cells_hw > CHANGED, axis=1).tobytes()  # 72 bytes at 16:9
        self.before_hw = now_hw

    def repeats(self, track: Track, source: tuple[int, int]) -> tuple[int, int]:
        """In how many frames somebody's face is the one of the frame before, and of how many that
        can be said. source: (width, height) of the picture."""
        pairs = np.flatnonzero(track.valid_n[1:] & track.valid_n[:-1]) + 1
        to_cells = np.tile(self.shape[::-1], 2) / np.tile(source, 2)
        packed_nhw = np.frombuffer(bytes(self.packed), np.uint8).reshape(-1, self.shape[0], WIDE)
        same = 0
        for n in pairs.tolist():
            x0, y0, x1, y1 = np.maximum(0, track.boxes_n4[n] * to_cells)
            bits_hw = np.unpackbits(packed_nhw[n], axis=1)
            face_hw = bits_hw[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
            same += face_hw.size > 0 and float(face_hw.mean()) <= FEW
        return same, len(pairs)


def moving(
    tracks: Sequence[Track], changes: Changes, source: tuple[int, int], notes: list[str]
) -> list[Track]:
    """Those who are no still picture, with a note on the others and on repeated frames."""
    counts = [changes.repeats(track, source) for track in tracks]
    found = [
        track
        for track, (same, of) in zip(tracks, counts, strict=True)
        if not of or same < STILL * of
    ]
    learnt = "and these weights have learnt from faces that move"
    if not found and tracks:
        same, of = counts[0]
        notes.append(f"the face is the one of the frame before in {same} of {of} frames, {learnt}")
        return found
    if pictures := len(tracks) - len(found):
        many = f"{pictures} of {len(tracks)} faces"
        notes.append(f"{many} without a score: still pictures, {learnt}")
    doubled = [(same, of) for same, of in counts if of and NOTABLE * of <= same < STILL * of]
    if doubled:
        same, of = max(doubled, key=lambda count: count[0] / count[1])
        notes.append(
            f"a face is the one of the frame before in {same} of {of} frames, {learnt}, so the"
            " score says less; leave repeated frames out (ffmpeg -vf mpdecimate)"
        )
    return found
