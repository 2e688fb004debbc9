"""Messages as properties and bytes: round trips, invalid envelopes, and whatever a peer may send.

What eventail 2.3.6 sends is in ``test_envelope_eventail``.
"""

from __future__ import annotations

import copy
import datetime
import math
import re
import struct
import threading
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import frame as pamqp_frame
from pamqp import header
from pamqp.commands import Basic

from eda_core.errors import LocalError, PayloadError
from eda_core.messages import gelf
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS, JSON, Limits
from eda_core.messages.delays import DELAY
from eda_core.messages.envelope import InvalidEnvelope, envelope_of, open_envelope
from eda_core.messages.properties import Unreadable
from eda_core.messages.routing import EXCHANGES, MAX_HEADER_BYTES
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Result
from eda_core.testing import strategies
from eda_core.testing.wire import frames
from tests.core.kit import Sealed, seal

Properties = Basic.Properties
CASES = st.one_of(*(st.tuples(st.just(name), strategies.messages(name)) for name in (CBOR, JSON)))
EMPTY_META = {"timestamp": None, "expiration": None, "user_id": None, "app_id": None}


def as_frames_reads(properties: Properties) -> Properties:
    """Write the message, and read it by our own codec for AMQP."""
    data = frames.encode_content(1, properties, b"", 0)
    return frames.decode_content_header(data[7:-1])[1]


def as_pamqp_reads(properties: Properties) -> Properties:
    """Write the message, and read it by pamqp, as an adapter gets it."""
    data = frames.encode_content(1, properties, b"", 0)
    read = pamqp_frame.unmarshal(data)[2]
    assert isinstance(read, header.ContentHeader)
    return read.properties


def as_pamqp_writes(properties: Properties) -> Properties:
    return frames.decode_content_header(header.ContentHeader(0, 0, properties).marshal())[1]


def reopened(sealed: Sealed, properties: Properties | None = None) -> AnyMessage:
    return open_envelope(
        sealed.exchange, sealed.routing_key, properties or sealed.properties, sealed.body, DEFAULT_LIMITS
    )


def opened(exchange: str, key: str, headers: dict[str, Any] | None, body: bytes = b"null", **others: Any) -> AnyMessage:
    properties = Properties(headers=headers, **{"content_type": JSON, **others})
    message = open_envelope(exchange, key, as_frames_reads(properties), body, DEFAULT_LIMITS)
    assert message == open_envelope(exchange, key, as_pamqp_reads(properties), body, DEFAULT_LIMITS)
    return message


def refusal(*arguments: Any, **others: Any) -> InvalidEnvelope:
    with pytest.raises(InvalidEnvelope) as caught:
        opened(*arguments, **others)
    return caught.value


# Round trips


@given(CASES)
def test_every_message_comes_back_from_the_wire_as_it_was(case: tuple[str, AnyMessage]) -> None:
    content_type, message = case
    before = copy.deepcopy(message)
    sealed = seal(message, content_type, DEFAULT_LIMITS)
    assert message == before
    message.meta = EMPTY_META | message.meta
    for properties in (
        sealed.properties,
        as_frames_reads(sealed.properties),
        as_pamqp_reads(sealed.properties),
        as_pamqp_writes(sealed.properties),
    ):
        assert reopened(sealed, properties) == message


@given(CASES)
def test_a_message_received_can_be_published_again(case: tuple[str, AnyMessage]) -> None:
    """A relay passes on ``meta`` as it is. What must not be published again is left out."""
    content_type, message = case
    sealed = seal(message, content_type, DEFAULT_LIMITS)
    sealed.properties.message_id, sealed.properties.user_id = "first-1", "guest"
    assert sealed.properties.headers is not None
    sealed.properties.headers |= {
        "causation_id": "zero-1",
        "deduplication_id": "zero-1/svc/N.1",
        "attempt": 2,
        "x-death": [{"count": 3}],
        "CC": ["k"],
    }
    received = reopened(sealed)
    received.meta["delivery_tag"] = 7
    again = seal(received, content_type, DEFAULT_LIMITS)
    assert again.properties.message_id is None
    assert again.properties.user_id is None
    assert reopened(again) == message.__class__(**{**fields(message), "meta": EMPTY_META | message.meta})


def test_floats_in_headers_are_sent_with_all_their_digits() -> None:
    written = seal(Event("Scored", 1, "c", {"score": [0.1]}), CBOR, DEFAULT_LIMITS).properties.marshal()
    read = frames.decode_content_header(struct.pack(">HHQ", 60, 0, 0) + written)[1]
    assert read.headers == {"conversation_id": "c", "score": [0.1]}


