"""Decides whether services agree: whether each command is served, each result comes back, and payloads fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eda_core.errors import LocalError
from eda_core.messages.models import Misfit, Reader
from eda_core.messages.routing import TopicPattern
from eda_core.messages.values import ERROR, AnyMessage, Result, kind_of
from eda_core.services.payloads import reader_for
from eda_tools.contracts.facts import SEEN, Contract, Handler, Sent
from eda_tools.contracts.schemas import NoSchema, misfits, schema_of

PROBLEM: Final = "problem"
WARNING: Final = "warning"
NOTE: Final = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one service, or about two.

    Attributes:
        severity: ``problem``, ``warning`` or ``note``.
        check: what is checked, as one word that stays the same.
        services: the logical services that it is about.
        name: the routing key of the message; "" if it is about none.
        text: one line.
    """

    severity: str
    check: str
    services: tuple[str, ...]
    name: str
    text: str


def findings(
    contracts: Sequence[Contract], external: Sequence[str], observed: Iterable[AnyMessage] = ()
) -> Iterator[Finding]:
    """Return what is wrong with services, and between them.

    Args:
        observed: messages of a recording. Each is read as its handlers would read it.
        external: names, and patterns, of services and events of others. Nothing is said of what goes to them, or comes
            from them.
    """
    for each in contracts:
        yield from (Finding(PROBLEM, "service", (each.service,), "", text) for text in each.faults)
        yield from (Finding(WARNING, "service", (each.service,), "", text) for text in each.doubts)
    for contract in contracts:
        for sent in contract.sent:
            if sent.kind == "command":
                yield from _command(contract, sent, contracts, external)
            else:
                yield from _published(contract, sent, contracts, external)
    yield from _unpublished(contracts, external)
    yield from dict.fromkeys(_unreadable(contracts, observed))


def _unreadable(contracts: Sequence[Contract], observed: Iterable[AnyMessage]) -> Iterator[Finding]:
    """Return which messages of a recording their handlers would reject."""
    for contract in contracts:
        readers = {each.name: _reader(each) for found in contract.received for each in found.handlers}
        for message in observed:
            if isinstance(message, Result) and message.status == ERROR:
                continue  # handlers get these as they come
            for handler in contract.handlers(kind_of(message), message.name):
                misfit = _misfit(readers[handler.name], message)
                if misfit is not None:
                    sender = message.meta.get("app_id") or "somebody"
                    text = f"{message.name} from {sender} in the recording does not fit {contract.service}: {misfit}"
                    yield Finding(PROBLEM, "observed-payload", (contract.service,), message.name, text)


def _reader(handler: Handler) -> Reader | None:
    """Return how a payload is read; ``None`` if the handler gets it as it comes, or if it is among the faults."""
    try:
        return None if handler.annotated is None else reader_for(handler.annotated)
    except LocalError:
        return None


def _misfit(read: Reader | None, message: AnyMessage) -> Misfit | None:
    try:
        if read is not None:
            read(message.payload)
    except Misfit as misfit:
        return misfit
    return None


def _is_external(name: str, external: Sequence[str]) -> bool:
    return any(TopicPattern(each).matches(name) for each in external)


def _command(sender: Contract, sent: Sent, contracts: Sequence[Contract], external: Sequence[str]) -> Iterator[Finding]:
    name, prefix = sent.name, sent.name.rpartition(".")[0]
    services = (sender.service, prefix)
    servers = [each for each in contracts if each.service == prefix]
    serving = [found for each in servers for found in each.takes("command", name)]
    if not serving and not (_is_external(name, external) or _is_external(prefix, external)):
        hint = f"add {name!r} to the command_routing_keys of {prefix}, or correct the name"
        if not servers:
            hint = f"there is no service {prefix} among those that are checked: add it, or --external {prefix}"
        yield Finding(PROBLEM, "command-unserved", services, name, f"nobody serves {name} of {sender.service}; {hint}")
    elif serving and not any(each.own or each.handlers for each in serving):
        text = f"{prefix} subscribes to {name} of {sender.service}, and has no method on_{name.rpartition('.')[2]}()"
        yield Finding(PROBLEM, "command-unserved", services, name, text)
    handlers = [handler for each in servers for handler in each.handlers("command", name)]
    for handler in handlers:
        yield from _fits("payload-type", name, sent.payloads, handler, sender.service, prefix)
    for key in sent.replies:
        owner = next((each for each in contracts if each.service == key.rpartition(".")[0]), None)
        if owner is not None:  # otherwise a service gets the result that is not checked
            yield from _reply(owner, sent, key, handlers)


