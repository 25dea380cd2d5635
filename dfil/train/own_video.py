"""One's own videos: from a file to a probability per video, person and snippet.

A video is gone through twice: once to find everybody in it, then to cut the snippets that are
looked at, which are chosen per person, so that the first scenes of a long video get no more of them
than the last ones. Neither frames nor snippets are collected: memory does not grow with length.
"""

from __future__ import annotations

import glob
import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from dfil.datasets.adapter import folders
from dfil.datasets.folder import VIDEOS, not_looked_at
from dfil.faces import one_video
from dfil.faces.boxes import iou
from dfil.faces.clock import Clock
from dfil.faces.detect import DETECTORS
from dfil.faces.detect import detector as detector_by_name
from dfil.faces.frame import Frame
from dfil.faces.grid import plan_scale
from dfil.faces.kept import People, Track, watch
from dfil.faces.settings import Settings
from dfil.faces.still import Changes, moving
from dfil.faces.stream import stream_snippets
from dfil.faces.video import VideoError, count_frames, decode, frame_rate
from dfil.models import Detector, load_weights
from dfil.models.saved import read, wrong_sampling
from dfil.system.errors import MachineError, RunError
from dfil.system.progress import progress_bar
from dfil.train.calibration import Calibration, of_weights
from dfil.train.devices import pick_device, place, precision
from dfil.train.scoring import video_logits
from dfil.train.snippets import normalise, snippet_starts

PICTURES = frozenset(".bmp .jpeg .jpg .png .tif .tiff .webp".split())
SHIPPED = Path(__file__).parents[1] / "weights" / "dil-synthetic"  # a folder of `dfil export`
SAMPLE = 1080  # pixels: the shorter side at most of a frame in which that is asked
SAMPLES = 8  # frames at most in which MTCNN is asked whether dlib has missed somebody


# Shown what was looked at: model, person, snippets (first frame and pixels), what `judge` said.
Observer = Callable[[Detector, int, Sequence[tuple[int, np.ndarray]], dict], None]


def described(weights: str | Path) -> dict:
    """The config of weights. Raises RunError if it lacks what scoring needs of it."""
    return _whole(read(weights)[1], weights)


def _whole(config: dict, weights: str | Path) -> dict:
    if lacks := [name for name in ("trained_on", "synthetic", "sampling") if name not in config]:
        raise RunError(
            f"{weights}: its config.json does not say {', '.join(lacks)}; take a run's folder or"
            " one that `dfil export` wrote"
        )
    looks = config["sampling"] if isinstance(config["sampling"], dict) else {}
    wrong = wrong_sampling(looks) or ["detector"] * (looks.get("detector") not in DETECTORS)
    if wrong:
        raise RunError(
            f"{weights}: what its settings say of sampling is not whole"
            f" ({', '.join(wrong)}); take a run's folder or export it again"
        )
    if looks.get("box", "snippet") != "snippet":
        raise RunError(
            f"{weights}: trained on crops with a box per {looks['box']}, which are not cut of one's"
            " own videos; take weights that were trained with one box per snippet"
        )
    return config


def unseen(model: Detector, person: int, clips: Sequence, judged: dict) -> None:
    """An Observer that looks away."""


