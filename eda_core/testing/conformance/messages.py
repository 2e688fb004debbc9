"""Conformance checks of messages: from one service to the handler of another, valid ones and invalid ones.

They check promises of docs/architecture.rst, "Envelope", "Invalid messages" and "Life of a service".
"""

from __future__ import annotations

import json
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any, Final

import cbor2
from pamqp.commands import Basic

from eda_core.criticality import NOTICE
from eda_core.messages.codec import CBOR, JSON
from eda_core.services.claims import ClaimCheck
from eda_core.services.log_bridge import LogBridge
from eda_core.testing.conformance.script import (
    DEAD_LETTERS,
    Call,
    Check,
    Count,
    Cut,
    Declare,
    Do,
    Ended,
    Notes,
    Put,
    Script,
    Seen,
    Start,
    Step,
    Take,
    Worker,
    accept,
    check_of,
    equal,
    event,
    message,
    stop,
    true,
)
from eda_core.testing.conformance.unreadable import UNREADABLE

Steps = Generator[Step, None, Any]


def events_reach_their_subscribers() -> Script:
    """Payload, conversation and meta arrive as they were sent, in CBOR and JSON, also in a message of many frames."""
    listener = Worker("listener", events=["Happened"], handlers={"Happened": accept})
    payload = {"text": "Été à la plage", "numbers": [1, 2.5, -(2**40)], "none": None, "long": "ä" * 200_000}
    yield Start(listener)
    for number, source in enumerate((Worker("source"), Worker("source", json=True)), 1):
        yield Start(source)
        yield Do(source, "publish_event", "Happened", payload, "the conversation")
        got, conversation, meta = (yield Seen(listener, "Happened", number))[-1]
        equal(got, payload, "the payload")
        equal(conversation, "the conversation", "the conversation id")
        known = {name: meta.get(name) for name in ("app_id", "timestamp", "expiration", "user_id")}
        equal(known, {"app_id": "source", "timestamp": None, "expiration": None, "user_id": None}, "the meta")
        true(type(meta["delivery_tag"]) is int, "meta has the delivery tag")
        yield from stop(source)


def who_waits_for_a_service_is_told_when_it_receives_its_messages() -> Script:
    """``wait_until_ready`` returns when nothing is missed any more: after the start, at once, and after a lost link."""
    names = ("Early", "Present", "Late")
    listener = Worker("listener", events=names, handlers=dict.fromkeys(names, accept))
    yield Start(listener, until=None)
    for name in names:
        yield Do(listener, "wait_until_ready")
        yield Do(listener, "publish_event", name, name, "c")
        equal((yield Seen(listener, name))[0][0], name, "the event")
        if name == "Present":
            yield Cut()
    yield from stop(listener)


def the_envelope_is_that_of_the_architecture() -> Script:
    """A message is persistent, and has a content type and the conversation id. Headers of a peer arrive in meta."""
    listener = Worker("listener", events=["Sent"], handlers={"Sent": accept})
    yield Declare("tap", "events", "Happened")
    yield Start(listener)
    yield Do(listener, "publish_event", "Happened", [1], "c1")
    taken = yield Take("tap")
    properties = taken.properties
    equal((properties.delivery_mode, properties.content_type), (2, CBOR), "delivery mode and content type")
    equal((properties.reply_to or "", properties.correlation_id or ""), ("", ""), "reply_to and correlation_id")
    equal(taken.headers, {"conversation_id": "c1"}, "the headers")
    equal((taken.exchange, taken.key, taken.payload), ("events", "Happened", [1]), "the message")
    traced = {"traceparent": "00-1-2-01", "tracestate": "vendor=1", "baggage": "tenant=a"}
    headers: Any = {"conversation_id": "c2", **traced, "shard": 3}
    properties = Basic.Properties(content_type=JSON, headers=headers, app_id="old", expiration="60000")
    yield Put("events", "Sent", b'{"n": "\xc3\xa9"}', properties)
    ((payload, conversation, meta),) = yield Seen(listener, "Sent")
    equal((payload, conversation), ({"n": "é"}, "c2"), "payload and conversation")
    wanted = {**traced, "shard": 3, "app_id": "old", "expiration": "60000"}
    equal({name: meta.get(name) for name in wanted}, wanted, "headers and properties in meta")


