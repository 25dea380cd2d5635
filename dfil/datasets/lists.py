"""Owners' lists: JSON, CSV and plain text, read so that any damage is one sentence with the file.

Also the one table of spellings by which a list may call a video real or fake.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

from dfil.system.errors import DataError, MachineError, machine_fault

ADVICE = "take the owners' file"
LARGEST = 2**28  # bytes; the owners' longest list has 2**24
# Numbers mean what they mean in DFDC's lists. Celeb-DF's, where 1 is real, is read by its adapter.
LABELS = dict.fromkeys(("0", "0.0", "false", "real", "original", "pristine"), 0)
LABELS |= dict.fromkeys(("1", "1.0", "true", "fake", "forged", "manipulated"), 1)


def label(value: object, file: Path, name: str) -> int:
    """1 for fake, 0 for real, in whatever way a list says it. Raises DataError for another word."""
    spelling = str(value).strip().lower()
    if spelling not in LABELS:
        raise DataError(
            f"{file} gives {name} the label {str(value)[:99]!r}, which is none of "
            f"{', '.join(LABELS)}; take the owners' file."
        )
    return LABELS[spelling]


def read_text(path: Path, advice: str = ADVICE) -> str:
    """A list as text. Raises DataError if it is absent, huge or no UTF-8, MachineError if shut.

    advice: what to do about a damaged file, the end of the sentence.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise _damaged(path, f"it has more than {LARGEST} bytes", advice)
        return path.read_bytes().decode("utf-8-sig")  # with or without a byte order mark
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is not there; it came with the videos, copy it from the owners' archive."
        ) from error
    except UnicodeDecodeError as error:
        raise _damaged(path, f"it is not UTF-8 text, see byte {error.start}", advice) from error
    except OSError as error:
        if said := machine_fault(error):
            raise MachineError(said) from error
        raise _damaged(path, error.strerror, advice) from error


def read_json(path: Path, advice: str = ADVICE) -> Any:
    """The contents of a JSON file. Raises as `read_text`, and DataError for doubled keys or NaN."""
    text = read_text(path, advice)
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except ValueError as error:
        raise _damaged(path, f"it is no JSON: {error}", advice) from error
    except RecursionError as error:
        raise _damaged(path, "it is nested too deeply", advice) from error


def read_table(path: Path, advice: str = ADVICE) -> dict[str, Any]:
    """A JSON file with one table. Raises as `read_json`."""
    table = read_json(path, advice)
    if not isinstance(table, dict):
        raise _damaged(path, "it is no table", advice)
    return table


def read_entries(path: Path) -> dict[str, dict]:
    """A JSON file that maps the names of videos to tables. Raises as `read_json`."""
    entries = read_table(path)
    if wrong := [name for name, entry in entries.items() if not isinstance(entry, dict)]:
        raise _damaged(path, f"its entry {wrong[0][:99]!r} is no table")
    found: dict[str, dict] = {}
    for spelled, entry in entries.items():
        if (name := inside(spelled, path)) in found:
            raise _damaged(path, f"it names {name[:99]} again, as {spelled[:99]!r}")
        found[name] = entry
    return found


def read_csv(path: Path, *columns: str) -> dict[str, dict[str, str]]:
    """The rows of a CSV file by their first column, of which each value may occur once.

    Column names are compared without regard to capitals. Raises as `read_text`, and DataError for
    other columns, rows of another length, no rows at all, and a name given twice.
    """
    rows: dict[str, dict[str, str]] = {}
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        header = [name.strip().lower() for name in next(reader, [])]
        if lacking := [name for name in columns if header.count(name) != 1]:
            raise _damaged(path, f'it has not one column "{lacking[0]}"')
        for row in filter(None, reader):
            if len(row) != len(header):
                raise _damaged(path, f"line {reader.line_num} has {len(row)} values")
            values = dict(zip(header, map(str.strip, row), strict=True))
            name = inside(values[columns[0]], path)
            if name in rows:
                raise _damaged(path, f"line {reader.line_num} names {name} again")
            rows[name] = values
    except csv.Error as error:
        raise _damaged(path, f"it is no CSV: {error}") from error
    if not rows:
        raise _damaged(path, "it has no rows")
    return rows


def inside(name: str, file: Path) -> str:
    """A relative path without "./" that a list gives. Raises DataError if it leads elsewhere."""
    parts = PurePosixPath(name).parts
    leads_out = name.startswith("/") or ".." in parts or set(name) & {"\\", ":"}
    if leads_out or not parts or not printable(name):
        raise _damaged(file, f"it names {name[:99]!a}, which is no file below it")
    return "/".join(parts)


def printable(name: str) -> bool:
    """Whether a name fits into one line of UTF-8. Spaces of any kind do: macOS writes U+202F."""
    # Control characters, halves of pairs (bytes that are no UTF-8), separators of lines.
    return not {"Cc", "Cs", "Zl", "Zp"} & {*map(unicodedata.category, name)}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:99]!r} is given twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _damaged(path: Path, why: str | None, advice: str = ADVICE) -> DataError:
    return DataError(f"{path} cannot be read: {why}; {advice}.")
