"""What installed packages bring along by entry points: methods and datasets of one's own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import entry_points

from dfil.system.errors import DfilError

_registered: set[tuple[str, str, str]] = set()


def load(group: str, known: Collection[str], register: Callable, error: type[DfilError]) -> None:
    """Register every entry point of a group, once.

    Raises `error` naming the package whose object cannot be loaded or registered, as where its name
    is taken.
    """
    for point in entry_points(group=group):
        what = group, point.name, point.value
        if point.name not in known or what not in _registered:
            try:
                register(point.name, point.load())
                _registered.add(what)
            except Exception as failure:  # foreign code: whatever it raises is its fault
                kind = group.rpartition(".")[2].removesuffix("s")
                owner = point.dist.name if point.dist else point.value
                raise error(
                    f"The {kind} {point.name} of {owner} cannot be loaded ({failure!r}); repair or "
                    "uninstall that package."
                ) from failure