def _add(payload: Any, conversation: str, reply_to: str, correlation: str, _meta: Any) -> Steps:
    if all(isinstance(number, int) for number in payload):
        yield Call("return_success", reply_to, sum(payload), conversation, correlation)
    else:
        yield Call("return_error", reply_to, {"reason": "not numbers"}, conversation, correlation)


def commands_are_answered_to_who_sent_them() -> Script:
    """A result goes to the reply_to of its command, with the correlation id and a status, and to nobody else."""
    adder = Worker("adder", commands=["adder.Add"], handlers={"Add": _add})
    asker = Worker("asker", commands=["asker.AddReturn"], handlers={"AddReturn": accept})
    other = Worker("other", commands=["other.AddReturn"], handlers={"AddReturn": accept})
    for worker in (adder, asker, other):
        yield Start(worker)
    yield Do(asker, "send_command", "adder.Add", [1, 2], "c1", "asker.AddReturn", "k1")
    ((payload, conversation, status, correlation, _),) = yield Seen(asker, "AddReturn")
    equal((payload, conversation, status, correlation), (3, "c1", "success", "k1"), "the result")
    yield Do(asker, "send_command", "adder.Add", ["x"], "c2", "asker.AddReturn", "k2")
    _, (payload, conversation, status, correlation, _) = yield Seen(asker, "AddReturn", 2)
    equal((payload, status), ({"reason": "not numbers"}, "error"), "the result of the second")
    equal((conversation, correlation), ("c2", "k2"), "its conversation and correlation id")
    equal((yield Notes(other)), ["ready"], "what the other service saw")


def _return_sum(payload: Any, *_arguments: Any) -> Steps:
    yield from ()
    return {"sum": sum(payload)}


def what_the_handler_of_a_command_returns_is_its_result() -> Script:
    """A returned payload is published as a result with the status success. The command is acknowledged then."""
    adder = Worker("adder", commands=["adder.Add"], handlers={"Add": _return_sum})
    asker = Worker("asker", commands=["asker.AddReturn"], handlers={"AddReturn": accept})
    yield Start(adder)
    yield Start(asker)
    yield Do(asker, "send_command", "adder.Add", [1, 2], "c1", "asker.AddReturn", "k1")
    ((payload, conversation, status, correlation, _),) = yield Seen(asker, "AddReturn")
    equal((payload, conversation, status, correlation), ({"sum": 3}, "c1", "success", "k1"), "the result")
    yield from stop(adder)
    equal((yield Count("adder.commands")), 0, "commands that are left in the queue")


def a_value_that_means_nothing_leaves_no_message_unacknowledged() -> Script:
    """If the handler of an event returns something else than None, True or False, the event is acknowledged."""
    service = Worker("service", events=["Happened"], handlers={"Happened": _return_sum})
    yield Start(service)
    yield event("Happened", [1, 2])
    yield Seen(service, "Happened")
    yield from stop(service)
    equal((yield Count("service.events")), 0, "events that are left in the queue")


def _configure(payload: Any, _meta: Any) -> Steps:
    yield from ()
    return bool(payload["complete"])


def _configured_worker() -> Worker:
    handlers = {"Settings": _configure, "Happened": accept}
    return Worker("service", events=["Happened"], configurations=["Settings"], handlers=handlers)


def business_waits_for_the_configuration() -> Script:
    """First on_unconfigured and only configurations; when one completes it, on_ready and business messages."""
    source, service = Worker("source"), _configured_worker()
    yield Start(source)
    yield Start(service, until="unconfigured")
    yield Do(source, "publish_event", "Happened", "business", "c")
    yield Do(source, "publish_configuration", "Settings", {"complete": False})
    yield Seen(service, "Settings", 1)
    yield Do(source, "publish_configuration", "Settings", {"complete": True})
    yield Seen(service, "Happened")
    equal((yield Notes(service)), ["unconfigured", "Settings", "Settings", "ready", "Happened"], "what happened")
    yield Do(source, "publish_configuration", "Settings", {"complete": True})
    yield Seen(service, "Settings", 3)


