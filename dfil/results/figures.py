"""Figures: functions that take data and return a Figure, in one style, and one way to save them.

No function reads a file or leaves anything in pyplot: a Figure that nobody holds is gone. In a
notebook `%matplotlib inline` shows the Figure that a cell ends with. Sizes are inches of paper:
7.2 is a full page width, and no figure is taller than TALLEST, which a notebook shows in one piece.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps, rcParams, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from dfil.faces.boxes import runs as stretches
from dfil.models import Sampling
from dfil.system.errors import RunError
from dfil.system.files import atomic
from dfil.train.snippets import snippet_starts

STYLE = Path(__file__).with_suffix(".mplstyle")
TALLEST = 5.8  # 647 pixels of a notebook page
# one colour per kind of video in all figures (Okabe and Ito 2008)
COLOURS = {"real": "#555555", "Deepfakes": "#0072B2", "Face2Face": "#D55E00", "FaceSwap": "#009E73"}
COLOURS |= {"NeuralTextures": "#CC79A7"}
OTHER = "#E69F00"  # a manipulation that has no colour of its own
MARKERS = {"Deepfakes": "o", "Face2Face": "s", "FaceSwap": "^", "NeuralTextures": "D"}
# all others in grey, or where there are few in a colour of their own
METHODS = {"dil": "#0072B2", "resnet50": "#D55E00", "stil": "#009E73"}
OTHERS = "#CC79A7", "#000000", "#56B4E9"  # rows beside METHODS in figures of few curves
GREY, FORGED = "#8C8C8C", "#E60000"
TIGHT = {"w_pad": 0.02, "h_pad": 0.02, "wspace": 0.01, "hspace": 0.01}
SYNTHETIC = "synthetic data"
A_LINE = 15  # letters of a title that an inch has room for


def _styled(function: Callable) -> Callable:
    @wraps(function)
    def inside(*args, **kwargs):
        with style.context(STYLE):
            return function(*args, **kwargs)

    return inside


@_styled
def save(
    fig: Figure, folder: str | Path, key: str, title: str, description: str, synthetic
) -> Path:
    """Write `<folder>/<key>.png` and `.pdf`, each in one step, and return the PNG's path.

    The report takes title and description, which go into the files, as caption and alternative
    text. Raises RunError if `synthetic` is set and no text in the figure says "synthetic".
    """
    visible = " ".join(text.get_text() for text in fig.findobj(Text))
    if synthetic and "synthetic" not in visible.lower():
        what_now = "draw it with synthetic=True or put the word into its title"
        raise RunError(f"figure {key} shows synthetic data and does not say so: {what_now}")
    title = titled(title, synthetic)
    said = {  # a PDF without its date has the same bytes for the same figure
        "png": {"Title": title, "Description": description},
        "pdf": {"Title": title, "Subject": description, "CreationDate": None},
    }
    for kind, metadata in said.items():
        with atomic(Path(folder) / f"{key}.{kind}") as temporary:
            fig.savefig(temporary, format=kind, metadata=metadata)
    return Path(folder) / f"{key}.png"


def titled(title: str, synthetic: bool) -> str:
    """The title with a word on the data where they are not real."""
    return f"{title} ({SYNTHETIC})" if synthetic and "synthetic" not in title.lower() else title


@_styled
def local_inconsistency(
    clips_thwc: Mapping[str, np.ndarray], *, first: int = 0, frames: int = 4,
    lines: Mapping[str, float] | None = None, ratios: Mapping[str, float] | None = None,
    limit: float = 40.0, synthetic: bool,
) -> Figure:  # fmt: skip
    """The paper's Figure 1: how unevenly one snippet changes, a row per kind of video.

    clips_thwc: uint8 RGB (S, H, W, 3) per kind ("real", "Deepfakes", ...): S consecutive frames of
    one target cut by one box. first, frames: the snippet. Beside its frames stand the signed second
    differences x[t+1] - 2 x[t] + x[t-1] of its inner frames in grey levels, cut off at +- limit,
    and for each of `lines` (name -> height as a share of H) that row of pixels over all S frames,
    time downwards, the snippet between the ticks. ratios: numbers written under the names.
    Raises RunError if the clips differ in shape or are shorter than the snippet.
    """
    shapes = {clip.shape for clip in clips_thwc.values()}
    if len(shapes) != 1 or first < 0 or len(next(iter(clips_thwc.values()))) < first + frames:
        needs = f"clips of one shape with at least {first + frames} frames, not {sorted(shapes)}"
        raise RunError(f"local_inconsistency needs {needs}")
    lines = lines or {"upper line": 0.38, "lower line": 0.72}
    shown, inner = range(first, first + frames), range(first + 1, first + frames - 1)
    over_time = frames + len(inner)  # the first of the columns that have time as their axis
    columns = over_time + len(lines)
    title = "What changes between the neighbouring frames of a snippet: one target, real and forged"
    fig = _figure(7.2, 0.98 * 7.2 / columns * len(clips_thwc) + 0.75, title, synthetic, **TIGHT)
    axes = fig.subplots(len(clips_thwc), columns, squeeze=False)
    for row, (name, clip_thwc) in zip(axes, clips_thwc.items(), strict=True):
        grey_thw = clip_thwc.astype(np.float32).mean(-1)
        height = grey_thw.shape[1]
        for ax, t in zip(row, shown, strict=False):
            ax.imshow(clip_thwc[t], interpolation="antialiased")
        for ax, t in zip(row[frames:], inner, strict=False):
            second_hw = grey_thw[t + 1] - 2 * grey_thw[t] + grey_thw[t - 1]
            signed = ax.imshow(second_hw, "RdBu_r", vmin=-limit, vmax=limit)
        for ax, share in zip(row[over_time:], lines.values(), strict=True):
            row[0].axhline(share * height, color="white", linewidth=0.7, linestyle=(0, (2, 2)))
            ax.imshow(grey_thw[:, int(share * height)], "gray", vmin=0, vmax=255, aspect="auto")
            ax.set_box_aspect(1)
        label = name if ratios is None else f"{name}\nratio {ratios[name]:.2f}"
        row[0].set_ylabel(label, color=COLOURS.get(name, OTHER), fontsize=7)
    _bare(axes.flat)
    for ax in axes[:, over_time:].flat:
        ax.set_yticks([first - 0.5, first + frames - 0.5], ["", ""])
        ax.tick_params(length=2, pad=0)
    heads = [f"frame {t}" for t in shown] + [f"2nd difference\nat {t}" for t in inner]
    _heads(axes[0], heads + [f"{name}\nover time" for name in lines])
    _bar(fig, signed, axes[-1, frames:over_time], orientation="horizontal", aspect=25, pad=0.02,
         label="grey levels")  # fmt: skip
    return fig


@_styled
def gap_curves(panels: Mapping[str, pd.DataFrame], *, synthetic: bool) -> Figure:
    """AUC of the model-free statistic against the distance of the compared frames.

    panels: name -> table in long form (dfil.results.tables.build) with the rows "gap 1", "gap 2",
    ... and a column per manipulation: a panel per table, a curve per manipulation.
    """
    title = "Real against fake by the ratio of differences alone, nothing trained"
    fig = _figure(0.9 + 3.1 * len(panels), 2.9, title, synthetic)
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (name, df) in zip(axes, panels.items(), strict=True):
        gaps = df["row"].str.removeprefix("gap ").astype(int)
        _curves(ax, df.assign(dose=gaps), "column", COLOURS, MARKERS)
        ax.set(xlabel="distance of the compared frames", ylabel="AUC, real against fake")
        ax.set_title(f"{name}, n = {_span(df['n_videos'])} videos per manipulation")
    axes[0].legend(loc="lower left")
    return fig


@_styled
def dose_curves(
    panels: Mapping[str, pd.DataFrame], xlabels: Mapping[str, str],
    marks: Mapping[str, Mapping[str, float]], *, title: str, synthetic: bool,
) -> Figure:  # fmt: skip
    """AUC against several doses, a panel each, a curve per detector.

    panels: by dose the lines of a long table with the further columns dose and, if there is one,
    ratio, which stand under each other at the ticks. marks: by panel vertical lines, name -> place
    between the ticks.
    """
    lines = -(-len(panels) // 2)
    fig = _figure(7.2, 2.35 * lines + 0.8, title, synthetic)
    axes = list(fig.subplots(lines, 2, sharey=True, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    rows = dict.fromkeys(row for df in panels.values() for row in df["row"])
    colours = dict(zip([row for row in rows if row not in METHODS], OTHERS, strict=False)) | METHODS
    for ax, (name, df) in zip(axes, panels.items(), strict=False):
        _curves(ax, df, "row", colours, {})
        if "ratio" in df:
            ratio = df.groupby("dose")["ratio"].first()
            ax.set_xticks(range(len(ratio)), [f"{dose:g}\n{r:.2f}" for dose, r in ratio.items()])
        ax.set(xlabel=xlabels[name], ylabel="AUC")
        for text, x in marks.get(name, {}).items():
            ax.axvline(x, color="0.4", linewidth=0.8, linestyle="--")
            ax.text(x, 1.03, text, ha="center", color="0.3", fontsize=6.5)
    shown = axes[0].get_legend_handles_labels()
    fig.legend(*shown, loc="outside lower center", ncols=5)
    return fig


def _curves(
    ax: Axes, df: pd.DataFrame, line: str, colours: Mapping[str, str], markers: Mapping[str, str]
) -> None:
    """Filled cells against their column `dose` at equal distances: a curve per value of `line`.

    The 95 % intervals are moved apart sideways so that all can be seen.
    """
    df = df[df["ours"].notna()]
    doses, names = sorted(df["dose"].unique()), list(dict.fromkeys(df[line]))
    sideways = {name: 0.07 * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}
    df = df.assign(at=df["dose"].map(doses.index) + df[line].map(sideways))
    ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    look = {name: colours.get(name, OTHER) for name in names}
    for name, part in df.groupby(line, sort=False):
        ax.vlines(part["at"], part["ci_low"], part["ci_high"], colors=look[name], linewidth=0.8)
        sns.lineplot(part, x="at", y="ours", color=look[name], marker=markers.get(name, "o"),
                     label=name, legend=False, ax=ax)  # fmt: skip
    ax.set_xticks(range(len(doses)), [f"{dose:g}" for dose in doses])
    ax.set_ylim(top=1.02)


@_styled
def ratio_histograms(ratios: pd.DataFrame, gaps: Sequence[int] = (1, 4), *, synthetic) -> Figure:
    """How the statistic is spread over real and fake videos: a panel per gap and manipulation.

    ratios: a row per video with label (1 = fake), manipulation, and a column per gap (a number).
    """
    real = ratios[ratios["label"] == 0]
    kinds = list(dict.fromkeys(ratios.loc[ratios["label"] == 1, "manipulation"]))
    title = "The ratio of second to first differences, per video"
    fig = _figure(7.2, 1.3 * len(gaps) + 0.7, title, synthetic)
    axes = fig.subplots(len(gaps), len(kinds), sharex="row", sharey="row", squeeze=False)
    for row, gap in zip(axes, gaps, strict=True):
        edges = np.histogram_bin_edges(ratios[gap].dropna(), bins=20)
        for ax, kind in zip(row, kinds, strict=True):
            fake = ratios[(ratios["label"] == 1) & (ratios["manipulation"] == kind)]
            values = {f"real ({len(real)})": real[gap], f"{kind} ({len(fake)})": fake[gap]}
            look = dict(zip(values, (COLOURS["real"], COLOURS.get(kind, OTHER)), strict=True))
            sns.histplot(values, bins=edges, palette=look, alpha=0.45, linewidth=0.4, ax=ax)
            ax.set(ylabel=f"gap {gap}\nvideos")
            ax.set_xlabel("ratio of differences" if gap == gaps[-1] else "")
            ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            sns.move_legend(ax, "lower center", bbox_to_anchor=(0.5, 0.97), borderpad=0)
            ax.get_legend().set_visible(gap == gaps[0])
            ax.label_outer()
    return fig


@_styled
def maps(
    rows: Mapping[str, Sequence[np.ndarray]], heads: Sequence[str] = (), *, title: str,
    signed: bool = False, limit: float | None = None, shared: bool = True,
    aspect: str | float = "equal", height: float = 1.0, width: float | None = None,
    bar: bool = True, xlabel: str = "", ylabel: str = "", synthetic: bool,
) -> Figure:  # fmt: skip
    """Heat maps in a grid: a named row per entry of `rows`, a headed column per map.

    signed: diverging colours, white at zero; otherwise from the lowest value to the highest.
    shared: one scale and colour bar for all rows; otherwise one per row, so that rows of different
    units can stand together. limit: cut the shared signed scale off at +- limit. aspect: "equal"
    for square pixels, "auto" to fill the panel. height, width: of a panel in inches; width None
    makes the panels of an "equal" grid as wide as their maps ask.
    """
    arrays = {name: [np.asarray(a, np.float64) for a in row] for name, row in rows.items()}
    every = [array for row in arrays.values() for array in row]
    columns = max(map(len, arrays.values()))
    width = width or height * every[0].shape[1] / every[0].shape[0]
    size = columns * width + (1.1 if bar else 0.5), len(arrays) * height + 0.65
    fig = _figure(*size, title, synthetic, w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    axes = fig.subplots(len(arrays), columns, squeeze=False)
    everything = _limits(every, signed) if limit is None else (-limit, limit)
    for line, (name, row) in zip(axes, arrays.items(), strict=True):
        low, high = everything if shared else _limits(row, signed)
        for ax, array in zip(line, row, strict=False):
            _heat(ax, array, vmin=low, vmax=high, cmap="RdBu_r" if signed else "viridis")
            ax.set_aspect(aspect)
        for ax in line[len(row) :]:
            ax.set_visible(False)
        line[0].set_ylabel(f"{name}\n{ylabel}" if ylabel else name, fontsize=7)
        if bar and not shared:
            _bar(fig, line[0].collections[0], line, aspect=15)
    if bar and shared:
        _bar(fig, axes[0, 0].collections[0], axes.flat, aspect=15 * len(arrays))
    for ax in axes[-1]:
        ax.set_xlabel(xlabel, fontsize=7)
    _heads(axes[0], heads)
    return fig


@_styled
def strips(
    rows: Mapping[str, np.ndarray], heads: Sequence[Sequence[str]] = (), *, title: str,
    height: float = 1.0, synthetic: bool,
) -> Figure:  # fmt: skip
    """Frames side by side: name -> uint8 RGB (T, H, W, 3), a row per clip; heads: captions."""
    columns = max(map(len, rows.values()))
    size = columns * height + 0.4, len(rows) * (height + 0.2) + 0.35
    fig = _figure(*size, title, synthetic, **TIGHT)
    axes = fig.subplots(len(rows), columns, squeeze=False)
    _bare(axes.flat)
    for i, (line, (name, clip_thwc)) in enumerate(zip(axes, rows.items(), strict=True)):
        for ax, frame_hwc in zip(line, clip_thwc, strict=False):
            ax.imshow(frame_hwc, interpolation="antialiased")
        for ax in line[len(clip_thwc) :]:
            ax.set_visible(False)
        _heads(line, heads[i] if i < len(heads) else ())
        line[0].set_ylabel(name, fontsize=7)
    return fig


@_styled
def histories(runs: Mapping[str, pd.DataFrame], *, title: str, synthetic: bool) -> Figure:
    """Training loss and validation AUC against the clips seen; runs: name -> history.

    Runs that differ in their seed alone ("dil, seed 0", or keys of the run store) share a colour.
    """
    rows = {
        n: n.rpartition("-")[0] if n.count("-") > 2 else n.partition(", seed ")[0] for n in runs
    }
    colours, fig = _palette(rows.values()), _figure(7.2, 2.8, title, synthetic)
    shown = {"train_loss": "training loss", "val_auc": "validation AUC"}
    for ax, (column, what) in zip(fig.subplots(1, 2), shown.items(), strict=True):
        for name, history in runs.items():
            sns.lineplot(history, x="clips", y=column, color=colours[rows[name]], marker="o",
                         markersize=5, label=rows[name], legend=False, ax=ax)  # fmt: skip
        ax.set(xlabel="clips seen in training", ylabel=what)
    ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in colours}
    if lines:
        fig.legend(lines.values(), lines, loc="outside lower center", ncols=min(4, len(lines)))
    return fig


@_styled
def accuracies(df: pd.DataFrame, *, title: str, synthetic: bool) -> Figure:
    """Filled cells of a table in long form with their 95 % intervals: a panel per column.

    DIL, the frame baseline and STIL have a colour, all other rows are grey.
    """
    columns, rows = list(dict.fromkeys(df["column"])), list(dict.fromkeys(df["row"]))
    counted = f", n = {_span(df['n_videos'])} videos a cell" if rows else ": no cell was run"
    lines, wide = -(-len(columns) // 4) or 1, min(4, len(columns)) or 1
    height = lines * (0.16 * len(rows) + 0.5) + 0.4
    fig = _figure(1.0 + 1.55 * max(2, wide), height, title + counted, synthetic)
    axes = fig.subplots(lines, wide, sharex=True, sharey=True, squeeze=False)
    colours = {row: METHODS.get(row, GREY) for row in rows}
    for ax, (column, part) in zip(axes.flat, df.groupby("column", sort=False), strict=False):
        y, look = part["row"].map(rows.index), part["row"].map(colours)
        ax.axvline(0.5, color="0.6", linewidth=0.8, linestyle=":")
        ax.hlines(y, part["ci_low"], part["ci_high"], colors=look, linewidth=1)
        sns.scatterplot(x=part["ours"], y=y, hue=part["row"], palette=colours, s=14, legend=False,
                        linewidth=0, ax=ax)  # fmt: skip
        ax.set(title=column, xlabel="", ylabel="")
    for ax in axes.flat[len(columns) :]:
        ax.set_axis_off()
    axes[0, 0].set_yticks(range(len(rows)), rows)
    axes[0, 0].set_ylim(len(rows) - 0.4, -0.6)
    fig.supxlabel("AUC" if set(df["metric"]) == {"auc"} else "accuracy", fontsize="medium")
    return fig


@_styled
def scores(df: pd.DataFrame, *, title: str, synthetic: bool) -> Figure:
    """Every video's probability of being forged, real videos above forged ones, a line per row.

    df: a row per detector and video with the columns row, label (1 = fake), score.
    """
    rows, jitter = list(dict.fromkeys(df["row"])), np.random.default_rng(0)  # the same every time
    fig = _figure(6.0, 0.3 * len(rows) + 1.0, title, synthetic)
    ax = fig.subplots()
    spread = 0.36 * df["label"] - 0.18 + jitter.uniform(-0.1, 0.1, len(df))
    shown = df.assign(at=df["row"].map(rows.index) + spread)
    shown["kind"] = np.where(df["label"] == 1, "forged", "real")
    look = {"real": COLOURS["real"], "forged": COLOURS["Deepfakes"]}
    sns.scatterplot(shown, x="score", y="at", hue="kind", palette=look, s=8, alpha=0.7,
                    linewidth=0, ax=ax)  # fmt: skip
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel="probability of being forged", ylabel="", xlim=(-0.02, 1.02))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    sns.move_legend(ax, "lower right", bbox_to_anchor=(1, 1), ncols=2, title=None, borderpad=0)
    return fig


@_styled
def timelines(
    scores: Mapping[str, pd.DataFrame], truth: Mapping[str, np.ndarray], *, title: str, synthetic
) -> Figure:
    """Logits of the snippets along videos, a panel per video of `truth` (bool per frame).

    scores: by detector, from dfil.explain.frame_level.snippet_scores. Each detector's logits are
    shown less their mean in the video: what matters is whether a curve rises inside the grey, which
    are the forged frames.
    """
    lines = (len(truth) + 1) // 2
    fig = _figure(7.2, 1.2 + 1.3 * lines, title, synthetic)
    axes = fig.subplots(lines, 2, sharex=True, squeeze=False)
    colours = _palette(scores)
    for ax, (name, forged_t) in zip(axes.flat, truth.items(), strict=False):
        frames = np.flatnonzero(forged_t)
        for first, count in stretches(frames):
            start = frames[first] - 0.5
            ax.axvspan(start, start + count, color="0.85", linewidth=0)
        for row, df in scores.items():
            part = df[df["video_id"] == name]
            middle = (part["first_frame"] + part["last_frame"]) / 2
            rise = part["logit"] - part["logit"].mean()
            sns.lineplot(x=middle, y=rise, marker="o", markersize=3, color=colours[row], label=row,
                         legend=False, ax=ax)  # fmt: skip
        ax.set(xlim=(-0.5, len(forged_t) - 0.5), ylabel="", xlabel="")
    for ax in axes[-1]:
        ax.set_xlabel("frame")
    for ax in axes.flat[len(truth) :]:
        ax.set_axis_off()
    fig.supylabel("logit less its mean", fontsize="small")
    if scores:
        fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


@_styled
def along(result: Mapping, *, title: str, synthetic: bool) -> Figure:
    """The score of every snippet of one's own video along time, a line per person; grey where
    nobody's face was found. result: of dfil.train.own_video.score_videos."""
    fig = _figure(7.2, 2.4, title, synthetic)
    ax = fig.subplots()
    for first, last in result["no_face"]:
        ax.axvspan(first, last, color="0.85", linewidth=0)
    ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    for number, person in enumerate(result["people"], 1):
        df = pd.DataFrame(person["snippets"])
        middle = (df["first_second"] + df["last_second"]) / 2
        ax.plot(middle, df["score"], marker="o", markersize=4, label=f"person {number}")
    limits = {"xlim": (0, result["seconds"]), "ylim": (-0.03, 1.03)}
    ax.set(xlabel="seconds", ylabel="score", **limits)
    if len(result["people"]) <= 6:
        ax.legend()
    return fig


