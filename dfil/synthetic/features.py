"""Eyes and mouth, painted into the canonical texture anew in every frame."""

from __future__ import annotations

import numpy as np

from dfil.synthetic.fields import bump, over, ramp
from dfil.synthetic.head import Head

SCLERA = np.array([0.93, 0.90, 0.88], np.float32)
MOUTH_INSIDE = np.array([0.26, 0.09, 0.09], np.float32)
TEETH = np.array([0.82, 0.79, 0.74], np.float32)
IRIS_RADIUS = 0.40


def paint_features(
    texture_hwc: np.ndarray, head: Head, *, lid, gaze_x, gaze_y, mouth, smile, width
) -> None:
    """Repaint eyes and mouth of `head` in place; the rest of the texture must be its albedo.

    lid: opening, 0 closed to 1 open. gaze: shift of the iris in half eye widths. mouth: opening, 0
    to about 0.85. smile: about -1 to 1. width: relative change of the mouth's width.
    """
    for eye in head.eyes:
        texture_hwc[eye.window] = head.albedo_hwc[eye.window]
        _paint_eye(texture_hwc[eye.window], head, eye, lid, gaze_x, gaze_y)
    texture_hwc[head.mouth.window] = head.albedo_hwc[head.mouth.window]
    _paint_mouth(texture_hwc[head.mouth.window], head, mouth, smile, width)


def _paint_eye(patch, head, eye, lid, gaze_x, gaze_y):
    x, y, lower = eye.x_hw, eye.y_hw, eye.lower_hw
    upper = lower - eye.span_hw * lid
    opening = ramp(y - upper, 0.14) * ramp(lower - y, 0.14) * eye.corner_hw
    shade = 1 - 0.38 * np.exp(-np.clip(y - upper, 0, None) / 0.14) - 0.12 * x * x
    d = np.sqrt((x - eye.side * gaze_x) ** 2 + (y + 0.06 - gaze_y) ** 2) / IRIS_RADIUS
    ball = SCLERA * shade[..., None]
    iris = head.inner.iris * (np.clip(1.35 - 0.55 * d, 0.5, 1.4) * shade)[..., None]
    over(ball, iris, ramp(1 - d, 0.25))
    ball *= (1 - 0.93 * ramp(0.46 - d, 0.25))[..., None]  # pupil
    glint = bump(x, y, eye.side * (gaze_x - 0.13), gaze_y - 0.20, 0.09, 0.09)
    ball += 0.75 * glint[..., None]
    crease = 0.30 * np.exp(-(((y - upper + 0.26 + 0.08 * lid) / 0.08) ** 2)) * eye.edge_hw
    lash = 0.80 * np.exp(-(((y - upper) / 0.085) ** 2))
    lash = lash + 0.22 * np.exp(-(((y - lower) / 0.06) ** 2))
    patch *= (1 - crease)[..., None]
    over(patch, ball, opening)
    patch *= (1 - lash * eye.edge_hw)[..., None]


def _paint_mouth(patch, head, opening, smile, width):
    i = head.inner
    x = head.mouth.x_hw * (1 / (1 + width + 0.10 * smile - 0.12 * opening))
    y = head.mouth.y_hw + smile * 0.16 * (x * x - 0.25)
    profile = np.clip(1 - x * x, 0, 1)
    root, corner = np.sqrt(profile), ramp(1 - np.abs(x), 0.08)
    gap_top, gap_bottom = -0.22 * opening * profile, 0.78 * opening * profile
    top = gap_top - i.lip_up * root * (0.95 - 0.18 * np.exp(-((x / 0.16) ** 2)))
    bottom = gap_bottom + i.lip_down * root * np.sqrt(root)
    lips = ramp(y - top, 0.10) * ramp(bottom - y, 0.12) * corner
    upper_lip = -0.18 * (y - top) / np.maximum(gap_top - top + 0.05, 0.05)
    lower_lip = 0.22 * np.exp(-(((y - (gap_bottom + bottom) / 2) / 0.07) ** 2)) - 0.05
    shade = 1 + np.where(y < gap_top, upper_lip, lower_lip)
    gap = ramp(y - gap_top, 0.08) * ramp(gap_bottom - y, 0.08)
    gap = gap * ramp(profile - 0.06, 0.1) * min(1.0, opening * 6)
    teeth = ramp(gap_top + 0.24 - y, 0.1) * ramp(0.80 - np.abs(x), 0.3) * min(1.0, opening * 3)
    edge = np.where(y < 0, gap_top, gap_bottom)
    line = 0.55 * np.exp(-(((y - edge) / 0.045) ** 2)) * ramp(1.04 - np.abs(x), 0.1)
    below = 0.20 * np.exp(-(((y - bottom - 0.13) / 0.10) ** 2)) * profile
    patch *= (1 - below)[..., None]
    over(patch, (head.outer.skin * i.lip) * shade[..., None], lips)
    over(patch, MOUTH_INSIDE + (TEETH - MOUTH_INSIDE) * teeth[..., None], gap)
    patch *= (1 - line)[..., None]
