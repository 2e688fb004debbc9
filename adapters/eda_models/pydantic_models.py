"""pydantic: its own models and dataclasses; other dataclasses, and ``TypedDict``, where msgspec is not installed."""
# ruff: noqa: E402 - the check comes before the imports that would fail

from __future__ import annotations

import datetime
import decimal
import uuid
from enum import Enum
from functools import cache
from typing import Any, Final, cast

from eda_core.drivers.library import require

require("eda_models", "pydantic", {"pydantic": ""})

import pydantic
from pydantic_core import ErrorDetails, PydanticSerializationError, to_jsonable_python

from eda_core.messages.models import Misfit, Reader
from eda_core.text import shortened

#: What the codec writes as CBOR. Anything else becomes what pydantic writes as JSON.
_IN_CBOR: Final = (
    *(str, int, float, bool, type(None), bytes, bytearray),
    *(datetime.datetime, datetime.date, decimal.Decimal, uuid.UUID),
)
#: Characters of a place and of a reason. Keys and the texts of the user's own checks may be of any length.
_LONGEST: Final = 200


def reader(annotation: Any) -> Reader:
    """See :class:`eda_core.messages.models.Library`."""
    validate = _adapter(annotation).validate_python

    def read(payload: Any) -> Any:
        try:
            return validate(payload)
        except pydantic.ValidationError as error:
            raise _misfit(error.errors(include_url=False)) from None

    return read


def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
        if not adapter.pydantic_complete:  # a name was missing; otherwise the first payload would say so
            adapter.rebuild()
        return adapter
    except (pydantic.PydanticUserError, pydantic.PydanticUndefinedAnnotation) as error:  # it adds a link to its text
        raise TypeError(error.message) from None


def _misfit(errors: list[ErrorDetails]) -> Misfit:
    first, others = errors[0], len(errors) - 1
    place = "payload" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    reason = first["msg"]
    if first["type"] == "union_tag_invalid":  # the text quotes the payload
        reason = f"expected one of the tags {first['ctx']['expected_tags']}, got another one"
    elif first["type"] not in ("missing", "extra_forbidden", "value_error", "assertion_error"):
        reason = f"{reason}; got {type(first['input']).__name__}"
    more = f" (and {others} more)" if others else ""
    return Misfit(shortened(place, _LONGEST), shortened(reason[:1].lower() + reason[1:], _LONGEST) + more)


def plain(model: Any, json: bool) -> Any:
    """See :class:`eda_core.messages.models.Library`."""
    mode, kind = "json" if json else "python", cast(Any, type(model))
    try:
        found = _serializer(kind).to_python(model, mode=mode, by_alias=True, warnings="error")
    except PydanticSerializationError as error:  # its text has several lines
        raise TypeError(" ".join(str(error).split())) from None
    return found if json else _in_cbor(found)


@cache
def _serializer(kind: type) -> Any:
    """Return what writes a class. To make it takes long for a dataclass, which does not have it itself."""
    return getattr(kind, "__pydantic_serializer__", None) or _adapter(kind).serializer


def _in_cbor(value: Any) -> Any:
    """Return what pydantic has made of a model as values that the codec can write."""
    if isinstance(value, dict):
        return {_in_cbor(key): _in_cbor(child) for key, child in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_in_cbor(child) for child in value]
    if isinstance(value, Enum):
        return _in_cbor(value.value)
    return value if isinstance(value, _IN_CBOR) else to_jsonable_python(value)


def schema(annotation: Any, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """See :class:`eda_core.messages.models.Library`."""
    try:
        found = _adapter(annotation).json_schema(ref_template=reference.replace("{name}", "{model}"))
    except pydantic.PydanticUserError as error:
        raise TypeError(error.message) from None
    return found, found.pop("$defs", {})
