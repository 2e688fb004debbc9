"""Conditions on messages: ``--where 'payload.client_id == 123 and kind in ["event", "command"]'``.

======================  ================================================================================================
paths                   a field of a message (``delivery.FIELDS``), then keys and positions: ``payload.items[0].id``,
                        ``headers["x-first-death-reason"]``, ``headers.x-first-death-reason``
values                  ``"text"`` ``'text'`` ``12`` ``-1.5`` ``true`` ``false`` ``null`` ``["a", "b"]``
comparisons             ``==`` ``!=`` ``<`` ``<=`` ``>`` ``>=``; ``in`` and ``not in`` (a list, a text, the keys of a
                        map); ``contains`` (the other way round); ``=~ "pattern"`` (a regular expression, anywhere)
together                ``and`` ``or`` ``not`` ``( )``; a path alone asks whether it is there and neither false, null, 0
                        nor empty
======================  ================================================================================================

A path that leads nowhere, and values that cannot be compared, make a comparison false, ``!=`` too. Dates compare with
text in ISO 8601. Nothing is evaluated as Python.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from eda_tools.messages.comparisons import COMPARISONS, MISSING, truth
from eda_tools.messages.delivery import FIELDS

Getter = Callable[[Mapping[str, Any]], Any]
Predicate = Callable[[Mapping[str, Any]], bool]
Path = tuple[str | int, ...]

_DEEPEST: Final = 50

_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<operator>==|!=|<=|>=|=~|<|>|[()\[\],])
    |(?P<path>[^\W\d][\w-]*(?:\.[\w-]+|\[(?:-?\d+|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\])*)
    )""",
    re.VERBOSE,
)
_STEP: Final = re.compile(r"""\.?([\w-]+)|\[(-?\d+)\]|\[("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\]""")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_WORDS: Final = ("and", "or", "not", "in", "contains")
_CONSTANTS: Final = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class WhereError(ValueError):
    """An expression that is none. The text says why and where, and shows the place."""


def parse_where(text: str) -> Predicate:
    """The test that an expression means: takes the fields of a message (:func:`eda_tools.messages.delivery.fields`),
    never raises. As an argument's type, use :func:`where`.

    Raises:
        WhereError: it is not an expression.
    """
    return _Parser(text).parse()


def where(text: str) -> Predicate:
    """:func:`parse_where` as the ``type`` of an argument."""
    try:
        return parse_where(text)
    except WhereError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_path(text: str, roots: tuple[str, ...] = FIELDS) -> Path:
    """The steps of a dotted path; positions in brackets are whole numbers.

    Raises:
        WhereError: it is none, or does not begin with one of ``roots``.
    """
    match = _TOKEN.match(text)
    if match is None or match.lastgroup != "path" or match.end() != len(text.rstrip()):
        raise WhereError(f"{text!r} is not a path such as payload.client.id or payload.items[0]")
    return _steps(match["path"], roots)


def _steps(path: str, roots: tuple[str, ...]) -> Path:
    steps: list[str | int] = []
    for word, position, key in _STEP.findall(path):
        steps.append(int(position) if position else _unquoted(key) if key else word)
    if steps[0] not in roots:
        raise WhereError(f"there is no field {steps[0]}; a path begins with one of {', '.join(roots)}")
    return tuple(steps)


