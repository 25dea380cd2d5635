"""`bench data` at its smallest size: the numbers mean nothing, what they are made of does."""

import cv2
import numpy as np
import pytest
import torch

from dfil.faces.settings import COMPACT
from dfil.tools.bench import data as bench
from dfil.tools.bench import disk
from dfil.train.snippets import SnippetDataset


@pytest.fixture(scope="module")
def pngs(tiny_store, tmp_path_factory):
    return bench._write_pngs(tiny_store, tmp_path_factory.mktemp("png"))


@pytest.fixture
def served(tiny_store):
    return SnippetDataset(tiny_store, tiny_store.index, snippets=2, frames=4, size=32, train=True)


def test_png_files_are_the_crops_of_the_stored_frames(tiny_store, pngs):
    video_id = tiny_store.index["video_id"][0]
    crops = tiny_store.open(video_id)
    assert sum(name[0] == video_id for name in pngs) == len(crops.frames)
    picture_hwc = cv2.imread(pngs[video_id, int(crops.frames[3])])[..., ::-1]
    assert np.array_equal(picture_hwc, crops.snippet(int(crops.frames[3]), 1, bench.PNG)[0])


def test_both_ways_serve_the_same_kind_of_item(tiny_store, served, pngs):
    ours, theirs = served[0], bench.PngDataset(served, pngs)[0]
    assert (
        ours[0].shape == theirs[0].shape
        and ours[0].dtype == theirs[0].dtype == torch.uint8
        and ours[1:] == theirs[1:]
    )
    first = bench.snippet_starts(
        tiny_store.open(served.rows["video_id"][0]).runs, 2, 4, rng=np.random.default_rng([0, 0])
    )[0]
    box_of_each = tiny_store.open(served.rows["video_id"][0]).snippet(
        int(first), 4, 32, box="frame"
    )
    difference = np.abs(theirs[0][0].permute(0, 2, 3, 1).numpy().astype(float) - box_of_each)
    assert difference.mean() < 12  # the same frames, resized twice


def test_speed_and_memory_are_measured(served, pngs):
    found = bench._speed(served, pngs, repeats=2)
    per_clip = found["milliseconds_per_clip"]
    assert all(value > 0 for value in per_clip.values())
    assert found["snippets_per_second"]["png"] == pytest.approx(2000 / per_clip["png"])
    memory = bench._memory(served, epochs=3)
    assert memory["own_after"] < memory["own"] + 64  # MiB


@pytest.mark.parametrize("name", disk.WAYS)
def test_every_way_gives_the_patches_back_in_any_order(tiny_store, name):
    crops = tiny_store.open(tiny_store.index["video_id"][0])
    kept = disk.Patches(crops, disk.WAYS[name])
    order = np.random.default_rng(0).permutation(len(crops.frames)).tolist()
    for n in [0, *order, len(crops.frames) - 1]:
        assert np.array_equal(kept[n], crops.patches[n])
    assert 0.05 < kept.bytes / crops.patches.nbytes < 0.9


def test_ways_are_measured_and_multiplied_by_the_datasets_videos(tiny_store, served):
    found = disk.ways(served, repeats=1)
    assert set(found) == {"raw", *disk.WAYS} and all(way["read"] > 0 for way in found.values())
    rows = disk.rows({"all frames": 300.0**2, "4 x 16": 100.0**2}, found)
    raw, compact = rows[0], next(row for row in rows if row["store"] == "4 x 16")
    assert raw["gb_ffpp"] == pytest.approx(3e-9 * 300**2 * 500 * 10_000)
    assert compact["gb_ffpp"] == pytest.approx(3e-9 * 100**2 * 64 * 10_000)
    assert compact["gb_all"] > 2 * compact["gb_ffpp"] and raw["of_step"]["cpu"] > 0
    assert [row["way"] for row in rows].count("raw") == 2 and len(rows) == 3 + len(disk.WAYS)


def test_stretches_of_a_long_clip_are_scored_like_all_of_it(tmp_path):
    found = disk.scores(tmp_path, people=2, frames=80)
    assert found["clips"] == 4 and 0 < found["apart"] < 0.5 and 0 < found["redrawn"] < 0.5
    about = disk.table({"rows": [], "about": "", "scores": found})
    assert "Scores of 4 synthetic clips of 80 frames" in about


def test_all_of_it_at_the_smallest_size():
    threads = torch.get_num_threads()
    small = {"size": 48, "people": 2, "frames": 20, "repeats": 1, "epochs": 1}
    found = bench.measure(**small, long=None)
    assert found["clips"] == 4 and found["ratio"] > 0 and torch.get_num_threads() == threads
    assert "| 4 x 16 | PNG |" in bench.table(found) and "from 256-px PNG files" in bench.table(
        found
    )


def test_eight_test_snippets_of_the_compact_option_are_eight_places():
    stretches, each = COMPACT["stretches"]
    for n in (120, 300, 500, 1000):
        runs = [(int(start), each) for start in np.linspace(0, n - each, stretches).round()]
        starts = bench.snippet_starts(runs, 8, 4)
        assert len(set(starts.tolist())) == 8 and np.diff(np.sort(starts)).min() >= 4
        assert len(bench.snippet_starts(runs, 1, 16)) == 1
