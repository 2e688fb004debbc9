"""The JSON Schemas of payloads, and whether what one schema describes fits another.

It decides by what is written: a field that the receiver requires has to be among the sender's, with a type that fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from eda_core.messages.models import library_for
from eda_core.services.payloads import annotation_text
from eda_core.text import one_line, shortened

#: Where the schemas of classes are.
COMPONENTS: Final = "#/components/schemas/"
_LONGEST: Final = 200
#: The types of the values of an ``enum``, which may have no other type.
_JSON: Final = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
#: A number may be a whole one.
_WIDER: Final = {"integer": ("integer", "number")}


class NoSchema(ValueError):
    """A type that no library can describe. The text says which, and why, as one line."""


#: A schema, and those that it refers to, by name.
Schema = tuple[Mapping[str, Any], Mapping[str, Any]]


def schema_of(annotation: Any, prefix: str = "") -> Schema:
    """Return the schema of a payload, and those of the classes in it by name.

    Args:
        prefix: of these names.

    Raises:
        NoSchema: there is none.
    """
    try:
        library = library_for(annotation)
        assert library is not None, "only annotations with models are asked for"
        found, parts = library.schema(annotation, f"{COMPONENTS}{prefix}{{name}}")
    except Exception as error:  # a library also runs what users add to their models
        cause = shortened(one_line(f"{error}"), _LONGEST)
        raise NoSchema(f"{annotation_text(annotation)} cannot be described: {cause}") from None
    return found, {f"{prefix}{name}": part for name, part in parts.items()}


def misfits(sender: Schema, receiver: Schema) -> Iterator[str]:
    """Return why payloads of the sender may not fit the receiver, one line for each place."""
    return _Comparison(sender[1], receiver[1]).compare("payload", sender[0], receiver[0])


class _Comparison:
    """Args:
    ours, theirs: the schemas that the sender's, and the receiver's, refer to.
    """

    def __init__(self, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        self._ours, self._theirs = ours, theirs
        self._begun: set[tuple[str, str]] = set()

    def compare(self, place: str, one: Any, other: Any) -> Iterator[str]:
        names = one.get("$ref", ""), other.get("$ref", "")
        if all(names):
            if names in self._begun:  # a class that contains itself
                return
            self._begun.add(names)
        one, other = _resolved(one, self._ours), _resolved(other, self._theirs)
        alternatives = one.get("anyOf") or one.get("oneOf")
        if alternatives:
            for each in alternatives:
                yield from self.compare(place, each, other)
            return
        choices = other.get("anyOf") or other.get("oneOf")
        if choices:
            found = [list(self.compare(place, one, each)) for each in choices]
            if all(found):
                yield min(found, key=len)[0] if len(found) == 1 else f"{place}: it fits none of what is expected"
            return
        wrong = _wrong_value(one, other)
        if wrong:
            yield f"{place}: {wrong}"
            return
        yield from self._fields(place, one, other)
        yield from self._items(place, one, other)

    def _fields(self, place: str, one: Any, other: Any) -> Iterator[str]:
        ours, theirs = one.get("properties", {}), other.get("properties", {})
        rest, more = one.get("additionalProperties"), other.get("additionalProperties")
        if "properties" in one or rest:  # otherwise it is a map of which nothing is known
            for name in other.get("required", ()):
                if name not in ours:
                    yield f"{place}.{name}: the sender does not have it"
        for name, schema in ours.items():
            if name in theirs:
                yield from self.compare(f"{place}.{name}", schema, theirs[name])
            elif more is False:
                yield f"{place}.{name}: the receiver does not allow it"
            elif isinstance(more, dict):
                yield from self.compare(f"{place}.{name}", schema, more)
        if isinstance(rest, dict):
            for name, schema in theirs.items():
                yield from self.compare(f"{place}.{name}", rest, schema)
            if isinstance(more, dict):
                yield from self.compare(f"{place}.*", rest, more)

    def _items(self, place: str, one: Any, other: Any) -> Iterator[str]:
        items = one.get("items"), other.get("items")
        if all(isinstance(each, dict) for each in items):
            yield from self.compare(f"{place}[]", *items)
        pairs = zip(one.get("prefixItems", ()), other.get("prefixItems", ()), strict=False)
        for number, (first, second) in enumerate(pairs):
            yield from self.compare(f"{place}[{number}]", first, second)


def _resolved(schema: Any, parts: Mapping[str, Any]) -> Any:
    while "$ref" in schema:
        schema = parts[schema["$ref"].removeprefix(COMPONENTS)]
    return schema


def _wrong_value(one: Any, other: Any) -> str:
    """Return why a value does not fit, whatever is in it; "" if it may fit."""
    types, wanted = _types(one), _types(other)
    if types and wanted and any(not set(_WIDER.get(each, (each,))) & wanted for each in types):
        return f"{_words(types)} is sent, and {_words(wanted)} is expected"
    values, allowed = _values(one), _values(other)
    if allowed is not None and values is not None:
        extra = [each for each in values if each not in allowed]
        return f"{extra[0]!r} may be sent, and is not expected" if extra else ""
    if allowed is not None and types:
        return f"any {_words(types)} is sent, and only {', '.join(map(repr, allowed))} is expected"
    form = other.get("format")
    if form is not None and "string" in types and one.get("format") != form:
        return f"{one.get('format', 'any string')} is sent, and {form} is expected"
    return ""


def _types(schema: Any) -> set[str]:
    found = schema.get("type")
    if found is None:
        return {_JSON[type(each)] for each in _values(schema) or () if type(each) in _JSON}
    return {found} if isinstance(found, str) else set(found)


def _words(types: set[str]) -> str:
    return " or ".join(sorted(types))


def _values(schema: Any) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return None if found is None else list(found)
