"""Face detectors behind one signature. The paper takes dlib for FaceForensics++ and MTCNN for the other datasets.

A detector is called with a list of frames of one video, each (H, W, 3) uint8 RGB, and returns for each frame a float32 array
(n, 5) with x0, y0, x1, y1, score in pixels of that frame; n may be 0. The imports are inside: dlib users need not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from dfil.errors import DataError

Detector = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
DETECTORS = ("dlib", "mtcnn")
SMALLEST = 70  # pixels: side of the smallest face that is looked for
DLIB_WINDOW = 80  # pixels: side of the window that dlib's frontal detector was trained with
MTCNN_SCORE = 0.9  # MTCNN proposes generously; below this its boxes are mostly no faces


def detector(name: str) -> Detector:
    """The detector `name`, "dlib" (HOG, frontal faces) or "mtcnn" (Zhang et al. 2016). Raises DataError for another name."""
    if name == "dlib":
        return _dlib()
    if name == "mtcnn":
        return _mtcnn()
    raise DataError(f"Unknown face detector {name!r}; choose one of: {', '.join(DETECTORS)}.")


def _dlib() -> Detector:
    import dlib

    hog = dlib.get_frontal_face_detector()

    def scan(frame_hwc: np.ndarray, smallest: float) -> np.ndarray:
        scale = DLIB_WINDOW / smallest
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        rectangles, scores, _ = hog.run(cv2.resize(frame_hwc, None, fx=scale, fy=scale, interpolation=method), 0, 0.0)
        boxes = [
            (r.left() / scale, r.top() / scale, (r.right() + 1) / scale, (r.bottom() + 1) / scale, score)
            for r, score in zip(rectangles, scores, strict=True)
        ]
        return np.array(boxes, np.float32).reshape(-1, 5)

    def detect(frames_hwc: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = []
        for frame_hwc in frames_hwc:
            # In a large picture the person filmed is large too: look for that first, which at 1080p takes less than half the time.
            coarse = max(SMALLEST, min(frame_hwc.shape[:2]) / 10)
            boxes_n5 = scan(frame_hwc, coarse)
            largest = (boxes_n5[:, 2] - boxes_n5[:, 0]).max(initial=0)
            if coarse > SMALLEST and largest < 1.25 * coarse:  # none, or one at the limit, where the box is often too wide
                boxes_n5 = scan(frame_hwc, SMALLEST)
            found.append(boxes_n5)
        return found

    return detect


def _mtcnn() -> Detector:
    import torch
    from facenet_pytorch import MTCNN

    net = MTCNN(keep_all=True, min_face_size=SMALLEST, device="cpu").eval()

    def detect(frames_hwc: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not len(frames_hwc):
            return []
        with torch.inference_mode():
            boxes, scores = net.detect(list(frames_hwc))  # per frame an array, or None for a frame without a face
        found = []
        for boxes_n4, scores_n in zip(boxes, scores, strict=True):
            if boxes_n4 is None:
                found.append(np.zeros((0, 5), np.float32))
                continue
            boxes_n5 = np.column_stack([np.asarray(boxes_n4, np.float32), np.asarray(scores_n, np.float32)])
            found.append(boxes_n5[boxes_n5[:, 4] >= MTCNN_SCORE])
        return found

    return detect
