"""msgspec: dataclasses, ``TypedDict``, its own Structs, and classes of attrs."""
# ruff: noqa: E402 - the check comes before the imports that would fail

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from functools import partial
from typing import Any, Final

from eda_core.drivers.library import require

require("eda_models", "msgspec", {"msgspec": ""})

import msgspec

from eda_core.messages.models import MSGSPEC, Misfit, Reader, library_of, without_models
from eda_core.text import shortened

#: What CBOR has a form for. msgspec writes these as strings otherwise, as JSON needs it.
_IN_CBOR: Final = (bytes, bytearray, datetime.datetime, datetime.date, decimal.Decimal, uuid.UUID)
#: Characters of a place and of a reason. Keys and the texts of the user's own checks may be of any length.
_LONGEST: Final = 200
#: What errors of msgspec say, and what is said instead: the field, as a group, and the reason. Some quote the payload.
_TEXTS: Final = (
    (r"Object missing required field `(.*)`", "this field is missing"),
    (r"Object contains unknown field `(.*)`", "no field of this name is allowed"),
    (r"Invalid enum value .*()", "expected one of a few values, got another one"),
    (r"Invalid value .*()", "expected the tag of one of a few types, got another one"),
)


def reader(annotation: Any) -> Reader:
    """See :class:`eda_core.messages.models.Library`."""
    msgspec.inspect.type_info(annotation)  # raises TypeError if it cannot be read
    convert = partial(msgspec.convert, type=annotation, str_keys=True)

    def read(payload: Any) -> Any:
        try:
            return convert(payload)
        except msgspec.ValidationError as error:
            raise _misfit(str(error)) from None

    return read


def _misfit(text: str) -> Misfit:
    said, at, place = text.rpartition(" - at `")
    if not at:
        said, place = text, "$"
    place = place.replace("`", "").replace("$", "payload", 1)
    for pattern, reason in _TEXTS:
        found = re.fullmatch(pattern, said, re.DOTALL)
        if found is not None:
            return Misfit(shortened(place + ("." if found[1] else "") + found[1], _LONGEST), reason)
    return Misfit(shortened(place, _LONGEST), shortened(said[:1].lower() + said[1:].replace("`", ""), _LONGEST))


def plain(model: Any, json: bool) -> Any:
    """See :class:`eda_core.messages.models.Library`."""
    others = partial(_other, json)
    if json:
        return msgspec.to_builtins(model, str_keys=True, enc_hook=others)
    return msgspec.to_builtins(model, builtin_types=_IN_CBOR, enc_hook=others)


def _other(json: bool, value: Any) -> Any:
    """Return a value that msgspec does not know as values that it knows."""
    if library_of(type(value)) in (None, MSGSPEC):
        raise TypeError(f"a value of type {type(value).__name__} cannot be written")
    return without_models(value, json=json)


def schema(annotation: Any, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """See :class:`eda_core.messages.models.Library`."""
    (found,), parts = msgspec.json.schema_components([annotation], ref_template=reference)
    return found, parts
