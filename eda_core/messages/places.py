"""Finds the place in a payload that is the reason why the payload cannot be sent, such as ``payload.items[3].price``.

It knows nothing of content types: it is told by a function whether a value can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from eda_core.text import shortened

#: Characters of a place. A place that is deeper is cut in its middle.
_LONGEST: Final = 200


def culprit(payload: object, error: Exception, write: Callable[[Any], object]) -> tuple[str, Exception]:
    """Return the place of the smallest value that cannot be written, with ": " behind it, and the error of that value.

    The place is "" if it is the whole payload.

    Args:
        error: what ``write`` has raised for the payload.
        write: raises an exception if it cannot write a value.
    """
    place, value = "", payload
    while (found := _first_bad(value, write)) is not None:
        step, value, error = found
        place += step
    return (f"payload{_cut(place)}: " if place else ""), error


def _first_bad(value: object, write: Callable[[Any], object]) -> tuple[str, Any, Exception] | None:
    """Return the first value within ``value`` that cannot be written: the step to it, itself, and its error."""
    if isinstance(value, dict):
        for key in value:
            try:
                write({key: None})
            except Exception as error:
                return f" (the key {shortened(_shown(key), 40)})", None, error
    for step, child in _children(value):
        try:
            write(child)
        except Exception as error:
            return step, child, error
    return None


def too_deep(payload: object, max_depth: int) -> tuple[str, str]:
    """Return the place of a container that has ``max_depth`` others around it, or that is one of those around it.

    The second value is the place of that one; "" if it is none. The place is "" if it is in a key. Each container is
    looked at once on each level, because a payload may have the same one many times.
    """
    seen: set[tuple[int, int]] = set()
    levels = [iter([("", payload)])]
    path: list[tuple[str, object]] = []
    while levels:
        found = next(levels[-1], None)
        del path[len(levels) - 1 :]
        if found is None:
            levels.pop()
            continue
        step, value = found
        children = _children(value)
        if children is _NONE or (id(value), len(path)) in seen:
            continue
        seen.add((id(value), len(path)))
        place = "".join([each for each, _ in path]) + step
        for depth, (_, outer) in enumerate(path):
            if outer is value:
                return f"payload{_cut(place)}", "payload" + _cut("".join([each for each, _ in path[: depth + 1]]))
        if len(path) == max_depth:
            return f"payload{_cut(place)}", ""
        path.append((step, value))
        levels.append(iter(children))
    return "", ""


#: The children of a value that has none.
_NONE: Final[list[tuple[str, Any]]] = []


def _children(value: object) -> list[tuple[str, Any]]:
    """Return the values within a container, each with the step to it; ``_NONE`` for any other value."""
    if isinstance(value, dict):
        return [(_step(key), child) for key, child in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{number}]", child) for number, child in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [(f" (the item {shortened(_shown(child), 40)})", child) for child in value]
    return _NONE


def _step(key: object) -> str:
    if isinstance(key, str) and key.isidentifier():
        return f".{shortened(key, 40)}"
    return f"[{shortened(_shown(key), 40)}]"


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # the __repr__ of a user's class may raise
        return f"<{type(value).__name__}>"


def _cut(place: str) -> str:
    return place if len(place) <= _LONGEST else f"{place[: _LONGEST // 2]}…{place[-_LONGEST // 2 :]}"
