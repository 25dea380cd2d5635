"""The floors of the house: nothing imports upwards, and no two modules import each other."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dfil

PACKAGE = Path(dfil.__file__).parent
FLOORS = (
    ("system",),
    ("paper", "profiles"),
    ("datasets", "synthetic"),
    ("faces",),
    ("models",),
    ("train",),
    ("results", "explain"),
    ("tools",),
    ("cli", "__main__"),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
THIN = {"runs": "train"}  # import paths that are kept for users, and the room they show
# Still to be moved: (module, imported module). Only ever made shorter.
OFFENDERS: set[tuple[str, str]] = set()


def modules() -> dict[str, Path]:
    return {
        ".".join(("dfil", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }


def imports() -> dict[str, set[str]]:
    """The modules that each module imports, those within functions included; not for types only."""
    there = modules()
    found = {}
    for name, path in there.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        named = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {full if full in there else node.module for full in whole}
        found[name] = {other for other in named if other in there} - {name, "dfil"}
    return found


def room(module: str) -> str:
    name = module.split(".")[1]
    return THIN.get(name, name)


def test_every_module_stands_in_a_room_with_a_floor():
    assert {room(name) for name in modules() if name != "dfil"} == set(FLOOR)


def test_nothing_imports_upwards():
    upwards = {
        (name, other)
        for name, others in imports().items()
        for other in others
        if name != "dfil" and FLOOR[room(other)] > FLOOR[room(name)]
    }
    assert upwards - OFFENDERS == set()
    assert OFFENDERS - upwards == set(), "mended: take it off the list"


def test_no_two_modules_import_each_other():
    upwards = {
        name: others - {o for n, o in OFFENDERS if n == name} for name, others in imports().items()
    }
    try:
        TopologicalSorter(upwards).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' < '.join(error.args[1])}")
