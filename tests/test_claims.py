"""Verdicts come from per-video scores in the records, and every claim speaks of what exists."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from dfil import models, paper
from dfil.results import claims, decide, located, records, tables
from dfil.results.notes import Notes
from dfil.system.errors import DataError
from dfil.tools.notebook import Notebook
from dfil.train import experiments
from dfil.train.experiments import CellResult

QUALITY = {"HQ": "c23", "LQ": "c40"}


def scores(skill, seed, column):
    """Scores of a real and a fake video of each of 40 people, as a run's record has them."""
    quality, kind = column.split()
    rng = np.random.default_rng([seed, len(column), ord(kind[0])])
    label = np.tile([0, 1], 40)
    name = paper.MANIPULATIONS[kind]
    logits = skill * (label - 0.5) + rng.normal(size=80)
    return pd.DataFrame(
        {
            "video_id": [f"{quality}/{('real', name)[i % 2]}/{i // 2}" for i in range(80)],
            "label": label,
            "manipulation": np.where(label == 1, name, "real"),
            "compression": QUALITY[quality],
            "split": "test",
            "person": [f"p{i // 2}" for i in range(80)],
            "logit": logits.astype(np.float32),
            "score": expit(logits.astype(np.float32).astype(float)),
        }
    )


SKILL = {"dil": 4.0, "resnet50": 0.3, "stil": 4.0}


def table1(rows=tuple(SKILL), seeds=2):
    return {
        (row, column.key): CellResult(
            [scores(SKILL[row], 10 * seed + len(row), column.key) for seed in range(seeds)],
            [f"{row}-{column.key.replace(' ', '-')}-{seed}" for seed in range(seeds)],
            seeds=tuple(range(seeds)),
        )
        for row in rows
        for column in paper.TABLES["table1"].columns
    }


def save(folder, results):
    """The table and the records of its runs, as a profile's folder has them."""
    table = paper.TABLES["table1"]
    df = tables.build(table, results, "left out", synthetic=True)
    tables.save(df, folder / "tables", "table1", table.title)
    for (_, column), result in results.items():
        for key, each in zip(result.runs, result.scores, strict=True):
            there = folder / "runs" / key / "scores"
            there.mkdir(parents=True, exist_ok=True)
            name = f"ffpp-{QUALITY[column.split()[0]]}-test-0123456789.parquet"
            each.drop(columns="score").to_parquet(there / name)


def line(df, better, than):
    (found,) = df[(df["better"] == better) & (df["than"] == than)].query("table == 'table1'").index
    return df.loc[found]


def test_a_claim_is_decided_from_the_scores_pooled_over_columns_and_seeds():
    df = claims.decided({"table1": table1()}, synthetic=["table1"])
    assert list(df.columns) == claims.COLUMNS and len(df) == len(claims.CLAIMS)
    won, even = line(df, "dil", "resnet50"), line(df, "dil", "stil")
    assert won["verdict"] == decide.SUPPORTED and won["low"] > 0 and won["p_holm"] < 0.05
    assert even["verdict"] in (decide.OPEN, decide.EQUIVALENT) and even["detectable"] > 0
    assert (won["n_people"], won["n_videos"], won["seeds"]) == (40, 400, 2)
    assert won["about"] == "the method" and won["note"] == "synthetic data"
    results = table1()
    by_hand = decide.compare(
        {c: list(r.scores) for (row, c), r in results.items() if row == "dil"},
        {c: list(r.scores) for (row, c), r in results.items() if row == "resnet50"},
    )
    assert won["difference"] == pytest.approx(by_hand.difference)


def test_two_rows_at_the_ceiling_are_named_as_such(monkeypatch):
    monkeypatch.setitem(SKILL, "stil", 60.0)
    monkeypatch.setitem(SKILL, "dil", 60.0)
    df = claims.decided({"table1": table1()}, synthetic=["table1"])
    stil, resnet50 = (line(df, "dil", than)["note"] for than in ("stil", "resnet50"))
    assert Notes.parse(stil).texts == (claims.AT_CEILING,) and Notes.parse(resnet50).texts == ()


