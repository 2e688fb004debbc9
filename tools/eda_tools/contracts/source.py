"""Reads in the source of a service's classes what the service sends.

It finds calls whose names are written there: as texts, as constants of the module, or as attributes of the service. It
tells what it cannot read. It runs no code of the service but properties that such a name stands for.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from eda_core.errors import EdaError
from eda_core.machine.outcomes import PACKAGES
from eda_core.messages.models import library_of
from eda_core.services import ServiceApi
from eda_core.services.payloads import Unresolved, annotated_payload

#: The methods that send: the kind of what they send, and their parameters for the name, the payload and ``reply_to``.
_METHODS: Final = {
    "publish_event": ("event", ("event", "message")),
    "publish_configuration": ("configuration", ("event", "message")),
    "send_command": ("command", ("command", "message", "conversation_id", "reply_to")),
    "call": ("command", ("command", "message")),
}
#: Modules of classes that are none of the user's.
_OTHERS: Final = (*PACKAGES, "builtins", "typing", "abc")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that sends something.

    Attributes:
        kind: ``event``, ``command`` or ``configuration``.
        name: the routing key; ``None`` if it is made at run time.
        payload: the model of the payload; ``None`` if it is not known.
        reply_to: the routing key for the result; "" if nothing comes back, or to a call that waits for it; ``None`` if
            it is made at run time.
        place: where it stands, such as ``Orders.on_Paid(), line 12``.
    """

    kind: str
    name: str | None
    payload: Any
    reply_to: str | None
    place: str


def calls_of(service: ServiceApi[Any]) -> Iterator[Call]:
    """Return the calls in the classes of a service that send something, in the order of the source."""
    for kind in type(service).__mro__:
        if kind.__module__.partition(".")[0] in _OTHERS:
            continue
        try:
            lines, first = inspect.getsourcelines(kind)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):  # it was not read from a file
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from _Function(service, kind, node, first - 1).calls()


class _Function:
    """A function in a class of a service."""

    def __init__(
        self, service: ServiceApi[Any], kind: type, node: ast.FunctionDef | ast.AsyncFunctionDef, before: int
    ) -> None:
        self._service = service
        self._names = vars(sys.modules[kind.__module__])
        self._node = node
        self._where = f"{kind.__name__}.{node.name}()"
        self._before = before
        parameters = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
        self._self = parameters[0] if parameters else ""
        self._payload = parameters[1] if len(parameters) > 1 and node.name.startswith("on_") else ""
        self._assigned = _assigned_once(node)

    def calls(self) -> Iterator[Call]:
        """Return the calls in it that send something."""
        for node in ast.walk(self._node):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
                kind, parameters = _METHODS[node.func.attr]
                given: dict[str, ast.expr] = dict(zip(parameters, node.args, strict=False))
                given |= {each.arg: each.value for each in node.keywords if each.arg is not None}
                if node.func.attr == "call" and not self._is_self(node.func.value):
                    continue
                yield Call(
                    kind,
                    self._text(given.get(parameters[0])),
                    self._model(given.get("message")),
                    self._text(given.get("reply_to")) if node.func.attr == "send_command" else "",
                    f"{self._where}, line {node.lineno + self._before}",
                )

    def _is_self(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == self._self

    def _text(self, node: ast.expr | None) -> str | None:
        """Return the text that an expression is sure to be; ``None`` if it is made at run time."""
        if isinstance(node, ast.JoinedStr):
            parts = [self._text(each) for each in node.values]
            return None if None in parts else "".join(each for each in parts if each is not None)
        if isinstance(node, ast.FormattedValue):
            return self._text(node.value) if node.conversion == -1 and node.format_spec is None else None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._text(node.left), self._text(node.right)
            return None if left is None or right is None else left + right
        if isinstance(node, ast.Name) and node.id in self._assigned:
            return self._text(self._assigned[node.id])
        found = self._value(node)
        return found if isinstance(found, str) else None

    def _value(self, node: ast.expr | None) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._service if node.id == self._self else self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._value(node.value)
            try:
                return None if owner is None else getattr(owner, node.attr, None)
            except EdaError:  # what a service has only while it runs
                return None
        return None

    def _model(self, node: ast.expr | None) -> Any:
        """Return the model of a payload, if the function makes one, or passes its own on."""
        if isinstance(node, ast.Name):
            if node.id == self._payload:
                return self._annotated()
            node = self._assigned.get(node.id)
        made = self._value(node.func) if isinstance(node, ast.Call) else None
        return made if library_of(made) is not None else None

    def _annotated(self) -> Any:
        try:
            payload = annotated_payload(self._service, self._node.name)
        except Unresolved:
            return None
        return None if payload is None else payload.annotation


def _assigned_once(function: ast.AST) -> dict[str, ast.expr]:
    """Return the values of the variables that have one value in a function: each is assigned in one place."""
    stores = [each.id for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
    return {
        each.targets[0].id: each.value
        for each in ast.walk(function)
        if isinstance(each, ast.Assign)
        and isinstance(each.targets[0], ast.Name)
        and stores.count(each.targets[0].id) == 1
        and not any(isinstance(part, ast.Name) and part.id == each.targets[0].id for part in ast.walk(each.value))
    }
