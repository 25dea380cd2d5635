"""One pass over a video: its frames are decoded once, followed, and let go; what is kept is the
part around each face.

Boxes are final some frames after the frame they belong to, and a video's scale only at its end. So
frames wait until the boxes of `reach` further frames are final; then the samples of the part that
snippets can show are kept, in memory up to KEEP_BYTES and beyond that in a temporary file. However
long a video is, memory stays bounded.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from dfil.faces.boxes import overlap
from dfil.faces.detect import Finder
from dfil.faces.flow import LOOK, alike
from dfil.faces.follow import BACK, FORGET, Follower
from dfil.faces.frame import Frame, Part
from dfil.faces.grid import MARGIN, needed
from dfil.faces.person import Person, may_have_moved

KEEP_BYTES = 64 * 2**20  # of samples that a video may hold in memory
TOGETHER = 8  # frames at least that are let go at a time
ENOUGH = 3  # moments at which somebody was looked for, from which on one detection is no person
WEAK = 0.1  # mean score below which dlib has seen a pattern and no face; MTCNN's are above 0.9
SAME_HEAD = 0.3  # IoU of two tracks' boxes that are of one head


@dataclass(eq=False)
class Track:
    """One person of a video. boxes_n4 (n, 4) float32 in source pixels, valid_n, stored_n (n,):
    where there is one, and kept pixels. look_hw: see flow.look."""

    boxes_n4: np.ndarray
    valid_n: np.ndarray
    stored_n: np.ndarray
    look_hw: np.ndarray
    _places: dict = field(default_factory=dict)  # frame number -> corner, part, place in the file
    _file: object = None

    @property
    def area(self) -> float:
        """Total area over the frames."""
        return float((self.boxes_n4[:, 2:] - self.boxes_n4[:, :2]).prod(1).sum())

    def parts(self) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
        """What was kept of each frame of stored_n, rising: RGB (h, w, 3) uint8, and x, y of its
        corner."""
        for _, (corner, part, place) in sorted(self._places.items()):
            if place is not None:
                self._file.seek(place[0])
                samples = np.frombuffer(self._file.read(place[1]), np.uint8)
                part = replace(part, samples=samples)
            yield part.rgb(), corner


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
    """Go through a video once and find everybody in it; the pixels are there until the block ends.

    settings: every, size and limits of dfil.faces.settings.Settings. keep_n: frames whose pixels
    are wanted, None for all; those beyond its end are not.
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
        self.lost: set[int] = set()
        self.boxes: defaultdict[Person, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
        self.places: defaultdict[Person, dict[int, tuple]] = defaultdict(dict)

    def add(self, frame: Frame) -> None:
        self.source = frame.width, frame.height
        if frame.lost:
            self.lost.add(self.follower.count)
        self.follower.add(frame)
        ready = min(self.follower.settled - self.settings.reach, self.follower.count - BACK)
        if ready >= self.done + TOGETHER:
            self._let_go(ready)
        if self.keep_n is not None and not self.keep_n.any():  # no pixels are wanted: fewer wait
            self.follower.release(self.follower.needed)

    def finish(self) -> People:
        self.follower.finish()
        self._let_go(self.follower.count)
        tracks = [self._track(person) for person in self.follower.people if self._is_person(person)]
        tracks = one_per_head([t for t in tracks if t.valid_n.any()], self.follower.cuts)
        return People(tracks, self.follower.count, self.source)

    def _let_go(self, stop: int) -> None:
        """Keep what is needed of the frames before `stop`, whose boxes and whose neighbours' boxes
        are final."""
        first, limits = self.done, self.settings.limits
        a, b = max(0, first - limits.reach), min(self.follower.count, stop + limits.reach)
        for person in self.follower.people:
            if person.seen[-1] < first or person.seen[0] >= stop:
                continue
            boxes_n4, valid_n = person.boxes(a, b)
            valid_n[[n - a for n in self.lost if a <= n < b]] = False
            here = first + np.flatnonzero(valid_n[first - a : stop - a])
            self.boxes[person].append((here, boxes_n4[here - a].astype(np.float32)))
            wanted = [n for n in here.tolist() if self._is_wanted(n)]
            if not wanted:
                continue
            sides = (boxes_n4[:, 2:] - boxes_n4[:, :2]).max(1)
            pixel = np.maximum(1, sides * MARGIN / self.settings.size)
            parts_n4 = needed(boxes_n4, valid_n, self.source, pixel, limits)
            for n in wanted:
                x0, y0, x1, y1 = (int(v) for v in parts_n4[n - a])
                part = self.follower.frames[n].part(x0, y0, x1, y1)
                self.places[person][n] = (x0, y0), *self._keep(part)
        self.follower.release(stop)
        self.done = stop

    def _is_wanted(self, number: int) -> bool:
        return self.keep_n is None or (number < len(self.keep_n) and bool(self.keep_n[number]))

    def _keep(self, part: Part) -> tuple[Part, tuple[int, int] | None]:
        """The part, and None or where its samples are in the file and how many bytes they have."""
        size = part.samples.nbytes
        self.bytes += size
        if self.bytes <= KEEP_BYTES:
            return part, None
        at = self.file.tell()
        self.file.write(part.samples)
        return replace(part, samples=part.samples[:0].copy()), (at, size)

    def _is_person(self, person: Person) -> bool:
        if len(person.seen) == 1 and self.follower.looks >= ENOUGH:
            return False
        return float(np.mean([box_5[4] for box_5 in person.found.values()])) >= WEAK

    def _track(self, person: Person) -> Track:
        count, places = self.follower.count, self.places[person]
        boxes_n4, valid_n = np.zeros((count, 4), np.float32), np.zeros(count, bool)
        for numbers, found in self.boxes[person]:
            boxes_n4[numbers], valid_n[numbers] = found, True
        stored_n = np.isin(np.arange(count), list(places))
        return Track(boxes_n4, valid_n, stored_n, person.look_hw, places, self.file)


def one_per_head(tracks: list[Track], cuts: list[int]) -> list[Track]:
    """Tracks of one head made one: those that lie on a larger one are left out, and those that go
    on where another ended, before the next cut and with the same look, are joined to it."""
    heads: list[Track] = []
    for track in sorted(tracks, key=lambda t: -int(t.valid_n.sum())):
        if not any(_one_head(head, track) for head in heads):
            heads.append(track)
    joined: list[Track] = []
    for track in sorted(heads, key=lambda t: int(np.flatnonzero(t.valid_n)[0])):
        before = next((t for t in joined if _goes_on(t, track, cuts)), None)
        if before is None:
            joined.append(track)
            continue
        before.boxes_n4[track.valid_n] = track.boxes_n4[track.valid_n]
        before.valid_n |= track.valid_n
        before.stored_n |= track.stored_n
        before._places |= track._places
    return [t for t in tracks if t in joined]


def _one_head(a: Track, b: Track) -> bool:
    """Whether b lies on a for most of its frames."""
    both = np.flatnonzero(a.valid_n & b.valid_n)
    overlaps = [overlap(a.boxes_n4[n], b.boxes_n4[n]) for n in both]
    return 2 * len(both) > b.valid_n.sum() and float(np.median(overlaps)) > SAME_HEAD


def _goes_on(a: Track, b: Track, cuts: list[int]) -> bool:
    """Whether b begins where a ended a moment before and looks like it."""
    last, first = int(np.flatnonzero(a.valid_n)[-1]), int(np.flatnonzero(b.valid_n)[0])
    if not 0 < first - last <= FORGET or any(last < cut <= first for cut in cuts):
        return False
    if alike(a.look_hw, b.look_hw) < LOOK:
        return False
    return may_have_moved(a.boxes_n4[last], b.boxes_n4[first], first - last)
