"""Conformance checks of failing networks and brokers, and of the end of a service.

They check promises of docs/architecture.rst, "Publishing" and "Life of a service".
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from eda_core.criticality import INFO
from eda_core.machine.policy import RetryPolicy
from eda_core.testing.conformance.script import (
    BROKER,
    DEAD_LETTERS,
    NOBODY,
    THE_WRONG_PASSWORD,
    WRONG_PASSWORD,
    Alarm,
    Begin,
    Call,
    Check,
    Count,
    Cut,
    Declare,
    Delete,
    Do,
    Ended,
    Freeze,
    Hold,
    Join,
    Limit,
    Links,
    NotConforming,
    Notes,
    Open,
    Restart,
    Say,
    Script,
    Seen,
    Start,
    Step,
    Stop,
    Take,
    Worker,
    accept,
    check_of,
    equal,
    event,
    stop,
    true,
)

Steps = Generator[Step, None, Any]


def _relay(payload: Any, conversation: str, _meta: Any) -> Steps:
    yield Call("publish_event", "Relayed", payload, conversation)


def _listener() -> Worker:
    return Worker("listener", events=["Happened"], handlers={"Happened": accept})


def a_handler_that_runs_goes_on_after_a_lost_link() -> Script:
    """The message is delivered again while its handler runs. It is not handled twice, and published is what it does."""

    def slow(payload: Any, conversation: str, _meta: Any) -> Steps:
        if payload:
            yield Say("behind it")
            return
        yield Call("publish_event", "Relayed", 1, conversation)
        yield Hold("gate")
        yield Call("publish_event", "Relayed", 2, conversation)

    service = Worker("service", events=["Happened"], handlers={"Happened": slow})
    yield Declare("tap", "events", "Relayed")
    yield Start(service)
    yield event("Happened", 0, message_id="slow")
    yield Seen(service, "Happened")
    yield Cut()
    yield Seen(service, "ready", 2)
    yield event("Happened", 1)
    yield Seen(service, "behind it")  # so the other one has been delivered again, too
    yield Open(service, "gate")
    taken = [(yield Take("tap")).payload, (yield Take("tap")).payload]
    equal(taken, [1, 2], "what the handler has published")
    yield Stop(service)
    yield Ended(service)
    equal((yield Count("service.events")), 0, "messages left in the queue")
    equal((yield Count("tap")), 0, "more that was published")
    notes = yield Notes(service)
    equal(notes.count("Happened"), 2, "handlers that began")


def brokers_are_tried_in_turn() -> Script:
    """The first one refuses the connection, the second one the password. The service comes to the third."""
    listener = _listener()
    listener.urls = (NOBODY, WRONG_PASSWORD, BROKER)
    yield Start(listener)
    yield event("Happened", 1)
    yield Seen(listener, "Happened")
    yield Cut()
    yield Seen(listener, "ready", 2)


def wrong_credentials_everywhere_end_the_service() -> Script:
    """Trying again cannot help, so the service ends. Its error says why, and does not show the password."""
    service = Worker("service", urls=(WRONG_PASSWORD,))
    yield Start(service, until=None)
    error = yield Ended(service)
    true("credentials" in (error or ""), f"the error names the credentials: {error}")
    true(THE_WRONG_PASSWORD not in (error or ""), "the error does not show the password")


def _all_relayed(last: int) -> Generator[Any, Any, None]:
    """Check that everything from 0 to ``last`` comes to the tap, in any order, some of it perhaps more than once."""
    missing = set(range(last + 1))
    while missing:
        try:
            missing.discard((yield Take("tap")).payload)
        except NotConforming as error:
            raise NotConforming(f"{error}; lost: {sorted(missing)}") from None


def cut_connections_lose_nothing() -> Script:
    """One service relays the messages of another, and their connections are cut meanwhile: every message arrives."""
    source, relay = Worker("source"), Worker("relay", events=["Happened"], handlers={"Happened": _relay})
    yield Declare("tap", "events", "Relayed")
    yield Start(source)
    yield Start(relay)
    for number in range(150):
        yield Begin(source, "publish_event", "Happened", number, "c")
        if number % 50 == 20:
            yield Seen(relay, "Happened", number // 2)
            yield Cut()
    yield from _all_relayed(149)
    yield Join(source)
    yield from stop(relay)
    equal((yield Count("relay.events")), 0, "messages left in the queue")
    equal((yield Count(DEAD_LETTERS)), 0, "dead letters")


def a_killed_broker_loses_nothing() -> Script:
    """The broker keeps what it has confirmed, and the services publish the rest again."""
    source, relay = Worker("source"), Worker("relay", events=["Happened"], handlers={"Happened": _relay})
    yield Declare("tap", "events", "Relayed")
    yield Start(source)
    yield Start(relay)
    for number in range(60):
        yield Begin(source, "publish_event", "Happened", number, "c")
        if number == 30:
            yield Seen(relay, "Happened", 10)
            yield Restart()
    yield from _all_relayed(59)
    yield Join(source)


def delayed_messages_survive_the_broker() -> Script:
    """They wait in durable queues, and their time goes on while the broker is away. They may come twice."""

    def note(payload: Any, *_arguments: Any) -> Steps:
        yield Say(f"{payload} s are over")

    listener = Worker("listener", events=["Remind"], handlers={"Remind": note})
    source = Worker("source", settings={"DELAYED_MESSAGES": True})
    yield Start(listener)
    yield Start(source)
    for delay in (3, 5):
        yield Do(source, "publish_event", "Remind", delay, "c", delay=delay)
    yield Restart()
    for delay in (3, 5):
        yield Seen(listener, f"{delay} s are over")


def a_deleted_queue_is_declared_again() -> Script:
    """The broker cancels the consumer of the queue. The service makes a new link, and declares the queue again."""
    listener = _listener()
    yield Start(listener)
    yield event("Happened", 1)
    yield Seen(listener, "Happened")  # it consumes now: a service is ready before the broker has told it so
    yield Delete("listener.events")
    yield Seen(listener, "ready", 2)
    yield event("Happened", 2)
    yield Seen(listener, "Happened", 2)


def a_queue_that_differs_is_used_as_it_is() -> Script:
    """The queue exists with other arguments. The service uses it, and declares its own when that one is deleted."""
    listener = _listener()
    yield Declare("listener.events", arguments={"x-max-length": 7})
    yield Start(listener)
    yield event("Happened", 1)
    yield Seen(listener, "Happened")
    yield Delete("listener.events")
    yield Seen(listener, "ready", 2)
    yield event("Happened", 2)
    yield Seen(listener, "Happened", 2)
    yield from stop(listener)


def an_alarm_stops_publishing_but_not_acknowledging() -> Script:
    """Publishes wait until the alarm is over. Deliveries and their acknowledgements go on."""

    def wait(*_arguments: Any) -> Steps:
        yield Hold("gate")

    service = Worker("service", events=["Happened"], handlers={"Happened": wait}, settings={"PREFETCH_COUNT": 1})
    yield Declare("tap", "events", "Other")
    yield Start(service)
    yield Do(service, "publish_event", "Other", "before", "c")
    yield Count("tap", until=1)  # a service of callbacks returns before the broker has the message
    for number in range(5):
        yield event("Happened", number)
    yield Count("service.events", until=4)
    yield Alarm(True)
    for number in range(3):
        yield Begin(service, "publish_event", "Other", number, "c")
    yield Open(service, "gate")
    yield Seen(service, "Happened", 5)
    yield Count("service.events", until=0)
    equal((yield Count("tap")), 1, "messages published, the one of before the alarm included")
    yield Alarm(False)
    yield Join(service)
    taken = []
    yield Do(service, "publish_event", "Other", "after", "c")
    for _ in range(5):
        taken.append((yield Take("tap")).payload)
    equal(taken, ["before", 0, 1, 2, "after"], "what was published in the end")


def a_full_buffer_fails_no_message() -> Script:
    """In an alarm the buffer is full. Handlers that run may publish, others begin later: nothing is dead-lettered."""

    def busy(payload: Any, conversation: str, _meta: Any) -> Steps:
        yield Hold("gate")
        for copy in range(3):
            yield Call("publish_event", "Relayed", 10 * payload + copy, conversation)
        yield Call("publish_event", "Relayed", 10 * payload + 3, conversation, immediate=True)

    settings = {"PREFETCH_COUNT": 2, "BUFFER": 2, "RETRY_POLICY": RetryPolicy(1)}
    service = Worker("service", events=["Happened"], handlers={"Happened": busy}, settings=settings)
    yield Declare("tap", "events", "Relayed")
    yield Start(service)
    for number in range(6):
        yield event("Happened", number)
    yield Count("service.events", until=4)
    yield Alarm(True)
    yield Open(service, "gate")
    yield Alarm(False)
    yield Seen(service, "Happened", 6)
    expected = [10 * number + copy for number in range(6) for copy in range(4)]
    taken = []
    for _ in expected:
        taken.append((yield Take("tap")).payload)
    equal(sorted(taken), expected, "what was published, each once")
    yield from stop(service)
    equal(len((yield Seen(service, "Happened", 6))), 6, "handlers that ran")
    equal((yield Count(DEAD_LETTERS)), 0, "dead letters")


def a_publish_that_the_broker_does_not_take_stops_nothing() -> Script:
    """The broker closes the channel for some publishes. Their messages are dead-lettered, all others are handled."""

    def relay(payload: Any, conversation: str, _meta: Any) -> Steps:
        yield Call("publish_event", "Relayed", payload if payload % 3 else "x" * 20_000, conversation)

    def talk(*_arguments: Any) -> Steps:
        yield Call("log", INFO, "much to say", "x" * 20_000)

    settings = {"RETRY_POLICY": RetryPolicy(2)}
    handlers = {"Happened": relay, "Talked": talk}
    service = Worker("service", events=["Happened", "Talked"], handlers=handlers, settings=settings)
    yield Declare("tap", "events", "Relayed")
    yield Limit(10_000)
    yield Start(service)
    for number in range(9):
        yield event("Happened", number)
        yield event("Talked", number)
    expected = [1, 2, 4, 5, 7, 8]
    taken: set[Any] = set()
    while taken < set(expected):  # those that were on the channel with another one come twice
        taken.add((yield Take("tap")).payload)
    equal(sorted(taken), expected, "what was published")
    dead = []
    for _ in range(3):
        dead.append((yield Take(DEAD_LETTERS)).payload)
    equal(sorted(dead), [0, 3, 6], "dead letters")
    equal(len((yield Seen(service, "Happened", 12))), 12, "runs of the handler: two for each dead letter")
    equal(len((yield Seen(service, "Talked", 9))), 9, "handlers whose logs are too large")
    yield from stop(service)
    equal((yield Count(DEAD_LETTERS)), 0, "more dead letters")
    equal((yield Links(2)), 2, "connections: no link was lost")


def logs_in_an_alarm_hold_nobody_up() -> Script:
    """The broker reads no logs in an alarm. The service drops those that it cannot keep; all else goes on."""

    def talk(*_arguments: Any) -> Steps:
        yield Hold("gate")
        for _ in range(50):
            yield Call("log", INFO, "much to say", "x" * 300_000)

    service = Worker("service", events=["Happened"], handlers={"Happened": talk}, settings={"PREFETCH_COUNT": 1})
    yield Declare("tap", "logs", "#")
    yield Start(service)
    for number in range(5):
        yield event("Happened", number)
    yield Count("service.events", until=4)
    yield Alarm(True)
    yield Open(service, "gate")
    yield Seen(service, "Happened", 5)
    yield Count("service.events", until=0)
    yield Alarm(False)
    yield from stop(service)
    true((yield Count("tap")) < 250, "some of 75 MB of logs were dropped")


def a_frozen_peer_is_noticed() -> Script:
    """A connection stays open and carries nothing. Heartbeats find that out, and nothing is lost."""
    service = Worker("service", events=["Happened"], handlers={"Happened": _relay}, settings={"HEARTBEAT": 2})
    yield Declare("tap", "events", "Relayed")
    yield Start(service)
    yield event("Happened", "before")
    yield Take("tap")  # so the service consumes and publishes, and waits for no reply that could time out
    yield Freeze()
    for number in range(3):
        yield event("Happened", number)
        yield Begin(service, "publish_event", "Relayed", 3 + number, "c")
    yield Seen(service, "ready", 2)
    yield from _all_relayed(5)
    yield Join(service)


def a_stop_lets_running_handlers_finish() -> Script:
    """What they publish is confirmed, and their messages are acknowledged, before the end. No other handler begins."""

    def slow(payload: Any, conversation: str, _meta: Any) -> Steps:
        yield Hold("gate")
        yield Call("publish_event", "Relayed", payload, conversation)
        yield Say("done")

    service = Worker("service", events=["Happened"], handlers={"Happened": slow}, settings={"PREFETCH_COUNT": 1})
    yield Declare("tap", "events", "Relayed")
    yield Start(service)
    for number in range(2):
        yield event("Happened", number)
    yield Count("service.events", until=1)
    yield Seen(service, "Happened")
    yield Stop(service)
    yield Open(service, "gate")
    equal((yield Ended(service)), None, "the error it ends with")
    equal(len((yield Seen(service, "done"))), 1, "handlers that ran")
    equal((yield Take("tap")).payload, 0, "what was published")
    taken = yield Take("service.events")
    equal((taken.payload, taken.redelivered), (1, False), "what was left to others, and that nobody had it")
    equal((yield Count("service.events")), 0, "anything else")


def a_stop_has_a_deadline() -> Script:
    """The service abandons a handler that does not end. Its message goes to another worker; what it held is dropped."""

    def endless(payload: Any, conversation: str, _meta: Any) -> Steps:
        yield Call("publish_event", "Relayed", payload, conversation)
        yield Hold("gate that nobody opens")

    service = Worker("service", events=["Happened"], handlers={"Happened": endless})
    other = Worker("service", events=["Happened"], handlers={"Happened": accept})
    yield Declare("tap", "events", "Relayed")
    yield Start(service)
    yield event("Happened", 1)
    yield Seen(service, "Happened")
    yield Stop(service, timeout=0.1)
    yield Ended(service)
    yield Start(other)
    yield Seen(other, "Happened")
    equal((yield Count("tap")), 0, "what the abandoned handler published")


def a_stop_ends_though_the_peer_is_frozen() -> Script:
    """The broker does not answer when the connection is closed. The service ends soon after ``close_timeout``, 5 s."""
    service = _listener()
    yield Start(service)
    yield Freeze()
    yield from stop(service, seconds=10)


def a_service_without_a_broker_can_be_stopped() -> Script:
    """It ends at once, between two attempts to connect or in one: there is nothing to wait for."""
    for url in (NOBODY, BROKER):
        service = Worker("service", urls=(url,))
        yield Start(service, until=None)
        yield from stop(service, seconds=3)


FAULTS: Final[tuple[Check, ...]] = tuple(
    check_of(script)
    for script in (
        brokers_are_tried_in_turn,
        wrong_credentials_everywhere_end_the_service,
        cut_connections_lose_nothing,
        a_killed_broker_loses_nothing,
        a_handler_that_runs_goes_on_after_a_lost_link,
        delayed_messages_survive_the_broker,
        a_deleted_queue_is_declared_again,
        a_queue_that_differs_is_used_as_it_is,
        an_alarm_stops_publishing_but_not_acknowledging,
        a_full_buffer_fails_no_message,
        a_publish_that_the_broker_does_not_take_stops_nothing,
        logs_in_an_alarm_hold_nobody_up,
        a_frozen_peer_is_noticed,
        a_stop_lets_running_handlers_finish,
        a_stop_has_a_deadline,
        a_stop_ends_though_the_peer_is_frozen,
        a_service_without_a_broker_can_be_stopped,
    )
)