def fields(message: AnyMessage) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__dataclass_fields__}


@pytest.mark.parametrize(
    ("message", "exchange"),
    [
        (Event("TranscriptReady", 1, "c"), "events"),
        (Command("transcriber.Transcribe", 1, "c", "caller.TranscribeReturn", "id"), "commands"),
        (Result("caller.TranscribeReturn", 1, "c", "success", "id"), "commands"),
        (Configuration("Reconfigure", 1, ""), "configurations"),
    ],
)
def test_the_envelope_is_the_table_of_the_architecture(message: AnyMessage, exchange: str) -> None:
    sealed = seal(message, CBOR, DEFAULT_LIMITS)
    properties = sealed.properties
    assert (sealed.exchange, sealed.routing_key, sealed.body) == (exchange, message.name, b"\x01")
    assert (properties.content_type, properties.delivery_mode) == (CBOR, 2)
    status = {"status": "success"} if isinstance(message, Result) else {}
    assert properties.headers == {"conversation_id": message.conversation_id} | status
    assert properties.reply_to == getattr(message, "reply_to", None)
    assert properties.correlation_id == getattr(message, "correlation_id", None)
    assert (properties.message_id, properties.user_id, properties.app_id) == (None, None, None)


def test_a_correlation_id_may_be_empty() -> None:
    for message in (Command("s.Do", 1, "c", "r", ""), Result("r", 1, "c", "error", "")):
        sealed = seal(message, CBOR, DEFAULT_LIMITS)
        assert sealed.properties.correlation_id is None
        assert reopened(sealed) == message.__class__(**{**fields(message), "meta": EMPTY_META})


@given(
    level=st.integers(0, 7),
    short=strategies.texts(),
    conversation_id=strategies.texts(),
    extra=strategies.json_payloads(),
)
def test_a_log_record_comes_back(level: int, short: str, conversation_id: str, extra: object) -> None:
    body = gelf.record(
        service="s",
        hostname="h",
        pid=1,
        timestamp=1.5,
        level=level,
        short=short,
        conversation_id=conversation_id,
        fields={"extra": extra},
    )
    record = opened("logs", gelf.routing_key("s", level), None, body)
    assert type(record) is LogRecord
    assert (record.name, record.conversation_id) == (gelf.routing_key("s", level), conversation_id)
    assert (record.payload["short_message"], record.payload["_extra"]) == (short, extra)


def test_unknown_headers_and_properties_are_in_meta() -> None:
    moment = datetime.datetime(2026, 7, 9, tzinfo=datetime.UTC)
    message = opened(
        "events",
        "Name",
        {"conversation_id": "c", "status": "success", "traceparent": "00-1", "x-death": [{"count": 1}]},
        timestamp=moment,
        expiration="60000",
        user_id="guest",
        app_id="peer",
        message_id="peer-1",
        priority=0,
        message_type="note",
        content_encoding="utf-8",
        delivery_mode=1,
    )
    assert message.meta == {
        "traceparent": "00-1",
        "x-death": [{"count": 1}],
        "timestamp": moment,
        "expiration": "60000",
        "user_id": "guest",
        "app_id": "peer",
        "message_id": "peer-1",
        "priority": 0,
        "message_type": "note",
        "content_encoding": "utf-8",
    }


def test_reading_leaves_the_headers_as_they_were() -> None:
    properties = Properties(content_type=JSON, headers={"conversation_id": "c", "status": "success", "key": 1})
    before = copy.deepcopy(properties)
    message = open_envelope("commands", "r", properties, b"1", DEFAULT_LIMITS)
    message.meta["mine"] = True
    assert properties == before


@pytest.mark.parametrize(("given", "wanted"), [("c", "c"), (7, ""), (None, "")])
def test_a_message_with_unreadable_properties_is_invalid(given: Any, wanted: str) -> None:
    reason = "the property app_id is not UTF-8"
    properties = Unreadable.of(Basic.Properties(headers={"conversation_id": given}), reason)
    with pytest.raises(InvalidEnvelope) as caught:
        open_envelope("events", "Done", properties, b"1", DEFAULT_LIMITS)
    assert (str(caught.value), caught.value.conversation_id) == (reason, wanted)


# Local errors


