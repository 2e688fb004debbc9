"""resurrect: what it sends is what died, what it does not send stays in its place, and nothing is lost."""

from __future__ import annotations

import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eda_core.messages import properties
from eda_pika.connection import Properties
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.bus import queues
from eda_tools.bus.confirming import Copy, Publisher
from eda_tools.inspect_queue import TOOL as INSPECT
from eda_tools.messages.recording import read_recording
from eda_tools.resurrect import TOOL
from tests.support.services import DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, BrokerUnderTest
from tests.support.tools import Ran, on_terminal, run_here
from tests.tools.bench import COMMANDS_QUEUE, EVENTS_QUEUE, Operator, keys, operator, ran

MANY = 1_000


class Here:
    """Runs the tool in this process, on the dead letters of a broker."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capsys = capsys

    def __call__(self, *options: str, queue: str = DEAD_LETTER_QUEUE) -> Ran:
        return run_here(TOOL, self._capsys, *options, "--json", self.url, queue)

    def totals(self, *options: str) -> tuple[int, int, int]:
        """How many were replayed, skipped, failed."""
        total = self(*options).objects[-1]["total"]
        return total["replayed"], total["skipped"], total["failed"]


@pytest.fixture
def resurrect(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(broker.url, capsys)


# --- what is sent ---


def test_what_is_sent_is_what_died(broker: BrokerUnderTest, bench: Operator) -> None:
    """Messages of eventail, of this toolkit, and of a publisher that uses everything that AMQP has."""
    bench.event("Bare")
    everything = {
        "content_type": "application/cbor",
        "content_encoding": "identity",
        "delivery_mode": 1,
        "priority": 9,
        "correlation_id": "k",
        "expiration": "86400000",
        "message_id": "m",
        "timestamp": 1_700_000_000,
        "type": "t",
        "user_id": "guest",
        "app_id": "a",
    }
    headers = {
        "conversation_id": "c",
        "status": "success",
        "nested": {"list": [1, -1, 2**40, True, None, "é"], "bytes": b"\xff"},
        "at": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "x-own": "kept",
        "CC": ["Copied"],
    }
    bench.publish("events", "Rich", b"\xa1\x61k\x00", headers=headers, **everything)
    bench.publish("commands", "a.Do", reply_to="b.DoReturn", correlation_id="1", headers={"conversation_id": "c"})
    commands, events = bench.drain(COMMANDS_QUEUE), bench.drain(EVENTS_QUEUE)

    bench.event("Bare")
    bench.publish("events", "Rich", b"\xa1\x61k\x00", headers=headers, **everything)
    bench.publish("commands", "a.Do", reply_to="b.DoReturn", correlation_id="1", headers={"conversation_id": "c"})
    bench.kill()
    bench.kill(COMMANDS_QUEUE)

    result = ran("resurrect", broker.url, DEAD_LETTER_QUEUE)
    assert (result.status, result.err) == (0, "")
    assert [line.split() for line in result.out.splitlines()] == [
        ["message", "replayed", "skipped", "failed"],
        ["Bare", "1", "0", "0"],
        ["Rich", "1", "0", "0"],
        ["a.Do", "1", "0", "0"],
        ["all", "3", "0", "0"],
    ]
    assert bench.waiting() == 0
    assert bench.drain(EVENTS_QUEUE) == events
    assert bench.drain(COMMANDS_QUEUE) == commands


def test_headers_that_client_libraries_spoil_are_kept(
    broker: BrokerUnderTest, bench: Operator, resurrect: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    """A double, text that is not UTF-8, and a long name; also in a copy that the broker returns."""
    odd: dict[str, Any] = {"conversation_id": "c", "score": 0.1, "n" * 200: [{"z": 1e300, "a": 1}], "no UTF-8": b"\xff"}
    bench.channel.queue_bind(EVENTS_QUEUE, "commands", "gone")
    for exchange, key in (("events", "Odd"), ("commands", "gone")):
        bench.channel.basic_publish(exchange, key, b"{}", Properties(properties.Properties(headers=odd)))
    bench.kill()
    bench.channel.queue_unbind(EVENTS_QUEUE, "commands", "gone")
    result = resurrect("--batch_size", "2")
    assert [each["outcome"] for each in result.objects[:-1]] == ["replayed", "failed"]
    (seen,) = run_here(INSPECT, capsys, "--json", broker.url, EVENTS_QUEUE).objects
    assert seen["headers"] == {**odd, "no UTF-8": "/w=="}
    assert bench.names() == ["gone"]


def test_after_delayed_retries_it_goes_to_where_it_was_published_first(bench: Operator, resurrect: Here) -> None:
    """After a retry of eda_core.machine.retry: attempts begin again, and it did not die in the queue of the delay."""
    retry = "a.events.retry.20"
    waiting = {"x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": EVENTS_QUEUE}
    bench.channel.queue_declare(retry, durable=True, arguments=waiting)
    headers = {"conversation_id": "c", "attempt": 1, "origin_exchange": "events", "origin_routing_key": "Placed"}
    for _ in range(2):
        bench.publish("", retry, headers=headers)
        method, _properties, _body = next(bench.channel.consume(EVENTS_QUEUE, inactivity_timeout=20))
        assert method is not None
        bench.channel.basic_reject(method.delivery_tag, requeue=False)
        bench.channel.cancel()
    bench.await_waiting(2)
    died = resurrect("--dry-run", "--reason", "rejected")
    assert died.objects[-1]["total"]["replayed"] == 2, "the delay is not why it died"
    assert resurrect.totals("--count", "1") == (1, 0, 0)
    assert resurrect.totals("--to", "queue") == (1, 0, 0)
    first, second = bench.drain(EVENTS_QUEUE)
    assert (first.exchange, first.routing_key, first.headers) == ("events", "Placed", {"conversation_id": "c"})
    assert (second.exchange, second.routing_key) == ("", EVENTS_QUEUE)
    assert second.headers == {key: value for key, value in headers.items() if key != "attempt"}


def test_to_the_queue_only(bench: Operator, resurrect: Here) -> None:
    bench.channel.queue_declare("b.events", durable=True)
    bench.channel.queue_bind("b.events", "events", "#")
    bench.event("Placed", CC=["Other"])
    bench.kill()
    bench.drain("b.events")
    assert resurrect.totals("--to", "queue") == (1, 0, 0)
    (seen,) = bench.drain(EVENTS_QUEUE)
    assert bench.waiting("b.events") == 0, "the other subscriber must not see it again"
    assert seen.headers == {
        "conversation_id": "conversation of Placed",
        "origin_exchange": "events",
        "origin_routing_key": "Placed",
    }


def test_its_expiration_is_given_back(bench: Operator, resurrect: Here) -> None:
    bench.publish("events", "Short", headers={"conversation_id": "c"}, expiration="90000")
    bench.publish("events", "Short", headers={"conversation_id": "c"}, expiration="90000")
    bench.kill()
    resurrect("--count", "1")
    resurrect("--no-expiration")
    assert [seen.properties.get("expiration") for seen in bench.drain(EVENTS_QUEUE)] == ["90000", None]


def test_a_foreign_user_id_is_left_out_and_told(rabbitmq: Any, rabbit_vhost: str, rabbit_url: str) -> None:
    name = f"peer-{rabbit_vhost}"
    rabbitmq.ctl("add_user", name, "secret")
    rabbitmq.ctl("set_permissions", "-p", rabbit_vhost, name, ".*", ".*", ".*")
    with operator(rabbit_url) as bench:
        bench.operate()
        with operator(rabbit_url.replace("guest:guest@", f"{name}:secret@")) as peer:
            peer.publish("events", "Theirs", headers={"conversation_id": "c"}, user_id=name)
        bench.kill()
        result = ran("resurrect", rabbit_url, DEAD_LETTER_QUEUE)
        assert result.status == 0
        assert "1 sent without user_id" in result.line
        assert [seen.properties.get("user_id") for seen in bench.drain(EVENTS_QUEUE)] == [None]


def test_payloads_can_be_changed(bench: Operator, resurrect: Here) -> None:
    bench.event("Wrong", b'{"order": {"id": "x", "lines": [{"n": 1}]}}')
    bench.event("Broken", b"{")
    bench.kill()
    changes = (
        "--set",
        "payload.order.id=7",
        "--set",
        'payload.order.lines[0]["a=b"]=text',
        "--set",
        "payload.new.x=[]",
    )
    result = resurrect(*changes)
    assert result.status == 3
    assert "reason" not in result.objects[0]
    assert "its payload cannot be changed" in result.objects[1]["reason"]
    (seen,) = bench.drain(EVENTS_QUEUE)
    assert json.loads(seen.body) == {"order": {"id": 7, "lines": [{"n": 1, "a=b": "text"}]}, "new": {"x": []}}
    assert bench.names() == ["Broken"]


# --- what is not sent ---


def test_what_is_not_wanted_stays_in_order_and_never_blocks(bench: Operator, resurrect: Here) -> None:
    """The tool goes on after a batch in which nothing matches. eventail's tool hangs there."""
    names = [f"Other{number}" for number in range(30)]
    for name in names:
        bench.event(name)
    bench.event("Wanted")
    bench.event("Last")
    bench.kill()
    assert resurrect.totals("--filter", "Wanted", "Missing", "--batch_size", "4") == (1, 31, 0)
    assert bench.names(EVENTS_QUEUE) == ["Wanted"]
    assert bench.names() == [*names, "Last"]


