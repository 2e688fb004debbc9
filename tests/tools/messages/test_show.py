"""How messages are shown: their parts, their JSON, their text; and that none of them controls a terminal."""

from __future__ import annotations

import datetime
import decimal
import fractions
import io
import ipaddress
import json
import uuid
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from rich.cells import cell_len
from rich.console import Console

from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, Result
from eda_core.testing.strategies import messages
from eda_tools import inspect_queue, topology
from eda_tools.bus.confirming import Copy
from eda_tools.cli.output import Output, jsonable, safe
from eda_tools.dead_letters.groups import Groups, last_moment
from eda_tools.dead_letters.replay import REPLAYED, Item, Outcomes
from eda_tools.diagrams.routes import Publisher, Route
from eda_tools.messages import show
from eda_tools.messages.delivery import FIELDS, Delivery, fields, is_of
from eda_tools.messages.rates import Statistics
from tests.core.kit import seal

DAY = datetime.timedelta(days=1)
AT = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


def delivered(message: AnyMessage) -> Delivery:
    sealed = seal(message, CBOR, DEFAULT_LIMITS)
    return Delivery(sealed.exchange, sealed.routing_key, sealed.properties, sealed.body, received=AT)


def raw(exchange: str, key: str, body: bytes, headers: Any = None, **properties: Any) -> Delivery:
    return Delivery(exchange, key, Basic.Properties(headers=headers, **properties), body, received=AT)


def log(record: object) -> Delivery:
    return raw("logs", "echo.WARNING", json.dumps(record).encode())


MESSAGES = {
    "event": delivered(Event("Done", {"a": 1}, "c1", {"priority": 3, "x": "y"})),
    "command": delivered(Command("echo.Echo", {"a": 1}, "c1", "me.EchoReturn", "7")),
    "result": delivered(Result("me.EchoReturn", None, "c1", "error", "7")),
    "configuration": delivered(Configuration("Settings", [1], "")),
    "log": log({"_conversation_id": "c1", "short_message": "hello"}),
    "invalid": raw("events", "Done", b"\xff", {"conversation_id": "c1"}, content_type=CBOR),
}


@pytest.mark.parametrize("kind", show.STYLES)
def test_every_kind_has_its_fields(kind: str) -> None:
    found = fields(MESSAGES[kind])
    assert found["kind"] == kind
    assert found["name"] == found["routing_key"] == MESSAGES[kind].routing_key
    assert found["conversation_id"] == ("" if kind == "configuration" else "c1")
    assert set(found) <= set(FIELDS)
    assert set(found) >= {"kind", "name", "conversation_id", "exchange", "received", "size", "properties", "headers"}
    assert found["size"] == len(MESSAGES[kind].body)
    assert ("reply_to" in found, "status" in found) == (kind == "command", kind == "result")
    assert ("payload" in found, "error" in found) == (kind != "invalid", kind == "invalid")


def test_properties_have_their_names_in_amqp_and_headers_a_place_of_their_own() -> None:
    found = fields(raw("events", "E", b"{}", {"conversation_id": "c", "n": 1}, message_type="t", delivery_mode=2))
    assert found["properties"] == {"type": "t", "delivery_mode": 2}
    assert found["headers"] == {"conversation_id": "c", "n": 1}


def test_a_dead_letter_is_shown_as_what_it_was() -> None:
    death = {"count": 1, "queue": "echo.commands", "reason": "rejected", "exchange": "commands"}
    again = {"count": 1, "queue": "again", "reason": "expired", "exchange": "other", "routing-keys": ["other-key"]}
    headers = {
        "conversation_id": "c",
        "x-first-death-exchange": "commands",
        "x-first-death-queue": "echo.commands",
        "x-first-death-reason": "rejected",
        "x-death": [again, {**death, "routing-keys": ["echo.Echo"]}],
    }
    found = fields(raw("am-dlx", "changed", b"{}", headers, reply_to="me.R"))
    assert (found["kind"], found["name"], found["exchange"]) == ("command", "echo.Echo", "commands")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-first-death-exchange": 12},
        {"x-first-death-exchange": "events", "x-death": "no list"},
        {"x-first-death-exchange": "events", "x-death": [12, {"routing-keys": 12}]},
        {"x-first-death-exchange": "events", "x-death": [{"routing-keys": [12]}]},
        "no table",
    ],
)
def test_headers_are_data(headers: Any) -> None:
    assert fields(raw("am-dlx", "Key", b"{}", headers))["name"] == "Key"


