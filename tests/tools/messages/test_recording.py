"""Recordings: what was written is read, and errors tell the place of what is not a recording."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.amqp.reading import MAX_DEPTH, read_properties
from eda_core.messages import Properties, Unreadable
from eda_core.testing.wire import frames
from eda_tools.cli.status import ToolError
from eda_tools.messages.delivery import PROPERTIES, Delivery, fields
from eda_tools.messages.recording import Recorder, dumps, read_recording

AT = datetime.datetime(2026, 5, 1, 12, 0, 0, 125_000, tzinfo=datetime.UTC)
FULL = Delivery(
    "commands",
    "echo.Echo",
    Basic.Properties(
        content_type="application/cbor",
        content_encoding="identity",
        headers={
            "conversation_id": "c",
            "when": AT.replace(microsecond=0),
            "price": decimal.Decimal("1.5"),
            "raw": b"\x00",
            "x-death": [{"count": 3, "routing-keys": ["a"]}],
        },
        delivery_mode=2,
        priority=3,
        correlation_id="7",
        reply_to="me.R",
        expiration="60000",
        message_id="m",
        timestamp=AT.replace(microsecond=0),
        message_type="t",
        user_id="guest",
        app_id="echo",
    ),
    b"\xff any bytes",
    True,
    AT,
)
BARE = Delivery("logs", "echo.INFO", Basic.Properties(headers={}), b"", received=AT)


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "r.cbor")
    with Recorder(path) as recorder:
        recorder.write(FULL)
        assert list(read_recording(path)) == [FULL]  # also while it is being written
        recorder.write(BARE, "log")
    with Recorder(path) as again:  # appends
        again.write(FULL, "command")
    assert list(read_recording(path)) == [FULL, BARE, FULL]


def test_an_item_is_as_documented() -> None:
    item = cbor2.loads(dumps(FULL))
    assert item.pop("received") == AT.timestamp()
    assert item.pop("properties") == {
        name: getattr(FULL.properties, attribute) for name, attribute in PROPERTIES.items()
    }
    assert item == {
        "exchange": "commands",
        "routing_key": "echo.Echo",
        "redelivered": True,
        "kind": "invalid",
        "headers": FULL.headers,
        "body": FULL.body,
    }


def test_a_message_that_cannot_be_read_is_recorded_with_the_reason(tmp_path: Path) -> None:
    reason = "the property app_id is not UTF-8: b'\\xff'"
    unreadable = Delivery("events", "Done", Unreadable.of(BARE.properties, reason), b"", received=AT)
    assert cbor2.loads(dumps(unreadable))["unreadable"] == reason
    with Recorder(str(tmp_path / "r")) as recorder:
        recorder.write(unreadable)
        recorder.write(BARE)
    first, second = read_recording(str(tmp_path / "r"))
    assert isinstance(first.properties, Unreadable)
    assert (first.properties.reason, dict(first.properties)) == (reason, dict(unreadable.properties))
    assert (fields(first)["kind"], fields(first)["error"]) == ("invalid", reason)
    assert second == BARE


@pytest.mark.parametrize("leaf", [1, decimal.Decimal("-1.5"), AT])
def test_the_deepest_headers_can_be_read_again(tmp_path: Path, leaf: Any) -> None:
    for _ in range(MAX_DEPTH - 1):
        leaf = [leaf]
    properties = Basic.Properties(headers={"deep": leaf})
    assert type(read_properties(frames.encode_properties(properties))) is Properties
    deepest = Delivery("events", "Done", properties, b"", received=AT)
    (tmp_path / "r").write_bytes(dumps(deepest) + dumps(BARE))
    assert list(read_recording(str(tmp_path / "r"))) == [deepest, BARE]


def test_keys_that_are_not_known_are_ignored(tmp_path: Path) -> None:
    item = cbor2.loads(dumps(BARE))
    item["properties"]["future"] = 1
    (tmp_path / "r").write_bytes(cbor2.dumps({**item, "future": 1}))
    assert list(read_recording(str(tmp_path / "r"))) == [BARE]


def read_all(path: Path) -> tuple[int, str]:
    """How many messages were read, and the error after them."""
    count = 0
    try:
        for _ in read_recording(str(path)):
            count += 1
    except ToolError as error:
        return count, str(error)
    return count, ""


def test_one_that_is_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    path, item = tmp_path / "r", dumps(BARE)
    for kept in range(1, len(item)):
        path.write_bytes(item + item[:kept])
        assert read_all(path) == (1, f"{path}: cut off in message 2, which begins at byte {len(item)}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"body": "text"}, "TypeError: headers and properties must be maps, body a byte string"),
        ({"headers": None}, "TypeError: headers and properties must be maps"),
        ({"properties": []}, "TypeError: headers and properties must be maps"),
        ({"received": "now"}, "TypeError"),
        ({"received": 1e300}, "OverflowError"),
        ({"properties": {"reply_to": ["a"]}}, "TypeError: the property reply_to is list, not str"),
        ({"properties": {"timestamp": 12}}, "TypeError: the property timestamp is int, not datetime"),
    ],
)
def test_items_that_are_no_messages_are_told(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path, item = tmp_path / "r", dumps(BARE)
    path.write_bytes(item + cbor2.dumps({**cbor2.loads(item), **change}))
    count, error = read_all(path)
    assert count == 1
    assert error.startswith(f"{path}: message 2, at byte {len(item)}, is not one of a recording: {told}")


@given(st.binary(max_size=60))
def test_any_file_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.cbor"
    path.write_bytes(content)
    count, error = read_all(path)
    assert count == 0
    assert bool(error) == bool(content)


def test_files_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    assert read_all(tmp_path / "none") == (0, f"{tmp_path / 'none'}: No such file or directory")
    with pytest.raises(ToolError, match="Is a directory"):
        Recorder(str(tmp_path))
