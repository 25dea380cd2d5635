"""What the paper claims and what the tables of a profile say about each claim: counted from the intervals, not judged by eye."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from dfil.results.notes import Notes


@dataclass(frozen=True)
class Claim:
    """`better` has a higher value than `than` in `table`: another row, or a number such as chance; in all columns or in the named ones."""

    text: str
    table: str
    better: str
    than: str | float
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """How a claim fared in `cells` columns: higher in `higher`, with intervals apart in `apart`, apart the other way in `against`."""

    claim: Claim
    cells: int = 0
    higher: int = 0
    apart: int = 0
    against: int = 0
    synthetic: bool = False

    @property
    def word(self) -> str:
        """not run, supported (apart in every column), contradicted (apart the other way in one), supported in part, or open."""
        if not self.cells:
            return "not run"
        if self.against:
            return "contradicted"
        return (
            "supported"
            if self.apart == self.cells
            else "supported in part"
            if self.apart
            else "open"
        )

    @property
    def evidence(self) -> str:
        """The counts in a sentence."""
        if not self.cells:
            return "no cell of it was run"
        columns = f"{self.cells} column{'s' * (self.cells > 1)}"
        lost = f", and the other way round in {self.against}" if self.against else ""
        return f"higher in {self.higher} of {columns}, with 95 % intervals that do not overlap in {self.apart}{lost}"


CLAIMS = (
    Claim(
        "Inconsistency between neighbouring frames is enough to recognise a forgery.",
        "temporal_only",
        "dil",
        0.5,
    ),
    Claim(
        "Frames four apart do not show it as neighbours do.",
        "temporal_only",
        "dil",
        "DIL, frames four apart",
    ),
    Claim("A detector of single frames sees it less.", "temporal_only", "dil", "resnet50"),
    Claim("DIL sees it better than its predecessor STIL.", "temporal_only", "dil", "stil"),
    Claim("DIL sees it better than a general video network, TEI.", "temporal_only", "dil", "tei"),
    Claim(
        "DIL beats the frame baseline on FaceForensics++ (Table 1).", "table1", "dil", "resnet50"
    ),
    Claim("DIL beats its predecessor STIL on FaceForensics++ (Table 1).", "table1", "dil", "stil"),
    Claim(
        "DIL beats the frame baseline on three further datasets (Table 2).",
        "table2",
        "dil",
        "resnet50",
    ),
    Claim(
        "DIL recognises forgeries of datasets it was not trained on (Table 3).",
        "table3",
        "dil",
        0.5,
        ("Celeb-DF", "DFDC"),
    ),
    Claim(
        "It does so better than the frame baseline (Table 3).",
        "table3",
        "dil",
        "resnet50",
        ("Celeb-DF", "DFDC"),
    ),
    Claim("Intra-SIM improves the backbone (Table 4).", "table4", "intra", "none"),
    Claim("Inter-SIM improves the backbone (Table 4).", "table4", "inter", "none"),
    Claim(
        "Both modules are better than Intra-SIM alone (Table 4).", "table4", "intra+inter", "intra"
    ),
    Claim("The bi-directional path improves Intra-SIM (Table 5).", "table5", "bp", "none"),
    Claim("Coordinate attention improves it further (Table 5).", "table5", "bp+ca", "bp"),
    Claim("Learnable kernels improve it further (Table 5).", "table5", "bp+ca+lk", "bp+ca"),
    Claim(
        "Modules in all stages are better than in the late ones alone (Table 6).",
        "table6",
        "stages 1-4",
        "stages 3-4",
    ),
)


def verdicts(tables: Mapping[str, pd.DataFrame]) -> list[Verdict]:
    """Every claim against the tables in long form, by name. Overlapping intervals leave a claim open: they do not refute it."""
    return [_verdict(claim, tables.get(claim.table)) for claim in CLAIMS]


def _verdict(claim: Claim, df: pd.DataFrame | None) -> Verdict:
    if df is None:
        return Verdict(claim)
    df = df[df["ours"].notna() & (df["column"].isin(claim.columns) if claim.columns else True)]
    ours = df[df["row"] == claim.better].set_index("column")
    if isinstance(claim.than, str):
        theirs = df[df["row"] == claim.than].set_index("column").reindex(ours.index)
    else:
        theirs = ours.assign(ours=claim.than, ci_low=claim.than, ci_high=claim.than)
    both = theirs["ours"].notna()
    ours, theirs = ours[both], theirs[both]
    return Verdict(
        claim,
        cells=len(ours),
        higher=int((ours["ours"] > theirs["ours"]).sum()),
        apart=int((ours["ci_low"] > theirs["ci_high"]).sum()),
        against=int((ours["ci_high"] < theirs["ci_low"]).sum()),
        synthetic=any(Notes.parse(note).synthetic for note in ours["note"]),
    )
