"""One's own videos: from a file to a probability per video, person and snippet.

A video is gone through twice: once to find everybody in it, then to cut the snippets that are
looked at, which are chosen per person, so that the first scenes of a long video get no more of them
than the last ones. Neither frames nor snippets are collected: memory does not grow with length.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dfil.faces import one_video
from dfil.faces.boxes import iou, runs
from dfil.faces.detect import detector as detector_by_name
from dfil.faces.kept import People, Track, watch
from dfil.faces.settings import Settings
from dfil.faces.store import plan_scale
from dfil.faces.stream import stream_snippets
from dfil.faces.video import VideoError, count_frames, decode, frame_rate
from dfil.models import Detector
from dfil.system.errors import RunError
from dfil.train.runs import load_weights
from dfil.train.scoring import pick_device, place, precision, video_logits
from dfil.train.snippets import normalise, snippet_starts

VIDEOS = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ts .webm .wmv".split()
)
PICTURES = frozenset(".bmp .jpeg .jpg .png .tif .tiff .webp".split())
SAMPLES = 8  # frames at most in which MTCNN is asked whether dlib has missed somebody


def score_videos(
    paths: Sequence[Path], weights: Path, snippets: int | None = None, detector: str | None = None
) -> Iterator[dict]:
    """Score each file, and each video in a folder, with the weights of a run; yields a dict per
    video as soon as it is done, in order.

    Keys: video, status ("ok" or why not), reason, frames, frames_with_face, examined (the share of
    the video's frames that were looked at), score (probability of being forged), snippets (list of
    first_frame, last_frame, score), people, trained_on, synthetic_training. What cannot be read or
    shows no face has score None and does not stop the others.

    Everybody in the video is scored, and one forged face makes a forged video: people is a list of
    frames_with_face, examined (the share of these), score and snippets, the largest face first; the
    video's score is the highest of theirs, and its frames_with_face and snippets are that person's.
    Somebody who is shown again after a cut counts as another person. A person's logit is the mean
    of those of groups of U neighbouring snippets. A snippet's score is the sigmoid of the mean
    logit of its frames, None for a method that judges U snippets as a whole.

    snippets: how many of each person; None: groups of the weights' own U, of at least one snippet a
    second. None is looked at twice, so somebody who is seen briefly gets fewer. detector: "dlib" or
    "mtcnn" (default: the one of the training data). Raises RunError if the weights cannot be
    loaded, or their model cannot take that many snippets.
    """
    if snippets is not None and snippets < 1:
        raise RunError(f"{snippets} snippets: at least 1 is needed")
    model, config = load_weights(weights)
    place(model, pick_device())
    about = {"trained_on": config["trained_on"], "synthetic_training": config["synthetic"]}
    for path in _files(map(Path, paths)):
        empty = {"frames": 0, "frames_with_face": 0, "examined": 0.0, "score": None}
        result = {"video": str(path), "status": "ok", "reason": ""} | empty
        result |= {"snippets": [], "people": [], **about}
        try:
            result |= _score_video(path, model, config["sampling"], snippets, detector)
        except VideoError as error:
            result |= {"status": "unreadable", "reason": str(error)}
        yield result


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files, and those that are videos in the folders."""
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else []
        yield from [p for p in inside if p.suffix.lower() in VIDEOS] or [path]


def _score_video(
    path: Path, model: Detector, sampling: dict, snippets: int | None, detector: str | None
) -> dict:
    """What is known of a video from everybody in it who is seen long enough."""
    if path.is_dir():
        pictures = any(p.suffix.lower() in PICTURES for p in path.rglob("*"))
        what = "pictures and no video; give the video they are from" if pictures else "no video"
        raise VideoError(f"{path}: a folder that holds {what}.")
    T, stride, size = sampling["frames"], sampling["stride"], sampling["size"]
    span = (T - 1) * stride + 1
    settings = Settings(size, detector or sampling["detector"], tracks="all")
    notes: list[str] = []
    people, samples = _find(path, settings, notes)
    everybody = one_video.choose(people, "all", notes)
    notes += _missed(people, samples, settings.detector)
    if not everybody:
        found = one_video.nobody(people, settings.detector)
        reason = "; ".join([found["reason"], *notes])
        return {"frames": people.count, "status": found["status"], "reason": reason}
    rate, wanted = frame_rate(path), {}
    for k, track in enumerate(everybody):
        starts = _starts(track, T, stride, sampling["snippets"], snippets, rate)
        if len(starts):
            scale = plan_scale(track.boxes_n4, track.valid_n, size)
            wanted[k] = track.boxes_n4, scale, starts
    if skipped := len(everybody) - len(wanted):
        notes.append(f"{skipped} people seen for less than {span} frames")
    if not wanted:
        status = {"status": "too short", "reason": "; ".join(notes)}
        return {"frames": people.count, **status}
    clips = stream_snippets(decode(path), wanted, T, stride, size)
    last = max(int(starts[-1]) for _, _, starts in wanted.values()) + span
    judged = _judge(model, _progress(clips, path, last), sampling, snippets)
    found, looked_at = [], np.zeros(people.count, bool)
    for k in wanted:
        seen_n, mine_n = everybody[k].valid_n, np.zeros(people.count, bool)
        for snippet in judged[k]["snippets"]:
            mine_n[snippet["first_frame"] : snippet["last_frame"] + 1 : stride] = True
        looked_at |= mine_n
        share = float(mine_n.sum() / seen_n.sum())
        found.append({"frames_with_face": int(seen_n.sum()), "examined": share, **judged[k]})
    best = max(found, key=lambda person: person["score"])
    examined = {"frames": people.count, "examined": float(looked_at.mean())}
    return best | examined | {"people": found, "reason": "; ".join(notes)}


