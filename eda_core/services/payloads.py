"""Finds out what the payloads of handlers are annotated with, and how they are read.

It decides which annotations are typed payloads, once, when a service begins to run. It does not know when a payload is
read, and what follows from one that does not fit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from eda_core.errors import LocalError
from eda_core.messages.models import Misfit, Reader, library_for, models_in
from eda_core.services.handlers import Handlers, handler_of
from eda_core.text import one_line, shortened

#: Characters of the text of an annotation, and of an error of a library about it.
_LONGEST: Final = 300
#: What says in a union that any map will do.
_MAPS: Final = (dict, Mapping)


class Unresolved(LookupError):
    """An annotation, written as a text, that names what is not there at run time. The text says what, as one line."""


@dataclass(frozen=True, slots=True)
class AnnotatedPayload:
    """The annotation of a payload that names a model.

    Attributes:
        parameter: the name of the parameter.
        annotation: the annotation itself, with all names resolved.
    """

    parameter: str
    annotation: Any

    def __str__(self) -> str:
        return annotation_text(self.annotation)


def annotation_text(annotation: Any) -> str:
    """Return an annotation as its author would write it, such as ``ChargeCard | None``."""
    text = annotation.__name__ if isinstance(annotation, type) else repr(annotation)
    return shortened(one_line(text.replace("typing.", "")), _LONGEST)


def annotated_payload(service: Handlers, name: str) -> AnnotatedPayload | None:
    """Return the annotation of the payload of a handler; ``None`` if it names no model.

    Args:
        name: the name of the method, such as ``on_ChargeCard``.

    Raises:
        Unresolved: it names what is not there at run time.
    """
    handler = handler_of(service, name[3:])
    parameter = None if handler is None else _first(handler)
    if handler is None or parameter is None:
        return None
    annotation = _resolved(f"the annotation of {parameter.name}", parameter.annotation, service, name)
    return AnnotatedPayload(parameter.name, annotation) if any(models_in(annotation)) else None


def returned(service: Handlers, name: str) -> Any:
    """Return the annotation of what a handler returns; ``None`` if it has none.

    Raises:
        Unresolved: it names what is not there at run time.
    """
    handler = handler_of(service, name[3:])
    if handler is None:
        return None
    annotation = getattr(_function(handler), "__annotations__", {}).get("return")
    return None if annotation is None else _resolved("the annotation of its result", annotation, service, name)


def _first(handler: Callable[..., Any]) -> inspect.Parameter | None:
    """Return the parameter for the payload, if it is annotated."""
    try:
        parameters = [*inspect.signature(handler).parameters.values()]
    except (TypeError, ValueError, NameError):  # it is no function of Python; or a name is missing, in Python 3.14
        return None
    first = parameters[0] if parameters else None
    if first is None or first.annotation is first.empty or first.kind is first.VAR_POSITIONAL:
        return None
    return first


def _function(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a decorator or a ``partial`` has wrapped."""
    while True:
        handler = inspect.unwrap(handler)
        if not isinstance(handler, partial):
            return handler
        handler = handler.func


def _resolved(what: str, annotation: Any, service: Handlers, name: str) -> Any:
    """Return an annotation of a handler with the values of the names in it. It may be a text."""

    def stub() -> None: ...

    stub.__annotations__ = {"payload": annotation}
    names = getattr(_function(getattr(service, name)), "__globals__", {})
    owner = next((each for each in type(service).__mro__ if name in vars(each)), object)
    try:
        return get_type_hints(stub, names, dict(vars(owner)), include_extras=True)["payload"]
    except Exception as error:  # a text may be any expression
        cause = shortened(one_line(f"{error}"), _LONGEST)
        raise Unresolved(
            f"{what}, {annotation!r}, cannot be resolved ({cause}); import what it names at run time, and not under "
            "TYPE_CHECKING, or annotate with Any"
        ) from None


def reader_for(payload: AnnotatedPayload) -> Reader | None:
    """Return how a payload is read; ``None`` if it is given to the handler as it comes.

    A ``TypedDict`` is a dict at run time. So without a library that checks it, the payload is what the handler expects.

    Raises:
        LocalError: a library is missing that is needed to read it, or cannot read it. The text says what to do.
    """
    what = f"{payload.parameter} is annotated with {payload}"
    annotation, or_map = without_map(payload.annotation)
    try:
        library = library_for(annotation)
    except ImportError as error:
        if all(hasattr(each, "__required_keys__") for each in models_in(annotation)):
            return None
        raise LocalError(what, hint=f"{error}") from None
    if library is None:
        return None
    try:
        read = library.reader(annotation)
    except Exception as error:  # a library also runs what users add to their models
        cause = shortened(one_line(f"{error}"), _LONGEST)
        raise LocalError(what, hint=f"which no message can be read as: {cause}") from None
    return partial(_read_or_map, read) if or_map else read


def without_map(annotation: Any) -> tuple[Any, bool]:
    """Return an annotation without the dict in its union, and whether there is one: ``Order | dict[str, Any]``."""
    parts = get_args(annotation) if isinstance(annotation, UnionType) or get_origin(annotation) is Union else ()
    models = tuple(each for each in parts if (get_origin(each) or each) not in _MAPS or any(models_in(each)))
    if len(models) in (0, len(parts)):
        return annotation, False
    return Union[models], True  # noqa: UP007 - its members are known at run time only


def _read_or_map(read: Reader, payload: Any) -> Any:
    try:
        return read(payload)
    except Misfit:
        if isinstance(payload, dict):
            return payload
        raise