def test_filters(bench: Operator, resurrect: Here, tmp_path: Path) -> None:
    for number in range(4):
        bench.event(f"Number{number}", b'{"number": %d}' % number)
    bench.kill()
    bench.publish("", DEAD_LETTER_QUEUE, headers={"conversation_id": "c"})
    old = {"x-death": [{"queue": "a.events", "reason": "expired", "exchange": "events", "routing-keys": ["Old"]}]}
    old["x-death"][0]["time"] = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)  # type: ignore[assignment]
    bench.publish("", DEAD_LETTER_QUEUE, headers={"conversation_id": "c", **old})
    death = {"queue": "a.events", "reason": "maxlen", "exchange": "events", "routing-keys": ["Undated"]}
    bench.publish("", DEAD_LETTER_QUEUE, headers={"conversation_id": "c", "x-death": [death]})

    def dry(*options: str) -> list[str]:
        return [each["name"] for each in resurrect(*options, "--dry-run").objects[:-1] if each["outcome"] != "failed"]

    everything = ["Number0", "Number1", "Number2", "Number3", "Old"]
    assert dry() == [*everything, "Undated"]
    assert dry("--filter", "#") == [*everything, "Undated"]
    assert dry("--filter", "Number1", "Old") == ["Number1", "Old"]
    assert dry("--where", "payload.number >= 2") == ["Number2", "Number3"]
    assert dry("--reason", "expired") == ["Old"]
    assert dry("--older-than", "1h") == ["Old"]
    assert dry("--older-than", "3h") == []
    assert dry("--older-than", "0s") == everything, "letters that do not say when they died are not old"
    assert dry("--count", "2") == ["Number0", "Number1"]
    assert bench.waiting() == 7
    assert bench.waiting(EVENTS_QUEUE) == 0
    result = resurrect("--filter", "--count", "1")
    assert (result.status, result.line) == (2, "resurrect: --filter comes without a name")
    assert resurrect.totals("--filter", "Number2", "--count", "5") == (1, 6, 0)
    assert keys(bench.drain(EVENTS_QUEUE)) == ["Number2"]


