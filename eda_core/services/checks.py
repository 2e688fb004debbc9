"""Checks a service when it starts: whether its subscriptions and its methods fit together.

It decides what is a fault, with which the service must not run, and what is only suspicious. It does not know who is
told.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from eda_core.errors import LocalError
from eda_core.machine.config import Config
from eda_core.machine.outcomes import PACKAGES
from eda_core.messages.models import Reader
from eda_core.services.handlers import HOOKS, Handlers, handler_of
from eda_core.services.payloads import Unresolved, annotated_payload, reader_for
from eda_core.services.unawaited import unawaited

#: What the handlers of each kind are given (docs/architecture.rst, "Handlers").
PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "an event": ("payload", "conversation_id", "meta"),
    "a command": ("payload", "conversation_id", "reply_to", "correlation_id", "meta"),
    "a result": ("payload", "conversation_id", "status", "correlation_id", "meta"),
    "a configuration": ("payload", "meta"),
}
#: The methods that a service may override, and what they are given. ``meta`` comes by name.
_DISPATCHERS: Final = {
    "handle": ("message",),
    "handle_event": ("event", *PARAMETERS["an event"]),
    "handle_command": ("command", *PARAMETERS["a command"]),
    "handle_result": ("key", *PARAMETERS["a result"]),
    "handle_config": ("configuration", *PARAMETERS["a configuration"]),
    "handle_log": ("key", "payload", "meta"),
    "handle_returned_message": ("key", "payload", "envelope"),
    **dict.fromkeys(HOOKS, ()),
}
#: The last words of binding keys that match any name.
_ANY: Final = ("*", "#")
#: How alike two names are that one takes for the other; PREFETCH and PREFETCH_COUNT are.
_NEAR: Final = 0.7


@dataclass(slots=True)
class Findings:
    """What is wrong with a service.

    Attributes:
        faults: what must be mended before it can run, one line each.
        doubts: what is suspicious, one line each.
        readers: how payloads are read, by the names of the handlers whose payloads are annotated with models.
    """

    faults: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    readers: dict[str, Reader] = field(default_factory=dict)


def check_service(service: Handlers, config: Config, *, awaits: bool) -> Findings:
    """Check the subscriptions and the methods of a service.

    Args:
        awaits: whether its handlers may be coroutine functions.
    """
    findings = Findings()
    subscriptions, idle = _subscriptions(service, config), _never_called(service, config)
    for argument, key, kind in subscriptions:
        if not _is_pattern(key):
            findings.doubts.extend(_doubts_about(service, config, argument, key, kind, idle))
    called = dict(_called(service, subscriptions))
    for name, expected in called.items():
        _check_method(findings, getattr(service, name), name, *expected, awaits=awaits)
    for name, parameters in _DISPATCHERS.items():
        if overrides(service, name):
            by_name = name.startswith("handle_") and parameters[-1] == "meta"
            _check_method(findings, getattr(service, name), name, f"{name}()", parameters, by_name, awaits=awaits)
    if getattr(service, "TYPED_PAYLOADS", True):
        for name in dict.fromkeys((*called, *handler_names(service))):
            _find_reader(findings, service, name)
    if awaits:
        findings.faults.extend(unawaited(service))
    for name in idle:
        findings.doubts.append(f"on_{name}() is never called: no routing key ends with {name!r}; subscribe to it")
    findings.doubts.extend(_misspelt(service))
    findings.faults[:] = dict.fromkeys(findings.faults)
    return findings


def _misspelt(service: Handlers) -> Iterator[str]:
    """Return what to say about attributes of the user that look like settings and are none."""
    ours = [each for each in type(service).__mro__ if each.__module__.partition(".")[0] in PACKAGES]
    settings = [name for name in dir(ours[0]) if _is_setting(name)] if ours else []
    users = [each for each in type(service).__mro__ if each not in ours]
    for name in dict.fromkeys(name for place in (service, *users) for name in vars(place)):
        near = [] if name in settings or not _is_setting(name) else get_close_matches(name, settings, 1, _NEAR)
        if near:
            yield f"{name} is no setting, and is ignored; do you mean {near[0]}?"


def _is_setting(name: str) -> bool:
    return name.isupper() and not name.startswith("_")


def _subscriptions(service: Handlers, config: Config) -> list[tuple[str, str, str]]:
    """Return the binding keys whose handlers this module can know: the argument, the key, and the kind of each."""
    found = []
    if not overrides(service, "handle", "handle_event"):
        found += [("event_routing_keys", key, "an event") for key in config.events]
    if not overrides(service, "handle", "handle_command", "handle_result"):
        for key in config.commands:
            is_ours = key.rpartition(".")[0] == config.service
            found.append(("command_routing_keys", key, "a command" if is_ours else "a result"))
    if not overrides(service, "handle", "handle_config"):
        found += [("config_routing_keys", key, "a configuration") for key in config.configurations]
    return found


def _called(
    service: Handlers, subscriptions: list[tuple[str, str, str]]
) -> Iterator[tuple[str, tuple[str, tuple[str, ...], bool]]]:
    """Return the names of the handlers that may be called, and how: the words for that, the parameters, and False.

    What only patterns match is left out if it may be of several kinds.
    """
    exact = {f"on_{_last(key)}": kind for _, key, kind in subscriptions if not _is_pattern(key)}
    wide = {kind for _, key, kind in subscriptions if _is_pattern(key)}
    for name in {*exact, *handler_names(service)}:
        kind = exact.get(name) or (wide.copy().pop() if len(wide) == 1 else None)
        if kind is not None and handler_of(service, name[3:]) is not None:
            yield name, (f"the handler of {kind}", PARAMETERS[kind], False)


def _doubts_about(
    service: Handlers, config: Config, argument: str, key: str, kind: str, idle: list[str]
) -> Iterator[str]:
    """Return what is suspicious about a binding key without wildcards.

    Args:
        idle: the names of the messages whose handlers are never called. One that the key may mean is removed.
    """
    prefix, dot, name = key.rpartition(".")
    handler = handler_of(service, name)
    if handler is None:
        text = f"{argument} has {key!r}, but there is no method on_{name}()"
        near = get_close_matches(name, idle, 1, _NEAR)
        if near:
            idle.remove(near[0])
            yield f"{text}, and on_{near[0]}() is never called; do you mean {prefix + dot + near[0]!r}?"
        else:
            yield f"{text}; define it, or remove the key"
        return
    taken = _names(handler)
    if kind == "an event" and dot and (prefix == config.service or "reply_to" in taken):
        yield f"{argument} has {key!r}, which looks like a command; commands belong to command_routing_keys"
    elif argument == "command_routing_keys" and not dot and not taken & {"reply_to", "status", "correlation_id"}:
        yield f"{argument} has {key!r}, which looks like an event; events belong to event_routing_keys"
    elif argument == "command_routing_keys" and dot and prefix != config.service and "reply_to" in taken:
        yield (
            f"{argument} has {key!r}, which looks like a command of the service {prefix}: both services would answer "
            f"it; the commands of this service begin with {config.service + '.'!r}"
        )


def _check_method(
    findings: Findings, method: Any, name: str, what: str, parameters: tuple[str, ...], by_name: bool, *, awaits: bool
) -> None:
    """Check whether a method can be called and what it returns can be used."""
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        findings.faults.append(f"{name}() has a yield, so that calling it does nothing; remove the yield")
    elif inspect.iscoroutinefunction(method) and not awaits:
        findings.faults.append(
            f"async def {name}() would never be run, because this service awaits nothing; write def {name}(), or "
            "derive the service from eda_aio.Service"
        )
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # it is no function of Python
        return
    given: dict[str, Any] = {"meta": None} if by_name else {}
    try:
        signature.bind(*(None for _ in range(len(parameters) - by_name)), **given)
    except TypeError:
        expected = ", ".join((*parameters[:-1], "meta=meta") if by_name else parameters)
        names = ", ".join(str(each.replace(annotation=each.empty)) for each in signature.parameters.values())
        findings.faults.append(f"{name}({names}) cannot be called: {what} is called as {name}({expected})")


def _find_reader(findings: Findings, service: Handlers, name: str) -> None:
    """Note how the payload of a handler is read, if it is annotated with a model."""
    try:
        payload = annotated_payload(service, name)
        reader = None if payload is None else reader_for(payload)
    except Unresolved as error:
        findings.doubts.append(f"{name}() gets its payload as it comes: {error}")
    except LocalError as error:
        findings.faults.append(f"{name}() cannot get its payload: {error}")
    else:
        if reader is not None:
            findings.readers[name] = reader


def overrides(service: Handlers, *names: str) -> bool:
    """Return whether a service defines one of these methods of the base class itself."""
    return any(
        name in vars(service) or getattr(type(service), name, None) is not getattr(Handlers, name) for name in names
    )


def _never_called(service: Handlers, config: Config) -> list[str]:
    """Return the names of the messages that the service has handlers for, and does not subscribe to."""
    if overrides(service, "handle", "handle_event", "handle_command", "handle_result", "handle_config"):
        return []
    keys = (*config.events, *config.commands, *config.configurations)
    return [name[3:] for name in handler_names(service) if not any(_may_call(key, name) for key in keys)]


def handler_names(service: Handlers) -> list[str]:
    """Return the names of the methods that are handlers by their names: names of messages begin with a capital."""
    return [
        name
        for name in dir(type(service))
        if name.startswith("on_") and name[3:4].isupper() and callable(getattr(type(service), name, None))
    ]


def _names(handler: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters of a handler."""
    try:
        return set(inspect.signature(handler).parameters)
    except (TypeError, ValueError):  # it is no function of Python
        return set()


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _is_pattern(key: str) -> bool:
    return any(word in _ANY for word in key.split("."))


def _may_call(key: str, name: str) -> bool:
    return _last(key) in (*_ANY, name[3:])
