"""`dfil bench preprocess`: what finding faces costs beside decoding, and how far the boxes are from
detecting in every frame.

Built-in heads move through a larger, panning scene: one walks, two cross, and one of two leaves.
Times are processor times of one process with one thread, taken in turns, medians of several; their
ratio holds on other machines, they themselves do not. dlib's own boxes jump from frame to frame, so
two detections that differ by nothing but that reach about the IoU given as `neighbours`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sin
from pathlib import Path
from statistics import median

import av
import cv2
import numpy as np
import torch

from dfil.datasets.records import VideoRecord
from dfil.faces.boxes import iou
from dfil.faces.detect import detector, finder
from dfil.faces.kept import People, watch
from dfil.faces.preprocess import COMPACT, Settings, process_video
from dfil.faces.video import decode, read_frames
from dfil.synthetic import SETTINGS, render_target
from dfil.synthetic.codec import X264
from dfil.system.cores import cores

SIDE = 320  # pixels of a rendered head's frame
FACE = 125  # pixels of the face in it, about
DRAWN = 60  # frames of a head that are drawn; they are shown forwards and backwards
# grey levels at most that the sensor adds; at crf 23 a clip then has about 1.3 Mbit a second at
# 720p, 3.9 at 1080p
NOISE = 7

FORMATS = "yuv420p", "yuv444p"  # most videos', and FaceForensics++'s own
Path_ = Callable[
    [int], tuple[float, float, float] | None
]  # frame -> centre x, y and scale of a head; None where it is not there


@dataclass(frozen=True)
class Scene:
    """name, per person the path of the head, later ones in front, and of a hand before them all."""

    name: str
    paths: tuple[Path_, ...]
    hand: Path_ = lambda t: None


def measure(
    sizes: Sequence[int] = (720, 1080),
    frames: int = 300,
    repeats: int = 3,
    every: int = 4,
    mtcnn_frames: int = 100,
) -> dict:
    """Times in milliseconds per frame, their ratios, IoU with per-frame detection, and identity
    switches, for each height in `sizes`.

    frames: per clip. repeats: turns of which the median counts. every: per-frame detection is done
    in every so manieth frame, which decides nothing about the following, only how many comparisons
    there are. mtcnn_frames: length of the clip for MTCNN.
    """
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        heads = [
            next(
                iter(render_target(k, k + 1, SETTINGS["ff-like"], methods=(), frames=DRAWN))
            ).frames_thwc
            for k in range(2)
        ]
        with tempfile.TemporaryDirectory(prefix="dfil-bench-") as folder:
            rows = [
                _at(height, heads, Path(folder), frames, repeats, every, mtcnn_frames)
                for height in sizes
            ]
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    return {"cores": cores(), "frames": frames, "repeats": repeats, "sizes": rows}


def table(result: dict) -> str:
    """The measurements as Markdown."""
    head = "| | " + " | ".join(f"{row['height']}p" for row in result["sizes"]) + " |"
    lines = [head, "|---|" + "---:|" * len(result["sizes"])]

    def line(name: str, value: Callable[[dict], str]) -> None:
        lines.append(f"| {name} | " + " | ".join(value(row) for row in result["sizes"]) + " |")

    line("decoding, ms per frame", lambda r: f"{r['decode_ms']:.2f}")
    line("decoding to RGB", lambda r: f"{r['decode_rgb_ms']:.2f}")
    for name in ("dlib", "mtcnn"):
        line(
            f"decoding and {name} in every frame",
            lambda r, name=name: f"{r['decode_rgb_ms'] + r[name]['detect_ms']:.1f}",
        )
        line(f"preprocessing with {name}", lambda r, name=name: f"{r[name]['preprocess_ms']:.2f}")
        line("… against decoding", lambda r, name=name: f"{r[name]['ratio']:.2f}")
        line("… against decoding to RGB", lambda r, name=name: f"{r[name]['ratio_rgb']:.2f}")
    for pixels in FORMATS:
        key = f"occluded_{pixels}"
        line(f"a hand before the face, {pixels}", lambda r, key=key: f"{r[key]:.2f}")
    for key, what in (
        ("iou_mean", "mean IoU"),
        ("iou_p5", "5th percentile of IoU"),
        ("neighbours", "mean IoU of dlib's neighbours"),
    ):
        line(what, lambda r, key=key: f"{r[key]:.3f}")
    line("detections without a track", lambda r: f"{r['missed']} of {r['compared']}")
    line("identity switches", lambda r: str(r["switches"]))
    about = (
        f"{result['frames']} frames per clip, medians of {result['repeats']} turns, one thread;"
        f" {result['cores']} cores in this machine."
    )
    return "\n".join([*lines, "", about])


def _at(
    height: int,
    heads: list[np.ndarray],
    folder: Path,
    frames: int,
    repeats: int,
    every: int,
    mtcnn_frames: int,
) -> dict:
    width = round(height * 16 / 9 / 2) * 2
    paths = {}
    for number, scene in enumerate(scenes(width, height, frames)):
        paths[scene.name] = write(
            folder / f"{scene.name}-{height}.mp4", scene, heads, width, height, frames, seed=number
        )
    short = write(
        folder / f"short-{height}.mp4",
        scenes(width, height, frames)[0],
        heads,
        width,
        height,
        mtcnn_frames,
    )
    row = {
        "height": height,
        **_times(paths["walking"], short, folder / "store", frames, mtcnn_frames, repeats),
    }
    for pixels in FORMATS:
        scene = occluded(width, height, frames)
        clip = folder / f"occluded-{height}-{pixels}.mp4"
        write(clip, scene, heads, width, height, frames, pixels=pixels)
        row[f"occluded_{pixels}"] = _ratio(clip, folder / "store", repeats)
    compared = [
        _compare(paths[scene.name], scene, frames, every) for scene in scenes(width, height, frames)
    ]
    overlaps = np.concatenate([c["iou"] for c in compared])
    neighbours = np.concatenate([c["neighbours"] for c in compared])
    row |= {
        "iou_mean": float(overlaps.mean()),
        "iou_p5": float(np.percentile(overlaps, 5)),
        "neighbours": float(neighbours.mean()),
    }
    row |= {key: sum(c[key] for c in compared) for key in ("missed", "compared", "switches")}
    return row | {
        "scenes": {
            s.name: float(c["iou"].mean())
            for s, c in zip(scenes(width, height, frames), compared, strict=True)
        }
    }


def _times(
    path: Path, short: Path, store: Path, frames: int, short_frames: int, repeats: int
) -> dict:
    def run(name: str, video: Path) -> Callable:
        record = VideoRecord("bench", name, 0, "", "", "", video)

        def work() -> None:
            row = process_video(record, store, Settings(size=224, detector=name))
            assert row["status"] == "ok", row

        return work

    works = {
        "decode": (lambda: sum(1 for _ in decode(path)), frames),
        "rgb": (lambda: sum(1 for _ in read_frames(path)), frames),
        "dlib": (run("dlib", path), frames),
        "mtcnn": (run("mtcnn", short), short_frames),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    # dlib's turns are over before MTCNN's begin, as a process preprocesses one video after another
    # with one detector.
    for turn in (("decode", "rgb", "dlib"), ("mtcnn",)):
        for k in range(repeats + 1):
            for name in turn:
                work, count = works[name]
                spent = _milliseconds(work) / count
                if k:  # in the first turn libraries and weights are loaded
                    taken[name].append(spent)
                shutil.rmtree(
                    store, ignore_errors=True
                )  # or the next turn would also have to delete its files
    ms = {name: median(values) for name, values in taken.items()}
    found = {"decode_ms": ms["decode"], "decode_rgb_ms": ms["rgb"]}
    picked = [frame for n, frame in enumerate(read_frames(short)) if n % 25 == 0]
    for name in ("dlib", "mtcnn"):
        find = detector(name)
        per_frame = median(_milliseconds(lambda f=f, find=find: find([f])) for f in picked)
        ratios = {
            key: median(t / d for t, d in zip(taken[name], taken[key], strict=True))
            for key in ("decode", "rgb")
        }
        found[name] = {
            "preprocess_ms": ms[name],
            "detect_ms": per_frame,
            "ratio": ratios["decode"],
            "ratio_rgb": ratios["rgb"],
        }
    return found


def _ratio(path: Path, store: Path, repeats: int) -> float:
    """Preprocessing as real data get it, with dlib, against decoding; by turns, the median."""
    record, settings = (
        VideoRecord("bench", path.stem, 0, "", "", "", path),
        Settings(224, **COMPACT),
    )
    ratios = []
    for _ in range(repeats + 1):  # in the first turn tables are made that later ones find
        decoding = _milliseconds(lambda: sum(1 for _ in decode(path)))
        ratios.append(_milliseconds(lambda: process_video(record, store, settings)) / decoding)
        shutil.rmtree(store, ignore_errors=True)
    return median(ratios[1:])


def _milliseconds(work: Callable) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def _compare(path: Path, scene: Scene, frames: int, every: int) -> dict:
    """IoU of the tracks with detections in single frames, of detections in neighbouring frames, and
    whom each track shows."""
    with watch(decode(path), finder("dlib"), Settings(size=224, tracks="all")) as people:
        found = people
    find, overlaps, neighbours, missed, before = detector("dlib"), [], [], 0, None
    for number, frame_hwc in enumerate(read_frames(path)):
        if number % every > 1:  # two frames next to each other each time
            continue
        boxes_n5 = find([frame_hwc])[0]
        if number % every == 1:
            best = iou(before[:, :4], boxes_n5[:, :4]).max(1, initial=0)
            neighbours += best[best > 0.3].tolist()
            continue
        before = boxes_n5
        tracks = np.array([t.boxes_n4[number] for t in found.tracks if t.valid_n[number]]).reshape(
            -1, 4
        )
        best = iou(boxes_n5[:, :4], tracks).max(1, initial=0)
        overlaps += best[best > 0.2].tolist()
        missed += int((best <= 0.2).sum())
    switches = _switches(found, scene, frames)
    return {
        "iou": np.array(overlaps),
        "neighbours": np.array(neighbours),
        "missed": missed,
        "compared": len(overlaps) + missed,
        "switches": switches,
    }


def _switches(people: People, scene: Scene, frames: int) -> int:
    """How often a track passes from one person to another, each being whoever's head centre is
    nearest, within half a face."""
    count = 0
    for track in people.tracks:
        shown = []
        for n in np.flatnonzero(track.valid_n):
            box, at = track.boxes_n4[n], {k: path(int(n)) for k, path in enumerate(scene.paths)}
            centre, size = (box[:2] + box[2:]) / 2, box[2] - box[0]
            away = {
                k: np.hypot(centre[0] - p[0], centre[1] - p[1]) / size for k, p in at.items() if p
            }
            if (
                away
                and min(away.values()) < 0.5
                and sorted(away.values())[:2][-1] > (0.5 if len(away) > 1 else 0)
            ):
                shown.append(min(away, key=away.get))
        count += sum(a != b for a, b in pairwise(shown))
    return count


# ---- the clips


def scenes(width: int, height: int, frames: int) -> tuple[Scene, ...]:
    """One person walking about, two crossing, and two of whom one leaves, in a picture of this
    size."""
    scale = 1.3 * height / 720

    def walking(t: int) -> tuple[float, float, float]:
        x, y = (
            0.5 + 0.12 * sin(t / 60) + 0.01 * sin(t / 9),
            0.47 + 0.05 * sin(t / 45) + 0.008 * sin(t / 8),
        )  # half a face's width a second
        return width * x, height * y, scale * (1 + 0.15 * sin(t / 50))

    def across(start: float, stop: float, y: float, size: float) -> Path_:
        return lambda t: (width * (start + (stop - start) * t / frames), height * y, scale * size)

    def staying(t: int) -> tuple[float, float, float]:
        return width * (0.3 + 0.01 * sin(t / 9)), height * 0.45, 0.9 * scale

    def leaving(t: int) -> tuple[float, float, float] | None:
        x = 0.65 + max(0.0, t / frames - 0.3) * 1.0
        return (width * x, height * 0.5, 1.1 * scale) if x < 1.15 else None

    crossing = across(0.2, 0.8, 0.45, 1.0), across(0.8, 0.2, 0.5, 1.08)
    return (
        Scene("walking", (walking,)),
        Scene("crossing", crossing),
        Scene("leaving", (staying, leaving)),
    )


def occluded(width: int, height: int, frames: int) -> Scene:
    """The one who walks about, a hand passing over the face every few seconds."""

    def hand(t: int) -> tuple[float, float, float]:
        return width * (0.5 + 0.3 * sin(t / 15)), height * 0.55, 1.3 * height / 720

    return Scene("occluded", scenes(width, height, frames)[0].paths, hand)


def write(
    path: Path,
    scene: Scene,
    heads: Sequence[np.ndarray],
    width: int,
    height: int,
    frames: int,
    seed: int = 0,
    pixels: str = "yuv420p",
) -> Path:
    """The scene as H.264 at crf 23."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"crf": "23", "preset": "medium", **X264}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for frame_hwc in draw(scene, heads, width, height, frames, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_hwc, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def draw(
    scene: Scene, heads: Sequence[np.ndarray], width: int, height: int, frames: int, seed: int = 0
) -> Iterator[np.ndarray]:
    """The scene's frames, (height, width, 3) uint8 RGB. heads: (T, 320, 320, 3) each, shown
    forwards and backwards."""
    rng = np.random.default_rng(seed)
    behind_hwc = _background(rng, width + width // 4, height + height // 4)
    grain_hw = rng.integers(0, NOISE + 1, (height + 64, width + 64), np.uint8)
    grain_hwc = np.repeat(grain_hw[..., None], 3, -1)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    inside_hw = np.clip(
        (1 - ((columns - 160) / 118) ** 2 - ((rows - 150) / 140) ** 2) * 6, 0, 1
    )  # head and hair, without the room
    for t in range(frames):
        x, y = (
            int((0.5 + 0.5 * sin(t / slow)) * (n // 4 - 1))
            for n, slow in ((width, 60), (height, 83))
        )
        frame_hwc = behind_hwc[y : y + height, x : x + width].copy()
        for head_thwc, path in zip(heads, scene.paths, strict=False):
            if (at := path(t)) is not None:
                turn = t % (2 * len(head_thwc) - 2)
                _place(
                    frame_hwc, head_thwc[min(turn, 2 * len(head_thwc) - 2 - turn)], inside_hw, *at
                )
        if (at := scene.hand(t)) is not None:
            centre, axes = (int(at[0]), int(at[1])), (int(34 * at[2]), int(80 * at[2]))
            cv2.ellipse(frame_hwc, centre, axes, 15, 0, 360, (178, 134, 112), -1)
        y, x = rng.integers(0, 64, 2)
        yield cv2.add(frame_hwc, grain_hwc[y : y + height, x : x + width])


def _place(
    frame_hwc: np.ndarray,
    head_hwc: np.ndarray,
    inside_hw: np.ndarray,
    x: float,
    y: float,
    scale: float,
) -> None:
    height, width = frame_hwc.shape[:2]
    left, top = max(0, int(x - 165 * scale)), max(0, int(y - 155 * scale))
    right, bottom = min(width, int(x + 165 * scale)), min(height, int(y + 172 * scale))
    if left >= right or top >= bottom:
        return
    map_ = np.float32([[scale, 0, x - 160 * scale - left], [0, scale, y - 150 * scale - top]])
    size = right - left, bottom - top
    head_hwc = cv2.warpAffine(head_hwc, map_, size, borderMode=cv2.BORDER_REPLICATE)
    share_hw = cv2.warpAffine(inside_hw, map_, size)[..., None]
    part_hwc = frame_hwc[top:bottom, left:right]
    part_hwc[:] = part_hwc + (head_hwc.astype(np.float32) - part_hwc) * share_hw


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 8):
        coarse = rng.standard_normal((2**octave * 9 // 16 + 1, 2**octave, 3), dtype=np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    low, high = picture.min(), picture.max()
    return ((picture - low) / (high - low) * 200 + 20).astype(np.uint8)