def test_a_rate_is_not_exceeded(bench: Operator, resurrect: Here) -> None:
    for _ in range(11):
        bench.event("Placed")
    bench.kill()
    begun = time.monotonic()
    assert resurrect.totals("--rate", "50", "--batch_size", "4") == (11, 0, 0)
    assert time.monotonic() - begun >= 10 / 50


def test_a_dry_run_shows_what_would_be_sent(broker: BrokerUnderTest, bench: Operator) -> None:
    bench.event("Placed")
    bench.kill()
    before = bench.channel.basic_get(DEAD_LETTER_QUEUE)
    bench.channel.basic_nack(before[0].delivery_tag)
    result = ran("resurrect", "--dry-run", broker.url, DEAD_LETTER_QUEUE)
    assert (result.status, result.err) == (0, "")
    first, *_, last = result.out.splitlines()
    assert first.startswith("to events: ")
    assert "Placed" in first
    assert last.split() == ["all", "1", "0", "0"]
    after = bench.channel.basic_get(DEAD_LETTER_QUEUE)
    assert after[1:] == before[1:]
    assert bench.waiting(EVENTS_QUEUE) == 0


def test_what_came_back_stays(bench: Operator, resurrect: Here) -> None:
    """Two copies of one event, with the same message id, in one batch: one is routable and one is not."""
    for queue in ("b.events", "c.events"):
        arguments = {"x-dead-letter-exchange": DEAD_LETTER_EXCHANGE}
        bench.channel.queue_declare(queue, durable=True, arguments=arguments)
        bench.channel.queue_bind(queue, "events", "#")
    bench.publish("events", "Placed", headers={"conversation_id": "c"}, message_id="the same")
    for queue in ("b.events", EVENTS_QUEUE, "c.events"):
        bench.kill(queue)
    bench.channel.queue_delete("b.events")
    result = resurrect("--to", "queue", "--batch_size", "10")
    assert result.status == 3
    outcomes = [(each["routing_key"], each["outcome"], each.get("reason")) for each in result.objects[:-1]]
    assert sorted(outcomes) == [
        ("a.events", "replayed", None),
        ("b.events", "failed", "no queue is bound for it"),
        ("c.events", "replayed", None),
    ]
    assert result.err.splitlines() == [
        "resurrect: 1 failed: no queue is bound for it",
        "resurrect: 1 of 3 could not be sent; they are still in the queue",
    ]
    assert [bench.waiting(queue) for queue in (EVENTS_QUEUE, "c.events", DEAD_LETTER_QUEUE)] == [1, 1, 1]
    (left,) = bench.drain()
    assert left.headers["x-death"][0]["queue"] == "b.events"