def configuration_is_asked_for_again_after_a_lost_link() -> Script:
    """The service may have missed a configuration. So it is unconfigured again, and ready when it gets one."""
    source, service = Worker("source"), _configured_worker()
    yield Start(source)
    yield Start(service, until="unconfigured")
    yield Do(source, "publish_configuration", "Settings", {"complete": True})
    yield Seen(service, "ready", 1)
    yield Cut()
    yield Seen(service, "unconfigured", 2)
    yield Seen(source, "ready", 2)
    yield Do(source, "publish_event", "Happened", "business", "c")
    equal((yield Notes(service))[-1], "unconfigured", "the last thing that happened")
    yield Do(source, "publish_configuration", "Settings", {"complete": True})
    yield Seen(service, "Happened")
    equal((yield Notes(service))[-3:], ["Settings", "ready", "Happened"], "what happened then")


def a_configuration_of_no_use_is_asked_for_again() -> Script:
    """A handler that fails, or bytes that are no message, leave the service unconfigured, and it says so again."""
    source, service = Worker("source"), _configured_worker()
    yield Start(source)
    yield Start(service, until="unconfigured")
    yield Do(source, "publish_configuration", "Settings", {"incomplete": True})
    yield Seen(service, "unconfigured", 2)
    yield Put("configurations", "Settings", b"\xff", Basic.Properties(content_type=CBOR))
    yield Seen(service, "unconfigured", 3)
    yield Do(source, "publish_configuration", "Settings", {"complete": True})
    yield Seen(service, "ready")
    expected = ["unconfigured", "Settings", "Settings", "unconfigured", "unconfigured", "Settings", "ready"]
    equal((yield Notes(service)), expected, "what happened; a handler that fails has a second attempt")


def unknown_names_are_dead_lettered() -> Script:
    """A message without a handler is a mistake, and somebody has to look at it."""
    service = Worker("service", events=["#"], handlers={"Happened": accept})
    yield Start(service)
    yield event("Surprise", 1, "c1")
    taken = yield Take(DEAD_LETTERS)
    equal((taken.key, taken.headers["conversation_id"]), ("Surprise", "c1"), "the dead letter")
    yield event("ready", 1, "c2")  # on_ready is a hook, not a handler
    equal((yield Take(DEAD_LETTERS)).key, "ready", "the second dead letter")
    yield event("Happened", 2)
    yield Seen(service, "Happened")
    equal((yield Notes(service)), ["ready", "Happened"], "what the service saw")


_GOOD: Final = {"conversation_id": "c"}
_DEEP: Final = b"\x81" * 5_000 + b"\x01"

_INVALID: Final = (
    message("events", "Happened", 1, {}),
    message("events", "Happened", 1, {"conversation_id": ["c"]}),
    message("commands", "service.Do", 1, _GOOD),
    message("commands", "service.Do", 1, {**_GOOD, "status": "perhaps"}),
    message("events", "Happened", 1, _GOOD, content_type="text/plain"),
    Put("events", "Happened", b"\xff", Basic.Properties(content_type=CBOR, headers=dict(_GOOD))),
    Put("events", "Happened", cbor2.dumps(1) + b"more", Basic.Properties(content_type=CBOR, headers=dict(_GOOD))),
    Put("events", "Happened", _DEEP, Basic.Properties(content_type=CBOR, headers=dict(_GOOD))),
    Put("events", "Happened", b"\xd8\x1c\x81\xd8\x1d\x00", Basic.Properties(content_type=CBOR, headers=dict(_GOOD))),
    Put("events", "Happened", b"{", Basic.Properties(content_type=JSON, headers=dict(_GOOD))),
    Put("events", "Happened", b"[" * 200_000, Basic.Properties(content_type=JSON, headers=dict(_GOOD))),
    Put("events", "Happened", b"\xc3", Basic.Properties(content_type=JSON, headers=dict(_GOOD))),
    Put("events", "Happened", b"", Basic.Properties()),
)


