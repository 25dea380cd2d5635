"""Additions to DIL: their rows' runs, the decision, and the queries' map beside Figure 5's."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from dfil import models, paper, profiles
from dfil.explain import activation, additions, localisation, no_forgery
from dfil.system.errors import RunError
from dfil.tools import notebook
from dfil.train import experiments, rates
from dfil.train.experiments import CellResult
from dfil.train.snippets import normalise

STUDY = profiles.get("study")


def test_rows_are_table_1s_run_and_that_with_one_switch_each():
    found, table = additions.specs(STUDY, seed=2), paper.TABLES["table1"]
    (cell, *_) = [c for c in table.cells() if (c.row, c.test.compression) == ("dil", "c23")]
    of_table = experiments.specs(cell, replace(STUDY, per_manipulation=True, seeds=(2,)), None)[0]
    assert replace(of_table, manipulations=paper.ALL_MANIPULATIONS) == found["dil"]
    for name, spec in found.items():
        assert dict(spec.switches) == additions.ADDED[name]
        assert replace(spec, switches=()) == found["dil"]
        models.build("dil", **STUDY.backbone, **dict(spec.switches))


def scores(skill: float, seed: int) -> pd.DataFrame:
    rng, label = np.random.default_rng(seed), np.tile([0, 1], 60)
    score = rng.uniform(0, 1, 120) * (1 - skill) + skill * label
    names, people = [f"{n:03d}" for n in range(120)], [f"{n // 2:02d}" for n in range(120)]
    return pd.DataFrame({"video_id": names, "label": label, "score": score, "person": people})


def test_what_helps_is_supported_and_what_harms_contradicted():
    skills = dict(zip(additions.ADDED, (0.3, 0.45, 0.05), strict=True))
    results = {
        (name, column): CellResult([scores(skill, seed) for seed in range(3)])
        for name, skill in skills.items()
        for column in ("one c23", "two c23")
    }
    found = additions.decisions(results)
    assert found["verdict"].tolist() == ["supported", "contradicted"]
    assert found["seeds"].eq(3).all() and found.index[0] == "query pooling improves DIL"


def clip(rng):
    return torch.from_numpy(rng.integers(0, 256, (3, 4, 3, 32, 32), dtype=np.uint8))


def test_the_query_map_in_time_is_what_the_queries_take_of_each_frame():
    rng, small = np.random.default_rng(0), {"depth": (1, 1, 1, 1), "width": 4, "stem": "small"}
    model, x = models.build("dil", **small, queries=2).eval(), clip(rng)
    (map_ut,) = activation.query_map(model, x).values()
    whole = model.explain(normalise(x)[None])["query_map"][0]
    for u in range(3):
        for t in range(4):
            assert map_ut[u, t] == pytest.approx(sum(whole[u, t].flatten().tolist()))
    assert map_ut.sum() == pytest.approx(1)
    with pytest.raises(RunError, match="no queries"):
        activation.query_map(models.build("dil", **small).eval(), x)


def frames(people: int) -> pd.DataFrame:
    """Clips of 12 frames of which 4 to 7 are forged: a map that is higher there, one that is not,
    and one that is everywhere the same."""
    rng, rows = np.random.default_rng(1), []
    for n in range(2 * people):
        forged = (np.arange(12) >= 4) & (np.arange(12) < 8)
        values = {
            "query map": forged + 0.5 * rng.random(12),
            "U–T map": rng.random(12),
            "flat": np.ones(12),
        }
        for row, value in values.items():
            kind = ("short movements", "long movements")[n % 2]
            parts = {"video_id": f"{n // 2}-{n % 2}", "column": kind, "row": row}
            rows.append(pd.DataFrame(parts | {"forged": forged, "value": value}))
    return pd.concat(rows, ignore_index=True)


def test_the_highest_frame_is_looked_up_in_every_clip():
    measured = frames(3)
    whole = measured.query("video_id == '0-0' and row == 'flat'").assign(forged=True)
    found = localisation.highest_in_time(
        pd.concat([measured, whole.assign(video_id="no other frame")])
    )
    assert len(found) == 6 * 3 and (found["chance"] == 4 / 12).all()
    for _, line in found.iterrows():
        own = measured[
            (measured["video_id"] == line["video_id"]) & (measured["row"] == line["row"])
        ]
        best = [
            f for f, v in zip(own["forged"], own["value"], strict=True) if v == max(own["value"])
        ]
        assert line["hit"] == sum(best) / len(best)
    assert (found.query("row == 'flat'")["hit"] == 4 / 12).all()


def test_a_map_that_finds_forged_frames_is_told_from_one_that_does_not():
    measured = frames(12)
    by_map = additions.found(measured)
    assert by_map.loc["query map", ["auc", "hit"]].tolist() == [1, 1]
    assert by_map.loc["U–T map", "auc"] == pytest.approx(0.5, abs=0.15)
    misses = 1 - by_map.loc["U–T map", "hit"]
    assert by_map["beyond"][["query map", "U–T map"]].tolist() == [pytest.approx(misses), 0]
    assert 0 < misses < 1 and (by_map["n"] == 24).all()
    assert by_map["chance"].to_numpy() == pytest.approx(1 / 3)
    names = measured["video_id"].unique()
    index = pd.DataFrame({"video_id": names, "person": [name.partition("-")[0] for name in names]})
    clips = SimpleNamespace(store=SimpleNamespace(index=index))
    found = additions.decisions_in_time(measured, clips)
    assert (found["verdict"] == "supported").all() and (found["n_people"] == 12).all()
    assert found["difference"].iloc[2] == pytest.approx(2 / 3)
    swapped = {"query map": "U–T map", "U–T map": "query map"}
    turned = measured.assign(row=measured["row"].replace(swapped))
    verdicts = additions.decisions_in_time(turned, clips)["verdict"].tolist()
    assert verdicts[1] == verdicts[3] == "contradicted" and verdicts[0] != "supported"


def test_where_nothing_is_known_nothing_is_decided(capsys):
    nothing = additions.in_time(None, None, "no such clips")
    assert "no map is measured" in capsys.readouterr().out and nothing.empty
    assert additions.found(nothing).empty
    assert additions.decisions_in_time(nothing, "no such clips").empty
    assert additions.response(None, {"ffpp": SimpleNamespace(index=C40_ALONE)}) == {}
    assert additions.decisions({}).empty and len(list(additions.layout({}).cells())) == 3
    assert no_forgery.real_people(None, "", ["dil"]) == {}
    assert no_forgery.decided({}, {}).empty


C40_ALONE = pd.DataFrame(
    [("test", "ok", label, "c40", "Deepfakes") for label in (0, 1)],
    columns=["split", "status", "label", "compression", "manipulation"],
)


def test_a_notebook_finds_the_studys_runs_by_the_rates_that_its_searches_decided(monkeypatch):
    monkeypatch.setattr(rates, "decided", lambda *a: {"dil": 0.02})
    lesson = notebook.Notebook("study", {"ffpp": ""})
    assert lesson.profile.rates["dil"] == lesson.runs.profile.rates["dil"] == 0.02
    assert lesson.profile.rates["i3d"] == STUDY.rates["i3d"]
    assert additions.specs(lesson.profile, 0)["dil"].training.lr == 0.02
    assert notebook.Notebook("smoke", {"ffpp": ""}).profile == profiles.get("smoke")
