"""One person's face over time: detections here and there, and the path that following gives."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dfil.faces.boxes import MAX_GAP, apart, overlap
from dfil.faces.detect import width

BRIDGE = 24  # frames: the longest time without a detection that following alone may fill
AVERAGE = 4  # detections on either side that say how far the path is off
AGREE = 0.5  # IoU of path and detection; below, the frames between are looked at
SAME = 0.3  # IoU from which a detection may be of a person


def to_state(boxes: np.ndarray) -> np.ndarray:
    """Centre and logarithms of width and height, (..., 4): what paths are added up in."""
    low, high = boxes[..., :2], boxes[..., 2:4]
    return np.concatenate([(low + high) / 2, np.log(np.maximum(1, high - low))], -1)


def to_boxes(states: np.ndarray) -> np.ndarray:
    """The boxes (..., 4) of states."""
    half = np.exp(states[..., 2:]) / 2
    return np.concatenate([states[..., :2] - half, states[..., :2] + half], -1)


def may_have_moved(old: np.ndarray, new: np.ndarray, frames: int) -> bool:
    """Whether one face may have come from one box to another in so many frames."""
    near = apart(old, new) < width(old) * (0.6 + 0.03 * frames)
    return near and 0.6 < width(new) / width(old) < 1.6


class Window(NamedTuple):
    """The square of frame `number` in which a face is followed: its corner in the frame, and its
    brightness, `shrink` times smaller."""

    x0: int
    y0: int
    shrink: int
    number: int
    picture_hw: np.ndarray


@dataclass(eq=False)
class Person:
    """found: frame -> box and score (5,) of each detection; seen: its frames, rising. steps: frame
    -> what following says the state has changed by since the frame before, none where it failed.
    state: where the face is thought to be in the latest frame; expected: frame -> the same, since
    the latest detection. followed: by optical flow; otherwise expected where its `speed` leads.
    look_hw: see flow.look."""

    seen: list[int] = field(default_factory=list)
    found: dict[int, np.ndarray] = field(default_factory=dict)
    steps: dict[int, np.ndarray] = field(default_factory=dict)
    state: np.ndarray | None = None
    expected: dict[int, np.ndarray] = field(default_factory=dict)
    followed: bool = True
    speed: np.ndarray | None = None
    look_hw: np.ndarray | None = None
    window: Window | None = None

    def add(self, number: int, box_5: np.ndarray) -> None:
        """A detection."""
        if number not in self.found:
            insort(self.seen, number)
        self.found[number] = box_5

    def boxes(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (stop - first, 4) float64 and valid (stop - first,) bool of the frames from first
        to before stop: the followed path, plus what the detections around say it is off by."""
        boxes_n4, valid_n = np.zeros((stop - first, 4)), np.zeros(stop - first, bool)
        low = max(0, bisect_left(self.seen, first) - AVERAGE - 2)
        high = bisect_right(self.seen, stop) + AVERAGE + 2
        for numbers, path_n4 in self._stretches(self.seen[low:high]):
            start, at = numbers[0], np.array(numbers) - numbers[0]
            off_k4 = _averaged(to_state(np.stack([self.found[n] for n in numbers])) - path_n4[at])
            frames = np.arange(len(path_n4))
            path_n4 = path_n4 + np.stack([np.interp(frames, at, off_k) for off_k in off_k4.T], -1)
            a, b = max(first, start), min(stop, numbers[-1] + 1)
            if a < b:
                boxes_n4[a - first : b - first] = to_boxes(path_n4[a - start : b - start])
                valid_n[a - first : b - first] = True
        return boxes_n4, valid_n

    def _stretches(self, seen: list[int]) -> list[tuple[list[int], np.ndarray]]:
        """The frames of neighbouring detections that are joined, and the path (n, 4) through
        them."""
        found: list[tuple[list[int], list[np.ndarray]]] = []
        for n in seen:
            steps = self._joined(found[-1][0][-1], n) if found else None
            if steps is None:
                found.append(([n], [to_state(self.found[n])[None]]))
            else:
                numbers, path = found[-1]
                numbers.append(n)
                path.append(path[-1][-1] + np.cumsum(steps, 0))
        return [(numbers, np.concatenate(path)) for numbers, path in found]

    def _joined(self, a: int, b: int) -> np.ndarray | None:
        """The states' changes (b - a, 4) from detection a to the next one, b; None if nothing is
        known about the frames between."""
        start, gap = to_state(self.found[a]), b - a
        change = to_state(self.found[b]) - start
        if gap <= BRIDGE and all(n in self.steps for n in range(a + 1, b + 1)):
            steps = np.stack([self.steps[n] for n in range(a + 1, b + 1)])
            agreement = overlap(to_boxes(start + steps.sum(0)), self.found[b])
            if agreement >= AGREE:
                return steps
            if agreement >= SAME:  # more than detections jump: bent so that it meets both
                return steps + (change - steps.sum(0)) / gap
        return np.tile(change / gap, (gap, 1)) if gap <= MAX_GAP else None


def _averaged(off_k4: np.ndarray) -> np.ndarray:
    """Each row averaged with its AVERAGE neighbours on either side, nearer ones weighing more; with
    fewer at the ends."""
    weights = AVERAGE + 1.0 - np.abs(np.arange(-AVERAGE, AVERAGE + 1)) * 0.6
    padded = np.pad(np.column_stack([off_k4, np.ones(len(off_k4))]), ((AVERAGE, AVERAGE), (0, 0)))
    total = sum(w * padded[i : i + len(off_k4)] for i, w in enumerate(weights))
    return total[:, :4] / total[:, 4:]
