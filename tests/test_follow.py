"""Following people between detections: with a finder that knows the truth, and once with dlib;
what is kept of frames.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from dfil.faces import boxes as B
from dfil.faces import follow, kept
from dfil.faces.detect import finder
from dfil.faces.frame import Part
from dfil.faces.grid import plan_scale, to_grid
from dfil.faces.person import AVERAGE, Person, to_boxes, to_state
from dfil.faces.preprocess import Settings
from dfil.synthetic import SETTINGS, render_target
from dfil.tools.bench.preprocess import switches
from dfil.tools.bench.scenes import Scene, draw

WIDTH, HEIGHT, FACE = 480, 270, 62  # pixels; a face in a 320-pixel rendering has about 125


class Shown:
    """A frame of an array."""

    def __init__(self, frame_hwc: np.ndarray):
        self.frame_hwc, self.luma_hw = frame_hwc, cv2.cvtColor(frame_hwc, cv2.COLOR_RGB2GRAY)
        self.height, self.width = self.luma_hw.shape

    lost = False

    def part(self, x0: int, y0: int, x1: int, y1: int) -> Part:
        part_hwc = self.rgb(x0, y0, x1, y1)
        size = x1 - x0, y1 - y0
        return Part(part_hwc.ravel(), "rgb24", size, (0, 0, *size))

    def rgb(
        self, x0: int = 0, y0: int = 0, x1: int | None = None, y1: int | None = None
    ) -> np.ndarray:
        return np.ascontiguousarray(self.frame_hwc[y0:y1, x0:x1])


class Oracle:
    """A finder that sees the true boxes, jumping as dlib's do, where `sees` says so; it counts
    what it is asked.
    """

    def __init__(
        self,
        frames: list[Shown],
        truth: list[Callable],
        sees: Callable = lambda person, number: True,
        batch: int = 1,
    ):
        self.number = {id(frame): n for n, frame in enumerate(frames)}
        self.truth, self.sees, self.batch, self.asked = truth, sees, batch, 0
        self.rng, self.searched = np.random.default_rng(0), []

    def everywhere(self, frame, smallest=None) -> np.ndarray:
        self.searched.append(self.number[id(frame)])
        return self.faces(frame)

    def faces(self, frame) -> np.ndarray:
        number = self.number[id(frame)]
        found = [
            box_of(path(number))
            for k, path in enumerate(self.truth)
            if path(number) and self.sees(k, number)
        ]
        found = [[*(box + self.rng.normal(0, 2, 4)), 1.0] for box in found]
        return np.array(found, np.float32).reshape(-1, 5)

    def near(self, places) -> list[np.ndarray]:
        self.asked += len(places)
        answers = []
        for frame, box, spread in places:
            found_n5 = self.faces(frame)
            centre = (found_n5[:, :2] + found_n5[:, 2:4]) / 2
            inside = (
                np.abs(centre - (box[:2] + box[2:4]) / 2).max(1)
                < spread / 2 * (box[2] - box[0]) - FACE / 2
            )
            answers.append(found_n5[inside])
        return answers


def box_of(at: tuple[float, float, float]) -> np.ndarray:
    x, y, scale = at
    return np.array([x, y, x, y]) + 125 * scale / 2 * np.array([-1, -0.95, 1, 1.05])


@pytest.fixture(scope="module")
def heads():
    """Heads that hold still, so that the true path is that of where they are drawn."""
    still = [
        next(iter(render_target(k, k + 1, SETTINGS["ff-like"], methods=(), frames=1))).frames_thwc
        for k in range(2)
    ]
    return [np.repeat(frame_thwc, 2, axis=0) for frame_thwc in still]


def drawn(heads, *paths: Callable, frames: int = 64) -> list[Shown]:
    return [Shown(f) for f in draw(Scene("test", paths, (WIDTH, HEIGHT), frames), heads)]


def followed(
    frames: list[Shown], oracle: Oracle, every: int = 8, hold: list | None = None
) -> follow.Follower:
    follower = follow.Follower(oracle, every)
    for frame in frames:
        follower.add(frame)
        follower.release(min(follower.settled - 16, follower.count - follow.BACK))
        if hold is not None:
            hold.append(len(follower.frames))
    follower.finish()
    return follower


def overlap(person: Person, path: Callable, frames: int) -> np.ndarray:
    """IoU with the truth where the person is known."""
    boxes, valid = person.boxes(0, frames)
    return np.array(
        [B.iou(boxes[n : n + 1], box_of(path(n))[None])[0, 0] for n in np.flatnonzero(valid)]
    )


def moving(t: int) -> tuple[float, float, float]:
    return 240 + 70 * np.sin(t / 12), 130 + 12 * np.sin(t / 7), 0.5 * (1 + 0.15 * np.sin(t / 15))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_moving_face_is_followed_through_all_frames(heads, batch):
    hold, frames = [], drawn(heads, moving)
    oracle = Oracle(frames, [moving], batch=batch)
    follower = followed(frames, oracle, hold=hold)
    assert len(follower.people) == 1
    boxes, valid = follower.people[0].boxes(0, 64)
    quality = overlap(follower.people[0], moving, 64)
    assert valid.all() and quality.mean() > 0.9 and quality.min() > 0.8
    corners_k4 = np.stack([box_of(moving(n)) for n in range(0, 64, 8)])
    straight = np.stack(
        [np.interp(np.arange(57), np.arange(0, 64, 8), corners_k4[:, k]) for k in range(4)], -1
    )
    cut = [B.iou(straight[n : n + 1], box_of(moving(n))[None])[0, 0] for n in range(57)]
    assert (
        quality[:57].min() > min(cut) - 0.05
    )  # no worse than straight lines between detections without their noise
    assert oracle.asked < 64 / 3


def test_few_frames_are_held_however_long_the_video(heads):
    hold = []
    frames = drawn(heads, moving, frames=150)
    followed(frames, Oracle(frames, [moving]), hold=hold)
    assert max(hold) < 72 and max(hold[100:]) <= max(hold[:100])


def test_settled_boxes_never_change(heads):
    frames = drawn(heads, moving, frames=96)
    follower, early = follow.Follower(Oracle(frames, [moving]), 8), []
    for frame in frames:
        follower.add(frame)
        if follower.settled > 0:
            early.append((follower.settled, *follower.people[0].boxes(0, follower.settled)))
    follower.finish()
    boxes, valid = follower.people[0].boxes(0, 96)
    assert early[-1][0] > 40
    for stop, known, there in early:
        assert np.allclose(known, boxes[:stop], atol=1e-6) and np.array_equal(there, valid[:stop])


def test_a_face_missed_for_a_while_is_bridged_by_following_it(heads):
    frames = drawn(heads, moving)
    follower = followed(frames, Oracle(frames, [moving], sees=lambda k, n: not 21 <= n < 38))
    boxes, valid = follower.people[0].boxes(0, 64)
    assert (
        len(follower.people) == 1
        and valid.all()
        and overlap(follower.people[0], moving, 64).min() > 0.7
    )
    follower = followed(frames, Oracle(frames, [moving], sees=lambda k, n: not 12 <= n < 50))
    valid = follower.people[0].boxes(0, 64)[1]
    assert (
        len(follower.people) == 1
        and valid[:12].all()
        and not valid[14:48].any()
        and valid[51:].all()
    )


def test_a_face_that_is_first_found_late_is_followed_back(heads):
    frames = drawn(heads, moving)
    follower = followed(
        frames, Oracle(frames, [moving], sees=lambda k, n: n >= 3 and n not in (8, 16))
    )
    valid = follower.people[0].boxes(0, 64)[1]
    assert len(follower.people) == 1 and np.flatnonzero(valid)[0] in (3, 4, 5) and valid[5:].all()


def test_crossing_faces_keep_their_names(heads):
    def right(t):
        return 100 + 280 * t / 99, 130, 0.5

    def left(t):
        return 380 - 280 * t / 99, 138, 0.54

    frames = drawn(heads, right, left, frames=100)
    hidden = [n for n in range(100) if abs(right(n)[0] - left(n)[0]) < 0.6 * FACE]
    follower = followed(
        frames, Oracle(frames, [right, left], sees=lambda k, n: k == 1 or n not in hidden)
    )
    assert len(hidden) > 8
    long = [p for p in follower.people if len(p.seen) > 2]

    def nearest(number, box_5):
        return min(
            (0, 1), key=lambda k: abs((box_5[0] + box_5[2]) / 2 - (right, left)[k](number)[0])
        )

    names = [{nearest(n, box_5) for n, box_5 in p.found.items() if n not in hidden} for p in long]
    assert sorted(map(sorted, names)) == [[0], [1]]
    behind = long[names.index({0})]
    assert behind.seen[0] == 0 and behind.seen[-1] == 99


def test_someone_who_leaves_is_not_replaced_by_the_other(heads):
    def staying(t):
        return 150, 130, 0.5

    def leaving(t):
        return (330 + max(0, t - 20) * 7, 135, 0.55) if t < 48 else None

    frames = drawn(heads, staying, leaving, frames=80)
    follower = followed(
        frames,
        Oracle(frames, [staying, leaving], sees=lambda k, n: k == 0 or leaving(n)[0] < WIDTH - 25),
    )
    assert len(follower.people) == 2
    for person, path in zip(follower.people, (staying, leaving), strict=True):
        assert overlap(person, path, 80).min() > 0.6
    assert (
        follower.people[0].boxes(0, 80)[1].all()
        and follower.people[1].boxes(0, 80)[1][48:].sum() == 0
    )


def test_someone_who_comes_in_is_found_at_the_next_search(heads):
    def staying(t):
        return 130, 130, 0.5

    def coming(t):
        return (340, 135, 0.5) if t >= 30 else None

    frames = drawn(heads, staying, coming, frames=80)
    follower = followed(frames, Oracle(frames, [staying, coming]))
    assert len(follower.people) == 2
    first = np.flatnonzero(follower.people[1].boxes(0, 80)[1])[0]
    assert 30 <= first < 34  # found at 48, followed back


@pytest.mark.parametrize(
    ("frames", "cut", "at"), [(40, 99, 24), (20, 99, 19), (17, 99, 16), (40, 14, 13)]
)
def test_smaller_faces_beside_a_large_one_are_found_later_and_followed_back(heads, frames, cut, at):
    def large(t):
        return (300, 260, 1.0) if t < cut else None

    def small(t):
        return (720, 250, 0.7) if t < cut else None

    scene = Scene("test", (large, small), (960, 540), frames)
    shown = [Shown(f if n < cut else 255 - f) for n, f in enumerate(draw(scene, heads))]

    class Sized(Oracle):
        def everywhere(self, frame, smallest=None):
            found_n5 = super().everywhere(frame, smallest)
            wide_n = found_n5[:, 2] - found_n5[:, 0] >= (smallest or 0)
            return found_n5[wide_n]

    oracle = Sized(shown, [large, small])
    first, second = followed(shown, oracle).people
    last = min(frames, cut) - 1
    for person, path in ((first, large), (second, small)):
        assert np.flatnonzero(person.boxes(0, frames)[1])[[0, -1]].tolist() == [0, last]
        assert overlap(person, path, frames).min() > 0.7
    assert oracle.searched[:2] == [0, at] or cut < frames


def test_who_is_found_again_is_not_searched_for(heads):
    def staying(t):
        return 240, 130, 0.5

    def hand(t):
        return (240 + 6 * (t - 60), 130, 1.2) if 48 <= t < 72 else None

    scene = Scene("test", (staying,), (WIDTH, HEIGHT), 130, hand)
    frames = [Shown(f) for f in draw(scene, heads)]
    oracle = Oracle(frames, [staying], sees=lambda person, number: not 56 <= number < 65)
    (person,) = followed(frames, oracle).people
    assert person.seen[-1] == 129 and not set(person.seen) & set(range(56, 65))
    assert oracle.searched == [0, 48]  # not at 104, 48 frames after the face was lost


def test_a_cut_ends_everybody(heads):
    def before(t):
        return 160, 130, 0.5

    def after(t):
        return 170, 135, 0.52  # where the other was

    bright = [Shown(255 - f.frame_hwc) for f in drawn(heads[:1], before, frames=21)]
    frames = bright + drawn(heads[1:], after, frames=60)[21:]
    follower = followed(frames, Oracle(frames, [before]))
    spans = [np.flatnonzero(p.boxes(0, 60)[1])[[0, -1]].tolist() for p in follower.people]
    assert spans == [[0, 20], [21, 59]]


def test_no_face_costs_few_searches(heads):
    frames = drawn(heads, lambda t: None, frames=100)
    oracle = Oracle(frames, [])
    searched = []
    oracle.everywhere = lambda frame, smallest=None: (
        searched.append(smallest) or np.zeros((0, 5), np.float32)
    )
    assert followed(frames, oracle).people == [] and len(searched) < 25 and oracle.asked == 0


def test_the_path_is_the_followed_one_plus_what_detections_say_it_is_off_by():
    rng = np.random.default_rng(0)
    person, truth = Person(), [np.array([100 + 3 * n, 80 - n, 4.0, 4.1]) for n in range(41)]
    for n in range(0, 41, 8):
        person.add(n, np.append(to_boxes(truth[n] + rng.normal(0, [2, 2, 0.05, 0.05])), 1.0))
    for n in range(1, 41):
        person.steps[n] = truth[n] - truth[n - 1]
    boxes, valid = person.boxes(0, 41)
    off = np.stack([to_state(person.found[n]) - truth[n] for n in person.seen])
    for n in (0, 5, 8, 20, 33, 40):
        expected = []
        for k in range(len(off)):  # the average at each detection, by loops
            total, weights = np.zeros(4), 0.0
            for j in range(max(0, k - AVERAGE), min(len(off), k + AVERAGE + 1)):
                weight = AVERAGE + 1 - 0.6 * abs(j - k)
                total, weights = total + weight * off[j], weights + weight
            expected.append(total / weights)
        a = min(n // 8, 4)
        between = expected[a] + (n - 8 * a) / 8 * (expected[a + 1] - expected[a])
        assert np.allclose(to_state(boxes[n]), truth[n] + between, atol=1e-6)
    part, there = person.boxes(13, 30)
    assert valid.all() and there.all() and np.allclose(part, boxes[13:30], atol=1e-9)


# ---- with a detector


def test_dlib_follows_two_crossing_people(heads):
    def right(t):
        return 150 + 340 * t / 119, 170, 0.75

    def left(t):
        return 490 - 340 * t / 119, 180, 0.8

    scene = Scene("crossing", (right, left), (640, 360), 120)
    frames = [Shown(f) for f in draw(scene, heads)]
    with kept.watch(frames, finder("dlib"), Settings(size=64, tracks="all")) as people:
        tracks = sorted(people.tracks, key=lambda t: -t.area)[:2]
        assert switches(people, scene) == 0
        assert sum(int(t.valid_n.sum()) for t in tracks) > 170
        assert all(t.valid_n[0] and t.valid_n[-1] for t in tracks)


# ---- what is kept of the frames


def test_reached_is_a_bound_on_all_windows():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 60, (40, 2)), rng.uniform(4, 40, (40, 2))
    boxes, valid = np.concatenate([corner, corner + size], 1), rng.random(40) < 0.9
    for reach, margin in ((1, 1.0), (4, 1.3), (16, 1.5)):
        bound = B.reached(boxes, valid, reach, margin)
        assert not bound[~valid].any()
        for start in range(40):
            for stop in range(start + 1, min(40, start + reach) + 1):
                if valid[start:stop].all():
                    x0, y0, side = B.square_union(boxes[start:stop], margin)
                    inside = bound[start:stop]
                    assert (inside[:, :2] <= np.array([x0, y0]) + 1e-9).all() and (
                        inside[:, 2:] >= np.array([x0, y0]) + side - 1e-9
                    ).all()


@pytest.mark.parametrize("scale", [1.0, 0.9, 11 / 16, 0.5, 0.37, 0.2, 0.05])
def test_a_part_on_the_grid_has_the_pixels_of_the_whole(scale):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (633, 1317, 3), np.uint8)
    scale = plan_scale(np.array([[0, 0, 100, 100.0]] * 4), np.ones(4, bool), round(130 * scale))
    whole, corner = to_grid(picture, (0, 0), (1317, 633), scale)
    assert corner == (0, 0)
    for _ in range(20):
        x0, y0 = int(rng.integers(0, 1150)), int(rng.integers(0, 400))
        x1, y1 = (int(rng.integers(a + 130, n + 1)) for a, n in ((x0, 1317), (y0, 633)))
        part, (gx, gy) = to_grid(picture[y0:y1, x0:x1], (x0, y0), (1317, 633), scale)
        assert part.size and np.array_equal(
            part, whole[gy : gy + part.shape[0], gx : gx + part.shape[1]]
        )


def test_parts_beyond_memory_go_to_a_file(heads, monkeypatch):
    frames = drawn(heads, moving, frames=40)
    found = {}
    for name, limit in (("memory", 2**40), ("file", 100_000)):
        monkeypatch.setattr(kept, "KEEP_BYTES", limit)
        with kept.watch(frames, Oracle(frames, [moving]), Settings(size=64)) as people:
            (track,) = people.tracks
            found[name] = [(corner, part.copy()) for part, corner in track.parts()]
    assert len(found["file"]) == 40
    for (a, p), (b, q) in zip(found["memory"], found["file"], strict=True):
        assert a == b and np.array_equal(p, q)
