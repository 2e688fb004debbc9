"""resurrect killed, interrupted or cut off, with a frozen broker or one without memory: nothing is lost."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.bus import confirming
from eda_tools.dead_letters import replay
from eda_tools.resurrect import TOOL
from tests.adapters.kombu.support import ProxyThread
from tests.support.services import DEAD_LETTER_QUEUE, BrokerUnderTest, environment, program
from tests.support.tools import Ran, interrupted, run_here
from tests.tools.bench import EVENTS_QUEUE, Operator, Seen, operator

MANY = 1_000


def test_killed_at_any_moment_it_loses_nothing(broker: BrokerUnderTest, bench: Operator) -> None:
    random_ = random.Random(5)
    bench.many(MANY)
    bench.kill()
    copies: list[str] = []
    allowed = 0  # duplicates
    arriving = bench.consume(EVENTS_QUEUE)
    for _ in range(6):
        batch = random_.choice((1, 1, 5, 40))
        allowed += batch
        command = (sys.executable, "-m", "eda_tools.resurrect", "--batch_size", str(batch), broker.url)
        with subprocess.Popen(
            [*command, DEAD_LETTER_QUEUE], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as tool:
            for _ in range(random_.randint(1, 150)):
                copies.append(next(arriving).properties["message_id"])
            tool.kill()
            tool.communicate()
            assert tool.returncode == -signal.SIGKILL
    with operator(broker.url) as other:
        left: list[str] = []
        for seen in other.consume(DEAD_LETTER_QUEUE):  # the broker may need a moment to notice the last kill
            left.append(seen.properties["message_id"])
            copies += _arrived(bench)
            if len({*copies, *left}) == MANY:
                break
        other.channel.cancel()
    bench.channel.cancel()
    copies += [seen.properties["message_id"] for seen in bench.drain(EVENTS_QUEUE)]
    left += [seen.properties["message_id"] for seen in bench.drain()]
    assert {*copies, *left} == {f"id {number}" for number in range(MANY)}
    assert len(set(left)) == len(left)
    assert copies
    assert left
    assert MANY <= len(copies) + len(left) <= MANY + allowed


def _arrived(bench: Operator) -> list[str]:
    """The message ids that the consumer has received meanwhile."""
    waiting = bench.channel.get_waiting_message_count()
    found = []
    for _ in range(waiting):
        _, properties, _ = next(bench.channel.consume(EVENTS_QUEUE, auto_ack=True))
        assert properties is not None
        found.append(str(properties.message_id))
    return found


def test_an_interrupted_run_ends_cleanly(broker: BrokerUnderTest, bench: Operator) -> None:
    bench.many(MANY)
    bench.kill()

    async def scenario() -> Ran:
        async with program(
            "-m", "eda_tools.resurrect", "--json", "--rate", "200", broker.url, DEAD_LETTER_QUEUE
        ) as tool:
            await asyncio.to_thread(lambda: next(bench.consume(EVENTS_QUEUE)))
            return await interrupted(tool)

    result = asyncio.run(scenario())
    assert (result.status, result.err) == (130, "")
    total = result.objects[-1]["total"]
    bench.channel.cancel()
    assert total["failed"] == 0
    assert 0 < total["replayed"] < MANY
    assert bench.waiting() == MANY - total["replayed"], "what was confirmed is acknowledged, and nothing else"


def test_a_lost_connection_loses_nothing(broker: BrokerUnderTest, bench: Operator) -> None:
    bench.many(MANY)
    bench.kill()

    async def scenario() -> Ran:
        # So slowly that a busy machine, where rabbitmqctl takes seconds, has cut the connection long before the end.
        async with program("-m", "eda_tools.resurrect", "--rate", "30", broker.url, DEAD_LETTER_QUEUE) as tool:
            arriving = bench.consume(EVENTS_QUEUE)
            for _ in range(3):  # when the third has arrived, the first two are confirmed
                await asyncio.to_thread(next, arriving)
            await broker.cut()
            status = await tool.end()
            return Ran(status, "".join(f"{line}\n" for line in tool.lines.all), tool.errors)

    result = asyncio.run(scenario())
    assert result.status == 3
    assert "Traceback" not in result.err
    assert "were sent again before" in result.err.splitlines()[-1]
    replayed = int(result.out.splitlines()[-1].split()[1])
    with operator(broker.url) as again:
        left = []
        for seen in again.consume(DEAD_LETTER_QUEUE):
            left.append(json.loads(seen.body)["number"])
            if left[-1] == MANY - 1:
                break
    # An acknowledgement may have been lost with the connection; then a copy and the dead letter are there.
    assert MANY - replayed <= len(left) + 1 <= MANY + 1
    assert left == list(range(MANY - len(left), MANY))


# --- a broker in trouble, behind a proxy ---


@contextmanager
def troubled(count: int) -> Iterator[tuple[EmbeddedBrokerThread, Operator, ProxyThread]]:
    """A broker with ``count`` dead letters, its operator, and the proxy through which the tool connects."""
    with EmbeddedBrokerThread() as broker, operator(broker.url) as bench:
        bench.operate()
        bench.many(count)
        bench.kill()
        with ProxyThread(broker.url) as proxy:
            yield broker, bench, proxy


async def frozen_in_the_middle(bench: Operator, proxy: ProxyThread) -> tuple[Ran, list[str]]:
    """Freeze the broker after some copies, and press Ctrl-C. Also returns the ids of the copies."""
    arriving = bench.consume(EVENTS_QUEUE)
    async with program("-m", "eda_tools.resurrect", "--rate", "100", proxy.url, DEAD_LETTER_QUEUE) as tool:
        copies = [await asyncio.to_thread(next, arriving) for _ in range(3)]
        proxy.call(proxy.proxy.freeze)
        return await interrupted(tool), ids(copies)


def ids(found: Sequence[Seen]) -> list[str]:
    return [str(seen.properties["message_id"]) for seen in found]


def everything(bench: Operator, count: int, copies: list[str], doubled: int) -> None:
    """Check that all messages exist, and at most ``doubled`` of them twice."""
    bench.channel.cancel()
    copies = copies + ids(bench.drain(EVENTS_QUEUE))
    left = ids(bench.drain())
    assert {*copies, *left} == {f"id {number}" for number in range(count)}
    assert left == sorted(left, key=lambda each: int(each.split()[1])), "they are not in their places"
    assert count <= len(copies) + len(left) <= count + doubled


def test_a_broker_that_freezes_does_not_hold_it() -> None:
    with troubled(300) as (_, bench, proxy):
        result, copies = asyncio.run(frozen_in_the_middle(bench, proxy))
        assert result.status == 130
        assert "Traceback" not in result.err
        replayed = int(result.out.splitlines()[-1].split()[1])
        assert replayed >= 2
        proxy.call(proxy.proxy.cut)  # only now does the broker notice that the tool has ended
        bench.await_waiting(300 - replayed, doubled=1)
        everything(bench, 300, copies, doubled=1)


def test_a_memory_alarm_is_told_of_and_nothing_is_taken_for_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_SLOW_CONFIRM", 0.1)
    monkeypatch.setattr(confirming, "CONFIRM_TIMEOUT", 0.5)
    with troubled(20) as (broker, bench, proxy):
        broker.operate(lambda model, now: model.set_alarm(True, now=now))
        result = run_here(TOOL, capsys, "--batch_size", "5", proxy.url, DEAD_LETTER_QUEUE)
        waiting, end = result.err.splitlines()
        assert waiting.startswith(
            "resurrect: the broker does not confirm: is it short of memory or disk? waiting up to "
        )
        assert end == (
            "resurrect: 5 may have been sent, but the broker has not confirmed it within 0.5 s; it may be short of "
            "memory or disk"
        )
        assert result.status == 1
        broker.operate(lambda model, now: model.set_alarm(False, now=now))
        everything(bench, 20, [], doubled=5)
        assert result.out.splitlines()[-1].split() == ["all", "0", "0", "0"]
