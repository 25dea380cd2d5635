"""`bench data` at its smallest size: the numbers mean nothing, what they are made of does."""

import cv2
import numpy as np
import pytest
import torch

from dfil.tools.bench import data as bench
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


def test_disk_is_that_of_the_files(tiny_store, pngs):
    disk = bench._disk(tiny_store, tiny_store, pngs)
    rows = tiny_store.index
    on_disk = sum((tiny_store.folder / name).stat().st_size for name in rows["crops"])
    assert disk["store"]["bytes_per_frame"] * rows["faces"].sum() == pytest.approx(
        on_disk, rel=0.05
    )
    assert disk["store"]["mb_per_video"] == pytest.approx(500e-6 * disk["store"]["bytes_per_frame"])
    assert disk["compact"]["gb_ffpp"] == pytest.approx(disk["store"]["gb_ffpp"] * 64 / 500)


def test_all_of_it_at_the_smallest_size():
    threads = torch.get_num_threads()
    found = bench.measure(size=48, people=2, frames=20, repeats=1, epochs=1)
    assert found["clips"] == 4 and found["ratio"] > 0 and torch.get_num_threads() == threads
    assert "compact" in bench.table(found) and "from 256-px PNG files" in bench.table(found)


def test_eight_test_snippets_of_the_compact_option_are_eight_places():
    stretches, each = bench.COMPACT["stretches"]
    for n in (120, 300, 500, 1000):
        runs = [(int(start), each) for start in np.linspace(0, n - each, stretches).round()]
        starts = bench.snippet_starts(runs, 8, 4)
        assert len(set(starts.tolist())) == 8 and np.diff(np.sort(starts)).min() >= 4
        assert len(bench.snippet_starts(runs, 1, 16)) == 1
