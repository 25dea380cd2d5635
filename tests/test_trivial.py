"""Trivial detectors: nothing in the control, something where codecs leak, people kept apart."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from dfil.datasets import load_records
from dfil.explain import trivial
from dfil.faces.preprocess import preprocess
from dfil.results import tables
from dfil.synthetic import SETTINGS, write_ffpp

PEOPLE = 16


def looked_at(folder, setting):
    """Features of 16 people and their Deepfakes, 16 frames each."""
    sizes = {"train": PEOPLE, "val": 0, "test": 0, "frames": 16, "manipulations": ["Deepfakes"]}
    tree = write_ffpp(folder / "tree", setting, qualities=["c23"], jobs=1, progress=False, **sizes)
    records = load_records("ffpp", tree)
    return trivial.features(preprocess(records, folder / "crops", 32, jobs=1, progress=False))


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    return looked_at(tmp_path_factory.mktemp("control"), "temporal-only")


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """The same clips as coded for the other settings, with P and B frames."""
    setting = replace(SETTINGS["temporal-only"], crf={"c23": 23}, qp={}, version=1)
    return looked_at(tmp_path_factory.mktemp("leaking"), setting)


def test_nothing_trivial_tells_real_from_forged_in_the_control(control):
    df = trivial.reach({"temporal-only": control})
    assert df["column"].unique().tolist() == ["temporal-only Deepfakes"]
    assert df["row"].tolist() == list(trivial.DETECTORS) and df["ours"].notna().all()
    assert ((df["ci_low"] <= 0.5) & (0.5 <= df["ci_high"])).all(), df[["row", "ours"]]
    sizes = df[df["row"].isin(["file size", "packet sizes", "number of frames"])]
    assert (sizes["ours"] == 0.5).all()  # the same for every clip, not only on average
    assert (df["n_videos"] == 2 * PEOPLE).all() and df["note"].str.contains("8 people").all()
    assert df["note"].str.contains("synthetic").all() and list(df.columns) == tables.COLUMNS


def test_packets_tell_them_apart_where_frames_are_coded_from_their_neighbours(leaking):
    found = trivial.auc(trivial.scores(leaking, "packet sizes"))
    assert found.value > 0.75 and found.low > 0.5, found


def test_nobody_is_tested_by_what_was_trained_on_them():
    people = [f"p{i}" for i in range(14)]
    rng = np.random.default_rng(0)
    rows = []
    for person in people:  # features that say who it is, and labels that follow the person
        label, own = rng.integers(2), rng.normal(size=(1, 14))
        for k in range(2):
            rows.append((f"{person}-{k}", label, "", person, own))
    looked = pd.DataFrame(rows, columns=["video_id", "label", "manipulation", "person", "x"])
    kept_apart = trivial.scores(looked, "x")
    mixed = trivial.scores(looked.assign(person=[f"{i % 7}" for i in range(28)]), "x")
    right = [np.mean((s["score"] > 0) == (s["label"] == 1)) for s in (kept_apart, mixed)]
    assert right[0] < 0.8 < right[1]


def test_what_says_nothing_is_not_below_chance_where_nobody_is_both_real_and_forged():
    people = [f"p{i}" for i in range(60) for _ in range(i % 3 + 1)]
    label = [int(person[1:]) % 2 for person in people]
    looked = pd.DataFrame({"person": people, "label": label, "manipulation": ""})
    looked = looked.assign(
        video_id=[str(i) for i in range(len(people))], x=[np.ones((1, 2))] * len(people)
    )
    assert looked.groupby("label").size().nunique() == 1 and looked["person"].nunique() == 60
    scored = trivial.scores(looked, "x")
    assert trivial.auc(scored).value == pytest.approx(0.5, abs=1e-6)


def test_the_interval_takes_people_as_independent():
    rng = np.random.default_rng(0)
    label, one = np.tile([0, 1], 30), rng.normal(size=60) + np.tile([0, 0.7], 30)
    once = pd.DataFrame({"video_id": map(str, range(60)), "label": label, "score": one})
    once["person"] = once["video_id"].astype(int) // 2
    again = pd.concat([once, once.assign(video_id="x" + once["video_id"])], ignore_index=True)
    single, double = trivial.auc(once), trivial.auc(again)
    assert single.value == pytest.approx(double.value) and double.n == 120
    assert double.high - double.low > 0.9 * (single.high - single.low)  # copies add no people


def test_sharper_and_flatter_frames_are_told_apart():
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    box = np.s_[16:48, 16:48]
    sharp, flat = trivial.sharpness(noisy, box), trivial.sharpness(np.full_like(noisy, 90), box)
    assert len(sharp) == 11 and (sharp[:5] > flat[:5]).all() and flat[6] == 90
    assert flat[7] == flat[8] == 1 and sharp[8] < 0.1


def test_numbered_pictures_have_no_packets(control):
    pictures = control.assign(**{"packet sizes": [np.empty((0, 1))] * len(control)})
    df = trivial.reach({"pictures": pictures}).set_index("row")
    assert np.isnan(df.loc["packet sizes", "ours"]) and df.loc["mean colour", "n_videos"] == 32
    assert df.loc["packet sizes", "note"] == trivial.NO_PACKETS


def test_numbered_pictures_are_found_by_the_numbers_that_the_store_gives_them(tmp_path):
    numbers = [2335, 2336, 2337, 2338, 2339, 2341]  # the owners' begin anywhere and have gaps
    for number in numbers:
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((16, 16, 3), number - 2300, np.uint8))
    found = dict(trivial._pictures(tmp_path))
    assert [frame.mean() for frame in found.values()] == [number - 2300 for number in numbers]
    assert list(found) == [0, 1, 2, 3, 4, 6]