def test_a_claim_decided_from_some_of_its_columns_names_them():
    whole = table1()
    assert "only" not in line(claims.decided({"table1": whole}), "dil", "resnet50")["note"]
    high = {place: each for place, each in whole.items() if place[1].startswith("HQ")}
    found = line(claims.decided({"table1": high}), "dil", "resnet50")
    assert "only HQ DF, HQ F2F, HQ FS, HQ NT" in found["note"] and found["verdict"] != "not run"
    del high["resnet50", "HQ F2F"]  # columns of both rows count
    found = line(claims.decided({"table1": high}), "dil", "resnet50")
    assert "only HQ DF, HQ FS, HQ NT" in found["note"]


def test_the_ceiling_is_that_of_a_claims_own_columns(monkeypatch):
    easy = {row: 60.0 for row in SKILL}
    monkeypatch.setitem(globals(), "SKILL", easy)
    both = table1()
    monkeypatch.setitem(globals(), "SKILL", dict.fromkeys(SKILL, 0.1))
    hard = table1()
    mixed = {(r, c): both[r, c] if c == "HQ DF" else hard[r, c] for r, c in hard}
    asked = claims.Claim("x", "table1", "dil", "stil", ("HQ DF",))
    (of_one,) = claims.decided({"table1": mixed}, asked=(asked,))["note"]
    assert claims.AT_CEILING in of_one
    (of_all,) = claims.decided({"table1": mixed}, asked=(replace(asked, columns=()),))["note"]
    assert claims.AT_CEILING not in of_all


def test_a_claim_without_scores_was_not_run_and_says_why():
    df = claims.decided({"table1": table1(["dil", "resnet50"])})
    left_out = line(df, "dil", "stil")
    assert (
        left_out["verdict"] == claims.NOT_RUN and left_out["note"] == "no scores of stil in table1"
    )
    assert pd.isna(left_out["difference"]) and pd.isna(left_out["n_videos"])
    assert (df["verdict"] != claims.NOT_RUN).sum() == 1


def test_claims_are_written_from_tables_and_records_alone(tmp_path):
    save(tmp_path, table1())
    df = claims.write(tmp_path)
    again = claims.load(tmp_path / "claims.csv")
    pd.testing.assert_frame_equal(again, df, rtol=1e-5)
    direct = claims.decided({"table1": table1()}, synthetic=["table1"])
    pd.testing.assert_frame_equal(again, direct, rtol=1e-5)
    assert claims.is_synthetic(again)
    first = (tmp_path / "claims.csv").read_bytes()
    claims.write(tmp_path)
    assert (tmp_path / "claims.csv").read_bytes() == first


def test_a_claim_stays_when_its_records_are_gone(tmp_path):
    save(tmp_path, table1())
    before = claims.write(tmp_path)
    for path in (tmp_path / "runs").glob("stil-*/scores/*"):
        path.unlink()
    after = claims.write(tmp_path)
    kept, fresh = line(after, "dil", "stil"), line(after, "dil", "resnet50")
    why = claims.KEPT.format("no scores of stil in table1")
    assert kept["note"] == f"synthetic data; {why}" and fresh["note"] == "synthetic data"
    assert kept["verdict"] == line(before, "dil", "stil")["verdict"]
    assert kept["detectable"] == pytest.approx(line(before, "dil", "stil")["detectable"], rel=1e-4)
    assert line(claims.write(tmp_path), "dil", "stil")["note"] == kept["note"]  # it is said once


def test_of_several_states_that_give_one_number_rows_are_compared_on_a_common_one(tmp_path):
    save(tmp_path, table1())
    before = claims.write(tmp_path)
    for path in (tmp_path / "runs").glob("dil-*/scores/*"):  # scored again after the tree had grown
        shutil.copy(path, path.with_name(f"{path.stem.rpartition('-')[0]}-00000first.parquet"))
    after = claims.write(tmp_path)
    assert line(after, "dil", "stil").equals(line(before, "dil", "stil"))
    assert line(after, "dil", "stil")["verdict"] != claims.NOT_RUN


def test_rows_that_were_scored_on_different_states_of_the_data_are_not_compared(tmp_path):
    save(tmp_path, table1())
    for path in (tmp_path / "runs").glob("stil-*/scores/*"):
        path.rename(path.with_name(f"{path.stem.rpartition('-')[0]}-00000other.parquet"))
    df = claims.write(tmp_path)
    refused, fresh = line(df, "dil", "stil"), line(df, "dil", "resnet50")
    assert refused["verdict"] == claims.NOT_RUN and fresh["verdict"] != claims.NOT_RUN
    assert refused["note"] == "the two rows were scored on different states of the data"


