"""One's own videos on one self-contained page: the verdict in words, scores along time, each person
as a strip, the most suspicious snippets, what was not examined and why, how it was computed.

`Evidence` watches while dfil.train.own_video scores a video and keeps little of it, however long
the video is; `section` makes of it and the result what own_page.j2 shows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import jinja2
import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from scipy.special import expit

import dfil
from dfil.explain import activation
from dfil.models import Detector
from dfil.results import verdict
from dfil.system.errors import RunError
from dfil.system.files import atomic, checksum
from dfil.train.calibration import Calibration

SHOWN = 3  # snippets whose frames are shown
FACES = 12  # of a person's strip, at most
CELL, FACE = 144, 72  # pixels: sides of a frame and of a strip's face on the page
GAIN = 4  # times: differences of frames are faint
WIDE = 1000.0  # units: width of the charts, which the page stretches
PLOT = 160.0  # units: height of the chart of scores
COLOURS = 6  # people that have a colour of their own in own_page.j2


@dataclass
class Group:
    """Snippets that were judged together, by the most suspicious of them."""

    highest: float
    person: int
    clips: Sequence[tuple[int, np.ndarray]]
    snippets: Sequence[dict]

    @property
    def x(self) -> torch.Tensor:
        """Their pixels (U, T, 3, H, W), uint8."""
        clip_uthwc = np.stack([clip_thwc for _, clip_thwc in self.clips])
        return torch.from_numpy(clip_uthwc).permute(0, 1, 4, 2, 3)


@dataclass
class Evidence:
    """The groups with the most suspicious snippets of a video, and faces along it; `observe` of
    score_videos."""

    model: Detector | None = None
    groups: list[Group] = field(default_factory=list)
    faces: dict[int, list[tuple[int, np.ndarray]]] = field(default_factory=dict)
    every: dict[int, int] = field(default_factory=dict)  # snippets from one face to the next
    met: dict[int, int] = field(default_factory=dict)  # snippets so far

    def __call__(
        self, model: Detector, person: int, clips: Sequence[tuple[int, np.ndarray]], judged: dict
    ) -> None:
        self.model = model
        scores = [s["score"] for s in judged["snippets"] if s["score"] is not None]
        highest = max(scores, default=float(expit(judged["logit"])))
        self.groups.append(Group(highest, person, clips, judged["snippets"]))
        self.groups = sorted(self.groups, key=lambda group: -group.highest)[:SHOWN]
        for start, clip_thwc in clips:
            self._keep_face(person, start, clip_thwc[len(clip_thwc) // 2])

    def clear(self) -> None:
        """Before the next video."""
        for kept in (self.groups, self.faces, self.every, self.met):
            kept.clear()

    def _keep_face(self, person: int, start: int, face_hwc: np.ndarray) -> None:
        """Evenly spread: where there are too many, every second one goes."""
        kept, every = self.faces.setdefault(person, []), self.every.setdefault(person, 1)
        number = self.met[person] = self.met.get(person, -1) + 1
        if number % every == 0:
            small = cv2.resize(face_hwc, (FACE, FACE), interpolation=cv2.INTER_AREA)
            kept.append((start, small))
            if len(kept) > FACES:
                self.faces[person], self.every[person] = kept[::2], 2 * every


def write(path: Path, sections: Sequence[Mapping], config: Mapping) -> None:
    """The page of `sections`, one per video. config: of the weights. Videos of one name in several
    folders are told apart by these."""
    names = _told_apart([section["result"]["video"] for section in sections])
    sections = [{**each, "name": name} for each, name in zip(sections, names, strict=True)]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dfil.explain", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("own_page.j2").render(
        videos=sections,
        warning=verdict.WARNING if config["synthetic"] else "",
        limits=verdict.LIMITS,
        config=config,
        version=dfil.__version__,
        torch=torch.__version__,
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _told_apart(videos: Sequence[str]) -> list[str]:
    """The files' names, each with as many folders before it as tell it from the others."""
    parts, names = [Path(video).parts for video in videos], []
    for mine in parts:
        same = [other for other in parts if other != mine and other[-1] == mine[-1]]
        k = next(k for k in range(1, len(mine) + 2) if all(o[-k:] != mine[-k:] for o in same))
        names.append("/".join(mine[-k:]))
    return names


def section(result: Mapping, evidence: Evidence) -> dict:
    """What the page shows of one video."""
    file = Path(result["video"])
    said = verdict.sentences({**result, "video": file.name})
    view = {"name": file.name, "result": result, "sentences": said}
    view |= {"checksum": checksum(file) if file.is_file() else "", "seconds": verdict.seconds}
    view |= {
        "spans": verdict.spans,
        "percent": verdict.percent,
        "people": [],
        "snippets": [],
        "validation": None,
        "ut": None,
    }
    if result["score"] is None:
        return view
    length = max(result["seconds"], 1e-6)
    for number, person in enumerate(result["people"]):
        faces = evidence.faces.get(number, [])
        dated = {s["first_frame"]: s["first_second"] for s in person["snippets"]}
        view["people"].append(
            {
                **person,
                "number": number + 1,
                "colour": min(number, COLOURS),
                "where": verdict.where(person),
                "suspect": number == result["suspect"],
                "faces": [(dated[start], picture(face)) for start, face in faces],
                "marks": _marks(person["snippets"], length),
                "present": _bars(person["seen"], length),
            }
        )
    view["faceless"] = _bars(result["no_face"], length)
    view["ticks"] = _ticks(length)
    view["timed"] = any(person["marks"] for person in view["people"])
    if result["calibration"]:
        view["validation"] = _validation(Calibration(**result["calibration"]), result["logit"])
    view["snippets"], view["lacking"] = _pictures(evidence)
    view["ut"] = _ut(evidence)
    return view


