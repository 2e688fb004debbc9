"""Values that stand for what stores hold, to compare them later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

from eda_core.errors import LocalError


def image_of(store: Any) -> Any:
    """Return a value that is equal to another one if the stores hold the same.

    That is what the method ``snapshot`` returns, or the rows of a connection of sqlite3, or a copy.

    Raises:
        LocalError: there is no such value.
    """
    if callable(snapshot := getattr(store, "snapshot", None)):
        return snapshot()
    if callable(dump := getattr(store, "iterdump", None)):
        return list(dump())
    copy = None
    with suppress(Exception):
        copy = deepcopy(store)
    if copy is None or copy != store:
        raise LocalError(
            f"what a {type(store).__name__} holds cannot be compared",
            hint="give it a method snapshot() that returns what it holds as a value",
        )
    return copy


def difference(before: Any, after: Any, shown: Callable[[Any, int], str]) -> str:
    """Say what differs between two images."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        parts = [f"{key!r} was {shown(before.get(key), 80)}, is {shown(after.get(key), 80)}" for key in keys]
        return "; ".join(parts)
    return f"it was {shown(before, 200)}, is {shown(after, 200)}"