def test_a_readable_payload_of_an_invalid_message_is_shown() -> None:
    found = fields(raw("events", "E", b'{"a": 1}', {}))
    assert (found["kind"], found["payload"]) == ("invalid", {"a": 1})
    assert "conversation_id" in found["error"]


# --- JSON ---


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"\x00\xff", "AP8="),
        (AT, "2026-05-01T12:00:00+00:00"),
        (datetime.date(2026, 5, 1), "2026-05-01"),
        (decimal.Decimal("1.50"), "1.50"),
        (fractions.Fraction(1, 3), "1/3"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ipaddress.ip_address("::1"), "::1"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ((1, 2), [1, 2]),
        ({12: "a", True: "b", None: "c", b"\x00": "d"}, {"12": "a", "true": "b", "null": "c", "AA==": "d"}),
        ({1: "a", "1": "b"}, [[1, "a"], ["1", "b"]]),
        (2**70, 2**70),
        (cbor2.undefined, "undefined"),
    ],
)
def test_what_json_has_no_form_for(value: Any, written: Any) -> None:
    assert jsonable({"value": value}) == {"value": written}


@given(messages())
def test_every_message_has_a_json_object_and_a_text(message: AnyMessage) -> None:
    delivery = delivered(message)
    found = fields(delivery)
    json.loads(json.dumps(jsonable(show.as_json(found)), allow_nan=False))
    for text in (show.as_text(found), show.as_line(found, 10_000), show.as_line(found, 60)):
        assert all(character.isprintable() or character == "\n" for character in text.plain)
    assert "\n" not in show.as_line(found, 10_000).plain
    assert all(cell_len(line) <= 60 for line in show.as_line(found, 60).plain.split("\n"))


def test_the_object_of_an_invalid_message_has_its_bytes() -> None:
    delivery = MESSAGES["invalid"]
    shown = jsonable(show.as_json(fields(delivery), body=delivery.body))
    assert shown["body"] == "/w=="
    assert "payload" not in shown
    whole = MESSAGES["event"]
    assert "body" not in show.as_json(fields(whole), body=whole.body)


# --- text ---


def test_text_has_the_heading_then_the_rest_then_the_payload() -> None:
    shown = show.as_text(fields(MESSAGES["event"])).plain.split("\n")
    assert shown[0].startswith("event Done  ")
    assert shown[1:] == ["  conversation: c1", "  priority: 3", "  x: y", "{", '  "a": 1', "}"]
    assert show.as_text(fields(MESSAGES["result"])).plain.startswith("result me.EchoReturn error  ")
    invalid = show.as_text(fields(MESSAGES["invalid"]), body=b"\xff").plain
    assert "error: malformed CBOR" in invalid
    assert invalid.endswith(r"1 bytes: b'\xff'")
    assert show.as_text(fields(MESSAGES["event"]), payload=False).plain.endswith("x: y")


def test_a_line_has_the_beginning_of_the_payload() -> None:
    found = fields(delivered(Event("Done", "x" * 100, "c1", {"app_id": "echo"})))
    line = show.as_line(found, 137).plain
    shown = line.split("  ", 1)[1]
    assert shown == f'echo          event    Done                            c1  "{"x" * (137 - 75)}…'
    assert len(line) == 137


def test_a_line_goes_on_below_where_the_screen_is_narrow() -> None:
    found = fields(
        delivered(Result("transcriber.TranscribeAudioReturn", {"text": "x y" * 9}, "12345678-9", "error", "k"))
    )
    first, *rest = show.as_line(found, 60).plain.split("\n")
    assert first.split()[1:] == ["-", "result"]
    assert rest[0].split()[0] == "transcriber.TranscribeAudioReturn"
    assert all(line.startswith(" " * 14) for line in rest)
    whole = " ".join(line.strip() for line in (first, *rest))
    assert '12345678 error {"text": "x yx yx yx' in " ".join(whole.split())
    for width in range(20, 200):
        assert all(len(line) <= width for line in show.as_line(found, width).plain.split("\n"))


def test_a_line_shows_the_configuration_the_error_and_the_status() -> None:
    assert " config   Settings " in show.as_line(fields(MESSAGES["configuration"]), 120).plain
    invalid = show.as_line(fields(MESSAGES["invalid"]), 200)
    assert invalid.plain.split("  c1  ")[1].startswith("malformed CBOR")
    assert "  c1  error  null" in show.as_line(fields(MESSAGES["result"]), 120).plain


def test_the_beginning_of_a_conversations_id_is_enough() -> None:
    found = {"conversation_id": "12345678-9"}
    assert [is_of(found, text) for text in ("12345678-9", "12345678", "1234567", "12345678-90")] == [
        True,
        True,
        False,
        False,
    ]


