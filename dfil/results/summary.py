"""RESULTS.md: claims first, what was easy and what was not, all tables, differences, times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dfil import paper
from dfil.results import beyond, claims, power, tables
from dfil.results.markdown import markdown
from dfil.results.notes import SYNTHETIC, Notes
from dfil.results.published import Published
from dfil.train.readings import READINGS

EASY = (
    "The equations of both modules, the sizes of snippets and most settings of the training are in "
    "the text; written as ordinary modules the two are about 150 lines.",
    "Every accuracy that the authors measured on FaceForensics++ is a multiple of 1/280, so the "
    "size of the test sets can be told from the tables.",
    "The mechanism can be shown apart from everything else: on built-in clips of which no single "
    "frame tells real from forged.",
)
DIFFICULT = (
    f"No code and no weights are public. What the text leaves open, {len(READINGS)} points, had "
    "to be read one way or another; notebook 80 lists each with its alternative.",
    "Four datasets have to be requested from their owners and may not be passed on, so what "
    "everybody can run is synthetic, and says nothing about accuracy on real forgeries.",
    "The rivals have nineteen sources of their own, some without code; each was built from its "
    "paper.",
    "The differences between neighbouring rows are one to three points. "
    "Seeds of short trainings lie further apart than that, so one training a row decides nothing.",
)
NO_CONTACT = (
    "The authors were not asked: nothing here was checked by them, and where a row disagrees with "
    "theirs, a reading of ours may be the reason."
)
ALONE = (
    "A notebook that was asked for by itself (`--only`) may have trained more than a whole "
    "reproduction does."
)
PAIRS = (
    "Of FaceForensics++, where the two people of a pair are in each other's forgeries, a pair "
    "counts as one."
)
EACH_ALONE = (
    "An interval is that of its claim alone; Holm's p allows for all of them, so a claim can be "
    "open whose interval leaves out zero."
)
REST = "What this profile does not train, tables take from the study's records and say so."
LABELS = {f"table{number}": f"Table {number}" for number in range(1, 7)}
LABELS |= {"temporal_only": "the mechanism", "fig3_localisation": "Figure 3"}
LABELS |= {"fig4_localisation": "Figure 4", "fig5_frames": "Figure 5"}
LABELS |= {"no_forgery": "trained on no forgery", "additions": "additions to DIL"}
LABELS |= {"query_frames": "frames of partly forged clips"}
WORDS = {
    "supported": "Holm's p below 5 % in the claim's direction",
    "contradicted": "the same in the other direction",
    "equivalent": "the 90 % interval, at three looks the 97 % one, within 2 points of zero",
    "open": "none of these; the line says which difference would have been found (80 % power)",
    "not run": "no scores",
}


def claim_lines(df: pd.DataFrame) -> list[dict[str, str]]:
    """The claims as texts: claim, verdict, difference, n, seeds, table and its label, note."""
    notes = [Notes.parse(note) for note in df.loc[df["verdict"] != claims.NOT_RUN, "note"]]
    mixed = len({note.synthetic for note in notes}) > 1  # else the page's heading says it
    return [_claim_line(line, mixed) for line in df.to_dict("records")]


def _claim_line(line: dict, mixed: bool) -> dict[str, str]:
    shown = {name: line[name] for name in ("claim", "verdict", "table")}
    shown["label"] = LABELS.get(line["table"], line["table"])
    if line["verdict"] == claims.NOT_RUN:
        return shown | {"difference": "", "n": "", "seeds": "", "note": line["note"]}
    notes, said = Notes.parse(line["note"]), [f"p (Holm) {_p(line['p_holm'])}"]
    if line["verdict"] == "open":
        said.append(f"would have found {100 * line['detectable']:.1f} points")
    said += [SYNTHETIC if notes.synthetic and mixed else "", *notes.texts, notes.earlier]
    people = "" if tables.NO_PERSON in notes.texts else f"{line['n_people']} people or pairs, "
    return shown | {
        "difference": _difference(line),
        "n": f"{people}{line['n_videos']} videos",
        "seeds": f"{line['seeds']} ({line['about']})",
        "note": ", ".join(filter(None, said)),
    }


def _difference(line: dict) -> str:
    """In points, with its interval as far as such a difference can be."""
    number = pd.to_numeric(line["than"], errors="coerce")  # NaN: another row
    least, most = (-1.0, 1.0) if pd.isna(number) else (-number, 1.0 - number)
    low, high = max(line["low"], least), min(line["high"], most)
    form = "{:+.1f} [{:+.1f}, {:+.1f}]" if high - low >= 0.002 else "{:+.3f} [{:+.3f}, {:+.3f}]"
    points = (100 * each for each in (line["difference"], low, high))
    return form.format(*points).replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def counted(df: pd.DataFrame) -> str:
    """How many claims have which verdict: `20 claims: 6 supported, 3 open, 11 not run`."""
    numbers = df["verdict"].value_counts()
    said = ", ".join(f"{numbers[word]} {word}" for word in WORDS if word in numbers)
    return f"{len(df)} claims: {said}"


def write(found: Published) -> Path:
    """Write `<folder>/RESULTS.md` and return its path; the same folder gives the same text."""
    mark = f" ({SYNTHETIC})" if found.synthetic else ""
    parts = [f"# Results of profile `{found.profile}`{mark}", found.what]
    if found.synthetic:
        parts.append(
            "Synthetic means: from the built-in clips of procedural talking heads. Such numbers "
            "show how methods behave where the inconsistency is known, and are no estimate of "
            "accuracy on real forgeries, which the paper's values are."
        )
    parts += ["## Claims", f"**{counted(found.claims)}.** {_reading()}"]
    parts.append(_claims_table(found, found.claims))
    if found.study:
        parts.append(f"{REST} [Its page](../study/RESULTS.md) decides the claims with its seeds.")
    parts += [power.of_the_paper(), "## What was easy, and what was not"]
    parts += ["Easy:", _bullets(EASY), "Difficult:", _bullets(DIFFICULT), NO_CONTACT]
    parts.append("## Tables")
    for name, df in found.frames.items():
        if df["ours"].notna().any():
            title = found.title_of(name)
            parts += [markdown(df, title, only_run=True, level=3), made_by(found, f"tables/{name}")]
    for name, df in found.beyond.items():
        parts += [f"## {beyond.QUESTIONS[name].title}: decided", _claims_table(found, df)]
    if pictures := sorted((found.folder / "figures").glob("*.png")):
        parts.append("## Figures")
        names = [(p.stem, made_by(found, f"figures/{p.stem}")) for p in pictures]
        parts.append(_bullets([f"[{name}](figures/{name}.png) {made}" for name, made in names]))
    parts.append("## Differences from the paper")
    numbered = enumerate(paper.DIFFERENCES, 1)
    texts = [f"{number}. **{title}.** {text}" for number, (title, text) in numbered]
    parts += ["\n".join(texts), "## Times", _times(found)]
    path = found.folder / "RESULTS.md"
    tables.write_text(path, "\n\n".join(part.strip() for part in parts if part) + "\n")
    return path


def made_by(found: Published, what: str) -> str:
    """Links to the executed notebooks that made a table or figure; empty if none is there."""
    names = found.makers.get(what.replace("_auc", ""), [])
    links = ", ".join(f"[{name}](notebooks/{name}.ipynb)" for name in names)
    return f"Made by {links}." if links else ""


def _reading() -> str:
    words = ", ".join(f"*{word}*: {text}" for word, text in WORDS.items())
    return (
        f"{words[0].upper()}{words[1:]}. Differences are in points of the table's metric, with "
        "their 95 % interval: both rows on the same videos, pooled over columns, the videos of one "
        f"person taken together, seeds as drawn from many. {PAIRS} {EACH_ALONE}"
    )


def _claims_table(found: Published, df: pd.DataFrame) -> str:
    lines = ["| Claim | Verdict | Difference | n | Seeds | Table | Evidence |", "|" + " --- |" * 7]
    for line in claim_lines(df):
        makers = found.makers.get(f"tables/{line['table']}", [])
        name = line["table"]
        folder = "../study/tables" if found.study.get(name) else "tables"
        where = f"[{line['label']}]({folder}/{name}.md)" if name in found.frames else line["label"]
        where += "".join(f", [{stem[:2]}](notebooks/{stem}.ipynb)" for stem in makers)
        numbers = (line[name] for name in ("difference", "n", "seeds"))
        cells = line["claim"], f"**{line['verdict']}**", *numbers, where, line["note"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _times(found: Published) -> str:
    if not found.status:
        return "Not known: this folder has no usable `status.csv`."
    lines = ["| Notebook | Status | Seconds | Peak MiB |", "| --- | --- | ---: | ---: |"]
    for row in found.status:
        values = (row["seconds"], row["peak"])
        numbers = ("–" if value is None else f"{value:.0f}" for value in values)
        lines.append("| " + " | ".join((row["notebook"], row["status"], *numbers)) + " |")
    return "\n".join([*lines, "", f"In all {found.total['seconds'] / 60:.1f} minutes. {ALONE}"])
