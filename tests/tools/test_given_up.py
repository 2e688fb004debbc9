"""Dead letters that services have published themselves are found by their error, and go back where they came from."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from eda_core.machine.policy import RetryPolicy
from eda_tools.inspect_queue import TOOL as INSPECT
from eda_tools.resurrect import TOOL as RESURRECT
from tests.support.services import (
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    BrokerUnderTest,
    Probe,
    asynchronous,
    running,
    within,
)
from tests.support.tools import Ran, run_here
from tests.tools.bench import Operator


class Picky(Probe):
    """Fails with what it does not understand."""

    RETRY_POLICY: ClassVar[RetryPolicy] = RetryPolicy(1)

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, ["Ordered"], [f"{name}.Count"], name)
        self.done: asyncio.Queue[Any] = asyncio.Queue()

    async def on_Ordered(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.done.put_nowait(100 / payload["amount"])

    async def on_Count(self, payload: Any, *_arguments: Any) -> int:
        return len(payload)


class Telling(Picky):
    DEAD_LETTER_EXCHANGE: ClassVar[str] = DEAD_LETTER_EXCHANGE


async def here(tool: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    return await within(asyncio.to_thread(run_here, tool, capsys, *arguments), f"the end of {tool.name}")


@asynchronous
async def test_both_kinds_are_found_mended_and_sent_back(
    broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    url, queue = broker.url, DEAD_LETTER_QUEUE
    telling, silent = Telling(url, "telling"), Picky(url, "silent")
    if broker.node is not None:
        await asyncio.to_thread(broker.node.set_dlx_policy, broker.vhost)

    def order(body: bytes) -> None:
        bench.publish("events", "Ordered", body, content_type="application/json", headers={"conversation_id": "c"})

    async def found(*options: str) -> list[Any]:
        return (await here(INSPECT, capsys, *options, "--json", url, queue)).objects

    async with running(telling, silent):
        for body in (b"{}", b'{"amount": 0}', b"{}", b"\xff"):
            order(body)
        bench.publish(
            "commands", "telling.Count", b"5", reply_to="nobody.CountReturn", headers={"conversation_id": "c"}
        )
        await asyncio.to_thread(bench.await_waiting, 9)
        assert {row["error"]: row["messages"] for row in await found("--group-by", "error")} == {
            "not told by a service": 4,
            "KeyError in telling": 2,
            "ZeroDivisionError in telling": 1,
            "InvalidEnvelope in telling": 1,
            "TypeError in telling": 1,
        }
        assert {row["reason"]: row["messages"] for row in await found("--group-by", "reason")} == {
            "rejected in silent.events": 4,
            "given up in telling.events": 4,
            "given up in telling.commands": 1,
        }
        [zero] = await found("--where", 'headers.error_type == "ZeroDivisionError"')
        assert (zero["exchange"], zero["name"], zero["attempts"]) == ("events", "Ordered", 1)
        assert (zero["death"]["queue"], zero["death"]["reason"]) == ("telling.events", "given up")
        assert "100 / payload" in zero["headers"]["error_traceback"]

        chosen = ("--where", 'headers.error_type == "KeyError"', "--set", "payload.amount=4")
        ran = await here(RESURRECT, capsys, *chosen, "--to", "queue", "--json", url, queue)
        total = ran.objects[-1]["total"]
        assert (total["replayed"], total["skipped"], total["failed"]) == (2, 7, 0)
        assert [await within(telling.done.get(), "it is handled") for _ in range(2)] == [25, 25]
        assert silent.done.empty(), "nobody else gets it again"

        rest = ("--where", "payload.amount == 0", "--set", "payload.amount=5")
        ran = await here(RESURRECT, capsys, *rest, "--json", url, queue)
        assert ran.objects[-1]["total"]["replayed"] == 2
        handled = [await within(each.done.get(), "it is handled") for each in (telling, telling, silent, silent)]
        assert handled == [20, 20, 20, 20]  # back in the exchange, each comes to both


@asynchronous
async def test_a_dead_letter_is_shown_with_its_error(
    broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(Telling(broker.url, "telling")):
        bench.publish("events", "Ordered", b"{}", content_type="application/json", headers={"conversation_id": "c"})
        await asyncio.to_thread(bench.await_waiting, 1)
    shown = (await here(INSPECT, capsys, broker.url, DEAD_LETTER_QUEUE)).out
    assert "  tried: once\n" in shown
    assert "  error: KeyError: 'amount' (in telling)\n    Traceback (most recent call last):\n" in shown
    assert "error_type" not in shown
