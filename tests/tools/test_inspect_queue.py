"""inspect_queue: what it shows, and that it does not change the queue."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

import pika
import pytest
from pamqp.commands import Queue

from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.bus import queues
from eda_tools.bus.connect import session
from eda_tools.bus.queues import QueueKind, queue_kind
from eda_tools.cli.output import Output
from eda_tools.inspect_queue import TOOL
from tests.support.services import DEAD_LETTER_QUEUE, TEST_TIMEOUT, BrokerUnderTest, environment, within
from tests.support.tools import on_terminal, run_here
from tests.tools.bench import EVENTS_QUEUE, Operator, operator, ran

MANY = 1_000


async def begun(url: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start a tool that cannot end before its output is read, because a pipe cannot hold all of it."""
    command = ("-m", "eda_tools.inspect_queue", *arguments, url, EVENTS_QUEUE)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=pipe, stderr=pipe, env=environment(), limit=2**16
    )


def numbers(bench: Operator) -> list[int]:
    return [json.loads(seen.body)["number"] for seen in bench.drain(EVENTS_QUEUE)]


def test_a_queue_of_a_thousand_is_left_as_it_was(broker: BrokerUnderTest, bench: Operator) -> None:
    bench.many(MANY)
    published = bench.drain(EVENTS_QUEUE)
    bench.many(MANY)

    async def scenario() -> tuple[bytes, bytes, int | None]:
        tool = await begun(broker.url, "--json")
        assert tool.stdout is not None
        first = await within(tool.stdout.readline(), "the first message")
        bench.event("Later")  # meanwhile: it belongs behind the others
        out, err = await within(tool.communicate(), "the end", TEST_TIMEOUT)  # a thousand, on a busy machine
        return first + out, err, tool.returncode

    out, err, status = asyncio.run(scenario())
    assert status == 0
    shown = [json.loads(line) for line in out.splitlines()]
    assert [each["payload"]["number"] for each in shown] == list(range(MANY))
    assert [each["position"] for each in shown] == list(range(1, MANY + 1))
    lines = err.decode().splitlines()
    assert lines == [
        "inspect_queue.py: each message read will be marked as redelivered, which only services of eventail take for a "
        "failure",
        f"inspect_queue.py: {MANY} shown of {MANY} in 'a.events'; all {MANY} that were read are back",
    ]
    left = bench.drain(EVENTS_QUEUE)
    assert left[:MANY] == published
    assert [seen.routing_key for seen in left[MANY:]] == ["Later"]
    assert bench.waiting() == 0, "something was dead-lettered"


def test_a_large_queue_is_whole_when_it_says_so(broker: BrokerUnderTest, bench: Operator) -> None:
    """RabbitMQ puts back one by one, and ever more slowly, what was taken by basic.get."""
    bench.many(5 * MANY)
    inspected = ran("inspect_queue", broker.url, EVENTS_QUEUE, "--headers-only", "--group-by", "key")
    assert bench.waiting(EVENTS_QUEUE) == 5 * MANY
    assert f"all {5 * MANY} that were read are back" in inspected.err
    assert numbers(bench) == list(range(5 * MANY))


