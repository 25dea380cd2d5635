"""The head as a surface: shape, normals, forged regions and skin, on a grid of longitude and
height.

A head is a flattened, tapered superellipsoid, unrolled to a canonical texture of TEX_H x TEX_W
texels: longitude in [-LON_MAX, LON_MAX] radians (0 faces forward) and height in [-LAT_MAX, LAT_MAX]
half head widths (y down). z points to the camera.
"""

from __future__ import annotations

from math import sin

import cv2
import numpy as np

from dfil.synthetic.fields import bump, generator, halve, noise, ramp
from dfil.synthetic.identity import Inner, Outer
from dfil.synthetic.signals import LANDMARKS_XY

TEX_H, TEX_W = 256, 320
LON_MAX, LAT_MAX = 2.0, 1.55
TEX = (TEX_H, TEX_W)


class Head:
    """Canonical maps of one outer and one inner identity; everything that stays the same throughout
    a clip.

    albedo_hwc: skin, brows and hair root colours, before light. normal_chw, gloss_hw: for shading,
    at half resolution. relief_hw: how far the surface stands out. region_hw: per method the soft
    mask of what it re-renders, region_half_hw at half resolution. basis: displacement fields (K, 2
    * H/4 * W/4) of expression, alignment and landmarks. eyes, mouth: patches to paint.
    """

    def __init__(self, outer: Outer, inner: Inner):
        self.outer, self.inner = outer, inner
        lon, y = _grid()
        radius = np.sqrt(np.clip(cross_section(outer, y), 0.02, None))
        x, z = radius * np.sin(lon), radius * np.cos(lon)
        front = ramp(z - 0.15, 0.3)
        self.relief_hw = front * _relief(inner, x, y)
        self.normal_chw = _normals(x, y, outer.depth * z, lon, self.relief_hw)
        self.gloss_hw = halve(0.09 * ramp(0.84 - np.abs(y) / outer.height, 0.2))
        self.region_hw = {method: region * front for method, region in forged_regions(x, y).items()}
        self.region_half_hw = {method: halve(region) for method, region in self.region_hw.items()}
        inner_skin = _inner_skin(outer, inner, x, y) * outer.skin
        outer_skin = _skin_texture(outer, "outer skin", outer.height) * outer.skin
        skin = outer_skin + (inner_skin - outer_skin) * self.region_hw["Deepfakes"][..., None]
        skin *= (1 - 0.5 * ramp(y / outer.height - 0.95, 0.10))[..., None]  # shadow under the chin
        hair = hair_texture(outer)
        self.albedo_hwc = skin + (0.7 * hair[..., :3] - skin) * (0.97 * hair[..., 3:])
        self.basis = _displacement_basis(inner, x, y, self.region_hw["Deepfakes"])
        self.eyes = [_EyePatch(inner, x, y, front, side) for side in (-1, 1)]
        self.mouth = _MouthPatch(inner, x, y)


def hair_texture(o: Outer) -> np.ndarray:
    """Colour and coverage of the hair's shell, (TEX_H, TEX_W, 4)."""
    rng = generator(o.seed, o.number, "hair")
    lon, y = _grid()
    side = (o.sideburn - o.hairline) * ramp(np.abs(lon) - 1.12, 0.42)
    line = o.hairline + o.parting * np.sin(lon) + side
    line += o.fringe * noise(rng, TEX, (400, 9))
    strands = 0.20 * noise(rng, TEX, (40, 4)) + 0.15 * noise(rng, TEX, (60, 8))
    sheen = 0.35 * np.exp(-(((y + 0.95 + 0.1 * np.cos(2 * lon)) / 0.16) ** 2))
    colour = o.hair * np.clip(0.85 + strands + sheen, 0.2, 2)[..., None]
    return np.dstack([colour, ramp(line - y, 0.10)])


