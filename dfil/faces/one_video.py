"""One video's crops, files and row: detect, follow, cut. Whatever is wrong with it is in the
row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from glob import escape
from pathlib import Path

import cv2
import numpy as np

from dfil.datasets import VideoRecord
from dfil.datasets.sequences import is_sequence
from dfil.faces import detect, rows
from dfil.faces.boxes import runs
from dfil.faces.crops import Crops, crops_path
from dfil.faces.grid import MARGIN, plan_scale
from dfil.faces.kept import People, Track, watch
from dfil.faces.settings import BETWEEN, FEWER, SHORTEST, Settings
from dfil.faces.store import RULES, write_json
from dfil.faces.video import LOST, VideoError, count_frames, decode, read_sequence
from dfil.faces.write import Plan, TooLittleError, described, track_writer, write_crops
from dfil.system.errors import MachineError, machine_fault
from dfil.system.files import remove_leftovers

PASSING = 0.2  # share of the largest track's area and of its frames; below both, one passes by


@lru_cache(maxsize=1)
def finder(name: str) -> detect.Finder:
    """Built once per process: loading takes longer than a video."""
    return detect.finder(name)


def process_video(record: VideoRecord, folder: str | Path, settings: Settings) -> dict:
    """Cut one video and write its files and its row; returns the row.

    Raises MachineError where disk, memory or permissions are at fault; nothing is then said of the
    video.
    """
    folder = Path(folder)
    row = rows.of_record(record) | dict.fromkeys(("frames", "seen", "faces", "patch", "bytes"), 0)
    row |= {"status": "ok", "reason": "", "crops": "", "checksum": "", "tracks": 0}
    row["rule"] = RULES[settings.tracks]
    try:
        row |= rows.source_of(record, folder, settings)
        row |= (_cut_sequence if is_sequence(record.path) else _cut_video)(record, folder, settings)
    except VideoError as error:
        row |= {"status": "unreadable", "reason": str(error)}
    except Exception as error:  # one bad file among thousands must not end the run
        if fault := machine_fault(error):
            raise MachineError(fault) from error
        row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}", "key": ""}
    target = rows.path_of(folder, record.video_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    now = {p for k in range(row["tracks"]) for p in rows.files_of(folder, record.video_id, k)}
    for name in (escape(target.stem), f"{escape(target.stem)}@*"):
        remove_leftovers(target.parent, f"{name}.np?.*.part")
        for path in set(target.parent.glob(f"{name}.np?")) - now:
            path.unlink(missing_ok=True)
    write_json(target, row)
    return row


def choose(people: People, tracks: str, notes: list[str]) -> list[Track]:
    """Those of a video's tracks that are used, the largest first, with a note on the others."""
    usable = [t for t in people.tracks if longest_run(t.valid_n) >= SHORTEST]
    usable.sort(key=lambda t: -t.area)
    if tracks == "largest" or not usable:
        return usable[:1]
    area, frames = PASSING * usable[0].area, PASSING * usable[0].valid_n.sum()
    chosen = [t for t in usable if t.area >= area or t.valid_n.sum() >= frames]
    if dropped := len(people.tracks) - len(chosen):
        faces = f"{dropped} more face{'s' * (dropped > 1)}"
        notes.append(f"{faces} too short or too small to be people of this video")
    return chosen


def nobody(people: People, detector: str) -> dict:
    """Status, faces and reason of a video without a usable track."""
    faces = max((int(t.valid_n.sum()) for t in people.tracks), default=0)
    if not faces:
        other = next(name for name in detect.DETECTORS if name != detector)
        seen = f"{detector} sees none of {detect.SMALLEST} pixels or more"
        reason = f"{seen}; try --detector {other}, or enlarge the video"
        return {"status": "no face", "reason": f"no face in {people.count} frames: {reason}"}
    longest = max(longest_run(t.valid_n) for t in people.tracks)
    reason = f"a face in at most {longest} consecutive frames of {people.count}, {SHORTEST} are"
    return {"status": "too short", "faces": faces, "seen": faces, "reason": f"{reason} needed"}


def longest_run(valid_n: np.ndarray) -> int:
    """How many consecutive frames are valid at most."""
    return max((length for _, length in runs(np.flatnonzero(valid_n))), default=0)


