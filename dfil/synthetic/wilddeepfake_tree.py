"""Synthetic clips as a tree of exactly WildDeepfake's layout. How they differ from the FaceForensics++ counterpart stands in SHIFT.

A sequence is cut from its video by ONE square, placed by the renderer's own knowledge of where the head is. The owners' crops follow
a detection in every frame and so jump by a pixel now and then, in real and fake alike. Jumps drawn here would be of the size of the
nuisances, and nothing would be left that a method could be tried on; so the crop stands still, and the readers should know it.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dfil.datasets.wilddeepfake import CATEGORIES
from dfil.synthetic.camera import Camera
from dfil.synthetic.codec import decode, encode
from dfil.synthetic.fields import generator
from dfil.synthetic.identity import outer_identity
from dfil.synthetic.places import living_room, stage
from dfil.synthetic.render import render_takes, takes
from dfil.synthetic.room import wall
from dfil.synthetic.settings import METHODS, PEOPLE, SIZE, Setting
from dfil.synthetic.signals import motion
from dfil.synthetic.tree import Common, begin, deal, draw, even, write
from dfil.system.errors import DataError

TREE = 1  # raised whenever the same parameters no longer give the same files, the renderer apart
CROP = 224  # pixels, the owners' size
SECONDS_PER_FRAME = 0.02  # one core
SHARDS = (2, 1, 3)  # sequences in one source video, by turns
SEQUENCES = 100  # more than one source video has; numbers its sequences apart from the next one's
LENGTHS = ("long", "short", "long", "long", "few", "long", "short", "long")  # of sequences, dealt
SHIFT = (
    "Mixed sources: every source video has a person, a camera, a place, a resolution (0.7 to 1 of the ff-like tree's) and a "
    "compression (crf 18 to 33) of its own; real and fake ones show different people.",
    "Mixed forgeries: the four manipulations by turns, at 0.7 to 1.2 times the strength of the ff-like tree (real ones too) and with "
    "single-frame traces between none and 0.5.",
    "PNG sequences of 224 x 224 face crops, cut by one still square each, after decoding; frame numbers start anywhere and have gaps.",
    "Sequences are long (from 0.6 of the frames asked for), in a quarter 8 to 15 frames, in an eighth 3 to 6: one snippet or none.",
)


@dataclass(frozen=True)
class _Sequence:
    name: int
    clip: int  # decides motion, place and grain
    numbers: tuple[int, ...]  # of the pictures, as in the source video


@dataclass(frozen=True)
class _Job(Common):
    category: str
    shard: int
    person: int
    method: str  # "real" or one of METHODS
    sequences: tuple[_Sequence, ...]

    def file(self) -> Path:
        return self.root / self.category / f"{self.shard}.tar.gz"


def write_wilddeepfake(
    root: str | Path,
    setting: Setting | str = "wild-like",
    *,
    train: int = 40,
    test: int = 16,
    frames: int | None = None,
    seed: int = 0,
    jobs: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a synthetic WildDeepfake tree under `root` and return it; archives that are already there are kept.

    train, test: how many real sequences, and as many fake ones, in archives of one to three; nobody is in two archives. There is no
    validation split; the adapter carves one by archive. frames: length of the longest sequence, default the setting's. jobs:
    processes, default one per core; the files do not depend on it. The tree carries `synthetic.json` with all parameters.

    Raises DataError if root holds something else than a synthetic tree of the same parameters.
    """
    facts = dict(
        layout="WildDeepfake", tree=TREE, counted="sequences", size=[CROP, CROP], shift=SHIFT
    )
    common = begin(root, setting, train, test, frames, seed, people=PEOPLE["wild-like"], **facts)
    plan = []
    for n, category in enumerate(CATEGORIES):
        (common.root / category).mkdir(exist_ok=True)
        count = {"train": train, "test": test}[category.split("_")[1]]
        plan += _plan(common, category, count, 10_000 * n)
    todo = [job for job in plan if not job.file().exists()]
    each = sum(len(s.numbers) for job in todo for s in job.sequences) / max(1, len(todo))
    draw(
        todo,
        _write_shard,
        common.root,
        unit="archive",
        seconds=each * SECONDS_PER_FRAME,
        jobs=jobs,
        progress=progress,
    )
    return common.root


def _plan(common: Common, category: str, count: int, first: int) -> list[_Job]:
    """The source videos of one category; their people have the numbers from `first` on."""
    seed = common.seed
    lengths, sizes = deal(seed, f"{category} lengths", LENGTHS, count), []
    while (rest := count - sum(sizes)) > 0:
        sizes.append(min(rest, SHARDS[len(sizes) % len(SHARDS)]))
    fake = category.startswith("fake")
    methods = (
        deal(seed, f"{category} methods", METHODS, len(sizes)) if fake else ["real"] * len(sizes)
    )
    plan, dealt = [], iter(lengths)
    for shard, size in enumerate(sizes):
        rng = generator(seed, first + shard, "sequences")
        names = sorted(int(name) for name in rng.choice(SEQUENCES, size, replace=False))
        sequences = tuple(
            _Sequence(
                name, (first + shard) * SEQUENCES + name, _numbers(rng, next(dealt), common.frames)
            )
            for name in names
        )
        what = dict(
            category=category,
            shard=shard,
            person=first + shard,
            method=methods[shard],
            sequences=sequences,
        )
        plan.append(_Job(**vars(common), **what))
    return plan