def message_with(**changes: Any) -> AnyMessage:
    kind = changes.pop("kind", Event)
    usual: dict[type, AnyMessage] = {
        Event: Event("Name", {"key": [1]}, "c", {"own": 1}),
        Command: Command("s.Do", {"key": [1]}, "c", "r.Back", "id", {"own": 1}),
        Result: Result("r.Back", {"key": [1]}, "c", "success", "id", {"own": 1}),
        Configuration: Configuration("Name", {"key": [1]}, "c", {"own": 1}),
        LogRecord: LogRecord("s.INFO", {}, "c"),
    }
    message = copy.deepcopy(usual[kind])
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": LogRecord}, "a LogRecord cannot be published; publish an event, command, result or configuration"),
    ({"name": None}, "the routing key must be str, not NoneType; pass text"),
    ({"name": ""}, "the routing key is empty; give it a name"),
    ({"name": "é" * 128}, "is 256 bytes long, AMQP 0-9-1 allows 255; shorten it"),
    ({"name": "\ud800"}, "is not valid Unicode"),
    ({"kind": Command, "name": "Do"}, "the command 'Do' names no service; write it as service.CommandName"),
    ({"kind": Command, "reply_to": ""}, "reply_to is empty; give it a name"),
    (
        {"kind": Command, "reply_to": "amq.rabbitmq.reply-to"},
        "give a routing key: results are published to the commands exchange",
    ),
    ({"kind": Command, "reply_to": None}, "reply_to must be str, not NoneType; pass text"),
    ({"kind": Command, "reply_to": "r" * 256}, "is 256 bytes long"),
    ({"kind": Command, "correlation_id": 7}, "correlation_id must be str, not int; pass text"),
    ({"kind": Command, "correlation_id": "\udfff"}, "is not valid Unicode"),
    ({"kind": Result, "correlation_id": None}, "correlation_id must be str, not NoneType; pass text"),
    ({"kind": Result, "correlation_id": "r" * 256}, "is 256 bytes long"),
    ({"kind": Result, "status": "ok"}, "the status of a result is 'ok'; use 'success' or 'error'"),
    ({"kind": Result, "status": ["success"]}, "the status of a result is ['success']; use 'success' or 'error'"),
    ({"conversation_id": 7}, "the conversation id of Name is int, not str; pass text"),
    ({"conversation_id": None}, "the conversation id of Name is NoneType, not str; pass text"),
    ({"conversation_id": "é" * MAX_HEADER_BYTES}, "properties and headers of Name are 240"),
    ({"conversation_id": "é" * MAX_HEADER_BYTES, "meta": {}}, "properties and headers of Name are 240"),
    (
        {"kind": Configuration, "meta": {DELAY: 5}},
        "the configuration Name cannot be delayed; only the workers",
    ),
    ({"meta": {DELAY: 5, "expiration": "60000"}}, "Name has a delay and an expiration; give one of them"),
    ({"meta": {DELAY: -1}}, "delay is -1; give seconds, from 0 to "),
    ({"conversation_id": "\ud800", "meta": {}}, "the conversation id '\\ud800' is not valid Unicode"),
    ({"meta": {7: 1}}, "header name 7 is not text; use str keys in meta"),
    ({"meta": {"": 1}}, "header name '' cannot be sent; use text of 1 to 128 bytes in meta"),
    ({"meta": {"é" * 65: 1}}, "cannot be sent; use text of 1 to 128 bytes in meta"),
    ({"meta": {"\ud800": 1}}, "the headers of Name cannot be written: "),
    ({"meta": ["key"]}, "meta is list, not dict; pass a dict of headers"),
    ({"meta": {"key": math.nan}}, "the header key is not a finite number; send it as text"),
    ({"meta": {"key": {"a": [1.5, -math.inf]}}}, "the header key is not a finite number; send it as text"),
    ({"meta": {"expiration": 60000}}, "expiration is 60000; give milliseconds as text, such as '60000'"),
    ({"meta": {"expiration": "1 s"}}, "expiration is '1 s'; give milliseconds"),
    ({"meta": {"expiration": ""}}, "expiration is ''; give milliseconds"),
    ({"meta": {"expiration": "٣"}}, "expiration is '٣'; give milliseconds"),
    ({"meta": {"expiration": "9" * 5000}}, "…; give milliseconds as text, such as '60000', up to 315360000000"),
    ({"meta": {"expiration": "315360000001"}}, "expiration is '315360000001'; give milliseconds"),
    ({"meta": {"key": nested(33)}}, "the header key is nested deeper than 32 levels; flatten it"),
    ({"meta": {"key": [nested(200)]}}, "the header key is nested deeper than 32 levels; flatten it"),
    ({"meta": {"key": [{"é" * 65: 1}]}}, "cannot be sent; use text of 0 to 128 bytes in meta"),
    ({"meta": {"key": [threading.Lock()]}}, "the headers of Name cannot be written: "),
    ({"meta": {"timestamp": 5}}, "the headers of Name cannot be written: "),
    ({"meta": {"priority": 256}}, "the headers of Name cannot be written: "),
    ({"meta": {"priority": "high"}}, "the headers of Name cannot be written: "),
    ({"meta": {"app_id": 7}}, "the headers of Name cannot be written: "),
    ({"meta": {"key": object()}}, "; use text and numbers"),
    ({"meta": {"key": 2**63}}, "the headers of Name cannot be written: "),
    ({"meta": {"key": {7: 1}}}, "header name 7 is not text; use str keys in meta"),
    ({"meta": {"key": "\ud800"}}, "the headers of Name cannot be written: "),
    ({"meta": {"key": "x" * MAX_HEADER_BYTES}}, "bytes, the limit is 120000; move data to the payload"),
    ({"payload": object()}, "payload cannot be written as application/cbor"),
    ({"payload": [[[]]]}, "payload is nested deeper than 2 levels: payload[0][0]; flatten it"),
]


