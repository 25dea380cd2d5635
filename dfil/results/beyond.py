"""What is asked beyond the paper, decided like its claims: a file each beside `claims.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dfil import paper
from dfil.explain import additions, no_forgery
from dfil.results import claims
from dfil.results.claims import Claim


@dataclass(frozen=True)
class Question:
    """Claims about one table beyond the paper, decided together."""

    title: str
    claims: tuple[Claim, ...]


def _of(title: str, table: str, asked: Mapping[str, tuple[str, str | float]]) -> Question:
    how = {"table": table, "metric": paper.AUC}
    found = [Claim(text, better=row, than=than, **how) for text, (row, than) in asked.items()]
    return Question(title, tuple(found))


# By the name of the table, which is also that of the file.
QUESTIONS = {
    "no_forgery": _of("Trained on no forgery", "no_forgery", no_forgery.asked(no_forgery.METHODS)),
    "additions": _of("Two additions to DIL", "additions", additions.ASKED),
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
