"""Finds calls of a service's own methods whose ``await`` is missing, before the service runs.

It reads the code that Python has made of the user's methods. It finds only what is certain: a call that stands alone,
as a statement. What else is forgotten is found when it is dropped (:mod:`eda_core.services.asked`).
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any, Final

from eda_core.machine.outcomes import PACKAGES

#: The methods of a service, and of a batch that is an attribute of it, that do nothing until they are awaited.
_OF_SERVICES: Final = frozenset(
    """publish_event publish_configuration send_command return_success return_error publish_message call
    wait_until_ready""".split()
)
_OF_BATCHES: Final = frozenset(("push", "expire"))

_CALLS: Final = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
#: Instructions that belong to the one before or after them.
_BETWEEN: Final = ("CACHE", "PRECALL", "PUSH_NULL")
#: What no variable is called.
_OTHER: Final = ("",)
#: A place in a source file: the line, and the column, from 0.
_Place = tuple[int, int]


def unawaited(service: object) -> Iterator[str]:
    """Return what to say about each such call in the methods of the user's classes."""
    for kind in type(service).__mro__:
        if kind.__module__.partition(".")[0] in (*PACKAGES, "builtins", "typing", "abc"):
            continue
        for name, member in vars(kind).items():
            function = None if isinstance(member, (staticmethod, classmethod)) else member
            code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
            if isinstance(code, CodeType) and code.co_argcount:
                for call, line, within in _alone(service, code, code.co_varnames[0]):
                    is_plain = within is code and not code.co_flags & inspect.CO_COROUTINE
                    word = f"async def {name}(), and " if is_plain else ""
                    yield (
                        f"{name}() calls {call}(…) in line {line} without await, so that it does nothing; write "
                        f"{word}await {call}(…)"
                    )


def _alone(service: object, code: CodeType, self: str) -> Iterator[tuple[str, int, CodeType]]:
    """Return the calls in ``code``, and in functions within it, whose result is dropped at once.

    Args:
        self: the name of the variable that is the service.

    Returns:
        For each the call, such as "self.batch.push", its line, and the code that it stands in.
    """
    chain: tuple[str, ...] = _OTHER
    called_in = 0
    callees: dict[_Place, tuple[str, ...]] = {}
    called: tuple[str, ...] = ()
    for each in dis.get_instructions(code):
        place = each.positions
        if each.opname in _BETWEEN or place is None or place.lineno is None or place.col_offset is None:
            continue
        start = (place.lineno, place.col_offset)
        if each.opname == "POP_TOP" and _is_ours(service, called, self):
            yield ".".join(called), called_in, code
        called = ()
        if each.opname.startswith(("LOAD_FAST", "LOAD_DEREF")):
            chain = (str(each.argval),)
        elif each.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain = callees[start] = (*chain, str(each.argval))  # the last one before the call: f of a.b().f()
        else:
            if each.opname in _CALLS:
                called, called_in = callees.get(start, ()), place.lineno
            chain = _OTHER
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and self not in constant.co_varnames:
            yield from _alone(service, constant, self)


def _is_ours(service: object, called: tuple[str, ...], self: str) -> bool:
    """Return whether ``called``, such as ``("self", "batch", "push")``, is a method of ours that has to be awaited."""
    if len(called) not in (2, 3) or called[0] != self:
        return False
    method, owner, methods = called[-1], service, _OF_SERVICES
    if len(called) == 3:
        owner, methods = vars(service).get(called[1]), _OF_BATCHES
    function: Any = getattr(type(owner), method, None)
    return (
        method in methods
        and method not in getattr(owner, "__dict__", {})
        and getattr(function, "__module__", "").partition(".")[0] in PACKAGES
    )