def follow(path: Path, fields: Mapping[str, Any], default: Any = None) -> Any:
    """What is at the end of ``path``, or ``default``."""
    value: Any = fields
    for step in path:
        if isinstance(value, Mapping):
            if step not in value and isinstance(step, str) and step.lstrip("-").isdecimal() and int(step) in value:
                step = int(step)  # CBOR has maps with whole numbers for keys
            value = value.get(step, MISSING)
        elif isinstance(value, (list, tuple)) and (isinstance(step, int) or step.isdecimal()):
            value = value[int(step)] if -len(value) <= int(step) < len(value) else MISSING
        else:
            value = MISSING
        if value is MISSING:
            return default
    return value


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1], flags=re.DOTALL)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._next()

    def parse(self) -> Predicate:
        found = self._or()
        if self._kind:
            raise self._error(f"{self._token} is not expected here")
        return found

    # Tokens

    def _next(self) -> None:
        self._start = self._at + len(self._text[self._at :]) - len(self._text[self._at :].lstrip())
        if self._start == len(self._text):
            self._kind, self._token, self._at = "", "", self._start
            return
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            quote = self._text[self._start] in "\"'"
            raise self._error("a text that does not end" if quote else f"{self._text[self._start]} is not expected")
        self._kind, self._at = str(match.lastgroup), match.end()
        self._token = match[self._kind]
        if self._kind == "path" and self._token in _WORDS:
            self._kind = "operator"

    def _accept(self, *tokens: str) -> str:
        token = self._token if self._kind == "operator" and self._token in tokens else ""
        if token:
            self._next()
        return token

    def _error(self, reason: str, at: int | None = None) -> WhereError:
        place = self._start if at is None else at
        return WhereError(f"column {place + 1}: {reason}, in {self._text[:place]}⟨here⟩{self._text[place:]}")

    # Grammar, from what binds loosest

    def _or(self) -> Predicate:
        terms = [self._and()]
        while self._accept("or"):
            terms.append(self._and())
        return terms[0] if len(terms) == 1 else lambda fields: any(term(fields) for term in terms)

    def _and(self) -> Predicate:
        terms = [self._not()]
        while self._accept("and"):
            terms.append(self._not())
        return terms[0] if len(terms) == 1 else lambda fields: all(term(fields) for term in terms)

    def _not(self) -> Predicate:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(f"nested deeper than {_DEEPEST} levels")
        try:
            if self._accept("not"):
                inner = self._not()
                return lambda fields: not inner(fields)
            if self._accept("("):
                inner = self._or()
                if not self._accept(")"):
                    raise self._error("a ) is missing")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Predicate:
        left = self._operand()
        sign = self._accept("==", "!=", "<", "<=", ">", ">=", "=~", "in", "contains", "not")
        if not sign:
            return lambda fields: truth(left(fields))
        if sign == "not" and not self._accept("in"):
            raise self._error("after this 'not' comes 'in'")
        if sign == "=~":
            return self._match(left)
        right = self._operand()
        compare = COMPARISONS[sign]
        return lambda fields: compare(left(fields), right(fields))

    def _match(self, left: Getter) -> Predicate:
        if self._kind != "text":
            raise self._error('after =~ comes a regular expression, as "text"')
        start, source = self._start, self._token[1:-1]
        try:
            pattern = re.compile(source)
        except re.error as error:
            raise self._error(f"not a regular expression ({error})", start) from None
        self._next()
        return lambda fields: isinstance(value := left(fields), str) and pattern.search(value) is not None

    def _operand(self) -> Getter:
        kind, token, start = self._kind, self._token, self._start
        if kind == "path" and token not in _CONSTANTS:
            try:
                path = _steps(token, FIELDS)
            except WhereError as error:
                raise self._error(str(error), start) from None
            self._next()
            return lambda fields: follow(path, fields, MISSING)
        value = self._literal()
        return lambda fields: value

    def _literal(self) -> Any:
        kind, token = self._kind, self._token
        if self._accept("["):
            items: list[Any] = []
            while not self._accept("]"):
                if items and not self._accept(","):
                    raise self._error("a , or ] is missing")
                items.append(self._literal())
            return items
        if kind == "number":
            value: Any = float(token) if re.search("[.eE]", token) else int(token)
        elif kind == "text":
            value = _unquoted(token)
        elif kind == "path" and token in _CONSTANTS:
            value = _CONSTANTS[token]
        else:
            wanted = "a field or a value is missing" if not kind else f"{token} is not expected here"
            raise self._error(wanted)
        self._next()
        return value
