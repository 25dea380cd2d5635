"""Figure 2 drawn from a built model: its real blocks, shapes and parameter counts, and the inside of one Intra-SIM and one Inter-SIM.

Nothing here is a picture of what the network ought to be. The blocks are walked through, one empty video is passed through a copy
without memory (torch's meta device) for the shapes, and every text is made from the layers found.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import pandas as pd
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import nn

from dfil.models.dil import DIL
from dfil.models.inter_sim import InterSIM
from dfil.models.intra_sim import IntraSIM
from dfil.results.figures import STYLE
from dfil.system.errors import RunError

FILL = {
    "Intra-SI": "#9CC9E8",
    "Inter-SI": "#F4C27A",
    "plain": "#E4E4E4",
    "step": "#FFFFFF",
    "sum": "#F2F2F2",
}  # tints of 0072B2, E69F00
STEP = 0.62  # height of a box on the drawing's grid


def summary(model: DIL, size: int) -> pd.DataFrame:
    """The network in order, a row per part ("stem", "layer1.0", ..., "head") with the columns stage, kind, shape, parameters, added.

    kind: "Intra-SI", "Inter-SI", "plain", or empty for stem and head. shape: (C, H, W) that one frame of size x size pixels has after the
    part; of the head (1,). parameters: of the part, `added` of them in its Intra-SIM or Inter-SIM. The parameters add up to the model's.
    """
    backbone, shapes = deepcopy(model).to("meta").eval().backbone, {}
    parts = {"stem": backbone.maxpool, **dict(backbone.blocks()), "head": backbone.fc}
    hooks = [
        part.register_forward_hook(
            lambda module, args, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
        for name, part in parts.items()
    ]
    with torch.no_grad():
        backbone(torch.empty(model.frames, 3, size, size, device="meta"), snippets=1)
    for hook in hooks:
        hook.remove()
    rows = [("stem", 0, "", shapes["stem"], _count(backbone.conv1) + _count(backbone.bn1), 0)]
    for name, block in backbone.blocks():
        kind = (
            "Intra-SI"
            if block.intra is not None
            else "Inter-SI"
            if block.inter is not None
            else "plain"
        )
        added = sum(_count(module) for module in (block.intra, block.inter) if module is not None)
        rows.append(
            (
                name,
                int(name.removeprefix("layer").split(".")[0]),
                kind,
                shapes[name],
                _count(block),
                added,
            )
        )
    rows.append(("head", 0, "", shapes["head"], _count(backbone.fc), 0))
    return pd.DataFrame(
        rows, columns=["part", "stage", "kind", "shape", "parameters", "added"]
    ).set_index("part")


def architecture(model: DIL, size: int, snippets: int = 4, title: str = "") -> Figure:
    """The paper's Figure 2 of `model` for videos of `snippets` x T frames of size x size pixels.

    Above the network, a box per residual block; below the inside of its first Intra-SIM and of its first Inter-SIM. Raises RunError for
    a model that lacks one of the two, because then there is nothing of Figure 2 to draw.
    """
    parts = summary(model, size)
    found = {}
    for kind, name in (("Intra-SI", "intra"), ("Inter-SI", "inter")):
        if kind not in set(parts["kind"]):
            raise RunError(
                f"this model has no {kind} block; Figure 2 is drawn of a model with both modules"
            )
        part = parts.index[parts["kind"] == kind][0]
        found[kind] = part, getattr(dict(model.backbone.blocks())[part], name)
    with style.context(STYLE):
        fig = Figure(figsize=(7.2, 5.4))
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0.02)
        axes = fig.subplots(3, 1, height_ratios=[2.75, 4.2, 3.3])
        for ax, height in zip(axes, (2.75, 4.2, 3.3), strict=True):
            ax.set(xlim=(0, 18), ylim=(0, height))
            ax.set_axis_off()
        _network(axes[0], parts, model.frames, size, snippets)
        _intra(axes[1], *found["Intra-SI"])
        _inter(axes[2], *found["Inter-SI"])
        fig.suptitle(
            title
            or f"DIL as built: {number(_count(model))} parameters, {number(int(parts['added'].sum()))} of them in its modules"
        )
    return fig


def number(count: int) -> str:
    """A parameter count in three digits: 408, 5.17 k, 23.5 M."""
    for limit, unit in ((10**6, " M"), (10**3, " k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)


def _network(ax: Axes, parts: pd.DataFrame, frames: int, size: int, snippets: int) -> None:
    middle = 1.55
    for shift in (0.24, 0.12, 0.0):
        ax.add_patch(
            Rectangle(
                (0.15 + shift, middle - 0.5 + shift),
                1.1,
                0.9,
                facecolor="white",
                edgecolor="0.3",
                linewidth=0.7,
            )
        )
    ax.text(
        0.7, middle - 0.05, f"U = {snippets}\nT = {frames}", ha="center", va="center", fontsize=6.5
    )
    ax.text(0.8, middle + 0.85, f"3 × {size} × {size}", ha="center", va="center", fontsize=6)
    stem, head = parts.loc["stem"], parts.loc["head"]
    _box(ax, 1.95, middle, 0.9, f"stem\n{number(stem['parameters'])}", "plain")
    ax.text(2.4, middle - 0.95, _size(stem["shape"]), ha="center", va="center", fontsize=6)
    _arrow(ax, (1.55, middle), (1.95, middle))
    blocks = parts[parts["stage"] > 0]
    stages = list(blocks.groupby("stage"))
    left, right, gap = 3.25, 15.5, 0.42
    width = (right - left - gap * (len(stages) - 1)) / len(blocks)
    x, before = left, 2.85
    for stage, group in stages:
        wide = width * len(group)
        _arrow(ax, (before, middle), (x, middle))
        ax.add_patch(
            Rectangle(
                (x - 0.05, middle - 0.62),
                wide + 0.1,
                1.24,
                fill=False,
                edgecolor="0.6",
                linewidth=0.6,
            )
        )
        for i, kind in enumerate(group["kind"]):
            left_i = x + i * width
            ax.add_patch(
                Rectangle(
                    (left_i + 0.05, middle - 0.5),
                    width - 0.1,
                    1.0,
                    facecolor=FILL[kind],
                    edgecolor="0.3",
                    linewidth=0.6,
                )
            )
            ax.text(
                left_i + width / 2,
                middle,
                kind.removesuffix("-SI"),
                ha="center",
                va="center",
                fontsize=6,
                rotation=90,
            )
        ax.text(
            x + wide / 2,
            middle + 0.85,
            f"stage {stage}: {number(int(group['parameters'].sum()))}",
            ha="center",
            va="center",
            fontsize=6.5,
        )
        ax.text(
            x + wide / 2,
            middle - 0.95,
            _size(group["shape"].iloc[-1]),
            ha="center",
            va="center",
            fontsize=6,
        )
        x, before = x + wide + gap, x + wide + 0.05
    _arrow(ax, (before, middle), (15.85, middle))
    _box(ax, 15.85, middle, 1.0, f"pool, FC\n{number(head['parameters'])}", "plain")
    _arrow(ax, (16.85, middle), (17.15, middle))
    ax.text(17.2, middle, "mean over\nU·T: logit", ha="left", va="center", fontsize=6)
    for i, (kind, text) in enumerate(
        (
            ("Intra-SI", "Intra-SI block: 1×1, Intra-SIM, 3×3, 1×1"),
            ("Inter-SI", "Inter-SI block: 1×1, Inter-SIM, 3×3, 1×1"),
        )
    ):
        ax.add_patch(
            Rectangle(
                (3.25 + 6.2 * i, 0.06),
                0.3,
                0.24,
                facecolor=FILL[kind],
                edgecolor="0.3",
                linewidth=0.6,
            )
        )
        ax.text(3.65 + 6.2 * i, 0.18, text, ha="left", va="center", fontsize=6.5)


def _intra(ax: Axes, part: str, sim: IntraSIM) -> None:
    """Eq. 1-6 from left to right: the short branch on top, the attention in the middle, the temporal kernel at the bottom."""
    channels, half, squeezed = 2 * sim.half, sim.half, sim.squeeze[0].out_channels
    _panel(ax, 4.2, f"Intra-SIM of {part}: {number(_count(sim))} parameters", "Intra-SI")
    top, high, mid, low, bottom = 3.35, 2.75, 2.15, 1.55, 0.55
    _text(ax, 0.6, mid, f"I: {channels}\n× T × H\n× W")
    _line(ax, (1.1, mid), (1.35, mid), (1.35, top), (15.8, top))
    ax.text(1.5, top + 0.17, f"I₁: {half} channels", ha="left", va="center", fontsize=6)
    _arrow(ax, (1.35, mid), (1.65, mid))
    ax.text(1.45, mid - 0.48, f"I₂: {half}", ha="left", va="center", fontsize=6)
    _box(ax, 1.65, mid, 1.9, _named("squeeze", sim.squeeze), "step")
    ways = (
        [("F(t) − 3×3 F(t+1)", high), ("F(t) − 3×3 F(t−1)", low)]
        if sim.bp
        else [("F(t) − 3×3 F(t+1)", mid)]
    )
    for text, y in ways:
        _arrow(ax, (3.55, mid), (3.85, y))
        _box(ax, 3.85, y, 2.25, f"{text}\n{_layer(sim.neighbour)}", "step")
        _arrow(ax, (6.1, y), (6.4, mid))
    _box(ax, 6.4, mid, 0.7, "mean" if sim.bp else "D", "sum")
    if sim.ca:
        for y, name, view, recover in (
            (high, "H×T", sim.view_h, sim.recover_h),
            (low, "T×W", sim.view_w, sim.recover_w),
        ):
            _arrow(ax, (7.1, mid), (7.4, y))
            _box(
                ax,
                7.4,
                y,
                2.1,
                f"D + 3×3 over {name}\n{squeezed}→{squeezed}, {number(_count(view))}",
                "step",
            )
            _arrow(ax, (9.5, y), (9.75, y))
            _box(ax, 9.75, y, 2.0, _named("sigmoid of", recover), "step")
            _arrow(ax, (11.75, y), (12.05, mid))
        _box(ax, 12.05, mid, 1.0, "$A_h \\odot A_w$", "sum")
    else:
        _arrow(ax, (7.1, mid), (9.75, mid))
        _box(ax, 9.75, mid, 2.0, _named("sigmoid of", sim.recover), "step")
        _arrow(ax, (11.75, mid), (12.05, mid))
        _box(ax, 12.05, mid, 1.0, "$A$", "sum")
    _arrow(ax, (13.05, mid), (13.25, mid))
    _box(ax, 13.25, mid, 1.1, "⊙ I₂ + I₂", "sum")
    _arrow(ax, (14.35, mid), (14.55, mid))
    _box(ax, 14.55, mid, 0.55, "⊗", "sum")
    _arrow(ax, (15.1, mid), (15.35, mid))
    _box(ax, 15.35, mid, 0.95, "concat", "sum")
    _line(ax, (15.8, top), (15.82, top), (15.82, mid + STEP / 2), arrow=True)
    _arrow(ax, (16.3, mid), (16.7, mid))
    _text(ax, 17.2, mid, f"O: {channels}\n× T × H\n× W")
    kernel = 9.75, bottom, 2.0
    if sim.lk:
        _line(ax, (1.35, mid), (1.35, bottom), (1.65, bottom), arrow=True)
        _box(ax, 1.65, bottom, 1.9, "mean over\nH × W", "step")
        _arrow(ax, (3.55, bottom), (3.85, bottom))
        _box(
            ax,
            3.85,
            bottom,
            2.25,
            f"FC {_fc(sim.phi1[0])}, ReLU\n{number(_count(sim.phi1))}",
            "step",
        )
        _arrow(ax, (6.1, bottom), (7.4, bottom))
        _box(ax, 7.4, bottom, 2.1, f"FC {_fc(sim.phi2)}\n{number(_count(sim.phi2))}", "step")
        _arrow(ax, (9.5, bottom), (9.75, bottom))
        _box(ax, *kernel, "softmax: a kernel\nper channel", "step")
    else:
        _box(ax, *kernel, f"static kernel\n{number(sim.static_kernel.numel())}", "step")
    _line(ax, (11.75, bottom), (14.82, bottom), (14.82, mid - STEP / 2), arrow=True)


def _inter(ax: Axes, part: str, sim: InterSIM) -> None:
    """Eq. 7-11 from left to right: the first branch on top, the second, with the differences between snippets, below."""
    channels = sim.branch1[0].in_channels
    _panel(ax, 3.3, f"Inter-SIM of {part}: {number(_count(sim))} parameters", "Inter-SI")
    top, low, mid = 2.25, 0.9, 1.6
    _text(ax, 0.6, mid, f"F: {channels}\n× U × T\n× H × W")
    _arrow(ax, (1.2, mid), (1.4, mid))
    _box(ax, 1.4, mid, 1.2, "mean over\nH × W", "step")
    _line(ax, (2.6, mid), (2.8, mid), (2.8, top), (3.0, top), arrow=True)
    _line(ax, (2.6, mid), (2.8, mid), (2.8, low), (3.0, low), arrow=True)
    _box(ax, 3.0, top, 2.3, f"3×1 along U, BN\n{_pair(sim.branch1[:2])}", "step")
    _arrow(ax, (5.3, top), (9.95, top))
    _box(ax, 9.95, top, 1.75, f"sigmoid of 1×1\n{_layer(sim.branch1[2])}", "step")
    _box(ax, 3.0, low, 1.4, f"1×1\n{_layer(sim.squeeze)}", "step")
    _arrow(ax, (4.4, low), (4.6, low))
    _box(ax, 4.6, low, 1.5, f"1×3 along T\n{_layer(sim.within)}", "step")
    for text, y in (("F(u) − 1×3 F(u+1)", low + 0.36), ("F(u) − 1×3 F(u−1)", low - 0.36)):
        _arrow(ax, (6.1, low), (6.4, y))
        _box(ax, 6.4, y, 2.25, f"{text}\n{_layer(sim.neighbour)}", "step")
        _arrow(ax, (8.65, y), (8.95, low))
    _box(ax, 8.95, low, 0.7, "sum", "sum")
    _arrow(ax, (9.65, low), (9.95, low))
    _box(ax, 9.95, low, 1.75, f"sigmoid of 1×1\n{_layer(sim.recover)}", "step")
    for y, name in ((top, "F₁"), (low, "F₂")):
        _arrow(ax, (11.7, y), (12.25, mid))
        _text(ax, 12.15, y, name)
    _box(ax, 12.25, mid, 1.35, "F₁ ⊙ F₂\n(U–T map)", "sum")
    _arrow(ax, (13.6, mid), (13.8, mid))
    _box(ax, 13.8, mid, 1.0, "⊙ F + F", "sum")
    _arrow(ax, (14.8, mid), (15.0, mid))
    kind = "depthwise" if sim.conv_u == "depthwise" else "full"
    _box(ax, 15.0, mid, 1.6, f"3×1 along U\n{kind}, {number(sim.taps_u.numel())}", "step")
    _arrow(ax, (16.6, mid), (16.8, mid))
    _text(ax, 17.35, mid, f"O: {channels}\n× U × T\n× H × W")


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _layer(conv: nn.Conv2d) -> str:
    """Channels in and out of a convolution and its parameters; "each" where every channel has its own kernel."""
    flow = (
        f"{conv.in_channels} each" if conv.groups > 1 else f"{conv.in_channels}→{conv.out_channels}"
    )
    return f"{flow}, {number(_count(conv))}"


def _named(name: str, layers: nn.Sequential) -> str:
    """A 1x1 convolution with its batch normalisation."""
    return f"{name} 1×1, BN\n{_pair(layers)}"


def _pair(layers: nn.Sequential) -> str:
    """Channels and parameters of a convolution and the batch normalisation after it."""
    return f"{layers[0].in_channels}→{layers[0].out_channels}, {number(_count(layers))}"


def _fc(linear: nn.Linear) -> str:
    return f"{linear.in_features}→{linear.out_features}"


def _panel(ax: Axes, height: float, text: str, kind: str) -> None:
    ax.add_patch(
        Rectangle(
            (0.02, 0.04), 17.96, height - 0.1, facecolor=FILL[kind], edgecolor="none", alpha=0.25
        )
    )
    ax.text(0.2, height - 0.28, text, ha="left", va="center", fontsize=7.5, weight="bold")


def _box(
    ax: Axes, x: float, y: float, width: float, text: str, kind: str, height: float = STEP
) -> None:
    """A box whose left edge is x and whose middle is at height y."""
    shape = FancyBboxPatch(
        (x, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=FILL[kind],
        edgecolor="0.3",
        linewidth=0.6,
    )
    ax.add_patch(shape)
    ax.text(x + width / 2, y, text, ha="center", va="center", fontsize=5.8, linespacing=1.1)


def _text(ax: Axes, x: float, y: float, text: str) -> None:
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=6,
        bbox={"facecolor": "none", "edgecolor": "none", "pad": 0.5},
    )


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {
        "arrowstyle": "-|>",
        "linewidth": 0.6,
        "color": "0.2",
        "mutation_scale": 5,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    ax.annotate("", end, start, arrowprops=look)


def _line(ax: Axes, *points: tuple[float, float], arrow: bool = False) -> None:
    ax.plot(*zip(*points, strict=True), color="0.2", linewidth=0.6)
    if arrow:
        _arrow(ax, points[-2], points[-1])