def _find(path: Path, settings: Settings, notes: list[str]) -> tuple[People, dict]:
    """Everybody in a video, and a few of its frames (H, W, 3) by number, evenly spread."""
    samples, every = {}, 1
    bar = tqdm(total=count_frames(path), desc=path.name, unit="frame", leave=False, disable=None)

    def watched():
        nonlocal every
        for number, frame in enumerate(decode(path, notes)):
            if number % every == 0 and settings.detector == "dlib":
                samples[number] = frame.rgb()
                if len(samples) > SAMPLES:
                    every *= 2
                    for n in [n for n in samples if n % every]:
                        del samples[n]
            bar.update()
            yield frame

    nothing = np.zeros(0, bool)
    with bar, watch(watched(), one_video.finder(settings.detector), settings, nothing) as people:
        return people, samples


def _missed(people: People, samples: dict[int, np.ndarray], detector: str) -> list[str]:
    """A sentence if MTCNN sees somebody in the samples whom dlib did not find."""
    if not samples:
        return []
    unseen, find = 0, _mtcnn()
    for number, frame_hwc in samples.items():
        (boxes_n5,) = find([frame_hwc])
        known = [t.boxes_n4[number] for t in people.tracks if t.valid_n[number]]
        overlap = iou(boxes_n5[:, :4], np.array(known).reshape(-1, 4)).max(1, initial=0)
        unseen += bool((overlap < 0.1).any())
    if unseen < max(1, len(samples) / 4):
        return []
    return [
        f"in {unseen} of {len(samples)} frames MTCNN sees a face that {detector} does not: try"
        " --detector mtcnn"
    ]


@lru_cache(maxsize=1)
def _mtcnn() -> Callable:
    return detector_by_name("mtcnn")


def _starts(
    track: Track, T: int, stride: int, group: int, snippets: int | None, rate: float
) -> np.ndarray:
    """First frames of a person's snippets, each once: `snippets`, or enough groups for one a
    second."""
    numbers = np.flatnonzero(track.valid_n)
    stretches = [(int(numbers[at]), count) for at, count in runs(numbers)]
    if max(count for _, count in stretches) < (T - 1) * stride + 1:
        return np.zeros(0, int)
    count = snippets or group * math.ceil(max(1, len(numbers) / rate / group))
    starts = np.unique(snippet_starts(stretches, count, T, stride))
    while not snippets and count > group and len(starts) % group:
        count -= group
        starts = np.unique(snippet_starts(stretches, count, T, stride))
    return starts


def _progress(clips: Iterable[tuple], path: Path, last: int) -> Iterator[tuple]:
    with tqdm(total=last, desc=path.name, unit="frame", leave=False, disable=None) as bar:
        for person, start, clip_thwc in clips:
            bar.update(start - bar.n)
            yield person, start, clip_thwc


def _judge(
    model: Detector, clips: Iterable[tuple], sampling: dict, snippets: int | None
) -> dict[int, dict]:
    """Score and snippets of each person, whose snippets are judged in groups as they come."""
    group = snippets or sampling["snippets"]
    waiting: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    judged: dict[int, list[dict]] = defaultdict(list)
    for person, start, clip_thwc in clips:
        waiting[person].append((start, clip_thwc))
        if len(waiting[person]) == group:
            judged[person].append(judge(model, waiting.pop(person), sampling))
    for person, rest in waiting.items():
        judged[person].append(judge(model, rest, sampling))
    found = {}
    for person, groups in judged.items():
        sizes = [len(g["snippets"]) for g in groups]
        logit = np.average([g["logit"] for g in groups], weights=sizes)
        listed = [snippet for g in groups for snippet in g["snippets"]]
        score = float(torch.sigmoid(torch.tensor(logit)))
        found[person] = {"score": score, "snippets": listed}
    return found


@torch.no_grad()
def judge(model: Detector, clips: Sequence[tuple[int, np.ndarray]], sampling: dict) -> dict:
    """Logit and snippets of one group: first frames and pixels (T, size, size, 3) uint8 of each."""
    clip_uthwc = np.stack([clip_thwc for _, clip_thwc in clips])
    device = next(model.parameters()).device
    with precision(device):
        x = normalise(torch.from_numpy(clip_uthwc).permute(0, 1, 4, 2, 3)[None].to(device))
        try:
            logit = float(video_logits(model, x, sampling.get("views", 1)).float()[0])
        except ValueError as error:
            raise RunError(
                f"these weights cannot score {len(clips)} snippets: {error}; leave --snippets away,"
                " or give a longer video"
            ) from error
        try:
            per_snippet = torch.sigmoid(model.snippet_logits(x).float())[0].tolist()
        except NotImplementedError:  # a method that judges a video as a whole
            per_snippet = [None] * len(clips)
    reach = (sampling["frames"] - 1) * sampling["stride"]
    listed = [
        {"first_frame": start, "last_frame": start + reach, "score": score}
        for (start, _), score in zip(clips, per_snippet, strict=True)
    ]
    return {"logit": logit, "snippets": listed}