def invalid_messages_are_dead_lettered() -> Script:
    """No bytes crash the service, are tried again or come to a handler. The next message is handled as usual."""
    handlers = {"Happened": accept, "Do": accept}
    service = Worker("service", events=["Happened"], commands=["service.Do"], handlers=handlers)
    yield Start(service)
    for invalid in _INVALID:
        yield invalid
        equal((yield Take(DEAD_LETTERS)).body, invalid.body, "the dead letter")
    yield event("Happened", 2)
    yield Seen(service, "Happened")
    equal((yield Notes(service)), ["ready", "Happened"], "what the service saw")
    equal((yield Count("service.events")), 0, "messages left")


def unreadable_messages_are_dead_lettered() -> Script:
    """RabbitMQ takes properties and routing keys that no client can read. No link is lost, and a log says why."""
    service = Worker("service", events=["Happened", "odd.#"], handlers={"Happened": accept})
    yield Declare("log-tap", "logs", "service.EMERGENCY")
    yield Start(service)
    for count, (kind, (unreadable, reason)) in enumerate(UNREADABLE.items(), 1):
        yield unreadable
        yield event("Happened", kind)
        payload, *_ = (yield Seen(service, "Happened", count))[-1]
        equal(payload, kind, "the message behind the unreadable one")
        yield Count(DEAD_LETTERS, count)
        record = json.loads((yield Take("log-tap")).body)
        true(reason in record["short_message"], f"the log names the {reason.strip()}: {record['short_message']}")
        equal(record["_conversation_id"], "c", "the conversation id in the log")
    for unreadable, _ in UNREADABLE.values():
        yield unreadable
    yield event("Happened", "the last")
    yield Seen(service, "Happened", len(UNREADABLE) + 1)
    yield Count(DEAD_LETTERS, 2 * len(UNREADABLE))
    seen = ["ready", *["Happened"] * (len(UNREADABLE) + 1)]
    equal((yield Notes(service)), seen, "what the service saw, on one link")
    equal((yield Count("service.events")), 0, "messages left")


def unroutable_commands_come_back() -> Script:
    """Commands and results are mandatory. One that has no queue comes to handle_returned_message, once."""
    service = Worker("service")
    yield Start(service)
    yield Do(service, "publish_event", "NobodySubscribes", 0, "c0")
    yield Do(service, "send_command", "nobody.Do", {"n": 1}, "c1", "service.DoReturn", "k1")
    yield Do(service, "return_success", "nobody.DoReturn", {"n": 2}, "c2", "k2")
    yield Do(service, "publish_event", "NobodySubscribes", {"n": 3}, "c3", mandatory=True)
    returned = yield Seen(service, "returned", 3)
    names = [(key, payload, envelope["conversation_id"]) for key, payload, envelope in returned]
    wanted = [("nobody.Do", {"n": 1}, "c1"), ("nobody.DoReturn", {"n": 2}, "c2"), ("NobodySubscribes", {"n": 3}, "c3")]
    equal(names, wanted, "what came back")
    equal((returned[0][2]["reply_to"], returned[0][2]["correlation_id"]), ("service.DoReturn", "k1"), "its envelope")
    equal(returned[1][2]["status"], "success", "the status of the result")


def logs_go_to_the_bus() -> Script:
    """They are GELF records, transient, with the routing key service.LEVEL."""
    service = Worker("service")
    yield Declare("log-tap", "logs", "service.NOTICE")
    yield Start(service)
    yield Do(service, "log", NOTICE, "short", "longer", "c1", {"colour": "blue"})
    taken = yield Take("log-tap")
    record = json.loads(taken.body)
    wanted = {"version": "1.1", "short_message": "short", "full_message": "longer", "level": NOTICE, "_colour": "blue"}
    wanted |= {"_conversation_id": "c1", "_levelname": "NOTICE", "_logical_service": "service"}
    equal({name: record.get(name) for name in wanted}, wanted, "the record")
    true(record["host"].startswith("service@"), "the host is service@hostname")
    equal(taken.properties.delivery_mode, 1, "the delivery mode")


