"""Figure 2 drawn from a built model: its blocks, shapes and parameter counts, and both modules.

Nothing here is a picture of what the network ought to be. The blocks are walked through, one empty
video is passed through a copy without memory (torch's meta device) for the shapes, and every text
is made from the layers found. Boxes are as wide as their texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise

import pandas as pd
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import TextPath
from torch import nn

from dfil.models.dil import DIL
from dfil.models.inter_sim import InterSIM
from dfil.models.intra_sim import IntraSIM
from dfil.results.figures import STYLE
from dfil.system.errors import RunError

FILL = {"plain": "#E4E4E4", "layer": "#FFFFFF", "sum": "#F2F2F2"}
FILL |= {"Intra-SI": "#9CC9E8", "Inter-SI": "#F4C27A"}  # tints of 0072B2 and E69F00
PARTS = {"Intra-SI": "intra", "Inter-SI": "inter"}  # a kind of block and its module's name
WIDTH, UNIT = 18.0, 28.8  # of the drawing's grid, and points per unit: 7.2 inches / 18
FONT, BOX = 5.6, 0.62  # size of most texts; height of a box

Column = Mapping[str, tuple[float, str]]  # of a flow chart: name -> height of the middle, text


def summary(model: DIL, size: int) -> pd.DataFrame:
    """The network in order, a row per part ("stem", "layer1.0", ..., "head").

    Columns: stage; kind, "Intra-SI", "Inter-SI", "plain", or empty for stem and head; shape,
    (C, H, W) of one frame of size x size pixels after the part, of the head (1,); parameters, which
    add up to the model's; added, how many of them are in the part's Intra-SIM or Inter-SIM.
    """
    backbone, shapes = deepcopy(model).to("meta").eval().backbone, {}
    blocks = dict(backbone.blocks())

    def note(name: str, output: torch.Tensor) -> None:
        shapes[name] = tuple(output.shape[1:])

    for name, part in {"stem": backbone.maxpool, **blocks, "head": backbone.fc}.items():
        part.register_forward_hook(lambda module, args, output, name=name: note(name, output))
    with torch.no_grad():
        backbone(torch.empty(model.frames, 3, size, size, device="meta"), snippets=1)
    rows = [("stem", 0, "", _count(backbone.conv1) + _count(backbone.bn1), 0)]
    for name, block in blocks.items():
        modules = {kind: getattr(block, attribute) for kind, attribute in PARTS.items()}
        found = {kind: module for kind, module in modules.items() if module is not None}
        added = sum(map(_count, found.values()))
        stage = int(name.removeprefix("layer").split(".")[0])
        rows.append((name, stage, next(iter(found), "plain"), _count(block), added))
    rows.append(("head", 0, "", _count(backbone.fc), 0))
    table = pd.DataFrame(rows, columns=["part", "stage", "kind", "parameters", "added"])
    return table.assign(shape=table["part"].map(shapes)).set_index("part")


def architecture(model: DIL, size: int, snippets: int = 4) -> Figure:
    """The paper's Figure 2 of `model` for videos of `snippets` x T frames of size x size pixels.

    Above the network, a box per residual block; below the inside of its first Intra-SIM and of its
    first Inter-SIM. Raises RunError for a model that lacks one of the two.
    """
    parts, blocks, first = summary(model, size), dict(model.backbone.blocks()), {}
    for kind in PARTS:
        if kind not in set(parts["kind"]):
            need = "Figure 2 is drawn of a model with both modules"
            raise RunError(f"this model has no {kind} block; {need}")
        first[kind] = parts.index[parts["kind"] == kind][0]
    heights, added = (2.75, 4.2, 3.3), number(int(parts["added"].sum()))
    said = f"DIL as built: {number(_count(model))} parameters, {added} of them in its modules"
    with style.context(STYLE):
        fig = Figure(figsize=(7.2, 5.4))
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0.02)
        axes = fig.subplots(3, 1, height_ratios=heights)
        for ax, height in zip(axes, heights, strict=True):
            ax.set(xlim=(0, WIDTH), ylim=(0, height))
            ax.set_axis_off()
        _network(axes[0], parts, model.frames, size, snippets)
        _intra(axes[1], first["Intra-SI"], blocks[first["Intra-SI"]].intra)
        _inter(axes[2], first["Inter-SI"], blocks[first["Inter-SI"]].inter)
        fig.suptitle(said)
    return fig


def number(count: int) -> str:
    """A parameter count in three digits: 408, 5.17 k, 23.5 M."""
    if count < 1000:
        return str(count)
    return f"{count / 10**6:.3g} M" if count >= 10**6 else f"{count / 1000:.3g} k"


def _network(ax: Axes, parts: pd.DataFrame, frames: int, size: int, snippets: int) -> None:
    """From the video to its logit: a frame per stage, a bar per block, its sizes below."""
    y, bar, stem = 1.55, 0.62, parts.loc["stem"]
    items = [  # (text above, blocks or text of the box, text below)
        (f"3 × {size} × {size}", f"U = {snippets}\nT = {frames}", ""),
        ("", f"stem\n{number(stem['parameters'])}", _size(stem["shape"])),
    ]
    for stage, group in parts[parts["stage"] > 0].groupby("stage"):
        head = f"stage {stage}: {number(int(group['parameters'].sum()))}"
        items.append((head, list(group["kind"]), _size(group["shape"].iloc[-1])))
    last = f"pool, FC\n{number(parts.loc['head', 'parameters'])}", "mean over\nU·T: logit"
    items += [("", text, "") for text in last]
    inside = [bar * len(x) if isinstance(x, list) else _wide(x) for _, x, _ in items]
    widths = [max(w, _wide(a), _wide(b)) for w, (a, _, b) in zip(inside, items, strict=True)]
    edge = None
    for i, ((above, what, below), left) in enumerate(zip(items, _spread(widths), strict=True)):
        middle, half = left + widths[i] / 2, inside[i] / 2
        if edge is not None:
            _arrow(ax, (edge, y), (middle - half, y))
        edge = middle + half
        _text(ax, middle, y + 0.85, above)
        _text(ax, middle, y - 0.95, below)
        if isinstance(what, list):
            for j, kind in enumerate(what):
                x = middle - half + j * bar + 0.05
                ax.add_patch(Rectangle((x, y - 0.5), bar - 0.1, 1, **_look(FILL[kind])))
                _text(ax, x + bar / 2 - 0.05, y, kind.removesuffix("-SI"), rotation=90)
            frame = (middle - half - 0.03, y - 0.6), 2 * half + 0.06, 1.2
            ax.add_patch(Rectangle(*frame, fill=False, edgecolor="0.6", linewidth=0.6))
        elif i == len(items) - 1:
            _text(ax, middle, y, what)
        else:
            _box(ax, middle, y, 2 * half, what, "plain" if i else "layer")
    for x, kind in zip((3.25, 9.45), PARTS, strict=True):
        ax.add_patch(Rectangle((x, 0.06), 0.3, 0.24, **_look(FILL[kind])))
        text = f"{kind} block: 1×1, {kind}M, 3×3, 1×1"
        ax.text(x + 0.4, 0.18, text, va="center", fontsize=6.5)


def _intra(ax: Axes, part: str, sim: IntraSIM) -> None:
    """Eq. 1-6: the short branch on top, the attention in the middle, the kernel at the bottom."""
    channels, half = 2 * sim.half, sim.half
    high, mid, low, bottom, top = 2.75, 2.15, 1.55, 0.55, 3.35
    ways = {"next": (high, "t+1"), "previous": (low, "t−1")} if sim.bp else {"next": (mid, "t+1")}
    views = {"h": (high, "H×T"), "w": (low, "T×W")} if sim.ca else {}
    columns: list[dict] = [
        {"in": (mid, f"I: {channels}\n× T × H\n× W")},
        {"squeeze": (mid, _named("squeeze 1×1, BN", sim.squeeze))},
        {w: (y, f"F(t) − 3×3 F({t})\n{_flow(sim.neighbour)}") for w, (y, t) in ways.items()},
        {"D": (mid, "mean" if sim.bp else "D")},
        {},  # views
        {},  # recovery
        {"attention": (mid, "$A_h \\odot A_w$" if sim.ca else "$A$")},
        {"weigh": (mid, "⊙ I₂ + I₂")},
        {"kernel": (mid, "⊗")},
        {"concat": (mid, "concat")},
        {"out": (mid, f"O: {channels}\n× T × H\n× W")},
    ]
    chains = ["in squeeze", *(f"squeeze {way} D" for way in ways)]
    for v, (y, plane) in views.items():
        flow = _flow(getattr(sim, f"view_{v}"))
        columns[4][f"view_{v}"] = y, f"D + 3×3 over {plane}\n{flow}"
        columns[5][f"recover_{v}"] = y, _named("sigmoid 1×1, BN", getattr(sim, f"recover_{v}"))
        chains.append(f"D view_{v} recover_{v} attention")
    if not sim.ca:
        columns[5]["recover"] = mid, _named("sigmoid 1×1, BN", sim.recover)
        chains.append("D recover attention")
    if sim.lk:
        columns[1]["mean"] = bottom, "mean over\nH × W"
        columns[2]["phi1"] = bottom, f"FC {_fc(sim.phi1[0])}, ReLU\n{number(_count(sim.phi1))}"
        columns[4]["phi2"] = bottom, f"FC {_fc(sim.phi2)}\n{number(_count(sim.phi2))}"
        columns[5]["taps"] = bottom, "softmax: a kernel\nper channel"
        chains.append("mean phi1 phi2 taps")
    else:
        columns[5]["taps"] = bottom, f"static kernel\n{number(sim.static_kernel.numel())}"
    chains.append("attention weigh kernel concat out")
    boxes = _flow_chart(ax, f"Intra-SIM of {part}", sim, "Intra-SI", columns, chains)
    split = (boxes["in"][1] + boxes["squeeze"][0]) / 2
    concat, kernel = (sum(boxes[name]) / 2 for name in ("concat", "kernel"))
    _arrow(ax, (split, mid), (split, top), (concat, top), (concat, mid + BOX / 2))
    _arrow(ax, (boxes["taps"][1], bottom), (kernel, bottom), (kernel, mid - BOX / 2))
    if sim.lk:
        _arrow(ax, (split, mid), (split, bottom), (boxes["mean"][0], bottom))
    for y, text in ((top + 0.17, f"I₁: {half} channels"), (mid - 0.5, f"I₂: {half}")):
        ax.text(split + 0.12, y, text, va="center", fontsize=FONT)


def _inter(ax: Axes, part: str, sim: InterSIM) -> None:
    """Eq. 7-11: the first branch on top, the second, with its differences of snippets, below."""
    channels, top, mid, low = sim.branch1[0].in_channels, 2.25, 1.6, 0.9
    beside, first, second = _flow(sim.neighbour), _flow(sim.branch1[2]), _flow(sim.recover)
    columns = [
        {"in": (mid, f"F: {channels}\n× U × T\n× H × W")},
        {"mean": (mid, "mean over\nH × W")},
        {"reduce": (top, _named("3×1 along U, BN", sim.branch1[:2])),
         "squeeze": (low, f"1×1\n{_flow(sim.squeeze)}")},
        {"within": (low, f"1×3 along T\n{_flow(sim.within)}")},
        {"next": (low + 0.36, f"F(u) − 1×3 F(u+1)\n{beside}"),
         "previous": (low - 0.36, f"F(u) − 1×3 F(u−1)\n{beside}")},
        {"sum": (low, "sum")},
        {"expand": (top, f"F₁: sigmoid of 1×1\n{first}"),
         "recover": (low, f"F₂: sigmoid of 1×1\n{second}")},
        {"map": (mid, "F₁ ⊙ F₂\n(U–T map)")},
        {"weigh": (mid, "⊙ F + F")},
        {"conv": (mid, f"3×1 along U\n{sim.conv_u}, {number(sim.taps_u.numel())}")},
        {"out": (mid, f"O: {channels}\n× U × T\n× H × W")},
    ]  # fmt: skip
    chains = (
        "in mean reduce expand map weigh conv out",
        "mean squeeze within next sum recover map",
        "within previous sum",
    )
    _flow_chart(ax, f"Inter-SIM of {part}", sim, "Inter-SI", columns, chains)


def _flow_chart(
    ax: Axes,
    title: str,
    sim: nn.Module,
    kind: str,
    columns: Sequence[Column],
    chains: Iterable[str],
) -> dict[str, tuple[float, float]]:
    """Columns of boxes at equal distances, as wide as their widest text, and arrows along chains.

    Returns the left and right edge of every box. Layers are white, mere sums and products grey.
    """
    height = ax.get_ylim()[1]
    around = (0.02, 0.04), WIDTH - 0.04, height - 0.1
    ax.add_patch(Rectangle(*around, facecolor=FILL[kind], edgecolor="none", alpha=0.25))
    head = f"{title}: {number(_count(sim))} parameters"
    ax.text(0.2, height - 0.28, head, va="center", fontsize=7.5, weight="bold")
    widths = [max((_wide(text) for _, text in column.values()), default=0) for column in columns]
    boxes, places = {}, {}
    for column, left, width in zip(columns, _spread(widths), widths, strict=True):
        for name, (y, text) in column.items():
            boxes[name], places[name] = (left, left + width), y
            if name in ("in", "out"):
                _text(ax, left + width / 2, y, text)
            else:
                layer = any(sign in text for sign in "×0123456789") and "⊙" not in text
                _box(ax, left + width / 2, y, width, text, "layer" if layer else "sum")
    for start, end in (pair for chain in chains for pair in pairwise(chain.split())):
        _arrow(ax, (boxes[start][1], places[start]), (boxes[end][0], places[end]))
    return boxes


def _spread(widths: Sequence[float]) -> list[float]:
    """Left edges of things of these widths side by side over the drawing, at equal distances."""
    gap = (WIDTH - 0.3 - sum(widths)) / max(1, sum(width > 0 for width in widths) - 1)
    left, edges = 0.15, []
    for width in widths:
        edges.append(left)
        left += width + (gap if width else 0)
    return edges


def _wide(text: str) -> float:
    """Width of a box around a text; 0 for none."""
    lines = [TextPath((0, 0), line, FONT).get_extents().width for line in text.split("\n") if line]
    return max(lines) / UNIT + 0.34 if lines else 0.0


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _flow(conv: nn.Module) -> str:
    """Channels in and out of a convolution and its parameters; "each": a kernel per channel."""
    if not hasattr(conv, "in_channels"):  # a view keeps its channels
        return f"{conv.weight.shape[1]}→{conv.weight.shape[0]}, {number(_count(conv))}"
    ends = f"{conv.in_channels}→{conv.out_channels}"
    return f"{f'{conv.in_channels} each' if conv.groups > 1 else ends}, {number(_count(conv))}"


def _named(name: str, layers: nn.Sequential) -> str:
    """A convolution with the batch normalisation after it."""
    return f"{name}\n{layers[0].in_channels}→{layers[0].out_channels}, {number(_count(layers))}"


def _fc(linear: nn.Linear) -> str:
    return f"{linear.in_features}→{linear.out_features}"


def _look(colour: str) -> dict:
    return {"facecolor": colour, "edgecolor": "0.3", "linewidth": 0.6}


def _box(ax: Axes, x: float, y: float, width: float, text: str, kind: str) -> None:
    """A box and the text in it, both with their middle at (x, y)."""
    corner, round_ = (x - width / 2, y - BOX / 2), "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch(corner, width, BOX, round_, **_look(FILL[kind])))
    _text(ax, x, y, text)


def _text(ax: Axes, x: float, y: float, text: str, **look) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=FONT, linespacing=1.1, **look)


def _arrow(ax: Axes, *points: tuple[float, float]) -> None:
    """A line through the points that ends in an arrowhead."""
    ax.plot(*zip(*points, strict=True), color="0.2", linewidth=0.6, solid_capstyle="butt")
    look = {"arrowstyle": "-|>", "linewidth": 0.6, "color": "0.2", "mutation_scale": 5}
    ax.annotate("", points[-1], points[-2], arrowprops=look | {"shrinkA": 0, "shrinkB": 0})
