"""What a detector's number is worth: its scores of validation videos, whose labels are known.

A network's probability orders videos, and need not mean what it says. A line through its logit,
fitted to the validation videos (Platt 1999), gives one that does, for videos like those. Real and
forged ones count the same in it, however many of each there are, so it is the probability where
half of the videos are forged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from dfil.models.weights import read_json
from dfil.system.errors import RunError
from dfil.train.run import OWN, digest_of
from dfil.train.spec import select

LEAST = 10  # videos of each kind below which nothing is fitted


@dataclass(frozen=True)
class Calibration:
    """slope, intercept: of the line. videos: whose logits `real` and `forged` hold, rising; people:
    how many different ones they show, as videos of one person go together."""

    slope: float
    intercept: float
    videos: str
    synthetic: bool
    people: int
    real: Sequence[float]
    forged: Sequence[float]

    def probability(self, logit: float) -> float:
        """The calibrated probability of a video that the detector gave this logit."""
        return float(expit(self.slope * logit + self.intercept))

    def as_high(self, logit: float) -> dict[str, tuple[int, int]]:
        """How many of how many real and forged validation videos came out as high or higher."""
        kinds = {"real": np.asarray(self.real), "forged": np.asarray(self.forged)}
        return {kind: (int((z >= logit).sum()), len(z)) for kind, z in kinds.items()}

    def as_dict(self) -> dict:
        return asdict(self)


def fit(scores: pd.DataFrame, videos: str, synthetic: bool) -> Calibration | None:
    """The calibration by validation videos; None where there are too few of a kind, or where
    forged ones have no higher logits than real ones: a line would turn every answer round.

    scores: a row per video with label (1 = forged), logit and person ("" where not known). videos:
    what they are, in words.
    """
    from sklearn.linear_model import LogisticRegression  # not needed to use one: it takes a second

    logits = {
        label: np.sort(part["logit"].to_numpy(float)) for label, part in scores.groupby("label")
    }
    if min(len(logits.get(label, ())) for label in (0, 1)) < LEAST:
        return None
    # Platt's targets are not 0 and 1 but (n + 1) / (n + 2), lest separable videos make the line
    # infinitely steep: each video counts as a little of the other kind.
    x, y, weights = [], [], []
    for label, z in logits.items():
        sure = (len(z) + 1) / (len(z) + 2)
        for target, share in ((label, sure), (1 - label, 1 - sure)):
            x.append(z)
            y.append(np.full(len(z), target))
            weights.append(np.full(len(z), share / len(z)))
    z = np.concatenate(x)
    middle, spread = z.mean(), z.std() or 1.0  # the fit's steps are those of numbers around 1
    line = LogisticRegression(C=np.inf)
    shares = np.concatenate(weights) * len(scores)
    line.fit((z - middle)[:, None] / spread, np.concatenate(y), shares)
    slope = float(line.coef_[0, 0]) / spread
    intercept = float(line.intercept_[0]) - slope * middle
    if slope <= 0:
        return None
    real, forged = (np.round(logits[label], 3).tolist() for label in (0, 1))
    known = scores.loc[scores["person"] != "", "person"]
    people = known.nunique() + len(scores) - len(known)
    return Calibration(
        _rounded(slope), _rounded(intercept), videos, synthetic, people, real, forged
    )


def _rounded(x: float) -> float:
    """To five significant digits: logits may be of any size, and slopes are as much smaller."""
    return float(f"{x:.5g}")


def of_weights(weights: str | Path, config: Mapping) -> Calibration | None:
    """The calibration in a config, or by the validation scores of the run that the weights, a file
    or a folder, are of; None without either. Raises RunError for one of another form."""
    if kept := config.get("calibration"):
        try:
            return _checked(Calibration(**kept))
        except (TypeError, ValueError) as error:
            raise RunError(
                f"{weights}: its calibration is not of the form that this version reads ({error});"
                " export the run again"
            ) from error
    path = Path(weights).expanduser()
    return of_run(path if path.is_dir() else path.parent, config["synthetic"])


def _checked(scale: Calibration) -> Calibration:
    """Raises ValueError or TypeError for numbers that no fit gives."""
    numbers = np.array([scale.slope, scale.intercept, *scale.real, *scale.forged], float)
    whole = type(scale.people) is int and scale.people > 0 and scale.real and scale.forged
    if not (np.isfinite(numbers).all() and scale.slope > 0 and whole):
        raise ValueError("numbers that no fit gives")
    return scale


def of_run(folder: Path, synthetic: bool) -> Calibration | None:
    """The calibration by the validation scores that a run's folder holds of its own data; None
    where it holds none. Raises RunError if its record is damaged."""
    if not (folder / "run.json").is_file():
        return None
    record = read_json(folder / "run.json")
    try:
        settings = record["settings"]
        dataset, compression = settings["dataset"], settings["compression"]
        forgeries, digest = tuple(settings["manipulations"]), digest_of(settings["data"])
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{folder / 'run.json'}: damaged; copy the run again, or give the weights' file alone"
            " in a folder of its own"
        ) from error
    kind = f"{'synthetic ' * synthetic}validation videos of {dataset} {compression}".strip()
    named = "-".join(filter(None, (f"{dataset.removesuffix('-preview')}*", compression, "val")))
    for path in sorted((folder / "scores").glob(f"{named}-*.parquet")):
        try:
            scores = pd.read_parquet(path)
            last = path.stem.rpartition("-")[2] == digest
            if scores.attrs.get(OWN, last):
                chosen = select(scores, "val", compression, forgeries)
                return fit(chosen, kind, synthetic)
        except (ValueError, KeyError, OSError) as error:
            raise RunError(
                f"{path}: no whole table of scores ({error}); remove it, and the videos are scored"
                " again where they are asked for"
            ) from error
    return None