def _numbers(rng: np.random.Generator, kind: str, frames: int) -> tuple[int, ...]:
    """Numbers of a sequence's pictures: rising, not from 0, and in a longer sequence with up to two gaps of one to four."""
    low, high = {"long": (max(8, round(0.6 * frames)), frames), "short": (8, 15), "few": (3, 6)}[
        kind
    ]
    length = min(frames, int(rng.integers(low, max(low, high) + 1)))
    steps = np.ones(length, int)
    for _ in range(rng.integers(3) if length >= 12 else 0):
        steps[rng.integers(4, length - 4)] += rng.integers(1, 5)
    return tuple(int(number) for number in rng.integers(0, 3000) + np.cumsum(steps))


@dataclass(frozen=True)
class _Source:
    """How a source video was shot, forged and compressed; drawn by one law whether it is real or fake."""

    camera: Camera
    strength: float
    artefact: float
    scale: float
    crf: int
    place: str


def _source(rng: np.random.Generator) -> _Source:
    return _Source(
        camera=Camera(
            gain=float(rng.uniform(0.6, 1.1)),
            gamma=float(rng.uniform(0.8, 1.15)),
            tint=tuple(float(factor) for factor in rng.uniform(0.90, 1.08, 3)),
            blur=float(max(0.0, rng.uniform(-0.5, 0.8))),
            noise=float(rng.uniform(0, 4)),
        ),
        strength=float(rng.uniform(0.7, 1.2)),
        artefact=float(rng.uniform(0, 0.5)),
        scale=float(rng.uniform(0.7, 1.0)),
        crf=int(rng.integers(18, 34)),
        place=str(rng.choice(["wall", "stage", "living room"])),
    )


def _write_shard(job: _Job) -> None:
    pictures = {}
    source = _source(generator(job.seed, job.person, "source"))
    for sequence in job.sequences:
        for number, crop_hwc in zip(
            sequence.numbers, draw_sequence(job, source, sequence), strict=True
        ):
            done, png = cv2.imencode(".png", crop_hwc[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
            if not done:
                raise DataError(
                    f"{job.file()}: picture {number} could not be encoded as PNG; see whether OpenCV is installed whole."
                )
            pictures[f"./{job.shard}/{job.category.split('_')[0]}/{sequence.name}/{number}.png"] = (
                png.tobytes()
            )
    write(job.file(), _packed(pictures))


def draw_sequence(job: _Job, source: _Source, sequence: _Sequence) -> np.ndarray:
    """The crops of one sequence, uint8 RGB (T, CROP, CROP, 3): rendered, shot, compressed, decoded and only then cut, as in the wild."""
    seed, clip = job.seed, sequence.clip
    shown_t = np.array(sequence.numbers) - sequence.numbers[0]
    frames = int(shown_t[-1]) + 1
    strength = {method: source.strength * value for method, value in job.setting.strength.items()}
    setting = replace(job.setting, strength=strength, artefact=source.artefact)
    methods = [] if job.method == "real" else [job.method]
    other = job.person + 5_000  # whose face or expression it takes; in no video of the tree
    drawn = takes(
        clip,
        clip + 5_000 * SEQUENCES,
        setting,
        methods=methods,
        frames=frames,
        seed=seed,
        people=(job.person, other),
    )
    outer = outer_identity(seed, job.person)
    rng = generator(seed, clip, "place")
    place = {"wall": lambda *_: wall(outer), "stage": stage, "living room": living_room}[
        source.place
    ](rng, SIZE, SIZE)
    (rendered,) = render_takes(clip, drawn[-1:], seed=seed, outer=outer, wall_hwc=place)
    shot_thwc = source.camera.shoot(rendered.frames_thwc, generator(seed, clip, "grain"))
    side = round(SIZE * source.scale)
    small_thwc = even(
        np.stack(
            [cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in shot_thwc]
        )
    )
    decoded_thwc = decode(encode(small_thwc, source.crf, setting.preset))[shown_t]
    left, top, width = _square(
        job, clip, frames, outer.half_width_px, generator(seed, clip, "square")
    )
    left, top, width = (round(length * side / SIZE) for length in (left, top, width))
    cut_thwc = decoded_thwc[:, top : top + width, left : left + width]
    return np.stack(
        [cv2.resize(frame, (CROP, CROP), interpolation=cv2.INTER_LINEAR) for frame in cut_thwc]
    )


def _square(
    job: _Job, clip: int, frames: int, half_width: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Left, top and side of a square around the inner face that stands still: where the head is on average, with a detector's error."""
    moves = motion(job.seed, clip, frames)
    dx, dy = rng.normal(0, 0.04, 2)
    width = 2 * half_width * rng.uniform(1.1, 1.3)
    x = SIZE / 2 + moves.shift_x.mean() + dx * half_width
    y = (
        SIZE / 2 - 4 + moves.shift_y.mean() + (0.25 + dy) * half_width
    )  # the face's middle lies below the head's
    return x - width / 2, y - width / 2, width


def _packed(files: dict[str, bytes]) -> bytes:
    """A tar.gz of the files in the order of their names as text, 10 before 2, with no time in it."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=buffer, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()