def cross_section(outer: Outer, y: np.ndarray) -> np.ndarray:
    """Squared radius of the head at height y; negative beyond crown and chin."""
    t = np.abs(y) / outer.height
    below = (1 - t**outer.chin) * (1 - outer.taper * np.clip(t, 0, 1.2) ** 2) ** 2
    return np.where(y < 0, 1 - t**2.4, below)


def project(outer: Outer, x, y, yaw: float, pitch: float, grow: float = 1.0, lift: float = 0.0):
    """Where the line of sight through each screen point (head units, roll removed) meets the head.

    Returns longitude, height and coverage, whose sign tells inside from outside. grow and lift give
    the shell of the hair.
    """
    x, y = x / grow, (y - lift) / grow
    s, c = np.sin(yaw), np.cos(yaw)
    flat = 1 / outer.depth**2
    a, b = float(s * s + c * c * flat), x * float(s * c * (flat - 1))
    discriminant = b * b - a * (x * x * float(c * c + s * s * flat) - cross_section(outer, y))
    depth = (np.sqrt(np.maximum(discriminant, np.float32(1e-4))) - b) / a
    across, along = x * float(c) - depth * float(s), x * float(s) + depth * float(c)
    lon = np.arctan2(across, along / outer.depth)
    return lon, y + sin(pitch) * (depth - 0.55), discriminant / a