def test_a_queue_to_which_messages_come_back_is_counted_when_it_does_not_grow_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another tool may just have ended."""

    class Growing:
        counts: ClassVar[list[int]] = [10, 20, 30, 30, 40]

        async def queue(self, name: str) -> Queue.DeclareOk:
            return Queue.DeclareOk(name, self.counts.pop(0), 0)

    async def classic(*_: object) -> QueueKind:
        return QueueKind(queues.CLASSIC)

    session: Any = Growing()
    output: Any = None
    monkeypatch.setattr(queues, "queue_kind", classic)
    kind, found = asyncio.run(queues.safe_to_read(session, "letters", output, force=False))
    assert (kind, found.message_count, session.counts) == (queues.CLASSIC, 30, [40])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_it_can_be_ended_at_any_moment(
    broker: BrokerUnderTest, bench: Operator, number: signal.Signals, status: int
) -> None:
    bench.many(MANY)

    async def scenario() -> int | None:
        tool = await begun(broker.url, "--json")
        assert tool.stdout is not None
        for _ in range(100):
            await within(tool.stdout.readline(), "messages")
        tool.send_signal(number)
        await within(tool.communicate(), "the end")
        return tool.returncode

    assert asyncio.run(scenario()) == status
    bench.await_waiting(MANY, queue=EVENTS_QUEUE)
    assert numbers(bench) == list(range(MANY))


def test_head_is_not_an_error(broker: BrokerUnderTest, bench: Operator) -> None:
    bench.many(MANY)

    async def scenario() -> tuple[bytes, int | None]:
        tool = await begun(broker.url)
        assert tool.stdout is not None
        assert tool.stderr is not None
        await within(tool.stdout.readline(), "the first line")
        tool._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        err = await within(tool.stderr.read(), "stderr")
        return err, await within(tool.wait(), "the end")

    err, status = asyncio.run(scenario())
    assert status == 0
    assert b"Traceback" not in err
    assert numbers(bench) == list(range(MANY))


def test_what_it_shows(
    broker: BrokerUnderTest, bench: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.publish(
        "events",
        "OrderPlaced",
        b'{"order": {"id": 7}}',
        headers={"conversation_id": "c7", "nature": b"\xff\x00"},
        message_id="m7",
        priority=4,
        timestamp=1_700_000_000,
    )
    bench.publish("events", "Broken", b"\xff", content_type="application/cbor", headers={"conversation_id": "c8"})
    bench.kill()

    text = ran("inspect_queue", broker.url, DEAD_LETTER_QUEUE)
    assert text.status == 0
    for expected in (
        "1. event OrderPlaced",
        "conversation: c7",
        "message_id: m7",
        "published: to events with the key OrderPlaced",
        "died: rejected in a.events at 20",
        "size: 20 bytes",
        '"id": 7',
        "2. invalid Broken",
    ):
        assert expected in text.out
    assert "x-death" not in text.out

    as_json = run_here(TOOL, capsys, "--json", "--headers-only", broker.url, DEAD_LETTER_QUEUE)
    first, second = as_json.objects
    assert (first["kind"], first["name"], first["exchange"], first["size"]) == ("event", "OrderPlaced", "events", 20)
    assert first["properties"]["message_id"] == "m7"
    assert first["headers"]["nature"] == "/wA="
    assert first["redelivered"], "the first reading marked it"
    assert {name: first["death"][name] for name in ("queue", "reason", "count")} == {
        "queue": "a.events",
        "reason": "rejected",
        "count": 1,
    }
    assert second["kind"] == "invalid"
    assert not {"payload", "body"} & (first.keys() | second.keys())

    saved = run_here(TOOL, capsys, "--save", str(tmp_path), "--json", broker.url, DEAD_LETTER_QUEUE)
    assert [each["saved"] for each in saved.objects] == [
        str(tmp_path / "OrderPlaced.c7.json"),
        str(tmp_path / "Broken.c8.cbor"),
    ]
    assert (tmp_path / "OrderPlaced.c7.json").read_bytes() == b'{"order": {"id": 7}}'
    assert (tmp_path / "Broken.c8.cbor").read_bytes() == b"\xff"
    assert ran("inspect_queue", "--save", broker.url, DEAD_LETTER_QUEUE, cwd=tmp_path).status == 0
    assert (tmp_path / "OrderPlaced.c7.2.json").exists()


def test_after_delayed_retries_it_says_how_often_it_was_tried(
    broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    retry = "a.events.retry.20"
    waiting = {"x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": EVENTS_QUEUE}
    bench.channel.queue_declare(retry, durable=True, arguments=waiting)
    headers = {"conversation_id": "c", "attempt": 3, "origin_exchange": "events", "origin_routing_key": "Placed"}
    bench.publish("", retry, headers=headers)
    bench.await_waiting(1, queue=EVENTS_QUEUE)
    text = ran("inspect_queue", broker.url, EVENTS_QUEUE).out
    assert "\n  tried: 3 times\n" in text
    assert "\n  waited: in a.events.retry.20 before its next attempt, until 20" in text
    bench.kill()
    text = ran("inspect_queue", broker.url, DEAD_LETTER_QUEUE).out
    lines = [line.strip().partition(": ")[0] for line in text.splitlines() if line.startswith("  ")]
    assert lines == ["conversation", "published", "tried", "waited", "died", "size"]
    assert "published: to events with the key Placed" in text
    assert "\n  tried: 4 times\n" in text
    assert "\n  waited: in a.events.retry.20 before its last attempt, until 20" in text
    assert "\n  died: rejected in a.events at 20" in text
    (found,) = run_here(TOOL, capsys, "--json", broker.url, DEAD_LETTER_QUEUE).objects
    assert (found["attempts"], found["headers"]["attempt"]) == (4, 3)


def test_headers_of_the_users_that_are_no_counts_are_shown(broker: BrokerUnderTest, bench: Operator) -> None:
    bench.event("Placed", attempt="first", origin_exchange="earth")
    text = ran("inspect_queue", broker.url, EVENTS_QUEUE).out
    assert "\n  attempt: first\n  origin_exchange: earth\n" in text
    assert "tried" not in text


def test_conditions_counts_and_groups(
    broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        bench.event("Even" if number % 2 == 0 else "Odd", b'{"number": %d}' % number)
    bench.kill()

    def found(*options: str) -> list[Any]:
        return run_here(TOOL, capsys, *options, "--json", broker.url, DEAD_LETTER_QUEUE).objects

    assert [each["payload"]["number"] for each in found("--count", "2")] == [0, 1]
    assert [each["payload"]["number"] for each in found("--where", 'name == "Odd"', "--count", "2")] == [1, 3]
    assert found("--where", "payload.number > 9") == []
    groups = found("--group-by", "key")
    assert [(group["key"], group["messages"], group["bytes"]) for group in groups] == [
        ("events/Even", 3, 39),
        ("events/Odd", 3, 39),
    ]
    assert [(group["reason"], group["messages"]) for group in found("--group-by", "reason")] == [
        ("rejected in a.events", 6)
    ]
    assert [group["messages"] for group in found("--group-by", "age")] == [6]
    table = run_here(TOOL, capsys, "--group-by", "key", broker.url, DEAD_LETTER_QUEUE).out.splitlines()
    assert table[0].split() == ["key", "messages", "bytes", "oldest", "newest"]
    assert table[1].split()[:3] == ["events/Even", "3", "39"]


def test_an_empty_queue(broker: BrokerUnderTest, bench: Operator) -> None:
    result = ran("inspect_queue", broker.url, DEAD_LETTER_QUEUE)
    assert (result.status, result.out) == (0, "")
    assert result.line == "inspect_queue.py: no message waits in 'dead-letters'"


def test_queues_that_cannot_be_read_are_one_line(broker: BrokerUnderTest, bench: Operator) -> None:
    missing = ran("inspect_queue", broker.url, "nowhere")
    assert (missing.status, missing.out) == (1, "")
    assert missing.line == "inspect_queue.py: there is no queue 'nowhere'"

    bench.channel.queue_delete(DEAD_LETTER_QUEUE)
    letters = ran("inspect_queue", broker.url, DEAD_LETTER_QUEUE)
    assert (letters.status, letters.out) == (1, "")
    assert letters.line == (
        "inspect_queue.py: there is no queue 'dead-letters'; if no other queue gets the dead letters, the broker drops "
        'them: set one up as in docs/operating/rabbitmq.rst, "2. The bus"'
    )

    bench.channel.queue_declare("mine", exclusive=True)
    exclusive = ran("inspect_queue", broker.url, "mine")
    assert (exclusive.status, exclusive.out) == (1, "")
    assert "RESOURCE_LOCKED" in exclusive.line

    assert "guest:guest" not in missing.err + exclusive.err


def test_what_a_consumer_has_is_not_shown(broker: BrokerUnderTest, bench: Operator) -> None:
    bench.event("Taken")
    bench.event("Waiting")
    bench.channel.basic_qos(prefetch_count=1)
    taken = []
    bench.channel.basic_consume(EVENTS_QUEUE, lambda *message: taken.append(message[1]), exclusive=True)
    while not taken:
        bench.connection.process_data_events(1)
    result = ran("inspect_queue", "--json", broker.url, EVENTS_QUEUE)
    assert (result.status, [each["name"] for each in result.objects]) == (0, ["Waiting"])
    assert result.err.splitlines()[0].endswith("; 1 consumer takes messages from it meanwhile")


def test_no_connection_is_status_4(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    refused = ran("inspect_queue", broker.url_with_password("wrong"), "x")
    assert (refused.status, refused.out) == (4, "")
    assert "refuses the user 'guest' or its password" in refused.line
    assert "wrong" not in refused.err
    assert run_here(TOOL, capsys, "amqp://127.0.0.1:1/", "x").status == 4
    assert run_here(TOOL, capsys, "http://127.0.0.1/", "x").status == 2


def test_quorum_queues_are_refused(
    broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": "am-dlx"}
    bench.channel.queue_declare("q", durable=True, arguments=arguments)
    bench.publish("", "q", b'{"number": 1}', headers={"conversation_id": "c"})
    refused = ran("inspect_queue", broker.url, "q")
    assert (refused.status, refused.out) == (2, "")
    assert "is a quorum queue" in refused.line
    assert "its delivery limit is 2" in refused.line
    for _ in range(3):  # so often that the broker would drop it
        assert run_here(TOOL, capsys, broker.url, "q").status == 2
    method, properties, _ = bench.channel.basic_get("q")
    assert (method.redelivered, (properties.headers or {}).get("x-delivery-count", 0)) == (False, 0)
    bench.channel.basic_nack(method.delivery_tag)
    forced = ran("inspect_queue", "--force", "--json", broker.url, "q")
    assert forced.status == 0
    of_43 = broker.node is None or broker.node.version >= (4, 3)
    assert forced.objects[0]["headers"]["x-acquired-count" if of_43 else "x-delivery-count"] == 1
    assert bench.waiting("q") == 1


QUEUES: dict[str, tuple[dict[str, Any], QueueKind]] = {
    "plain": ({"durable": True}, QueueKind("classic")),
    "transient": ({}, QueueKind("classic")),
    "passing": ({"durable": True, "auto_delete": True}, QueueKind("classic")),
    "told": ({"durable": True, "arguments": {"x-queue-type": "classic"}}, QueueKind("classic")),
    "limited": (
        {
            "durable": True,
            "arguments": {
                "x-message-ttl": 60_000,
                "x-max-length": 70_000,
                "x-dead-letter-exchange": "am-dlx",
                "x-dead-letter-routing-key": "it's a 'key'",
                "x-overflow": "reject-publish",
                "x-single-active-consumer": False,
            },
        },
        QueueKind("classic"),
    ),
    "quorum": ({"durable": True, "arguments": {"x-queue-type": "quorum"}}, QueueKind("quorum")),
    "counting": (
        {
            "durable": True,
            "arguments": {
                "x-queue-type": "quorum",
                "x-delivery-limit": 12,
                "x-max-length": 9,
                "x-dead-letter-exchange": "am-dlx",
            },
        },
        QueueKind("quorum", "", 12),
    ),
}


def test_the_kind_of_a_queue_is_found_out(broker: BrokerUnderTest, bench: Operator) -> None:
    for name, (declaration, _) in QUEUES.items():
        bench.channel.queue_declare(name, **declaration)
    if broker.node is not None:
        bench.channel.queue_declare("stream", durable=True, arguments={"x-queue-type": "stream"})

    async def kinds(*names: str) -> list[QueueKind]:
        async with session((broker.url,), "test", Output("test")) as opened:
            return [await queue_kind(opened, name) for name in names]

    assert asyncio.run(kinds(*QUEUES)) == [kind for _, kind in QUEUES.values()]
    if broker.node is not None:
        assert asyncio.run(kinds("stream")) == [QueueKind("stream")]
        assert ran("inspect_queue", "--force", broker.url, "stream").status == 2
    # A queue that did not exist must not exist now.
    assert asyncio.run(kinds("nowhere"))[0].kind is None
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="no queue"):
        bench.channel.queue_declare("nowhere", passive=True)


def test_a_user_who_may_not_declare_is_told(rabbitmq: Any, rabbit_vhost: str, rabbit_url: str) -> None:
    rabbitmq.ctl("add_user", f"reader-{rabbit_vhost}", "secret")
    rabbitmq.ctl("set_permissions", "-p", rabbit_vhost, f"reader-{rabbit_vhost}", "", "", ".*")
    with operator(rabbit_url) as bench:
        bench.operate()
        bench.event("Waiting")
        url = rabbit_url.replace("guest:guest@", f"reader-{rabbit_vhost}:secret@")
        refused = ran("inspect_queue", url, EVENTS_QUEUE)
        assert (refused.status, refused.out) == (2, "")
        assert "may be a quorum queue" in refused.line
        assert "ACCESS_REFUSED" in refused.line
        assert len(ran("inspect_queue", "--force", "--json", url, EVENTS_QUEUE).objects) == 1


def test_on_a_terminal() -> None:
    with EmbeddedBrokerThread() as embedded, operator(embedded.url) as bench:
        bench.operate()
        bench.event("Placed", b'{"text": "\\u001b[31mred"}')
        bench.kill()
        command = (sys.executable, "-m", "eda_tools.inspect_queue", embedded.url, DEAD_LETTER_QUEUE)
        status, sent = on_terminal(*command)
        assert status == 0
        assert "\x1b[1;32mevent " in sent
        assert "\x1b[31mred" not in sent, "a message must not steer the terminal"
        status, sent = on_terminal(*command, env={"NO_COLOR": "1"})
        assert status == 0
        assert "\x1b[1;32m" not in sent
        assert "event Placed" in sent
