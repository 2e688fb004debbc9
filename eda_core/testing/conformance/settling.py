"""Conformance checks of how messages are settled whose handlers ran, and of what the handlers published.

They check promises of docs/architecture.rst, "Receiving" and "Publishing". How does a check see that something was
*not* published? A message is published later, and it is the next one to arrive.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.errors import Reject
from eda_core.machine.policy import RetryPolicy
from eda_core.messages.codec import CBOR
from eda_core.testing.broker.dead_letters import EXCHANGE
from eda_core.testing.conformance.script import (
    DEAD_LETTERS,
    Begin,
    Call,
    Check,
    Count,
    Cut,
    Declare,
    Do,
    Ended,
    Hold,
    Join,
    Notes,
    Open,
    Put,
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
)

Steps = Generator[Step, None, Any]
#: For a queue that holds one message, and refuses others instead of dropping the oldest.
_HOLDS_ONE: Final = {"x-max-length": 1, "x-overflow": "reject-publish"}


def _fail(*_arguments: Any) -> Steps:
    raise RuntimeError("as asked")
    yield


def failures_are_retried_once_then_dead_lettered() -> Script:
    """There are two attempts. The dead letter is the message as it was, with the reason."""
    service = Worker("service", events=["Happened"], handlers={"Happened": _fail})
    yield Start(service)
    yield event("Happened", {"n": 1}, "c1", message_id="m1")
    taken = yield Take(DEAD_LETTERS)
    equal((taken.key, taken.payload), ("Happened", {"n": 1}), "the dead letter")
    equal((taken.headers["conversation_id"], taken.properties.message_id), ("c1", "m1"), "its identity")
    death = taken.headers["x-death"][0]
    equal((death["queue"], death["reason"], death["count"]), ("service.events", "rejected", 1), "its x-death")
    equal((yield Notes(service)), ["ready", "Happened", "Happened"], "what the service saw")


def what_is_given_up_is_published_with_the_reason() -> Script:
    """With DEAD_LETTER_EXCHANGE the service publishes the dead letter itself, and then acknowledges the message."""
    settings = {"DEAD_LETTER_EXCHANGE": EXCHANGE}
    service = Worker("service", events=["Happened"], handlers={"Happened": _fail}, settings=settings)
    yield Start(service)
    yield event("Happened", {"n": 1}, "c1", message_id="m1")
    taken = yield Take(DEAD_LETTERS)
    equal((taken.key, taken.payload), ("Happened", {"n": 1}), "the dead letter")
    equal((taken.headers["conversation_id"], taken.properties.message_id), ("c1", "m1"), "its identity")
    said = [taken.headers[name] for name in ("error_type", "error_message", "error_service", "error_queue")]
    equal(said, ["RuntimeError", "as asked", "service", "service.events"], "why it died")
    equal(taken.headers["error_attempts"], 2, "the attempts")
    equal("x-death" in taken.headers, False, "whether the broker has dead-lettered it")
    yield Put("events", "Happened", b"\xff", Basic.Properties(content_type=CBOR, headers={"conversation_id": "c2"}))
    equal((yield Take(DEAD_LETTERS)).headers["error_type"], "InvalidEnvelope", "why the invalid message died")
    yield from stop(service)
    equal((yield Count("service.events")), 0, "messages left in the queue")


def what_nobody_keeps_is_rejected() -> Script:
    """If DEAD_LETTER_EXCHANGE does not exist, or no queue is bound to it, the message is rejected as without it."""
    for number, exchange in enumerate(("no such exchange", "amq.topic")):  # every broker has the second one
        name = f"service{number}"
        settings = {"DEAD_LETTER_EXCHANGE": exchange, "RETRY_POLICY": RetryPolicy(1)}
        service = Worker(name, events=["Happened"], handlers={"Happened": _fail}, settings=settings)
        yield Start(service)
        yield event("Happened", 1)
        death = (yield Take(DEAD_LETTERS)).headers["x-death"][0]
        equal((death["queue"], death["reason"]), (f"{name}.events", "rejected"), "its x-death")
        yield event("Happened", 2)
        equal((yield Take(DEAD_LETTERS)).payload, 2, "the next dead letter")
        equal((yield Notes(service)), ["ready", "Happened", "Happened"], "what the service saw, on one link")
        yield from stop(service)


def a_retry_may_succeed() -> Script:
    """The first attempt fails and publishes nothing, the second one succeeds and publishes."""
    attempts: list[int] = []

    def once(payload: Any, conversation: str, _meta: Any) -> Steps:
        attempts.append(len(attempts) + 1)
        yield Call("publish_event", "Attempted", attempts[-1], conversation)
        if len(attempts) == 1:
            raise RuntimeError("as asked")

    service = Worker("service", events=["Happened"], handlers={"Happened": once})
    yield Declare("tap", "events", "Attempted")
    yield Start(service)
    yield event("Happened", 1)
    equal((yield Take("tap")).payload, 2, "the attempt that published")
    yield from stop(service)
    equal((yield Count("service.events")), 0, "messages left in the queue")
    equal((yield Count(DEAD_LETTERS)), 0, "dead letters")


def _reject(*_arguments: Any) -> Steps:
    yield from ()
    raise Reject("no such customer")


def rejected_commands_are_answered_and_dead_lettered() -> Script:
    """Reject ends a message at its first attempt. Whoever sent a command gets a result with the reason."""
    service = Worker("service", ["Happened"], ["service.Do"], handlers={"Do": _reject, "Happened": _reject})
    asker = Worker("asker", commands=["asker.DoReturn"], handlers={"DoReturn": accept})
    yield Start(service)
    yield Start(asker)
    yield Do(asker, "send_command", "service.Do", {"n": 1}, "c1", "asker.DoReturn", "k1")
    ((payload, conversation, status, correlation, _),) = yield Seen(asker, "DoReturn")
    equal((payload, conversation, status, correlation), ({"reason": "no such customer"}, "c1", "error", "k1"), "result")
    taken = yield Take(DEAD_LETTERS)
    equal((taken.key, taken.payload), ("service.Do", {"n": 1}), "the dead letter")
    yield event("Happened", 1)
    equal((yield Take(DEAD_LETTERS)).key, "Happened", "the key of the rejected event")
    equal((yield Notes(service)), ["ready", "Do", "Happened"], "what the service has handled")


def failing_handlers_publish_nothing() -> Script:
    """What a handler publishes is held until it succeeds. Only what is marked immediate is published at once."""

    def publish(payload: Any, conversation: str, _meta: Any) -> Steps:
        yield Call("publish_event", "Progress", "immediate", conversation, immediate=True)
        yield Call("publish_event", "Progress", "held", conversation)
        raise RuntimeError("as asked")

    service = Worker("service", events=["Happened"], handlers={"Happened": publish})
    yield Declare("tap", "events", "Progress")
    yield Start(service)
    yield event("Happened", 1)
    yield Take(DEAD_LETTERS)
    yield Do(service, "publish_event", "Progress", "the last", "c")
    taken = []
    for _ in range(3):
        taken.append((yield Take("tap")).payload)
    equal(taken, ["immediate", "immediate", "the last"], "what was published")


def sources_are_acknowledged_after_the_confirms() -> Script:
    """A queue refuses what a handler published. So the message of the handler stays unsettled, and is redelivered."""

    def relay(payload: Any, conversation: str, _meta: Any) -> Steps:
        yield Call("publish_event", "Relayed", payload, conversation)
        yield Say("relayed")

    service = Worker(
        "service",
        events=["Happened", "Other"],
        handlers={"Happened": relay, "Other": accept},
        settings={"RETRY_DELAY": 60},
    )
    yield Declare("full", "events", "Relayed", arguments=_HOLDS_ONE)
    yield Start(service)
    yield event("Relayed", "filler")
    yield event("Happened", 1, "c1")
    yield Seen(service, "relayed")
    yield event("Other", 2)
    yield Seen(service, "Other")
    yield Stop(service, timeout=0.2)
    yield Ended(service)
    taken = yield Take("service.events")
    equal((taken.payload, taken.redelivered), (1, True), "what is back in the queue, and that it is redelivered")
    equal((yield Take("full")).payload, "filler", "what is in the full queue")
    equal((yield Count("full")), 0, "anything else in the full queue")


def refused_publishes_are_sent_again_whole() -> Script:
    """They are sent again with every property and header, until the broker accepts them. (eventail loses most.)"""
    service = Worker("service")
    yield Declare("full", "commands", "full.Do", arguments=_HOLDS_ONE)
    yield Declare("tap", "events", "Happened")
    yield Start(service)
    yield Do(service, "send_command", "full.Do", "filler", "c0", "service.DoReturn", "k0")
    yield Begin(service, "send_command", "full.Do", {"n": 1}, "c1", "service.DoReturn", "k1")
    yield Begin(service, "return_error", "full.Do", {"n": 2}, "c2", "k2")
    yield Do(service, "publish_event", "Happened", 1, "c")
    yield Take("tap")  # published after them: so they have been refused
    equal((yield Take("full")).payload, "filler", "what was in the queue")
    for number in (1, 2):
        taken = yield Take("full")
        properties, headers = taken.properties, taken.headers
        number = taken.payload["n"]
        reply_to = "service.DoReturn" if number == 1 else ""
        equal((properties.reply_to or "", properties.correlation_id), (reply_to, f"k{number}"), "reply_to, correlation")
        equal(
            (headers["conversation_id"], headers.get("status")), (f"c{number}", (None, "error")[number - 1]), "headers"
        )
        equal((properties.delivery_mode, properties.app_id), (2, "service"), "other properties")
    yield Join(service)
    equal((yield Count("full")), 0, "messages sent once too often")


def _defer(*_arguments: Any) -> Steps:
    yield from ()
    return True


def messages_are_settled_by_hand() -> Script:
    """A handler returns true, and manual_ack and manual_nack settle its message."""
    service = Worker("service", events=["Happened"], handlers={"Happened": _defer})
    yield Start(service)
    for number in range(3):
        yield event("Happened", number)
    first, second, third = yield Seen(service, "Happened", 3)
    yield Do(service, "manual_nack", second[2]["delivery_tag"])
    equal((yield Take(DEAD_LETTERS)).payload, 1, "what was rejected")
    yield Do(service, "manual_nack", third[2]["delivery_tag"], requeue=True)
    again = (yield Seen(service, "Happened", 4))[3]
    equal(again[0], 2, "what was requeued")
    yield Do(service, "manual_ack", again[2]["delivery_tag"], multiple=True)  # and with it the first one
    yield from stop(service)
    equal((yield Count("service.events")), 0, "messages left in the queue")
    equal(first[0], 0, "the first message")


def a_tag_of_a_lost_link_does_no_harm() -> Script:
    """The message is redelivered with another tag. Settling it by the old tag is ignored."""
    service = Worker("service", events=["Happened"], handlers={"Happened": _defer})
    yield Start(service)
    yield event("Happened", 1)
    ((_, _, before),) = yield Seen(service, "Happened")
    yield Cut()
    _, (payload, _, after) = yield Seen(service, "Happened", 2)
    yield Do(service, "manual_ack", before["delivery_tag"])
    yield Do(service, "manual_nack", after["delivery_tag"])
    equal((yield Take(DEAD_LETTERS)).payload, payload, "what was rejected by its new tag")


def prefetch_bounds_what_is_handled_at_once() -> Script:
    """The other messages stay in the queue, for other workers."""

    def wait(*_arguments: Any) -> Steps:
        yield Hold("gate")

    service = Worker("service", events=["Happened"], handlers={"Happened": wait}, settings={"PREFETCH_COUNT": 2})
    yield Start(service)
    for number in range(5):
        yield event("Happened", number)
    yield Count("service.events", until=3)
    yield Seen(service, "Happened")
    yield Open(service, "gate")
    yield Seen(service, "Happened", 5)
    yield from stop(service)
    equal((yield Count("service.events")), 0, "messages left in the queue")


def handlers_of_one_conversation_may_run_one_after_the_other() -> Script:
    """With SERIALIZE_BY, in the order in which the messages came."""

    def wait(payload: Any, conversation: str, _meta: Any) -> Steps:
        if conversation in running:
            together.append((conversation, payload))
        running.append(conversation)
        yield Hold("gate")
        running.remove(conversation)
        ended.append((conversation, payload))

    together: list[Any] = []
    running: list[str] = []
    ended: list[Any] = []
    settings = {"SERIALIZE_BY": "conversation_id"}
    service = Worker("service", events=["Happened"], handlers={"Happened": wait}, settings=settings)
    yield Start(service)
    for number in range(3):
        yield event("Happened", number, "c1")
        yield event("Happened", number, "c2")
    yield Count("service.events", until=0)
    yield Seen(service, "Happened")
    yield Open(service, "gate")
    yield Seen(service, "Happened", 6)
    yield from stop(service)
    equal(together, [], "messages whose handler began while one of the same conversation ran")
    for each in ("c1", "c2"):
        equal([number for conversation, number in ended if conversation == each], [0, 1, 2], f"messages of {each}")
    equal((yield Count("service.events")), 0, "messages left in the queue")


def retries_may_be_delayed() -> Script:
    """RetryPolicy.backoff gives the number of attempts and the delays. Then the message is dead-lettered."""

    def third_time(payload: Any, conversation: str, _meta: Any) -> Steps:
        yield Call("publish_event", "Attempted", payload, conversation)
        if payload == "hopeless" or len(attempts) < 2:
            attempts.append(payload)
            raise RuntimeError("as asked")

    attempts: list[Any] = []
    policy = RetryPolicy.backoff(3, base=0.05, factor=2)
    service = Worker(
        "service", events=["Happened"], handlers={"Happened": third_time}, settings={"RETRY_POLICY": policy}
    )
    yield Declare("tap", "events", "Attempted")
    yield Start(service)
    yield event("Happened", "hopeful", "c1", message_id="m1")
    equal((yield Take("tap")).payload, "hopeful", "what succeeded")
    seen = yield Seen(service, "Happened", 3)
    equal([conversation for _, conversation, _ in seen], ["c1"] * 3, "its conversation, each time")
    yield event("Happened", "hopeless", "c2")
    taken = yield Take(DEAD_LETTERS)
    equal(taken.payload, "hopeless", "the dead letter")
    equal(len((yield Seen(service, "Happened", 6))), 6, "attempts in all")
    equal((yield Count("tap")), 0, "messages of failed attempts")


def failures_may_be_counted_for_all_workers() -> Script:
    """With RetryPolicy(counted=True) a message has exactly its attempts, whichever worker of a service fails."""

    def fail(payload: Any, _conversation: str, _meta: Any) -> Steps:
        attempts.append(payload)
        yield Say("begun")
        raise RuntimeError("as asked")

    attempts: list[Any] = []
    settings = {"RETRY_POLICY": RetryPolicy(5, counted=True)}
    workers = [Worker("service", events=["Happened"], handlers={"Happened": fail}, settings=settings) for _ in range(3)]
    for worker in workers:
        yield Start(worker)
    for number in range(6):
        yield event("Happened", number, message_id=f"m{number}")
    dead = set()
    for _ in range(6):
        dead.add((yield Take(DEAD_LETTERS)).payload)
    equal(dead, set(range(6)), "dead letters")
    equal({number: attempts.count(number) for number in range(6)}, dict.fromkeys(range(6), 5), "attempts at each")
    equal((yield Count("service.events")), 0, "messages left in the queue")


SETTLING: Final[tuple[Check, ...]] = tuple(
    check_of(script)
    for script in (
        failures_are_retried_once_then_dead_lettered,
        what_is_given_up_is_published_with_the_reason,
        what_nobody_keeps_is_rejected,
        a_retry_may_succeed,
        rejected_commands_are_answered_and_dead_lettered,
        failing_handlers_publish_nothing,
        sources_are_acknowledged_after_the_confirms,
        refused_publishes_are_sent_again_whole,
        messages_are_settled_by_hand,
        a_tag_of_a_lost_link_does_no_harm,
        prefetch_bounds_what_is_handled_at_once,
        handlers_of_one_conversation_may_run_one_after_the_other,
        retries_may_be_delayed,
        failures_may_be_counted_for_all_workers,
    )
)
