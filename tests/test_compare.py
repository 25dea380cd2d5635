"""Rows of a table against one of them, and how far seeds lie apart."""

import numpy as np
import pandas as pd
import pytest

from dfil import paper
from dfil.results import compare, decide
from dfil.train.experiments import CellResult


def result(right):
    """Scores of a real and a fake video per person, right or wrong at 0.5."""
    labels = np.arange(len(right)) % 2
    scores = np.where(np.array(right) == (labels == 1), 0.9, 0.1)
    videos = {"video_id": [f"v{i}" for i in range(len(right))], "label": labels, "score": scores}
    return CellResult(
        [pd.DataFrame(videos).assign(person=[f"p{i // 2}" for i in range(len(right))])]
    )


def test_every_other_row_is_compared_with_the_full_model():
    results = {
        ("none", "x"): result(([True] * 2 + [False] * 2) * 10),
        ("full", "x"): result([True] * 40),
        ("full", "y"): result([True] * 40),
        ("part", "x"): result([True] * 40),
        ("elsewhere", "z"): result([True] * 40),
    }
    lines = compare.against(results, "full").set_index("row")
    assert list(lines.index) == ["none", "part"] and (lines["n_people"] == 20).all()
    assert lines.loc["none", "difference"] == 0.5 and lines.loc["none", "verdict"] == "supported"
    assert lines.loc["none", "p (Holm)"] == pytest.approx(2 * lines.loc["none", "p"])
    assert lines.loc["part", "difference"] == 0 and lines.loc["part", "verdict"] == decide.OPEN
    assert compare.against(results, "full", paper.AUC)["difference"].tolist() == [0.5, 0]
    twice = compare.against(results, "full", looks=2).set_index("row")["p (Holm)"]
    assert (twice == (2 * lines["p (Holm)"]).clip(upper=1)).all()


def test_there_is_nothing_to_compare_with_one_row_or_without_the_full_model():
    assert compare.against({("full", "x"): result([True] * 4)}, "full").empty
    assert compare.against({("none", "x"): result([True] * 4)}, "full").empty


def test_what_is_empty_has_the_columns_all_the_same():
    full, lines = result([True] * 4), compare.against({}, "full")
    some = compare.against({("full", "x"): full, ("part", "x"): full}, "full")
    assert lines.empty and list(lines) == list(some)
