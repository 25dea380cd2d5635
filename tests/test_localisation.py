"""Pointing game, energy and in-time AUC against loops; the crops' masks; the cells of their
tables.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from dfil import models, profiles
from dfil.explain import localisation
from dfil.results import metrics, tables
from dfil.system.errors import DataError, RunError
from dfil.train.runs import Run, RunSpec
from dfil.train.snippets import normalise


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_both_measures_against_loops(rng):
    maps, masks = rng.random((3, 4, 9, 7)), rng.random((3, 4, 9, 7)) < 0.3
    masks[1, 2] = False  # a frame that shows nothing forged
    hits = frames = 0
    inside = total = 0.0
    for u in range(3):
        for t in range(4):
            if not masks[u, t].any():
                continue
            frames += 1
            best, place = -1.0, None
            for i in range(9):
                for j in range(7):
                    total += maps[u, t, i, j]
                    inside += maps[u, t, i, j] * masks[u, t, i, j]
                    if maps[u, t, i, j] > best:
                        best, place = maps[u, t, i, j], (i, j)
            hits += bool(masks[u, t][place])
    assert frames == 11
    assert localisation.pointing_game(maps, masks) == pytest.approx(hits / frames)
    assert localisation.energy_inside(maps, masks) == pytest.approx(inside / total)


def test_extremes():
    masks = np.zeros((1, 2, 6, 6), bool)
    masks[..., 2:4, 2:4] = True
    assert (
        localisation.pointing_game(masks * 1.0, masks)
        == localisation.energy_inside(masks * 1.0, masks)
        == 1
    )
    assert (
        localisation.pointing_game(1.0 - masks, masks)
        == localisation.energy_inside(1.0 - masks, masks)
        == 0
    )
    assert localisation.energy_inside(np.ones(masks.shape), masks) == pytest.approx(4 / 36)
    plateau = np.zeros(masks.shape)
    plateau[..., 3:5, 2] = 7.0  # one of its two pixels is forged
    assert localisation.pointing_game(plateau, masks) == 0.5
    masks[..., 0, 0] = True
    zero = np.zeros(masks.shape)  # its first pixel is forged, and still it points nowhere
    assert localisation.pointing_game(zero, masks) == localisation.energy_inside(zero, masks) == 0


def test_refusals():
    masks = np.ones((1, 4, 4), bool)
    with pytest.raises(DataError, match="negative"):
        localisation.energy_inside(-np.ones((1, 4, 4)), masks)
    with pytest.raises(DataError, match="nothing to point at"):
        localisation.pointing_game(np.ones((1, 4, 4)), ~masks)
    with pytest.raises(DataError, match="do not go with"):
        localisation.energy_inside(np.ones((1, 4, 5)), masks)


def test_priors_know_nothing_and_the_whole_crop_gives_the_masks_share():
    x = torch.zeros((8, 4, 3, 32, 32), dtype=torch.uint8)
    found = localisation.priors(x)
    masks = np.zeros((8, 4, 32, 32), bool)
    masks[..., 16:, :] = True
    assert localisation.energy_inside(found["whole crop"], masks) == pytest.approx(0.5)
    assert localisation.pointing_game(found["whole crop"], masks) == pytest.approx(0.5)
    assert localisation.energy_inside(found["centre prior"], masks) == pytest.approx(0.5)
    centre = found["centre prior"][0, 0]
    assert centre[15, 15] == centre.max() and np.allclose(centre, centre[::-1, ::-1])
    assert centre[15, 15 + 8] / centre[15, 15] == pytest.approx(
        np.exp(-(7.5**2 - 0.5**2) / (2 * 8**2))
    )


def test_second_difference_against_a_loop(rng):
    x = torch.from_numpy(rng.integers(0, 256, (2, 5, 3, 4, 4), dtype=np.uint8))
    found = localisation.second_difference(x)["second difference"]
    clip = x.numpy().astype(float)
    for u in range(2):
        for t in range(5):
            s = min(max(t, 1), 3)
            expected = np.mean(
                [abs(clip[u, s + 1, c] - 2 * clip[u, s, c] + clip[u, s - 1, c]) for c in range(3)],
                axis=0,
            )
            np.testing.assert_allclose(found[u, t], expected)


def test_a_video_comes_with_the_masks_of_its_own_frames(tiny_store, tmp_path):
    profile = replace(profiles.SMOKE, test_snippets=3)
    spec = RunSpec.of_table(profile, "table1", "dil", "ffpp", "c23", ("Deepfakes",))
    run = Run(tmp_path, spec, profile)
    (first, *_) = ids = localisation.fakes(tiny_store, "c23", "Deepfakes")
    assert len(ids) == 2 and localisation.fakes(tiny_store, "c23", "Deepfakes", most=1) == [first]
    assert localisation.fakes(tiny_store, "c40", "Deepfakes") == []
    with pytest.raises(RunError, match="-1 videos at most: 0 stands for all"):
        localisation.fakes(tiny_store, "c23", "Deepfakes", most=-1)
    for quality, what in (("C23", "no quality 'C23'"), ("c40", "no test video of c40")):
        with pytest.raises(RunError, match=what):
            localisation.dil_runs(None, tiny_store, quality)
    video = localisation.load(run, tiny_store, first)
    assert (
        video.x.shape == (3, 4, 3, 32, 32)
        and video.masks.shape == (3, 4, 32, 32)
        and video.masks.dtype == bool
    )
    assert video.numbers.shape == (3, 4) and (np.diff(video.numbers, axis=1) == 1).all()
    for u in range(3):
        number = int(video.numbers[u, 0])
        np.testing.assert_array_equal(
            video.clip_uthwc[u], tiny_store.open(first).snippet(number, 4, 32)
        )
        np.testing.assert_array_equal(
            video.masks[u], tiny_store.mask_snippets(first, [number], 4, 32)[0]
        )
    assert 0.05 < video.masks.mean() < 0.9
    assert localisation.load(run, tiny_store, first, masks=False).masks is None
    real = tiny_store.index.query("label == 0")["video_id"].iloc[0]
    assert localisation.load(run, tiny_store, real).masks is None
    with pytest.raises(DataError, match="no video"):
        localisation.load(run, tiny_store, "c23/Deepfakes/999_998")


def test_measured_videos_become_cells_with_intervals(rng):
    x = torch.zeros((2, 4, 3, 8, 8), dtype=torch.uint8)
    masks = np.zeros((2, 4, 8, 8), bool)
    masks[..., 2:6, 2:6] = True
    videos = [
        localisation.Video(f"v{i}", "Deepfakes", x, np.zeros((2, 4)), masks if i < 9 else None)
        for i in range(10)
    ]
    videos += [localisation.Video("w", "FaceSwap", x, np.zeros((2, 4)), None)]
    measured = localisation.measure(
        videos,
        [lambda x: {"noise": rng.random((2, 4, 8, 8)), "truth": masks * 1.0}, localisation.priors],
    )
    assert len(measured) == 11 * 4 and measured["pointing"].isna().sum() == 2 * 4
    cells = localisation.located(measured, {"Deepfakes": "run-1", "FaceSwap": "run-1"})
    rows = localisation.rows(["noise", "truth", "whole crop", "centre prior"])
    assert (
        len(rows) == 8
        and rows[0] == "noise: pointing game"
        and set(cells) == {(row, "Deepfakes") for row in rows}
    )
    assert cells["noise: pointing game", "Deepfakes"].runs == ["run-1"]
    theirs = localisation.located(
        measured,
        {"Deepfakes": "a", "FaceSwap": "a"},
        {"noise": {"Deepfakes": "b", "FaceSwap": "b"}},
    )
    assert theirs["noise: pointing game", "Deepfakes"].runs == ["b"]
    assert theirs["truth: pointing game", "Deepfakes"].runs == ["a"]
    more = localisation.located(measured.assign(ends=np.nan), {"Deepfakes": "a", "FaceSwap": "a"})
    assert set(more) == set(cells), "a further column that is empty takes no map away"
    noise = measured.query("row == 'noise'").dropna()
    cell = cells["noise: pointing game", "Deepfakes"].estimate
    assert (cell.value, cell.n) == (pytest.approx(noise["pointing"].mean()), 9)
    assert (cell.low, cell.high) == metrics.wilson(cell.value, 9)
    energy = cells["noise: energy in the mask", "Deepfakes"].estimate
    assert energy.low < energy.value < energy.high and energy.value == pytest.approx(
        noise["energy"].mean()
    )
    layout = tables.grid("fig3", "t", localisation.METRIC, rows, ["Deepfakes", "FaceSwap"])
    df = tables.build(layout, cells, localisation.NO_MASK, synthetic=True)
    assert (
        df.query("column == 'FaceSwap'")["ours"].isna().all()
        and (df.query("column == 'FaceSwap'")["note"] == "no mask").all()
    )
    assert (
        df.query("column == 'Deepfakes'")["note"]
        .eq("synthetic data; 1 of 10 videos have no mask")
        .all()
    )


def test_bootstrap_interval_is_about_the_normal_one(rng):
    values = rng.normal(0.5, 0.1, 400)
    estimate = localisation.mean_over_videos(values)
    half = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)


def test_in_time_takes_each_video_by_itself(rng):
    lines = []
    for video in range(6):
        for frame in range(20):
            forged = 5 <= frame < 12 if video < 5 else False
            good = forged + 100 * video  # an offset between videos must not count
            lines += [
                (f"v{video}", "short", "good", forged, good),
                (f"v{video}", "short", "noise", forged, rng.random()),
            ]
    frames = pd.DataFrame(lines, columns=["video_id", "column", "row", "forged", "value"])
    cells = localisation.in_time(frames, "run-1")
    assert cells["good", "short"].estimate.value == 1 and cells["good", "short"].estimate.n == 5
    assert cells["good", "short"].notes == ("1 of 6 videos show one kind of frame only",)
    assert cells["good", "short"].runs == ["run-1"]
    part = frames[(frames["row"] == "noise") & (frames["video_id"] == "v0")]
    wins = [
        (f > r) + 0.5 * (f == r)
        for f in part.loc[part["forged"], "value"]
        for r in part.loc[~part["forged"], "value"]
    ]
    only = localisation.in_time(part, "k")["noise", "short"].estimate
    assert only.value == pytest.approx(np.mean(wins))


def test_against_pairs_the_videos(rng):
    base = rng.random(30)
    lines = [
        (f"v{i}", "Deepfakes", row, value, value)
        for i, b in enumerate(base)
        for row, value in (("flat", b), ("better", b + 0.1))
    ]
    measured = pd.DataFrame(
        lines, columns=["video_id", "manipulation", "row", "pointing", "energy"]
    )
    found = localisation.gain_over(measured, "flat")
    assert len(found) == 2 and set(found["map"]) == {"better"} and (found["n"] == 30).all()
    np.testing.assert_allclose(
        found[["difference", "low", "high"]], 0.1
    )  # the videos' own spread cancels


def test_a_panel_shows_one_snippet_and_the_videos_probability(rng):
    torch.manual_seed(0)
    model = models.build("dil", depth=(1, 1, 1, 1), width=4, stem="small").eval()
    x = torch.from_numpy(rng.integers(0, 256, (3, 4, 3, 32, 32), dtype=np.uint8))
    maps = rng.random((3, 4, 32, 32))
    video = localisation.Video("v", "FaceSwap", x, np.zeros((3, 4)), None)
    head, (frames, masks, shown) = localisation.panel(video, model, 1, [lambda x: {"a": maps}])
    probability = torch.sigmoid(model(normalise(x)[None])).item()
    assert head == f"FaceSwap, probability of fake {probability:.2f}" and masks is None
    assert np.array_equal(frames, x[1].permute(0, 2, 3, 1).numpy()) and np.array_equal(
        shown["a"], maps[1]
    )


def test_measuring_in_time_gives_every_frame_its_own_truth(tiny_store, tmp_path):
    profile = replace(profiles.SMOKE, test_snippets=3)
    spec = RunSpec.of_table(profile, "table1", "dil", "ffpp", "c23", ("Deepfakes",))
    run = Run(tmp_path, spec, profile)
    short, long = localisation.fakes(tiny_store, "c23", "Deepfakes")
    truth = {short: np.arange(20) < 8, long: np.arange(20) < 16}
    clips = localisation.PartlyForged(run, tiny_store, [short, long, "c23/real/006"], truth)
    numbers = localisation.load(run, tiny_store, short, masks=False).numbers
    found = localisation.measure_in_time(clips, [lambda x: {"when": numbers.astype(float)}])
    assert len(found) == 2 * 12 and found["column"].unique().tolist() == [
        "short movements",
        "long movements",
    ]
    assert (found.query("video_id == @short")["forged"] == (numbers.ravel() < 8)).all()
    cells = localisation.in_time(found, "k")
    assert (
        cells["when", "short movements"].estimate.value == 0
    )  # later frames have higher values and are not forged
    assert (
        len(localisation.measure_in_time(replace(clips, truth={}), []))
        == len(localisation.measure_in_time("none there", []))
        == 0
    )
    known = replace(clips, ids=[long, short])
    assert known.kinds() == {"short movements": [short], "long movements": [long]}
    assert replace(known, truth={}).kinds() == {"test fake 1": [long], "test fake 2": [short]}


def test_peak_moves_counts_steps_against_a_loop():
    maps = np.zeros((2, 4, 20, 20))
    places = [[(0, 0), (0, 1), (0, 9), (0, 9)], [(5, 5), (19, 5), (5, 5), (6, 6)]]
    for u, row in enumerate(places):
        for t, (i, j) in enumerate(row):
            maps[u, t, i, j] = 1.0
    far = sum(
        np.hypot(a[0] - b[0], a[1] - b[1]) > 2
        for row in places
        for a, b in zip(row, row[1:], strict=False)
    )
    assert far == 3 and localisation.peak_moves(maps) == pytest.approx(far / 6)
