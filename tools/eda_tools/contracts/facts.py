"""The contract of a service: what it receives, by its subscriptions and handlers, and what it sends, if that is known.

What a service sends is known by its attributes ``PUBLISHES``, ``SENDS`` and ``CONFIGURES``, by its source, and by a
recording. This module decides nothing about it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

from eda_core.machine.config import Config
from eda_core.messages.models import models_in
from eda_core.messages.routing import TopicPattern
from eda_core.messages.values import AnyMessage, Command, kind_of
from eda_core.services import ServiceApi
from eda_core.services.checks import check_service, handler_names, overrides
from eda_core.services.handlers import handler_of
from eda_core.services.payloads import AnnotatedPayload, Unresolved, annotated_payload, returned, without_map
from eda_tools.cli.status import USAGE, ToolError
from eda_tools.contracts.source import Call, calls_of

#: How it is known that a service sends something: the most certain first.
DECLARED: Final = "declared"
READ: Final = "read in the source"
SEEN: Final = "seen in the recording"
#: The attributes with which a service declares what it sends, by kind.
DECLARATIONS: Final = {"event": "PUBLISHES", "command": "SENDS", "configuration": "CONFIGURES"}
_A: Final = {"event": "an event", "command": "a command", "configuration": "a configuration"}
#: The words of patterns.
_WILD: Final = frozenset("*#")


@dataclass(frozen=True, slots=True)
class Handler:
    """A method that handles messages.

    Attributes:
        name: of the message, without the service.
        payload: the annotation of the payload, without a dict in its union; ``None`` if it names no model.
        result: the annotation of what it returns, if that names a model.
        annotated: the annotation of the payload as it is written.
    """

    name: str
    payload: Any = None
    result: Any = None
    annotated: AnnotatedPayload | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Received:
    """What a service subscribes to.

    Attributes:
        kind: ``event``, ``command``, ``result`` or ``configuration``.
        key: the binding key.
        handlers: the methods that may be called.
        own: whether the service finds the methods itself: it overrides ``handle``, or the method for the kind.
    """

    kind: str
    key: str
    handlers: tuple[Handler, ...] = ()
    own: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What a service sends.

    Attributes:
        kind: ``event``, ``command`` or ``configuration``.
        name: the routing key.
        payloads: the types of its payload that are known: one, unless several calls send several.
        replies: the routing keys for the results of a command.
        known: how it is known.
    """

    kind: str
    name: str
    payloads: tuple[Any, ...] = ()
    replies: tuple[str, ...] = ()
    known: str = DECLARED


@dataclass(slots=True)
class Contract:
    """What a service receives and sends.

    Attributes:
        path: as which it was named.
        service: the logical service.
        faults, doubts: what is wrong, and what is suspicious, one line each.
    """

    path: str
    service: str
    config: Config
    received: list[Received] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def takes(self, kind: str, name: str) -> Iterator[Received]:
        """Return the subscriptions to messages with this routing key."""
        for each in self.received:
            if each.kind == kind and TopicPattern(each.key).matches(name):
                yield each

    def handlers(self, kind: str, name: str) -> list[Handler]:
        """Return the methods that handle messages with this routing key."""
        found = {each.name: each for received in self.takes(kind, name) for each in received.handlers}
        last = name.rpartition(".")[2]
        return [found[last]] if last in found else []


def contract_of(path: str, service: ServiceApi[Any], observed: Iterable[AnyMessage] = ()) -> Contract:
    """Return the contract of a service.

    Args:
        path: as which it was named.
        observed: messages of a recording. Those are its own whose ``app_id`` is its name.

    Raises:
        ToolError: a declaration is wrong. The text says what it has to be.
    """
    config = service._eda_config
    contract = Contract(path, config.service, config)
    findings = check_service(service, config, awaits=service._eda_awaits)
    contract.faults, contract.doubts = findings.faults, [*findings.doubts, *service._eda_doubts]
    contract.sent = list(_sent(path, service, contract, observed))
    replies = {key for each in contract.sent for key in each.replies}
    contract.received = list(_received(service, config, replies))
    return contract


# What it receives


def _received(service: ServiceApi[Any], config: Config, replies: set[str]) -> Iterator[Received]:
    found = [("event", key) for key in config.events]
    found += [(_kind_on_commands(service, config, key, replies), key) for key in config.commands]
    found += [("configuration", key) for key in config.configurations]
    for kind, key in found:
        if overrides(service, "handle", f"handle_{kind.removesuffix('uration')}"):
            yield Received(kind, key, own=True)
        else:
            yield Received(kind, key, tuple(_handlers(service, kind, key)))


