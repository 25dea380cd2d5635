"""Face detectors. The paper takes dlib for FaceForensics++ and MTCNN for the other datasets.

`detector(name)` looks at whole frames, each by itself: a list of (H, W, 3) uint8 RGB gives for each
frame a float32 array (n, 5) with x0, y0, x1, y1, score in pixels of that frame; n may be 0.
`finder(name)` is the same detector for a video that is being followed (dfil.faces.follow): it knows
where to look and how large a face is there, so that it sees a small picture instead of a large one.
The imports are inside: dlib users need not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import cv2
import numpy as np

from dfil.faces.frame import Frame
from dfil.system.errors import DataError

Detector = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
DETECTORS = ("dlib", "mtcnn")
SMALLEST = 70  # pixels: side of the smallest face that is looked for
DLIB_WINDOW = 80  # pixels: side of the window that dlib's frontal detector was trained with
STEP = 6 / 5  # from one size of dlib's boxes to the next
RASTER = 8  # pixels: side of the cells in which dlib counts gradients
MTCNN_SCORE = 0.9  # MTCNN proposes generously; below this its boxes are mostly no faces
MTCNN_FACE = 48  # pixels: what MTCNN's last network takes; a larger face is shrunk to it anyway
FACE = 90  # pixels: width of a face in the picture of its surroundings, a tenth above dlib's window
NOTHING = np.zeros((0, 5), np.float32)


class Finder(Protocol):
    """batch: how many moments `near` should get at a time."""

    batch: int

    def everywhere(self, frame: Frame, smallest: float | None = None) -> np.ndarray:
        """All faces (n, 5) at least `smallest` pixels wide; None: as in an unknown picture."""

    def near(self, places: Sequence[tuple[Frame, np.ndarray, float]]) -> list[np.ndarray]:
        """Per place (frame, box (4,), spread) faces (n, 5) about as large as the box, in the square
        around it `spread` times as wide."""


def detector(name: str) -> Detector:
    """The detector "dlib" (HOG, frontal faces) or "mtcnn" (Zhang et al. 2016), else DataError."""
    check_name(name)
    return _dlib() if name == "dlib" else _net(SMALLEST)


def finder(name: str) -> Finder:
    """The finder `name`. Raises DataError for an unknown name."""
    check_name(name)
    return _DlibFinder() if name == "dlib" else _MtcnnFinder()


def check_name(name: str) -> None:
    """Raises DataError for a detector that is not there."""
    if name not in DETECTORS:
        raise DataError(f"Unknown face detector {name!r}; choose one of: {', '.join(DETECTORS)}.")


def usual_size(width: int, height: int) -> float:
    """Pixels: in a large picture the person filmed is large too, so smaller faces are looked for
    only if there is none of this size."""
    return max(SMALLEST, min(width, height) / 10)


def width(box: np.ndarray) -> float:
    """The longer side of a box (4,) or (5,)."""
    return float(max(box[2] - box[0], box[3] - box[1]))


def _resize(picture: np.ndarray, scale: float) -> np.ndarray:
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)


def _surroundings(frame: Frame, box: np.ndarray, spread: float) -> tuple[int, int, int, int]:
    """The square around a box, inside the picture: x0, y0, x1, y1; of one pixel at least."""
    half = spread * width(box) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x0 = min(max(0, int(x - half)), frame.width - 1)
    y0 = min(max(0, int(y - half)), frame.height - 1)
    x1 = min(frame.width, max(x0 + 1, int(x + half)))
    return x0, y0, x1, min(frame.height, max(y0 + 1, int(y + half)))


# ---- dlib


def _hog() -> Callable[[np.ndarray, float], np.ndarray]:
    import dlib

    hog = dlib.get_frontal_face_detector()

    def scan(picture: np.ndarray, scale: float) -> np.ndarray:
        """Faces (n, 5) in a picture, RGB or grey, that is looked at `scale` times as large."""
        if min(picture.shape[:2]) * scale < RASTER:
            return NOTHING
        places, scores, _ = hog.run(_resize(picture, scale), 0, 0.0)
        corners = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in places]
        boxes = [(*(v / scale for v in c), s) for c, s in zip(corners, scores, strict=True)]
        return np.array(boxes, np.float32).reshape(-1, 5)

    return scan


def _usual_scan(scan: Callable, picture: np.ndarray) -> np.ndarray:
    coarse = usual_size(picture.shape[1], picture.shape[0])
    boxes_n5 = scan(picture, DLIB_WINDOW / coarse)  # at 1080p half the time of the finer one
    largest = (boxes_n5[:, 2] - boxes_n5[:, 0]).max(initial=0)
    # None is there, or one at the limit, where the box is often too wide. Less than a step of its
    # sizes finer, dlib would see the same again.
    if coarse > STEP * SMALLEST and largest < 1.25 * coarse:
        boxes_n5 = scan(picture, DLIB_WINDOW / SMALLEST)
    return boxes_n5


def _dlib() -> Detector:
    scan = _hog()
    return lambda frames_hwc: [_usual_scan(scan, frame_hwc) for frame_hwc in frames_hwc]


class _DlibFinder:
    batch = 1

    def __init__(self):
        self._scan = _hog()

    def everywhere(self, frame: Frame, smallest: float | None = None) -> np.ndarray:
        if smallest:
            return self._scan(frame.luma_hw, DLIB_WINDOW / smallest)
        return _usual_scan(self._scan, frame.luma_hw)

    def near(self, places: Sequence[tuple[Frame, np.ndarray, float]]) -> list[np.ndarray]:
        found = []
        for frame, box, spread in places:
            x0, y0, x1, y1 = _surroundings(frame, box, spread)
            # Boxes come in steps of size and place: those of a search of the whole picture.
            scale = DLIB_WINDOW / usual_size(frame.width, frame.height)
            scale /= STEP ** np.floor(np.log(scale * width(box) / FACE) / np.log(STEP))
            cell = RASTER / scale
            x0, y0 = round(x0 // cell * cell), round(y0 // cell * cell)
            boxes_n5 = self._scan(frame.luma_hw[y0:y1, x0:x1], scale)
            found.append(boxes_n5 + np.float32([x0, y0, x0, y0, 0]))
        return found


# ---- MTCNN


def _net(smallest: float) -> Detector:
    import torch
    from facenet_pytorch import MTCNN

    net = MTCNN(keep_all=True, min_face_size=smallest, device="cpu").eval()

    def detect(frames_hwc: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not len(frames_hwc) or min(frames_hwc[0].shape[:2]) < smallest:
            return [NOTHING] * len(frames_hwc)  # the network fails on pictures without room
        with torch.inference_mode():
            boxes, scores = net.detect(list(frames_hwc))  # an array per frame, None for no face
        found = []
        for boxes_n4, scores_n in zip(boxes, scores, strict=True):
            if boxes_n4 is None:
                found.append(NOTHING)
                continue
            boxes_n5 = np.column_stack([boxes_n4, scores_n]).astype(np.float32)
            found.append(boxes_n5[boxes_n5[:, 4] >= MTCNN_SCORE])
        return found

    return detect


class _MtcnnFinder:
    batch = 4  # its cost on small pictures is mostly that of being called

    def __init__(self):
        self._detect = _net(MTCNN_FACE)

    def everywhere(self, frame: Frame, smallest: float | None = None) -> np.ndarray:
        scale = min(1.0, MTCNN_FACE / (smallest or SMALLEST))
        return _back(self._detect([_resize(frame.rgb(), scale)])[0], 1 / scale, 1 / scale, 0, 0)

    def near(self, places: Sequence[tuple[Frame, np.ndarray, float]]) -> list[np.ndarray]:
        found = [NOTHING] * len(places)
        by_shape: dict[tuple, list] = {}
        for k, (frame, box, spread) in enumerate(places):
            x0, y0, x1, y1 = _surroundings(frame, box, spread)
            scale = min(1.0, FACE / width(box))
            # The net takes pictures of one shape; surroundings that are squares get the same side.
            shape = tuple(max(MTCNN_FACE, round(n * scale / 16) * 16) for n in (x1 - x0, y1 - y0))
            picture_hwc = cv2.resize(frame.rgb(x0, y0, x1, y1), shape, interpolation=cv2.INTER_AREA)
            way_back = (x1 - x0) / shape[0], (y1 - y0) / shape[1], x0, y0
            by_shape.setdefault(shape, []).append((k, picture_hwc, way_back))
        for group in by_shape.values():
            answers = self._detect([picture_hwc for _, picture_hwc, _ in group])
            for (k, _, way_back), boxes_n5 in zip(group, answers, strict=True):
                found[k] = _back(boxes_n5, *way_back)
        return found


def _back(boxes_n5: np.ndarray, across: float, down: float, x0: int, y0: int) -> np.ndarray:
    """Boxes of a picture of a part as boxes of the frame."""
    return boxes_n5 * np.float32([across, down, across, down, 1]) + np.float32([x0, y0, x0, y0, 0])
