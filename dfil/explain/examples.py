"""What notebooks 00 to 20 show: example clips, windows of videos, boxes in pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dfil.explain.inconsistency import difference_ratio, difference_ratios
from dfil.faces.boxes import square_union
from dfil.faces.store import CropStore
from dfil.synthetic import METHODS, SETTINGS, codec, render_target
from dfil.system.errors import DataError
from dfil.train.snippets import snippet_starts

ORANGE = "#E69F00"


def rendered(
    target: int,
    source: int,
    frames: int,
    size: int,
    methods: Sequence[str] = METHODS,
    tau: float | None = None,
) -> dict[str, np.ndarray]:
    """Synthetic clips of one target, real and by each manipulation: uint8 (T, size, size, 3).

    Setting `temporal-only`: no single frame carries a trace. Compressed as c23, and cut by one
    square around everything that any of them forges, times 1.3. tau: default the setting's.
    """
    setting = SETTINGS["temporal-only"]
    setting = setting if tau is None else replace(setting, tau=tau)
    clips = list(render_target(target, source, setting, frames=frames, methods=methods))
    ys, xs = np.nonzero(np.max([clip.masks_thw for clip in clips], axis=(0, 1)))
    box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])
    x, y, side = (max(0, int(v)) for v in square_union(box, 1.3))
    shown = {}
    for clip in clips:
        video = codec.decode(codec.encode(clip.frames_thwc, **setting.coding("c23")))
        cut = video[:, y : y + side, x : x + side]
        shown[clip.method] = np.stack([cv2.resize(frame, (size, size)) for frame in cut])
    return shown


def stored(store: CropStore, frames: int, size: int) -> dict[str, np.ndarray]:
    """As `rendered`, of the first test target whose real and forged videos are all in the store and
    have so many neighbouring frames in common. Raises DataError if there is none."""
    rows = store.index.query("split == 'test' and status == 'ok'")
    rows = rows[rows["compression"] == rows["compression"].min()]
    kinds = rows.groupby("target")["manipulation"].transform("nunique")
    whole = rows[kinds == rows["manipulation"].nunique()]
    for _, of_target in whole.groupby("target", sort=False):
        videos = of_target.drop_duplicates("manipulation").set_index("manipulation")["video_id"]
        first = set.intersection(*(_starts(store.open(video).runs, frames) for video in videos))
        if first and "real" in videos:
            names = ["real", *videos.index.drop("real")]
            shown = ((name, store.open(videos[name])) for name in names)
            return {name: crops.snippet(min(first), frames, size) for name, crops in shown}
    raise DataError(
        f"{store.folder}: no test target has a real video and one of each kind with {frames}"
        " neighbouring frames in common; add the videos that are missing"
    )


def _starts(runs: Sequence[tuple[int, int]], frames: int) -> set[int]:
    """First numbers of so many neighbouring frames."""
    return {first for start, n in runs for first in range(start, start + n - frames + 1)}


def one_target(store: CropStore, frames: int, size: int) -> dict[str, np.ndarray]:
    """The first test target, real and forged: rendered anew from built-in data, else `stored`."""
    if not store.meta["synthetic"]:
        return stored(store, min(frames, store.meta["reach"]), size)
    fakes = store.index.query("label == 1 and split == 'test'")["video_id"]
    target, source = map(int, fakes.iloc[0].split("/")[-1].split("_"))
    return rendered(target, source, frames, size)


def window_ratios(store: CropStore, video_id: str, gaps: Sequence[int], size: int) -> pd.Series:
    """A video's ratio of differences by gap, the mean over up to four windows of neighbours.

    A window has as many frames as the store can cut by one box. Empty where the video has no such.
    """
    crops, length = store.open(video_id), store.meta["reach"]
    if crops.longest[1] < length:
        return pd.Series(np.nan, gaps)
    starts = snippet_starts(crops.runs, min(4, max(1, crops.count // length)), length)
    windows = [crops.snippet(int(start), length, size) for start in starts]
    return pd.DataFrame([difference_ratios(window, gaps) for window in windows]).mean()


def jitter(store: CropStore, video_id: str, box: str, size: int) -> dict:
    """How much a video's crop changes from frame to frame, cut by one box or by one per frame."""
    crops = store.open(video_id)
    first, count = crops.longest
    clip = crops.snippet(first, min(store.meta["reach"], count), size, box=box)
    change = np.abs(np.diff(clip.astype(np.float32), axis=0)).mean()
    return {"box per": box, "mean |difference|": change, "r": difference_ratio(clip)}


def largest(found: Sequence[np.ndarray]) -> np.ndarray:
    """Of the boxes (n, 5) that a detector found in each frame the largest, (T, 4); nan for none."""
    none = np.full(4, np.nan)
    found = [max(n5, key=lambda box: box[2] - box[0])[:4] if len(n5) else none for n5 in found]
    return np.stack(found)


def box_steps(boxes_n4: np.ndarray) -> dict[str, float]:
    """How still a box is: pixels that an edge moves from frame to frame, and how uneven that is."""
    step = np.abs(np.diff(boxes_n4.astype(float), axis=0))
    change = np.abs(np.diff(boxes_n4.astype(float), 2, axis=0))
    steps = {"mean step": np.nanmean(step), "largest step": np.nanmax(step)}
    return steps | {"mean change of the step": np.nanmean(change)}


