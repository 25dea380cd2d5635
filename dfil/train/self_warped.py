"""Warps of real faces for training without any forgery: the face at a lower resolution than the
rest of its picture, as a generator of faces of fixed size leaves it.

Li and Lyu (CVPR Workshops 2019): a real face is aligned at a random size, blurred, warped back and
put into its own picture, in a rectangle or in the face's outline. It is here made while the crops
are read, as self-blended pictures are. What is read, and how:
- The face is shrunk to a random share of its size; the crop is taken to be aligned already.
- Blur: a Gaussian over 5 x 5 pixels of the shrunk face [memory].
- Rectangle or outline, each as often [memory]; its edge is soft.
- The source jitters brightness, contrast and sharpness of both classes [memory]. Real clips are
  left as they are here, and so are the colours of warps: they would tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from scipy.special import ndtr

from dfil.train.self_blended import SelfBlended, alterations, hull

EDGE = 0.03  # deviation of the blur that makes the mask's edge soft, in widths of the face


@dataclass(frozen=True)
class SelfWarped(SelfBlended):
    """How warps are made; part of a run's spec. jitter 1: every frame's anew. smallest: the least
    share of its size that a face is shrunk to."""

    name: ClassVar[str] = "self-warped"
    jitter: float = 1.0
    smallest: float = 0.3

    def make(self, clip_uthwc: np.ndarray, rng: np.random.Generator, margin: float) -> np.ndarray:
        """Make a warp of crops (U, T, S, S, 3) uint8 RGB in place; the masks it used.

        As self_blended.blend: margin, the masks' form, and what is raised.
        """
        snippets, frames, side = clip_uthwc.shape[:3]
        drawn_utk = ndtr(alterations(rng, snippets, frames, self.jitter))
        masks_uthw = np.empty((snippets, frames, side, side), np.float32)
        for clip_thwc, drawn_tk, masks_thw in zip(clip_uthwc, drawn_utk, masks_uthw, strict=True):
            areas = _areas(hull(clip_thwc, self, margin), EDGE * side / margin)
            for frame_hwc, (size, outline, *_), mask_hw in zip(
                clip_thwc, drawn_tk, masks_thw, strict=True
            ):
                mask_hw[:] = areas[int(outline < 0.5)]
                copy_hwc = warped(frame_hwc, self.smallest + (1 - self.smallest) * size)
                frame_hwc[:] = cv2.blendLinear(copy_hwc, frame_hwc, mask_hw, 1 - mask_hw)
        return masks_uthw


def warped(frame_hwc: np.ndarray, share: float) -> np.ndarray:
    """A frame shrunk to a share of its size, blurred there, and enlarged again."""
    side = frame_hwc.shape[0]
    small = max(8, round(share * side))
    small_hwc = cv2.resize(frame_hwc, (small, small), interpolation=cv2.INTER_AREA)
    soft_hwc = cv2.GaussianBlur(small_hwc, (5, 5), 0)
    return cv2.resize(soft_hwc, (side, side), interpolation=cv2.INTER_LINEAR)


def _areas(face_hw: np.ndarray, deviation: float) -> list[np.ndarray]:
    """The rectangle around the face and its outline, with edges soft towards the inside."""
    rows, columns = np.nonzero(face_hw)
    box_hw = np.zeros_like(face_hw)
    box_hw[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
    areas = []
    for area_hw in (box_hw, face_hw):
        soft_hw = cv2.GaussianBlur(area_hw, (0, 0), deviation, borderType=cv2.BORDER_CONSTANT)
        areas.append(np.clip(2 * soft_hw - 1, 0, 1) * area_hw)
    return areas