def test_published_claims_without_any_record_are_left_as_they_are(tmp_path):
    save(tmp_path, table1())
    claims.write(tmp_path)
    before = (tmp_path / "claims.csv").read_bytes()
    for path in (tmp_path / "runs").glob("*/scores/*"):
        path.unlink()
    assert line(claims.write(tmp_path), "dil", "stil")["note"] == "synthetic data"
    assert (tmp_path / "claims.csv").read_bytes() == before


def test_records_that_give_another_number_than_the_table_are_named(tmp_path):
    results = table1(["dil"])
    save(tmp_path, results)
    df = tables.load(tmp_path / "tables")["table1"]
    found, reasons = records.found(df, tmp_path / "runs")
    assert set(found) == set(results) and not reasons
    (path,) = (tmp_path / "runs" / "dil-HQ-DF-1" / "scores").iterdir()
    changed = pd.read_parquet(path)
    changed.assign(logit=-changed["logit"]).to_parquet(path)
    found, reasons = records.found(df, tmp_path / "runs")
    assert reasons == {("dil", "HQ DF"): "the record of dil-HQ-DF-1 gives another number"}
    assert len(found) == 7
    path.unlink()
    assert "is not there" in records.found(df, tmp_path / "runs")[1]["dil", "HQ DF"]


def test_scores_of_other_data_beside_the_published_ones_do_not_confuse(tmp_path):
    results = table1(["dil"])
    save(tmp_path, results)
    there = tmp_path / "runs" / "dil-HQ-DF-0" / "scores"
    scores(0.1, 99, "HQ DF").drop(columns="score").to_parquet(
        there / "ffpp-c23-test-0000000000.parquet"
    )
    df = tables.load(tmp_path / "tables")["table1"]
    found, reasons = records.found(df, tmp_path / "runs")
    assert not reasons
    right = results["dil", "HQ DF"].scores[0]
    assert logit(found["dil", "HQ DF"].scores[0]["score"]).tolist() == pytest.approx(
        logit(right["score"]).tolist()
    )


@pytest.mark.parametrize(
    "claim", claims.CLAIMS, ids=lambda claim: f"{claim.table}-{claim.better}-{claim.than}"
)
def test_claims_speak_of_what_is_there(claim):
    if claim.metric == located.METRIC:
        names = {"fig3_localisation": "60", "fig4_localisation": "62", "fig5_frames": "64"}
        (notebook,) = (Path(__file__).parents[1] / "notebooks").glob(
            f"{names[claim.table]}_*.ipynb"
        )
        assert "lesson.save_located(" in notebook.read_text("utf-8")
        return
    if claim.table in paper.TABLES:
        table = paper.TABLES[claim.table]
        rows, columns = {row.name for row in table.rows}, {column.key for column in table.columns}
        assert claim.metric == table.metric
    else:
        rows, columns = set(experiments.TEMPORAL_ONLY) | set(models.available()), set()
    assert claim.better in rows and (isinstance(claim.than, float) or claim.than in rows)
    assert set(claim.columns) <= columns
    assert len({c.text for c in claims.CLAIMS}) == len(claims.CLAIMS)


def test_a_part_of_the_videos_does_not_replace_what_a_claim_rests_on(tmp_path, capsys):
    index = pd.DataFrame({"video_id": ["a", "b"], "person": ["p", "q"]})
    store = SimpleNamespace(index=index)
    lesson = SimpleNamespace(stores={"ffpp": store}, out=tmp_path, synthetic=True)
    claim = next(c for c in claims.CLAIMS if c.table == "fig3_localisation")
    lines = {
        "row": claim.better,
        "column": "Deepfakes",
        "video_id": ["a", "b"],
        "value": [0.1, 0.2],
    }
    measured, name = pd.DataFrame(lines), claim.table
    assert Notebook.save_located(lesson, measured, name)["count"].item() == 2
    Notebook.save_located(lesson, measured[:1], name, whole=False)
    assert "The claims keep what they rest on" in capsys.readouterr().out
    assert len(located.load(tmp_path)[name]) == 2


def test_a_damaged_table_of_scores_is_named(tmp_path):
    file = tmp_path / "scores" / "ffpp-c23-test-0.parquet"
    file.parent.mkdir()
    file.write_bytes(b"PAR1 cut")
    with pytest.raises(DataError, match="ffpp-c23-test-0.parquet: a damaged table of scores"):
        records._scores(tmp_path, paper.Videos("ffpp", "c23"))