def test_what_cannot_be_sent_does_not_hinder_the_others(bench: Operator, resurrect: Here) -> None:
    """No origin, no such exchange, one that takes no publishes, a key that is too long: all in one batch."""

    def forged(exchange: str, key: str, **properties: Any) -> None:
        death = {"queue": "q", "reason": "rejected", "exchange": exchange, "routing-keys": [key], "count": 1}
        headers = {"conversation_id": "c", "x-death": [death], "x-first-death-exchange": exchange}
        bench.publish("", DEAD_LETTER_QUEUE, headers=headers, **properties)

    bench.channel.exchange_declare("inside", "topic", internal=True)
    bench.channel.exchange_declare("événement's", "topic")
    bench.channel.queue_bind(EVENTS_QUEUE, "événement's", "#")
    forged("events", "First")
    bench.publish("", DEAD_LETTER_QUEUE, headers={"conversation_id": "c"})
    forged("nowhere", "Lost")
    forged("inside", "Forbidden")
    forged("events", "Second")
    forged("events", "k" * 300)
    bench.channel.exchange_declare("e" * 200, "topic")
    bench.channel.queue_bind(EVENTS_QUEUE, "e" * 200, "#")
    forged("e" * 200, "Far")
    forged("événement's", "Étrange")
    forged("events", "Third")
    result = resurrect("--batch_size", "100")
    assert result.status == 3
    reasons = {each["position"]: each["reason"] for each in result.objects[:-1] if each["outcome"] == "failed"}
    assert reasons.keys() == {2, 3, 4, 6}
    assert reasons[2] == "it has not died: no header tells where it was published"
    assert reasons[3] == "there is no exchange 'nowhere'"
    assert "ACCESS_REFUSED" in reasons[4]
    assert "longer than 255 bytes" in reasons[6]
    sent = bench.names(EVENTS_QUEUE)
    assert set(sent) == {"First", "Second", "Far", "Étrange", "Third"}
    assert len(bench.drain()) == 4
    assert resurrect.totals() == (0, 0, 0)


# --- safety ---


def test_queues_may_have_any_name(bench: Operator, resurrect: Here) -> None:
    name = "l'été (☃) & Co"
    bench.channel.queue_declare(name, durable=True)
    bench.channel.queue_bind(name, DEAD_LETTER_EXCHANGE, "#")
    bench.event("Placed")
    bench.kill()
    assert resurrect(queue=name).objects[-1]["total"]["replayed"] == 1
    assert bench.names(EVENTS_QUEUE) == ["Placed"]


def test_what_it_sends_may_die_again_at_once(bench: Operator, resurrect: Here, broker: BrokerUnderTest) -> None:
    """The tool ends although the queue of dead letters is never empty."""
    bench.channel.queue_delete(EVENTS_QUEUE)
    bench.operate(**{"x-max-length": 0})
    bench.many(50)
    bench.await_waiting(50)
    total = resurrect("--batch_size", "3").objects[-1]["total"]
    assert total == {"replayed": 50, "skipped": 0, "failed": 0, "unread": 0}
    bench.await_waiting(50)
    left = bench.drain()
    assert [json.loads(seen.body)["number"] for seen in left] == list(range(50))
    assert all(seen.headers["x-death"][0]["count"] == 1 for seen in left), "x-death has been sent on"


def test_what_is_held_is_given_back_before_the_broker_closes_the_channel(
    bench: Operator, resurrect: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "HOLD", 0.0)
    for number in range(20):
        bench.event("Odd" if number % 2 else "Even", b'{"number": %d}' % number)
    bench.kill()
    assert resurrect.totals("--filter", "Odd") == (10, 10, 0)
    assert [json.loads(seen.body)["number"] for seen in bench.drain(EVENTS_QUEUE)] == list(range(1, 20, 2))
    assert [json.loads(seen.body)["number"] for seen in bench.drain()] == list(range(0, 20, 2))