def _reply(taking: Contract, sent: Sent, key: str, servers: Sequence[Handler]) -> Iterator[Finding]:
    """Return what is wrong with the way of a result to the service that is to take it."""
    owner, prefix = taking.service, sent.name.rpartition(".")[0]
    if not any(taking.takes("result", key)):
        text = f"the result of {sent.name} cannot come: {owner} does not subscribe to its reply_to {key!r}; add it to "
        text += f"command_routing_keys, and define on_{key.rpartition('.')[2]}()"
        yield Finding(PROBLEM, "reply-unbound", (owner,), sent.name, text)
    takers = taking.handlers("result", key)
    for server in servers:
        for taker in takers:
            results = () if server.result is None else (server.result,)
            yield from _fits("result-type", key, results, taker, prefix, owner)


def _published(
    sender: Contract, sent: Sent, contracts: Sequence[Contract], external: Sequence[str]
) -> Iterator[Finding]:
    heard = _is_external(sent.name, external)
    for each in contracts:
        heard = heard or any(each.takes(sent.kind, sent.name))
        for handler in each.handlers(sent.kind, sent.name):
            yield from _fits("payload-type", sent.name, sent.payloads, handler, sender.service, each.service)
    if not heard:
        text = f"nobody hears the {sent.kind} {sent.name} of {sender.service}"
        yield Finding(WARNING, f"{sent.kind}-unheard", (sender.service,), sent.name, text)


def _fits(
    check: str, name: str, payloads: Sequence[Any], handler: Handler, sender: str, receiver: str
) -> Iterator[Finding]:
    """Return what does not fit of what one service sends and a handler expects. A type that is not known fits."""
    for payload in payloads:
        if handler.payload is None or payload is handler.payload:
            continue
        try:
            texts = list(misfits(schema_of(payload), schema_of(handler.payload)))
        except NoSchema as error:
            text = f"{name} from {sender} to {receiver}: {error}"
            yield Finding(WARNING, "no-schema", (sender, receiver), name, text)
            continue
        for text in texts:
            said = f"{name} from {sender} does not fit {receiver}: {text}"
            yield Finding(PROBLEM, check, (sender, receiver), name, said)


def _unpublished(contracts: Sequence[Contract], external: Sequence[str]) -> Iterator[Finding]:
    """Return the events, without wildcards, of which it is not known who publishes them."""
    published = {(sent.kind, sent.name) for each in contracts for sent in each.sent}
    for contract in contracts:
        for each in contract.received:
            known = each.kind not in ("event", "configuration") or (each.kind, each.key) in published
            if not known and not set("*#") & set(each.key.split(".")) and not _is_external(each.key, external):
                text = f"it is not known who publishes the {each.kind} {each.key} that {contract.service} receives"
                yield Finding(NOTE, f"{each.kind}-unpublished", (contract.service,), each.key, text)


def counted(contracts: Sequence[Contract]) -> str:
    """Return in words how much was checked."""
    sent = sum(len(each.sent) for each in contracts)
    received = sum(len(each.received) for each in contracts)
    seen = sum(sent.known == SEEN for each in contracts for sent in each.sent)
    words = f"{len(contracts)} service(s), {received} subscription(s) and {sent} message(s) sent"
    return f"{words}, {seen} of them known from the recording only" if seen else words