def _marks(snippets: Sequence[Mapping], length: float) -> list[dict]:
    """Where each snippet stands in the chart of scores, in units of WIDE and PLOT."""
    return [
        {
            "x": round(WIDE * s["first_second"] / length, 1),
            "to": round(WIDE * s["last_second"] / length, 1),
            "y": round(PLOT * (1 - s["score"]), 1),
            "score": s["score"],
            "when": f"{verdict.seconds(s['first_second'])} to {verdict.seconds(s['last_second'])}",
        }
        for s in snippets
        if s["score"] is not None
    ]


def _bars(spans: Sequence[Sequence[float]], length: float) -> list[tuple[float, float]]:
    """Left edge and width of each stretch of time."""
    return [(round(WIDE * a / length, 1), round(WIDE * (b - a) / length, 1)) for a, b in spans]


def _ticks(length: float) -> list[tuple[float, str]]:
    """Round times along the axis, at most six, each with its place in percent."""
    steps = [m * 10.0**e for e in range(-1, 6) for m in (1, 2, 5)]
    step = next(step for step in steps if length / step <= 5.5)
    times = np.arange(0, length + 1e-9, step)
    return [(round(100 * t / length, 2), f"{t:g} s") for t in times]


def _validation(scale: Calibration, logit: float) -> dict:
    """The validation videos' logits along an axis, and where this video's stands among them."""
    here = float(np.clip(logit, -30, 30))  # a larger one would press the others together
    everything = [*scale.real, *scale.forged, here]
    low, high = min(everything), max(everything)
    span = (high - low) or 1.0

    def places(logits: Sequence[float]) -> list[float]:
        return [round(WIDE * (0.01 + 0.98 * (z - low) / span), 1) for z in logits]

    (mine,) = places([here])
    kinds = [("real", places(scale.real)), ("forged", places(scale.forged))]
    return {"kinds": kinds, "here": mine, "videos": scale.videos}


def _pictures(evidence: Evidence) -> tuple[list[dict], str]:
    """The most suspicious snippets as rows of pictures, of each group at least one, so that people
    can be compared; and why there is no class activation, where there is none."""
    found, lacking = [], ""
    for group in evidence.groups:
        heat_uthw = None
        try:
            (heat_uthw,) = activation.class_activation(evidence.model, group.x).values()
        except RunError as error:
            lacking = str(error)
        scores = [s["score"] if s["score"] is not None else -1.0 for s in group.snippets]
        for rank, u in enumerate(np.argsort(scores)[::-1][:SHOWN]):
            clip_thwc, snippet = group.clips[u][1], group.snippets[u]
            rows = [("frames", strip(clip_thwc)), ("changes", strip(changes(clip_thwc)))]
            if heat_uthw is not None:
                highest = float(np.quantile(heat_uthw, 0.995)) or 1.0
                heated = _heated(clip_thwc, np.clip(heat_uthw[u] / highest, 0, 1))
                rows.append(("class activation", strip(heated)))
            found.append(
                (rank, -group.highest, {**snippet, "person": group.person + 1, "rows": rows})
            )
    found.sort(key=lambda entry: entry[:2])
    return [shown for _, _, shown in found[:SHOWN]], lacking


def _ut(evidence: Evidence) -> dict | None:
    """The U-T map of the most suspicious group and its frames' probabilities; None without."""
    model = evidence.model
    if not evidence.groups or not hasattr(model, "explain"):
        return None
    group = evidence.groups[0]
    try:
        *_, (stage, map_ut) = activation.ut_maps(model, group.x).items()
        fake_ut = activation.frame_probabilities(model, group.x)
    except (RunError, NotImplementedError):
        return None
    low, high = float(map_ut.min()), float(map_ut.max())
    share_ut = (map_ut - low) / ((high - low) or 1.0)
    rows = zip(group.snippets, map_ut.tolist(), share_ut.tolist(), fake_ut.tolist(), strict=True)
    return {"stage": stage, "person": group.person + 1, "rows": list(rows)}


def changes(clip_thwc: np.ndarray) -> np.ndarray:
    """Each frame less the one before, GAIN times, about grey; of the first one nothing."""
    x = clip_thwc.astype(np.float32)
    change = np.diff(x, axis=0, prepend=x[:1])
    return np.clip(128 + GAIN * change, 0, 255).astype(np.uint8)


def _heated(clip_thwc: np.ndarray, heat_thw: np.ndarray) -> np.ndarray:
    """Maps in 0..1 over the grey frames; where one is strong, less of the frame."""
    grey = clip_thwc.mean(-1, keepdims=True) / 255
    weight = 0.1 + 0.65 * heat_thw[..., None]
    mixed = (1 - weight) * grey + weight * colormaps["inferno"](heat_thw)[..., :3]
    return np.round(255 * mixed).astype(np.uint8)


def strip(clip_thwc: np.ndarray) -> str:
    """Frames side by side, as `picture`."""
    cells = [cv2.resize(frame, (CELL, CELL), interpolation=cv2.INTER_CUBIC) for frame in clip_thwc]
    return picture(np.concatenate(cells, axis=1))


def picture(image_hwc: np.ndarray) -> str:
    """An RGB picture as WebP in base64."""
    buffer = io.BytesIO()
    Image.fromarray(image_hwc).save(buffer, "WEBP", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
