"""Pseudo-forgeries for training without any forgery: a real clip laid over itself while it is read.

A copy of the face, moved, recoloured and softened or sharpened a little, shows through a soft mask
inside the face: self-blended images (Shiohara and Yamasaki, CVPR 2022), here as clips. What is
altered is drawn for the clip as a vector g and again for each frame t as e_t, both standard normal;
the frame gets

    z_t = sqrt(1 - jitter^2) g + jitter e_t

So `jitter` is the dose of what changes from frame to frame: 0 replays one alteration on every
frame, 1 draws all of it anew. Every entry of z_t is N(0, 1) whatever the dose, so that a single
frame says nothing of it. LAWS makes quantities of the entries, over the frame's normal quantiles.

The face is an ellipse in the box that the crop was cut with, or the convex hull of dlib's 68
landmarks in the middle frame of a snippet, where LANDMARKS names their file. That file
(shape_predictor_68_face_landmarks.dat, from dlib.net/files) is no part of this project: it was
trained on the iBUG 300-W pictures, whose terms exclude commercial use.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pandas as pd
from scipy.special import ndtr

from dfil.faces.store import CropStore
from dfil.system.errors import RunError
from dfil.train.snippets import SnippetDataset, number_of

NAME = "self-blended"  # on the command line, and as a manipulation in an index
HULLS = ("ellipse", "landmarks")
LANDMARKS = "DFIL_LANDMARKS"
LAWS = {  # limits of a uniform law; lengths in widths of the face, colours of 255
    "across": (-0.03, 0.03),
    "down": (-0.015, 0.015),
    "size": (-0.05, 0.05),  # of the logarithm
    "red": (-20, 20),
    "green": (-20, 20),
    "blue": (-20, 20),
    "tinted": (0, 1),  # the three above act below TINTED
    "saturation": (0.7, 1.3),
    "brightness": (-25, 25),
    "contrast": (0.9, 1.1),
    "detail": (-1, 1),  # below 0 so much of it is taken away, above 0 half as much is added
    "ratio": (0, 1),  # which of RATIOS
    "soft": (0.02, 0.06),  # deviation of the blur that makes the mask's edge
}
TINTED = 0.3
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # how much of the altered face shows
NODES = 5  # across and down, of the grid that bends the mask
BEND = 0.015  # deviation of a node, in widths of the face; at most twice that
LUMA = np.float32([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class SelfBlended:
    """How pseudo-forgeries are made; part of a run's spec. jitter: 0 to 1. hull: one of HULLS;
    RunError for others."""

    name: ClassVar[str] = NAME
    jitter: float = 0.5
    hull: str = "ellipse"

    def __post_init__(self):
        if not 0 <= self.jitter <= 1:
            raise RunError(f"a jitter of {self.jitter}: it must lie between 0, rigid, and 1")
        if self.hull not in HULLS:
            raise RunError(f"no hull is called {self.hull!r}; choose {' or '.join(HULLS)}")

    def make(self, clip_uthwc: np.ndarray, rng: np.random.Generator, margin: float) -> np.ndarray:
        """See `blend`."""
        return blend(clip_uthwc, rng, self, margin)


def default_hull() -> str:
    """ "landmarks" where LANDMARKS names their file, else "ellipse"."""
    return HULLS[bool(os.environ.get(LANDMARKS))]


def check_landmarks() -> None:
    """Raise RunError now, not with the first batch, where LANDMARKS names no such file."""
    if file := os.environ.get(LANDMARKS):
        _predictor(file)


def with_fakes(rows: pd.DataFrame, name: str = NAME) -> pd.DataFrame:
    """The real videos of an index, then each of them again as its pseudo-forgery: label 1,
    manipulation `name`, video_id `name`/<its own>, the same target."""
    reals = rows[rows["label"] == 0]
    ids = name + "/" + reals["video_id"]
    return pd.concat(
        [reals, reals.assign(video_id=ids, label=1, manipulation=name)], ignore_index=True
    )


class SelfBlendedDataset(SnippetDataset):
    """A SnippetDataset that makes the rows of `with_fakes`; all other rows it reads as they are.

    In training the draws follow from seed, epoch and video, as those of frames do; in validation
    from seed and video, so that every epoch is judged by the same clips.
    """

    def __init__(self, store: CropStore, rows: pd.DataFrame, *, fakes: SelfBlended, **how):
        super().__init__(store, rows, **how)
        self.fakes = fakes
        mark = f"{fakes.name}/"
        self._made = {i: number_of(n) for i, n in enumerate(self._ids) if n.startswith(mark)}
        self._ids = [name.removeprefix(mark) for name in self._ids]

    def _read(self, item: int, drawn_for: int, clip_uthwc: np.ndarray) -> None:
        super()._read(item, drawn_for, clip_uthwc)
        if (row := self.videos[item]) in self._made:
            rng = np.random.default_rng([self.seed, self.epoch * self.train, self._made[row], 1])
            self.fakes.make(clip_uthwc, rng, self.margin)


def blend(
    clip_uthwc: np.ndarray, rng: np.random.Generator, fakes: SelfBlended, margin: float
) -> np.ndarray:
    """Make a pseudo-forgery of crops (U, T, S, S, 3) uint8 RGB in place; the masks it used.

    margin: the crop's side over the face box's. Masks: (U, T, S, S) float32, the share of each
    pixel that was replaced; where it is 0 nothing changes. Raises RunError where landmarks are
    asked for and their file is not there.
    """
    snippets, frames, side = clip_uthwc.shape[:3]
    z_utk = alterations(rng, snippets, frames, fakes.jitter)
    masks_uthw = np.empty((snippets, frames, side, side), np.float32)
    for clip_thwc, z_tk, masks_thw in zip(clip_uthwc, z_utk, masks_uthw, strict=True):
        hull_hw = hull(clip_thwc, fakes, margin)
        for t, (frame_hwc, z_k) in enumerate(zip(clip_thwc, z_tk, strict=True)):
            how = dict(zip(LAWS, ndtr(z_k[: len(LAWS)]), strict=True))
            how = {name: low + (high - low) * how[name] for name, (low, high) in LAWS.items()}
            if t and not fakes.jitter:
                masks_thw[t] = masks_thw[0]
            else:
                masks_thw[t] = _mask(hull_hw, z_k[len(LAWS) :], how, side / margin)
            copy_hwc = _altered(frame_hwc, how, side / margin)
            frame_hwc[:] = cv2.blendLinear(copy_hwc, frame_hwc, masks_thw[t], 1 - masks_thw[t])
    return masks_uthw


def alterations(rng: np.random.Generator, U: int, T: int, jitter: float) -> np.ndarray:
    """z of every frame of a clip, (U, T, K): see above. K: the entries of LAWS, then the mask's."""
    once = rng.standard_normal(len(LAWS) + 2 * NODES * NODES)
    each_utk = rng.standard_normal((U, T, len(once)))
    return np.sqrt(1 - jitter**2) * once + jitter * each_utk


