"""The tree of doses, what is measured on it, and its figure."""

import numpy as np
import pandas as pd
import pytest

from dfil import profiles
from dfil.explain import dose
from dfil.explain.inconsistency import difference_ratio
from dfil.results import tables
from dfil.synthetic import SETTINGS, render_target
from dfil.synthetic.codec import decode, encode
from dfil.system.errors import DataError


def test_every_test_person_is_filmed_at_every_dose_and_is_in_no_other_split():
    planned = dose.plan(train=4, val=2, test=2)
    test = planned[planned["split"] == "test"]
    fields = ["tau", "gap", "noise", "crf"]
    assert len(test) == 2 * len(dose.doses()) == 2 * len(test[fields].drop_duplicates())
    assert set(test["person"]) == {6, 7} and planned["number"].is_unique
    assert set(planned["person"][planned["split"] != "test"]) == set(range(6))
    assert (
        planned["number"] % 2 == planned["person"] % 2
    ).all()  # pairs lend each other their faces
    assert planned.equals(dose.plan(train=4, val=2, test=2))
    trained = dose.plan(train=200, val=0, test=2).query("split == 'train'")
    assert trained["tau"].min() >= 0.1 and trained["tau"].std() > 0.2
    assert set(trained["noise"]) == {0, 4, 8, 16} and set(trained["crf"]) == {0, 18, 28, 38}


def test_scores_are_sorted_by_their_dose():
    planned = dose.plan(train=2, val=2, test=2)
    scores = pd.DataFrame(
        {"video_id": [f"c23/real/{n:03d}" for n in planned["number"]], "score": planned["tau"]}
    )
    found = dose.by_dose(scores, planned)
    assert list(found)[:2] == ["tau 0", "tau 0.1"] and all(len(df) == 2 for df in found.values())
    assert (found["tau 0.1"]["score"] == 0.1).all() and (found["noise 8"]["score"] == 0.8).all()
    assert found["gap 1"].equals(found["crf 0"] if "crf 0" in found else found["tau 0.8"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        levels = {"tau": (0.8,), "gap": (1, 2), "noise": (0, 8), "crf": (28,)}
        patch.setattr(dose, "LEVELS", levels)
        patch.setattr(dose, "draw", lambda todo, work, *_, **__: [work(job) for job in todo])
        root = tmp_path_factory.mktemp("dose") / "tree"
        return dose.write_tree(root, train=0, val=0, test=2, frames=8)


def clips(tree, number):
    """The real clip and the fake of one target, and its mask."""
    real = decode(tree / f"original_sequences/youtube/c23/videos/{number:03d}.mp4")
    fake = tree / "manipulated_sequences/Deepfakes"
    name = f"{number:03d}_{number ^ 1:03d}.mp4"
    masks = decode(fake / "masks/videos" / name, "gray") > 127
    return real, decode(fake / "c23/videos" / name), masks


def test_a_gap_keeps_every_second_frame_and_noise_is_the_same_in_real_and_fake(tree):
    planned = pd.read_csv(tree / "doses.csv")
    plain, gap, noisy, coded = (
        planned.query(f"person == 0 and {what}")["number"].item()
        for what in ("gap == 1 and noise == 0 and crf == 0", "gap == 2", "noise == 8", "crf == 28")
    )
    one, two = clips(tree, plain), clips(tree, gap)
    assert one[0].shape == two[0].shape == (8, 320, 320, 3)
    twice = list(render_target(0, 1, SETTINGS["temporal-only"], methods=["Deepfakes"], frames=16))
    for clip, found in zip(twice, two, strict=False):
        assert np.array_equal(found, decode(encode(clip.frames_thwc[::2], qp=23)))
    real, fake, masks = clips(tree, noisy)
    outside = ~masks.any(0)
    outside[16:-16, 16:-16] = False  # the rim, where no block of the codec has a forged pixel
    grain = np.diff(real.astype(float), axis=0)[:, outside].std()
    still = np.diff(one[0].astype(float), axis=0)[:, outside].std()
    between = np.abs(real.astype(float) - fake)[:, outside].mean()  # what coding makes of it
    assert grain > 1.5 * still and between < 0.1 * grain
    assert not np.array_equal(clips(tree, coded)[0], one[0])
    assert difference_ratio(real) > difference_ratio(one[0])


def test_the_tree_is_written_once(tree):
    files = {path: path.stat().st_mtime_ns for path in tree.rglob("*.mp4")}
    assert len(files) == 3 * 2 * 4
    with pytest.raises(DataError, match="other parameters"):
        dose.write_tree(tree, train=0, val=0, test=2, frames=9)
    assert files == {path: path.stat().st_mtime_ns for path in tree.rglob("*.mp4")}


def test_the_ratio_of_a_video_is_the_median_of_its_windows(tiny_store):
    found = dose.ratios(tiny_store, 32)
    assert set(found["split"]) == {"test"} and len(found) == 4
    crops = tiny_store.open(found["video_id"].iloc[0])
    windows = [difference_ratio(crops.snippet(start, 16, 32)) for start in (0,)]
    assert crops.runs == [(0, 20)] and found["score"].iloc[0] == pytest.approx(np.median(windows))


def test_the_figure_marks_where_clips_are_as_rough_as_real_footage():
    planned = dose.plan(train=2, val=2, test=4)
    test = planned[planned["split"] == "test"]
    rows = []
    for label in (0, 1):
        ids = test["number"].map("c23/real/{:03d}".format if not label else "c23/x/{:03d}_0".format)
        score = 1 + test["noise"] / 32 + 0.01 * np.arange(len(test)) * label
        rows.append(pd.DataFrame({"video_id": ids, "label": label, "score": score}))
    free = pd.concat(rows, ignore_index=True)
    rough = dose.roughness(free, planned)
    assert set(rough["metric"]) == {"ratio"} and rough["note"].str.contains("synthetic").all()
    real = rough[rough["row"] == "real clips"].set_index("column")["ours"]
    assert real["noise 8"] == pytest.approx(1.25) and real["tau 0"] == pytest.approx(1)
    df = dose.response({}, None, planned, free)
    assert list(df.columns) == tables.COLUMNS and df["ours"].notna().all()
    fig = dose.figure(df, rough)
    said = [text.get_text() for ax in fig.axes for text in ax.texts]
    assert said == ["1.22", "1.37"] and "synthetic" in fig.get_suptitle()
    assert fig.get_figheight() * 110 <= 647


def test_a_profile_without_built_in_data_is_refused():
    with pytest.raises(DataError, match="no built-in data"):
        dose.sizes(profiles.PAPER)
    assert dose.sizes(profiles.SMOKE)["test"] == 2