def _bridge(self: Any, text: str) -> None:
    """A method of a service: give its bridge a record."""
    if "bridge" not in vars(self):
        self.bridge = LogBridge(self, capacity=2)
    self.bridge.put(
        SimpleNamespace(
            name="shop",
            levelno=25,
            created=1_700_000_000.0,
            pathname="shop.py",
            lineno=7,
            funcName="sell",
            threadName="main",
            exc_info=None,
            exc_text="Traceback: …",
            stack_info=None,
            colour="blue",
            getMessage=lambda: text,
        )
    )


def records_of_the_program_go_to_the_bus() -> Script:
    """So do those that Python's ``logging`` gives to a bridge, with their own time, on each link."""
    service = Worker("service", events=["Never"], settings={"put": _bridge})
    yield Declare("log-tap", "logs", "service.NOTICE")
    yield Start(service)
    yield Do(service, "put", "first")
    record = json.loads((yield Take("log-tap")).body)
    wanted = {"short_message": "first", "full_message": "first\nTraceback: …", "level": NOTICE, "_colour": "blue"}
    wanted |= {"_logger": "shop", "_file": "shop.py", "_line": 7, "_function": "sell", "_thread": "main"}
    equal({name: record.get(name) for name in wanted}, wanted, "the record")
    true(abs(record["timestamp"] - 1_700_000_000.0) < 1.0, f"the time of the record: {record['timestamp']}")
    yield Cut()
    yield Seen(service, "ready", 2)
    yield Do(service, "put", "second")
    equal(json.loads((yield Take("log-tap")).body)["short_message"], "second", "the record on the next link")


def delayed_messages_arrive_when_their_time_is_over() -> Script:
    """Events and commands, from handlers and from elsewhere, each with its own delay, as if published only then."""

    def remind(payload: Any, conversation: str, _meta: Any) -> Steps:
        yield Call("publish_event", "Remind", payload, conversation, delay=payload)

    listener = Worker(
        "listener",
        events=["Remind"],
        commands=["listener.Do", "source.DoReturn"],
        handlers={"Remind": accept, "Do": accept},
    )
    source = Worker("source", events=["Asked"], handlers={"Asked": remind}, settings={"DELAYED_MESSAGES": True})
    yield Start(listener)
    yield Start(source)
    yield Do(source, "publish_event", "Remind", 4, "c4", delay=4)
    yield event("Asked", 3, "c3")
    yield Do(source, "publish_event", "Remind", 1, "c1", delay=0.5)
    yield Do(source, "send_command", "listener.Do", 2, "c2", "source.DoReturn", "id", delay=2)
    got, conversation, reply_to, correlation_id, _ = (yield Seen(listener, "Do"))[0]
    equal([got, conversation, reply_to, correlation_id], [2, "c2", "source.DoReturn", "id"], "the command")
    seen = yield Seen(listener, "Remind", 3)
    equal([(payload, conversation) for payload, conversation, _ in seen], [(1, "c1"), (3, "c3"), (4, "c4")], "events")
    yield from stop(source)
    equal((yield Count("source.events")), 0, "messages left in the queue")


