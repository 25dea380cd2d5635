"""What a profile's output folder holds, read once for the report page and for RESULTS.md.

`tables/*.csv` with their Markdown, `figures/*.png`, `notebooks/*.ipynb`, `claims.csv` and those of
what is asked beyond the paper, `status.csv` (notebook, status, seconds, peak MiB) and
`environment.json` (any names and values). A file that is damaged is named in `problems` and
otherwise passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from dfil import paper
from dfil.profiles import PROFILES, STUDY
from dfil.results import arrange, beyond, claims, tables
from dfil.results.notes import FROM_STUDY, Notes
from dfil.system.errors import DataError

_STATUS = ["notebook", "status", "seconds", "peak MiB"]
_GOOD = ("ok", "done", "cached", "reused", "skipped")


@dataclass
class Published:
    """frames: tables in long form by name, in the paper's order, then those beyond the paper."""

    folder: Path
    environment: dict = field(default_factory=dict)
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    claims: pd.DataFrame | None = None
    beyond: dict[str, pd.DataFrame] = field(default_factory=dict)  # by name of the question
    status: list[dict] | None = None
    makers: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    # by name, where the study's numbers stand in for those that this profile leaves to it, whether
    # all of the table is the study's
    study: dict[str, bool] = field(default_factory=dict)

    @property
    def profile(self) -> str:
        return str(self.environment.get("profile", self.folder.resolve().name))

    def title_of(self, name: str) -> str:
        """The title that a table was saved under, here or by the study."""
        folder = self.folder.resolve().parent / STUDY.name if self.study.get(name) else self.folder
        return tables.title_of(folder / "tables", name)

    @property
    def what(self) -> str:
        """What the profile's numbers mean, where it is a known one."""
        return PROFILES[self.profile].what if self.profile in PROFILES else ""

    @property
    def filled(self) -> list[pd.DataFrame]:
        return [df for df in self.frames.values() if df["ours"].notna().any()]

    @property
    def all_synthetic(self) -> bool:
        """Whether every filled table says so, each cell for itself; of nothing filled, whether the
        last call's environment does, which says nothing of what earlier calls have filled."""
        if self.filled:
            return all(map(tables.is_synthetic, self.filled))
        return bool(self.environment.get("synthetic"))

    @property
    def synthetic(self) -> bool:
        """Whether any number comes from built-in data."""
        return self.all_synthetic or any(map(tables.is_synthetic, self.filled))

    @property
    def total(self) -> dict | None:
        """Seconds in all, the largest peak of memory, and the notebooks that did not finish."""
        if not self.status:
            return None
        peaks = [row["peak"] for row in self.status if row["peak"] is not None]
        failed = [row["notebook"] for row in self.status if row["status"].lower() not in _GOOD]
        seconds = sum(row["seconds"] or 0 for row in self.status)
        return {"seconds": seconds, "peak": max(peaks, default=None), "failed": failed}


def read(folder: Path) -> Published:
    """All of it; claims are decided anew where records allow. Raises DataError without a folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} to report on: run `make reproduce` first")
    found = Published(folder)
    found.environment = _environment(folder / "environment.json", found.problems)
    found.frames = _frames(folder / "tables", found.problems)
    found.status = _status(folder / "status.csv", found.problems)
    found.makers = _makers(folder / "notebooks")
    try:
        known = PROFILES.get(found.profile)
        looks = known.looks if known else 1
        found.claims = claims.write(folder, found.frames, looks=looks)
        found.beyond = beyond.write(folder, found.frames)
    except DataError as error:
        found.problems.append(str(error))
        found.claims = claims.decided({}) if found.claims is None else found.claims
    _take_from_study(found)
    return found


def _take_from_study(found: Published) -> None:
    """The paper's tables, and those of what is asked beyond it, with the study's numbers where a
    demonstration leaves them to it."""
    profile, study = PROFILES.get(found.profile), found.folder.resolve().parent / STUDY.name
    if profile is None or not profile.qualities or not found.all_synthetic:
        return
    for name, theirs in _frames(study / "tables", found.problems).items():
        ours = found.frames.get(name)
        known = name.partition("_")[0] in paper.TABLES or name in beyond.QUESTIONS
        if known and (ours is None or ours["ours"].isna().any()):
            found.frames[name] = _with_study(ours, theirs)
            found.study[name] = ours is None or ours["ours"].isna().all()
    found.frames = {name: found.frames[name] for name in in_order(found.frames, paper.TABLES)}


def _with_study(df: pd.DataFrame | None, study: pd.DataFrame) -> pd.DataFrame:
    """df with the study's numbers where it has none, each of which says so; without df all of the
    study's table."""
    filled = study["ours"].notna()
    notes = study["note"].where(~filled, study["note"].map(_said_of_study))
    theirs = study.assign(note=notes)
    return theirs if df is None else arrange.filled_up(df, theirs[filled])


def _said_of_study(note: str) -> str:
    return replace(Notes.parse(note), earlier=FROM_STUDY).format()


def in_order(names: Mapping[str, object], known: Mapping[str, object]) -> list[str]:
    """Names in the paper's order, each before its other metrics, then those beyond the paper."""
    place = {name: number for number, name in enumerate(known)}
    return sorted(names, key=lambda name: (place.get(name.partition("_")[0], len(place)), name))


def _frames(folder: Path, problems: list[str]) -> dict[str, pd.DataFrame]:
    frames = {}
    for path in folder.glob("*.csv"):
        try:
            df = tables.load_file(path)
            arrange.layout(df)
            frames[path.stem] = df
        except DataError as error:
            problems.append(str(error))
    return {name: frames[name] for name in in_order(frames, paper.TABLES)}


def _status(path: Path, problems: list[str]) -> list[dict] | None:
    """Rows of status.csv with seconds and MiB as numbers or None; None without a usable file."""
    if not path.exists():
        return None
    try:
        df = pd.read_csv(path, dtype=str, keep_default_na=False)
        df = df.rename(columns=lambda name: "peak MiB" if name.lower().startswith("peak") else name)
        numbers = {name: pd.to_numeric(df[name]) for name in _STATUS[2:]}
        df = df[_STATUS].assign(**numbers).astype(object)
    except (ValueError, KeyError, OSError) as error:
        what = f"{path} does not have the columns {', '.join(_STATUS)} ({error})"
        problems.append(f"{what}: run `make reproduce` again")
        return None
    return df.where(df.notna(), None).rename(columns={"peak MiB": "peak"}).to_dict("records")


def _environment(path: Path, problems: list[str]) -> dict:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it does not hold names and values")
        return found
    except (ValueError, OSError, RecursionError) as error:
        problems.append(f"{path} cannot be read ({error}): run `make reproduce` again")
        return {}


def _makers(folder: Path) -> dict[str, list[str]]:
    """The executed notebooks that make each table and figure, by `tables/<name>` or
    `figures/<name>`, as their first cells say."""
    makers: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.ipynb")):
        try:
            first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        except (ValueError, KeyError, IndexError, OSError, RecursionError):
            continue  # a notebook is no part of the page, only where a link leads
        for what in re.findall(r"((?:tables|figures)/[\w-]+)\.\{", first):
            makers.setdefault(what.replace("_auc", ""), []).append(path.stem)
    return makers