@pytest.mark.parametrize(("changes", "reason"), WRONG, ids=lambda value: str(value).partition(" at 0x")[0][:60])
def test_a_message_that_cannot_be_sent_is_refused_and_not_changed(changes: dict[str, Any], reason: str) -> None:
    message = message_with(**changes)
    parts = [message.name, message.conversation_id, message.meta, message.payload]
    before = [copy.copy(part) for part in parts[:3]]
    with pytest.raises(LocalError) as caught:
        seal(message, CBOR, Limits(max_depth=2))
    assert reason in str(caught.value)
    assert parts[:3] == before
    assert all(now is then for now, then in zip((message.meta, message.payload), parts[2:], strict=True))


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (Event("Paid", {"items": [1, math.nan]}, "c"), "event Paid"),
        (Command("svc.Pay", {"items": [1, math.nan]}, "c", "me.PayReturn", "k"), "command svc.Pay"),
        (Result("me.PayReturn", {"items": [1, math.nan]}, "c", "success", "k"), "result me.PayReturn"),
        (Configuration("Prices", {"items": [1, math.nan]}, ""), "configuration Prices"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_payload_that_cannot_be_written_is_named_with_its_message_and_its_place(
    message: AnyMessage, named: str
) -> None:
    """A handler may publish several messages."""
    with pytest.raises(PayloadError) as caught:
        seal(message, JSON, DEFAULT_LIMITS)
    words = rf"{named}: payload cannot be written as application/json: payload\.items\[1\]: .+; send plain data"
    assert re.fullmatch(words, str(caught.value))
    assert caught.value.hint == "send plain data"


def test_only_the_two_content_types_are_sent() -> None:
    with pytest.raises(LocalError, match="content type 'text/plain' is not supported"):
        seal(message_with(), "text/plain", DEFAULT_LIMITS)


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(LocalError, match="a str cannot be published"):
        seal("Name", CBOR, DEFAULT_LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "exchange"),
    [
        (Event("Remind", 1, "c", {DELAY: 5, "own": 1}), "events"),
        (Command("s.Do", 1, "c", "r.Back", "id", {DELAY: 5, "own": 1}), "commands"),
        (Result("r.Back", 1, "c", "success", "id", {DELAY: 5, "own": 1}), "commands"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_delayed_message_goes_to_the_first_exchange_of_its_way(message: AnyMessage, exchange: str) -> None:
    sealed = seal(message, CBOR, DEFAULT_LIMITS)
    headers = sealed.properties.headers or {}
    assert (sealed.exchange, sealed.routing_key) == ("delay.2", message.name)
    assert (headers["origin_exchange"], headers["origin_routing_key"]) == (exchange, message.name)
    assert headers["own"] == 1
    assert DELAY not in headers


def test_a_delay_of_nothing_is_none() -> None:
    sealed = seal(Event("Remind", 1, "c", {DELAY: 0}), CBOR, DEFAULT_LIMITS)
    assert (sealed.exchange, sealed.properties.headers) == ("events", {"conversation_id": "c"})


def test_empty_places_in_meta_count_as_absent() -> None:
    """In ``meta`` they are ``None`` if the received message did not have them."""
    sealed = seal(message_with(meta=EMPTY_META | {"priority": None, "own": None}), CBOR, DEFAULT_LIMITS)
    assert sealed.properties.headers == {"conversation_id": "c", "own": None}
    assert sealed.properties.expiration is None


def test_headers_may_be_nested_and_live_long() -> None:
    deep: dict[str, Any] = {"": {"é" * 64: nested(30)}}
    sealed = seal(message_with(meta={"key": deep, "expiration": "315360000000"}), CBOR, DEFAULT_LIMITS)
    assert reopened(sealed, as_pamqp_reads(sealed.properties)).meta["key"] == deep


def test_headers_may_fill_the_limit() -> None:
    message = message_with(meta={"key": "x" * (MAX_HEADER_BYTES - 200)})
    assert len(seal(message, CBOR, DEFAULT_LIMITS).properties.marshal()) > MAX_HEADER_BYTES - 200


# Straight from a queue


def test_a_message_put_straight_into_a_queue_is_what_it_was_published_as() -> None:
    headers = {"conversation_id": "c", "origin_exchange": "events", "origin_routing_key": "Done", "attempt": 1}
    message = opened("", "s.events", headers)
    assert (type(message), message.name) == (Event, "Done")


@pytest.mark.parametrize("key", [None, 7, "", "n" * 256])
def test_without_the_name_it_had_it_is_refused(key: object) -> None:
    headers = {"conversation_id": "c", "origin_exchange": "commands", "origin_routing_key": key, "status": "error"}
    assert str(refusal("", "s.commands", headers)) == "exchange '' is not one of the architecture"


@pytest.mark.parametrize("origin", [None, 7, "", "amq.topic", "configurations", "logs", "n" * 256])
def test_without_an_exchange_whose_messages_are_retried_it_is_refused(origin: object) -> None:
    headers = {"conversation_id": "c", "origin_exchange": origin, "origin_routing_key": "Done"}
    assert str(refusal("", "s.events", headers)) == "exchange '' is not one of the architecture"


def test_a_header_changed_after_sealing_does_not_change_the_message() -> None:
    header = [1]
    sealed = seal(Event("Done", None, "c", {"list": header}), CBOR, Limits())
    header.append(2)
    assert sealed.properties.headers is not None
    assert sealed.properties.headers["list"] == [1]


@pytest.mark.parametrize("exchange", ["events", "amq.topic"])
def test_headers_cannot_move_a_message_that_came_through_an_exchange(exchange: str) -> None:
    headers = {"conversation_id": "c", "origin_exchange": "commands", "origin_routing_key": "s.Do", "status": "error"}
    if exchange == "events":
        assert type(opened(exchange, "Done", headers)) is Event
    else:
        assert "'amq.topic' is not one of the architecture" in str(refusal(exchange, "Done", headers))


# Envelopes that are none


@pytest.mark.parametrize("headers", [None, {}, {"Conversation_id": "c"}])
@pytest.mark.parametrize("exchange", ["events", "commands", "amq.topic"])
def test_no_conversation_id(exchange: str, headers: dict[str, Any] | None) -> None:
    invalid = refusal(exchange, "Done", headers, reply_to="r")
    assert (str(invalid), invalid.conversation_id) == ("no conversation_id in the headers", "")


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    ("value", "kind"), [(True, "bool"), (1.5, "float"), (b"\xff", "bytes"), (["c"], "list"), ({}, "dict")]
)
def test_a_conversation_id_of_another_type(exchange: str, value: object, kind: str) -> None:
    invalid = refusal(exchange, "Done", {"conversation_id": value}, reply_to="r")
    assert (str(invalid), invalid.conversation_id) == (f"conversation_id is {kind}, not text", "")


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_an_undecodable_body(exchange: str) -> None:
    invalid = refusal(exchange, "Done", {"conversation_id": "c"}, b"{", reply_to="r")
    assert str(invalid).startswith("malformed JSON: Expecting property name")
    assert invalid.conversation_id == "c"
    assert invalid.__cause__ is None


def test_an_unknown_content_type() -> None:
    invalid = refusal("events", "Done", {"conversation_id": "c"}, content_type="text/plain")
    assert str(invalid) == "content type 'text/plain' is neither application/cbor nor application/json"


def test_a_body_over_the_limits() -> None:
    properties = Properties(content_type=JSON, headers={"conversation_id": "c"})
    for body, reason in ((b"[[]]", "nested deeper than 1 levels"), (b'"12345"', "body of 7 bytes, the limit is 6")):
        with pytest.raises(InvalidEnvelope, match=reason):
            open_envelope("events", "Done", properties, body, Limits(max_bytes=6, max_depth=1))


def test_an_unknown_exchange() -> None:
    invalid = refusal("amq.topic", "Done", {"conversation_id": "c"})
    assert str(invalid) == "exchange 'amq.topic' is not one of the architecture"
    assert invalid.conversation_id == "c"


@pytest.mark.parametrize("status", [{}, {"status": None}, {"status": ""}])
@pytest.mark.parametrize("reply_to", [None, ""])
def test_neither_reply_to_nor_status(reply_to: str | None, status: dict[str, Any]) -> None:
    invalid = refusal("commands", "s.Do", {"conversation_id": "c", **status}, reply_to=reply_to)
    assert str(invalid) == "neither reply_to nor status: not a command and not a result"
    assert invalid.conversation_id == "c"


@pytest.mark.parametrize("status", ["SUCCESS", "ok", 1, False, ["success"], b"\xff", {}])
def test_an_unknown_status(status: object) -> None:
    invalid = refusal("commands", "s.Do", {"conversation_id": "c", "status": status})
    assert str(invalid) == f"status {str(status)!r} is neither 'success' nor 'error'"


def test_a_long_status_is_shortened_in_the_reason() -> None:
    assert len(str(refusal("commands", "s.Do", {"conversation_id": "c", "status": "x" * 10_000}))) < 100


# Anything


EXCHANGE = st.sampled_from([*EXCHANGES, "", "amq.topic"])
BODY = st.sampled_from([b"", b"null", b"[1]", b"\x81\x01"]) | st.binary(max_size=40)


def message_or_reason(exchange: str, key: str, properties: Properties, body: bytes) -> AnyMessage | str:
    try:
        message = open_envelope(exchange, key, properties, body, DEFAULT_LIMITS)
    except InvalidEnvelope as invalid:
        return f"{invalid}, in conversation {invalid.conversation_id}"
    assert {"timestamp", "expiration", "user_id", "app_id"} <= message.meta.keys()
    assert type(message.name) is type(message.conversation_id) is str
    return message


@given(EXCHANGE, strategies.texts(), strategies.properties(), BODY)
@example(exchange="commands", key="", properties=Properties(headers={"conversation_id": 2**62}), body=b"")
@example(exchange="events", key="", properties=Properties(headers={"conversation_id": math.inf}), body=b"")
def test_any_properties_give_a_message_or_a_reason(
    exchange: str, key: str, properties: Properties, body: bytes
) -> None:
    made = message_or_reason(exchange, key, properties, body)
    try:
        read = as_frames_reads(properties)
    except frames.WireError:  # as RabbitMQ, which reads neither NaN nor infinities
        assert re.search("nan|inf", repr(properties.headers))
    else:
        # Compared as text: a NaN, which a body may hold, is not equal to itself.
        assert repr(message_or_reason(exchange, key, read, body)) == repr(made)


@given(EXCHANGE, strategies.texts(), strategies.properties(), BODY, st.data())
def test_any_bytes_that_a_client_library_reads_give_a_message_or_a_reason(
    exchange: str, key: str, properties: Properties, body: bytes, data: st.DataObject
) -> None:
    written = bytearray(frames.encode_content(1, properties, b"", 0)[7:-1])
    for _ in range(data.draw(st.integers(0, 3))):
        written[data.draw(st.integers(12, len(written) - 1))] = data.draw(st.integers(0, 255))
    read = header.ContentHeader()
    try:
        read.unmarshal(bytes(written))
    except Exception:  # the library's own trouble: the adapter reports a lost link
        pass
    else:
        message_or_reason(exchange, key, read.properties, body)
    try:
        ours = frames.decode_content_header(bytes(written))[1]
    except frames.WireError:
        return
    message_or_reason(exchange, key, ours, body)


# Returned messages


def test_the_envelope_of_a_returned_message_has_what_was_given() -> None:
    headers: dict[str, Any] = {"conversation_id": "c", "status": "success"}
    assert envelope_of(Properties()) == {}
    assert envelope_of(Properties(headers=headers, reply_to="", correlation_id="")) == headers
    properties = Properties(headers=headers, reply_to="r", correlation_id="id")
    assert envelope_of(properties) == headers | {"reply_to": "r", "correlation_id": "id"}
    assert properties.headers == headers
