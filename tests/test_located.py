"""Claims about maps are decided from values per video, as claims about scores are."""

import numpy as np
import pandas as pd
import pytest

from dfil.explain import localisation
from dfil.results import claims, decide, located
from dfil.system.errors import DataError, RunError


def measured(gain, people=12, seed=0):
    """Energy of two maps on four fakes of each person, one of them further on for person 0."""
    rng, lines = np.random.default_rng(seed), []
    for column in ("Deepfakes", "Face2Face"):
        for person in range(people):
            for take in range(1 + (person == 0 and column == "Deepfakes")):
                base = rng.uniform(0.2, 0.6)
                own = gain + rng.normal(0, 0.02)
                video = f"{column}/{person}/{take}"
                lines += [(video, f"p{person}", column, "map", base + own)]
                lines += [(video, f"p{person}", column, "flat", base)]
    return pd.DataFrame(lines, columns=located.COLUMNS[:5])


def test_the_difference_is_the_mean_over_columns_of_paired_differences():
    df = measured(0.1)
    found = located.compare(df, "map", "flat")
    by_hand = []
    for _, part in df.groupby("column"):
        value = part.set_index(["video_id", "row"])["value"]
        videos = part["video_id"].unique()
        by_hand.append(np.mean([value[v, "map"] - value[v, "flat"] for v in videos]))
    assert found.difference == pytest.approx(np.mean(by_hand))
    assert found.low < found.difference < found.high and found.p < 1e-6
    assert (found.n_people, found.n_videos, found.seeds) == (12, 25, 1)
    assert found.about == "these trainings"


def test_with_a_video_a_person_and_column_the_interval_is_that_of_the_people():
    df = measured(0.01)
    df = df[~df["video_id"].str.endswith("/1")]
    wide = df.pivot(index=["person", "column"], columns="row", values="value")
    person_n = (wide["map"] - wide["flat"]).groupby("person").mean()
    error = person_n.std(ddof=1) / np.sqrt(len(person_n))
    assert located.compare(df, "map", "flat").error == pytest.approx(error)


def test_a_person_seen_many_times_does_not_count_as_many_people():
    df = measured(0.05)
    many = pd.concat([df.assign(video_id=df["video_id"] + f"#{k}") for k in range(9)])
    once, often = (located.compare(each, "map", "flat") for each in (df, many))
    assert often.n_videos == 9 * once.n_videos
    assert often.error == pytest.approx(once.error)


def test_a_map_is_compared_with_a_number_too():
    found = located.compare(measured(0.0).query("row == 'flat'"), "flat", 0.4)
    assert abs(found.difference) < 0.1 and found.n_people == 12


@pytest.mark.parametrize("better, than", [("other", "flat"), ("map", "other")])
def test_a_map_that_was_not_measured_is_named(better, than):
    with pytest.raises(RunError, match="'other' was not measured"):
        located.compare(measured(0.1), better, than)


def test_claims_about_maps_are_decided_from_what_is_kept_of_them(tmp_path):
    names = {"map": "Grad-CAM (DIL)", "flat": "whole crop"}
    df = measured(0.1).assign(row=lambda df: df["row"].map(names))
    located.save(df, tmp_path, "fig3_localisation", synthetic=True)
    line = claims.write(tmp_path).query("table == 'fig3_localisation'").iloc[0]
    assert line["verdict"] == decide.SUPPORTED and line["note"] == "synthetic data"
    assert line["difference"] == pytest.approx(0.1, abs=0.02)
    assert claims.load(tmp_path / "claims.csv").query("verdict == 'supported'").shape[0] == 1
    (tmp_path / "located" / "fig3_localisation.csv").unlink()
    kept = claims.write(tmp_path).query("table == 'fig3_localisation'").iloc[0]
    assert kept["verdict"] == decide.SUPPORTED


def test_values_that_are_whole_numbers_are_values(tmp_path):
    located.save(measured(0.1).assign(value=1.0), tmp_path, "fig5_frames", synthetic=False)
    assert (located.load(tmp_path)["fig5_frames"]["value"] == 1).all()


def test_damaged_maps_are_named(tmp_path):
    (tmp_path / "located").mkdir()
    (tmp_path / "located" / "fig4_localisation.csv").write_text("nonsense")
    with pytest.raises(DataError, match="fig4_localisation.csv holds no measured maps"):
        located.load(tmp_path)


def test_a_videos_own_auc_leaves_out_videos_of_one_kind():
    frames = pd.DataFrame(
        [("a", "short", "map", f, v) for f, v in [(True, 3), (False, 1), (False, 2), (True, 1.5)]]
        + [("b", "short", "map", True, 1.0)],
        columns=["video_id", "column", "row", "forged", "value"],
    )
    found = localisation.own_auc(frames)
    assert found["video_id"].tolist() == ["a"] and found["value"].tolist() == [0.75]