def test_a_backup_is_a_recording(broker: BrokerUnderTest, bench: Operator, resurrect: Here, tmp_path: Path) -> None:
    bench.event("First", b'{"a": 1}')
    bench.event("Second", b'{"a": 2}')
    bench.kill()
    path = tmp_path / "letters.cbor"
    for _ in range(2):
        assert resurrect("--count", "1", "--backup", str(path)).status == 0
    first, second = read_recording(str(path))
    assert [each.origin() for each in (first, second)] == [("events", "First"), ("events", "Second")]
    assert [each.body for each in (first, second)] == [b'{"a": 1}', b'{"a": 2}']
    assert first.headers["x-death"][0]["queue"] == EVENTS_QUEUE

    bench.kill()
    path.write_bytes(path.read_bytes()[:-3])
    for wrong, told in ((path, "cut off in message 2"), (tmp_path, "Is a directory")):
        result = resurrect("--backup", str(wrong))
        assert result.status == 1
        assert told in result.line
    assert bench.waiting() == 2, "without a backup nothing is sent"


def test_each_letter_is_in_the_backup_before_it_is_sent(
    bench: Operator, resurrect: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a crash in between leaves a letter that was sent and is in no backup."""
    for name in ("First", "Second", "Third"):
        bench.event(name)
    bench.kill()
    path = tmp_path / "letters.cbor"
    sent: list[str] = []
    publish = Publisher.publish

    async def look(self: Publisher, copy: Copy) -> Any:
        assert copy.routing_key in [each.origin()[1] for each in read_recording(str(path))]
        sent.append(copy.routing_key)
        return await publish(self, copy)

    monkeypatch.setattr(Publisher, "publish", look)
    assert resurrect("--backup", str(path), "--batch_size", "2").status == 0
    assert sent == ["First", "Second", "Third"]


def test_a_letter_that_waits_for_its_retry_goes_back_to_the_queue_of_its_service(
    bench: Operator, resurrect: Here
) -> None:
    """Its only death so far is the end of the delay, in the queue for retries."""
    bench.channel.queue_declare("b.events", durable=True)
    death = {
        "queue": "b.events.retry.50",
        "reason": "expired",
        "exchange": "",
        "routing-keys": ["b.events.retry.50"],
        "time": datetime.datetime.now(datetime.UTC),
    }
    headers = {
        "conversation_id": "c",
        "origin_exchange": "events",
        "origin_routing_key": "Placed",
        "attempt": 1,
        "x-death": [death],
    }
    bench.publish("", DEAD_LETTER_QUEUE, headers=headers)
    assert resurrect("--to", "queue").objects[0]["routing_key"] == "b.events"
    (back,) = bench.drain("b.events")
    assert back.headers == {
        "conversation_id": "c",
        "origin_exchange": "events",
        "origin_routing_key": "Placed",
    }, "its attempts begin with 1 again"


def test_quorum_queues_are_refused(broker: BrokerUnderTest, bench: Operator) -> None:
    bench.channel.queue_declare("letters", durable=True, arguments={"x-queue-type": "quorum"})
    bench.publish("", "letters")
    refused = ran("resurrect", broker.url, "letters")
    assert (refused.status, refused.out) == (2, "")
    assert "is a quorum queue" in refused.line
    assert bench.waiting("letters") == 1


def test_a_missing_queue_an_empty_one_and_bad_arguments(
    broker: BrokerUnderTest, bench: Operator, resurrect: Here
) -> None:
    missing = ran("resurrect", broker.url, "nowhere")
    assert (missing.status, missing.out) == (1, "")
    assert missing.line == "resurrect.py: there is no queue 'nowhere'"
    assert resurrect.totals() == (0, 0, 0)
    for options in (
        ("--set", "payload.x"),
        ("--set", "headers.x=1"),
        ("--older-than", "soon"),
        ("--where", "=="),
        ("--rate", "0"),
    ):
        result = resurrect(*options)
        assert (result.status, result.out) == (2, "")
        assert options[0] in result.line


def test_on_a_terminal_there_is_a_progress_bar() -> None:
    with EmbeddedBrokerThread() as embedded, operator(embedded.url) as bench:
        bench.operate()
        bench.many(30)
        bench.kill()
        status, sent = on_terminal(
            sys.executable, "-m", "eda_tools.resurrect", "--rate", "60", embedded.url, DEAD_LETTER_QUEUE
        )
        assert status == 0
        assert "/30" in sent
        assert "━" in sent
