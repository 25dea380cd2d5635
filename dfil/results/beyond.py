"""What is asked beyond the paper, decided like its claims: a file each beside `claims.csv`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfil import paper
from dfil.explain import additions, no_forgery
from dfil.results import claims, compare, located
from dfil.results.claims import Claim


@dataclass(frozen=True)
class Question:
    """Claims about one table beyond the paper, decided together, and how results lay it out."""

    title: str
    claims: tuple[Claim, ...]
    layout: Callable[[compare.Results], paper.Table]


def _claims(
    table: str, asked: Mapping[str, tuple[str, str | float]], metric: str = paper.AUC
) -> tuple[Claim, ...]:
    how = {"table": table, "metric": metric}
    return tuple(Claim(text, better=row, than=than, **how) for text, (row, than) in asked.items())


# By the name of the table, which is also that of the file.
QUESTIONS = {
    "no_forgery": Question(
        "Trained on no forgery",
        _claims("no_forgery", no_forgery.asked(no_forgery.METHODS)),
        no_forgery.layout,
    ),
    "additions": Question(
        "Two additions to DIL",
        _claims("additions", additions.ASKED)
        + _claims("query_frames", additions.ASKED_IN_TIME, located.METRIC),
        additions.layout,
    ),
}


def write(folder: Path, frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Decide the questions whose tables are among `frames`, by `claims.write`; by name, those of
    which anything is decided."""
    found = {
        name: claims.write(folder, frames, question.claims, f"beyond_{name}")
        for name, question in QUESTIONS.items()
        if name in frames
    }
    return {name: df for name, df in found.items() if (df["verdict"] != claims.NOT_RUN).any()}