DIED = {
    "x-first-death-exchange": "events",
    "x-first-death-queue": "a.events",
    "x-first-death-reason": "rejected",
    "x-death": [{"queue": "a.events", "reason": "rejected", "exchange": "events", "count": 1, "time": AT - DAY}],
}


@pytest.mark.parametrize(
    ("headers", "properties", "moment"),
    [
        (DIED, {"timestamp": AT - 2 * DAY}, f"died {(AT - DAY).astimezone():%Y-%m-%d %H:%M:%S}"),
        ({}, {"timestamp": AT - 2 * DAY}, f"published {(AT - 2 * DAY).astimezone():%Y-%m-%d %H:%M:%S}"),
        ({}, {}, ""),
    ],
)
def test_the_time_of_a_dead_letter_is_that_of_its_death_and_not_of_reading(
    headers: dict[str, Any], properties: dict[str, Any], moment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"conversation_id": "c", **headers}
    letter = raw("am-dlx" if "x-death" in headers else "events", "Done", b"{}", headers, **properties)
    assert last_moment(letter) == moment
    first = inspect_queue._text(1, letter, fields(letter), None, payload=True).plain.splitlines()[0]
    assert first == f"1. event Done  {moment}".rstrip()
    copy = Copy("events", "Done", letter.properties, b"{}")
    Outcomes(Output("test"), dry_run=True).add(Item(1, 1, letter, "Done", copy=copy), REPLAYED)
    assert capsys.readouterr().out.startswith(f"to events: {moment or '-'}  -  ")


def test_payloads_are_laid_out_as_json() -> None:
    value: dict[str, Any] = {"a": [1, None, True, {"b": []}], "é": "\x1b[31m\u202e\x7f", "": {}}
    text = show.payload_text(value).plain
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert json.loads(text.replace("\\x7f", "\\u007f")) == value


@given(st.text())
def test_nothing_steers_the_terminal(text: str) -> None:
    assert safe(text).isprintable()
    if text.isprintable():
        assert safe(text) == text


# --- rates ---


def test_tables_lose_no_part_of_a_name_on_a_narrow_terminal() -> None:
    """Different names must not look the same because they begin the same."""
    name = "TranscriptionOfTheCallHasBecomeReadyFor"
    groups, statistics = Groups("key"), Statistics()
    outcomes = Outcomes(Output("test"), dry_run=True)
    routes = []
    for end in ("Archive", "Billing"):
        died = delivered(Event(name + end, 1, "c"))
        groups.add(died)
        outcomes.add(Item(1, 1, died, name + end), REPLAYED)
        routes.append(Route("events", name + end, publishers={name + end: Publisher(name + end)}))
        statistics.add(fields(died))
    for table in (groups.table(), outcomes._table(), topology.table(routes), statistics.table()):
        console = Console(width=60, color_system=None)
        with console.capture() as capture:
            console.print(table)
        assert "…" not in capture.get()


def test_rates_are_those_of_the_last_ten_seconds() -> None:
    now = [0.0]
    statistics = Statistics(lambda: now[0])
    many, few = fields(MESSAGES["event"]), fields(MESSAGES["command"])
    for second in range(20):
        now[0] = float(second)
        for _ in range(3000 if second >= 10 else 1000):
            statistics.add(many)
    statistics.add(few)
    now[0] = 20.0
    size = many["size"]
    assert list(statistics.rows()) == [
        {"kind": "event", "name": "Done", "count": 40_000, "bytes": 40_000 * size, "rate": 3000.0},
        {"kind": "command", "name": "echo.Echo", "count": 1, "bytes": few["size"], "rate": 0.1},
    ]
    now[0] = 100.0
    assert [row["rate"] for row in statistics.rows()] == [0.0, 0.0]
    assert [str(column.header) for column in statistics.table().columns][:3] == ["kind", "key", "messages"]


def test_a_rate_begins_before_ten_seconds_have_passed() -> None:
    now = [0.0]
    statistics = Statistics(lambda: now[0])
    now[0] = 4.0
    for _ in range(8):
        statistics.add(fields(MESSAGES["event"]))
    assert next(statistics.rows())["rate"] == 2.0


def test_rates_show_whole_keys_on_a_narrow_terminal() -> None:
    rates, screen = Statistics(), io.StringIO()
    rates.add({"kind": "event", "name": "TranscriptReadyWithALongName", "size": 1})
    Console(file=screen, width=40).print(rates.table())
    cells = [line.split("│")[2].strip() for line in screen.getvalue().splitlines() if line.startswith("│")]
    assert "".join(cells) == "TranscriptReadyWithALongName"
