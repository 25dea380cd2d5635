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

from dfil.results import tables
from dfil.results.markdown import markdown
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


def refresh(profile: str) -> None:
    """Take over what another call has published since the folder of work was begun, file by file
    where nothing was changed here: a notebook fills up the table that it finds."""
    work, published = paths.outputs(profile), paths.published(profile)
    with owner(work, f"a notebook of {profile}"):
        mine, taken = set(paths.written(work)), []
        for path in paths.listed(published):
            here = work / path.relative_to(published)
            if here in mine:
                continue
            if not (here.is_file() and filecmp.cmp(path, here)):
                with atomic(here) as part:
                    shutil.copy2(path, part)
                taken.append(here)
            _note_base(work, path)
        paths.note_state(work, taken)


def publish(profile: str) -> list[Path]:
    """Bring what differs in `paths.outputs(profile)` to `paths.published(profile)`.

    Returns the files that were brought. An empty table never takes the place of a filled one, nor
    do its figures and text; what stays for that reason is said. Of a table that another call has
    published meanwhile, the cells that were not filled anew here stay as they are there. Raises
    RunError without such work.
    """
    work, published = paths.outputs(profile), paths.published(profile)
    with owner(published, f"publishing {profile}"):
        kept = {path.stem for path in work.glob("tables/*.csv") if _is_loss(path, published)}
        for name in sorted(kept):
            said = "is empty now and stays as it was; the published one is from an earlier call"
            print(f"\n{published / 'tables' / name}.csv {said}", flush=True)
        brought = []
        for path in _changed(work, published):
            if _is_table(path) and path.stem not in kept:
                merge(path, _base(work, path), published / path.relative_to(work))
        for path in _changed(work, published):
            target = published / path.relative_to(work)
            if target.parent.name in ("tables", "figures") and path.stem in kept:
                shutil.copy2(target, path) if target.is_file() else path.unlink()
                continue
            with atomic(target) as part:
                shutil.copyfile(path, part)
            _note_base(work, target)
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


def merge(mine: Path, base: Path, theirs: Path) -> None:
    """Bring into the table `mine` the cells of `theirs` that are not as in `base`, the table that
    both began with, where mine has them as in base or empty; also rows that it lacks."""
    if not theirs.is_file() or (base.is_file() and filecmp.cmp(base, theirs, shallow=False)):
        return
    cells = [_cells(path) for path in (mine, base, theirs)]
    if not cells[0] or not cells[2]:  # no such table
        return
    ours, began, other = cells
    for place, line in other.items():
        here = ours.get(place)
        if here is None or here == began.get(place) or not here["ours"]:
            ours[place] = line
    with atomic(mine) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, tables.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(ours.values())
    text = markdown(tables.load_file(mine), tables.title_of(mine.parent, mine.stem))
    tables.write_text(mine.with_suffix(".md"), text)


def _cells(path: Path) -> dict[tuple[str, str], dict]:
    """The lines of a table by row and column, as text; none of what is no such table."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {
                tuple(line[name] for name in tables.PLACE): line for line in csv.DictReader(file)
            }
    except (OSError, UnicodeDecodeError, csv.Error, KeyError):
        return {}


def _is_table(path: Path) -> bool:
    return path.parent.name == "tables" and path.suffix == ".csv"


def _base(work: Path, path: Path) -> Path:
    return work / ".base" / path.name


def _note_base(work: Path, path: Path) -> None:
    """Keep the table that is published now, from which changes here are told."""
    if _is_table(path):
        with atomic(_base(work, path), durable=False) as part:
            shutil.copyfile(path, part)


def _is_loss(new: Path, published: Path) -> bool:
    return _filled(published / "tables" / new.name) > 0 and _filled(new) == 0


def _filled(path: Path) -> int:
    """Cells of a table that have a number of ours; 0 for what is no such table."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return sum(bool(row.get("ours")) for row in csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return 0