@_styled
def frames_seen(samplings: Mapping[str, Sampling], frames: int = 120) -> Figure:
    """The frames that methods see of a test video: neighbours in one snippet are joined."""
    fig = _figure(7.2, 0.45 * len(samplings) + 0.5)
    ax = fig.subplots()
    look = {"marker": "o", "markersize": 3, "color": COLOURS["Deepfakes"], "alpha": 0.7}
    for y, how in enumerate(samplings.values()):
        ax.plot(range(frames), [y] * frames, ".", color="0.85", markersize=2)
        for first in snippet_starts([(0, frames)], how.test, how.frames, how.stride):
            ax.plot(first + how.stride * np.arange(how.frames), [y] * how.frames, **look)
    ax.set_yticks(range(len(samplings)), samplings)
    ax.set(xlabel="frame of the video", ylim=(len(samplings) - 0.5, -0.5))
    return fig


@_styled
def activations(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray | None, Mapping[str, np.ndarray]]], *,
    title: str, synthetic: bool,
) -> Figure:  # fmt: skip
    """The paper's Figures 3 and 4: per kind of forgery one snippet, and maps laid over its frames.

    groups: heading -> (frames uint8 RGB (T, H, W, 3), forged masks bool (T, H, W) or None, maps by
    name, each (T, H, W) >= 0), two by two. The outline on the frames is the forged region's. A
    map's row has one scale, from zero to what one pixel in 200 of this snippet exceeds, so that
    frames can be compared with each other and rows cannot.
    """
    count = max(len(frames) for frames, _, _ in groups.values())
    names = ["frames", *next(iter(groups.values()))[2]]
    lines, panel = -(-len(groups) // 2), 7.2 / (2 * count + 0.7)
    panel = min(panel, (TALLEST - 0.66 - 0.26 * lines) / (lines * len(names)))
    size = panel * (2 * count + 0.7), lines * (len(names) * panel + 0.26) + 0.66
    fig = _figure(*size, title, synthetic, w_pad=0.012, h_pad=0.02, wspace=0, hspace=0)
    below = fig.subfigures(2, 1, height_ratios=[1, 0.3 / (size[1] - 0.3)], hspace=0)
    parts = below[0].subfigures(lines, 2, squeeze=False, wspace=0.02).flat
    for i, (part, (head, group)) in enumerate(zip(parts, groups.items(), strict=False)):
        frames_thwc, masks_thw, found = group
        axes = part.subplots(len(names), count, squeeze=False)
        _bare(axes.flat)
        for t, frame_hwc in enumerate(frames_thwc):
            axes[0, t].imshow(frame_hwc, interpolation="antialiased")
            if masks_thw is not None and masks_thw[t].any():
                for colour, width in (("black", 1.8), ("white", 0.8)):
                    axes[0, t].contour(masks_thw[t], [0.5], colors=colour, linewidths=width)
            for ax, map_thw in zip(axes[1:, t], found.values(), strict=True):
                highest = np.quantile(map_thw, 0.995) or map_thw.max() or 1.0
                heat_hwc = _overlay(frame_hwc, np.clip(map_thw[t] / highest, 0, 1))
                ax.imshow(heat_hwc, interpolation="antialiased")
        for ax, name in zip(axes[:, 0], names, strict=True):
            ax.set_ylabel(name if i % 2 == 0 else " ", fontsize=6.5)  # both sides equally wide
        part.suptitle(head, fontsize=7.5, color=COLOURS.get(head.split(",")[0], OTHER))
    ax = below[1].subplots()
    ramp_hwc = _overlay(np.full((1, 256, 3), 128), np.linspace(0, 1, 256)[None])
    ax.imshow(ramp_hwc, aspect="auto", extent=(0, 1, 0, 1))
    ax.set(yticks=[], xticks=[0, 0.5, 1], xticklabels=["0", "half", "high"])
    ax.set_position([0.36, 0.62, 0.28, 0.28])
    ax.tick_params(labelsize=6.5, length=2)
    return fig


def _overlay(frame_hwc: np.ndarray, heat_hw: np.ndarray) -> np.ndarray:
    """A map (H, W) in 0..1 over the grey frame (H, W, 3); where it is strong, less of the frame."""
    grey = np.repeat(frame_hwc.mean(-1, keepdims=True) / 255, 3, -1)
    weight = 0.1 + 0.65 * heat_hw[..., None]
    return (1 - weight) * grey + weight * colormaps["inferno"](heat_hw)[..., :3]


@_styled
def ut_map(clips: Mapping[str, Mapping[str, np.ndarray]], *, title: str, synthetic: bool) -> Figure:
    """The paper's Figure 5: a clip's snippets by frames, the U-T map, the model's probabilities.

    clips: heading -> {"frames": uint8 RGB (U, T, H, W, 3), "forged": bool (U, T) or None where
    nobody knows, "map": (U, T), "fake": probability of fake per frame (U, T)}. Forged squares have
    a red frame. The number in a square is what its colour shows; every U-T map has its own scale.
    """
    u, t = next(iter(clips.values()))["map"].shape
    cell = (7.2 / len(clips) - 0.5) / (3 * t)
    fig = _figure(7.2, u * cell + 1.0, title, synthetic, **TIGHT | {"hspace": 0})
    parts = fig.subfigures(1, len(clips), squeeze=False)[0]
    for part, (head, clip) in zip(parts, clips.items(), strict=True):
        axes = part.subplots(1, 3)
        size_h, size_w = clip["frames"].shape[2:4]
        picture = clip["frames"].transpose(0, 2, 1, 3, 4).reshape(u * size_h, t * size_w, 3)
        axes[0].imshow(picture, extent=(0, t, u, 0), interpolation="antialiased")
        numbers = {"annot": True, "annot_kws": {"fontsize": 5}}
        _heat(axes[1], clip["map"], cmap="viridis", fmt=".3f", **numbers)
        _heat(axes[2], clip["fake"], cmap="cividis", vmin=0, vmax=1, fmt=".2f", **numbers)
        for ax, name in zip(axes, ("frames", "U–T map", "probability of fake"), strict=True):
            for i, j in np.argwhere(clip["forged"]) if clip["forged"] is not None else ():
                square = (j + 0.04, i + 0.04), 0.92, 0.92
                ax.add_patch(Rectangle(*square, fill=False, edgecolor=FORGED, linewidth=1.2))
            ax.set_aspect("equal")
            ax.set_title(name, fontsize=7)
            ax.set_xticks(np.arange(t) + 0.5, range(1, t + 1))
            ax.set_yticks(np.arange(u) + 0.5, range(1, u + 1) if ax is axes[0] else [""] * u)
            ax.tick_params(length=0, labelsize=6)
            ax.spines[:].set_visible(False)
        axes[0].set_ylabel("snippet", fontsize=6.5)
        axes[1].set_xlabel("frame of the snippet", fontsize=6.5)
        part.suptitle(head, fontsize=7.5)
    return fig


def _figure(width: float, height: float, title="", synthetic=False, **pads: float) -> Figure:
    said = textwrap.fill(titled(title, synthetic), int(A_LINE * width)) if title else ""
    fig = Figure(figsize=(width, min(height + 0.15 * said.count("\n"), TALLEST)))
    fig.get_layout_engine().set(**pads)
    if said:
        fig.suptitle(said)
    return fig


def _palette(names: Iterable[str]) -> dict[str, str]:
    """A colour per name; where there are more names than colours, only METHODS keep theirs."""
    names, colours = list(dict.fromkeys(names)), rcParams["axes.prop_cycle"].by_key()["color"]
    if len(names) > len(colours):
        return {name: METHODS.get(name.split("-")[0], GREY) for name in names}
    return dict(zip(names, colours, strict=False))


def _heat(ax: Axes, values_hw: np.ndarray, **look) -> None:
    look |= {"cbar": False, "xticklabels": False, "yticklabels": False, "rasterized": True}
    sns.heatmap(values_hw, ax=ax, **look)


def _limits(arrays: Sequence[np.ndarray], signed: bool) -> tuple[float, float]:
    low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bar(fig: Figure, shown, axes: Iterable[Axes], pad: float = 0.01, **look) -> None:
    bar = fig.colorbar(shown, ax=list(axes), shrink=0.9, pad=pad, **look)
    bar.ax.tick_params(labelsize=6.5, length=2)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.outline.set_linewidth(0.4)


def _bare(axes: Iterable[Axes]) -> None:
    """Pictures without ticks and frame."""
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)


def _heads(axes: Iterable[Axes], heads: Iterable[str]) -> None:
    for ax, head in zip(axes, heads, strict=False):
        ax.set_title(head, fontsize=7, pad=3)


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"
