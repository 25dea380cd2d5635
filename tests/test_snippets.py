"""Which frames a snippet has, and what a batch is made of."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from dfil.system.errors import DataError
from dfil.train.snippets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SnippetDataset,
    batch_as_read,
    batches,
    normalise,
    snippet_starts,
)
from dfil.train.spec import unpaired


@pytest.mark.parametrize("frames", [16, 17, 40, 333])
@pytest.mark.parametrize("snippets", [4, 8])
def test_starts_stay_inside_the_video_and_in_order(frames, snippets):
    for rng in (None, np.random.default_rng(0)):
        starts = snippet_starts([(0, frames)], snippets, 4, rng=rng)
        assert len(starts) == snippets
        assert (np.diff(starts) >= 0).all() and starts.min() >= 0 and starts.max() <= frames - 4


def test_random_starts_cover_their_segment_and_no_other():
    rng = np.random.default_rng(0)
    drawn = np.array([snippet_starts([(0, 40)], 4, 4, rng=rng) for _ in range(400)])
    for u in range(4):
        assert set(drawn[:, u]) == set(
            range(10 * u, 10 * u + 7)
        )  # frames 10u .. 10u + 9 hold 7 snippets of 4


def test_a_segment_shorter_than_a_snippet_still_draws():
    rng = np.random.default_rng(0)
    drawn = np.array(
        [snippet_starts([(0, 40)], 4, 4, stride=4, rng=rng) for _ in range(200)]
    )  # 13 frames in segments of 10
    assert drawn.min() == 0 and drawn.max() == 27
    assert all(len(set(column)) >= 4 for column in drawn.T)
    assert (np.abs(drawn + 6.5 - [5, 15, 25, 35]) <= 5).all()


def test_testing_is_centred():
    assert snippet_starts([(0, 80)], 8, 4).tolist() == [10 * u + 3 for u in range(8)]


def test_a_snippet_never_crosses_a_gap():
    runs = [(3, 6), (20, 4), (30, 3), (40, 9)]
    stored = {f for first, n in runs for f in range(first, first + n)}
    for rng in (None, np.random.default_rng(1)):
        for start in snippet_starts(runs, 8, 4, rng=rng):
            assert {start + t for t in range(4)} <= stored
            assert sum(first <= start and start + 4 <= first + n for first, n in runs) == 1


def test_frames_four_apart_need_thirteen():
    assert snippet_starts([(0, 13)], 2, 4, stride=4).tolist() == [0, 0]
    with pytest.raises(DataError, match="needs 13 consecutive frames; the longest stretch has 12"):
        snippet_starts([(0, 12)], 2, 4, stride=4)
    with pytest.raises(DataError, match="longest stretch has 0"):
        snippet_starts([], 2, 4)


def index(pairs=6, manipulations=("Deepfakes", "FaceSwap"), missing=()):
    rows = [("real", 0, f"{i:03d}") for i in range(pairs) if i not in missing]
    rows += [(m, 1, f"{i:03d}") for m in manipulations for i in range(pairs)]
    return pd.DataFrame(rows, columns=["manipulation", "label", "target"]).assign(compression="c23")


def test_paired_batches_hold_each_fake_once_beside_its_real_clip():
    rows = index()
    epoch = batches(rows, 5, paired=True, rng=np.random.default_rng(0))
    flat = [i for batch in epoch for i in batch]
    assert all(len(batch) % 2 == 0 for batch in epoch) and len(epoch[0]) == 4
    assert (
        sorted(i for i in flat if rows["label"][i] == 1) == rows.index[rows["label"] == 1].tolist()
    )
    for real, fake in zip(flat[::2], flat[1::2], strict=True):
        assert (rows["label"][real], rows["label"][fake]) == (0, 1) and rows["target"][
            real
        ] == rows["target"][fake]


def test_a_fake_without_its_real_clip_gets_another():
    rows = index(missing=(2, 3))
    flat = [
        i for batch in batches(rows, 4, paired=True, rng=np.random.default_rng(0)) for i in batch
    ]
    assert (rows["label"].to_numpy()[flat] == [0, 1] * 12).all()
    with pytest.raises(DataError, match="no real video"):
        batches(
            rows[rows["label"] == 1].reset_index(), 4, paired=True, rng=np.random.default_rng(0)
        )


def test_a_pair_is_the_smallest_paired_batch():
    epoch = batches(index(), 1, paired=True, rng=np.random.default_rng(0))
    assert {len(batch) for batch in epoch} == {2} and len(epoch) == 12


def never_drawn(rows) -> set[int]:
    epochs = [
        batches(rows, 4, True, np.random.default_rng(seed), redraw=False) for seed in range(9)
    ]
    return {*range(len(rows))} - {i for epoch in epochs for batch in epoch for i in batch}


def test_real_clips_that_no_pair_shows_are_counted():
    whole = index().assign(video_id=lambda df: df.index.astype(str))
    alone = whole[(whole["label"] == 0) | (whole["target"] > "001")].reset_index(drop=True)
    said = "2 of 6 real training videos have no fake and are in no pair"
    assert len(never_drawn(alone)) == 2 and unpaired(alone) == said
    astray = alone.assign(target=alone["target"].replace("002", "009", regex=False))
    astray.loc[astray["label"] == 0, "target"] = alone["target"]  # fakes without their real
    anonymous = alone.assign(target="")
    for rows in (whole, astray, anonymous):
        assert not never_drawn(rows) and unpaired(rows) == ""


def test_unpaired_batches_hold_each_video_once_and_none_alone():
    rows = index(pairs=7)
    epoch = batches(rows, 10, paired=False, rng=np.random.default_rng(0))
    assert sorted(i for batch in epoch for i in batch) == list(range(21)) and [
        len(b) for b in epoch
    ] == [10, 11]


def test_normalise_against_its_formula():
    x = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    expected = (x.double().numpy() / 255 - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(
        IMAGENET_STD, (3, 1, 1)
    )
    np.testing.assert_allclose(normalise(x).numpy(), expected, atol=1e-5)


def test_a_video_shorter_than_a_dense_clip_is_shown_whole_and_held(tiny_store):
    rows = tiny_store.index[tiny_store.index["status"] == "ok"].head(1)
    crops = tiny_store.open(rows["video_id"].iloc[0])

    class TenFrames:
        runs, snippet, limits = [(3, 10)], crops.snippet, crops.limits

        def open(self, video_id, track):
            return self

        def shared_runs(self, other, at_least):
            return self.runs

    x, _, _ = SnippetDataset(TenFrames(), rows, snippets=1, frames=13, size=16)[0]
    assert x.shape == (1, 13, 3, 16, 16)
    np.testing.assert_array_equal(x[0, :10].permute(0, 2, 3, 1).numpy(), crops.snippet(3, 10, 16))
    assert (x[0, 10:] == x[0, 9]).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_its_items_with_the_pixels_channels_last(tiny_store, workers):
    rows = tiny_store.index[tiny_store.index["status"] == "ok"]
    data = SnippetDataset(tiny_store, rows, snippets=2, frames=4, size=16, train=True)
    (batch,) = DataLoader(
        data, batch_sampler=[[2, 0]], collate_fn=batch_as_read, num_workers=workers
    )
    x, labels, items = batch
    assert (
        x.shape == (2, 2, 4, 3, 16, 16)
        and x.permute(0, 1, 2, 4, 5, 3).is_contiguous()
        and items.tolist() == [2, 0]
    )
    for got, label, item in zip(x, labels.tolist(), items.tolist(), strict=True):
        alone, its_label, number = data[item]
        assert torch.equal(got, alone) and (label, item) == (its_label, number) == (
            rows["label"].iloc[item],
            item,
        )


def test_of_a_short_video_frames_are_repeated_evenly_and_in_order():
    starts = snippet_starts([(0, 24)], 32, 1)
    assert (np.diff(starts) >= 0).all()
    assert np.bincount(starts, minlength=24).max() <= 2


def test_between_gaps_no_snippet_is_taken_twice_and_they_stay_in_order():
    starts = snippet_starts([(0, 16), (95, 16), (189, 16), (284, 16)], 8, 4)
    assert (np.diff(starts) >= 4).all()


def test_in_clips_longer_than_a_box_serves_every_frame_has_its_own_and_the_last_is_held(tiny_store):
    rows = tiny_store.index[tiny_store.index["status"] == "ok"].iloc[:1]
    data = SnippetDataset(tiny_store, rows, snippets=1, frames=24, size=32)
    crops = tiny_store.open(rows["video_id"].iloc[0])
    first, count = crops.longest
    assert tiny_store.meta["reach"] < count < 24
    found = data[0][0][0].permute(0, 2, 3, 1).numpy()  # T, H, W, C
    for t in range(24):
        own = crops.snippet(first + min(t, count - 1), 1, 32, box="exact")[0]
        assert (found[t] == own).all()


@pytest.mark.parametrize("target", ["", "someone"])
def test_every_real_clip_of_a_target_is_drawn_and_without_targets_every_one(target):
    reals = [{"label": 0, "target": target, "compression": ""} for _ in range(5)]
    rows = pd.DataFrame(reals + [{**reals[0], "label": 1}] * 5)
    rng = np.random.default_rng(0)
    seen = [i for _ in range(30) for batch in batches(rows, 4, True, rng) for i in batch]
    assert set(seen) == set(range(10))