def large_payloads_wait_in_a_store() -> Script:
    """With CLAIM_CHECK, of events, commands and results. Who has no store rejects such a message."""

    def answer(payload: Any, *_arguments: Any) -> Steps:
        return payload["text"] * 2
        yield

    settings = {"CLAIM_CHECK": ClaimCheck(_Store(), over=1000)}
    handlers = {"Happened": accept, "Do": answer, "DoReturn": accept}
    listener = Worker("listener", ["Happened"], ["listener.Do"], handlers=handlers, settings=settings)
    source = Worker("source", [], ["source.DoReturn"], handlers=handlers, settings=settings)
    poor = Worker("poor", ["Other"], handlers={"Other": accept})
    yield Declare("tap", "events", "#")
    for worker in (listener, source, poor):
        yield Start(worker)
    large = {"text": "ä" * 5000}
    yield Do(source, "publish_event", "Happened", large, "c")
    yield Seen(listener, "Happened")  # handlers in threads may end in another order
    yield Do(source, "publish_event", "Happened", {"text": "small"}, "c")
    seen = yield Seen(listener, "Happened", 2)
    equal([payload for payload, *_ in seen], [large, {"text": "small"}], "the payloads")
    equal(["claim_check" in meta for *_, meta in seen], [False, False], "whether meta has the key")
    taken = [(yield Take("tap")), (yield Take("tap"))]
    equal([each.payload for each in taken], [None, {"text": "small"}], "the payloads on the wire")
    equal(["claim_check" in each.headers for each in taken], [True, False], "whether the headers have the key")
    yield Do(source, "send_command", "listener.Do", large, "c", "source.DoReturn", "id")
    ((payload, _, status, correlation_id, _),) = yield Seen(source, "DoReturn")
    equal([payload, status, correlation_id], [large["text"] * 2, "success", "id"], "the result")
    yield Do(source, "publish_event", "Other", large, "c")
    dead = yield Take(DEAD_LETTERS)
    equal((dead.key, dead.payload), ("Other", None), "the dead letter of who has no store")
    yield from stop(listener)
    equal((yield Count("listener.commands")), 0, "messages left in the queue")


class _Store:
    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def put(self, key: str, body: bytes) -> None:
        self._bodies[key] = body

    def get(self, key: str) -> bytes:
        return self._bodies[key]


def exclusive_queues_leave_nothing_behind() -> Script:
    """Each worker gets every message, and its queues go with it. A message to them is returned then."""
    tools = [Worker("tool", events=["Happened"], handlers={"Happened": accept}, exclusive=True) for _ in range(2)]
    for tool in tools:
        yield Start(tool)
    yield event("Happened", 1)
    for tool in tools:
        yield Seen(tool, "Happened")
        yield from stop(tool)
    equal((yield Count("tool.events")), None, "messages in a queue that should not exist")
    source = Worker("source")
    yield Start(source)
    yield Do(source, "publish_event", "Happened", 2, "c", mandatory=True)
    yield Seen(source, "returned")


def a_failing_on_ready_ends_the_service() -> Script:
    """A service that is not ready would be of no use. Its error says why it is not."""

    def fail() -> Steps:
        raise RuntimeError("no disk")
        yield

    service = Worker("service", handlers={"ready": fail})
    yield Start(service)
    error = yield Ended(service)
    true("no disk" in (error or ""), f"the error tells what failed: {error}")


MESSAGES: Final[tuple[Check, ...]] = tuple(
    check_of(script)
    for script in (
        events_reach_their_subscribers,
        who_waits_for_a_service_is_told_when_it_receives_its_messages,
        the_envelope_is_that_of_the_architecture,
        commands_are_answered_to_who_sent_them,
        what_the_handler_of_a_command_returns_is_its_result,
        a_value_that_means_nothing_leaves_no_message_unacknowledged,
        business_waits_for_the_configuration,
        configuration_is_asked_for_again_after_a_lost_link,
        a_configuration_of_no_use_is_asked_for_again,
        unknown_names_are_dead_lettered,
        invalid_messages_are_dead_lettered,
        unreadable_messages_are_dead_lettered,
        unroutable_commands_come_back,
        logs_go_to_the_bus,
        records_of_the_program_go_to_the_bus,
        delayed_messages_arrive_when_their_time_is_over,
        large_payloads_wait_in_a_store,
        exclusive_queues_leave_nothing_behind,
        a_failing_on_ready_ends_the_service,
    )
)