def draw_boxes(
    frame_hwc: np.ndarray, white_n4: np.ndarray, orange_n4: np.ndarray, title: str
) -> Figure:
    """Two kinds of boxes (x0, y0, x1, y1) over a frame."""
    fig = Figure(figsize=(3.4, 3.6), layout="constrained")
    ax = fig.subplots()
    ax.imshow(frame_hwc)
    for colour, boxes_n4 in (("white", white_n4), (ORANGE, orange_n4)):
        for x0, y0, x1, y1 in boxes_n4:
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=colour, lw=1.5))
    ax.set_title(title, fontsize=8)
    ax.set(xticks=[], yticks=[])
    return fig


def draw_edges(
    detected_n4: np.ndarray, followed_n4: np.ndarray, dots: Mapping[int, np.ndarray], kind: str
) -> Figure:
    """Each edge of a box over time: detected in every frame, followed, detected now and then."""
    fig = Figure(figsize=(9, 2.6), layout="constrained")
    axes = fig.subplots(1, 4, sharey=True)
    for k, (ax, name) in enumerate(zip(axes, ("left", "top", "right", "bottom"), strict=True)):
        middle = np.nanmedian(followed_n4[:, k])
        ax.plot(detected_n4[:, k] - middle, color="0.7", lw=1, drawstyle="steps-mid")
        ax.plot(followed_n4[:, k] - middle)
        ax.plot(list(dots), [box[k] - middle for box in dots.values()], "o", ms=4)
        ax.set(xlabel="frame", title=f"{name} edge")
    axes[0].set_ylabel("pixels from the median")
    fig.suptitle(f"Dots: detected. Line: followed. Grey: detected in every frame ({kind})")
    return fig


def draw_slices(clips: Mapping[str, np.ndarray], kind: str) -> Figure:
    """The row of pixels through the eyes over time, a panel per way of cutting the same frames."""
    fig = Figure(figsize=(8.5, 2.4), layout="constrained")
    axes = fig.subplots(1, len(clips), sharey=True, squeeze=False)
    for ax, (name, clip_thwc) in zip(axes[0], clips.items(), strict=True):
        row = clip_thwc.shape[1] * 2 // 5
        ax.imshow(clip_thwc[:, row], aspect="auto", interpolation="nearest")
        ax.set_title(f"{name}: r = {difference_ratio(clip_thwc):.2f}", fontsize=8)
        ax.set_xlabel("x in the crop")
    axes[0, 0].set_ylabel("frame")
    fig.suptitle(f"One row of pixels over time, real video ({kind})", fontsize=9)
    return fig


def draw_change(clips: Mapping[str, np.ndarray], frame: int, kind: str) -> Figure:
    """A row per clip: one frame, how it changes to the next, and how uneven that change is.

    clips: uint8 (T, H, W, 3) by name. frame: neither the first nor the last. Both differences are
    means over the colours, in grey levels, cut off at +- 40.
    """
    fig = Figure(figsize=(5.2, 1.75 * len(clips) + 0.3), layout="constrained")
    axes = fig.subplots(len(clips), 3, squeeze=False)
    heads = f"frame {frame}", "first difference", "second difference"
    for line, (name, clip_thwc) in zip(axes, clips.items(), strict=True):
        before, now, after = clip_thwc[frame - 1 : frame + 2].astype(np.float32).mean(-1)
        line[0].imshow(clip_thwc[frame])
        for ax, change in zip(line[1:], (after - now, after - 2 * now + before), strict=True):
            shown = ax.imshow(change, cmap="RdBu_r", vmin=-40, vmax=40)
        line[0].set_ylabel(name)
        fig.colorbar(shown, ax=line[2])
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, fontsize=8)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    fig.suptitle(f"From frame to frame ({kind})", fontsize=9)
    return fig


def draw_trembling(doses: Mapping[float, Mapping[str, np.ndarray]], tau: float) -> Figure:
    """The ratio of differences by how much of a forgery is drawn anew in every frame, and how
    unevenly the clips change at one such dose. doses: clips by name, real ones first, by tau."""
    fig = Figure(figsize=(7.2, 2.3), layout="constrained")
    *pictures, curve = fig.subplots(
        1, 1 + len(doses[tau]), width_ratios=[1] * len(doses[tau]) + [1.4]
    )
    for ax, (name, clip_thwc) in zip(pictures, doses[tau].items(), strict=True):
        change = np.diff(clip_thwc.astype(np.float32).mean(-1), n=2, axis=0)
        ax.imshow(change[len(change) // 2], cmap="RdBu_r", vmin=-40, vmax=40)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{name}, r = {difference_ratio(clip_thwc):.2f}", fontsize=8)
        ratios = [difference_ratio(clips[name]) for clips in doses.values()]
        curve.plot(list(doses), ratios, ".-", label=name)
    curve.axvline(tau, color="0.7", zorder=0)
    curve.set(xlabel=r"$\tau$", ylabel="r, gap 1")
    curve.legend(fontsize=7)
    fig.suptitle(rf"Second difference of one frame at $\tau$ = {tau:g} (synthetic)", fontsize=9)
    return fig
