"""What eventail 2.3.6 sends, property by property, is understood."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest

from eda_core.messages.codec import CBOR, JSON
from eda_core.messages.values import Command, Configuration, Event, LogRecord, Result
from tests.core.messages.test_envelope import EMPTY_META, opened


def eventail(**others: Any) -> dict[str, Any]:
    """The properties that eventail's service writes: empty strings in place of nothing."""
    return {"delivery_mode": 2, "reply_to": "", "correlation_id": "", **others}


def kombu(content_type: str, encoding: str) -> dict[str, Any]:
    """The properties that eventail's synchronous endpoint writes with kombu, which adds some."""
    return {"delivery_mode": 2, "content_type": content_type, "content_encoding": encoding, "priority": 0}


PAYLOAD = {"clé": ["é", 1, None]}
IN_JSON = json.dumps(PAYLOAD).encode()
IN_CBOR = cbor2.dumps(PAYLOAD)


def test_an_event_of_eventail_is_understood() -> None:
    for content_type, body in ((CBOR, IN_CBOR), (JSON, IN_JSON)):
        message = opened("events", "Done", {"conversation_id": "c"}, body, **eventail(content_type=content_type))
        assert message == Event("Done", PAYLOAD, "c", EMPTY_META)


def test_a_command_of_eventail_is_understood() -> None:
    properties = eventail(content_type=CBOR, reply_to="caller.DoReturn", correlation_id="id")
    message = opened("commands", "s.Do", {"conversation_id": "c"}, IN_CBOR, **properties)
    assert message == Command("s.Do", PAYLOAD, "c", "caller.DoReturn", "id", EMPTY_META)


@pytest.mark.parametrize("status", ["success", "error"])
def test_a_result_of_eventail_is_understood(status: str) -> None:
    properties = eventail(content_type=CBOR, correlation_id="id")
    message = opened("commands", "caller.DoReturn", {"conversation_id": "c", "status": status}, IN_CBOR, **properties)
    assert message == Result("caller.DoReturn", PAYLOAD, "c", status, "id", EMPTY_META)


@pytest.mark.parametrize("conversation_id", [0, 7, -1, 2**40])
def test_a_conversation_id_that_eventail_was_given_as_a_number_becomes_text(conversation_id: int) -> None:
    message = opened("events", "Done", {"conversation_id": conversation_id}, **eventail())
    assert message.conversation_id == str(conversation_id)


@pytest.mark.parametrize("headers", [{"conversation_id": ""}, {}, None])
def test_a_configuration_of_eventail_is_understood(headers: dict[str, Any] | None) -> None:
    assert opened("configurations", "Set", headers, IN_JSON) == Configuration("Set", PAYLOAD, "", EMPTY_META)


@pytest.mark.parametrize(("content_type", "encoding", "body"), [(CBOR, "binary", IN_CBOR), (JSON, "utf-8", IN_JSON)])
def test_an_event_of_its_synchronous_endpoint_is_understood(content_type: str, encoding: str, body: bytes) -> None:
    message = opened("events", "Done", {"conversation_id": "c"}, body, **kombu(content_type, encoding))
    assert message == Event("Done", PAYLOAD, "c", EMPTY_META | {"content_encoding": encoding, "priority": 0})


def test_a_log_of_either_is_understood_whatever_its_content_type() -> None:
    body = json.dumps({"version": "1.1", "_conversation_id": "c"}).encode()
    for content_type in (None, JSON, "application/data", "text/plain"):
        record = opened("logs", "s.INFO", {} if content_type else None, body, content_type=content_type)
        assert record == LogRecord("s.INFO", {"version": "1.1", "_conversation_id": "c"}, "c", EMPTY_META)


@pytest.mark.parametrize(("payload", "conversation"), [({}, ""), ({"_conversation_id": 7}, ""), ([], ""), (None, "")])
def test_a_log_without_a_conversation_has_none(payload: object, conversation: str) -> None:
    record = opened("logs", "s.INFO", None, json.dumps(payload).encode())
    assert record == LogRecord("s.INFO", payload, conversation, EMPTY_META)


def test_the_conversation_in_the_headers_of_a_log_comes_first() -> None:
    assert opened("logs", "s.INFO", {"conversation_id": "h"}, b'{"_conversation_id": "b"}').conversation_id == "h"


def test_an_empty_body_is_no_payload() -> None:
    assert opened("events", "Done", {"conversation_id": "c"}, b"", content_type=CBOR).payload is None


@pytest.mark.parametrize("status", ["success", "error", "", "what?", 7, None])
def test_a_reply_to_makes_a_command_whatever_the_status(status: object) -> None:
    message = opened("commands", "s.Do", {"conversation_id": "c", "status": status}, reply_to="r")
    assert message == Command("s.Do", None, "c", "r", "", EMPTY_META)