def score_videos(
    paths: Sequence[Path],
    weights: str | Path | None = None,
    snippets: int | None = None,
    detector: str | None = None,
    observe: Observer = unseen,
) -> Iterator[dict]:
    """Score each file, each video in a folder, and what patterns match; yields a dict per video as
    soon as it is done, in order. weights: as in dfil.models.load_weights, default the shipped ones.

    Keys: video, status ("ok" or why not), reason, frames, seconds (its length), frames_with_face,
    examined (the share of the video's frames that were looked at), logit, score (its sigmoid, the
    probability of being forged), calibrated (the same on the scale of the validation videos, see
    calibration.py; None without any), snippets (list of first_frame, last_frame, first_second,
    last_second, score), people, no_face (list of [first second, last second]), trained_on,
    synthetic_training, and calibration, by whose numbers. What cannot be read or shows no face has
    score None and does not stop the others.

    Everybody in the video is scored, and one forged face makes a forged video: people is a list of
    frames_with_face, examined (the share of these), seen (list of [first second, last second]),
    place (of the face's middle, shares of the picture from its left and its top), logit, score,
    calibrated and snippets, the largest face first; the video's score is the highest of theirs,
    `suspect` says whose, and its frames_with_face and snippets are that person's. Somebody who is
    shown again after a cut counts as another person. A person's logit is the mean of those of
    groups of U neighbouring snippets. A snippet's score is the sigmoid of the mean logit of its
    frames, None for a method that judges U snippets as a whole.

    snippets: how many of each person; None: groups of the weights' own U, of at least one snippet a
    second. None is looked at twice, so somebody who is seen briefly gets fewer. detector: "dlib" or
    "mtcnn" (default: the one of the training data). observe: called with each group of snippets
    that has been judged. Raises RunError if the weights cannot be loaded, or their model cannot
    take that many snippets.
    """
    if snippets is not None and snippets < 1:
        raise RunError(f"{snippets} snippets: at least 1 is needed")
    weights = os.path.expanduser(weights or SHIPPED)
    model, config = load_weights(weights)
    _whole(config, weights)
    place(model, pick_device())
    scale = of_weights(weights, config)
    about = {"trained_on": config["trained_on"], "synthetic_training": config["synthetic"]}
    about |= {"calibration": scale.as_dict() if scale else None}
    for path in _files(Path(each).expanduser() for each in paths):
        empty = {"frames": 0, "seconds": 0.0, "frames_with_face": 0, "examined": 0.0}
        result = {"video": str(path), "status": "ok", "reason": ""} | empty
        result |= {"logit": None, "score": None, "calibrated": None, "suspect": None}
        result |= {"snippets": [], "people": [], "no_face": [], **about}
        try:
            one = _Video(path, model, config["sampling"], snippets, detector, observe)
            result |= one.scored(scale)
        except (VideoError, MachineError, PermissionError) as error:
            result |= {"status": "unreadable", "reason": _why(path, error)}
        yield result


