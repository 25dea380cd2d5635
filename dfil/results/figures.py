"""Figures: functions that take data and return a Figure, one style file for all of them, and one way to save.

No function here reads a file or keeps pyplot's state: a Figure that nobody holds is gone. In a notebook, `%matplotlib inline` shows
the Figure a cell ends with. Widths are inches of paper; 7.2 is a full page width, 3.5 a column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps, rcParams, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from dfil.faces.boxes import runs
from dfil.models import Sampling
from dfil.system.errors import RunError
from dfil.system.files import atomic
from dfil.train.snippets import snippet_starts

STYLE = Path(__file__).with_suffix(".mplstyle")
COLOURS = {  # one colour per kind of video in all figures (Okabe and Ito 2008)
    "real": "#555555",
    "Deepfakes": "#0072B2",
    "Face2Face": "#D55E00",
    "FaceSwap": "#009E73",
    "NeuralTextures": "#CC79A7",
}
OTHER = "#E69F00"  # a manipulation that has no colour of its own
MARKERS = {"Deepfakes": "o", "Face2Face": "s", "FaceSwap": "^", "NeuralTextures": "D"}
SYNTHETIC = "synthetic data"


def _styled(function: Callable) -> Callable:
    @wraps(function)
    def inside(*args, **kwargs):
        with style.context(STYLE):
            return function(*args, **kwargs)

    return inside


@_styled
def save(
    fig: Figure, folder: str | Path, key: str, title: str, description: str, synthetic: bool
) -> Path:
    """Write `<folder>/<key>.png` and `.pdf`, each in one step, and return the PNG's path.

    title and description go into the files; the report takes them as caption and alternative text. On synthetic data both the
    caption and the picture itself must say so: the title gets the words if it lacks them.
    Raises RunError if `synthetic` is set and no text in the figure says "synthetic".
    """
    visible = " ".join(text.get_text() for text in fig.findobj(Text))
    if synthetic and "synthetic" not in visible.lower():
        raise RunError(
            f"figure {key} shows synthetic data and does not say so: draw it with synthetic=True or put the word into its title"
        )
    title = _said(title, synthetic)
    png, pdf = (Path(folder) / f"{key}.{kind}" for kind in ("png", "pdf"))
    with atomic(png) as temporary:
        fig.savefig(temporary, format="png", metadata={"Title": title, "Description": description})
    with atomic(pdf) as temporary:  # without its date the same figure gives the same bytes
        fig.savefig(
            temporary,
            format="pdf",
            metadata={"Title": title, "Subject": description, "CreationDate": None},
        )
    return png


@_styled
def local_inconsistency(
    clips_thwc: Mapping[str, np.ndarray],
    *,
    first: int = 0,
    frames: int = 4,
    lines: Mapping[str, float] | None = None,
    ratios: Mapping[str, float] | None = None,
    limit: float = 40.0,
    synthetic: bool,
) -> Figure:
    """The paper's Figure 1: one snippet per kind of video, and how unevenly it changes. One row per clip, all on the same scales.

    clips_thwc: uint8 RGB (S, H, W, 3) per kind of video ("real", "Deepfakes", ...), S consecutive frames of one target cut by one box.
    first, frames: the snippet to show. Beside its frames: the signed second differences x[t+1] - 2 x[t] + x[t-1] of its inner frames in
    grey levels, cut off at +- limit, and for each of `lines` (name -> height as a share of H, marked on the first frame) that row of
    pixels over all S frames, time downwards, the snippet between the ticks.
    ratios: numbers written under the names, `difference_ratio` for example.
    Raises RunError if the clips differ in shape or are shorter than the snippet.
    """
    shapes = {clip.shape for clip in clips_thwc.values()}
    if len(shapes) != 1 or first < 0 or len(next(iter(clips_thwc.values()))) < first + frames:
        raise RunError(
            f"local_inconsistency needs clips of one shape with at least {first + frames} frames, not {sorted(shapes)}"
        )
    lines = {"upper line": 0.38, "lower line": 0.72} if lines is None else lines
    inner = range(first + 1, first + frames - 1)
    columns = frames + len(inner) + len(lines)
    fig = Figure(figsize=(7.2, 0.98 * 7.2 / columns * len(clips_thwc) + 0.75))
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = fig.subplots(len(clips_thwc), columns, squeeze=False)
    for row, (name, clip_thwc) in zip(axes, clips_thwc.items(), strict=True):
        grey_thw = clip_thwc.astype(np.float32).mean(-1)
        for ax, t in zip(row, range(first, first + frames), strict=False):
            ax.imshow(clip_thwc[t], interpolation="antialiased")
        for share in lines.values():
            row[0].axhline(
                share * grey_thw.shape[1], color="white", linewidth=0.7, linestyle=(0, (2, 2))
            )
        for ax, t in zip(row[frames:], inner, strict=False):
            second_hw = grey_thw[t + 1] - 2 * grey_thw[t] + grey_thw[t - 1]
            signed = ax.imshow(
                second_hw, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="antialiased"
            )
        for ax, share in zip(row[frames + len(inner) :], lines.values(), strict=True):
            ax.imshow(
                grey_thw[:, int(share * grey_thw.shape[1])],
                cmap="gray",
                vmin=0,
                vmax=255,
                aspect="auto",
            )
            ax.set_box_aspect(1)
        row[0].set_ylabel(
            name if ratios is None else f"{name}\nratio {ratios[name]:.2f}",
            color=COLOURS.get(name, OTHER),
            fontsize=7,
        )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax in axes[:, frames + len(inner) :].flat:
        ax.set_yticks([first - 0.5, first + frames - 0.5], ["", ""])
        ax.tick_params(length=2, pad=0)
    heads = [f"frame {t}" for t in range(first, first + frames)]
    heads += [f"2nd difference\nat {t}" for t in inner] + [f"{name}\nover time" for name in lines]
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, fontsize=7)
    bar = fig.colorbar(
        signed,
        ax=axes[-1, frames : frames + len(inner)],
        orientation="horizontal",
        shrink=0.8,
        pad=0.02,
        aspect=25,
    )
    bar.set_label("grey levels", fontsize=6.5)
    bar.ax.tick_params(labelsize=6.5, length=2)
    fig.suptitle(
        _said(
            "What changes between the neighbouring frames of a snippet: one target, real and forged",
            synthetic,
        )
    )
    return fig


@_styled
def gap_curves(panels: Mapping[str, pd.DataFrame], *, synthetic: bool) -> Figure:
    """AUC of the model-free statistic against the distance of the compared frames, one panel per table, one curve per manipulation.

    panels: name -> table in long form (dfil.results.tables.build) with the rows "gap 1", "gap 2", ... and a column per manipulation. The bars
    are the 95 % intervals, moved apart sideways so that all can be seen. The numbers of videos stand in the panels' titles.
    """
    fig = Figure(figsize=(0.9 + 3.1 * len(panels), 2.9))
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (name, df) in zip(axes, panels.items(), strict=True):
        df = df[df["ours"].notna()].assign(
            gap=lambda d: d["row"].str.removeprefix("gap ").astype(int)
        )
        gaps, kinds = sorted(df["gap"].unique()), list(dict.fromkeys(df["column"]))
        ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
        for i, kind in enumerate(kinds):
            curve = df[df["column"] == kind].sort_values("gap")
            x = np.array([gaps.index(gap) for gap in curve["gap"]]) + 0.07 * (
                i - (len(kinds) - 1) / 2
            )
            bars = [curve["ours"] - curve["ci_low"], curve["ci_high"] - curve["ours"]]
            look = {
                "color": COLOURS.get(kind, OTHER),
                "marker": MARKERS.get(kind, "o"),
                "label": kind,
            }
            ax.errorbar(
                x, curve["ours"], yerr=np.clip(bars, 0, None), elinewidth=0.8, capsize=2, **look
            )
        ax.set_xticks(range(len(gaps)), gaps)
        ax.set(
            xlabel="distance of the compared frames",
            title=f"{name}, n = {_span(df['n_videos'])} videos per manipulation",
        )
    axes[0].set(ylabel="AUC, real against fake")
    axes[0].set_ylim(top=1.02)
    axes[-1].text(axes[-1].get_xlim()[1], 0.5, " chance", va="center", color="0.4", fontsize=6.5)
    axes[0].legend(loc="lower left")
    fig.suptitle(
        _said("Real against fake by the ratio of differences alone, nothing trained", synthetic)
    )
    return fig


@_styled
def ratio_histograms(
    ratios: pd.DataFrame, gaps: Sequence[int] = (1, 4), *, synthetic: bool
) -> Figure:
    """How the statistic is spread over real and fake videos: a row of panels per gap, a panel per manipulation, reals in grey in each.

    ratios: a row per video with the columns label (1 = fake), manipulation, and one per gap, named by its number.
    """
    kinds = [kind for kind in dict.fromkeys(ratios.loc[ratios["label"] == 1, "manipulation"])]
    fig = Figure(figsize=(7.2, 1.3 * len(gaps) + 0.6))
    axes = fig.subplots(len(gaps), len(kinds), sharex="row", sharey="row", squeeze=False)
    for row, gap in zip(axes, gaps, strict=True):
        edges = np.histogram_bin_edges(ratios[gap].dropna(), bins=20)
        for ax, kind in zip(row, kinds, strict=True):
            real, fake = (
                ratios[ratios["label"] == 0],
                ratios[(ratios["label"] == 1) & (ratios["manipulation"] == kind)],
            )
            ax.hist(
                real[gap], edges, color=COLOURS["real"], alpha=0.45, label=f"real ({len(real)})"
            )
            ax.hist(
                fake[gap],
                edges,
                color=COLOURS.get(kind, OTHER),
                histtype="step",
                linewidth=1.3,
                label=f"{kind} ({len(fake)})",
            )
            ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        row[0].set_ylabel(f"gap {gap}\nvideos")
    for ax in axes[0]:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), borderpad=0, handlelength=1.2)
    for ax in axes[-1]:
        ax.set_xlabel("ratio of differences")
    fig.suptitle(_said("The ratio of second to first differences, per video", synthetic))
    return fig


@_styled
def maps(
    rows: Mapping[str, Sequence[np.ndarray]],
    heads: Sequence[str] = (),
    *,
    title: str,
    signed: bool = False,
    limit: float | None = None,
    shared: bool = True,
    aspect: str | float = "equal",
    height: float = 1.0,
    width: float | None = None,
    bar: bool = True,
    xlabel: str = "",
    ylabel: str = "",
    synthetic: bool,
) -> Figure:
    """Small two-dimensional maps in a grid: a named row per entry of `rows`, a headed column per map, one colour bar per scale.

    signed: diverging colours, white at zero; otherwise from the lowest value to the highest. shared: one scale for all rows; otherwise one
    per row, so that rows of different units can stand together. limit: cut the shared signed scale off at +- limit.
    aspect: "equal" for square pixels, "auto" to fill the panel.
    height, width: of one panel in inches; width None makes the panels of an "equal" grid as wide as their maps ask. bar: whether there is
    a colour bar.
    """
    arrays = {name: [np.asarray(array, np.float64) for array in row] for name, row in rows.items()}
    columns = max(map(len, arrays.values()))
    first_hw = next(iter(arrays.values()))[0].shape
    width = height * first_hw[1] / first_hw[0] if width is None else width
    fig = Figure(figsize=(columns * width + (1.1 if bar else 0.5), len(arrays) * height + 0.65))
    fig.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    axes = fig.subplots(len(arrays), columns, squeeze=False)
    everything = (
        _limits([array for row in arrays.values() for array in row], signed)
        if limit is None
        else (-limit, limit)
    )
    for line, (name, row) in zip(axes, arrays.items(), strict=True):
        low, high = everything if shared else _limits(row, signed)
        for ax, array in zip(line, row, strict=False):
            shown = ax.imshow(
                array, cmap="RdBu_r" if signed else "viridis", vmin=low, vmax=high, aspect=aspect
            )
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax in line[len(row) :]:
            ax.set_visible(False)
        line[0].set_ylabel(f"{name}\n{ylabel}" if ylabel else name, fontsize=7)
        if bar and not shared:
            _bar(fig, shown, list(line), 15)
    if bar and shared:
        _bar(fig, shown, list(axes.flat), 15 * len(arrays))
    for ax, head in zip(axes[0], heads, strict=False):
        ax.set_title(head, fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel, fontsize=7)
    fig.suptitle(_said(title, synthetic))
    return fig


@_styled
def strips(
    rows: Mapping[str, np.ndarray],
    heads: Sequence[Sequence[str]] = (),
    *,
    title: str,
    height: float = 1.0,
    synthetic: bool,
) -> Figure:
    """Frames side by side, one row per clip: name -> uint8 RGB (T, H, W, 3). heads: a caption per frame for each row."""
    columns = max(map(len, rows.values()))
    fig = Figure(figsize=(columns * height + 0.4, len(rows) * (height + 0.2) + 0.35))
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = fig.subplots(len(rows), columns, squeeze=False)
    for i, (line, (name, clip_thwc)) in enumerate(zip(axes, rows.items(), strict=True)):
        for ax in line:
            ax.set_axis_off()
        for t, (ax, frame_hwc) in enumerate(zip(line, clip_thwc, strict=False)):
            ax.imshow(frame_hwc, interpolation="antialiased")
            ax.set_title(heads[i][t] if i < len(heads) else "", fontsize=7, pad=2)
        line[0].text(
            -0.06,
            0.5,
            name,
            transform=line[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            fontsize=7,
        )
    fig.suptitle(_said(title, synthetic))
    return fig


@_styled
def histories(runs: Mapping[str, pd.DataFrame], *, title: str, synthetic: bool) -> Figure:
    """Training loss and validation AUC of several runs against the clips seen; runs: name -> history (dfil.train.loop.train).

    Runs that differ in their seed alone ("dil, seed 0", "dil, seed 1", or keys of the run store) share a colour.
    """
    fig = Figure(figsize=(7.2, 2.6))
    names = {
        name: name.rpartition("-")[0] if name.count("-") > 2 else name.partition(", seed ")[0]
        for name in runs
    }
    colours = dict(
        zip(
            dict.fromkeys(names.values()),
            cycle(rcParams["axes.prop_cycle"].by_key()["color"]),
            strict=False,
        )
    )
    for ax, column, label in zip(
        fig.subplots(1, 2),
        ("train_loss", "val_auc"),
        ("training loss", "validation AUC"),
        strict=True,
    ):
        for name, history in runs.items():
            ax.plot(
                history["clips"],
                history[column],
                marker=".",
                color=colours[names[name]],
                label=names[name],
            )
        ax.set(xlabel="clips seen in training", ylabel=label)
    ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    if runs:
        lines = {line.get_label(): line for line in ax.lines if line.get_label() in colours}
        fig.legend(lines.values(), lines, loc="outside lower center", ncols=min(4, len(lines)))
    fig.suptitle(_said(title, synthetic))
    return fig


@_styled
def accuracies(df: pd.DataFrame, *, title: str, synthetic: bool) -> Figure:
    """Filled cells of a table in long form as points with their 95 % intervals: a place per column, a colour per row."""
    fig = Figure(figsize=(7.2, 3.0))
    ax = fig.subplots()
    columns, rows = list(dict.fromkeys(df["column"])), list(dict.fromkeys(df["row"]))
    ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
    for i, row in enumerate(rows):
        part = df[df["row"] == row]
        x = np.array([columns.index(c) for c in part["column"]]) + min(0.18, 0.8 / len(rows)) * (
            i - (len(rows) - 1) / 2
        )
        bars = np.clip([part["ours"] - part["ci_low"], part["ci_high"] - part["ours"]], 0, None)
        ax.errorbar(
            x,
            part["ours"],
            yerr=bars,
            linestyle="",
            marker="os^D"[i // 7 % 4],
            markersize=4,
            elinewidth=0.8,
            capsize=2,
            label=row,
        )
    ax.set_xticks(range(len(columns)), columns)
    ax.set(ylabel="AUC" if set(df["metric"]) == {"auc"} else "accuracy", ylim=(None, 1.02))
    if rows:
        fig.legend(
            *ax.get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(rows))
        )
    fig.suptitle(
        _said(
            f"{title}, n = {_span(df['n_videos'])} videos a cell"
            if rows
            else f"{title}: no cell was run",
            synthetic,
        )
    )
    return fig


@_styled
def scores(df: pd.DataFrame, *, title: str, synthetic: bool) -> Figure:
    """Every video's probability of being forged, real videos above forged ones, a panel line per detector.

    df: a row per detector and video with the columns row, label (1 = fake), score.
    """
    rows = list(dict.fromkeys(df["row"]))
    fig = Figure(figsize=(5.4, 0.7 * len(rows) + 0.9))
    ax = fig.subplots()
    jitter = np.random.default_rng(0)
    for label, (kind, colour) in enumerate(
        (("real", COLOURS["real"]), ("forged", COLOURS["Deepfakes"]))
    ):
        part = df[df["label"] == label]
        y = (
            np.array([rows.index(r) for r in part["row"]])
            - 0.18
            + 0.36 * label
            + jitter.uniform(-0.1, 0.1, len(part))
        )
        ax.scatter(part["score"], y, s=9, color=colour, alpha=0.7, linewidths=0, label=kind)
    ax.set_yticks(range(len(rows)), rows)
    ax.invert_yaxis()
    ax.set(xlabel="probability of being forged", xlim=(-0.02, 1.02))
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right upper")
    fig.suptitle(_said(title, synthetic))
    return fig


@_styled
def timelines(
    scores: Mapping[str, pd.DataFrame],
    truth: Mapping[str, np.ndarray],
    *,
    title: str,
    synthetic: bool,
) -> Figure:
    """Logits of the snippets along videos, a panel per video of `truth` (bool per frame), its forged frames in grey.

    scores: by detector, as from dfil.explain.frame_level.snippet_scores. Each detector's logits are shown less their mean in the video: what
    matters is whether a curve rises inside the grey.
    """
    fig = Figure(figsize=(7.2, 1.0 + 1.3 * ((len(truth) + 1) // 2)))
    axes = fig.subplots((len(truth) + 1) // 2, 2, sharex=True, squeeze=False)
    for ax, (name, forged_t) in zip(axes.flat, truth.items(), strict=False):
        for first, count in runs(np.flatnonzero(forged_t)):
            start = np.flatnonzero(forged_t)[first]
            ax.axvspan(start - 0.5, start + count - 0.5, color="0.85", linewidth=0)
        for (row, df), colour in zip(scores.items(), COLOURS.values(), strict=False):
            part = df[df["video_id"] == name]
            middle = (part["first_frame"] + part["last_frame"]) / 2
            ax.plot(
                middle, part["logit"] - part["logit"].mean(), marker=".", color=colour, label=row
            )
        ax.set(xlim=(-0.5, len(forged_t) - 0.5))
    for ax in axes.flat[len(truth) :]:
        ax.axis("off")
    fig.supxlabel("frame", fontsize="small")
    fig.supylabel("logit less its mean", fontsize="small")
    if scores:
        fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    fig.suptitle(_said(title, synthetic))
    return fig


@_styled
def looks(samplings: Mapping[str, Sampling], frames: int = 120) -> Figure:
    """Which of a video's frames a method looks at in testing: a line per method, neighbours of one snippet joined."""
    fig = Figure(figsize=(7.2, 0.45 * len(samplings) + 0.5))
    ax = fig.subplots()
    for y, how in enumerate(samplings.values()):
        ax.plot(range(frames), [y] * frames, ".", color="0.85", markersize=2)
        for first in snippet_starts([(0, frames)], how.test, how.frames, how.stride):
            seen = first + how.stride * np.arange(how.frames)
            ax.plot(
                seen,
                [y] * len(seen),
                marker="o",
                markersize=3,
                linewidth=1.5,
                color=COLOURS["Deepfakes"],
                alpha=0.7,
            )
    ax.set_yticks(range(len(samplings)), samplings)
    ax.set(xlabel="frame of the video", ylim=(len(samplings) - 0.5, -0.5))
    ax.grid(False)
    return fig


