"""What a run was made from: the code that trained it and the weights it began with.

Both stand in its record, under "made". While it trains, `begun.json` beside the checkpoint keeps
the code's fingerprint, so that no training goes on under other code than it was begun with.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from dfil import models
from dfil.system.errors import RunError
from dfil.system.files import atomic
from dfil.train import fingerprint
from dfil.train.run import Run

_models: dict[tuple[Path, type], list[float]] = {}  # today's fingerprints of methods of one's own


def begin(run: Run) -> dict:
    """The fingerprint of the code that trains a run, for its record; called before it is trained.

    A checkpoint that other code has left is put away, which is said: of a training whose halves are
    two methods nobody could say what it shows.
    """
    shutil.rmtree(run.folder / "scores", ignore_errors=True)  # those of earlier weights
    file, checkpoint = run.folder / "begun.json", run.folder / "checkpoint.pt"
    now = run.fingerprint()
    if checkpoint.is_file() and file.is_file():
        if parts := fingerprint.changed(_read(file), now):
            checkpoint.unlink()
            what = " and ".join(parts)
            print(f"{run.key}: begun by other code ({what}); it begins again.", flush=True)
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(now) + "\n")
    return {"fingerprint": now}


def end(run: Run) -> None:
    """Take away what is kept only while a run trains."""
    for name in ("checkpoint.pt", "begun.json"):
        (run.folder / name).unlink(missing_ok=True)


def weights(source: str) -> dict:
    """Where a model's first weights came from (`load_imagenet`), for the record: of a file its name
    and checksum."""
    path = Path(source)
    if not path.is_file():
        return {"weights": source}
    with path.open("rb") as file:
        return {"weights": f"{path.name} sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"}


def refuse_other_code(run: Run) -> None:
    """Raise RunError if a method of one's own was changed since this run was trained: its key says
    the method's name only, and the scores would be those of the earlier code.

    Of the methods of this package `dfil verify` says the same, for all records at once.
    """
    if run.spec.method in models.BUILT_IN:
        return
    key = run.folder, type(run.build())
    if key not in _models:
        _models[key] = run.fingerprint()["model"]
    if fingerprint.changed(run.record["made"]["fingerprint"], {"model": _models[key]}):
        raise RunError(
            f"{run.folder}: the code of {run.spec.method} has changed since this run was trained;"
            " remove the folder to train it again, or move it elsewhere"
        )


def _read(file: Path) -> dict:
    try:
        return dict(json.loads(file.read_text()))
    except ValueError:  # damaged, so the code is not known to be the same
        return {}