def _cut_video(record: VideoRecord, folder: Path, settings: Settings) -> dict:
    """The part of the row that needs the pixels."""
    notes: list[str] = []
    reused = _plans_of_real(record, folder, notes)
    if reused is not None:
        keep_n = _kept_stretches(len(reused[0][1]), settings.stretches)
        frames = decode(record.path, notes)
        row = write_crops(folder, record.video_id, frames, reused, settings.limits)
        lost = _count(keep_n) - _count(keep_n[: row["frames"]])
        if lost:
            notes.append(f"{lost} of its real's stretches {FEWER}")
        row["seen"] = min(row["frames"], rows.read(folder, record.boxes_from).get("seen", 0))
        longest = longest_run(reused[0][1][: row["frames"]])
    else:
        # Frames are let go as they are decoded, so which to keep has to be known before.
        count = count_frames(record.path) if settings.stretches else 0
        keep_n = _kept_stretches(count, settings.stretches) if settings.stretches else None
        frames = decode(record.path, notes)
        with watch(frames, finder(settings.detector), settings, keep_n) as people:
            chosen = choose(people, settings.tracks, notes)
            kept = [t for t in chosen if t.stored_n.any()] or chosen[:1]
            if between := len(chosen) - len(kept):
                people_ = "1 more person" if between == 1 else f"{between} more people"
                notes.append(f"{people_} seen only {BETWEEN}")
            chosen = kept
            if not chosen:
                row = nobody(people, settings.detector)
                reason = "; ".join([row["reason"], *notes])
                return row | {"frames": people.count, "reason": reason}
            if not chosen[0].stored_n.any():
                reason = f"a face only {BETWEEN}"
                if people.count != count:  # the stretches were planned by a count that lies
                    reason = f"the file announces {count} frames, and {people.count} can be decoded"
                    reason += "; convert it and try again"
                reason = "; ".join([reason, *notes])
                return {"frames": people.count, "status": "too short", "reason": reason}
            row = _write_people(record, folder, settings, people, chosen)
            row["seen"] = int(chosen[0].valid_n.sum())
            longest = longest_run(chosen[0].stored_n)
    if row["faces"] < row["frames"]:
        seen = f", a face in {row['seen']}" if row["seen"] > row["faces"] else ""
        notes.insert(0, f"crops of {row['faces']} of {row['frames']} frames{seen}")
    if longest < SHORTEST:
        notes.append(f"no {SHORTEST} of them consecutive")
        names = ("frames", "faces", "seen")
        row = {name: row[name] for name in names} | {"status": "too short"}
    return {**row, "reason": "; ".join(notes)}


def _write_people(
    record: VideoRecord, folder: Path, settings: Settings, people: People, chosen: Sequence[Track]
) -> dict:
    """Cut the patches of the chosen tracks from what was kept of the frames."""
    limits, plans, writers = settings.limits, [], []
    for t in chosen:
        plans.append((t.boxes_n4, t.stored_n, plan_scale(t.boxes_n4, t.valid_n, settings.size)))
    try:
        for k, track in enumerate(chosen):
            path = crops_path(folder, record.video_id, k)
            with track_writer(path, plans[k], people.source, limits) as writer:
                writer.count = people.count
                for part_hwc, corner in track.parts():
                    writer.add(part_hwc, corner)
            writers.append(writer)
    except TooLittleError:  # a face many times smaller than it mostly is: too little was kept of it
        return write_crops(folder, record.video_id, decode(record.path), plans, limits)
    return {**described(folder, writers), "frames": people.count}


