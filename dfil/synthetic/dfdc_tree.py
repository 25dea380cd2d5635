"""Synthetic clips as a tree of exactly the DFDC preview's layout. How they differ from the FaceForensics++ counterpart stands in SHIFT.

The tree says more than the owners' does: truth.json, which frames are forged and who (see dfil.datasets.truth), and
masks/<video_id>.mp4, where in the picture.
"""

from __future__ import annotations

import json
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
from dfil.synthetic.settings import PEOPLE, SIZE, Setting
from dfil.synthetic.tree import MASK_CRF, Common, begin, deal, draw, write

TREE = 1  # raised whenever the same parameters no longer give the same files, the renderer apart
SECONDS_PER_FRAME = 0.03  # one core, a real and a fake, a third of them with two people
RENDERED = dict(
    zip(MANIPULATIONS, ("Deepfakes", "FaceSwap"), strict=True)
)  # the owners do not say what their methods are; both swap
LENGTHS = {"short": (8, 12), "long": (16, 24)}  # frames of a forged stretch
CLIPS_EACH = 2  # of one actor
BYSTANDERS = 50_000  # from this number on: who stands beside the actor
SHIFT = (
    "Partially forged: a third of the fakes is forged in 8 to 12 frames, a third in 16 to 24, a third throughout; truth.json says where.",
    "Two people in a third of the clips, in a picture of double width; only the actor of the file's name is forged, left or right.",
    "Dark clips, a third, at 0.30 to 0.50 of the light, and noisy ones, a third, with sensor noise of 6 to 11 of 255 on top: of the "
    "target, so the same in a real clip and its fake.",
    "Other places, people and cameras: living rooms, other tints and focus, more compression (crf 25 instead of 23).",
)


@dataclass(frozen=True)
class _Job(Common):
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
        return f"{ORIGINALS}/{self.actor}/{self.actor}_{_letter(self.take)}_001"

    @property
    def fake(self) -> str:
        folder = f"{self.actor}_{_letter(self.take)}"
        return f"{self.manipulation}/{self.actor}/{folder}/{self.swapped}_{folder}_001"

    def files(self) -> dict[str, Path]:
        names = {"real": self.real, "fake": self.fake, "mask": f"masks/{self.fake}"}
        return {kind: self.root / f"{name}.mp4" for kind, name in names.items()}


