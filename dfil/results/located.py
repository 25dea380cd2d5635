"""What maps of Figures 3 to 5 are worth on each video, kept so that claims about pictures are
decided as claims about scores are.

`<folder>/located/<figure>.csv` has a line per video, column and map; value is its energy in the
forged mask (Figures 3 and 4), or the AUC of the video's own frames (Figure 5).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dfil.results import tables
from dfil.results.decide import Decision, of_layout
from dfil.system.errors import DataError, RunError

METRIC = "localisation"
COLUMNS = ["video_id", "person", "column", "row", "value", "synthetic"]
_TYPES = dict.fromkeys(COLUMNS[:4], str) | {"value": float, "synthetic": bool}


def save(measured: pd.DataFrame, folder: Path, figure: str, synthetic: bool) -> None:
    """Write the lines that have a value, if there are any. measured: COLUMNS but `synthetic`."""
    df = measured.dropna(subset="value").assign(synthetic=synthetic)[COLUMNS]
    if len(df):
        path = Path(folder) / "located" / f"{figure}.csv"
        tables.write_text(path, df.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def load(folder: Path) -> dict[str, pd.DataFrame]:
    """Of a profile's folder, by figure. Raises DataError naming a file that is damaged."""
    found = {}
    for path in sorted((Path(folder) / "located").glob("*.csv")):
        try:
            df = pd.read_csv(path, dtype=_TYPES, keep_default_na=False)
            if list(df.columns) != COLUMNS:
                raise ValueError(f"its columns are {', '.join(df.columns)}")
        except (ValueError, OSError) as error:
            what_now = "delete it and run the figure's notebook"
            raise DataError(f"{path} holds no measured maps ({error}): {what_now}") from error
        found[path.stem] = df
    return found


def compare(measured: pd.DataFrame, better: str, than: str | float) -> Decision:
    """The mean difference of two maps, or of a map and a number, on the same videos: averaged over
    the columns, the videos of a person taken together, of one training (see dfil.results.decide).

    Raises RunError if a map was not measured or there are fewer than two people.
    """
    value = measured.pivot(index=["column", "video_id", "person"], columns="row", values="value")
    for row in [better] + [than] * isinstance(than, str):
        if row not in value:
            raise RunError(f"the map {row!r} was not measured")
    d_v = (value[better] - (value[than] if isinstance(than, str) else than)).dropna()
    videos, people = d_v.reset_index()["video_id"], d_v.reset_index()["person"]
    if people.nunique() < 2:
        raise RunError("a comparison needs the videos of at least two people")
    by_column = d_v.groupby("column")
    mean = float(by_column.mean().mean())
    share_v = (d_v - by_column.transform("mean")) / by_column.transform("size")
    x_n = mean + people.nunique() / by_column.ngroups * share_v.groupby("person").sum()
    return of_layout(x_n.to_numpy()[None], videos.nunique())
