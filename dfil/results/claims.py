"""What the paper claims, and what the runs of a profile say of each claim, decided by `decide`.

`write` decides from the records beside the tables and keeps the result as `claims.csv`, from which
the report page and RESULTS.md are rendered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from scipy.stats import t

from dfil import paper
from dfil.results import compare, located, metrics, records, tables
from dfil.results.decide import Decision, decide
from dfil.results.decide import compare as difference_of
from dfil.results.notes import Notes
from dfil.results.scores import ranked
from dfil.system.errors import DataError, RunError

NOT_RUN = "not run"
CEILING = 0.995  # above it two rows have next to nothing left in which they could differ
AT_CEILING = "both rows are at the ceiling, these videos are too easy to order them"
KEPT = "found by an earlier call (now: {})"


@dataclass(frozen=True)
class Claim:
    """`better` has a higher value than `than` in `table`: another row, or a number such as chance;
    pooled over all columns or over the named ones.

    metric: of scores, or `located.METRIC` where the rows are maps.
    """

    text: str
    table: str
    better: str
    than: str | float
    columns: tuple[str, ...] = ()
    metric: str = paper.ACCURACY


_FURTHER = {"columns": ("Celeb-DF", "DFDC"), "metric": paper.AUC}
_MECHANISM = {"metric": paper.AUC}
_MAPS = {"metric": located.METRIC}
CLAIMS = (
    Claim("Inconsistency between neighbouring frames is enough to recognise a forgery.",
          "temporal_only", "dil", 0.5, **_MECHANISM),
    Claim("Frames four apart do not show it as neighbours do.",
          "temporal_only", "dil", "DIL, frames four apart", **_MECHANISM),
    Claim("A detector of single frames sees it less.",
          "temporal_only", "dil", "resnet50", **_MECHANISM),
    Claim("DIL sees it better than its predecessor STIL.",
          "temporal_only", "dil", "stil", **_MECHANISM),
    Claim("DIL sees it better than a general video network, TEI.",
          "temporal_only", "dil", "tei", **_MECHANISM),
    Claim("DIL beats the frame baseline on FaceForensics++ (Table 1).",
          "table1", "dil", "resnet50"),
    Claim("DIL beats its predecessor STIL on FaceForensics++ (Table 1).",
          "table1", "dil", "stil"),
    Claim("DIL beats the frame baseline on three further datasets (Table 2).",
          "table2", "dil", "resnet50"),
    Claim("DIL recognises forgeries of datasets it was not trained on (Table 3).",
          "table3", "dil", 0.5, **_FURTHER),
    Claim("It does so better than the frame baseline (Table 3).",
          "table3", "dil", "resnet50", **_FURTHER),
    Claim("Intra-SIM improves the backbone (Table 4).", "table4", "intra", "none"),
    Claim("Inter-SIM improves the backbone (Table 4).", "table4", "inter", "none"),
    Claim("Both modules are better than Intra-SIM alone (Table 4).",
          "table4", "intra+inter", "intra"),
    Claim("The bi-directional path improves Intra-SIM (Table 5).", "table5", "bp", "none"),
    Claim("Coordinate attention improves it further (Table 5).", "table5", "bp+ca", "bp"),
    Claim("Learnable kernels improve it further (Table 5).", "table5", "bp+ca+lk", "bp+ca"),
    Claim("Modules in all stages are better than in the late ones alone (Table 6).",
          "table6", "stages 1-4", "stages 3-4"),
    Claim("Class activation lies in the forged region more than a uniform map does (Figure 3).",
          "fig3_localisation", "Grad-CAM (DIL)", "whole crop", **_MAPS),
    Claim("So does the activation of Intra-SMA (Figure 4, stage 2).",
          "fig4_localisation", "Grad-CAM, stage 2", "whole crop", **_MAPS),
    Claim("The U–T map is higher in forged frames (Figure 5: AUC of a video's own frames).",
          "fig5_frames", "U–T map, stage 4", 0.5, **_MAPS),
)  # fmt: skip

_NUMBERS = ["difference", "low", "high", "p", "p_holm", "df", "detectable"]
_COUNTS = ["n_videos", "n_people", "seeds"]
_NAMES = ["claim", "table", "better", "than", "metric"]
COLUMNS = [*_NAMES, *_NUMBERS, "verdict", *_COUNTS, "about", "note"]


def decided(
    results: Mapping[str, compare.Results],
    before: pd.DataFrame | None = None,
    synthetic: Collection[str] = (),
    maps: Mapping[str, pd.DataFrame] | None = None,
    asked: Sequence[Claim] = CLAIMS,
    looks: int = 1,
) -> pd.DataFrame:
    """A line per claim, columns as in COLUMNS. Holm's p is over the claims that have one.

    results: by table what `experiments.fill` or `records.found` gives. before: an earlier such
    table; of a claim whose scores are absent now its line stays and says so. synthetic: the tables
    that rest on built-in data. maps: what `located.load` gives. asked: the claims.
    looks: how often they were decided, with seeds added in between.
    """
    maps = maps or {}
    synthetic = {*synthetic, *(name for name, df in maps.items() if df["synthetic"].any())}
    earlier = {} if before is None else before.set_index("claim").to_dict("index")
    found: dict[Claim, Decision] = {}
    said: dict[Claim, str] = {}
    for claim in asked:
        try:
            chosen = _chosen(claim, results.get(claim.table, {}))
            if claim.metric == located.METRIC:
                found[claim] = _of_maps(claim, maps)
            else:
                found[claim] = _difference(claim, chosen)
            texts = [*_only(claim, chosen)]
            texts += [] if found[claim].clustered else [tables.NO_PERSON]
            texts += [AT_CEILING] if _at_ceiling(claim, chosen) else []
            said[claim] = Notes(tuple(texts), claim.table in synthetic).format()
        except RunError as error:
            said[claim], line = str(error), earlier.get(claim.text, {"verdict": NOT_RUN})
            if line["verdict"] != NOT_RUN:
                found[claim] = _from_line(line)
                said[claim] = replace(
                    Notes.parse(line["note"]), earlier=KEPT.format(error)
                ).format()
    decisions = dict(zip(found, decide(list(found.values()), looks=looks), strict=True))
    lines = []
    for claim in asked:
        names = (claim.text, claim.table, claim.better, str(claim.than), claim.metric)
        line, decision = dict(zip(_NAMES, names, strict=True)), decisions.get(claim)
        known = ("verdict", "about", *_NUMBERS, *_COUNTS) if decision else ()
        line |= {"verdict": NOT_RUN, "about": "", "note": said[claim]}
        lines.append(line | {name: getattr(decision, name) for name in known})
    return _typed(pd.DataFrame(lines, columns=COLUMNS))


def write(
    folder: Path,
    frames: Mapping[str, pd.DataFrame] | None = None,
    asked: Sequence[Claim] = CLAIMS,
    name: str = "claims",
    looks: int = 1,
) -> pd.DataFrame:
    """Decide claims from a folder's tables, `<folder>/runs` and `<folder>/located`, write
    `<folder>/<name>.csv` if there is anything to decide, and return the table.

    frames: the tables by name, default all that lie in `<folder>/tables`. asked: the claims, the
    paper's or others. looks: as `decided` has it. A claim whose records are not there keeps its
    line of an earlier file. Raises DataError if a file is damaged.
    """
    folder = Path(folder)
    frames = tables.load(folder / "tables") if frames is None else frames
    used = {name: frames[name] for name in {c.table for c in asked} if name in frames}
    results = {name: records.found(df, folder / "runs")[0] for name, df in used.items()}
    synthetic = [name for name, df in used.items() if tables.is_synthetic(df)]
    path = folder / f"{name}.csv"
    before, maps = load(path) if path.is_file() else None, located.load(folder)
    if before is not None and not maps and not any(results.values()):
        return before  # published without its records: nothing is known that it does not say
    df = decided(results, before, synthetic, maps, asked, looks)
    if (df["verdict"] != NOT_RUN).any():
        tables.write_text(path, df.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return df


def load(path: Path) -> pd.DataFrame:
    """claims.csv. Raises DataError if it is damaged."""
    try:
        df = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(df.columns) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(df.columns)}")
        return _typed(df.replace({name: {"": None} for name in _NUMBERS + _COUNTS}))
    except (ValueError, OSError) as error:
        holds = f"{path} holds no claims ({error})"
        raise DataError(f"{holds}: delete it and run dfil report") from error


def is_synthetic(df: pd.DataFrame) -> bool:
    """Whether any verdict rests on built-in data."""
    return any(Notes.parse(note).synthetic for note in df.loc[df["verdict"] != NOT_RUN, "note"])


def _chosen(claim: Claim, results: compare.Results) -> compare.Results:
    """The results of the claim's rows in its columns."""
    asked = claim.columns or {column for _, column in results}
    rows = claim.better, claim.than
    return {(r, c): each for (r, c), each in results.items() if r in rows and c in asked}


