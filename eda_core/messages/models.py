"""Knows models: classes whose instances a payload may be, such as dataclasses and the Structs of msgspec.

It decides what a model is, and which library reads and writes it. It imports none of these libraries: the package
``eda_models`` has a module for each, which is imported when the first model is met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol, cast, get_args, get_origin

#: A function that returns a payload as the value that a handler is given. It raises :class:`Misfit`.
Reader = Callable[[Any], Any]

MSGSPEC: Final = "msgspec"
PYDANTIC: Final = "pydantic"
#: Any of them: dataclasses, and the classes of ``TypedDict``.
ANY: Final = "any"

#: The module for each library, and the name of its extra.
_MODULES: Final = {MSGSPEC: "eda_models.structs", PYDANTIC: "eda_models.pydantic_models"}
#: The attribute by which a class is known as one of a library.
_MARKS: Final = (
    ("__pydantic_fields__", PYDANTIC),
    ("__struct_fields__", MSGSPEC),
    ("__attrs_attrs__", MSGSPEC),
    ("__dataclass_fields__", ANY),
    ("__required_keys__", ANY),
)


class Misfit(ValueError):
    """A payload that is no value of a model.

    Attributes:
        place: where, such as ``payload.items[3].price``.
        reason: what was expected there, and what was found. It quotes no value of the payload.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class Library(Protocol):
    """A library that reads and writes models."""

    def reader(self, annotation: Any) -> Reader:
        """Return how payloads are read that an annotation describes.

        Raises:
            TypeError: the library cannot read them. The text says why.
        """

    def plain(self, model: Any, json: bool) -> Any:
        """Return an instance of a model as values that the codec can write.

        Args:
            json: whether they are written as JSON, which has fewer types than CBOR.

        Raises:
            TypeError, ValueError: it has a value that the library cannot write.
        """

    def schema(self, annotation: Any, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the JSON Schema of an annotation, and those of the classes that it refers to, by name.

        Args:
            reference: how these are referred to, with ``{name}`` in it.

        Raises:
            TypeError: the library cannot describe it. The text says why.
        """


def library_of(kind: Any) -> str | None:
    """Return which library a class belongs to: ``MSGSPEC``, ``PYDANTIC`` or ``ANY``; ``None`` if it is no model."""
    if isinstance(kind, type):
        for mark, name in _MARKS:
            if hasattr(kind, mark):
                return name
    return None


@cache
def library(name: str) -> Library:
    """Return a library.

    Args:
        name: ``MSGSPEC`` or ``PYDANTIC``.

    Raises:
        ImportError: it is not installed. The text has the command that installs it.
    """
    return cast(Library, import_module(_MODULES[name]))


def models_in(annotation: Any) -> Iterator[type]:
    """Return the models that an annotation names, also within unions, lists, maps and aliases."""
    inner = getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
    if inner is not None and not isinstance(annotation, type):  # an alias (PEP 695), or a NewType
        yield from models_in(inner)
        return
    origin = get_origin(annotation)
    if library_of(origin or annotation) is not None:
        yield origin or annotation
    for each in get_args(annotation):
        yield from models_in(each)


def library_for(annotation: Any) -> Library | None:
    """Return the library that reads payloads of an annotation; ``None`` if the annotation names no model.

    Raises:
        ImportError: the library is not installed. The text has the command that installs it.
    """
    wanted = {library_of(each) for each in models_in(annotation)}
    if not wanted:
        return None
    if PYDANTIC in wanted:
        return library(PYDANTIC)
    return library(MSGSPEC) if MSGSPEC in wanted else _any_library()


def _any_library() -> Library:
    """Return msgspec, or pydantic if only that is installed.

    Raises:
        ImportError: none of them is installed.
    """
    try:
        return library(MSGSPEC)
    except ImportError:
        try:
            return library(PYDANTIC)
        except ImportError:
            pass
        raise


def without_models(payload: Any, *, json: bool) -> Any:
    """Return a payload with maps in the place of models; the payload itself if there are none in it.

    Args:
        json: whether it is written as JSON.

    Raises:
        TypeError, ValueError, RecursionError: a model has a value that cannot be written, or contains itself.
    """
    return _plain(payload, json, {})


def _plain(value: Any, json: bool, known: dict[int, Any]) -> Any:
    """Do the work of :func:`without_models`, once for a container that is in the payload many times.

    Args:
        known: what was made of containers, by their ``id``.
    """
    if isinstance(value, (dict, list, tuple)):
        if id(value) not in known:
            known[id(value)] = _plain_container(value, json, known)
        return known[id(value)]
    name = library_of(type(value))
    if name is None:
        return value
    if name == ANY:
        try:
            return _any_library().plain(value, json)
        except ImportError:
            return _plain(_fields(value), json, {})
    return library(name).plain(value, json)


def _plain_container(value: Any, json: bool, known: dict[int, Any]) -> Any:
    made: Any
    if isinstance(value, dict):
        made = {key: _plain(child, json, known) for key, child in value.items()}
        return made if any(made[key] is not child for key, child in value.items()) else value
    made = [_plain(child, json, known) for child in value]
    return made if any(new is not old for new, old in zip(made, value, strict=True)) else value


def _fields(model: Any) -> Mapping[str, Any]:
    """Return the fields of a dataclass, without the help of a library."""
    assert is_dataclass(model)
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
