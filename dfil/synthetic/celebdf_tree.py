"""Synthetic clips as a tree of exactly Celeb-DF's layout; SHIFT says how they differ from ff-like.

A quarter of the reals are in YouTube-real and have no fakes, so some of the others have two. As in
the owners' tree, people of the test videos are in training videos too: here about half of them, in
other clips. There is no validation split; the adapter carves one by identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dfil.datasets.celebdf import FAKE, LIST
from dfil.synthetic.camera import Camera
from dfil.synthetic.codec import encode
from dfil.synthetic.fields import generator
from dfil.synthetic.identity import outer_identity
from dfil.synthetic.places import stage
from dfil.synthetic.render import render_takes, takes
from dfil.synthetic.settings import SIZE
from dfil.synthetic.signals import nuisances
from dfil.synthetic.tree import Job, Tree

ROWS = slice(24, 280)  # of the rendered square: the picture is wider than high
CLIPS_EACH = 2  # of one person in training
ALONE = 5000  # from this number on: people of YouTube-real, who have one video each and no fake
CAMERA = dict(gamma=(0.80, 1.05), tint=(0.93, 1.05), blur=(0.5, 0.8), noise=(0.5, 1.5))
SHIFT = (
    "Better blending: every nuisance, in real and fake clips alike, has half the strength it has "
    "in the ff-like tree, and the single-frame traces a third.",
    "Other cameras: a lens slightly out of focus, graded colours, pictures of 320 x 256.",
    "Other places: a lit stage far out of focus instead of a wall.",
    "Other people, of whom one has several clips; one manipulation, a face swap.",
)


@dataclass(frozen=True)
class _Clip(Job):
    folder: str  # Celeb-real or YouTube-real
    stem: str
    clip: int  # decides motion, stage, camera and grain
    person: int
    test: bool
    sources: tuple[int, ...] = ()  # one fake with the face of each

    def names(self) -> list[str]:
        """The real video, then its fakes."""
        fakes = (self.stem.replace("_", f"_id{source}_") for source in self.sources)
        return [f"{self.folder}/{self.stem}", *(f"{FAKE}/{fake}" for fake in fakes)]

    def files(self) -> dict[str, Path]:
        return {name: self.root / f"{name}.mp4" for name in self.names()}


def _plan(common: Job, train: int, test: int) -> list[_Clip]:
    """Who is in which clip, and with whose face it is forged."""
    alone = {"train": train // 4, "test": test // 4}
    known = -(-(train - alone["train"]) // CLIPS_EACH)
    people = {"train": [n % known for n in range(train - alone["train"])], "test": []}
    for n in range(test - alone["test"]):  # by turns somebody of training and somebody who is not
        again = known and n % 2 == 0
        people["test"].append(n // 2 % known if again else known + n // (2 * CLIPS_EACH))
    plan, clips_of, strangers, forged = [], {}, 0, 0
    for split, cast in people.items():
        rng = generator(common.seed, 0, f"{split} sources")
        twice = set(rng.permutation(len(cast))[: alone[split]])
        for n, person in enumerate(cast):
            others = [other for other in dict.fromkeys(cast) if other != person]
            wanted = 2 if n in twice else 1
            sources = [int(other) for other in rng.permutation(others)[:wanted]]
            # In a tiny tree it is somebody who has no video.
            sources += [1000 + n for n in range(wanted - len(sources))]
            clips_of[person] = clips_of.get(person, -1) + 1
            what = "Celeb-real", f"id{person}_{clips_of[person]:04d}", forged, person
            plan.append(
                _Clip(*vars(common).values(), *what, split == "test", tuple(sorted(sources)))
            )
            forged += 1
        for _ in range(alone[split]):
            what = "YouTube-real", f"{strangers:05d}", ALONE + strangers, ALONE + strangers
            plan.append(_Clip(*vars(common).values(), *what, split == "test"))
            strangers += 1
    return plan


def _list(plan: Sequence[_Clip], **sizes: int) -> dict[str, str]:
    names = [name for job in plan if job.test for name in job.names()]
    lines = [f"{int(not name.startswith(FAKE))} {name}.mp4\n" for name in names]  # 1 is real here
    return {LIST: "".join(lines)}


def _draw(job: _Clip, missing: Mapping) -> Iterator[tuple[str, bytes]]:
    seed, clip, setting = job.seed, job.clip, job.setting
    drawn = []
    for n, source in enumerate(job.sources or (job.person,)):
        who = dict(frames=job.frames, seed=seed, people=(job.person, source))
        real, fake = takes(clip, clip + 10_000, setting, methods=["Deepfakes"], **who)
        how = dict(moving="Deepfakes", tau=setting.tau)
        moving = nuisances(seed, clip + 100_000 * n, job.frames, setting.strength, **how)
        drawn = drawn or [real]
        drawn += [replace(fake, nuisances=moving)] if job.sources else []
    place = stage(generator(seed, clip, "stage"), SIZE, SIZE)
    outer = outer_identity(seed, job.person)
    clips = render_takes(clip, drawn, seed=seed, outer=outer, wall_hwc=place)
    camera = Camera.drawn(generator(seed, clip, "camera"), **CAMERA)
    for name, shown in zip(job.names(), clips, strict=True):
        if name in missing:
            shot = camera.shoot(shown.frames_thwc[:, ROWS], generator(seed, clip, "grain"))
            yield name, encode(np.ascontiguousarray(shot), **setting.coding(""))


TREE = Tree("Celeb-DF", [SIZE, ROWS.stop - ROWS.start], _plan, _draw, _list, SHIFT)
