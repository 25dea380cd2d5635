"""One pass over a video: its frames are decoded once, followed, and let go; what is kept is the part around each face.

Boxes are final some frames after the frame they belong to, and a video's scale only at its end. So frames wait until the boxes of
`reach` further frames are final; then the part that snippets can show is kept in the video's own pixels, in memory up to KEEP_BYTES
and beyond that in a temporary file. However long a video is, memory stays bounded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from dfil.faces.detect import Finder
from dfil.faces.follow import BACK, Follower, Person
from dfil.faces.store import MARGIN, needed
from dfil.faces.video import Frame

KEEP_BYTES = 256 * 2**20  # of pixels that a video may hold in memory
TOGETHER = 16  # frames at least that are let go at a time
ENOUGH = (
    3  # moments at which somebody was looked for, from which on a single detection is no person
)
WEAK = 0.1  # mean score below which, too, dlib has seen a pattern and no face; MTCNN's scores are never below 0.9


@dataclass(eq=False)
class Track:
    """One person of a video. boxes_n4 (n, 4) float32 in source pixels, valid_n, stored_n (n,): where there is one, and kept pixels."""

    boxes_n4: np.ndarray
    valid_n: np.ndarray
    stored_n: np.ndarray
    _places: list = field(default_factory=list)
    _file: object = None

    @property
    def area(self) -> float:
        """Total area over the frames."""
        return float((self.boxes_n4[:, 2:] - self.boxes_n4[:, :2]).prod(1).sum())

    def parts(self) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
        """What was kept of each frame of stored_n, rising: RGB (h, w, 3) uint8, and x, y of its corner."""
        for corner, kept in self._places:
            if isinstance(kept, tuple):
                at, shape = kept
                self._file.seek(at)
                kept = np.frombuffer(self._file.read(int(np.prod(shape))), np.uint8).reshape(shape)
            yield kept, corner


@dataclass
class People:
    """Everybody in a video, how many frames it has, and their (width, height)."""

    tracks: list[Track]
    count: int
    source: tuple[int, int]


@contextmanager
def watch(
    frames: Iterable[Frame], finder: Finder, settings, keep_n: np.ndarray | None = None
) -> Iterator[People]:
    """Go through a video once and find everybody in it; the pixels are there until the context ends.

    settings: every, size, reach and store_margin of dfil.faces.preprocess.Settings. keep_n: frames whose pixels are wanted, None for all.
    """
    with tempfile.TemporaryFile(prefix="dfil-") as file:
        keeper = _Keeper(Follower(finder, settings.every), settings, keep_n, file)
        for frame in frames:
            keeper.add(frame)
        yield keeper.finish()


class _Keeper:
    def __init__(self, follower: Follower, settings, keep_n: np.ndarray | None, file):
        self.follower, self.settings, self.keep_n, self.file = follower, settings, keep_n, file
        self.done, self.bytes, self.source = 0, 0, (0, 0)  # frames before `done` have been let go
        self.boxes: dict[Person, list[tuple[int, np.ndarray, np.ndarray]]] = {}
        self.places: dict[Person, dict[int, tuple]] = {}

    def add(self, frame: Frame) -> None:
        self.source = frame.width, frame.height
        self.follower.add(frame)
        ready = min(self.follower.settled - self.settings.reach, self.follower.count - BACK)
        if ready >= self.done + TOGETHER:
            self._let_go(ready)

    def finish(self) -> People:
        self.follower.finish()
        self._let_go(self.follower.count)
        tracks = [self._track(person) for person in self.follower.people if self._is_person(person)]
        return People([t for t in tracks if t.valid_n.any()], self.follower.count, self.source)

    def _let_go(self, stop: int) -> None:
        """Keep what is needed of the frames before `stop`, whose boxes and whose neighbours' boxes are final."""
        first, reach = self.done, self.settings.reach
        a, b = max(0, first - reach), min(self.follower.count, stop + reach)
        for person in self.follower.people:
            if person.seen[-1] < first or person.seen[0] >= stop:
                continue
            boxes_n4, valid_n = person.boxes(a, b)
            inside = slice(first - a, stop - a)
            self.boxes.setdefault(person, []).append(
                (first, boxes_n4[inside].astype(np.float32), valid_n[inside])
            )
            if self.keep_n is not None:
                wanted = [
                    n
                    for n in range(first, stop)
                    if valid_n[n - a] and n < len(self.keep_n) and self.keep_n[n]
                ]
            else:
                wanted = [n for n in range(first, stop) if valid_n[n - a]]
            if not wanted:
                continue
            pixel = np.maximum(
                1, (boxes_n4[:, 2:] - boxes_n4[:, :2]).max(1) * MARGIN / self.settings.size
            )
            parts_n4 = needed(
                boxes_n4, valid_n, self.source, pixel, reach, self.settings.store_margin
            )
            for n in wanted:
                x0, y0, x1, y1 = (int(v) for v in parts_n4[n - a])
                self.places.setdefault(person, {})[n] = (
                    (x0, y0),
                    self._keep(self.follower.frames[n].rgb(x0, y0, x1, y1)),
                )
        self.follower.release(stop)
        self.done = stop

    def _keep(self, part_hwc: np.ndarray) -> np.ndarray | tuple[int, tuple]:
        self.bytes += part_hwc.nbytes
        if self.bytes <= KEEP_BYTES:
            return part_hwc
        at = self.file.tell()
        self.file.write(np.ascontiguousarray(part_hwc))
        return at, part_hwc.shape

    def _is_person(self, person: Person) -> bool:
        if len(person.seen) == 1 and self.follower.looks >= ENOUGH:
            return False
        return float(np.mean([box_5[4] for box_5 in person.found.values()])) >= WEAK

    def _track(self, person: Person) -> Track:
        count = self.follower.count
        boxes_n4, valid_n, stored_n = (
            np.zeros((count, 4), np.float32),
            np.zeros(count, bool),
            np.zeros(count, bool),
        )
        for first, boxes, valid in self.boxes.get(person, []):
            boxes_n4[first : first + len(boxes)][valid], valid_n[first : first + len(boxes)] = (
                boxes[valid],
                valid,
            )
        places = self.places.get(person, {})
        stored_n[list(places)] = True
        return Track(boxes_n4, valid_n, stored_n, [places[n] for n in sorted(places)], self.file)
