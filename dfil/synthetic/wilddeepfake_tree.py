"""Synthetic clips as a tree of WildDeepfake's layout; SHIFT says how they differ from ff-like.

A sequence is cut from its video by ONE square, placed by the renderer's own knowledge of where the
head is. The owners' crops follow a detection in every frame and so jump by a pixel now and then, in
real and fake alike. Jumps drawn here would be of the size of the nuisances, and nothing would be
left that a method could be tried on; so the crop stands still, and the readers should know it.

Sequences lie in archives of one to three; nobody is in two archives. There is no validation split;
the adapter carves one by archive. The frames asked for are those of the longest sequence.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
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
from dfil.synthetic.settings import METHODS, SIZE
from dfil.synthetic.signals import motion
from dfil.synthetic.tree import Job, Tree, deal, even
from dfil.system.errors import DataError

CROP = 224  # pixels, the owners' size
SHARDS = (2, 1, 3)  # sequences in one source video, by turns
SEQUENCES = 100  # more than one source video has; tells its sequences from the next one's
LENGTHS = ("long", "short", "long", "long", "few", "long", "short", "long")  # of sequences, dealt
CAMERA = dict(gain=(0.6, 1.1), gamma=(0.8, 1.15), tint=(0.90, 1.08), blur=(-0.5, 0.8))
CAMERA |= dict(noise=(0, 4))
SHIFT = (
    "Mixed sources: every source video has a person, a camera, a place, a resolution (0.7 to 1 of "
    "the ff-like tree's) and a compression (crf 18 to 33) of its own; real and fake ones show "
    "different people.",
    "Mixed forgeries: the four manipulations by turns, at 0.7 to 1.2 times the strength of the "
    "ff-like tree (real ones too) and with single-frame traces between none and 0.5.",
    "PNG sequences of 224 x 224 face crops, cut by one still square each, after decoding; frame "
    "numbers start anywhere and have gaps.",
    "Sequences are long (from 0.6 of the frames asked for), in a quarter 8 to 15 frames, in an "
    "eighth 3 to 6: one snippet or none.",
)


@dataclass(frozen=True)
class Sequence:
    """clip: decides motion, place and grain. numbers: of the pictures, as in the source video."""

    name: int
    clip: int
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Shard(Job):
    """One source video. method: "real" or one of METHODS."""

    category: str
    shard: int
    person: int
    method: str
    sequences: tuple[Sequence, ...]

    def files(self) -> dict[str, Path]:
        return {"archive": self.root / self.category / f"{self.shard}.tar.gz"}


def _plan(common: Job, train: int, test: int) -> list[Shard]:
    counts = {"train": train, "test": test}
    plan = []
    for n, category in enumerate(CATEGORIES):
        plan += plan_category(common, category, counts[category.split("_")[1]], 10_000 * n)
    return plan


def plan_category(common: Job, category: str, count: int, first: int) -> list[Shard]:
    """The source videos of one category; their people have the numbers from `first` on."""
    seed, sizes = common.seed, []
    while (rest := count - sum(sizes)) > 0:
        sizes.append(min(rest, SHARDS[len(sizes) % len(SHARDS)]))
    methods = ["real"] * len(sizes)
    if category.startswith("fake"):
        methods = deal(seed, f"{category} methods", METHODS, len(sizes))
    plan, lengths = [], iter(deal(seed, f"{category} lengths", LENGTHS, count))
    for shard, size in enumerate(sizes):
        person = first + shard
        rng = generator(seed, person, "sequences")
        names = sorted(int(name) for name in rng.choice(SEQUENCES, size, replace=False))
        sequences = tuple(
            Sequence(name, person * SEQUENCES + name, _numbers(rng, next(lengths), common.frames))
            for name in names
        )
        what = category, shard, person, methods[shard], sequences
        plan.append(Shard(*vars(common).values(), *what))
    return plan


def _numbers(rng: np.random.Generator, kind: str, frames: int) -> tuple[int, ...]:
    """Numbers of pictures: rising, not from 0, in a longer sequence with up to two gaps of 1-4."""
    limits = {"long": (max(8, round(0.6 * frames)), frames), "short": (8, 15), "few": (3, 6)}
    low, high = limits[kind]
    length = min(frames, int(rng.integers(low, max(low, high) + 1)))
    steps = np.ones(length, int)
    for _ in range(rng.integers(3) if length >= 12 else 0):
        steps[rng.integers(4, length - 4)] += rng.integers(1, 5)
    return tuple(int(number) for number in rng.integers(0, 3000) + np.cumsum(steps))


@dataclass(frozen=True)
class Source:
    """How a source video was shot, forged and compressed; by one law whether real or fake."""

    camera: Camera
    strength: float
    artefact: float
    scale: float
    crf: int
    place: str


def draw_source(rng: np.random.Generator) -> Source:
    """All that makes a source video what it is."""
    return Source(
        camera=Camera.drawn(rng, **CAMERA),
        strength=float(rng.uniform(0.7, 1.2)),
        artefact=float(rng.uniform(0, 0.5)),
        scale=float(rng.uniform(0.7, 1.0)),
        crf=int(rng.integers(18, 34)),
        place=str(rng.choice(["wall", "stage", "living room"])),
    )


def _draw(job: Shard, missing: Mapping) -> Iterator[tuple[str, bytes]]:
    pictures = {}
    source = draw_source(generator(job.seed, job.person, "source"))
    kind = job.category.split("_")[0]
    for sequence in job.sequences:
        crops_thwc = draw_sequence(job, source, sequence)
        for number, crop_hwc in zip(sequence.numbers, crops_thwc, strict=True):
            done, png = cv2.imencode(".png", crop_hwc[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
            if not done:
                raise DataError(
                    f"{missing['archive']}: picture {number} could not be encoded as PNG; "
                    "see whether OpenCV is installed whole."
                )
            pictures[f"./{job.shard}/{kind}/{sequence.name}/{number}.png"] = png.tobytes()
    yield "archive", packed(pictures)


def draw_sequence(job: Shard, source: Source, sequence: Sequence) -> np.ndarray:
    """The crops of one sequence, uint8 RGB (T, CROP, CROP, 3).

    Rendered, shot, compressed, decoded and only then cut, as in the wild.
    """
    seed, clip = job.seed, sequence.clip
    shown_t = np.array(sequence.numbers) - sequence.numbers[0]
    frames = int(shown_t[-1]) + 1
    strength = {method: source.strength * value for method, value in job.setting.strength.items()}
    setting = replace(job.setting, strength=strength, artefact=source.artefact)
    methods = [] if job.method == "real" else [job.method]
    other = job.person + 5_000  # whose face or expression it takes; in no video of the tree
    who = dict(frames=frames, seed=seed, people=(job.person, other))
    drawn = takes(clip, clip + 5_000 * SEQUENCES, setting, methods=methods, **who)
    outer = outer_identity(seed, job.person)
    build = {"wall": lambda *_: wall(outer), "stage": stage, "living room": living_room}
    place = build[source.place](generator(seed, clip, "place"), SIZE, SIZE)
    (rendered,) = render_takes(clip, drawn[-1:], seed=seed, outer=outer, wall_hwc=place)
    shot_thwc = source.camera.shoot(rendered.frames_thwc, generator(seed, clip, "grain"))
    side = round(SIZE * source.scale)
    small_thwc = even(_resized(shot_thwc, side, cv2.INTER_AREA))
    decoded_thwc = decode(encode(small_thwc, source.crf, setting.preset))[shown_t]
    square = _square(job, clip, frames, outer.half_width_px, generator(seed, clip, "square"))
    left, top, width = (round(length * side / SIZE) for length in square)
    cut_thwc = decoded_thwc[:, top : top + width, left : left + width]
    return _resized(cut_thwc, CROP, cv2.INTER_LINEAR)


def _resized(frames_thwc: np.ndarray, side: int, how: int) -> np.ndarray:
    return np.stack([cv2.resize(frame, (side, side), interpolation=how) for frame in frames_thwc])


def _square(
    job: Shard, clip: int, frames: int, half_width: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Left, top and side of a square that stands still: the head's mean with a detector's error."""
    moves = motion(job.seed, clip, frames)
    dx, dy = rng.normal(0, 0.04, 2)
    width = 2 * half_width * rng.uniform(1.1, 1.3)
    x = SIZE / 2 + moves.shift_x.mean() + dx * half_width
    # The face's middle lies below the head's.
    y = SIZE / 2 - 4 + moves.shift_y.mean() + (0.25 + dy) * half_width
    return x - width / 2, y - width / 2, width


def packed(files: dict[str, bytes]) -> bytes:
    """A tar.gz of the files in the order of their names as text, 10 before 2, no time in it."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=buffer, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


DRAWN = dict(counted="real_sequences", unit="archive", seconds=0.04, folders=CATEGORIES)
TREE = Tree("WildDeepfake", [CROP, CROP], _plan, _draw, shift=SHIFT, **DRAWN)
