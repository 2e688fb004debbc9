"""Writes messages as AMQP properties and body, and reads them (docs/architecture.rst, "Envelope").

It decides what a valid envelope is. It does not know when a message is published, or what becomes of an invalid one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.errors import LocalError, PayloadError
from eda_core.messages.codec import JSON, DecodeError, Limits, decode, encode
from eda_core.messages.delays import DELAY, DELAY_STEP, check_delay, delayed
from eda_core.messages.headers import (
    ATTEMPT,
    CAUSATION_ID,
    CONVERSATION_ID,
    DEDUPLICATION_ID,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    ROUTING,
    STATUS,
)
from eda_core.messages.properties import Unreadable, persistent
from eda_core.messages.routing import (
    COMMANDS,
    CONFIGURATIONS,
    EVENTS,
    LOGS,
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    check_name,
    size_of,
)
from eda_core.messages.values import (
    ERROR,
    SUCCESS,
    AnyMessage,
    Command,
    Configuration,
    Event,
    LogRecord,
    Result,
    kind_of,
)
from eda_core.text import shortened

#: The longest name of a header, bytes (AMQP 0-9-1, section 4.2.5.5). pamqp cuts longer ones.
MAX_HEADER_NAME_BYTES: Final = 128
#: Levels of tables and arrays in a header. Much deeper ones crash some clients (docs/design.rst, "Poison headers").
MAX_HEADER_DEPTH: Final = 32
#: The longest ``expiration``, milliseconds. RabbitMQ closes the channel over a longer one.
LONGEST_EXPIRATION: Final = 315_360_000_000
#: RabbitMQ closes the channel over a message with this ``reply_to`` if the channel does not consume from it.
_DIRECT_REPLY: Final = "amq.rabbitmq.reply-to"

#: The keys of ``meta`` that become properties of a published message.
SENT: Final = ("timestamp", "expiration", "app_id", "priority", "message_type", "content_encoding")
#: The keys of ``meta`` that are not published. A published message has an id of its own, the broker refuses the user_id
#: of another user, and the others are written from the attributes of the message.
NOT_SENT: Final = (
    "delivery_tag",
    "message_id",
    "user_id",
    ATTEMPT,
    CAUSATION_ID,
    CONVERSATION_ID,
    DEDUPLICATION_ID,
    DELAY,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    STATUS,
    *ROUTING,
)


class InvalidEnvelope(ValueError):
    """A delivery that is no message of the architecture. The text says why.

    Attributes:
        conversation_id: the one of the message; "" if it has none that can be read.
    """

    def __init__(self, reason: str, conversation_id: str = "") -> None:
        super().__init__(reason)
        self.conversation_id = conversation_id


# Sending


def seal(message: AnyMessage, content_type: str, limits: Limits) -> tuple[str, str, Basic.Properties, bytes]:
    """Return the exchange, the routing key, the properties and the body with which a message is published.

    Raises:
        LocalError: an attribute of the message is missing, of the wrong type or too long, or the message is a
            ``LogRecord`` (logs are written by :mod:`eda_core.messages.gelf`).
        PayloadError: the payload cannot be written (:func:`eda_core.messages.codec.encode`).
    """
    exchange = _OUTGOING.get(type(message))
    if exchange is None:
        raise LocalError(
            f"a {type(message).__name__} cannot be published", hint="publish an event, command, result or configuration"
        )
    name = check_name("the routing key", message.name)
    conversation_id = message.conversation_id
    if type(conversation_id) is not str:
        raise LocalError(
            f"the conversation id of {name} is {type(conversation_id).__name__}, not str",
            hint="pass text, str(uuid.uuid4()) to begin a conversation",
        )
    if not conversation_id.isascii():
        size_of("the conversation id", conversation_id)  # it must be valid Unicode
    headers: dict[str, Any] = {CONVERSATION_ID: conversation_id}
    properties = persistent(content_type, headers)
    meta = message.meta
    if meta:
        _add_meta(meta, properties, headers)
    if exchange is COMMANDS:
        _address(message, properties, headers)
    try:
        body = encode(message.payload, content_type, limits)
    except PayloadError as error:  # a handler may publish several messages
        named = PayloadError(f"{kind_of(message)} {shortened(name)}: {error}")
        named.hint = error.hint
        raise named from error.__cause__
    if meta:
        if DELAY in meta:
            exchange = _delay(meta[DELAY], exchange, name, properties, headers)
        _check_headers(name, properties)
    elif len(conversation_id) > MAX_NAME_BYTES:
        _check_headers(name, properties)
    return exchange, name, properties, body


_OUTGOING: Final[dict[type, str]] = {Event: EVENTS, Command: COMMANDS, Result: COMMANDS, Configuration: CONFIGURATIONS}


def _address(message: AnyMessage, properties: Basic.Properties, headers: dict[str, Any]) -> None:
    """Add the properties and headers that only commands and results have."""
    if isinstance(message, Command):
        if "." not in message.name:
            raise LocalError(f"the command {message.name!r} names no service", hint="write it as service.CommandName")
        properties.reply_to = check_name("reply_to", message.reply_to)
        if message.reply_to == _DIRECT_REPLY:
            hint = "give a routing key: results are published to the commands exchange"
            raise LocalError(f"reply_to is {message.reply_to!r}", hint=hint)
    else:
        assert isinstance(message, Result)
        if message.status not in (SUCCESS, ERROR):
            raise LocalError(f"the status of a result is {message.status!r}", hint=f"use {SUCCESS!r} or {ERROR!r}")
        headers[STATUS] = message.status
    if check_name("correlation_id", message.correlation_id, empty=True):
        properties.correlation_id = message.correlation_id


def _delay(delay: object, exchange: str, name: str, properties: Basic.Properties, headers: dict[str, Any]) -> str:
    """Add the headers of a delayed message. Returns the exchange to which it is published."""
    if exchange not in (EVENTS, COMMANDS):
        hint = "only the workers that run then would get it: publish it when it is due"
        raise LocalError(f"the configuration {name} cannot be delayed", hint=hint)
    if properties.expiration is not None:
        hint = "give one of them: a message that expires leaves the queue in which it waits"
        raise LocalError(f"{name} has a delay and an expiration", hint=hint)
    seconds = check_delay(delay)
    if not seconds:
        return exchange
    first, more = delayed(exchange, name, seconds)
    headers.update(more)
    return first


def _add_meta(meta: dict[str, Any], properties: Basic.Properties, headers: dict[str, Any]) -> None:
    """Add what is in ``meta``: some keys become properties, some are left out, and all others become headers."""
    if not isinstance(meta, dict):
        raise LocalError(f"meta is {type(meta).__name__}, not dict", hint="pass a dict of headers")
    for key, value in meta.items():
        _check_header_name(key, 1)
        if key in SENT:
            if value is not None:
                setattr(properties, key, value)
        elif key not in NOT_SENT and not key.startswith(("x-", DELAY_STEP)):
            headers[key] = _copied(key, value, MAX_HEADER_DEPTH)
    if properties.expiration is not None and not _is_expiration(properties.expiration):
        raise LocalError(
            f"expiration is {shortened(repr(properties.expiration), 40)}",
            hint=f"give milliseconds as text, such as '60000', up to {LONGEST_EXPIRATION}",
        )


def _check_header_name(name: object, fewest: int) -> None:
    if type(name) is not str:
        raise LocalError(f"header name {name!r} is not text", hint="use str keys in meta")
    if not fewest <= len(name.encode(errors="replace")) <= MAX_HEADER_NAME_BYTES:
        hint = f"use text of {fewest} to {MAX_HEADER_NAME_BYTES} bytes in meta"
        raise LocalError(f"header name {name!r} cannot be sent", hint=hint)


def _copied(name: str, value: object, levels: int) -> object:
    """Return a copy of a header's value: the publish may be held, and its maker may change the value meanwhile."""
    if isinstance(value, float) and not math.isfinite(value):  # RabbitMQ closes the connection (541)
        raise LocalError(f"the header {name} is not a finite number", hint="send it as text")
    if not isinstance(value, (dict, list)):
        return value
    if not levels:
        raise LocalError(f"the header {name} is nested deeper than {MAX_HEADER_DEPTH} levels", hint="flatten it")
    if isinstance(value, list):
        return [_copied(name, item, levels - 1) for item in value]
    for key in value:
        _check_header_name(key, 0)
    return {key: _copied(name, item, levels - 1) for key, item in value.items()}


