"""The values in tables: their field types, which of them are alike, and their images.

A string that is not UTF-8 is text with surrogate escapes (PEP 383), or ``bytes`` in a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Self

from eda_core.testing.broker.versions import Version

_SIGNED_32: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value of a table that Python has no type for, such as a time beyond the year 9999: its octets on the wire."""

    octets: bytes


#: RabbitMQ's names of the types of integers, by the octets that stand for them.
INTEGER_TYPES: Final = {
    "b": "byte",
    "B": "unsignedbyte",
    "s": "short",
    "u": "unsignedshort",
    "I": "signedint",
    "i": "unsignedint",
    "l": "long",
    "L": "long",
}


class Integer(int):
    """An integer with another field type than one of its size usually has.

    Attributes:
        field_type: the octet that stands for the type: a key of INTEGER_TYPES.
    """

    field_type: str

    def __new__(cls, value: int, field_type: str = "l") -> Self:
        integer = super().__new__(cls, value)
        integer.field_type = field_type
        return integer


class Single(float):
    """A float of single precision."""


def amqp_type(value: object) -> str:
    """RabbitMQ's name of the field type of ``value``."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Integer):
        return INTEGER_TYPES[value.field_type]
    if isinstance(value, int):
        return "signedint" if -_SIGNED_32 <= value < _SIGNED_32 else "long"
    if isinstance(value, Opaque):
        return {"T": "timestamp", "F": "table", "A": "array"}[chr(value.octets[0])]
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    return "void"


_TYPES: Final[tuple[tuple[type, str], ...]] = (
    (str, "longstr"),
    (bytes, "longstr"),
    (bytearray, "binary"),
    (Single, "float"),
    (float, "double"),
    (Decimal, "decimal"),
    (datetime, "timestamp"),
    (dict, "table"),
    (list, "array"),
)


def same_value(one: object, other: object) -> bool:
    """Whether the broker takes two values for equal. Integers of all sizes are alike, but not in an array or table."""
    return _type_class(one) == _type_class(other) and _octets_of(one) == _octets_of(other)


def same_header(one: object, other: object, version: Version) -> bool:
    """Whether a headers exchange takes two values for equal."""
    classes = {_type_class(one), _type_class(other)}
    if version.ignores_times and "timestamp" in classes:
        return False
    if version.mixes_numbers and classes == {"integer", "float"}:
        return one == other
    return same_value(one, other)


def _type_class(value: object) -> str:
    name = amqp_type(value)
    if name in INTEGER_TYPES.values():
        return "integer"
    return {"double": "float", "binary": "longstr"}.get(name, name)


def _octets_of(value: object) -> object:
    """What the broker compares of a value: of what it is made of the types, too."""
    if isinstance(value, dict):
        return [(key, amqp_type(each), _octets_of(each)) for key, each in value.items()]
    if isinstance(value, list):
        return [(amqp_type(each), _octets_of(each)) for each in value]
    if isinstance(value, Decimal):
        return value.as_tuple()  # 1 and 1.0 are two values
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def freeze(value: Any) -> Any:
    """A hashable image of a field value. The images of two values are equal if the values are, and of one type."""
    if isinstance(value, dict):
        return ("table", tuple(sorted((key, freeze(item)) for key, item in value.items())))
    if isinstance(value, list | tuple):
        return ("array", *map(freeze, value))
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, bytearray):
        return bytes(value)
    return (amqp_type(value), repr(value)) if isinstance(value, float | Decimal) or value is None else value


def text_of(value: str | bytes) -> str:
    """A long string as text, with surrogate escapes (PEP 383) for octets that are not UTF-8."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
