"""Snippets: which T consecutive native frames a method looks at, and how they become a batch.

Training takes one snippet at a random place in each of U equal segments of the video, testing the
centred one; reading, items 20-21.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from dfil.faces.store import CropStore
from dfil.models.detector import IMAGENET_MEAN, IMAGENET_STD
from dfil.system.errors import DataError


def snippet_starts(
    runs: Sequence[tuple[int, int]],
    snippets: int,
    frames: int,
    stride: int = 1,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """First frame numbers (U,) of `snippets` snippets of `frames` frames, `stride` apart.

    runs are the stretches (first frame, count) of native frames that follow one another
    (Crops.runs); a snippet never crosses from one to the next, so its frames are neighbours in
    the video and not only in the store. The time from the first frame to the last is cut into U
    equal segments. In each, `rng` draws a start so that the snippet stays inside; without `rng`
    the centred one is taken. Where a segment is shorter than a snippet, the snippet's centre
    stays inside; where even that is not possible, the start nearest to the centred one is taken.
    Short videos thus repeat frames. Where there are gaps between the runs, no snippet is taken
    twice as long as there are others.

    Raises DataError if no run is long enough for one snippet.
    """
    span = (frames - 1) * stride + 1
    starts = [np.arange(first, first + max(0, count - span + 1)) for first, count in runs]
    possible = np.concatenate(starts or [[]]).astype(np.int64)
    if not len(possible):
        longest = max((count for _, count in runs), default=0)
        asked = f"a snippet of {frames} frames, {stride} apart, needs {span} consecutive frames"
        raise DataError(f"{asked}; the longest stretch has {longest}")
    edges = np.linspace(runs[0][0], sum(runs[-1]), snippets + 1)
    starts = np.empty(snippets, np.int64)
    for u, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = possible[(possible >= low) & (possible + span <= high)]
        if not len(inside):
            inside = possible[(possible + span / 2 >= low) & (possible + span / 2 < high)]
        if rng is not None and len(inside):
            starts[u] = rng.choice(inside)
        else:
            taken = starts[:u] if len(runs) > 1 else starts[:0]
            starts[u] = _nearest(possible, (low + high - span) / 2, taken, span)
    return np.sort(starts)


def _nearest(possible: np.ndarray, wanted: float, taken: np.ndarray, span: int) -> int:
    """The possible start nearest to the wanted one; of one that is taken the nearest beside it.

    Beside: a snippet that shares no frame with those taken, else one that is not the same.
    """
    found = possible[np.argmin(np.abs(possible - wanted))]
    if found not in taken:
        return found
    distance = np.abs(possible[:, None] - taken).min(1)
    for others in (possible[distance >= span], possible[distance > 0]):
        if len(others):
            return others[np.argmin(np.abs(others - wanted))]
    return found


def normalise(x_uint8: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) uint8 -> float32 with ImageNet's mean and deviation per channel."""
    mean = torch.tensor(IMAGENET_MEAN, device=x_uint8.device).mul(255)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=x_uint8.device).mul(255)[:, None, None]
    return (x_uint8.float() - mean) / std


