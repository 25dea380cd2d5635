"""From what notebooks have written to what is published, file by file, each whole or not at all.

outputs/<profile>         published: tables, figures, executed notebooks, the report
outputs/.work/<profile>   notebooks opened by hand write here; `dfil publish` takes it over
outputs/.work/reproduce-* those of a `dfil reproduce`, which publishes each notebook that went well
"""

from __future__ import annotations

import csv
import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfil.system import paths, process
from dfil.system.errors import RunError
from dfil.system.files import atomic
from dfil.system.locks import owner


@contextmanager
def workplace() -> Iterator[None]:
    """While the block runs, this process and its kernels write to a new folder, then removed."""
    parent = paths.published("x").parent / ".work"
    for left in parent.glob(f"reproduce-*-{process.machine()}"):
        if not process.born(int(left.name.split("-")[1])):  # that process was killed
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"reproduce-{os.getpid()}-{process.machine()}"
    before = os.environ.get("DFIL_WORK")
    os.environ["DFIL_WORK"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DFIL_WORK"]
        else:
            os.environ["DFIL_WORK"] = before
        shutil.rmtree(folder, ignore_errors=True)


def publish(profile: str) -> list[Path]:
    """Bring what differs in `paths.outputs(profile)` to `paths.published(profile)`.

    Returns the files that were brought. An empty table never takes the place of a filled one, nor
    do its figures and text; what stays for that reason is said. Raises RunError without such work.
    """
    work, published = paths.outputs(profile), paths.published(profile)
    with owner(published, f"publishing {profile}"):
        kept = {path.stem for path in work.glob("tables/*.csv") if _is_loss(path, published)}
        for name in sorted(kept):
            said = "is empty now and stays as it was; the published one is from an earlier call"
            print(f"\n{published / 'tables' / name}.csv {said}", flush=True)
        brought = []
        for path in _changed(work, published):
            target = published / path.relative_to(work)
            if target.parent.name in ("tables", "figures") and path.stem in kept:
                shutil.copy2(target, path) if target.is_file() else path.unlink()
                continue
            with atomic(target) as part:
                shutil.copyfile(path, part)
            brought.append(target)
        paths.note_state(work)
    return brought


def publish_by_hand(profile: str) -> list[Path]:
    """`publish` of what notebooks opened by hand have made. Raises RunError if there is nothing."""
    if not (paths.published(profile).parent / ".work" / profile).is_dir():
        raise RunError(
            f"no notebook was run by hand with the profile {profile}; nothing to publish"
        )
    return publish(profile)


def take_back(profile: str) -> None:
    """Make `paths.outputs(profile)` what is published, after a notebook that failed."""
    work, published = paths.outputs(profile), paths.published(profile)
    for path in _changed(work, published):
        target = published / path.relative_to(work)
        shutil.copy2(target, path) if target.is_file() else path.unlink()


def _changed(work: Path, published: Path) -> list[Path]:
    """Files written in the workplace since it was begun that differ from what is published."""
    pairs = [(path, published / path.relative_to(work)) for path in paths.written(work)]
    return [a for a, b in pairs if not (b.is_file() and filecmp.cmp(a, b, shallow=False))]


def _is_loss(new: Path, published: Path) -> bool:
    return _filled(published / "tables" / new.name) > 0 and _filled(new) == 0


def _filled(path: Path) -> int:
    """Cells of a table that have a number of ours; 0 for what is no such table."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return sum(bool(row.get("ours")) for row in csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return 0