def _only(claim: Claim, chosen: compare.Results) -> tuple[str, ...]:
    """What is to be said where it speaks of more columns than those in which its rows were run."""
    table = paper.table(claim.table)
    asked = claim.columns or [column.key for column in (table.columns if table else ())]
    rows = [row for row in (claim.better, claim.than) if isinstance(row, str)]
    shared = [c for c in asked if all((row, c) in chosen for row in rows)]
    return (f"only {', '.join(shared)}",) * (0 < len(shared) < len(asked))


def _difference(claim: Claim, chosen: compare.Results) -> Decision:
    rows = [claim.better, *([claim.than] if isinstance(claim.than, str) else [])]
    for row in rows:
        if row not in {name for name, _ in chosen}:
            raise RunError(f"no scores of {row} in {claim.table}")
    first, *second = (compare.scores_of(chosen, row) for row in rows)
    return difference_of(first, second[0] if second else claim.than, claim.metric)


def _at_ceiling(claim: Claim, results: compare.Results) -> bool:
    """Whether both rows that a claim compares have all but the highest value there is."""
    rows = [compare.scores_of(results, row) for row in (claim.better, claim.than)]
    values = [
        [metrics.PARTS[claim.metric](df["label"].to_numpy(), ranked(df))[0]
         for frames in row.values() for df in frames]
        for row in rows
    ]  # fmt: skip
    return all(each and sum(each) / len(each) > CEILING for each in values)


def _of_maps(claim: Claim, maps: Mapping[str, pd.DataFrame]) -> Decision:
    if claim.table not in maps:
        raise RunError(f"no maps were measured for {claim.table}")
    return located.compare(maps[claim.table], claim.better, claim.than)


def _from_line(line: Mapping) -> Decision:
    error = (line["high"] - line["low"]) / (2 * t.ppf(0.975, line["df"]))
    numbers = (line[name] for name in ("difference", "low", "high", "p", "df"))
    return Decision(*numbers, error, *(int(line[name]) for name in _COUNTS))


def _typed(df: pd.DataFrame) -> pd.DataFrame:
    numbers = {name: pd.to_numeric(df[name]) for name in _NUMBERS + _COUNTS}
    types = dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_COUNTS, "Int64")
    df = df.assign(**numbers).astype(types)
    return df.assign(**{name: df[name].fillna("") for name in ("verdict", "about", "note")})
