"""Who is where in every frame, although a detector is asked about few of them.

Detecting costs many times what decoding does, and says almost the same from frame to frame. So:

- A person's face is detected every few frames, in a small picture of its surroundings, in which it
  is as large as the detector needs. In between it is followed (flow.py).
- Following drifts, and detections jump (dlib's boxes have sizes in steps of 6/5). The path is the
  followed one plus what the detections around say it is off by, averaged over nine of them.
- Where a detection is missing or contradicts the path, the frames between are looked at until it is
  clear where the face was last seen.
- The whole picture is searched at the start, after a cut, when nobody is there, and now and then
  for people who have come in.
- Two faces that meet may share one detection. It belongs to the one that looks like it. The other
  is expected where its speed leads, and comes back only with a face that looks like it.

A video is gone through once. Boxes are final some 40 frames later, and only that many are held.

What this buys over straight lines between the same detections, matched by overlap: a walking head
at 720p has a mean IoU of .84 and a 5th percentile of .73 with detection in every frame instead of
.83 and .69, and of two that cross no detection is without a track instead of 2 of 132.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from dfil.faces.boxes import MAX_GAP, apart, iou, overlap
from dfil.faces.detect import NOTHING, Finder, usual_size, width
from dfil.faces.flow import LOOK, alike, flow, is_cut, look
from dfil.faces.frame import Frame
from dfil.faces.person import (
    AGREE,
    AVERAGE,
    BRIDGE,
    SAME,
    Person,
    may_have_moved,
    to_boxes,
    to_state,
)

FORGET = 75  # frames without a detection after which a person who comes back is another one
BACK = 24  # frames: how far a newly found face is followed back
SEARCH = 48, 192  # frames between searches of the whole picture: at first, and after many in vain
LARGE = 0.2  # of the picture's shorter side: a face that is looked for first
NEWCOMER = 0.5  # of the largest face's width: smaller ones are not looked for beside it
SPREAD = 1.6  # times a face's width: the surroundings in which it is detected
STRIDE = 4  # frames from one picture in which it is followed to the next


class Follower:
    """The people of one video, while it is decoded: `add` each frame, then `finish`.

    people: everybody found so far. frames: those still held, by number; `release` lets go of those
    before `settled` that nobody else needs. cuts: the first frame after each. looks: moments at
    which somebody was looked for. every: frames from one detection of a face to the next.
    """

    def __init__(self, finder: Finder, every: int):
        self.finder, self.every = finder, every
        self.people: list[Person] = []
        self.live: list[Person] = []
        self.frames: dict[int, Frame] = {}
        self.cuts: list[int] = []
        self.count = self.looks = 0
        self._at = 0  # the frame up to which everybody has been followed
        self._careful = 0  # the frame up to which somebody's speed is not known yet
        self._moments: list[int] = []  # frames that wait for the detector, which may take several
        self._next = self._next_search = self._empty = 0
        self._pause = SEARCH[0]
        self._others = False  # whether smaller faces than the one just found are still to be found
        self._usual: tuple[int, int] | None = None  # next search and pause but for somebody lost

    def add(self, frame: Frame) -> None:
        """The next frame of the video."""
        number, self.count = self.count, self.count + 1
        self.frames[number] = frame
        pause = STRIDE if number > self._careful else 1
        if self.live and (self._is_due(number) or number - self._at >= pause):
            self._follow(number)
        if self._is_due(number):  # also where following has just come upon a cut
            self._detect(number)
        if not self.live:
            self._at = number

    def finish(self) -> None:
        """After the last frame, which gets a detection so that the frames before it have one on
        either side."""
        last = self.count - 1
        if self.live and self._at < last:
            self._follow(last)
        self._end(last)

    @property
    def settled(self) -> int:
        """Frames before this number may be let go: their boxes are final."""
        _, open_ = self._open()
        return min([self.count, *(seen[max(0, len(seen) - 1 - AVERAGE)] for seen in open_)])

    @property
    def needed(self) -> int:
        """Frames before this number are not looked at again."""
        asked, open_ = self._open()
        return min([asked - BACK, *(seen[-1] for seen in open_)])

    def _open(self) -> tuple[int, list[list[int]]]:
        """The first frame that waits for the detector, and the detections of everybody who may
        still be found in the frames before."""
        asked = self._moments[0] if self._moments else self.count
        return asked, [p.seen for p in self.live if asked - p.seen[-1] <= BRIDGE]

    def release(self, before: int) -> None:
        """Let go of the frames before a number."""
        for number in [n for n in self.frames if n < before]:
            del self.frames[number]

    def _is_due(self, number: int) -> bool:
        return number >= min(self._next, self._next_search)

    # ---- following

    def _follow(self, number: int) -> None:
        """Move everybody from the frame last looked at to this one."""
        before, self._at = self._at, number
        lost = []
        for person in self.live:
            change = person.speed
            if person.followed:
                change = flow(person, self.frames, before, number)
                if change is None:
                    lost.append(person)
                    change = person.steps.get(before, np.zeros(4))
                else:
                    person.steps |= dict.fromkeys(range(before + 1, number + 1), change)
            for n in range(before + 1, number + 1):
                person.expected[n] = person.state = person.state + change
        if not lost:
            return
        for n in range(before + 1, number + 1):
            if is_cut(self.frames[n - 1], self.frames[n]):
                return self._cut(n)
        # The detector can tell where the face was and where it is now.
        last = max(p.seen[-1] for p in lost)
        between = [n for n in range(before, number) if n not in self._moments and n > last]
        self._moments += between[:1]
        self._detect(number, at_once=True)
        for person in lost:
            if person.seen[-1] < number:
                self._unfollow(person, number)

    def _unfollow(self, person: Person, number: int) -> None:
        """From now on expect a person where the speed of the last second before the latest
        detection leads."""
        last = person.seen[-1]
        first = person.seen[bisect_left(person.seen, last - 2 * MAX_GAP)]
        start = to_state(person.found[last])
        change = (start - to_state(person.found[first])) / max(1, last - first)
        person.followed, person.speed = False, np.array([change[0], change[1], 0, 0])
        person.steps = {n: step for n, step in person.steps.items() if n <= last}
        person.state = start + (number - last) * person.speed
        person.expected |= {
            n: start + (n - last) * person.speed for n in range(last + 1, number + 1)
        }
        self._usual = self._usual or (self._next_search, self._pause)
        self._pause = SEARCH[0]
        self._next_search = min(self._next_search, number + self._pause)

    def _end(self, number: int) -> None:
        """Look for everybody in the last frame of a shot."""
        others = self._others and bool(self.live)
        if others:
            self._next_search = number
            for person in self.live:
                person.expected.setdefault(number, to_state(person.found[person.seen[-1]]))
        if self._moments or others or any(p.seen[-1] < number for p in self.live):
            self._detect(number, at_once=True, search=others)
        self.live = []

    def _cut(self, number: int) -> None:
        """Nobody is followed over a cut. Who was there is looked for in its last frame, who is
        there now everywhere."""
        self.cuts.append(number)
        for person in self.live:
            for n in range(number, self.count):
                person.expected.pop(n, None)
                person.steps.pop(n, None)
        self._moments = [n for n in self._moments if n < number]
        self._end(number - 1)
        self._next = self._next_search = self.count - 1
        self._pause, self._usual = SEARCH[0], None

    # ---- detecting

    def _detect(self, number: int, at_once: bool = False, search: bool = True) -> None:
        """Look for everybody in this frame, at once or together with the next moments."""
        self._next = number + self.every
        search = search and number >= self._next_search
        self._moments.append(number)
        if not (at_once or search or len(self._moments) >= self.finder.batch):
            return
        moments, self._moments = self._moments, []
        self.looks += len(moments)
        places = [(n, p) for n in moments for p in self.live if n in p.expected]
        asked = [(self.frames[n], to_boxes(p.expected[n]), _spread(p, n)) for n, p in places]
        answers = self.finder.near(asked) if asked else []
        for n in moments:
            found = [boxes_n5 for (m, _), boxes_n5 in zip(places, answers, strict=True) if m == n]
            searched, known = search and n == number, len(self.people)
            if searched:
                found.append(self._search(number))
            self._assign(n, _distinct(np.concatenate([NOTHING, *found])))
            if searched:
                self._plan_search(number, len(self.people) > known)
        for person in self.live:
            last = person.seen[-1]
            if last in person.expected:  # half the way back, so that the points stay on the face
                off = to_state(person.found[last]) - person.expected[last]
                person.state = person.state + 0.5 * off
            person.expected = {n: state for n, state in person.expected.items() if n > last}
        self.live = [p for p in self.live if number - p.seen[-1] <= FORGET and self._visible(p)]

    def _search(self, number: int) -> np.ndarray:
        """Faces in the whole picture, of the sizes that are worth the time."""
        frame = self.frames[number]
        short, coarse = min(frame.width, frame.height), usual_size(frame.width, frame.height)
        self._others = False
        if self.live:
            smallest = max(coarse, NEWCOMER * max(width(to_boxes(p.state)) for p in self.live))
            return self.finder.everywhere(frame, smallest)
        # A large face is found in a small picture. Small ones cost most and are rare: beside a
        # large one they are looked for BACK frames later, and followed back.
        self._empty += 1
        large = max(coarse, LARGE * short)
        found_n5 = self.finder.everywhere(frame, large)
        if not len(found_n5) and large > coarse:
            return self.finder.everywhere(frame, None if self._empty % 4 == 1 else coarse)
        widest = (found_n5[:, 2] - found_n5[:, 0]).max(initial=0)
        self._others = len(found_n5) > 0 and max(coarse, NEWCOMER * widest) < large
        if not self._others:
            return found_n5
        # Their boxes are of a coarse raster, so each is taken from where all later ones are.
        near = self.finder.near([(frame, box_5[:4], SPREAD) for box_5 in found_n5])
        pairs = zip(near, found_n5, strict=True)
        return np.concatenate(
            [near_n5 if len(near_n5) else box_5[None] for near_n5, box_5 in pairs]
        )

    def _plan_search(self, number: int, found: bool) -> None:
        self._usual = None
        if self.live:
            self._pause = SEARCH[0] if found else min(SEARCH[1], 2 * self._pause)
            self._next_search = number + (BACK if self._others else self._pause)
        else:
            self._next_search = number + min(BACK, self.every * self._empty)

    def _visible(self, person: Person) -> bool:
        """Whether more than two fifths of a face are inside the picture."""
        frame, box = next(reversed(self.frames.values())), to_boxes(person.state)
        inside = np.clip(box, 0, [frame.width, frame.height] * 2)
        area = max(1.0, (box[2:] - box[:2]).prod())
        return float((inside[2:] - inside[:2]).prod() / area) > 0.4

    # ---- who is who

    def _assign(self, number: int, found_n5: np.ndarray) -> None:
        """Give each detection to the person it shows, or make it a new one; then see to those who
        were not found."""
        people = [p for p in self.live if number in p.expected]
        expected_n4 = to_boxes(np.array([p.expected[number] for p in people]).reshape(-1, 4))
        overlaps = iou(expected_n4, found_n5)
        value = np.full(overlaps.shape, -np.inf)
        for i, j in np.ndindex(*overlaps.shape):
            fits = overlaps[i, j] >= SAME
            if not people[i].followed:
                gap = number - people[i].seen[-1]
                fits = may_have_moved(expected_n4[i], found_n5[j], gap)
            if fits:
                value[i, j] = overlaps[i, j]
        possible = np.isfinite(value)
        for i, j in np.argwhere(possible):  # where more than one is possible, looks decide
            clear = possible[i].sum() == possible[:, j].sum() == 1
            if not (clear and people[i].followed):
                likeness = alike(people[i].look_hw, look(self.frames[number], found_n5[j]))
                value[i, j] = value[i, j] + 2 * likeness if likeness >= LOOK else -np.inf
        taken = {j: i for i, j in _best_pairs(value) if np.isfinite(value[i, j])}
        for j, i in taken.items():
            alone = (np.delete(overlaps[:, j], i) < 0.05).all()
            self._seen(people[i], number, found_n5[j], alone)
        for i, person in enumerate(people):
            if number not in person.found:
                hidden = any(_meet(expected_n4[i], found_n5[j]) for j in taken)
                self._missed(person, number, hidden)
        followed = np.array([person.followed for person in people], bool)
        theirs_n = overlaps[followed].max(0, initial=0) >= SAME
        theirs_n |= iou(found_n5, found_n5[list(taken)]).max(1, initial=0) >= SAME
        for j, box_5 in enumerate(found_n5):
            if j not in taken and not theirs_n[j]:
                self._new(number, box_5)

    def _seen(self, person: Person, number: int, box_5: np.ndarray, alone: bool) -> None:
        """A person was found; nobody else is near if `alone`."""
        last, expected = person.seen[-1], person.expected[number]
        refound = number - last > BRIDGE or not person.followed
        doubtful = person.followed and overlap(to_boxes(expected), box_5) < AGREE
        person.add(number, box_5)
        if doubtful:
            self._look_between(person, last, number)
        if not person.followed:
            person.followed, person.speed, person.window = True, None, None
            person.state = person.state + to_state(box_5) - expected
            ahead = range(number, max(person.expected) + 1)
            person.expected |= dict.fromkeys(ahead, person.state)
            self._careful = self.count + STRIDE
            if self._usual and all(p.followed for p in self.live):  # nobody is lost any more
                (self._next_search, self._pause), self._usual = self._usual, None
        if refound:
            self._back(person, number)
        if alone:
            look_hw = look(self.frames[number], box_5)
            person.look_hw = 0.8 * person.look_hw + 0.2 * look_hw

    def _missed(self, person: Person, number: int, hidden: bool) -> None:
        """A person was not found: look again, closer; then find out when the face was last seen."""
        last = person.seen[-1]
        if not person.followed:
            return
        if hidden:
            self._look_between(person, last, number)
            self._unfollow(person, max(person.expected))
            return
        box_5 = self._again(person, number, person.expected[number], wide=True)
        if box_5 is not None:
            self._seen(person, number, box_5, alone=False)
        elif number - last <= self.every * self.finder.batch:
            self._look_between(person, last, number)

    def _look_between(self, person: Person, a: int, b: int) -> None:
        """Halve the time between a frame with the face and a doubtful one until its path is clear
        or the frames are next to each other."""
        while b - a > 1 and (middle := (a + b) // 2) in self.frames and middle in person.expected:
            box_5 = self._again(person, middle, person.expected[middle])
            if box_5 is None:
                b = middle
            else:
                person.add(middle, box_5)
                a = middle

    def _again(
        self, person: Person, number: int, state: np.ndarray, wide: bool = False, past: bool = False
    ) -> np.ndarray | None:
        """What the detector sees of one person (5,) where the state says; None if that is nobody,
        or another person.

        wide: twice as far around, and of a smaller face: a path that runs off has it too large.
        """
        asked, spread = (state - [0, 0, 0.3, 0.3], 2 * SPREAD) if wide else (state, SPREAD)
        found_n5 = self.finder.near([(self.frames[number], to_boxes(asked), spread)])[0]
        overlaps = iou(to_boxes(state)[None], found_n5)[0]
        if overlaps.max(initial=0) < SAME:
            return None
        box_5 = found_n5[overlaps.argmax()]
        return None if self._is_of_another(person, number, box_5, past) else box_5

    def _is_of_another(self, person: Person, number: int, box_5: np.ndarray, past: bool) -> bool:
        """Whether somebody else is expected where a face is, or, of the past, was there."""
        others = [p for p in self.live if p is not person and number in p.expected]
        boxes = [to_boxes(p.expected[number]) for p in others]
        for other in self.people if past else ():
            boxes_14, valid_1 = other.boxes(number, number + 1)
            boxes += [boxes_14[0]] if valid_1[0] and other is not person else []
        return any(overlap(box, box_5) > SAME for box in boxes)

    def _new(self, number: int, box_5: np.ndarray) -> None:
        """Somebody not known yet."""
        look_hw = look(self.frames[number], box_5)
        person = Person(state=to_state(box_5), look_hw=look_hw)
        person.add(number, box_5)
        self._back(person, number)
        person.expected[number] = person.state
        for n in range(number + 1, self.count):
            if (step := flow(person, self.frames, n - 1, n)) is not None:
                person.steps[n] = step
                person.state = person.state + step
            person.expected[n] = person.state
        self.people.append(person)
        self.live.append(person)
        self._careful = self.count + STRIDE

    def _back(self, person: Person, number: int) -> None:
        """Follow a face that has just been found back in time, as long as it is also detected
        there."""
        earlier = [n + 1 for n in person.seen if n < number]
        oldest = max([next(iter(self.frames)), number - BACK, *earlier])
        # A single frame may lack it, so steps of several lengths are tried.
        pauses = self.every, self.every + self.every // 2, self.every // 2, self.every // 4, 1
        at: int | None = number
        asked = {number}  # a frame in which nobody was seen is not asked about again
        while at is not None and at > oldest:
            walk = _Walk(person, self.frames, at, asked)
            steps = (self._step_back(person, walk, max(oldest, at - pause)) for pause in pauses)
            at = next((n for n in steps if n is not None), None)

    def _step_back(self, person: Person, walk: _Walk, target: int) -> int | None:
        """Follow back to the frame `target`, or as far as it goes, and detect there; the frame
        reached, None if nothing is there."""
        n = walk.back_to(target)
        if n in walk.asked:
            return None
        walk.asked.add(n)
        box_5 = self._again(person, n, walk.states[n], past=True)
        if box_5 is None:
            return None
        person.steps |= {k: walk.steps[k] for k in range(walk.start, n, -1)}
        person.add(n, box_5)
        return n


class _Walk:
    """A face followed from the detection in frame `start` back in time, each frame once.

    states: frame -> where the face is; steps: frame -> the change since the frame before it.
    asked: frames about which the detector has been asked, in earlier walks too.
    """

    def __init__(self, person: Person, frames: dict[int, Frame], start: int, asked: set[int]):
        self.start, self.frames, self.asked = start, frames, asked
        self.states, self.steps = {start: to_state(person.found[start])}, {}
        self._walker = Person(state=self.states[start], steps=person.steps)
        self._lost = False

    def back_to(self, target: int) -> int:
        """The frame nearest to `target` up to which the face can be followed."""
        n = min(self.states)
        while n > target and not self._lost:
            step = flow(self._walker, self.frames, n, n - 1)
            if step is None:
                self._lost = True
                break
            self._walker.state = self._walker.state - step
            self.steps[n], n = step, n - 1
            self.states[n] = self._walker.state
        return max(n, target)


def _spread(person: Person, number: int) -> float:
    """How far around a face it is looked for; farther the longer it was out of sight."""
    return SPREAD if person.followed else SPREAD + min(1.5, (number - person.seen[-1]) / 16)


def _meet(box: np.ndarray, other: np.ndarray) -> bool:
    """Whether one face may be behind another, or soon will be."""
    return apart(box, other) < 0.75 * (width(box) + width(other))


def _distinct(found_n5: np.ndarray) -> np.ndarray:
    """Without the weaker of two detections of one face."""
    kept: list[int] = []
    for j in np.argsort(-found_n5[:, 4], kind="stable"):
        if iou(found_n5[j : j + 1], found_n5[kept]).max(initial=0) < 0.4:
            kept.append(int(j))
    return found_n5[sorted(kept)]


def _best_pairs(value_ij: np.ndarray) -> list[tuple[int, int]]:
    """The pairs i, j of the largest sum, each i and j at most once; minus infinity: not this pair.

    One of one is no question, and most videos never ask another: SciPy's optimisers, 20 MB, are
    loaded where there is one.
    """
    if max(value_ij.shape) <= 1 or not value_ij.size:
        return [(0, 0)] if value_ij.size else []
    from scipy.optimize import linear_sum_assignment

    pairs = linear_sum_assignment(np.where(np.isfinite(value_ij), -value_ij, 1e3))
    return list(zip(*(places.tolist() for places in pairs), strict=True))