def _plans_of_real(record: VideoRecord, folder: Path, notes: list[str]) -> list[Plan] | None:
    """The plan of each track of the real video with the same geometry; None, with a note why, where
    they do not fit.

    The scale is taken over too: computed anew from a shorter fake it would differ a little, and
    resampling would tell fakes from reals.
    """
    if not record.boxes_from:
        return None
    row = rows.read(folder, record.boxes_from)
    if row.get("status") != "ok":
        notes.append(f"own detection: no crops of {record.boxes_from}")
        return None
    first = next(decode(record.path))
    here, size = count_frames(record.path), (first.width, first.height)
    tracks = [Crops(crops_path(folder, record.boxes_from, k)) for k in range(row["tracks"])]
    source, count = tracks[0].source, tracks[0].count
    mine = theirs = ""
    if size != source:
        mine, theirs = (f"{width}x{height}" for width, height in (size, source))
    elif LOST * here > count:  # one or two more than the real's are only left without a box
        mine, theirs = f"{here} frames", f"{count}"
    if mine:
        notes.append(f"own detection: {mine}, {record.boxes_from} has {theirs}")
        return None
    plans = []
    for crops in tracks:
        boxes_n4, valid_n = np.zeros((count, 4), np.float32), np.zeros(count, bool)
        boxes_n4[crops.frames], valid_n[crops.frames] = crops.boxes / np.float32(crops.scale), True
        plans.append((boxes_n4, valid_n, crops.scale))
    return plans


def _kept_stretches(n: int, stretches: tuple[int, int] | None) -> np.ndarray:
    keep = np.ones(n, bool)
    if stretches and stretches[0] * stretches[1] < n:
        keep[:] = False
        for start in np.linspace(0, n - stretches[1], stretches[0]).round().astype(int):
            keep[start : start + stretches[1]] = True
    return keep


def _count(keep_n: np.ndarray) -> int:
    """How many stretches are kept."""
    return len(runs(np.flatnonzero(keep_n)))


# ---- videos that are face crops already


def _cut_sequence(record: VideoRecord, folder: Path, settings: Settings) -> dict:
    """The same for a video that its owners distribute as face crops: the snippet at margin 1.3 is
    the whole picture, pixel by pixel."""
    notes: list[str] = []
    frames = read_sequence(record.path, notes)
    places = frame_numbers(np.array(list(frames)), notes)
    at = dict(zip(places.tolist(), frames.values(), strict=True))
    height, width = at[0].shape[:2]
    scale = min(1.0, settings.size / max(height, width))
    if scale < 1:  # here, because scales of the grid are only near this one
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        size, area = (width, height), cv2.INTER_AREA
        at = {n: cv2.resize(picture, size, interpolation=area) for n, picture in at.items()}
    middle = np.array([width, height]) / 2
    box = np.concatenate([middle - middle / MARGIN, middle + middle / MARGIN])
    valid_n = np.isin(np.arange(places[-1] + 1), places)
    boxes_n4 = np.tile(box, (len(valid_n), 1)).astype(np.float32)
    keep_n = valid_n & _kept_stretches(len(valid_n), settings.stretches)
    counts = {"frames": len(frames), "seen": len(frames)}
    if (longest := longest_run(keep_n)) < SHORTEST:
        notes.insert(0, f"at most {longest} pictures in a row, {SHORTEST} are needed")
        short = {"faces": len(frames), "status": "too short", "reason": "; ".join(notes)}
        return counts | short
    filled = (at.get(n, at[0]) for n in range(len(valid_n)))  # what fills a gap is never stored
    plans = [(boxes_n4, keep_n, 1.0)]
    row = write_crops(folder, record.video_id, filled, plans, settings.limits)
    if row["faces"] < len(frames):
        notes.append(f"crops of {row['faces']} of {len(frames)} frames")
    return row | counts | {"reason": "; ".join(notes)}


def frame_numbers(numbers_k: np.ndarray, notes: list[str]) -> np.ndarray:
    """Frame numbers (k,), rising from 0, at which pictures with these file numbers are stored.

    Where file numbers leave a gap, however long, one frame number is left out: frames on its two
    sides are no neighbours, and a snippet never crosses it. Where this leaves no stretch of
    SHORTEST pictures, because every second frame or fewer was distributed, files next to each other
    are taken as neighbours.
    """
    gaps = np.cumsum(np.diff(numbers_k, prepend=numbers_k[:1]) > 1)
    count = int(gaps[-1])
    if not count:
        return np.arange(len(numbers_k))
    if max(length for _, length in runs(numbers_k)) < SHORTEST <= len(numbers_k):
        said = "so neighbouring files count as neighbouring frames"
        notes.append(f"{count} gaps in the pictures' numbers, {said}")
        return np.arange(len(numbers_k))
    notes.append(f"{count} gap{'s' * (count > 1)} in the pictures' numbers")
    return np.arange(len(numbers_k)) + gaps
