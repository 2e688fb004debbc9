"""The examples in docs/architecture.rst, "Topology", "Example messages" and "Log records" are what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from pamqp import body, frame, header
from pamqp.commands import Basic, Exchange, Queue

from eda_core import Command, Configuration, Event, Failed, LogRecord, Publish, PublishLog, Result, RetryPolicy
from eda_core.criticality import LABELS
from eda_core.machine.topology import declarations, subscriptions
from eda_core.messages import delays
from eda_core.messages.codec import DEFAULT_LIMITS, JSON, encode
from eda_core.messages.envelope import open_envelope
from eda_core.messages.values import AnyMessage
from eda_core.services.claims import ClaimCheck, stored
from tests.core.kit import Bench, only, opened

TEXT: Final = (Path(__file__).parents[1] / "docs" / "architecture.rst").read_text("utf-8")
Example = dict[str, Any]
EVENT, COMMAND, RESULT, CONFIGURATION, RETRY, DEATH, CLAIM, LOG = EXAMPLES = [
    json.loads(text) for text in re.findall(r"^\.\. code-block:: json\n\n((?:    .*\n)+)", TEXT, re.MULTILINE)
]


def wire(example: Example) -> Basic.Properties:
    return Basic.Properties(headers=dict(example["headers"]), **example["properties"])


def read(example: Example) -> AnyMessage:
    """The example as it is received. Whoever reads a retry, or a dead letter, gets it from the queue of the service."""
    exchange, key = example["exchange"], example["routing_key"]
    if exchange in ("", "am-dlx"):
        exchange, key = "", "transcriber.events"
    return open_envelope(exchange, key, wire(example), encode(example["body"], JSON), DEFAULT_LIMITS)


def shown(effect: Publish | PublishLog, exchange: str, *, mandatory: bool) -> Example:
    """What an effect puts on the wire, in the form of the examples."""
    properties = {name: value for name, value in effect.properties if value and name != "headers"}
    return {
        "exchange": exchange,
        "routing_key": effect.routing_key,
        "mandatory": mandatory,
        "properties": properties,
        "headers": effect.properties.headers or {},
        "body": json.loads(effect.body),
    }


def bench(service: str, **settings: Any) -> Bench:
    return opened(service=service, commands=[], content_type=JSON, **{"events": [], **settings})


def publishing(example: Example, cause: Example | None = None) -> Publish:
    """Publish what the example has, in the handler of its cause if there is one."""
    worker = bench(example["properties"]["app_id"], events=["#"])
    message = read(example)
    message.meta.clear()
    if cause is None:
        found = worker.send(message)
    else:
        delivery = worker.take(
            cause["routing_key"], exchange=cause["exchange"], headers=cause["headers"], **cause["properties"]
        )
        worker.publish(message, within=delivery)
        found = only(Publish, worker.handled(delivery))
    assert re.fullmatch(r"\w+-\d+", str(found.properties.message_id))
    found.properties.message_id = example["properties"]["message_id"]
    return found


@pytest.mark.parametrize(
    ("example", "cause"),
    [(EVENT, None), (COMMAND, EVENT), (RESULT, COMMAND), (CONFIGURATION, None)],
    ids=["event", "command", "result", "configuration"],
)
def test_a_message_is_published_as_the_example_shows(example: Example, cause: Example | None) -> None:
    found = publishing(example, cause)
    assert shown(found, found.exchange, mandatory=found.mandatory) == example


def test_a_retry_is_published_as_the_example_shows() -> None:
    worker = bench("transcriber", events=["AudioReceived"], retry=RetryPolicy(2, (1.0,)))
    delivery = worker.take(EVENT["routing_key"], EVENT["body"], headers=EVENT["headers"], **EVENT["properties"])
    found = only(Publish, worker.handled(delivery, Failed("no")))
    assert shown(found, found.exchange, mandatory=found.mandatory) == RETRY


def test_a_dead_letter_is_published_as_the_example_shows() -> None:
    worker = bench("transcriber", events=["AudioReceived"], retry=RetryPolicy(1), dead_letter_exchange="am-dlx")
    delivery = worker.take(EVENT["routing_key"], EVENT["body"], headers=EVENT["headers"], **EVENT["properties"])
    failed = Failed("ValueError: no sound", LOG["body"]["full_message"], error="ValueError")
    found = only(Publish, worker.handled(delivery, failed))
    assert shown(found, found.exchange, mandatory=found.mandatory) == DEATH


def test_an_event_whose_payload_is_stored_is_published_as_the_example_shows() -> None:
    class Memory(dict[str, bytes]):
        put = dict.__setitem__

    memory: Any = Memory()
    event = Event(EVENT["routing_key"], EVENT["body"], EVENT["headers"]["conversation_id"])
    found = bench("recorder").send(stored(ClaimCheck(memory, over=0), event, DEFAULT_LIMITS))
    found.properties.message_id = EVENT["properties"]["message_id"]
    assert shown(found, found.exchange, mandatory=found.mandatory) == CLAIM
    assert list(memory) == [CLAIM["headers"]["claim_check"]]


def test_a_log_record_is_published_as_the_example_shows() -> None:
    worker = bench("transcriber", events=["AudioReceived"])
    delivery = worker.take(EVENT["routing_key"], EVENT["body"], headers=EVENT["headers"], **EVENT["properties"])
    failed = Failed("ValueError: no sound", LOG["body"]["full_message"])
    found = only(PublishLog, worker.handled(delivery, failed))
    assert shown(found, "logs", mandatory=False) == LOG


@pytest.mark.parametrize(
    ("example", "kind"),
    list(zip(EXAMPLES, (Event, Command, Result, Configuration, Event, Event, Event, LogRecord), strict=True)),
    ids=["event", "command", "result", "configuration", "retry", "dead letter", "claim check", "log"],
)
def test_an_example_is_understood(example: Example, kind: type) -> None:
    message = read(example)
    assert type(message) is kind
    assert message.payload == example["body"]
    assert message.name == (EVENT["routing_key"] if example is RETRY else example["routing_key"])
    assert message.conversation_id == example["headers"].get("conversation_id", EVENT["headers"]["conversation_id"])


def test_the_example_in_bytes_is_what_is_on_the_wire() -> None:
    (block,) = re.findall(r"^\.\. code-block:: text\n\n((?:(?:    .*)?\n)+)", TEXT, re.MULTILINE)
    written = bytes.fromhex("".join(line.strip().partition("   ")[0] for line in block.splitlines()))
    worker = opened(service="recorder", events=[], commands=[])
    event = worker.send(Event(EVENT["routing_key"], EVENT["body"], EVENT["headers"]["conversation_id"]))
    event.properties.message_id = EVENT["properties"]["message_id"]
    frames = (
        Basic.Publish(0, event.exchange, event.routing_key, event.mandatory),
        header.ContentHeader(0, len(event.body), event.properties),
        body.ContentBody(event.body),
    )
    assert b"".join(frame.marshal(each, 1) for each in frames) == written


# What is declared


def declared(**settings: Any) -> list[tuple[str, Mapping[str, Any]]]:
    config = Bench(service="transcriber", **settings).config
    return [(command.name, dict(command)) for command in declarations(subscriptions(config), config.retry.delays)]


def test_exchanges_are_declared_as_the_page_says() -> None:
    (line,) = re.findall(r"exchange\.declare  (exchange=.+)", TEXT)
    fields = dict(pair.split("=") for pair in line.split())
    for name, found in declared(events=[], commands=[])[:4]:
        assert name == "Exchange.Declare"
        assert found["exchange"] in re.findall(r"^``(\w+)``  +topic  +yes ", TEXT, re.MULTILINE)
        for field in ("passive", "durable", "auto-delete", "internal"):
            assert found[field.replace("-", "_")] is bool(int(fields[field]))
        assert (found["exchange_type"], found["arguments"]) == (fields["type"], {})


def test_queues_are_declared_as_the_page_says() -> None:
    text = TEXT.replace("<service>", "transcriber").replace("<milliseconds>", "1000")
    lines = re.findall(r'queue\.declare  queue="?([^" ]*)"? +(.+)((?:\n {15}.*)*)', text)
    found = {
        each["queue"]: each
        for name, each in declared(events=["A"], commands=[], configurations=["C"], retry=RetryPolicy(2, (1.0,)))
        if name == "Queue.Declare"
    }
    assert {queue for queue, *_ in lines} == set(found)
    for queue, flags, rest in lines:
        fields = dict(pair.split("=") for pair in flags.split() if "=" in pair and not pair.startswith("arguments"))
        for field, value in fields.items():
            assert found[queue][field.replace("-", "_")] is bool(int(value)), (queue, field)
        assert found[queue]["arguments"] == (json.loads(rest.partition("=")[2]) if rest else {})


def test_what_delayed_messages_need_is_declared_as_the_page_says() -> None:
    section = TEXT.partition("\nDelayed messages\n---")[2].partition(".. _")[0]
    lines = [" ".join(line.split()) for line in re.findall(r"^    (\S.+)", section, re.MULTILINE)]
    assert len(lines) == 7
    wanted = set()
    for line in lines:
        for goal in ("events", "commands"):
            for step in range(24):
                following = f"delay.{step - 1}" if step else "delay.end"
                text = line.replace("<1000*2^n>", str(1000 * 2**step)).replace("<n>", str(step))
                wanted.add(text.replace("<next>", following).replace("<goal>", goal))
    assert {_told(each) for each in (*delays.declarations(), *delays.bindings())} == wanted


def _told(command: Any) -> str:
    """A command in the words of the page."""
    if isinstance(command, Exchange.Declare):
        assert command.durable
        return f"exchange.declare {command.exchange} {command.exchange_type}"
    if isinstance(command, Queue.Declare):
        assert command.durable
        return f"queue.declare {command.queue} {json.dumps(command.arguments)}"
    if isinstance(command, Queue.Bind):
        return f"queue.bind {command.queue} to {command.exchange} {json.dumps(command.arguments)}"
    return f"exchange.bind {command.destination} to {command.source} {json.dumps(command.arguments)}"


def test_the_levels_of_logs_are_those_of_the_page() -> None:
    (words,) = re.findall(r"The levels, from 0 to 7: ((?:``[A-Z]+``[,.]\s)+)", TEXT)
    assert tuple(re.findall(r"[A-Z]+", words)) == LABELS