def _is_expiration(value: object) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isdecimal():
        return False
    return len(value) < 20 and int(value) <= LONGEST_EXPIRATION


def _check_headers(name: str, properties: Basic.Properties) -> None:
    try:
        size = len(properties.marshal())
    except Exception as error:  # pamqp raises TypeError, ValueError, struct.error … for what it cannot write
        raise LocalError(f"the headers of {name} cannot be written: {error}", hint="use text and numbers") from error
    if size > MAX_HEADER_BYTES:
        raise LocalError(
            f"properties and headers of {name} are {size} bytes, the limit is {MAX_HEADER_BYTES}",
            hint="move data to the payload",
        )


# Receiving


def open_envelope(
    exchange: str, routing_key: str, properties: Basic.Properties, body: bytes, limits: Limits
) -> AnyMessage:
    """Return the message that a delivery holds.

    Raises:
        InvalidEnvelope: the properties are :class:`eda_core.messages.Unreadable`, the exchange is none of the
            architecture, a required ``conversation_id`` is missing, the body cannot be decoded, or a message on the
            commands exchange is no command and no result. Nothing else is raised, whatever the bytes are.
    """
    headers = properties.headers
    if type(headers) is not dict:
        headers = {}
    conversation_id = headers.get(CONVERSATION_ID)
    if type(properties) is Unreadable:
        raise InvalidEnvelope(properties.reason, conversation_id if type(conversation_id) is str else "")
    if type(conversation_id) is not str:
        conversation_id = _conversation_id(exchange, conversation_id)
    if not exchange:  # put straight into the queue: a delayed retry, or a dead letter that a tool has republished
        exchange, routing_key = _origin(headers, routing_key)
    content_type = properties.content_type
    if exchange != EVENTS:
        if exchange not in _INCOMING:
            raise InvalidEnvelope(f"exchange {exchange!r} is not one of the architecture", conversation_id)
        if exchange == LOGS:
            content_type = JSON
    try:
        payload = decode(body, content_type, limits)
    except DecodeError as error:
        raise InvalidEnvelope(str(error), conversation_id) from None
    meta = _meta(properties, headers)
    if exchange == EVENTS:  # most messages are events, so they skip the table
        return Event(routing_key, payload, conversation_id, meta)
    return _INCOMING[exchange](routing_key, payload, conversation_id, properties, meta)