def write_dfdc(
    root: str | Path,
    setting: Setting | str = "dfdc-like",
    *,
    train: int = 40,
    test: int = 16,
    frames: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a synthetic tree of the DFDC preview under `root` and return it; clips that are already there are kept.

    train, test: how many real clips; each has one fake, by method_A and method_B in turn. Every actor has two clips, and no actor
    is in both splits. There is no validation split; the adapter carves one by actor. frames: length of every clip, default the
    setting's. jobs: processes, default one per core; the files do not depend on it. The tree carries `synthetic.json`.

    Raises DataError if root holds something else than a synthetic tree of the same parameters.
    """
    facts = dict(layout="DFDC preview", tree=TREE, counted="clips", size=[SIZE, SIZE], shift=SHIFT)
    common = begin(root, setting, train, test, frames, seed, people=PEOPLE["dfdc-like"], **facts)
    plan = _plan(common, "train", train, 0) + _plan(common, "test", test, train)
    for manipulation in MANIPULATIONS:
        (common.root / manipulation).mkdir(exist_ok=True)  # a tree of one clip has both folders too
    write(common.root / "dataset.json", json.dumps(_listing(plan), indent=1).encode())
    write(common.root / TRUTH, json.dumps(_truth(plan), indent=1).encode())
    todo = [job for job in plan if not all(path.exists() for path in job.files().values())]
    draw(
        todo,
        _write_clip,
        common.root,
        unit="clip",
        seconds=common.frames * SECONDS_PER_FRAME,
        jobs=jobs,
        progress=progress,
    )
    return common.root


def _plan(common: Common, split: str, count: int, first: int) -> list[_Job]:
    """What each clip of a split is like. All conditions are dealt independently of each other."""
    seed = common.seed
    hands = {
        "manipulation": deal(seed, f"{split} manipulation", MANIPULATIONS, count),
        "people": deal(seed, f"{split} people", (1, 2, 1), count),
        "dark": deal(seed, f"{split} dark", (False, True, False), count),
        "noisy": deal(seed, f"{split} noisy", (False, True, False), count),
    }
    extents = deal(seed, f"{split} extent", ("short", "full", "long"), count)
    actors = -(-count // CLIPS_EACH)
    jobs = []
    for n in range(count):
        rng = generator(seed, first + n, "plan")
        actor, step = n // CLIPS_EACH, int(rng.integers(1, max(2, actors)))
        swapped = (
            (actor + step) % actors if actors > 1 else actors
        )  # a tiny tree: somebody who has no video
        dealt = {name: hand[n] for name, hand in hands.items()}
        place = int(rng.integers(dealt["people"]))
        offset = (
            1000 + first
        )  # no number is an actor's in both splits, because an actor has at least one clip
        who = dict(
            clip=first + n, actor=offset + actor, take=n % CLIPS_EACH, swapped=offset + swapped
        )
        jobs.append(
            _Job(
                **vars(common),
                split=split,
                **who,
                **dealt,
                span=_span(rng, extents[n], common.frames),
                place=place,
            )
        )
    return jobs


def _span(rng: np.random.Generator, extent: str, frames: int) -> tuple[int, int]:
    """The forged frames [first, stop) of a clip."""
    if extent == "full":
        return 0, frames
    shortest, longest = LENGTHS[extent]
    length = min(frames, int(rng.integers(shortest, longest + 1)))
    first = int(rng.integers(frames - length + 1))
    return first, first + length


def _letter(number: int) -> str:
    return chr(ord("A") + number)


def _listing(plan: list[_Job]) -> dict[str, dict]:
    """dataset.json, with the owners' keys."""
    listed = {}
    for job in plan:
        common = {"set": job.split, "target_id": job.actor}
        augmentations = [name for name, done in (("dark", job.dark), ("noisy", job.noisy)) if done]
        listed[f"{job.real}.mp4"] = {
            "label": "real",
            **common,
            "swapped_id": None,
            "augmentations": augmentations,
        }
        listed[f"{job.fake}.mp4"] = {
            "label": "fake",
            **common,
            "swapped_id": job.swapped,
            "augmentations": augmentations,
        }
    return listed


def _truth(plan: list[_Job]) -> dict[str, dict]:
    found = {}
    for job in plan:
        common = {"frames": job.frames, "people": job.people}
        found[job.real] = {**common, "forged": [], "person": None}
        found[job.fake] = {**common, "forged": [job.span], "person": job.place}
    return found


def _write_clip(job: _Job) -> None:
    files = job.files()
    real, fake = render_pair(job)
    camera = _camera(generator(job.seed, job.clip, "camera"), job.dark, job.noisy)
    for kind, path in files.items():
        if path.exists():
            continue
        if kind == "mask":
            write(path, encode(fake.masks_thw, MASK_CRF, "veryfast"))
        else:
            frames_thwc = camera.shoot(
                (real if kind == "real" else fake).frames_thwc,
                generator(job.seed, job.clip, "grain"),
            )
            write(path, encode(frames_thwc, job.setting.crf[""], job.setting.preset))


def render_pair(job: _Job) -> tuple[Clip, Clip]:
    """The real clip of a job and its fake as the renderer draws them, before the camera; with two people side by side if it has them."""
    seed, clip = job.seed, job.clip
    drawn = takes(
        clip,
        clip + 10_000,
        job.setting,
        methods=[RENDERED[job.manipulation]],
        frames=job.frames,
        seed=seed,
        span=job.span,
        people=(job.actor, job.swapped),
    )
    room = living_room(generator(seed, clip, "room"), SIZE, SIZE * job.people)
    walls = np.split(room, job.people, axis=1)
    clips = render_takes(
        clip, drawn, seed=seed, outer=outer_identity(seed, job.actor), wall_hwc=walls[job.place]
    )
    if job.people == 1:
        return tuple(clips)
    other = BYSTANDERS + clip
    (beside,) = takes(other, other, job.setting, methods=[], frames=job.frames, seed=seed)
    (bystander,) = render_takes(other, [beside], seed=seed, wall_hwc=walls[1 - job.place])
    return tuple(_side_by_side(shown, bystander, job.place) for shown in clips)


def _side_by_side(actor: Clip, bystander: Clip, place: int) -> Clip:
    order = (actor, bystander) if place == 0 else (bystander, actor)
    frames_thwc, masks_thw = (
        np.concatenate([getattr(clip, name) for clip in order], axis=2)
        for name in ("frames_thwc", "masks_thw")
    )
    return replace(actor, frames_thwc=frames_thwc, masks_thw=masks_thw)


def _camera(rng: np.random.Generator, dark: bool, noisy: bool) -> Camera:
    gain, noise = (
        rng.uniform(0.30, 0.50),
        rng.uniform(6, 11),
    )  # always drawn, so that the rest does not depend on them
    return Camera(
        tint=tuple(float(factor) for factor in rng.uniform(0.90, 1.05, 3)),
        blur=float(max(0.0, rng.uniform(-0.5, 0.6))),
        gain=float(gain) if dark else 1.0,
        noise=float(noise) if noisy else 1.5,
    )
