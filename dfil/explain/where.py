"""Why the maps of Figures 3 and 4 lie beside the face, taken apart into what each cause explains.

A map at the last block has 4 x 4 cells for 64 pixels (7 x 7 for 224), each of which sees the whole
crop; the end frames of a snippet have a neighbour on one side only; and early layers answer to
every edge. So the same logit is asked at every stage, the truth itself is shown at the map's
resolution, end frames can be left out, and, apart from all gradients, pixels are steadied: where
that takes the most from the logit, there the detector had looked.

Notebook 60 has the figures. In short: Grad-CAM at the last block lies little more in the mask than
a map that is the same everywhere, and less than a perfect map of 4 x 4 cells; steadying lies there
nearly whole, and an untrained network's does not. So the detector looks at the forged face, and it
is the gradient's map that does not show it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from dfil.explain.activation import batch, blocks, enlarged, grad_cam
from dfil.explain.localisation import Video, measure, priors
from dfil.models import Detector


def by_stage(model: Detector, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Grad-CAM of the logit at the last block of every stage, "Grad-CAM, stage 1" and so on."""
    last = {f"Grad-CAM, stage {name[5]}": block for name, block in blocks(model)}  # "layer1.0"
    return grad_cam(model, x, last)


@torch.no_grad()
def steadied(
    model: Detector, x: torch.Tensor, name: str = "steadied", cells: int = 8, at_once: int = 8
) -> dict[str, np.ndarray]:
    """What the logit loses when one part of the crop stands still, the same map in every frame.

    The crop is cut into cells x cells squares. In one square at a time every snippet's frames are
    replaced by their mean, which takes all motion and jitter from it and leaves what it shows.
    x: (U, T, 3, H, W) uint8; H and W at least `cells`.
    """
    u, t, _, h, w = x.shape
    (clip,) = batch(model, x)
    still = clip.mean(1, keepdim=True).expand_as(clip)
    rows, columns = (np.linspace(0, side, cells + 1).round().astype(int) for side in (h, w))
    whole, found = model(clip[None]), []
    squares = [(i, j) for i in range(cells) for j in range(cells)]
    for start in range(0, len(squares), at_once):
        part = squares[start : start + at_once]
        changed = clip[None].repeat(len(part), 1, 1, 1, 1, 1)
        for k, (i, j) in enumerate(part):
            box = np.s_[..., rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            changed[k][box] = still[box]
        found.append((whole - model(changed)).double().cpu())
    lost = torch.cat(found).clamp(min=0).reshape(cells, cells).numpy()
    lost_hw = np.repeat(np.repeat(lost, np.diff(rows), 0), np.diff(columns), 1)
    return {name: np.broadcast_to(lost_hw, (u, t, h, w))}


def coarse(masks: np.ndarray, cells: int) -> np.ndarray:
    """The forged region (U, T, H, W) as a perfect map of cells x cells would show it, enlarged."""
    flat = torch.from_numpy(masks.astype(np.float64)).flatten(0, 1)[:, None]
    return enlarged(nn.functional.adaptive_avg_pool2d(flat, cells)[:, 0], masks)


def last_cells(model: Detector, x: torch.Tensor) -> int:
    """How many cells a side the map at the last block has."""
    seen = []
    hook = blocks(model)[-1][1].register_forward_hook(lambda *args: seen.append(args[2].shape[-1]))
    with torch.no_grad():
        model(batch(model, x))
    hook.remove()
    return seen[0]


def taken_apart(videos: Iterable[Video], model: Detector, untrained: Detector) -> pd.DataFrame:
    """`localisation.measure` of videos with masks for every cause, with the further columns ends
    and rim: the map's shares in the snippets' end frames and near the crop's edge."""
    parts = []
    for video in videos:
        cells = last_cells(model, video.x)
        maps = by_stage(model, video.x)
        last = list(maps)[-1]
        maps |= steadied(model, video.x, "steadied")
        maps |= steadied(untrained, video.x, "steadied, untrained")
        maps[f"truth in {cells} x {cells} cells"] = coarse(video.masks, cells)
        maps["truth in 7 x 7 cells"] = coarse(video.masks, 7)  # the paper's
        maps |= priors(video.x)
        found = measure([video], [lambda x, maps=maps: maps])
        inner = {f"{last}, inner frames": maps[last]}
        found["ends"] = [share_at_ends(maps[row]) for row in found["row"]]
        found["rim"] = [share_at_rim(maps[row]) for row in found["row"]]
        parts += [found, measure([without_ends(video)], [lambda x, inner=inner: inner])]
    return pd.concat(parts, ignore_index=True)


def without_ends(video: Video) -> Video:
    """The video with its snippets' first and last frames left out of what is measured."""
    masks = video.masks.copy()
    masks[:, [0, -1]] = False
    return replace(video, masks=masks)


def share_at_ends(maps: np.ndarray) -> float:
    """Share of the maps' sum (U, T, H, W) in the first and last frames; 2/T where all are alike."""
    total = maps.sum()
    return float(maps[:, [0, -1]].sum() / total) if total > 0 else 0.0


def share_at_rim(maps: np.ndarray, rim: float = 0.125) -> float:
    """Share of the maps' sum within `rim` of the crop's side from its edge; 0.44 if all alike."""
    h, w = maps.shape[-2:]
    y, x = round(h * rim), round(w * rim)
    total = maps.sum()
    return float(1 - maps[..., y : h - y, x : w - x].sum() / total) if total > 0 else 0.0