def _origin(headers: dict[str, Any], routing_key: str) -> tuple[str, str]:
    exchange, key = headers.get(ORIGIN_EXCHANGE), headers.get(ORIGIN_ROUTING_KEY)
    if exchange in (EVENTS, COMMANDS) and isinstance(key, str) and 0 < len(key) <= MAX_NAME_BYTES:
        return str(exchange), key
    return "", routing_key


def _conversation_id(exchange: str, value: object) -> str:
    if type(value) is int:  # eventail passes on what its callers give
        return str(value)
    if value is None:
        if exchange in (CONFIGURATIONS, LOGS):
            return ""
        raise InvalidEnvelope("no conversation_id in the headers")
    raise InvalidEnvelope(f"conversation_id is {type(value).__name__}, not text")


def _meta(properties: Basic.Properties, headers: dict[str, Any]) -> dict[str, Any]:
    """Return the ``meta`` of a message. Its first four keys are always there, as in eventail 2.3.6."""
    meta: dict[str, Any] = {
        "timestamp": properties.timestamp,
        "expiration": properties.expiration,
        "user_id": properties.user_id,
        "app_id": properties.app_id,
    }
    if properties.message_id is not None:
        meta["message_id"] = properties.message_id
    if properties.priority is not None:
        meta["priority"] = properties.priority
    if properties.message_type is not None:
        meta["message_type"] = properties.message_type
    if properties.content_encoding is not None:
        meta["content_encoding"] = properties.content_encoding
    for name in headers:
        if name not in _ELSEWHERE and name not in meta:
            meta[name] = headers[name]
    return meta


#: Headers that are attributes of messages, and a key of ``meta`` that none may be.
_ELSEWHERE: Final = (CONVERSATION_ID, STATUS, DELAY)

_Properties = Basic.Properties


def _read_command(
    name: str, payload: Any, conversation: str, properties: _Properties, meta: dict[str, Any]
) -> AnyMessage:
    """Read a command or a result. With a ``reply_to`` it is a command, whatever its status."""
    correlation_id = properties.correlation_id or ""
    if properties.reply_to:
        return Command(name, payload, conversation, properties.reply_to, correlation_id, meta)
    status = (properties.headers or {}).get(STATUS)
    if status in (SUCCESS, ERROR):
        return Result(name, payload, conversation, str(status), correlation_id, meta)
    if status is None or status == "":
        raise InvalidEnvelope("neither reply_to nor status: not a command and not a result", conversation)
    raise InvalidEnvelope(f"status {str(status)[:40]!r} is neither {SUCCESS!r} nor {ERROR!r}", conversation)


def _read_configuration(name: str, payload: Any, conversation: str, _: _Properties, meta: dict[str, Any]) -> AnyMessage:
    return Configuration(name, payload, conversation, meta)


def _read_log(name: str, payload: Any, conversation: str, _: _Properties, meta: dict[str, Any]) -> AnyMessage:
    if not conversation and isinstance(payload, dict):
        found = payload.get("_conversation_id")
        conversation = found if isinstance(found, str) else ""
    return LogRecord(name, payload, conversation, meta)


_INCOMING: Final[dict[str, Callable[[str, Any, str, _Properties, dict[str, Any]], AnyMessage]]] = {
    COMMANDS: _read_command,
    CONFIGURATIONS: _read_configuration,
    LOGS: _read_log,
}


def envelope_of(properties: Basic.Properties) -> dict[str, Any]:
    """Return the headers, the ``reply_to`` and the ``correlation_id`` of a message that the broker has returned."""
    envelope: dict[str, Any] = dict(properties.headers) if isinstance(properties.headers, dict) else {}
    if properties.reply_to:
        envelope["reply_to"] = properties.reply_to
    if properties.correlation_id:
        envelope["correlation_id"] = properties.correlation_id
    return envelope