def _limits(arrays: Sequence[np.ndarray], signed: bool) -> tuple[float, float]:
    low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bar(fig: Figure, shown, axes: list[Axes], aspect: float) -> None:
    bar = fig.colorbar(shown, ax=axes, shrink=0.9, aspect=aspect, pad=0.01)
    bar.ax.tick_params(labelsize=6.5, length=2)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.outline.set_linewidth(0.4)


def _said(title: str, synthetic: bool) -> str:
    """The title with a word on the data where they are not real."""
    return f"{title} ({SYNTHETIC})" if synthetic and "synthetic" not in title.lower() else title


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


@_styled
def activations(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray | None, Mapping[str, np.ndarray]]],
    *,
    title: str,
    synthetic: bool,
) -> Figure:
    """The paper's Figures 3 and 4: for each kind of forgery one snippet, and maps of where the detector looks laid over its frames.

    groups: heading -> (frames uint8 RGB (T, H, W, 3), forged masks bool (T, H, W) or None, maps by name, each (T, H, W) >= 0). The groups
    stand two by two. The outline on the frames is the forged region's. A map's row has one scale, from zero to what one pixel in 200 of
    this snippet exceeds, so that frames can be compared with each other and rows cannot.
    """
    count = max(len(frames) for frames, _, _ in groups.values())
    names = ["frames", *next(iter(groups.values()))[2]]
    lines = -(-len(groups) // 2)
    panel = 7.2 / (2 * count + 0.7)
    fig = Figure(figsize=(7.2, lines * (len(names) * panel + 0.26) + 0.66))
    fig.get_layout_engine().set(w_pad=0.012, h_pad=0.02, wspace=0, hspace=0)
    below = fig.subfigures(2, 1, height_ratios=[1, 0.3 / (fig.get_figheight() - 0.3)], hspace=0)
    parts = below[0].subfigures(lines, 2, squeeze=False, wspace=0.02)
    for i, (part, (head, (frames_thwc, masks_thw, maps))) in enumerate(
        zip(parts.flat, groups.items(), strict=False)
    ):
        axes = part.subplots(len(names), count, squeeze=False)
        for t, frame_hwc in enumerate(frames_thwc):
            axes[0, t].imshow(frame_hwc, interpolation="antialiased")
            if masks_thw is not None and masks_thw[t].any():
                for colour, width in (("black", 1.8), ("white", 0.8)):
                    axes[0, t].contour(masks_thw[t], [0.5], colors=colour, linewidths=width)
            for line, map_thw in zip(axes[1:, t], maps.values(), strict=True):
                highest = np.quantile(map_thw, 0.995) or map_thw.max() or 1.0
                line.imshow(
                    _overlay(frame_hwc, np.clip(map_thw[t] / highest, 0, 1)),
                    interpolation="antialiased",
                )
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for line, name in zip(
            axes, names, strict=True
        ):  # an empty label on the right keeps both sides equally wide
            line[0].set_ylabel(name if i % 2 == 0 else " ", fontsize=6.5)
        part.suptitle(head, fontsize=7.5, color=COLOURS.get(head.split(",")[0], OTHER))
    ax = below[1].subplots()
    ramp_hw, grey_hwc = np.linspace(0, 1, 256)[None], np.full((1, 256, 3), 128, np.uint8)
    ax.imshow(_overlay(grey_hwc, ramp_hw), aspect="auto", extent=(0, 1, 0, 1))
    ax.set(yticks=[], xticks=[0, 0.5, 1], xticklabels=["0", "half", "high"])
    ax.set_position([0.36, 0.62, 0.28, 0.28])
    ax.tick_params(labelsize=6.5, length=2)
    fig.suptitle(_said(title, synthetic))
    return fig


_HEAT = colormaps["inferno"]


def _overlay(frame_hwc: np.ndarray, heat_hw: np.ndarray) -> np.ndarray:
    """A map (H, W) in 0..1 over the grey frame (H, W, 3): the stronger, the less of the frame. RGB in 0..1."""
    grey = np.repeat(frame_hwc.mean(-1, keepdims=True) / 255, 3, -1)
    weight = 0.1 + 0.65 * heat_hw[..., None]
    return (1 - weight) * grey + weight * _HEAT(heat_hw)[..., :3]


@_styled
def ut_map(clips: Mapping[str, Mapping[str, np.ndarray]], *, title: str, synthetic: bool) -> Figure:
    """The paper's Figure 5: per clip its snippets by frames, forged ones framed in red, and beside them the U-T map of Inter-SIM.

    clips: heading -> {"frames": uint8 RGB (U, T, H, W, 3), "forged": bool (U, T) or None where nobody knows, "map": (U, T), "fake":
    probability of fake per frame (U, T), written into the map}. Every map has its own scale, from its lowest to its highest value.
    """
    u, t = next(iter(clips.values()))["map"].shape
    panel = (7.2 / len(clips) - 0.75) / (2 * t)
    fig = Figure(figsize=(7.2, u * panel + 0.9))
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0)
    for part, (head, clip) in zip(
        fig.subfigures(1, len(clips), squeeze=False)[0], clips.items(), strict=True
    ):
        ax, bar_ax = part.subplots(1, 2)
        size_h, size_w = clip["frames"].shape[2:4]
        ax.imshow(
            clip["frames"].transpose(0, 2, 1, 3, 4).reshape(u * size_h, t * size_w, 3),
            extent=(-0.5, t - 0.5, u - 0.5, -0.5),
        )
        shown = bar_ax.imshow(clip["map"], cmap="viridis")
        middle = (clip["map"].min() + clip["map"].max()) / 2
        for i, j in np.ndindex(u, t):
            colour = "black" if clip["map"][i, j] > middle else "white"
            bar_ax.text(
                j,
                i,
                f"{clip['fake'][i, j]:.2f}",
                ha="center",
                va="center",
                fontsize=5.5,
                color=colour,
            )
            if clip["forged"] is not None and clip["forged"][i, j]:
                for where in (ax, bar_ax):
                    where.add_patch(
                        Rectangle(
                            (j - 0.46, i - 0.46),
                            0.92,
                            0.92,
                            fill=False,
                            edgecolor="#E60000",
                            linewidth=1.3,
                        )
                    )
        for where, name in ((ax, "frames"), (bar_ax, "U–T map")):
            where.set_aspect("equal")
            where.set_title(name, fontsize=7)
            where.set_xticks(range(t), [str(n + 1) for n in range(t)])
            where.set_xlabel("frame of the snippet", fontsize=6.5)
            where.tick_params(length=0, labelsize=6)
            where.spines[:].set_visible(False)
        ax.set_yticks(range(u), [str(n + 1) for n in range(u)])
        ax.set_ylabel("snippet", fontsize=6.5)
        bar_ax.set_yticks([])
        bar = part.colorbar(shown, ax=[ax, bar_ax], shrink=0.75, aspect=35, pad=0.01)
        bar.ax.tick_params(labelsize=5.5, length=2, pad=1)
        bar.locator = MaxNLocator(3)
        bar.update_ticks()
        bar.outline.set_linewidth(0.4)
        part.suptitle(head, fontsize=7.5)
    fig.suptitle(_said(title, synthetic))
    return fig
