"""`dfil bench preprocess`: what finding faces costs beside decoding, and how far the boxes are from
detecting in every frame.

Times are processor times of one process with one thread, taken in turns, medians of several; their
ratio holds on other machines, they themselves do not. dlib's own boxes jump from frame to frame, so
two detections that differ by nothing but that reach about the IoU given as `neighbours`.

Built-in scenes are quicker to follow than footage. With `--clips FOLDER` the longest of the
folder's videos is measured too, at each size and in each format, and the boxes in all of them, as
they are.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from dfil.datasets.records import VideoRecord
from dfil.faces.boxes import iou
from dfil.faces.detect import detector, finder
from dfil.faces.kept import People, watch
from dfil.faces.preprocess import COMPACT, Settings, process_video
from dfil.faces.video import decode, read_frames
from dfil.system.cores import cores
from dfil.tools.bench.common import using_threads
from dfil.tools.bench.scenes import Scene, encode, footage, rescaled, scenes, write

FORMATS = "yuv420p", "yuv444p"  # most videos', and FaceForensics++'s own


def measure(
    clips: Path | None = None,
    sizes: Sequence[int] = (480, 720, 1080),
    frames: int = 300,
    repeats: int = 5,
    every: int = 4,
    mtcnn_frames: int = 100,
) -> dict:
    """Times in milliseconds per frame, their ratios, IoU with per-frame detection, and identity
    switches, for each height in `sizes`.

    clips: a folder of real videos, each with a face. frames: per clip. repeats: turns of which the
    median counts. every: per-frame detection is done in every so manieth frame, which decides
    nothing about the following, only how many comparisons there are. mtcnn_frames: length of the
    clip for MTCNN. Raises DataError if there is no video in the folder.
    """
    rows, real = [], footage(clips) if clips else []
    with tempfile.TemporaryDirectory(prefix="dfil-bench-") as temporary, using_threads(1):
        for height in sizes:
            folder = Path(temporary)
            *open_scenes, occluded = scenes(height, frames)
            drawn = [write(folder / f"{k}.mp4", s, seed=k) for k, s in enumerate(open_scenes)]
            short = write(folder / "short.mp4", scenes(height, mtcnn_frames)[0])
            row = {"height": height} | _times(drawn[0], short, frames, mtcnn_frames, repeats)
            for pixels in FORMATS:
                clip = write(folder / "occluded.mp4", occluded, pixels=pixels)
                row[f"occluded_{pixels}"] = _ratio(clip, repeats)
                if real:
                    encode(clip, rescaled(real[0], height, frames), pixels)
                    row[f"real_{pixels}"] = _ratio(clip, repeats)
            compared = [_compare(clip, every) for clip in drawn]
            row |= _agreement(compared)
            pairs = list(zip(open_scenes, compared, strict=True))
            row["switches"] = sum(switches(each["people"], scene) for scene, each in pairs)
            row["scenes"] = {scene.name: float(each["iou"].mean()) for scene, each in pairs}
            rows.append(row)
        found = _agreement([_compare(path, every) for path in real]) if real else None
    about = {"cores": cores(), "frames": frames, "repeats": repeats, "sizes": rows}
    return about | {"clips": [path.name for path in real], "real": found}


def table(result: dict) -> str:
    """The measurements as Markdown."""
    rows = {"decoding, ms per frame": "{decode_ms:.2f}", "decoding to RGB": "{decode_rgb_ms:.2f}"}
    for name in ("dlib", "mtcnn"):
        rows |= {
            f"decoding and {name} in every frame": f"{{{name}[every_ms]:.1f}}",
            f"preprocessing with {name}": f"{{{name}[preprocess_ms]:.2f}}",
            f"{name} against decoding": f"{{{name}[ratio]:.2f}}",
            f"{name} against decoding to RGB": f"{{{name}[ratio_rgb]:.2f}}",
        }
    rows |= {
        f"a hand before the face, {pixels}": f"{{occluded_{pixels}:.2f}}" for pixels in FORMATS
    }
    if result["clips"]:
        rows |= {f"real footage, {pixels}": f"{{real_{pixels}:.2f}}" for pixels in FORMATS}
    rows |= {
        "mean IoU": "{iou_mean:.3f}",
        "5th percentile of IoU": "{iou_p5:.3f}",
        "mean IoU of dlib's neighbours": "{neighbours:.3f}",
        "detections without a track": "{missed} of {compared}",
        "identity switches": "{switches}",
    }
    cells = {name: [form.format(**size) for size in result["sizes"]] for name, form in rows.items()}
    heads = [f"{size['height']}p" for size in result["sizes"]]
    lines = [f"| {name} | {' | '.join(row)} |" for name, row in ({"": heads} | cells).items()]
    lines.insert(1, "|---|" + "---:|" * len(heads))
    about = (
        f"{result['frames']} frames per clip, medians of {result['repeats']} turns, one thread;"
        f" {result['cores']} cores in this machine."
    )
    real = "No real footage; `--clips FOLDER` measures on a folder's videos too."
    if clips := result["clips"]:
        real = (
            f"Real footage: times of {clips[0]}, rescaled; boxes in {len(clips)} videos as they"
            " are: mean IoU {iou_mean:.3f}, 5th percentile {iou_p5:.3f}, {missed} of {compared}"
            " detections without a track."
        ).format(**result["real"])
    return "\n".join([*lines, "", about, real])


def _agreement(compared: Sequence[dict]) -> dict:
    """What `_compare` says of several clips, as one."""
    overlaps, neighbours = (
        np.concatenate([each[name] for each in compared]) for name in ("iou", "neighbours")
    )
    found = {"iou_mean": float(overlaps.mean()), "neighbours": float(neighbours.mean())}
    found["iou_p5"] = float(np.percentile(overlaps, 5))
    return found | {n: sum(each[n] for each in compared) for n in ("missed", "compared")}


def _preprocess(path: Path, **settings) -> None:
    record, store = VideoRecord("bench", "v", 0, "", "", "", path), path.with_suffix("")
    row = process_video(record, store, Settings(size=224, **settings))
    assert row["status"] == "ok", row


def _times(path: Path, short: Path, frames: int, short_frames: int, repeats: int) -> dict:
    works = {
        "decode": (lambda: sum(1 for _ in decode(path)), frames),
        "rgb": (lambda: sum(1 for _ in read_frames(path)), frames),
        "dlib": (lambda: _preprocess(path, detector="dlib"), frames),
        "mtcnn": (lambda: _preprocess(short, detector="mtcnn"), short_frames),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    # dlib's turns are over before MTCNN's begin, as a process preprocesses one video after another
    # with one detector.
    for turn in (("decode", "rgb", "dlib"), ("mtcnn",)):
        for _ in range(repeats + 1):
            for name in turn:
                work, count = works[name]
                taken[name].append(_milliseconds(work) / count)
                for clip in (path, short):  # or the next turn would also have to delete its files
                    shutil.rmtree(clip.with_suffix(""), ignore_errors=True)
    # In the first turn libraries and weights are loaded.
    times = {name: np.array(values[1:]) for name, values in taken.items()}
    ms = {name: float(np.median(values)) for name, values in times.items()}
    found = {"decode_ms": ms["decode"], "decode_rgb_ms": ms["rgb"]}
    picked = [frame for n, frame in enumerate(read_frames(short)) if n % 25 == 0]
    for name in ("dlib", "mtcnn"):
        find = detector(name)
        per_frame = median(_milliseconds(lambda f=f, find=find: find([f])) for f in picked)
        found[name] = {
            "preprocess_ms": ms[name],
            "detect_ms": per_frame,
            "every_ms": ms["rgb"] + per_frame,
            "ratio": float(np.median(times[name] / times["decode"])),
            "ratio_rgb": float(np.median(times[name] / times["rgb"])),
        }
    return found


def _ratio(path: Path, repeats: int) -> float:
    """Preprocessing as real data get it, with dlib, against decoding; by turns, the median."""
    ratios = []
    for _ in range(repeats + 1):  # in the first turn tables are made that later ones find
        decoding = _milliseconds(lambda: sum(1 for _ in decode(path)))
        ratios.append(_milliseconds(lambda: _preprocess(path, **COMPACT)) / decoding)
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return median(ratios[1:])


def _milliseconds(work: Callable) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def _compare(path: Path, every: int) -> dict:
    """IoU of the tracks with detections in single frames, and of detections in neighbouring
    frames."""
    with watch(decode(path), finder("dlib"), Settings(size=224, tracks="all")) as people:
        tracks = people.tracks
    find, overlaps, neighbours, before = detector("dlib"), [], [], None
    for number, frame_hwc in enumerate(read_frames(path)):
        if number % every > 1:  # two frames next to each other each time
            continue
        boxes_n5 = find([frame_hwc])[0]
        if number % every == 1:
            neighbours += iou(before[:, :4], boxes_n5[:, :4]).max(1, initial=0).tolist()
            continue
        before = boxes_n5
        there = np.array([t.boxes_n4[number] for t in tracks if t.valid_n[number]]).reshape(-1, 4)
        overlaps += iou(boxes_n5[:, :4], there).max(1, initial=0).tolist()
    best, next_ = np.array(overlaps), np.array(neighbours)
    return {
        "iou": best[best > 0.2],
        "neighbours": next_[next_ > 0.3],
        "missed": int((best <= 0.2).sum()),
        "compared": len(best),
        "people": people,
    }


def switches(people: People, scene: Scene) -> int:
    """How often a track passes from one person to another, each being whoever's head centre is
    nearest, within half a face."""
    count = 0
    for track in people.tracks:
        shown = []
        for n in np.flatnonzero(track.valid_n):
            box, at = track.boxes_n4[n], {k: path(int(n)) for k, path in enumerate(scene.paths)}
            centre, size = (box[:2] + box[2:]) / 2, box[2] - box[0]
            away = {k: np.hypot(*(centre - p[:2])) / size for k, p in at.items() if p}
            near = sorted(away.values())
            if near and near[0] < 0.5 and (len(near) == 1 or near[1] > 0.5):
                shown.append(min(away, key=away.get))
        count += sum(a != b for a, b in pairwise(shown))
    return count
