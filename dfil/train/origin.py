"""What a run was made from: the code that trained it and the weights it began with.

Both stand in its record, under "made". While it trains, `begun.json` beside the checkpoint keeps
the code's fingerprint, so that no training goes on under other code than it was begun with.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from dfil import models
from dfil.system.errors import RunError
from dfil.system.files import atomic, checksum
from dfil.train import fingerprint
from dfil.train.run import Run

_fine: set[tuple[Path, type]] = set()  # runs and the classes found to be those that trained them


def begin(run: Run) -> dict:
    """The fingerprint of the code that trains a run, for its record; called before it is trained.

    A checkpoint that other code has left is put away, which is said: of a training whose halves are
    two methods nobody could say what it shows. Scores of earlier weights are removed.
    """
    shutil.rmtree(run.folder / "scores", ignore_errors=True)
    file, checkpoint = run.folder / "begun.json", run.folder / "checkpoint.pt"
    now = run.fingerprint()
    if checkpoint.is_file() and file.is_file():
        parts = fingerprint.changed(_read(file), now)
        if parts and not fingerprint.changed(now, run.fingerprint()):  # else it draws at random
            checkpoint.unlink()
            what = " and ".join(parts)
            print(f"{run.key}: begun by other code ({what}); it begins again.", flush=True)
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(now) + "\n")
    return {"fingerprint": now}


def end(run: Run, record: dict) -> None:
    """Write a run's record, with which it is trained, and take away what is kept until then."""
    with atomic(run.folder / "run.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    for name in ("checkpoint.pt", "begun.json"):
        (run.folder / name).unlink(missing_ok=True)


def weights(source: str | None) -> dict:
    """Where a model's first weights came from (`load_imagenet`), for the record: of a file its name
    and checksum."""
    path = Path(source or "")
    if not path.is_file():
        return {"weights": source}
    return {"weights": f"{path.name} sha256 {checksum(path)}"}


def refuse_other_code(run: Run) -> None:
    """Raise RunError if a method of one's own was changed since this run was trained: its key says
    the method's name only, and the scores would be those of the earlier code.

    Of the methods of this package `dfil verify` says the same, for all records at once.
    """
    if run.spec.method in models.BUILT_IN or (run.folder, type(run.build())) in _fine:
        return
    before, now = run.record["made"]["fingerprint"], run.fingerprint()
    parts = fingerprint.changed(before, {"model": now["model"]})
    if parts and not fingerprint.changed(now, run.fingerprint()):  # else it draws at random
        raise RunError(
            f"{run.folder}: the code of {run.spec.method} has changed since this run was trained;"
            " remove the folder to train it again, or move it elsewhere"
        )
    _fine.add((run.folder, type(run.build())))


def _read(file: Path) -> dict:
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError, RecursionError):  # damaged: nobody knows by what code
        return {}
