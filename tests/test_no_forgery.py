"""Rows trained on no forgery are specified, laid out and decided as their names say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from dfil import profiles
from dfil.explain import no_forgery
from dfil.paper import ALL_MANIPULATIONS
from dfil.train.experiments import CellResult

SMOKE = profiles.get("smoke")


def test_only_the_rows_called_forgeries_have_seen_one():
    found = no_forgery.specs(SMOKE, ["dil", "resnet50"], seed=3)
    assert len(found) == 8 and all(spec.seed == 3 for spec in found.values())
    for name, spec in found.items():
        assert (spec.manipulations == ALL_MANIPULATIONS) == name.endswith(", forgeries")
        assert (spec.fakes is None) == name.endswith(", forgeries") and spec.start is None
        if spec.fakes:
            assert f"jitter {spec.fakes.jitter:g}" in name and spec.training.paired


def test_rows_without_forgeries_see_as_many_clips_as_the_others():
    """An epoch has each real video with one fake there, and with one of each kind in the others."""
    for name, kinds in (("smoke", 4), ("study", 4), ("paper", 1)):
        found = no_forgery.specs(profiles.get(name), ["dil"], seed=0)
        epochs = {row: spec.training.epochs for row, spec in found.items()}
        usual = epochs.pop("dil, forgeries")
        assert set(epochs.values()) == {kinds * usual}


def index(*rows):
    names = ["split", "status", "label", "compression", "manipulation"]
    return SimpleNamespace(index=pd.DataFrame(rows, columns=names))


def test_every_forgery_with_test_videos_is_a_column():
    stores = {
        "ffpp": index(
            ("test", "ok", 1, "c40", "FaceSwap"), ("test", "ok", 1, "c23", "FaceSwap"),
            ("train", "ok", 1, "c23", "Deepfakes"), ("test", "no face", 1, "c23", "Face2Face"),
            ("test", "ok", 0, "c23", "real"),
        ),
        "celebdf": index(("test", "ok", 1, "", "Celeb-synthesis")),
        "dfdc-preview": index(("train", "ok", 1, "", "method_A")),
    }  # fmt: skip
    found = no_forgery.tests(stores)
    assert list(found) == ["FaceSwap c23", "FaceSwap c40", "celebdf"]
    assert found["FaceSwap c40"].manipulations == ("FaceSwap",)


def scores(skill: float, seed: int) -> pd.DataFrame:
    rng, label = np.random.default_rng(seed), np.tile([0, 1], 60)
    score = rng.uniform(0, 1, 120) * (1 - skill) + skill * label
    names = [f"{n:03d}" for n in range(120)]
    people = [f"{n // 2:02d}" for n in range(120)]
    return pd.DataFrame({"video_id": names, "label": label, "score": score, "person": people})


def test_the_claims_are_decided_together():
    skills = {0.0: 0.0, 0.5: 0.2, 1.0: 0.5, None: 0.5}
    results = {
        (no_forgery.row(m, jitter), column): CellResult([scores(skill, 7)], ["a-run"])
        for m in ("dil", "resnet50")
        for jitter, skill in skills.items()
        for column in ("one", "two")
    }
    found = no_forgery.decisions(results, ["dil", "resnet50"])
    verdicts = found["verdict"].to_dict()
    assert len(verdicts) == 7 and (found["p_holm"] >= found["p"]).all()
    assert verdicts["dil with jitter 1 recognises forgeries"] == "supported"
    assert verdicts["dil gains from jitter (1 against 0)"] == "supported"
    assert verdicts["dil gains from forgeries (against jitter 1)"] != "supported"
    df = no_forgery.table(results, "", synthetic=True)
    assert len(df) == 16 and df["ours"].between(df["ci_low"], df["ci_high"]).all()