class SnippetDataset(Dataset):
    """Videos of a crop store as tensors (U, T, 3, size, size) uint8 with their labels.

    Args:
        store: the crop store.
        rows: the rows of its index to serve; all must have status "ok".
        snippets, frames, stride: U, T and the distance of a snippet's frames.
        size: crop side in pixels.
        train: random starts and a horizontal flip of the whole clip with probability 1/2;
            otherwise centred and unflipped.
        seed: decides every draw, with the epoch and the video's id, so that batches do not depend
            on the number of workers and a resumed run sees what an uninterrupted one would have.
        paired: the target in place of the id: a real clip and its fakes share their draws.
        margin, box: see Crops.snippet. A video whose longest stretch is shorter than a snippet
            shows that stretch and holds its last frame; in one longer than the store's reach
            every frame has its own box, to a fraction of a pixel.
        all_tracks: one item per person followed through the video, where the store keeps several
            (its index's column `tracks`), instead of one per video with the largest face.
            `videos` says which row of `rows` each item belongs to.
    """

    def __init__(
        self, store: CropStore, rows: pd.DataFrame, *, snippets: int, frames: int, size: int,
        stride=1, train=False, seed=0, paired=False, margin=1.3, box="snippet", all_tracks=False,
    ):  # fmt: skip
        self.store, self.rows = store, rows.reset_index(drop=True)
        self.snippets, self.frames, self.size, self.stride = snippets, frames, size, stride
        self.train, self.seed, self.paired, self.margin, self.box = train, seed, paired, margin, box
        self.epoch = 0
        self._ids = self.rows["video_id"].tolist()
        self._labels = self.rows["label"].astype(np.float32).tolist()
        tracks = self.rows["tracks"] if all_tracks else [1] * len(self.rows)
        self._items = [(row, track) for row, count in enumerate(tracks) for track in range(count)]
        self.videos = [row for row, _ in self._items]
        both = zip(self._ids, self.rows["target"], strict=True)
        self._draws = [number_of(target if paired and target else name) for name, target in both]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[torch.Tensor, float, int]:
        """(U, T, 3, size, size) uint8, label, item."""
        x, labels, items = self.__getitems__([item])
        return x[0], float(labels[0]), int(items[0])

    def __getitems__(self, items: Sequence) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A batch: (B, U, T, 3, size, size) uint8, labels (B,) float32, items (B,).

        A DataLoader asks for this if there is one. Instead of an item there may be a pair (item,
        other), for frames and flip as they are drawn for the other one. Every crop is resized into
        its place in the batch, so nothing is copied. The pixels stay in the order in which crops
        lie in memory, channels last, which is also what the models' convolutions want.
        """
        shape = len(items), self.snippets, self.frames, self.size, self.size, 3
        x_buthwc = np.empty(shape, np.uint8)
        pairs = [item if isinstance(item, tuple) else (item, item) for item in items]
        for clip_uthwc, (item, drawn_for) in zip(x_buthwc, pairs, strict=True):
            self._read(item, drawn_for, clip_uthwc)
        items = [item for item, _ in pairs]
        labels = torch.tensor([self._labels[self.videos[item]] for item in items])
        return torch.from_numpy(x_buthwc).permute(0, 1, 2, 5, 3, 4), labels, torch.tensor(items)

    def _read(self, item: int, drawn_for: int, clip_uthwc: np.ndarray) -> None:
        both = (self._items[each] for each in (item, drawn_for))
        draw = [self.seed, self.epoch, self._draws[self.videos[drawn_for]]]
        rng = np.random.default_rng(draw) if self.train else None
        flip = rng is not None and rng.random() < 0.5
        crops, other = (self.store.open(self._ids[row], track) for row, track in both)
        there = crops.shared_runs(other, (self.frames - 1) * self.stride + 1)
        longest = max(count for _, count in there)
        frames = max(1, min(self.frames, (longest - 1) // self.stride + 1))  # all, of a short video
        starts = snippet_starts(there, self.snippets, frames, self.stride, rng)
        # one box serves `reach` frames; in a longer clip every frame has its own
        long = (frames - 1) * self.stride + 1 > crops.limits.reach
        how = self.size, self.margin, "exact" if long else self.box, self.stride
        for snippet_thwc, start in zip(clip_uthwc, starts.tolist(), strict=True):
            crops.snippet(start, frames, *how, out=snippet_thwc[:frames])
            snippet_thwc[frames:] = snippet_thwc[frames - 1]
        if flip:
            for frame_hwc in clip_uthwc.reshape(-1, self.size, self.size, 3):
                cv2.flip(frame_hwc, 1, dst=frame_hwc)


def batch_as_read(batch: tuple) -> tuple:
    """The batch: SnippetDataset reads batches whole, and a DataLoader would make one of each."""
    return batch


def number_of(text: str) -> int:
    """A number for a random generator's seed that is the same in every Python process."""
    return int.from_bytes(text.encode(), "little")


def batches(
    rows: pd.DataFrame, size: int, paired: bool, rng: np.random.Generator, *, redraw=False,
    balance=False,
) -> list[list]:  # fmt: skip
    """One epoch as shuffled lists of positions in `rows`, `size` videos each; no list has just one.

    paired: every fake comes with a real clip of its target and compression (any real one where
    that is missing), so classes are balanced and a real clip is seen once per fake of it. redraw:
    each time with frames and flip of its own, those of the fake; positions are then pairs, see
    SnippetDataset.__getitems__. Not paired: every video comes once, or, to balance, those of the
    rarer class again and again until both are as many.
    """
    if paired:
        labels = rows["label"].to_numpy()
        keys = list(zip(rows["target"], rows["compression"], strict=True))
        anywhere = np.flatnonzero(labels == 0)
        if not len(anywhere):
            check = "check the splits and the index's status column"
            raise DataError(f"there is no real video to pair the fakes with; {check}")
        reals = rows.reset_index(drop=True)[labels == 0].groupby(["target", "compression"]).groups
        order: list = []
        for fake in rng.permutation(np.flatnonzero(labels == 1)).tolist():
            drawn, own = int(rng.integers(len(anywhere))), reals.get(keys[fake], ())
            real = own[drawn % len(own)] if len(own) and keys[fake][0] else anywhere[drawn]
            order += [(int(real), fake), (fake, fake)] if redraw else [int(real), fake]
        size = max(2, size - size % 2)
    else:
        order = rng.permutation(len(rows)).tolist()
        if balance:
            order = rng.permutation(_balanced(rows["label"].to_numpy(), order)).tolist()
    out = [order[i : i + size] for i in range(0, len(order), size)]
    # batch normalisation of stage 4 cannot train on one video of tiny crops
    if len(out) > 1 and len(out[-1]) == 1:
        out[-2:] = [out[-2] + out[-1]]
    return out


def _balanced(labels_n: np.ndarray, order: list[int]) -> list[int]:
    """`order` with the rarer class repeated until both are as many."""
    classes = [[i for i in order if labels_n[i] == label] for label in (0, 1)]
    most = max(map(len, classes))
    return [i for one in classes if one for i in np.resize(one, most).tolist()]
