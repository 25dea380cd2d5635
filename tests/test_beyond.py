"""What is asked beyond the paper is decided from records, and speaks of rows that are trained."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from dfil import profiles
from dfil.explain import additions, no_forgery
from dfil.paper import AUC, Videos
from dfil.results import beyond, claims, decide, located, page, tables
from dfil.results.records import videos_of
from dfil.tools.study import work
from dfil.train.experiments import CellResult

ROWS = {"dil, jitter 1": 4.0, "dil, jitter 0": 0.2, "dil, forgeries": 4.1}
FILES = {"FaceSwap c40": "ffpp-c40", "celebdf": "celebdf-"}


def scores(skill: float, seed: int, column: str) -> pd.DataFrame:
    """Scores of a real and a fake video of each of 40 people, as a run's record has them."""
    label = np.tile([0, 1], 40)
    logits = skill * label + np.random.default_rng([seed, len(column)]).normal(size=80)
    compression = "c40" * column.endswith("c40")
    kind = column.split()[0]
    found = {
        "video_id": [f"{column}/{n}" for n in range(80)],
        "label": label,
        "manipulation": np.where(label == 1, kind, "real"),
        "compression": compression,
        "split": "test",
        "person": [f"p{n // 2}" for n in range(80)],
        "logit": logits.astype(np.float32),
    }
    return pd.DataFrame(found | {"score": expit(logits.astype(np.float32).astype(float))})


@pytest.fixture
def published(tmp_path) -> Path:
    """A folder with the table of detectors trained on no forgery, and the records of its runs."""
    results = {}
    for row, skill in ROWS.items():
        keys = [f"{row.replace(', ', '-').replace(' ', '')}-{seed}" for seed in range(3)]
        for column, file in FILES.items():
            each = [scores(skill, 10 * seed + len(row), column) for seed in range(3)]
            results[row, column] = CellResult(each, keys, seeds=(0, 1, 2))
            for key, df in zip(keys, each, strict=True):
                there = tmp_path / "runs" / key / "scores"
                there.mkdir(parents=True, exist_ok=True)
                df.drop(columns="score").to_parquet(there / f"{file}-test-0123456789.parquet")
    layout = tables.grid("no-forgery", "Title", AUC, list(ROWS), list(FILES))
    df = tables.build(layout, results, "", synthetic=True)
    tables.save(df, tmp_path / "tables", "no_forgery", "Title")
    return tmp_path


def test_questions_are_decided_from_the_records_and_the_others_are_not_run(published):
    found = beyond.write(published, tables.load(published / "tables"))
    assert list(found) == ["no_forgery"]
    df = found["no_forgery"].set_index("claim")
    gain = df.loc["dil gains from jitter (1 against 0)"]
    assert gain["verdict"] == decide.SUPPORTED and gain["low"] > 0 and gain["seeds"] == 3
    assert (gain["n_people"], gain["n_videos"], gain["metric"]) == (40, 160, AUC)
    assert df.loc["dil gains from forgeries (against jitter 1)", "verdict"] != decide.SUPPORTED
    assert df.loc["stil with jitter 1 recognises forgeries", "verdict"] == claims.NOT_RUN
    again = claims.load(published / "beyond_no_forgery.csv")
    pd.testing.assert_frame_equal(again, found["no_forgery"], rtol=1e-5)
    assert not (published / "beyond_additions.csv").exists()


def test_the_page_and_results_show_them_below_the_tables(published):
    html = page.build(published).read_text("utf-8")
    said = (published / "RESULTS.md").read_text("utf-8")
    for text in (html, said):
        assert "Trained on no forgery" in text and "dil gains from jitter (1 against 0)" in text
    assert html.count("Two additions to DIL") == 0 and html.index('id="beyond"') > html.index(
        'id="no_forgery"'
    )


def test_what_maps_are_worth_is_decided_from_the_clips_values(published):
    lines = [
        (f"c23/Deepfakes/{n}", f"p{n // 2}", "short movements", row, value + 0.1 * (n % 3))
        for n in range(40)
        for row, value in ((additions.MAP, 0.7), (additions.UT, 0.2))
    ]
    measured = pd.DataFrame(lines, columns=located.COLUMNS[:5])
    located.save(measured, published, "query_frames", True)
    title = published / "tables" / "no_forgery"
    for kind in (".csv", ".md"):
        title.with_suffix(kind).rename(published / "tables" / f"additions{kind}")
    df = beyond.write(published, tables.load(published / "tables"))["additions"]
    by_maps = df[df["table"] == "query_frames"]
    assert (by_maps["verdict"] == decide.SUPPORTED).all() and len(by_maps) == 2
    assert np.allclose(by_maps["difference"], [0.2975, 0.5])
    assert (df.loc[df["table"] == "additions", "verdict"] == claims.NOT_RUN).all()


def test_columns_name_their_test_videos():
    assert videos_of("no-forgery", "FaceSwap c40") == Videos("ffpp", "c40", ("FaceSwap",))
    assert videos_of("additions", "dfdc-preview") == Videos("dfdc-preview")


def test_every_question_is_about_rows_that_the_study_trains():
    items = work(profiles.get("study"))
    rows = {"no_forgery": 4 * len(no_forgery.METHODS), "additions": len(additions.ADDED)}
    for name, question in beyond.QUESTIONS.items():
        runs = [item for item in items if name in item.tables]
        assert len(runs) == rows[name] * len(profiles.get("study").seeds)
        assert all(("ffpp", "c23") in item.tests for item in runs)
        specs = no_forgery.specs(profiles.get("study"), no_forgery.METHODS, 0)
        there = {"no_forgery": specs, "additions": additions.ADDED}[name]
        of_rows = [c for c in question.claims if c.table == name]
        asked = {row for c in of_rows for row in (c.better, c.than) if row != 0.5}
        assert asked <= set(there)
    own = [set(item.tables) <= set(beyond.QUESTIONS) for item in items if item.spec.method == "i3d"]
    assert sum(own) == 15  # five seeds at three doses, in no table of the paper
    blended = [item for item in items if item.spec.fakes and "no_forgery" in item.tables]
    people, batch = profiles.STUDY.trees["ff-like"]["train"], profiles.STUDY.training.batch
    assert min(item.spec.training.epochs * -(-2 * people // batch) for item in blended) >= 460
