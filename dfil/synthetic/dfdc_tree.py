"""Synthetic clips as a tree of the DFDC preview's layout; SHIFT says how they differ from ff-like.

Each real clip has one fake. Every actor has two clips, and no actor is in both splits. There is no
validation split; the adapter carves one by actor. The tree says more than the owners' does:
truth.json, which frames are forged and who (see dfil.datasets.truth), and masks/<video_id>.mp4,
where in the picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dfil.datasets.dfdc_preview import MANIPULATIONS, ORIGINALS
from dfil.datasets.truth import FILE as TRUTH
from dfil.synthetic.camera import Camera
from dfil.synthetic.codec import encode
from dfil.synthetic.fields import generator
from dfil.synthetic.identity import outer_identity
from dfil.synthetic.places import living_room
from dfil.synthetic.render import Clip, render_takes, takes
from dfil.synthetic.settings import SIZE
from dfil.synthetic.tree import MASK_CRF, Job, Tree, deal

# The owners do not say what their methods are; both swap.
RENDERED = dict(zip(MANIPULATIONS, ("Deepfakes", "FaceSwap"), strict=True))
LENGTHS = {"short": (8, 12), "long": (16, 24)}  # frames of a forged stretch
CLIPS_EACH = 2  # of one actor
BYSTANDERS = 50_000  # from this number on: who stands beside the actor
SHIFT = (
    "Partially forged: a third of the fakes is forged in 8 to 12 frames, a third in 16 to 24, a "
    "third throughout; truth.json says where.",
    "Two people in a third of the clips, in a picture of double width; only the actor of the "
    "file's name is forged, left or right.",
    "Dark clips, a third, at 0.30 to 0.50 of the light, and noisy ones, a third, with sensor noise "
    "of 6 to 11 of 255 on top: of the target, so the same in a real clip and its fake.",
    "Other places, people and cameras: living rooms, other tints and focus, more compression (crf "
    "25 instead of 23).",
)


@dataclass(frozen=True)
class _Clip(Job):
    split: str
    clip: int  # decides motion, room, camera and grain
    actor: int
    take: int  # which clip of the actor
    swapped: int
    manipulation: str
    span: tuple[int, int]
    people: int
    place: int  # of the actor, from the left
    dark: bool
    noisy: bool

    @property
    def real(self) -> str:
        return f"{ORIGINALS}/{self.actor}/{self._take}_001"

    @property
    def fake(self) -> str:
        return f"{self.manipulation}/{self.actor}/{self._take}/{self.swapped}_{self._take}_001"

    @property
    def _take(self) -> str:
        return f"{self.actor}_{chr(ord('A') + self.take)}"

    def files(self) -> dict[str, Path]:
        names = {"real": self.real, "fake": self.fake, "mask": f"masks/{self.fake}"}
        return {kind: self.root / f"{name}.mp4" for kind, name in names.items()}


def _plan(common: Job, train: int, test: int) -> list[_Clip]:
    return plan_split(common, "train", train, 0) + plan_split(common, "test", test, train)


def plan_split(common: Job, split: str, count: int, first: int) -> list[_Clip]:
    """What each clip of a split is like. All conditions are dealt independently of each other."""
    third = (False, True, False)
    options = {"manipulation": MANIPULATIONS, "people": (1, 2, 1), "dark": third, "noisy": third}
    options |= {"extent": ("short", "full", "long")}
    hands = {name: deal(common.seed, f"{split} {name}", o, count) for name, o in options.items()}
    actors = -(-count // CLIPS_EACH)
    offset = 1000 + first  # no actor's number is in both splits, as an actor has a clip at least
    plan = []
    for n in range(count):
        rng = generator(common.seed, first + n, "plan")
        dealt = {name: hand[n] for name, hand in hands.items()}
        actor, step = n // CLIPS_EACH, int(rng.integers(1, max(2, actors)))
        # In a tiny tree it is somebody who has no video.
        swapped = (actor + step) % actors if actors > 1 else actors
        place = int(rng.integers(dealt["people"]))
        span = _span(rng, dealt.pop("extent"), common.frames)
        who = dict(clip=first + n, actor=offset + actor, take=n % CLIPS_EACH)
        who |= dict(swapped=offset + swapped, place=place, span=span)
        plan.append(_Clip(**vars(common), split=split, **who, **dealt))
    return plan


def _span(rng: np.random.Generator, extent: str, frames: int) -> tuple[int, int]:
    """The forged frames [first, stop) of a clip."""
    if extent == "full":
        return 0, frames
    shortest, longest = LENGTHS[extent]
    length = min(frames, int(rng.integers(shortest, longest + 1)))
    first = int(rng.integers(frames - length + 1))
    return first, first + length


def _lists(plan: Sequence[_Clip], **sizes: int) -> dict[str, str]:
    """dataset.json, with the owners' keys, and truth.json."""
    listed, truth = {}, {}
    for job in plan:
        done = [name for name, yes in (("dark", job.dark), ("noisy", job.noisy)) if yes]
        shown = {"frames": job.frames, "people": job.people}
        truth[job.real] = shown | {"forged": [], "person": None}
        truth[job.fake] = shown | {"forged": [job.span], "person": job.place}
        for label, name, swapped in (("real", job.real, None), ("fake", job.fake, job.swapped)):
            who = {"target_id": job.actor, "swapped_id": swapped, "augmentations": done}
            listed[f"{name}.mp4"] = {"label": label, "set": job.split} | who
    return {"dataset.json": json.dumps(listed, indent=1), TRUTH: json.dumps(truth, indent=1)}


