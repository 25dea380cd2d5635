"""What installed packages bring along by entry points: methods and datasets of one's own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import entry_points

from dfil.system.errors import DfilError


def load(group: str, known: Collection[str], register: Callable, error: type[DfilError]) -> None:
    """Register every entry point of a group whose name is not known yet.

    Raises `error` naming the package whose object cannot be loaded or registered.
    """
    for point in entry_points(group=group):
        if point.name not in known:
            try:
                register(point.name, point.load())
            except Exception as failure:  # foreign code: whatever it raises is its fault
                kind = group.rpartition(".")[2].removesuffix("s")
                owner = point.dist.name if point.dist else point.value
                raise error(
                    f"The {kind} {point.name} of {owner} cannot be loaded ({failure!r}); repair or "
                    "uninstall that package."
                ) from failure
