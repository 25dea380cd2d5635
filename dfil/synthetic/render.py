"""Real and forged clips of one target, drawn together.

A clip's pixels depend on its target (head, room, motion, sensor noise) and on a `Take`: whose inner
face, which expression, which nuisances. All takes of a target share pose, hair, light and
everything behind the face; each draws only its own face. With artefact = 0 a fake's frame is a
frame of the real clip that has the same inner face, expression and nuisances (the tests compare
them byte for byte), and those three follow the same law in real and fake clips. What is left to see
is how they move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import cos, sin

import cv2
import numpy as np

from dfil.synthetic.features import paint_features
from dfil.synthetic.fields import double, generator, noise, over, place, ramp
from dfil.synthetic.head import TEX_H, TEX_W, Head, hair_texture, project, to_texel
from dfil.synthetic.identity import Inner, Outer, inner_identity, outer_identity
from dfil.synthetic.room import back_hair, torso, wall
from dfil.synthetic.settings import METHODS, SIZE, Setting
from dfil.synthetic.signals import Expression, Motion, expression, motion, nuisances

# These replace the inner face; the other two replay the source's expression on the target's own.
SWAPS = ("Deepfakes", "FaceSwap")
# How much detail the single-frame traces take away.
LOST = {"Deepfakes": 3.0, "FaceSwap": 0.6, "Face2Face": 1.5, "NeuralTextures": 2.5}
POOL = 160  # the sensor noise of a frame is a random window of one larger noise image
MASK_THRESHOLD = 0.02  # share of forged colour from which a pixel counts as forged


@dataclass(frozen=True)
class Take:
    """What one clip of a target draws on the target's head. method is `real` or one of METHODS;
    forged_t says which frames it forges."""

    method: str
    inner: Inner
    expression: Expression
    nuisances: dict[str, np.ndarray]
    forged_t: np.ndarray
    artefact: float = 0.0


@dataclass(frozen=True)
class Clip:
    """frames_thwc: uint8 RGB (T, SIZE, SIZE, 3). masks_thw: uint8 (T, SIZE, SIZE), 255 where
    forged. forged_t: bool (T,)."""

    method: str
    frames_thwc: np.ndarray
    masks_thw: np.ndarray
    forged_t: np.ndarray


def render_target(
    target: int, source: int, setting: Setting, *, seed: int = 0, **how
) -> Iterator[Clip]:
    """The real clip of identity `target`, then its fakes; arguments as in `takes`.

    The same arguments give the same bytes, whatever other methods are drawn along.
    """
    drawn = takes(target, source, setting, seed=seed, **how)
    yield from render_takes(target, drawn, seed=seed)


def takes(
    target: int,
    source: int,
    setting: Setting,
    *,
    methods: Sequence[str] = METHODS,
    frames: int | None = None,
    seed: int = 0,
    span: tuple[int, int] | None = None,
    people: tuple[int, int] | None = None,
) -> list[Take]:
    """The real take of identity `target`, then one by each of `methods` with `source` as the other
    person.

    frames: length, default the setting's. span: forge only the frames [start, stop); all others
    equal the real clip's exactly. people: whose inner faces target and source have, where one
    person has several clips; default the two numbers themselves.
    """
    person, other = people or (target, source)
    frames = frames or setting.frames
    own = expression(seed, target, frames)
    # Another clip of the source than its real video.
    driving = expression(seed, source, frames, purpose="driving expression")
    forged = np.zeros(frames, bool)
    forged[slice(*(span or (0, frames)))] = True
    still = nuisances(seed, target, frames, setting.strength)
    face = inner_identity(seed, person)
    real = Take("real", face, own, still, np.zeros(frames, bool))
    found = [real]
    for method in methods:
        moving = nuisances(seed, target, frames, setting.strength, moving=method, tau=setting.tau)
        what = dict(nuisances=moving, forged_t=forged, artefact=setting.artefact)
        take = replace(real, method=method, **what)
        if method in SWAPS:
            take = replace(take, inner=inner_identity(seed, other))
        elif method == "Face2Face":
            take = replace(take, expression=driving)
        else:
            take = replace(take, expression=replace(own, mouth=driving.mouth, smile=driving.smile))
        found.append(take)
    return found


def render_takes(
    target: int,
    takes: Sequence[Take],
    *,
    seed: int = 0,
    outer: Outer | None = None,
    wall_hwc: np.ndarray | None = None,
) -> list[Clip]:
    """Draw several takes of one target. Frames that a take does not forge are copied from the
    first, which then must be real.

    outer: whose head it is, where one person has several clips; default the one of the number
    `target`, which always decides motion and sensor noise. wall_hwc: another background than that
    person's wall, RGB between 0 and 1, (SIZE, SIZE, 3) float32.
    """
    frames = len(takes[0].forged_t)
    outer, moves = outer or outer_identity(seed, target), motion(seed, target, frames)
    behind = wall(outer) if wall_hwc is None else wall_hwc.copy()
    room = _Room(outer, moves, generator(seed, target, "sensor"), behind)
    looks = _Looks(generator(seed, target, "look of the forgery"))
    heads = {}  # one head per inner face
    for inner in (take.inner for take in takes):
        if (inner.seed, inner.number) not in heads:
            heads[inner.seed, inner.number] = _PaintedHead(Head(outer, inner))
    shape = frames, SIZE, SIZE
    clips = [
        Clip(t.method, np.empty((*shape, 3), np.uint8), np.zeros(shape, np.uint8), t.forged_t)
        for t in takes
    ]
    for t in range(frames):
        stage = _set_stage(outer, moves, room, t)
        for take, clip in zip(takes, clips, strict=True):
            if take.method != "real" and not take.forged_t[t]:
                clip.frames_thwc[t] = clips[0].frames_thwc[t]
                continue
            head = heads[take.inner.seed, take.inner.number]
            clip.frames_thwc[t] = stage.around_hwc
            forged_hw = _draw_face(clip.frames_thwc[t][stage.window], stage, head, take, looks, t)
            if forged_hw is not None:
                clip.masks_thw[t][stage.window] = (forged_hw > MASK_THRESHOLD) * np.uint8(255)
    return clips


class _Room:
    """Static layers of a target and its camera."""

    def __init__(self, outer: Outer, moves: Motion, rng: np.random.Generator, wall_hwc: np.ndarray):
        colour, alpha = torso(outer)
        dx, dy = float(moves.shift_x.mean()), float(moves.shift_y.mean())
        self.torso_alpha_hw = place(alpha, dx, dy)
        self.scene_hwc = wall_hwc
        over(self.scene_hwc, place(colour, dx, dy), self.torso_alpha_hw)
        self.back_hair, self.hair_hwc = back_hair(outer), hair_texture(outer)
        grain = rng.standard_normal((SIZE + POOL, SIZE + POOL, 3), dtype=np.float32)
        grain = grain * np.float32(rng.uniform(2.5, 4.5))
        # The half makes truncation to uint8 round.
        self.noise_hwc = cv2.GaussianBlur(grain, (0, 0), 0.6) + np.float32(0.5)
        self.noise_offset_yx = rng.integers(0, POOL, (len(moves.yaw), 2))


class _Looks:
    """What a clip's forger would leave in every frame: texture modes, colour cast, chequerboard."""

    def __init__(self, rng: np.random.Generator):
        half = (TEX_H // 2, TEX_W // 2)
        self.modes_khw = np.stack([noise(rng, half, (c / 2, c / 2)) for c in (5, 8, 14)])
        self.cast = rng.uniform(-0.07, 0.07, 3).astype(np.float32)
        squares = np.add.outer(np.arange(TEX_H), np.arange(TEX_W)) // 2
        self.chequer_hw = (squares % 2 * 2 - 1).astype(np.float32)


class _PaintedHead:
    """A head with its texture as last painted; two takes with the same face and expression paint it
    once."""

    def __init__(self, head: Head):
        self.head, self._texture_hwc, self._painted = head, head.albedo_hwc.copy(), None

    def texture(self, **features: float) -> np.ndarray:
        if features != self._painted:
            paint_features(self._texture_hwc, self.head, **features)
            self._painted = features
        return self._texture_hwc


@dataclass(frozen=True)
class _Stage:
    """One frame of a target without its face. Arrays _half: the head's window, half resolution."""

    window: tuple[slice, slice]
    around_hwc: np.ndarray  # the finished frame outside the window, uint8
    behind_hwc: np.ndarray  # what the face is added to inside it, 0 to 255, noise included
    weight_hw: np.ndarray  # visibility of the face, times 255
    noise_hwc: np.ndarray
    lon_half: np.ndarray
    lat_half: np.ndarray
    light: np.ndarray  # direction towards the light in the head's frame
    halfway: np.ndarray  # direction between light and camera, for the gloss
    sin_yaw: float
    sin_pitch: float
    gain: float
    gaze_x: float
    gaze_y: float


def _set_stage(outer: Outer, moves: Motion, room: _Room, t: int) -> _Stage:
    yaw, pitch, roll = float(moves.yaw[t]), float(moves.pitch[t]), float(moves.roll[t])
    gain, scale = float(moves.gain[t]), float(moves.scale[t])
    light = outer.light + np.array([moves.light_x[t], 0, 0], np.float32)
    light = light / np.linalg.norm(light)
    halfway = (light + [0, 0, 1]) / np.linalg.norm(light + [0, 0, 1])
    light, halfway = _to_head(light, yaw, pitch), _to_head(halfway, yaw, pitch)

    # The head's window on the screen, with even corners so that half resolution fits.
    unit = outer.half_width_px * scale
    cx, cy = SIZE / 2 + float(moves.shift_x[t]), SIZE / 2 - 4 + float(moves.shift_y[t])
    edges = cx - 1.3 * unit, cx + 1.3 * unit, cy - 1.72 * unit, cy + 1.55 * unit
    left, right, top, bottom = (int(np.clip(edge, 0, SIZE)) // 2 * 2 for edge in edges)
    window = np.s_[top:bottom, left:right]
    spans = (left, right, cx), (top, bottom, cy)
    grid = (((np.arange(a, b, 2) + 0.5 - c) / unit).astype(np.float32) for a, b, c in spans)
    gx, gy = np.meshgrid(*grid)
    x, y = gx * cos(roll) + gy * sin(roll), gy * cos(roll) - gx * sin(roll)
    lon, lat, cover = project(outer, x, y, yaw, pitch)
    face_alpha = np.clip(double(cover) * (unit / 3.2) + 0.5, 0, 1)

    # Room and torso, with long hair between them.
    image = room.scene_hwc * np.float32(gain)
    if room.back_hair is not None:
        dx, dy = float(moves.shift_x[t]) - 9 * sin(yaw), float(moves.shift_y[t]) - 4
        colour, alpha = (place(layer, dx, dy, scale) for layer in room.back_hair)
        over(image, colour, alpha * (1 - room.torso_alpha_hw))

    # Hair is a second, larger shell; its far side and the ears lie behind the face.
    hair_lon, hair_lat, hair_cover = project(outer, x, y, yaw, pitch, outer.volume, -0.04)
    cap = np.clip(hair_cover * (unit / 5) + 0.5, 0, 1)
    back = np.empty((*x.shape, 4), np.float32)
    back[..., :3] = outer.hair * np.float32(0.45)
    back[..., 3] = cap * ramp(outer.sideburn - 0.1 - hair_lat, 0.3)
    if room.back_hair is None:
        _paint_ears(back, outer, x, y, yaw, unit, light, gain)
    back = double(back)
    inside = image[window]
    over(inside, back[..., :3], back[..., 3])
    column, row = (double(plane.astype(np.float32)) for plane in to_texel(hair_lon, hair_lat))
    hair = cv2.remap(room.hair_hwc, column, row, cv2.INTER_LINEAR)
    hair_alpha = double(cap) * hair[..., 3]
    tone = double(0.75 * gain + 0.35 * (x * light[0] - y * 0.5))

    # behind * (1 - face) * (1 - hair) + hair; the face comes on top as face * weight, which
    # commutes with the rest.
    behind = inside * ((1 - face_alpha) * (1 - hair_alpha))[..., None]
    behind = behind + hair[..., :3] * (tone * hair_alpha)[..., None]
    dy, dx = room.noise_offset_yx[t]
    sensor = room.noise_hwc[dy : dy + SIZE, dx : dx + SIZE]
    image *= 255
    image += sensor
    around = np.clip(image, 0, 255, out=image).astype(np.uint8)
    behind *= 255
    behind += sensor[window]
    return _Stage(
        window=window,
        around_hwc=around,
        behind_hwc=behind,
        weight_hw=face_alpha * (1 - hair_alpha) * 255,
        noise_hwc=sensor[window] - np.float32(0.5),
        lon_half=lon,
        lat_half=lat,
        light=light,
        halfway=halfway,
        sin_yaw=sin(yaw),
        sin_pitch=sin(pitch),
        gain=gain,
        gaze_x=float(moves.gaze_x[t]),
        gaze_y=float(moves.gaze_y[t]),
    )


def _draw_face(
    out_hwc: np.ndarray, stage: _Stage, painted: _PaintedHead, take: Take, looks: _Looks, t: int
) -> np.ndarray | None:
    """Draw frame t of a take into its window (uint8, in place). Returns the share of forged colour
    per pixel, None for a real take."""
    head, forged = painted.head, take.method != "real"
    swap, replay, landmarks, texture = (take.nuisances[method][t] for method in METHODS)
    mouth = float(np.clip(take.expression.mouth[t] + replay[0] + texture[0], 0, 0.85))
    smile = float(take.expression.smile[t] + replay[1])
    brow = float(take.expression.brow[t] + replay[2])
    lid = float(np.clip(take.expression.lid[t] * (1 + replay[3]), 0, 1.15))
    eyes = dict(lid=lid, gaze_x=stage.gaze_x, gaze_y=stage.gaze_y)
    texture_hwc = painted.texture(**eyes, mouth=mouth, smile=smile, width=float(texture[1]))
    if forged and take.artefact > 0:
        texture_hwc = _leave_traces(texture_hwc, head.region_hw[take.method], take, looks)

    # Where each pixel looks up the texture: nuisances and expression displace it, the relief shifts
    # it by parallax.
    expressed = [brow, smile, 0.55 * mouth * head.inner.mouth_width]
    weights = np.concatenate([expressed, swap[:4], landmarks]).astype(np.float32)
    moved_hwc = (weights @ head.basis).reshape(TEX_H // 4, TEX_W // 4, 2)
    column, row = to_texel(stage.lon_half, stage.lat_half)
    move = cv2.remap(moved_hwc, column / 4 - 0.375, row / 4 - 0.375, cv2.INTER_LINEAR)
    relief = cv2.remap(head.relief_hw, column, row, cv2.INTER_LINEAR)
    column, row = to_texel(
        stage.lon_half - move[..., 0] - relief * stage.sin_yaw,
        stage.lat_half - move[..., 1] + relief * stage.sin_pitch,
    )
    shade_hwc = _shade(head, stage, take, looks, t)
    shade_hwc = cv2.remap(shade_hwc, column / 2 - 0.25, row / 2 - 0.25, cv2.INTER_LINEAR)
    shade_hwc = double(shade_hwc)
    column, row = double(column), double(row)

    face_hwc = cv2.remap(texture_hwc, column, row, cv2.INTER_LINEAR)
    face_hwc *= shade_hwc[..., :3]
    face_hwc += shade_hwc[..., 3:]
    face_hwc *= stage.weight_hw[..., None]
    face_hwc += stage.behind_hwc
    where_hw = None
    if forged:
        where_hw = cv2.remap(head.region_hw[take.method], column, row, cv2.INTER_LINEAR)
        where_hw = where_hw * (stage.weight_hw * np.float32(1 / 255))
        if take.artefact > 0:  # a generator does not reproduce the camera's noise
            face_hwc -= stage.noise_hwc * (0.8 * min(1.0, take.artefact) * where_hw)[..., None]
    out_hwc[:] = np.clip(face_hwc, 0, 255, out=face_hwc)
    return where_hw


def _shade(head: Head, stage: _Stage, take: Take, looks: _Looks, t: int) -> np.ndarray:
    """Diffuse light in RGB and gloss, (TEX_H / 2, TEX_W / 2, 4)."""
    swap, replay, _, texture = (take.nuisances[method][t] for method in METHODS)
    normals = head.normal_chw.reshape(3, -1)
    facing = (stage.light @ normals).reshape(head.gloss_hw.shape)
    gloss = np.maximum((stage.halfway @ normals).reshape(head.gloss_hw.shape), 0)
    for _ in range(5):
        gloss *= gloss  # to the power of 32
    region = head.region_half_hw
    mouth_gain = texture[2] + (texture[3:] @ looks.modes_khw.reshape(3, -1)).reshape(facing.shape)
    own = 1 + region["Face2Face"] * replay[4] + region["NeuralTextures"] * mouth_gain
    light = (head.outer.ambient + 0.62 * np.maximum(facing, -0.1)) * own * stage.gain
    shade = np.empty((*facing.shape, 4), np.float32)
    for channel in range(3):
        shade[..., channel] = light * (1 + region["Deepfakes"] * swap[4 + channel])
    shade[..., 3] = head.gloss_hw * gloss
    return shade


def _leave_traces(
    texture_hwc: np.ndarray, region_hw: np.ndarray, take: Take, looks: _Looks
) -> np.ndarray:
    """The classic single-frame traces: lost detail everywhere, a colour cast of the swaps, a
    chequerboard of the other two."""
    method, artefact = take.method, take.artefact
    shrink = 1 + artefact * LOST[method]
    size = int(TEX_W / shrink), int(TEX_H / shrink)
    small = cv2.resize(texture_hwc, size, interpolation=cv2.INTER_AREA)
    soft = texture_hwc.copy()
    over(soft, cv2.resize(small, (TEX_W, TEX_H), interpolation=cv2.INTER_LINEAR), region_hw)
    if method in SWAPS:
        cast = looks.cast * (artefact * (1.0 if method == "Deepfakes" else 1.3))
        soft *= 1 + region_hw[..., None] * cast
    else:
        soft *= (1 + region_hw * looks.chequer_hw * (0.02 * artefact))[..., None]
    return soft


def _to_head(v: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Rotate a direction from the camera's into the head's frame."""
    y, z = v[1] * cos(pitch) + v[2] * sin(pitch), v[2] * cos(pitch) - v[1] * sin(pitch)
    return np.array([v[0] * cos(yaw) - z * sin(yaw), y, v[0] * sin(yaw) + z * cos(yaw)], np.float32)


def _paint_ears(rgba, o: Outer, x, y, yaw: float, unit: float, light, gain: float) -> None:
    for side in (-1, 1):
        across = x - side * cos(yaw) - 0.10 * sin(yaw) + 0.15 * side * (y - 0.1)
        d = np.sqrt((across / 0.17) ** 2 + ((y - 0.08) / 0.29) ** 2)
        alpha = ramp(1 - d, 6 / unit)
        tone = gain * (o.ambient + 0.62 * max(-0.1, side * float(light[0])))
        rgba[..., 3] = np.maximum(rgba[..., 3], alpha)
        over(rgba[..., :3], (o.skin * tone) * (0.62 + 0.38 * np.minimum(d, 1.1))[..., None], alpha)