def _why(path: Path, error: Exception) -> str:
    """What a result says of the error; a file that may not be read stops no other video."""
    for each in (error, error.__cause__):
        if isinstance(each, PermissionError):
            return f"{path}: may not be read ({each.strerror}); change its permissions."
    return str(error)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files, those that are videos in the folders, and what patterns such as "*.mp4" match.
    Folders that may not be listed come as they are."""
    seen: dict[str, Path] = {}  # one file, however many patterns and folders lead to it
    for path in paths:
        matched = [] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        for each in matched or [path]:
            shut: list[Path] = []
            below = folders(each, hidden=True, shut=shut) if each.is_dir() else ()
            inside = sorted(p for folder in below for p in folder.iterdir() if not p.is_dir())
            if videos := [p for p in inside if p.suffix.lower() in VIDEOS]:  # links to nothing, too
                not_looked_at(each, inside)
            for file in [*videos, *shut] or [each]:
                one = seen.get(real := os.path.realpath(file))
                if one is None:
                    seen[real] = file
                    yield file
                elif os.path.abspath(one) != os.path.abspath(file):
                    print(f"{file}: the same file as {one}, scored once.", file=sys.stderr)


@dataclass
class _Video:
    """One video on its way: everybody in it is found, then the snippets of each are judged."""

    path: Path
    model: Detector
    sampling: dict
    snippets: int | None
    detector: str | None
    observe: Observer

    def scored(self, scale: Calibration | None) -> dict:
        """What is known of the video from everybody in it who is seen long enough."""
        path, size = self.path, self.sampling["size"]
        T, stride = self.sampling["frames"], self.sampling["stride"]
        if path.is_dir():
            os.scandir(path).close()  # rglob passes over what may not be listed
            pictures = any(p.suffix.lower() in PICTURES for p in path.rglob("*"))
            what = "pictures and no video; give the video they are from" if pictures else "no video"
            raise VideoError(f"{path}: a folder that holds {what}.")
        settings = Settings(size, self.detector or self.sampling["detector"], tracks="all")
        notes: list[str] = []
        people, samples, clock, changes = _find(path, settings, notes)
        everybody = one_video.choose(people, "all", notes)
        notes += clock.notes()
        notes += _missed(people, samples, settings.detector)
        about = {"frames": people.count, "seconds": clock.length}
        if not everybody:
            found = one_video.nobody(people, settings.detector)
            reason = "; ".join([found["reason"], *notes])
            return about | {
                "status": found["status"],
                "reason": reason,
                "no_face": [[0.0, clock.length]],
            }
        faceless_n = ~np.any([track.valid_n for track in everybody], axis=0)
        about["no_face"] = clock.spans(faceless_n)
        everybody = moving(everybody, changes, people.source, notes)
        if not everybody:
            return about | {"status": "still picture", "reason": "; ".join(notes)}
        starts = [self._starts(track, clock) for track in everybody]
        shown = [k for k in range(len(everybody)) if len(starts[k])]
        if skipped := len(everybody) - len(shown):
            notes.append(f"{skipped} people seen for less than {self._span} frames")
        about["reason"] = "; ".join(notes)
        if not shown:
            return about | {"status": "too short"}
        tracks = [everybody[k] for k in shown]
        wanted = {
            person: (track.boxes_n4, plan_scale(track.boxes_n4, track.valid_n, size), starts[k])
            for person, (k, track) in enumerate(zip(shown, tracks, strict=True))
        }
        clips = stream_snippets(decode(path), wanted, T, stride, size)
        last = max(int(starts[k][-1]) for k in shown) + self._span
        judged = self._judge(_progress(clips, path, last))
        found, looked_at_n = [], np.zeros(people.count, bool)
        for person, track in enumerate(tracks):
            mine_n = np.zeros(people.count, bool)
            for snippet in judged[person]["snippets"]:
                mine_n[snippet["first_frame"] : snippet["last_frame"] + 1 : stride] = True
                snippet["first_second"] = clock.at(snippet["first_frame"])
                snippet["last_second"] = clock.end(snippet["last_frame"])
            looked_at_n |= mine_n
            found.append(_about(track, clock, people.source, mine_n) | judged[person])
            if scale:
                found[-1]["calibrated"] = scale.probability(found[-1]["logit"])
        suspect = max(range(len(found)), key=lambda k: found[k]["logit"])
        of_suspect = ("frames_with_face", "logit", "score", "calibrated", "snippets")
        about |= {name: found[suspect][name] for name in of_suspect}
        examined = float(looked_at_n.mean())
        return about | {"suspect": suspect, "people": found, "examined": examined}

    @property
    def _span(self) -> int:
        return (self.sampling["frames"] - 1) * self.sampling["stride"] + 1

    def _starts(self, track: Track, clock: Clock) -> np.ndarray:
        """First frames of a person's snippets, each once: as many as asked for, or enough groups
        for one a second."""
        T, stride, group = (self.sampling[name] for name in ("frames", "stride", "snippets"))
        stretches = clock.stretches(track.valid_n)
        most = sum(max(0, count - self._span + 1) for _, count in stretches)  # different snippets
        if not most:
            return np.zeros(0, int)
        seen = round(sum(end - begin for begin, end in clock.spans(track.valid_n)), 2)  # seconds
        count = self.snippets or group * math.ceil(max(1, min(seen, most) / group))
        starts = np.unique(snippet_starts(stretches, count, T, stride))
        while not self.snippets and count > group and len(starts) % group:
            count -= group
            starts = np.unique(snippet_starts(stretches, count, T, stride))
        return starts

    def _judge(self, clips: Iterable[tuple]) -> dict[int, dict]:
        """Score and snippets of each person, whose snippets are judged in groups as they come."""
        group = (self.model.any_number and self.snippets) or self.sampling["snippets"]
        waiting: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
        judged: dict[int, list[dict]] = defaultdict(list)

        def look(person: int, seen: list[tuple[int, np.ndarray]]) -> None:
            judged[person].append(judge(self.model, seen, self.sampling))
            self.observe(self.model, person, seen, judged[person][-1])

        for person, start, clip_thwc in clips:
            waiting[person].append((start, clip_thwc))
            if len(waiting[person]) == group:
                look(person, waiting.pop(person))
        for person, rest in waiting.items():
            look(person, rest)
        found = {}
        for person, groups in judged.items():
            sizes = [len(g["snippets"]) for g in groups]
            logit = np.average([g["logit"] for g in groups], weights=sizes)
            listed = [snippet for g in groups for snippet in g["snippets"]]
            score = float(torch.sigmoid(torch.tensor(logit)))
            found[person] = {"logit": float(logit), "score": score, "calibrated": None}
            found[person]["snippets"] = listed
        return found


def _about(track: Track, clock: Clock, source: tuple[int, int], mine_n: np.ndarray) -> dict:
    """When and where somebody is seen, and how much of it was looked at."""
    boxes_n4 = track.boxes_n4[track.valid_n]
    middle = np.median((boxes_n4[:, :2] + boxes_n4[:, 2:]) / 2, axis=0) / source
    return {
        "frames_with_face": int(track.valid_n.sum()),
        "examined": float(mine_n.sum() / track.valid_n.sum()),
        "seen": clock.spans(track.valid_n),
        "place": [round(float(share), 3) for share in middle],
    }


def _find(path: Path, settings: Settings, notes: list[str]) -> tuple[People, dict, Clock, Changes]:
    """Everybody in a video, a few of its frames by number, evenly spread (see _sample), when each
    frame is shown, and where it differs from the one before."""
    samples, every, clock, changes = {}, 1, Clock(frame_rate(path)), Changes()
    bar = progress_bar(total=count_frames(path), desc=path.name, unit="frame")

    def watched():
        nonlocal every
        for number, frame in enumerate(decode(path, notes)):
            if number % every == 0 and settings.detector == "dlib" and not frame.lost:
                samples[number] = _sample(frame)
                if len(samples) > SAMPLES:
                    every *= 2
                    for n in [n for n in samples if n % every]:
                        del samples[n]
            clock.add(None if frame.lost else frame.seconds)  # a copy has another frame's time
            changes.add(frame)
            bar.update()
            yield frame

    nothing = np.zeros(0, bool)
    with bar, watch(watched(), one_video.finder(settings.detector), settings, nothing) as people:
        return people, samples, clock, changes


def _sample(frame: Frame) -> tuple[np.ndarray, float]:
    """A frame (H, W, 3), large ones shrunk, and by how much: in 4K nine of them fill 220 MiB, and
    faces so small that they are lost are not looked for there anyway."""
    scale = min(1.0, SAMPLE / min(frame.width, frame.height))
    whole_hwc = frame.part(0, 0, frame.width, frame.height).rgb()  # the frame itself keeps nothing
    return cv2.resize(whole_hwc, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def _missed(people: People, samples: dict[int, tuple], detector: str) -> list[str]:
    """A sentence if MTCNN sees somebody in the samples whom dlib did not find."""
    if not samples:
        return []
    unseen, find = 0, _mtcnn()
    for number, (frame_hwc, scale) in samples.items():
        (boxes_n5,) = find([frame_hwc])
        known = [t.boxes_n4[number] for t in people.tracks if t.valid_n[number]]
        overlap = iou(boxes_n5[:, :4] / scale, np.array(known).reshape(-1, 4)).max(1, initial=0)
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


def _progress(clips: Iterable[tuple], path: Path, last: int) -> Iterator[tuple]:
    with progress_bar(total=last, desc=path.name, unit="frame") as bar:
        for person, start, clip_thwc in clips:
            bar.update(start - bar.n)
            yield person, start, clip_thwc


@torch.no_grad()
def judge(model: Detector, clips: Sequence[tuple[int, np.ndarray]], sampling: dict) -> dict:
    """Logit and snippets of one group: first frames and pixels (T, size, size, 3) uint8 of each.

    A method that needs as many snippets as videos are tested with sees each of them several times.
    Raises RunError for a number of snippets that it does not take and a logit that is no number.
    """
    n = len(clips)
    count = n if model.any_number else max(n, sampling.get("snippets", n))
    clip_uthwc = np.stack([clips[k * n // count][1] for k in range(count)])
    firsts = [-(-k * count // n) for k in range(n)]
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
        if not math.isfinite(logit):
            raise RunError(
                f"these weights give a video the logit {logit}: they are broken; take others, or"
                " train the run again"
            )
        try:
            per_snippet = torch.sigmoid(model.snippet_logits(x).float())[0, firsts].tolist()
        except NotImplementedError:  # a method that judges a video as a whole
            per_snippet = [None] * len(clips)
    reach = (sampling["frames"] - 1) * sampling["stride"]
    listed = [
        {"first_frame": start, "last_frame": start + reach, "score": score}
        for (start, _), score in zip(clips, per_snippet, strict=True)
    ]
    return {"logit": logit, "snippets": listed}