def to_texel(lon: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of the canonical texture."""
    return (lon / LON_MAX + 1) * (0.5 * (TEX_W - 1)), (y / LAT_MAX + 1) * (0.5 * (TEX_H - 1))


def forged_regions(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Soft mask per method: the inner face for the two swaps, mouth, jaw and brows for Face2Face,
    mouth and jaw for NeuralTextures."""
    swap = (0.82, -0.52, 1.20)
    mouth, brows = _oval(x, y, 0.82, 0.38, 1.36, 0.2), _oval(x, y, 0.86, -0.60, 0.30, 0.2)
    return {
        "Deepfakes": _oval(x, y, *swap, 0.24),
        "Face2Face": np.maximum(mouth, brows),
        "FaceSwap": _oval(x, y, *swap, 0.06),
        "NeuralTextures": _oval(x, y, 0.74, 0.40, 1.36, 0.18),
    }


def _grid():
    limits = ((LON_MAX, TEX_W), (LAT_MAX, TEX_H))
    return np.meshgrid(*(np.linspace(-most, most, n, dtype=np.float32) for most, n in limits))


def _oval(x, y, half_width, top, bottom, soft):
    centre, half_height = (top + bottom) / 2, (bottom - top) / 2
    d = (np.abs(x / half_width) ** 2.5 + np.abs((y - centre) / half_height) ** 2.5) ** 0.4
    return ramp((1 - d) * min(half_width, half_height) - soft / 2, soft)


def _relief(i: Inner, x, y):
    ax = np.abs(x)
    along = np.clip((y + 0.2) / (i.nose_y + 0.12), 0, 1)
    ridge = np.exp(-((x / (i.nose_width * (0.55 + 0.45 * along))) ** 2))
    ridge = ridge * ramp(i.nose_y - 0.04 - y, 0.16) * (y > -0.2)
    wings = 0.5 * bump(ax, y, i.nose_width, i.nose_y - 0.07, 0.07, 0.07)
    nose = i.nose_height * (along**1.3 * ridge + wings)
    sockets = -0.09 * bump(ax, y, i.eye_x - 0.05, i.eye_y - 0.03, 0.20, 0.13)
    brows = 0.035 * bump(ax, y, 0.3, i.brow_y + 0.02, 0.3, 0.08)
    below = 0.035 * bump(x, y, 0, i.mouth_y + 0.22, 0.25, 0.07)
    lips = 0.045 * bump(x, y, 0, i.mouth_y, 0.33, 0.16) - below
    cheeks = 0.06 * bump(ax, y, 0.55, 0.34, 0.25, 0.22)
    chin = 0.07 * bump(x, y, 0, 1.18, 0.25, 0.16)
    return nose + sockets + brows + lips + cheeks + chin


def _normals(x, y, z, lon, relief):
    """Unit normals of the relief surface as three half-resolution planes."""
    points = np.stack([x + relief * np.sin(lon), y, z + relief * np.cos(lon)], -1)
    n = -np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    n = cv2.GaussianBlur(n / (np.linalg.norm(n, axis=-1, keepdims=True) + 1e-9), (0, 0), 1.2)
    return np.ascontiguousarray(halve(n.astype(np.float32)).transpose(2, 0, 1))


def _skin_texture(who: Outer | Inner, purpose, height):
    """Blotches, pores, moles and tint as a factor around 1, (TEX_H, TEX_W, 3)."""
    rng = generator(who.seed, who.number, purpose)
    blotches, pores = 0.030 * noise(rng, TEX, (40, 40)), 0.022 * noise(rng, TEX, (9, 9))
    shade = blotches + pores + 0.020 * noise(rng, TEX, (3, 3))
    moles = np.zeros(TEX, np.float32)
    for _ in range(rng.integers(6, 22)):
        centre = int(rng.integers(60, TEX_W - 60)), int(rng.integers(70, TEX_H - 20))
        cv2.circle(moles, centre, int(rng.integers(1, 3)), float(rng.uniform(0.1, 0.3)), -1)
    shade -= cv2.GaussianBlur(moles, (0, 0), 0.8)
    tint = 0.008 * np.stack([noise(rng, TEX, (30, 30)) for _ in range(3)], -1)
    # Longitude lines meet at crown and chin; texture fades out there instead of being squeezed.
    y = np.linspace(-LAT_MAX, LAT_MAX, TEX_H, dtype=np.float32)
    return 1 + (shade[..., None] + tint) * ramp(0.80 - np.abs(y) / height, 0.3)[:, None, None]


def _inner_skin(o: Outer, i: Inner, x, y):
    """Skin of the inner face with its painted shadows, beard and brows, relative to the outer
    skin's colour."""
    ax = np.abs(x)
    skin = _skin_texture(i, "inner skin", o.height)
    dark = 0.22 * bump(ax, y, i.eye_x - 0.08, i.eye_y - 0.10, 0.20, 0.10)
    dark = dark + 0.12 * bump(ax, y, i.eye_x, i.eye_y + 0.13, 0.17, 0.06)
    bridge = 0.18 * bump(ax, y, 0.15, 0.0, 0.06, 0.16)
    dark += 0.26 * bump(ax, y, i.nose_width * 1.15, i.nose_y - 0.06, 0.05, 0.10) + bridge
    dark += 0.30 * bump(x, y, 0, i.nose_y + 0.015, i.nose_width * 1.2, 0.045)
    dark += 0.55 * bump(ax, y, i.nose_width * 0.55, i.nose_y - 0.02, 0.055, 0.032)  # nostrils
    beside = ax - 0.22 - 0.35 * (y - i.nose_y)  # of the nasolabial folds
    dark += i.fold * bump(beside, y, 0, i.nose_y + 0.14, 0.045, 0.16)
    above = 0.06 * bump(x, y, 0, i.mouth_y - 0.17, 0.05, 0.07)
    dark += 0.16 * bump(x, y, 0, i.mouth_y + 0.21, 0.20, 0.05) + above
    skin *= 1 - dark[..., None] * np.array([0.85, 1.0, 1.05], np.float32)
    blush = i.blush * (bump(ax, y, 0.5, 0.4, 0.22, 0.2) + bump(x, y, 0, 0.4, 0.15, 0.12))
    skin *= 1 - blush[..., None] * np.array([-0.3, 1.0, 0.8], np.float32)

    grain = 0.5 + 0.5 * np.tanh(noise(generator(i.seed, i.number, "stubble"), TEX, (1.5, 1.5)))
    beard = i.beard * _oval(x, y, 0.80, 0.46, 1.6, 0.25)
    beard = beard * (1 - 0.8 * bump(x, y, 0, i.mouth_y, 0.3, 0.15)) * (0.6 + 0.4 * grain)
    t = (ax - i.eye_x) / i.brow_width
    d = y - (i.brow_y - i.brow_arch * (1 - (t - 0.25) ** 2) + 0.03 * t)
    brow = np.exp(-((d / (i.brow_thickness * (1.15 - 0.45 * np.clip(t, -1, 1)))) ** 2))
    brow *= ramp(1 - t**2, 0.25) * (0.75 + 0.25 * grain)
    ink = (1 - (1 - 0.92 * brow) * (1 - beard))[..., None]
    colour = 0.9 * i.brow_ink * np.float32([0.55, 0.45, 0.40]) / np.maximum(o.skin, 0.3)
    return skin + (colour - skin) * ink


def _displacement_basis(i: Inner, x, y, swap_region):
    """Displacement fields in the order brow, smile, jaw; shift x, shift y, rotation, scale;
    landmark offsets."""
    quarter = (TEX_W // 4, TEX_H // 4)
    planes = x, y, swap_region
    x, y, m = (cv2.resize(p, quarter, interpolation=cv2.INTER_AREA) for p in planes)
    zero, ax = np.zeros_like(x), np.abs(x)
    wider = 0.03 * np.sign(x) * bump(ax, y, 0.42, i.mouth_y - 0.05, 0.2, 0.25)
    higher = -0.05 * bump(ax, y, 0.45, i.mouth_y - 0.15, 0.22, 0.25)
    fields = [
        (zero, -0.05 * bump(ax, y, 0.42, i.brow_y, 0.36, 0.20)),
        (wider, higher),
        (zero, 0.5 * bump(x, y, 0, 1.25, 0.5, 0.34)),
        (m, zero),
        (zero, m),
        (-m * (y - 0.35), m * x),
        (m * x, m * (y - 0.35)),
    ]
    for cx, cy in LANDMARKS_XY:
        pull = bump(x, y, cx, cy, 0.24, 0.22) * m
        fields += [(pull, zero), (zero, pull)]
    # Channels last and flattened, so that coefficients @ basis is a (H/4, W/4, 2) map ready for
    # cv2.remap.
    return np.stack([np.stack(field, -1).ravel() for field in fields]).astype(np.float32)


class _EyePatch:
    """Texels around one eye in eye coordinates (half eye widths, tilt removed)."""

    def __init__(self, i: Inner, x, y, front, side):
        self.side = side
        near = np.abs(x - side * i.eye_x) < 1.35 * i.eye_width
        self.window = _window(near & (np.abs(y - i.eye_y) < 1.1 * i.eye_width) & (front > 0))
        px = side * (x[self.window] - side * i.eye_x) / i.eye_width
        py = (y[self.window] - i.eye_y) / i.eye_width
        self.x_hw, self.y_hw = px + i.eye_tilt * py, py - i.eye_tilt * px
        # Nothing of these depends on the frame.
        self.profile_hw = np.clip(1 - self.x_hw**2, 0, 1)
        self.lower_hw = i.lid_down * self.profile_hw
        self.span_hw = self.lower_hw + i.lid_up * self.profile_hw**0.8  # between the open lids
        self.corner_hw = ramp(1 - np.abs(self.x_hw), 0.1)
        self.edge_hw = ramp(self.profile_hw - 0.13, 0.25)


class _MouthPatch:
    """Texels around the mouth in mouth coordinates (half mouth widths)."""

    def __init__(self, i: Inner, x, y):
        lon = np.linspace(-LON_MAX, LON_MAX, TEX_W)
        near = (np.abs(x) < 1.3 * i.mouth_width) & (np.abs(lon) < 0.8)
        self.window = _window(near & (np.abs(y - i.mouth_y) < 1.15 * i.mouth_width))
        self.x_hw = x[self.window] / i.mouth_width
        self.y_hw = (y[self.window] - i.mouth_y) / i.mouth_width


def _window(where):
    rows, columns = np.nonzero(where)
    return np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
