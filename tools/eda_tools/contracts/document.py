"""Writes contracts as an AsyncAPI 3.0 document: channels, operations, messages and schemas.

A channel is a routing key of an exchange. An operation is what one service does with it. This module decides what these
are called. It does not know where the facts come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from eda_core.messages.codec import CBOR
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS, queue_name
from eda_tools.contracts.facts import Contract, Handler, Received, Sent
from eda_tools.contracts.schemas import NoSchema, schema_of

VERSION: Final = "3.0.0"
#: The version of the AMQP bindings.
_BINDINGS: Final = "0.3.0"
_EXCHANGES: Final = {"event": EVENTS, "command": COMMANDS, "result": COMMANDS, "configuration": CONFIGURATIONS}
#: What the parts of wildcards are called in names, which may not have them.
_WORDS: Final = {"*": "any", "#": "all"}
#: The headers of results, which say whether the command has succeeded.
_STATUS: Final = {"type": "string", "enum": ["success", "error"]}


def document(contracts: Sequence[Contract], title: str, version: str, doubt: Callable[[str], object]) -> dict[str, Any]:
    """Return the document of services.

    Args:
        title, version: of the document.
        doubt: is told what is left out, as one line.
    """
    made = _Document(doubt)
    for contract in contracts:
        made.add(contract)
    types = {each.config.content_type for each in contracts}
    return {
        "asyncapi": VERSION,
        "info": {"title": title, "version": version},
        "defaultContentType": types.pop() if len(types) == 1 else CBOR,
        "channels": made.channels,
        "operations": made.operations,
        "components": {"messages": made.messages, "schemas": made.schemas},
    }


def _headers(kind: str) -> dict[str, Any]:
    """Return the schema of the headers of a message."""
    found: dict[str, Any] = {"conversation_id": {"type": "string"}}
    if kind == "result":
        found["status"] = _STATUS
    required = {} if kind == "configuration" else {"required": list(found)}
    return {"type": "object", "properties": found, **required}


def identifier(text: str) -> str:
    """Return a routing key as a name of the document."""
    words = (_WORDS.get(word, word) for word in text.split("."))
    return re.sub(r"[^\w.-]", "_", ".".join(words), flags=re.ASCII)


def _extension(name: str) -> str:
    """Return the name of what AsyncAPI has no name for. It is no header of a message."""
    return f"x-{name}"


def _reference(*steps: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(step.replace("~", "~0").replace("/", "~1") for step in steps)}


class _Document:
    def __init__(self, doubt: Callable[[str], object]) -> None:
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.messages: dict[str, Any] = {}
        self.schemas: dict[str, Any] = {}
        self._doubt = doubt

    def add(self, contract: Contract) -> None:
        for received in contract.received:
            self._receive(contract, received)
        for sent in contract.sent:
            self._send(contract, sent)

    # Operations

    def _receive(self, contract: Contract, received: Received) -> None:
        channel = self._channel(received.kind, received.key)
        exclusive = contract.config.exclusive_queues or received.kind == "configuration"
        queue: dict[str, Any] = {"durable": not exclusive, "exclusive": exclusive}
        if not exclusive:
            queue["name"] = queue_name(contract.service, _EXCHANGES[received.kind])
        names = [
            self._message(contract, received.kind, _key(received, handler), (handler.payload,), channel)
            for handler in received.handlers
        ]
        operation = self._operation(contract, "receive", received.kind, received.key, channel, names)
        operation["bindings"] = {"amqp": {"ack": True, "bindingVersion": _BINDINGS}}
        operation[_extension("queue")] = queue
        if received.kind == "command" and received.handlers:
            operation["reply"] = self._answer(contract, received, received.handlers)

    def _answer(self, contract: Contract, received: Received, handlers: Sequence[Handler]) -> dict[str, Any]:
        """Return how commands are answered: each to the address that it names."""
        channel = identifier(f"{COMMANDS}.results-of.{received.key}")
        self.channels[channel] = {
            "address": None,
            "description": f"The results of {received.key}, each to the reply_to of its command.",
            "messages": {},
            "bindings": self.channels[self._channel("command", received.key)]["bindings"],
        }
        names = [
            self._message(contract, "result", f"{_key(received, each)}.Result", (each.result,), channel)
            for each in handlers
        ]
        return {
            "address": {"location": "$message.header#/reply_to", "description": "The AMQP property reply_to."},
            "channel": _reference("channels", channel),
            "messages": [_reference("channels", channel, "messages", name) for name in names],
        }

    def _send(self, contract: Contract, sent: Sent) -> None:
        channel = self._channel(sent.kind, sent.name)
        name = self._message(contract, sent.kind, sent.name, sent.payloads, channel)
        operation = self._operation(contract, "send", sent.kind, sent.name, channel, [name])
        persistent = {"deliveryMode": 2, "mandatory": sent.kind == "command", "bindingVersion": _BINDINGS}
        operation["bindings"] = {"amqp": persistent}
        operation[_extension("known")] = sent.known
        if len(sent.replies) == 1:
            operation["reply"] = {"channel": _reference("channels", self._channel("result", sent.replies[0]))}

    def _operation(
        self, contract: Contract, action: str, kind: str, key: str, channel: str, names: Sequence[str]
    ) -> dict[str, Any]:
        operation: dict[str, Any] = {
            "action": action,
            "channel": _reference("channels", channel),
            "title": f"{contract.service} {action}s the {kind} {key}",
            "tags": [{"name": contract.service}],
        }
        if names:
            operation["messages"] = [_reference("channels", channel, "messages", name) for name in names]
        self.operations[identifier(f"{contract.service}.{action}.{_EXCHANGES[kind]}.{key}")] = operation
        return operation

    # What they refer to

    def _channel(self, kind: str, key: str) -> str:
        exchange = _EXCHANGES[kind]
        name = identifier(f"{exchange}.{key}")
        binding = {
            "is": "routingKey",
            "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False},
            "bindingVersion": _BINDINGS,
        }
        self.channels.setdefault(name, {"address": key, "messages": {}, "bindings": {"amqp": binding}})
        return name

    def _message(self, contract: Contract, kind: str, key: str, types: Sequence[Any], channel: str) -> str:
        """Add a message to the components and to a channel. Return its name there.

        Args:
            types: of its payload. ``None`` is one that is not known.
        """
        schemas = [self._payload(contract, key, each) for each in types]
        payload = {"oneOf": schemas} if len(schemas) > 1 and None not in schemas else next(iter(schemas), None)
        name = identifier(f"{kind}.{key}")
        made = {
            "name": key,
            "title": f"{kind} {key}",
            "contentType": contract.config.content_type,
            "headers": _headers(kind),
        }
        if payload is not None:
            made["payload"] = payload
        known = self.messages.get(name)
        if known is None or ("payload" not in known and payload is not None):
            self.messages[name] = made
        elif payload is not None and known["payload"] != payload:
            name = identifier(f"{contract.service}.{name}")
            self.messages[name] = made
        self.channels[channel]["messages"][name] = _reference("components", "messages", name)
        return name

    def _payload(self, contract: Contract, key: str, annotation: Any) -> Any:
        if annotation is None:
            return None
        try:
            found, parts = schema_of(annotation)
            if any(self.schemas.get(name, part) != part for name, part in parts.items()):
                found, parts = schema_of(annotation, prefix=f"{identifier(contract.service)}.")
        except NoSchema as error:
            self._doubt(f"{contract.path}: {key} has no schema: {error}")
            return None
        self.schemas |= parts
        return found


def _key(received: Received, handler: Handler) -> str:
    """Return the routing key of what a handler handles, as far as the binding key tells."""
    prefix, _, last = received.key.rpartition(".")
    return received.key if last == handler.name else ".".join(filter(None, (prefix, handler.name)))
