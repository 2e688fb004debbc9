"""Conditions on messages: ``--where 'payload.client_id == 123 and kind in ["event", "command"]'``.

======================  ================================================================================================
paths                   a field of a message (``delivery.FIELDS``), then keys and positions: ``payload.items[0].id``,
                        ``headers["x-first-death-reason"]``, ``headers.x-first-death-reason``
values                  ``"text"`` ``'text'`` ``12`` ``-1.5`` ``true`` ``false`` ``null`` ``["a", "b"]``
comparisons             ``==`` ``!=`` ``<`` ``<=`` ``>`` ``>=``; ``in`` and ``not in`` (a list, a text, the keys of a
                        map); ``contains`` (the same with both sides exchanged); ``=~ "pattern"`` (a regular expression
                        that matches anywhere)
together                ``and`` ``or`` ``not`` ``( )``; a path alone is true if the value exists and is not false, null,
                        0 or empty
======================  ================================================================================================

If a path leads nowhere or two values cannot be compared, a comparison is false, also with ``!=``. Dates compare with
text in ISO 8601. Nothing is evaluated as Python. This module knows the names of the fields, not what messages mean.
"""

from __future__ import annotations

import argparse
import datetime
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from eda_tools.messages.delivery import FIELDS

Getter = Callable[[Mapping[str, Any]], Any]
Predicate = Callable[[Mapping[str, Any]], bool]
Path = tuple[str | int, ...]

#: The value of a path that leads nowhere.
MISSING: Final = object()

#: The deepest nesting of parentheses and ``not``.
_DEEPEST: Final = 50

_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<number>-?\d{1,999}(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<operator>==|!=|<=|>=|=~|<|>|[()\[\],])
    |(?P<path>[^\W\d][\w-]*(?:\.[\w-]+|\[(?:-?\d{1,18}|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\])*)
    )""",
    re.VERBOSE,
)
_STEP: Final = re.compile(r"""\.?([\w-]+)|\[(-?\d+)\]|\[("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\]""")
_WHOLE_NUMBER: Final = re.compile(r"-?\d{1,18}")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_WORDS: Final = ("and", "or", "not", "in", "contains")
_CONSTANTS: Final = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class WhereError(ValueError):
    """The text is not a condition. The message says why, and shows the place."""


def where_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--where``; the condition, or None, is ``args.where``."""
    parser.add_argument(
        "--where",
        type=_where,
        metavar="CONDITION",
        help="only messages for which it is true, such as 'payload.client_id == 123'; see docs/tools.rst",
    )


def _where(text: str) -> Predicate:
    try:
        return parse_where(text)
    except WhereError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_where(text: str) -> Predicate:
    """Read a condition. It takes the fields of a message (:func:`eda_tools.messages.delivery.fields`), never raises.

    Raises:
        WhereError: ``text`` is not a condition.
    """
    return _Parser(text).parse()


def parse_path(text: str, roots: tuple[str, ...] = FIELDS) -> Path:
    """Read a dotted path. Returns its steps; positions in brackets are whole numbers.

    Raises:
        WhereError: ``text`` is not a path, or does not begin with one of ``roots``.
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
    """The value at the end of ``path``, or ``default``."""
    value: Any = fields
    for step in path:
        key = key_of(step, value)
        if key is MISSING or (isinstance(value, Mapping) and key not in value):
            return default
        value = value[key]
    return value


def key_of(step: str | int, container: Any) -> Any:
    """The key or position in ``container`` that ``step`` means, or :data:`MISSING`. A map need not have the key."""
    number = int(step) if isinstance(step, int) or _WHOLE_NUMBER.fullmatch(step) else None
    if isinstance(container, Mapping):
        # Maps in CBOR may have whole numbers as keys.
        return number if step not in container and number is not None and number in container else step
    if isinstance(container, (list, tuple)) and number is not None and -len(container) <= number < len(container):
        return number
    return MISSING


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1], flags=re.DOTALL)


# Comparisons


def truth(value: Any) -> bool:
    """Whether a value exists and is not false, null, 0 or empty."""
    return value is not MISSING and bool(value)


def _alike(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Both values in a form in which they can be compared; ``None`` if there is no such form. True is not 1."""
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


#: By sign. "not" means "not in".
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


# The parser


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

    # The grammar, beginning with what binds least

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
