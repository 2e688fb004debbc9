"""How ``--where`` compares values: those that do not compare, and missing ones, give false, never an error."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

#: What a path that leads nowhere comes to.
MISSING: Final = object()


def truth(value: Any) -> bool:
    """Whether a value is there, and neither false, null, 0 nor empty."""
    return value is not MISSING and bool(value)


def _alike(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Both in a form in which they compare; ``None`` where there is none. True is not 1."""
    if left is MISSING or right is MISSING or isinstance(left, bool) != isinstance(right, bool):
        return None
    if isinstance(left, datetime.date) and isinstance(right, str):
        right = _date(right, left)
    elif isinstance(right, datetime.date) and isinstance(left, str):
        left = _date(left, right)
    return left, right


def _date(text: str, like: datetime.date) -> datetime.date | None:
    try:
        found = type(like).fromisoformat(text)
    except ValueError:
        return None
    if isinstance(found, datetime.datetime) and isinstance(like, datetime.datetime):
        return found if (found.tzinfo is None) == (like.tzinfo is None) else found.replace(tzinfo=like.tzinfo)
    return found


def _comparing(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def test(left: Any, right: Any) -> bool:
        both = _alike(left, right)
        try:
            return both is not None and bool(compare(*both))
        except TypeError:
            return False

    return test


def _equal(left: Any, right: Any) -> bool:
    both = _alike(left, right)
    return both is not None and bool(both[0] == both[1])


def _unequal(left: Any, right: Any) -> bool:
    return left is not MISSING and right is not MISSING and not _equal(left, right)


def _in(left: Any, right: Any) -> bool:
    if left is MISSING:
        return False
    if isinstance(right, str):
        return isinstance(left, str) and left in right
    return isinstance(right, (list, tuple, set, frozenset, Mapping)) and any(_equal(left, item) for item in right)


def _not_in(left: Any, right: Any) -> bool:
    return left is not MISSING and right is not MISSING and not _in(left, right)


#: By sign; "not" stands for "not in".
COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": _equal,
    "!=": _unequal,
    "<": _comparing(operator.lt),
    "<=": _comparing(operator.le),
    ">": _comparing(operator.gt),
    ">=": _comparing(operator.ge),
    "in": _in,
    "not": _not_in,
    "contains": lambda left, right: _in(right, left),
}