def _draw(job: _Clip, missing: Mapping) -> Iterator[tuple[str, bytes]]:
    real, fake = render_pair(job)
    camera = _camera(generator(job.seed, job.clip, "camera"), job.dark, job.noisy)
    if "mask" in missing:
        yield "mask", encode(fake.masks_thw, MASK_CRF)
    for kind, shown in (("real", real), ("fake", fake)):
        if kind in missing:
            shot = camera.shoot(shown.frames_thwc, generator(job.seed, job.clip, "grain"))
            yield kind, encode(shot, **job.setting.coding(""))


def render_pair(job: _Clip) -> tuple[Clip, Clip]:
    """The real clip and its fake before the camera; side by side with a second person if any."""
    seed, clip, frames = job.seed, job.clip, job.frames
    who = dict(span=job.span, people=(job.actor, job.swapped), methods=[RENDERED[job.manipulation]])
    drawn = takes(clip, clip + 10_000, job.setting, frames=frames, seed=seed, **who)
    room = living_room(generator(seed, clip, "room"), SIZE, SIZE * job.people)
    walls = np.split(room, job.people, axis=1)
    outer = outer_identity(seed, job.actor)
    clips = render_takes(clip, drawn, seed=seed, outer=outer, wall_hwc=walls[job.place])
    if job.people == 1:
        return tuple(clips)
    other = BYSTANDERS + clip
    beside = takes(other, other, job.setting, methods=[], frames=frames, seed=seed)
    (bystander,) = render_takes(other, beside, seed=seed, wall_hwc=walls[1 - job.place])
    return tuple(_side_by_side(shown, bystander, job.place) for shown in clips)


def _side_by_side(actor: Clip, bystander: Clip, place: int) -> Clip:
    order = (actor, bystander) if place == 0 else (bystander, actor)
    frames_thwc = np.concatenate([clip.frames_thwc for clip in order], axis=2)
    masks_thw = np.concatenate([clip.masks_thw for clip in order], axis=2)
    return replace(actor, frames_thwc=frames_thwc, masks_thw=masks_thw)


def _camera(rng: np.random.Generator, dark: bool, noisy: bool) -> Camera:
    # Light and noise are always drawn, so that the rest does not depend on whether they are used.
    drawn = Camera.drawn(rng, gain=(0.3, 0.5), noise=(6, 11), tint=(0.9, 1.05), blur=(-0.5, 0.6))
    return replace(drawn, gain=drawn.gain if dark else 1.0, noise=drawn.noise if noisy else 1.5)


TREE = Tree("DFDC preview", [SIZE, SIZE], _plan, _draw, _lists, SHIFT, MANIPULATIONS)