def _kind_on_commands(service: ServiceApi[Any], config: Config, key: str, replies: set[str]) -> str:
    """Return whether a key of ``command_routing_keys`` is for a command or for a result."""
    prefix, _, name = key.rpartition(".")
    handler = handler_of(service, name)
    taken = set() if handler is None else set(inspect.signature(handler).parameters)
    if key in replies or "status" in taken or prefix != config.service:
        return "result"
    return "result" if "reply_to" not in taken and name.endswith("Return") else "command"


def _handlers(service: ServiceApi[Any], kind: str, key: str) -> Iterator[Handler]:
    name = key.rpartition(".")[2]
    if _WILD.isdisjoint(name):
        names = [name] if handler_of(service, name) is not None else []
    else:
        names = [each[3:] for each in handler_names(service) if not _has_own_key(service, each[3:])]
    for each in names:
        yield _handler(service, kind, each)


def _has_own_key(service: ServiceApi[Any], name: str) -> bool:
    config = service._eda_config
    keys = (*config.events, *config.commands, *config.configurations)
    return any(key.rpartition(".")[2] == name for key in keys)


def _handler(service: ServiceApi[Any], kind: str, name: str) -> Handler:
    found = payload = result = None
    try:
        found = annotated_payload(service, f"on_{name}")
        payload = None if found is None else without_map(found.annotation)[0]
        if kind == "command":
            result = _result(returned(service, f"on_{name}"))
    except Unresolved:  # it is among the doubts
        pass
    return Handler(name, payload, result, found)


def _result(annotation: Any) -> Any:
    """Return the part of the annotation of a result that is published: ``None`` and ``bool`` are no results."""
    if not any(models_in(annotation)):
        return None
    parts = [each for each in get_args(annotation) if each not in (type(None), bool)]
    optional = type(None) in get_args(annotation) or bool in get_args(annotation)
    made: Any = annotation
    if optional:
        made = parts[0]
        for each in parts[1:]:
            made = made | each
    return without_map(made)[0]


# What it sends


def _sent(path: str, service: ServiceApi[Any], contract: Contract, observed: Iterable[AnyMessage]) -> Iterator[Sent]:
    found: dict[tuple[str, str], Sent] = {}
    for each in _declared(path, service):
        found[each.kind, each.name] = each
    declared = {each.kind for each in found.values()}
    for call in calls_of(service):
        if call.name is None:
            if call.kind not in declared:
                contract.doubts.append(
                    f"{call.place} sends {_A[call.kind]} whose name is made at run time; list what it may be in "
                    f"{DECLARATIONS[call.kind]}"
                )
        else:
            _add(found, _of_call(call))
    for message in observed:
        if message.meta.get("app_id") == contract.service and kind_of(message) in DECLARATIONS:
            reply_to = message.reply_to if isinstance(message, Command) else ""
            replies = (reply_to,) if reply_to.startswith(f"{contract.service}.") else ()
            _add(found, Sent(kind_of(message), message.name, (), replies, SEEN))
    for sent in found.values():
        yield _with_usual_reply(contract.config, sent)


def _with_usual_reply(config: Config, sent: Sent) -> Sent:
    """Return a command with the routing key that results usually have, if none is known and the service takes it."""
    usual = f"{config.service}.{sent.name.rpartition('.')[2]}Return"
    if sent.kind != "command" or sent.known == READ or sent.replies or usual not in config.commands:
        return sent
    return replace(sent, replies=(usual,))


def _declared(path: str, service: ServiceApi[Any]) -> Iterator[Sent]:
    for kind, attribute in DECLARATIONS.items():
        names = getattr(service, attribute)
        if isinstance(names, str) or not all(isinstance(each, str) for each in names):
            raise ToolError(
                f"{path}: {attribute} is {names!r}; make it a dict with the type of each payload by its routing key, "
                "or a tuple of routing keys",
                USAGE,
            )
        types = names if isinstance(names, Mapping) else dict.fromkeys(names)
        for name, payload in types.items():
            yield Sent(kind, name, (payload,) if any(models_in(payload)) else ())


def _of_call(call: Call) -> Sent:
    assert call.name is not None
    payloads = () if call.payload is None else (without_map(call.payload)[0],)
    return Sent(call.kind, call.name, payloads, (call.reply_to,) if call.reply_to else (), READ)


def _add(found: dict[tuple[str, str], Sent], more: Sent) -> None:
    """Add what is known of a message to what was known before."""
    known = found.setdefault((more.kind, more.name), more)
    payloads = (*known.payloads, *(each for each in more.payloads if each not in known.payloads))
    replies = tuple(dict.fromkeys((*known.replies, *more.replies)))
    found[more.kind, more.name] = replace(known, payloads=payloads, replies=replies)
