"""`dfil bench growth`: time and memory as work grows: more videos, longer videos, more snippets.

Each amount is measured in a process of its own, whose processor time and peak of memory are read
when it ends; what it takes to import and to begin is measured with an amount of nothing and is not
counted. Where time is linear its power of the amount is 1, where memory is flat its power is 0.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from dfil.datasets import VideoRecord
from dfil.faces.preprocess import preprocess
from dfil.profiles import DEMO
from dfil.synthetic import SETTINGS, render_target
from dfil.synthetic.codec import encode
from dfil.system import paths
from dfil.system.cores import cores
from dfil.system.files import atomic
from dfil.tools.bench.common import network, peak_bytes, using_threads
from dfil.train.snippets import normalise

SEEN = 48  # frames of a head that are drawn; a longer clip shows them forwards and backwards
WAYS = {
    "videos": "videos preprocessed, 48 frames each",
    "frames": "frames of one video, preprocessed",
    "snippets": "snippets of a video, scored by DIL",
}


def measure(
    videos: Sequence[int] = (2, 4, 8, 16, 32),
    frames: Sequence[int] = (96, 192, 384, 768, 1536),
    snippets: Sequence[int] = (8, 16, 32, 64, 128),
) -> dict:
    """Per way of growing a line per amount: seconds of processor time and MiB, both above those of
    nothing; the `power` that fits each; and where the plot is."""
    found = {"cores": cores(), "ways": {}}
    with tempfile.TemporaryDirectory(prefix="dfil-bench-") as folder:
        made = {n: _clip(Path(folder) / f"{n}.mp4", n) for n in {SEEN, *frames}}
        amounts = {
            "videos": (_preprocess, [[made[SEEN]] * n for n in (0, *videos)], videos),
            "frames": (_preprocess, [[], *([made[n]] for n in frames)], frames),
            "snippets": (_score, [0, *snippets], snippets),
        }
        for way, (work, given, steps) in amounts.items():
            (seconds_0, mib_0), *measured = [_alone(work, each) for each in given]
            lines = [
                {"amount": n, "seconds": seconds - seconds_0, "mib": mib - mib_0}
                for n, (seconds, mib) in zip(steps, measured, strict=True)
            ]
            time_power = _power(steps, [line["seconds"] for line in lines])
            # what is above the imports, and these, together: what a process needs
            memory_power = _power(steps, [mib for _, mib in measured])
            powers = {"seconds": time_power, "mib": memory_power}
            found["ways"][way] = {"lines": lines, "powers": powers, "mib of nothing": mib_0}
    found["plot"] = str(_save(plot(found)))
    return found


def table(found: dict) -> str:
    """The measurements as text."""
    lines = [f"{found['cores']} cores; above an amount of nothing, in a process of its own"]
    for way, text in WAYS.items():
        part = found["ways"][way]
        lines += ["", text, f"{'':>8} {'CPU s':>8} {'ms each':>8} {'MiB':>6}"]
        for line in part["lines"]:
            n, seconds = line["amount"], line["seconds"]
            lines.append(f"{n:>8} {seconds:>8.2f} {1000 * seconds / n:>8.1f} {line['mib']:>6.0f}")
        powers, nothing = part["powers"], part["mib of nothing"]
        lines.append(
            f"time grows with the amount to the power {powers['seconds']:.2f}, memory (with"
            f" {nothing:.0f} MiB of nothing) {powers['mib']:.2f}"
        )
    return "\n".join([*lines, "", f"Plot: {found['plot']}"])


def plot(found: dict) -> Figure:
    """Processor seconds above nothing, and below them all memory, against the amount."""
    fig = Figure(figsize=(9.6, 4.8), layout="constrained")
    axes = fig.subplots(2, len(WAYS), sharex="col", sharey="row")
    for (way, part), column in zip(found["ways"].items(), axes.T, strict=True):
        df = pd.DataFrame(part["lines"])
        df["memory"] = part["mib of nothing"] + df["mib"]
        for ax, what in zip(column, ("seconds", "memory"), strict=True):
            sns.lineplot(df, x="amount", y=what, marker="o", color="#0072B2", ax=ax)
            ax.set(xscale="log", xlabel=WAYS[way])
        column[0].set_yscale("log")
        column[1].set_ylim(0)
        column[1].set_xticks(df["amount"], df["amount"])
        column[1].minorticks_off()
    for ax, label in zip(axes[:, 0], ("CPU seconds", "MiB, imports with it"), strict=True):
        ax.set_ylabel(label)
    return fig


def _clip(path: Path, frames: int) -> Path:
    head = render_target(0, 1, SETTINGS["ff-like"], methods=(), frames=SEEN)
    shown_thwc = next(iter(head)).frames_thwc
    there = np.arange(frames) % (2 * SEEN - 2)
    path.write_bytes(encode(shown_thwc[np.minimum(there, 2 * SEEN - 2 - there)], 23))
    return path


def _preprocess(clips: Sequence[Path]) -> None:
    records = [
        VideoRecord("ffpp", f"c23/real/{n:03}", 0, "real", "c23", "train", path)
        for n, path in enumerate(clips)
    ]
    with tempfile.TemporaryDirectory(prefix="dfil-bench-") as folder:
        if records:
            preprocess(records, Path(folder) / "store", DEMO.size, jobs=1, progress=False)


def _score(snippets: int) -> None:
    model = network("dil", DEMO).eval()
    shape = (1, snippets, DEMO.frames, 3, DEMO.size, DEMO.size)
    with torch.inference_mode():
        if snippets:
            model(normalise(torch.zeros(shape, dtype=torch.uint8)))


def _alone(work: Callable, given) -> tuple[float, float]:
    """Processor seconds and peak MiB of `work(given)` in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_watched, work, given).result()


def _watched(work: Callable, given) -> tuple[float, float]:
    with using_threads(1):
        start = time.process_time()
        work(given)
        seconds = time.process_time() - start
    return seconds, peak_bytes() / 2**20


def _power(amounts: Sequence[float], values: Sequence[float]) -> float:
    """p of value = c * amount^p, by least squares of the logarithms."""
    positive = np.maximum(values, 1e-9)
    return float(np.polyfit(np.log(amounts), np.log(positive), 1)[0])


def _save(figure: Figure) -> Path:
    path = paths.data() / "bench" / "growth.png"
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return path
