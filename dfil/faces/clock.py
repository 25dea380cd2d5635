"""When the frames of a video are shown."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

from dfil.faces.boxes import runs

ANEW = 1.0  # seconds: by more than this a clock does not run backwards, it has been started anew


@dataclass
class Clock:
    """Seconds of each frame since the first, by the file's own times where it has them: they need
    not be evenly spaced.

    rate: frames a second, on average.
    """

    rate: float
    times: array = field(default_factory=lambda: array("d"))
    before: float = 0.0  # seconds of the streams before this one, where several were joined

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

    def at(self, frame: int) -> float:
        """When a frame begins; of the one after the last, when the video ends."""
        within = frame < len(self.times)
        return round(self.times[frame] - self.times[0], 3) if within else self.length

    def spans(self, chosen_n: np.ndarray) -> list[list[float]]:
        """From when to when frames are chosen: [first second, last second] of every stretch."""
        numbers = np.flatnonzero(chosen_n)
        stretches = [(int(numbers[at]), count) for at, count in runs(numbers)]
        return [[self.at(first), self.at(first + count)] for first, count in stretches]