def _altered(frame_hwc: np.ndarray, how: dict[str, float], width: float) -> np.ndarray:
    """A copy of a frame with other colours, more or less detail, and moved. width: of the face."""
    mix = how["saturation"] * np.eye(3) + (1 - how["saturation"]) * LUMA
    tint = np.array([how["red"], how["green"], how["blue"]]) * (how["tinted"] < TINTED)
    offset = 128 * (1 - how["contrast"]) + how["brightness"] + tint
    copy_hwc = cv2.transform(frame_hwc, np.column_stack([how["contrast"] * mix, offset]))
    share = how["detail"] / (2 if how["detail"] > 0 else 1)
    soft_hwc = cv2.GaussianBlur(copy_hwc, (0, 0), max(0.8, 0.015 * width))
    copy_hwc = cv2.addWeighted(copy_hwc, 1 + share, soft_hwc, -share, 0)
    scale, middle = np.exp(how["size"]), (frame_hwc.shape[0] - 1) / 2
    dx, dy = (middle * (1 - scale) + width * how[name] for name in ("across", "down"))
    matrix = np.array([[scale, 0, dx], [0, scale, dy]])
    return cv2.warpAffine(copy_hwc, matrix, frame_hwc.shape[:2], borderMode=cv2.BORDER_REFLECT)


def _mask(
    hull_hw: np.ndarray, nodes_k: np.ndarray, how: dict[str, float], width: float
) -> np.ndarray:
    """The hull, bent and with an edge that is soft towards the inside, times the blend ratio."""
    side = len(hull_hw)
    bend = np.clip(nodes_k, -2, 2).reshape(NODES, NODES, 2).astype(np.float32)
    bend = cv2.resize(bend, (side, side), interpolation=cv2.INTER_LINEAR) * np.float32(BEND * width)
    place = np.arange(side, dtype=np.float32)
    x, y = bend[..., 0] + place, bend[..., 1] + place[:, None]
    bent_hw = cv2.remap(hull_hw, x, y, cv2.INTER_LINEAR)
    soft_hw = cv2.GaussianBlur(bent_hw, (0, 0), how["soft"] * width)
    ratio = RATIOS[min(int(how["ratio"] * len(RATIOS)), len(RATIOS) - 1)]
    # On a straight edge the blurred hull is one half, and less outside.
    return np.clip(2 * soft_hw - 1, 0, 1) * (bent_hw > 0) * np.float32(ratio)


def hull(clip_thwc: np.ndarray, fakes: SelfBlended, margin: float) -> np.ndarray:
    """1 inside the face, 0 outside: (S, S) float32."""
    side = clip_thwc.shape[1]
    if fakes.hull == "landmarks":
        points = landmarks(clip_thwc[len(clip_thwc) // 2], margin)
        hull_hw = np.zeros((side, side), np.float32)
        return cv2.fillConvexPoly(hull_hw, cv2.convexHull(points), 1)
    across = np.linspace(-margin, margin, side, dtype=np.float32)  # 1: the edge of the box
    return (across**2 + across[:, None] ** 2 < 1).astype(np.float32)


def landmarks(crop_hwc: np.ndarray, margin: float) -> np.ndarray:
    """The 68 landmarks of the face whose box is the crop's middle: (68, 2) int32, x and y.

    Raises RunError where LANDMARKS names no such file.
    """
    import dlib  # only here: an ellipse needs no dlib

    side = len(crop_hwc)
    edge = round((side - side / margin) / 2)
    box = dlib.rectangle(edge, edge, side - 1 - edge, side - 1 - edge)
    found = _predictor(os.environ.get(LANDMARKS, ""))(crop_hwc, box)
    return np.array([(p.x, p.y) for p in found.parts()], np.int32)


@lru_cache(maxsize=1)
def _predictor(file: str):
    import dlib

    if not Path(file).is_file():
        raise RunError(
            f"${LANDMARKS} names no file ({file!r}); let it name"
            " shape_predictor_68_face_landmarks.dat, or unset it for an ellipse"
        )
    try:
        return dlib.shape_predictor(file)
    except RuntimeError as error:
        raise RunError(f"{file}: no shape predictor of dlib's ({error}); fetch it again") from error
