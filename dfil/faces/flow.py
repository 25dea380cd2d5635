"""How a face moves from frame to frame, what it looks like, and where a film is cut.

Points on the face move by optical flow (Lucas and Kanade 1981). A step counts only if most points
find back to where they came from (the forward-backward error of Kalal et al. 2010). The box then
moves by their median shift and grows as they spread.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from dfil.faces.boxes import cut_square
from dfil.faces.detect import width
from dfil.faces.frame import Frame
from dfil.faces.person import Person, Window, to_boxes

PATH = 48  # pixels: width, at least, of a face in the picture in which it is followed
_SHARES = (np.arange(5) + 0.5) / 5 * 0.8 + 0.1
GRID = np.stack(np.meshgrid(_SHARES, _SHARES), -1).reshape(-1, 1, 2)  # points, in shares of a box
FLOW = {"winSize": (9, 9), "maxLevel": 2, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
INSET = 6  # grey levels by which at least half of the picture changes at a cut
LOOK = 0.4  # correlation of two looks of one face


def flow(
    person: Person, frames: Mapping[int, Frame], before: int, number: int
) -> np.ndarray | None:
    """How a person's state changes per frame between frame `before`, in which it is known, and
    frame `number`, which may be an earlier one: (4,). None if it cannot be told."""
    box, lasts = to_boxes(person.state), number - before
    old, new = _windows(person, frames, before, number, box)
    low, high = ((corner - (new.x0, new.y0)) / new.shrink for corner in (box[:2], box[2:]))
    from_n2 = (low + GRID * (high - low)).astype(np.float32)
    guess = person.steps.get(before, np.zeros(4))[:2] * (lasts / new.shrink)  # on as it went
    pictures = old.picture_hw, new.picture_hw
    start_n2 = (from_n2 + guess).astype(np.float32)
    to_n2, there_n, _ = cv2.calcOpticalFlowPyrLK(*pictures, from_n2, start_n2, **FLOW)
    start_n2 = (to_n2 - guess).astype(np.float32)
    back_n2, again_n, _ = cv2.calcOpticalFlowPyrLK(*pictures[::-1], to_n2, start_n2, **FLOW)
    good = (np.abs(back_n2 - from_n2).max((1, 2)) < 1) & (there_n[:, 0] & again_n[:, 0] > 0)
    if good.sum() < 0.4 * len(good):
        return None
    a, b = from_n2[good, 0], to_n2[good, 0]
    shift = np.sort(b - a, 0)[len(a) // 2]  # about the median
    # Not hands, nor what is beside the face.
    near = np.abs(b - a - shift).max(1) < 0.08 * (high[0] - low[0])
    if near.sum() < 0.3 * len(good):
        return None
    a, b = a[near], b[near]
    middle_a, middle_b = a.sum(0) / len(a), b.sum(0) / len(b)
    spread_a, spread_b = ((a - middle_a) ** 2).sum(), ((b - middle_b) ** 2).sum()
    grown = 0.0
    if min(spread_a, spread_b) > 0:
        grown = min(0.2, max(-0.2, np.log(spread_b / spread_a) / 2))
    moved = middle_b - middle_a - (middle_a - (low + high) / 2) * (np.exp(grown) - 1)
    return np.array([*(moved * new.shrink), grown, grown]) / lasts


def _windows(
    person: Person, frames: Mapping[int, Frame], before: int, number: int, box: np.ndarray
) -> tuple[Window, Window]:
    """A person's surroundings in two frames, cut as the time before unless the face has left their
    middle; the second is kept."""
    size, x, y = width(box), (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    shrink = max(1, int(size / PATH))
    shrink -= shrink % 2 if shrink > 3 else 0
    old = person.window
    if old is not None:
        half = len(old.picture_hw) * old.shrink / 2
        away = max(abs(x - old.x0 - half), abs(y - old.y0 - half))
        if old.number != before or away > 0.25 * size or not 0.8 < old.shrink / shrink < 1.25:
            old = None
    if old is None:
        side = int(2.2 * size / shrink)
        x0, y0 = round(x - side * shrink / 2), round(y - side * shrink / 2)
        picture_hw = _shrunk(frames[before], x0, y0, side, shrink)
        old = Window(x0, y0, shrink, before, picture_hw)
    side = len(old.picture_hw)
    here_hw = _shrunk(frames[number], old.x0, old.y0, side, old.shrink)
    person.window = old._replace(number=number, picture_hw=here_hw)
    return old, person.window


def _shrunk(frame: Frame, x0: int, y0: int, side: int, shrink: int) -> np.ndarray:
    """The brightness of a square of side * shrink pixels as (side, side)."""
    part_hw = cut_square(frame.luma_hw, x0, y0, side * shrink)
    while shrink > 3 and shrink % 2 == 0:  # halving is many times as fast as other numbers
        shrink //= 2
        part_hw = cv2.resize(part_hw, (side * shrink,) * 2, interpolation=cv2.INTER_AREA)
    return cv2.resize(part_hw, (side, side), interpolation=cv2.INTER_AREA)


def look(frame: Frame, box: np.ndarray) -> np.ndarray:
    """What a face looks like: 24 x 24 grey values of mean 0 and length 1."""
    size = width(box)
    shrink = max(1, round(size / 24))
    x0, y0 = (round((box[k] + box[k + 2]) / 2 - size / 2) for k in range(2))
    look_hw = _shrunk(frame, x0, y0, max(8, round(size / shrink)), shrink)
    look_hw = cv2.resize(cv2.GaussianBlur(look_hw, (0, 0), 1.0), (24, 24)).astype(np.float32)
    look_hw -= look_hw.mean()
    return look_hw / max(1e-6, float(np.linalg.norm(look_hw)))


def alike(a_hw: np.ndarray, b_hw: np.ndarray) -> float:
    """Correlation of two looks, the best over shifts by up to two pixels: detections are not placed
    finer than that."""
    a_hw, inner_hw = a_hw.astype(np.float32), b_hw[2:-2, 2:-2].astype(np.float32)
    return float(cv2.matchTemplate(a_hw, inner_hw, cv2.TM_CCOEFF_NORMED).max())


def is_cut(a: Frame, b: Frame) -> bool:
    """Whether the film is cut between two neighbouring frames.

    Place by place a pan changes as much as a cut, but leaves the brightnesses as they are; a
    picture inside the picture may change by much, but leaves most places as they are.
    """
    step = max(1, min(a.luma_hw.shape) // 48)
    a_hw, b_hw = (frame.luma_hw[::step, ::step].astype(np.int16) for frame in (a, b))
    change = np.abs(a_hw - b_hw)
    levels = np.abs(np.sort(a_hw, None) - np.sort(b_hw, None)).mean()
    return change.mean() > 20 and change.mean() + levels > 28 and np.median(change) > INSET
