"""Synthetic clips as a tree of exactly Celeb-DF's layout. How they differ from the FaceForensics++ counterpart stands in SHIFT."""

from __future__ import annotations

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
from dfil.synthetic.settings import PEOPLE, SIZE, Setting
from dfil.synthetic.signals import nuisances
from dfil.synthetic.tree import Common, begin, draw, write

TREE = 1  # raised whenever the same parameters no longer give the same files, the renderer apart
SECONDS_PER_FRAME = 0.02  # one core, a real and a fake
ROWS = slice(24, 280)  # of the rendered square: the picture is wider than high
CLIPS_EACH = 2  # of one person in training
ALONE = 5000  # from this number on: people of YouTube-real, of whom each has one video and no fake
SHIFT = (
    "Better blending: every nuisance, in real and fake clips alike, has half the strength it has in the ff-like tree, and the "
    "single-frame traces a third.",
    "Other cameras: a lens slightly out of focus, graded colours, pictures of 320 x 256.",
    "Other places: a lit stage far out of focus instead of a wall.",
    "Other people, of whom one has several clips; one manipulation, a face swap.",
)


@dataclass(frozen=True)
class _Job(Common):
    folder: str  # Celeb-real or YouTube-real
    stem: str
    clip: int  # decides motion, stage, camera and grain
    person: int
    sources: tuple[int, ...] = ()  # one fake with the face of each
    test: bool = False

    def files(self) -> list[Path]:
        """The real video, then its fakes."""
        return [self.root / f"{name}.mp4" for name in self.names()]

    def names(self) -> list[str]:
        fakes = (self.stem.replace("_", f"_id{source}_") for source in self.sources)
        return [f"{self.folder}/{self.stem}", *(f"{FAKE}/{fake}" for fake in fakes)]


def write_celebdf(
    root: str | Path,
    setting: Setting | str = "celebdf-like",
    *,
    train: int = 40,
    test: int = 16,
    frames: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a synthetic Celeb-DF tree under `root` and return it; clips that are already there are kept.

    train, test: how many real clips, and as many fakes. A quarter of the reals are in YouTube-real and have no fakes, so some of the
    others have two. As in the owners' tree, people of the test videos are in training videos too: here about half of them, in other
    clips. There is no validation split; the adapter carves one by identity. frames: length of every clip, default the setting's.
    jobs: processes, default one per core; the files do not depend on it. The tree carries `synthetic.json` with all parameters.

    Raises DataError if root holds something else than a synthetic tree of the same parameters.
    """
    facts = dict(
        layout="Celeb-DF",
        tree=TREE,
        counted="clips",
        size=[SIZE, ROWS.stop - ROWS.start],
        shift=SHIFT,
    )
    common = begin(root, setting, train, test, frames, seed, people=PEOPLE["celebdf-like"], **facts)
    plan = _plan(common, train, test)
    listed = [
        f"{int(not name.startswith(FAKE))} {name}.mp4"
        for job in plan
        if job.test
        for name in job.names()
    ]  # 1 is real here
    write(common.root / LIST, "".join(f"{line}\n" for line in listed).encode())
    todo = [job for job in plan if not all(path.exists() for path in job.files())]
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


def _plan(common: Common, train: int, test: int) -> list[_Job]:
    """Who is in which clip, and with whose face it is forged."""
    alone = {"train": train // 4, "test": test // 4}
    celebrities = {"train": train - alone["train"], "test": test - alone["test"]}
    known = -(-celebrities["train"] // CLIPS_EACH)
    people = {"train": [n % known for n in range(celebrities["train"])], "test": []}
    for n in range(
        celebrities["test"]
    ):  # by turns somebody who is in training too and somebody who is not
        people["test"].append(
            n // 2 % known if known and n % 2 == 0 else known + n // (2 * CLIPS_EACH)
        )
    plan, clips_of, strangers = [], {}, 0
    for split, cast in people.items():
        rng = generator(common.seed, 0, f"{split} sources")
        twice = set(rng.permutation(len(cast))[: alone[split]])
        for n, person in enumerate(cast):
            others = [other for other in dict.fromkeys(cast) if other != person]
            wanted = 2 if n in twice else 1
            sources = [int(other) for other in rng.permutation(others)[:wanted]]
            sources += [
                1000 + n for n in range(wanted - len(sources))
            ]  # a tiny tree: somebody who has no video
            number = clips_of[person] = clips_of.get(person, -1) + 1
            stem, clip = f"id{person}_{number:04d}", sum(len(job.sources) > 0 for job in plan)
            sources = tuple(sorted(sources))
            where = dict(folder="Celeb-real", stem=stem, clip=clip, person=person, sources=sources)
            plan.append(_Job(**vars(common), **where, test=split == "test"))
        for _ in range(alone[split]):
            number, strangers = ALONE + strangers, strangers + 1
            where = dict(
                folder="YouTube-real", stem=f"{number - ALONE:05d}", clip=number, person=number
            )
            plan.append(_Job(**vars(common), **where, test=split == "test"))
    return plan


def _write_clip(job: _Job) -> None:
    seed, clip = job.seed, job.clip
    drawn = []
    for n, source in enumerate(job.sources or (job.person,)):
        real, fake = takes(
            clip,
            clip + 10_000,
            job.setting,
            methods=["Deepfakes"],
            frames=job.frames,
            seed=seed,
            people=(job.person, source),
        )
        moving = nuisances(
            seed,
            clip + 100_000 * n,
            job.frames,
            job.setting.strength,
            moving="Deepfakes",
            tau=job.setting.tau,
        )
        drawn = drawn or [real]
        drawn += [replace(fake, nuisances=moving)] if job.sources else []
    place = stage(generator(seed, clip, "stage"), SIZE, SIZE)
    clips = render_takes(
        clip, drawn, seed=seed, outer=outer_identity(seed, job.person), wall_hwc=place
    )
    camera = _camera(generator(seed, clip, "camera"))
    for path, shown in zip(job.files(), clips, strict=True):
        if not path.exists():
            frames_thwc = camera.shoot(shown.frames_thwc[:, ROWS], generator(seed, clip, "grain"))
            write(
                path,
                encode(np.ascontiguousarray(frames_thwc), job.setting.crf[""], job.setting.preset),
            )


def _camera(rng: np.random.Generator) -> Camera:
    return Camera(
        gamma=float(rng.uniform(0.80, 1.05)),
        tint=tuple(float(factor) for factor in rng.uniform(0.93, 1.05, 3)),
        blur=float(rng.uniform(0.5, 0.8)),
        noise=float(rng.uniform(0.5, 1.5)),
    )
