"""`bench model` and `bench train` at their smallest size: the numbers mean nothing, what they
are made of does.
"""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from dfil import models, profiles
from dfil.models.detector import Detector
from dfil.profiles import SMOKE, Training
from dfil.system.errors import DataError, RunError
from dfil.tools.bench import model as bench_model
from dfil.tools.bench import train as bench_train
from dfil.tools.bench.gpu import measure as measure_gpu
from dfil.train.snippets import batches

TINY = dataclasses.replace(
    SMOKE,
    backbone={"depth": (1, 1, 1, 1), "width": 4, "stem": "small"},
    training=Training(epochs=3, batch=4, snippets=2, paired=True),
)


class Sleeper(torch.nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.weight = seconds, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        time.sleep(self.seconds)
        return self.weight.expand(len(x))


def test_ratios_are_of_the_times_of_the_networks():
    found = bench_model.compare(
        {"plain": lambda: Sleeper(0.01), "twice": lambda: Sleeper(0.02)},
        torch.zeros(2, 1, 4, 3, 8, 8),
        repeats=5,
    )
    for what in ("forward", "step"):
        assert 1.3 < found[what]["ratio"]["twice"] < 2.1
        assert found[what]["plain"] >= 0.01 and found[what]["twice"] >= 0.02


def test_bench_model(monkeypatch):
    monkeypatch.setitem(profiles.PROFILES, "demo", dataclasses.replace(TINY, name="demo"))
    threads = torch.get_num_threads()
    result = bench_model.measure(
        size=32, frames=8, threads=1, repeats=1, device=torch.device("cpu")
    )
    assert torch.get_num_threads() == threads
    assert [(row["scale"], row["size"], row["clips"]) for row in result["rows"]] == [
        ("paper", 32, 1),
        ("demo", 32, 4),
    ]
    assert all(
        row[what]["ratio"]["dil"] > 0 and row[what]["dil"] > 0
        for row in result["rows"]
        for what in ("forward", "step")
    )
    texts = [
        {name: row["step"][name] for name in ("resnet50", "plain", "dil")} for row in result["rows"]
    ]
    assert all(seconds > 0 for row in texts for seconds in row.values())
    assert result["cores"] >= 1 and result["torch"] == torch.__version__
    assert f"{result['rows'][0]['step']['ratio']['dil']:.2f}" in bench_model.table(result)


@pytest.mark.parametrize("paired", [True, False])
def test_bench_train_is_the_real_loop(tiny_store, paired):
    profile = dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, paired=paired))
    row = bench_train.run(profile, tiny_store.folder, "float32", True, steps=3)
    assert 0 < row["waiting"] < 1 and row["peak_mib"] > 50 and row["checkpoint"]
    assert row["frames_per_second"] * row["seconds_per_step"] == pytest.approx(4 * 2 * 4)
    data, _ = bench_train._rows(tiny_store, profile, 3)
    assert len(batches(data.rows, 4, paired, np.random.default_rng(0))) == 3
    result = {
        "profile": "x",
        "size": 32,
        "batch": [4, 2, 4],
        "gpu": "",
        "cores": 2,
        "torch": "2",
        "steps": 3,
        "rows": [row],
    }
    text = bench_train.table(
        result | {"paper_batch": [{"precision": "float32", "checkpoint": True, "gigabytes": 6.15}]}
    )
    assert f"{row['frames_per_second']:.1f}" in text and "6.2 GB" in text
    with pytest.raises(RunError, match="at least 2"):
        bench_train.run(profile, tiny_store.folder, "float32", False, steps=1)


def test_memory_is_counted_without_arithmetic():
    def count(batch, precision="float32", checkpoint=False):
        training = dataclasses.replace(TINY.training, batch=batch)
        return bench_train.count(
            dataclasses.replace(TINY, training=training), precision, checkpoint
        )

    weights = 4 * sum(
        p.numel() for p in models.build("dil", frames=TINY.frames, **TINY.backbone).parameters()
    )
    eight, sixteen = count(8), count(16)
    per_clip = (sixteen - eight) / 8
    assert count(24) - sixteen == pytest.approx(
        8 * per_clip, rel=0.02
    )  # activations and inputs grow with the batch, nothing else does
    assert (
        3 * weights < eight - 8 * per_clip < 5 * weights
    )  # weights, Adam's two averages, and the gradients that are there by then
    assert count(16, "bfloat16") < 0.8 * sixteen and count(16, checkpoint=True) < 0.8 * sixteen


def test_waiting_is_what_lies_between_update_and_forward_pass(tiny_store):
    data, _ = bench_train._rows(tiny_store, TINY, 3)
    clock = bench_train._Clock(Detector(), "float32", torch.device("cpu"))
    clock.starts, clock.ends = (
        [0.0, 9.5, 19.5],
        [9.0, 19.0, 29.0],
    )  # half a second of waiting in ten, twice
    found = bench_train.summary(clock, data, 4)
    assert found["waiting"] == pytest.approx(0.05) and found["seconds_per_step"] == pytest.approx(
        10
    )
    assert found["frames_per_second"] == pytest.approx(3.2) and found[
        "epoch_minutes"
    ] == pytest.approx(1440 * 8 / 3.2 / 60)


@pytest.mark.skipif(sys.platform != "linux", reason="a request to glibc")
def test_freed_memory_is_kept():
    """Blocks of 40 MB come from the system once, not each time."""
    code = """
import resource, sys
from dfil.system.memory import reuse_freed_memory
assert not int(sys.argv[1]) or reuse_freed_memory()
for _ in range(6): bytes([7]) * 40_000_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(20): bytes([i]) * 40_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    usual, kept = (
        int(subprocess.check_output([sys.executable, "-c", code, switch])) for switch in "01"
    )
    assert kept < usual / 10


def test_a_section_that_fails_leaves_the_others_their_figures(monkeypatch):
    def fails(*_):
        raise DataError("an odd number of people")

    sections = {"step": lambda *_: {"times": 1.0}, "loading": fails, "link": lambda *_: {}}
    monkeypatch.setattr("dfil.tools.bench.gpu.SECTIONS", sections)
    found = measure_gpu()
    assert found["step"]["times"] == 1.0 and "seconds" in found["link"]
    assert found["loading"]["missing"] == "an odd number of people"
