"""Payloads of a type that a user has written: a TypedDict, a dataclass, or what hypothesis' ``from_type`` knows.

This module does not know services.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import types
import typing
from enum import Enum
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from eda_core.errors import LocalError
from eda_core.testing.strategies.values import json_payloads, texts

Strategy = st.SearchStrategy

_NO_TYPE_ARGUMENTS: Final[dict[Any, tuple[Any, ...]]] = {dict: (str, Any), list: (Any,)}
_SEQUENCES: Final = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

#: How many items lists and dictionaries have at most, by the number of classes around them: a tree must end somewhere.
_SIZES: Final = (5, 3, 2, 1, 1, 1, 0)


def typed(hint: Any) -> Strategy[Any]:
    """Payloads of a type, as they travel: plain dictionaries, lists and scalars.

    A TypedDict draws with and without the keys that are not required. A dataclass draws all its fields, and becomes the
    dictionary of them; an enumeration becomes its values; a tuple becomes a list. ``Any`` is any value of the JSON data
    model. Numbers are finite, and times are in UTC. For all other types hypothesis' ``from_type`` decides.

    Args:
        hint: the type.

    Raises:
        LocalError: hypothesis finds nothing to draw for the type.
    """
    drawn = _of(hint).map(carried)
    try:
        drawn.validate()
        if drawn.is_empty:
            raise TypeError("it contains itself, without an end")
    except (HypothesisException, NameError, TypeError) as error:
        cause = str(error).partition("\n")[0]
        raise LocalError(
            f"there is no strategy for {_shown(hint)}: {cause}", hint="give a strategy, or st.register_type_strategy()"
        ) from None
    return drawn


def carried(value: Any) -> Any:
    """Return a value as it travels: without dataclasses, enumerations and tuples."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: carried(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return carried(value.value)
    if isinstance(value, collections.abc.Mapping):
        return {carried(key): carried(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [carried(each) for each in value]
    return value


def _of(hint: Any, depth: int = 0) -> Strategy[Any]:
    """Return values of a type. Our own are made where ``from_type`` draws what no peer sends, or refuses ``Any``.

    Args:
        depth: how many classes are around it.
    """
    if hint is Any or hint is object:
        return json_payloads()
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if hint is str:
        return texts()
    if hint is datetime.datetime:
        return st.datetimes(timezones=st.just(datetime.UTC))
    if isinstance(hint, typing.NewType):
        return _of(hint.__supertype__, depth)
    if typing.is_typeddict(hint) or (dataclasses.is_dataclass(hint) and isinstance(hint, type)):
        return _of_class(hint, min(depth, len(_SIZES) - 1))
    if isinstance(hint, type) and (arguments := _NO_TYPE_ARGUMENTS.get(hint)):
        return _of_generic(hint, arguments, hint, depth)
    return _of_generic(typing.get_origin(hint), typing.get_args(hint), hint, depth)


def _of_generic(origin: Any, arguments: tuple[Any, ...], hint: Any, depth: int) -> Strategy[Any]:
    size = _SIZES[min(depth, len(_SIZES) - 1)]
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(_of(each, depth) for each in sorted(arguments, key=lambda each: each is not type(None))))
    if origin in (typing.Required, typing.NotRequired, typing.Final):
        return _of(arguments[0], depth)
    if origin in _SEQUENCES or (origin is tuple and arguments[-1:] == (...,)):
        return st.lists(_of(arguments[0], depth), max_size=size)
    if origin in _MAPPINGS:
        return st.dictionaries(_of(arguments[0], depth), _of(arguments[1], depth), max_size=size)
    if origin is tuple and arguments:
        return st.tuples(*(_of(each, depth) for each in arguments))
    return st.from_type(hint)


@cache
def _of_class(hint: Any, depth: int) -> Strategy[Any]:
    """A TypedDict or a dataclass. It may contain itself, so what it is made of is looked at when it is drawn from."""
    return st.deferred(lambda: _of_fields(hint, depth + 1))


def _of_fields(hint: Any, depth: int) -> Strategy[Any]:
    hints = typing.get_type_hints(hint, include_extras=True)
    if typing.is_typeddict(hint):
        fields = {name: _of(each, depth) for name, each in hints.items()}
        required = {name for name, each in hints.items() if _is_required(hint, name, each)}
        return st.fixed_dictionaries(
            {name: each for name, each in fields.items() if name in required},
            optional={name: each for name, each in fields.items() if name not in required},
        )
    own = [field for field in dataclasses.fields(hint) if field.init]
    drawn = st.fixed_dictionaries({field.name: _of(hints[field.name], depth) for field in own})
    return drawn.map(lambda given: hint(**given))


def _is_required(owner: Any, name: str, hint: Any) -> bool:
    """Return whether a TypedDict always has a key. Where annotations are text, the class itself does not know it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Required, typing.NotRequired):
        return origin is typing.Required
    return name in owner.__required_keys__


def _shown(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)
