"""The datasets as their owners distribute them: one adapter per dataset, all of them yielding VideoRecord.

A further dataset is one new file with a `records(root, **filters)` function and one line in ADAPTERS. What else that file may say
about its dataset, so that `dfil data check` knows it, stands in check.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dfil.datasets import celebdf, dfdc, dfdc_preview, ffpp, wilddeepfake
from dfil.datasets.records import REAL, VideoRecord
from dfil.system.errors import DataError

__all__ = ["ADAPTERS", "REAL", "VideoRecord", "is_synthetic", "load_records", "synthetic_setting"]

ADAPTERS: dict[str, Callable[..., list[VideoRecord]]] = {
    "ffpp": ffpp.records,
    "celebdf": celebdf.records,
    "dfdc-preview": dfdc_preview.records,
    "dfdc": dfdc.records,
    "wilddeepfake": wilddeepfake.records,
}
MARK = "synthetic.json"  # lies at the top of every tree that dfil.synthetic writes


def load_records(dataset: str, root: str | Path, **filters) -> list[VideoRecord]:
    """Every video of the official tree `root` of `dataset`; `filters` are the adapter's own keywords.

    Raises DataError for an unknown dataset name and for a tree that the adapter cannot read.
    """
    if dataset not in ADAPTERS:
        raise DataError(
            f"Unknown dataset {dataset!r}; choose one of: {', '.join(sorted(ADAPTERS))}."
        )
    return ADAPTERS[dataset](Path(root), **filters)


def is_synthetic(root: str | Path) -> bool:
    """Whether the tree was written by dfil.synthetic rather than by a dataset's owners."""
    return (Path(root) / MARK).exists()


def synthetic_setting(path: str | Path) -> dict | None:
    """The contents of the synthetic.json of the tree in which `path` (a tree or a file in it) lies; None for real data.

    Asking the files themselves, not the caller, is what keeps built-in data from passing for a real dataset.
    """
    path = Path(path).absolute()
    for folder in [path, *path.parents][
        :7
    ]:  # root/manipulated_sequences/METHOD/c23/videos/003_044.mp4 is five deep
        if is_synthetic(folder):
            try:
                return json.loads((folder / MARK).read_text())
            except ValueError as error:
                raise DataError(
                    f"{folder / MARK} is not readable JSON ({error}); write the synthetic tree again."
                ) from error
    return None
