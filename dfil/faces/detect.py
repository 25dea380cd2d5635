"""Face detectors. The paper takes dlib for FaceForensics++ and MTCNN for the other datasets.

`detector(name)` looks at whole frames, each by itself: a list of (H, W, 3) uint8 RGB gives for each frame a float32 array (n, 5) with
x0, y0, x1, y1, score in pixels of that frame; n may be 0. `finder(name)` is the same detector for a video that is being followed
(dfil.faces.follow): it knows where to look and how large a face is there, so that it sees a small picture instead of a large one.
The imports are inside: dlib users need not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import cv2
import numpy as np

from dfil.faces.video import Frame
from dfil.system.errors import DataError

Detector = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
DETECTORS = ("dlib", "mtcnn")
SMALLEST = 70  # pixels: side of the smallest face that is looked for
DLIB_WINDOW = 80  # pixels: side of the window that dlib's frontal detector was trained with
RASTER = 8  # pixels: side of the cells in which dlib counts gradients
MTCNN_SCORE = 0.9  # MTCNN proposes generously; below this its boxes are mostly no faces
MTCNN_FACE = 48  # pixels: what MTCNN's last network takes; a larger face is shrunk to it anyway
FACE = 90  # pixels: width that a face gets in the picture of its surroundings; a tenth above dlib's window, so that a smaller one is seen too


class Finder(Protocol):
    """batch: how many moments `near` should get at a time."""

    batch: int

    def everywhere(self, frame: Frame, smallest: float | None = None) -> np.ndarray:
        """All faces (n, 5) at least `smallest` pixels wide; None: the usual search, for a picture of which nothing is known."""

    def near(self, places: Sequence[tuple[Frame, np.ndarray, float]]) -> list[np.ndarray]:
        """Per place (frame, box (4,), spread) faces (n, 5) about as large as the box, in the square around it `spread` times as wide."""


def detector(name: str) -> Detector:
    """The detector `name`, "dlib" (HOG, frontal faces) or "mtcnn" (Zhang et al. 2016). Raises DataError for another name."""
    return _by_name(name, dlib=_dlib, mtcnn=_mtcnn)


def finder(name: str) -> Finder:
    """The finder `name`. Raises DataError for an unknown name."""
    return _by_name(name, dlib=_DlibFinder, mtcnn=_MtcnnFinder)


def _by_name(name: str, **makers: Callable):
    if name not in makers:
        raise DataError(f"Unknown face detector {name!r}; choose one of: {', '.join(DETECTORS)}.")
    return makers[name]()


def usual_size(width: int, height: int) -> float:
    """Pixels: in a large picture the person filmed is large too; smaller faces are looked for only if there is none of this size."""
    return max(SMALLEST, min(width, height) / 10)


def _resize(picture: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(
        picture,
        None,
        fx=scale,
        fy=scale,
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )


def _surroundings(frame: Frame, box: np.ndarray, spread: float) -> tuple[int, int, int, int]:
    """The square around a box, inside the picture: x0, y0, x1, y1."""
    half = spread * max(box[2] - box[0], box[3] - box[1]) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x0, y0 = max(0, int(x - half)), max(0, int(y - half))
    return (
        x0,
        y0,
        min(frame.width, max(x0 + 1, int(x + half))),
        min(frame.height, max(y0 + 1, int(y + half))),
    )


# ---- dlib


def _hog() -> Callable[[np.ndarray, float], np.ndarray]:
    import dlib

    hog = dlib.get_frontal_face_detector()

    def scan(picture: np.ndarray, scale: float) -> np.ndarray:
        """Faces (n, 5) in a picture, RGB or grey, that is looked at `scale` times as large."""
        rectangles, scores, _ = hog.run(_resize(picture, scale), 0, 0.0)
        boxes = [
            (
                r.left() / scale,
                r.top() / scale,
                (r.right() + 1) / scale,
                (r.bottom() + 1) / scale,
                score,
            )
            for r, score in zip(rectangles, scores, strict=True)
        ]
        return np.array(boxes, np.float32).reshape(-1, 5)

    return scan


def _usual_scan(scan: Callable, picture: np.ndarray) -> np.ndarray:
    coarse = usual_size(picture.shape[1], picture.shape[0])
    boxes_n5 = scan(
        picture, DLIB_WINDOW / coarse
    )  # at 1080p less than half the time of the finer one
    largest = (boxes_n5[:, 2] - boxes_n5[:, 0]).max(initial=0)
    if (
        coarse > SMALLEST and largest < 1.25 * coarse
    ):  # none, or one at the limit, where the box is often too wide
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
        return (
            self._scan(frame.luma_hw, DLIB_WINDOW / smallest)
            if smallest
            else _usual_scan(self._scan, frame.luma_hw)
        )

    def near(self, places: Sequence[tuple[Frame, np.ndarray, float]]) -> list[np.ndarray]:
        found = []
        for frame, box, spread in places:
            x0, y0, x1, y1 = _surroundings(frame, box, spread)
            # At a size, and on a raster, that a search of the whole picture would have too: boxes come in steps of both.
            scale = DLIB_WINDOW / usual_size(frame.width, frame.height)
            scale *= (5 / 6) ** np.floor(
                np.log(scale * max(box[2] - box[0], box[3] - box[1]) / FACE) / np.log(6 / 5)
            )
            cell = RASTER / scale
            x0, y0 = round(x0 // cell * cell), round(y0 // cell * cell)
            boxes_n5 = self._scan(frame.luma_hw[y0:y1, x0:x1], scale)
            found.append(boxes_n5 + np.float32([x0, y0, x0, y0, 0]))
        return found


# ---- MTCNN


def _net(smallest: float, **options) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    import torch
    from facenet_pytorch import MTCNN

    net = MTCNN(keep_all=True, min_face_size=smallest, device="cpu", **options).eval()

    def detect(frames_hwc: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not len(frames_hwc):
            return []
        with torch.inference_mode():
            boxes, scores = net.detect(
                list(frames_hwc)
            )  # per frame an array, or None for a frame without a face
        found = []
        for boxes_n4, scores_n in zip(boxes, scores, strict=True):
            if boxes_n4 is None:
                found.append(np.zeros((0, 5), np.float32))
                continue
            boxes_n5 = np.column_stack(
                [np.asarray(boxes_n4, np.float32), np.asarray(scores_n, np.float32)]
            )
            found.append(boxes_n5[boxes_n5[:, 4] >= MTCNN_SCORE])
        return found

    return detect


def _mtcnn() -> Detector:
    return _net(SMALLEST)


class _MtcnnFinder:
    batch = 4  # its cost on small pictures is mostly that of being called

    def __init__(self):
        self._detect = _net(MTCNN_FACE)

    def everywhere(self, frame: Frame, smallest: float | None = None) -> np.ndarray:
        scale = min(1.0, MTCNN_FACE / (smallest or SMALLEST))
        return self._back(self._detect([_resize(frame.rgb(), scale)])[0], 1 / scale, 0, 0)

    def near(self, places: Sequence[tuple[Frame, np.ndarray, float]]) -> list[np.ndarray]:
        found: list[np.ndarray] = [np.zeros((0, 5), np.float32)] * len(places)
        by_shape: dict[tuple, list] = {}
        for k, (frame, box, spread) in enumerate(places):
            x0, y0, x1, y1 = _surroundings(frame, box, spread)
            scale = min(1.0, FACE / max(box[2] - box[0], box[3] - box[1]))
            # One net run takes pictures of one shape, so those of whole surroundings, which are squares, get the same side.
            shape = tuple(max(MTCNN_FACE, round(n * scale / 16) * 16) for n in (x1 - x0, y1 - y0))
            picture_hwc = cv2.resize(frame.rgb(x0, y0, x1, y1), shape, interpolation=cv2.INTER_AREA)
            by_shape.setdefault(shape, []).append(
                (k, picture_hwc, (x1 - x0) / shape[0], (y1 - y0) / shape[1], x0, y0)
            )
        for group in by_shape.values():
            for (k, _, across, down, x0, y0), boxes_n5 in zip(
                group, self._detect([g[1] for g in group]), strict=True
            ):
                found[k] = boxes_n5 * np.float32([across, down, across, down, 1]) + np.float32(
                    [x0, y0, x0, y0, 0]
                )
        return found

    @staticmethod
    def _back(boxes_n5: np.ndarray, factor: float, x0: int, y0: int) -> np.ndarray:
        return boxes_n5 * np.float32([factor] * 4 + [1]) + np.float32([x0, y0, x0, y0, 0])
