"""When the frames of a video are shown."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from dfil.faces.boxes import runs

ANEW = 1.0  # seconds: by more than this a clock does not run backwards, it has been started anew
PAUSE = 1.0, 5  # seconds, and usual steps: by more than both from one frame to the next, none is
SLOW = 12.0  # frames a second below which a face moves far from one to the next


@dataclass
class Clock:
    """Seconds of each frame since the first, by the file's own times where it has them: they need
    not be evenly spaced.

    rate: frames a second, on average.
    """

    rate: float
    times: array = field(default_factory=lambda: array("d"))
    before: float = 0.0  # seconds of the streams before this one, where several were joined
    _known: tuple[int, tuple[int, ...]] = (0, ())  # the pauses among so many frames

    def add(self, seconds: float | None) -> None:
        """The next frame, and when it is shown; None where the file does not say."""
        if not self.times:
            self.times.append(seconds or 0.0)
        else:
            usual = self.times[-1] + 1 / self.rate
            now = usual if seconds is None else seconds + self.before
            if now < self.times[-1] - ANEW:
                self.before, now = self.before + usual - now, usual
            self.times.append(max(now, self.times[-1]))

    @property
    def length(self) -> float:
        """Seconds of the whole video."""
        return round(self.times[-1] - self.times[0] + 1 / self.rate, 3) if self.times else 0.0

    @property
    def step(self) -> float:
        """Seconds from a frame to the next, usually; 0 where the file holds no two times."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0

    @property
    def pauses(self) -> tuple[int, ...]:
        """Numbers of the frames before which the file holds no picture for a while."""
        if self._known[0] != len(self.times):
            seconds, steps = PAUSE
            long_n = np.diff(self.times) > max(seconds, steps * self.step)
            self._known = len(self.times), tuple((np.flatnonzero(long_n) + 1).tolist())
        return self._known[1]

    def stretches(self, chosen_n: np.ndarray) -> list[tuple[int, int]]:
        """(first frame, count) of the chosen frames that follow each other without a pause."""
        numbers = np.flatnonzero(chosen_n)
        found, pauses = [], self.pauses
        for at, count in runs(numbers):
            first, end = int(numbers[at]), int(numbers[at]) + count
            edges = [first, *(p for p in pauses if first < p < end), end]
            found += [(a, b - a) for a, b in pairwise(edges)]
        return found

    def end(self, frame: int) -> float:
        """Until when a frame is shown; before a pause as long as usual."""
        if frame + 1 in self.pauses:
            return round(self.at(frame) + self.step, 3)
        return self.at(frame + 1)

    def notes(self) -> list[str]:
        """What is to be said of the file's times where a method looks at neighbouring frames."""
        gaps = [(self.end(p - 1), self.at(p)) for p in self.pauses]
        said = [f"no picture from {a:.1f} to {b:.1f} s" for a, b in gaps[:3]]
        more = len(gaps) - 3
        said += [f"{more} more such pause{'s' * (more > 1)}"] * (more > 0)
        if self.step > 1 / SLOW:
            rate = f"{1 / self.step:.2g} pictures a second"
            said.append(
                f"{rate}, between which a real face moves far: a high score may mean just that"
            )
        return said

    def at(self, frame: int) -> float:
        """When a frame begins; of the one after the last, when the video ends."""
        within = frame < len(self.times)
        return round(self.times[frame] - self.times[0], 3) if within else self.length

    def spans(self, chosen_n: np.ndarray) -> list[list[float]]:
        """From when to when frames are chosen: [first second, last second] of every stretch."""
        each = self.stretches(chosen_n)
        return [[self.at(first), self.end(first + count - 1)] for first, count in each]
