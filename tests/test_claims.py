"""Verdicts follow from the intervals, and every claim speaks of rows and columns that exist."""

import pandas as pd
import pytest

from dfil import models, paper
from dfil.results import claims
from dfil.train import experiments


def long(rows):
    names = ["row", "column", "ours", "ci_low", "ci_high", "note"]
    return pd.DataFrame([(*row, "synthetic data") for row in rows], columns=names)


def verdict(rows, than="resnet50"):
    return claims._verdict(claims.Claim("a > b", "t", "dil", than), long(rows))


def test_intervals_decide():
    apart, close = ("dil", "x", 0.9, 0.8, 0.95), ("dil", "y", 0.7, 0.6, 0.8)
    low, near = ("resnet50", "x", 0.6, 0.5, 0.7), ("resnet50", "y", 0.65, 0.55, 0.75)
    assert verdict([apart, low]).word == "supported"
    assert verdict([apart, close, low, near]).word == "supported in part"
    assert verdict([close, near]).word == "open"
    assert verdict([("dil", "x", 0.3, 0.2, 0.4), low]).word == "contradicted"
    assert verdict([apart]).word == "not run" == claims.Verdict(claims.CLAIMS[0]).word
    both = verdict([apart, close, low, near])
    assert (both.cells, both.higher, both.apart, both.against, both.synthetic) == (2, 2, 1, 0, True)
    assert "higher in 2 of 2 columns" in both.evidence and "in 1" in both.evidence


def test_against_a_number_such_as_chance():
    assert verdict([("dil", "x", 0.9, 0.8, 0.95)], than=0.5).word == "supported"
    assert verdict([("dil", "x", 0.6, 0.4, 0.8)], than=0.5).word == "open"


@pytest.mark.parametrize(
    "claim", claims.CLAIMS, ids=lambda claim: f"{claim.table}-{claim.better}-{claim.than}"
)
def test_claims_speak_of_what_is_there(claim):
    if claim.table in paper.TABLES:
        table = paper.TABLES[claim.table]
        rows, columns = {row.name for row in table.rows}, {column.key for column in table.columns}
    else:
        rows, columns = set(experiments.TEMPORAL_ONLY) | set(models.available()), set()
    assert claim.better in rows and (isinstance(claim.than, float) or claim.than in rows)
    assert set(claim.columns) <= columns
