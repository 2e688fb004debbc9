"""Which calls of a service's own methods are seen to have no await, before the service runs."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from eda_core.services.coroutines import CoroutineBatch, CoroutineService
from eda_core.services.unawaited import unawaited
from tests.core.kit import URLS


class Base(CoroutineService):
    def __init__(self) -> None:
        super().__init__(URLS[0], [], [], "svc")
        self.batch = CoroutineBatch(self, 10, 1.0, print)
        self.peer: Any = None
        self.things: list[Any] = []

    def worker_identity(self) -> tuple[str, int]:
        return "box", 7


def shop(*members: Any) -> Any:
    """A service with these methods."""
    names: dict[str, Any] = {getattr(each, "__name__", "wrapped"): each for each in members}
    return type("Shop", (Base,), names)()


def found(*members: Any) -> list[str]:
    return list(unawaited(shop(*members)))


def line(function: Any, number: int) -> int:
    return int(function.__code__.co_firstlineno + number)


def test_a_plain_function_is_told_to_be_a_coroutine_function() -> None:
    def on_Paid(self: Any, payload: Any, conversation_id: str, meta: Any) -> None:
        self.publish_event("Told", payload, conversation_id)

    assert found(on_Paid) == [
        f"on_Paid() calls self.publish_event(…) in line {line(on_Paid, 1)} without await, so that it does nothing; "
        "write async def on_Paid(), and await self.publish_event(…)"
    ]


def test_a_coroutine_function_is_told_to_await() -> None:
    async def on_Paid(self: Any, payload: Any, conversation_id: str, meta: Any) -> None:
        await self.publish_event("Told", payload, conversation_id)
        if payload:
            self.send_command(
                "peer.Do", await self.call("peer.Ask", {}), conversation_id, reply_to="svc.DoReturn", correlation_id="k"
            )

    assert found(on_Paid) == [
        f"on_Paid() calls self.send_command(…) in line {line(on_Paid, 3)} without await, so that it does nothing; "
        "write await self.send_command(…)"
    ]


def _by_name(self: Any) -> None:
    self.publish_event(event="Told", message=1, conversation_id="c")


def _unpacked(self: Any) -> None:
    self.publish_event(*self.things, priority=3)


def _in_a_loop(self: Any) -> None:
    for each in self.things:
        self.return_success(*each)


def _in_a_try(self: Any) -> None:
    try:
        self.return_error("key", 1, "c", "k")
    finally:
        self.things.clear()


def _in_a_function(self: Any) -> Callable[[], None]:
    def inner() -> None:
        self.publish_configuration("Settings", {})

    return inner


def _in_a_batch(self: Any) -> None:
    self.batch.push({}, "c", {"delivery_tag": 1})


def _with_another_name_of_the_service(shop: Any) -> None:
    shop.publish_event("Told", 1, "c")


def _waits(self: Any) -> None:
    self.wait_until_ready()


@functools.cache
def _wrapped(self: Any) -> None:
    self.call("peer.Do", 1)


@pytest.mark.parametrize(
    "member",
    [
        *(_by_name, _unpacked, _in_a_loop, _in_a_try, _in_a_function, _in_a_batch, _with_another_name_of_the_service),
        *(_waits, _wrapped),
    ],
    ids=lambda member: member.__name__,
)
def test_a_call_that_stands_alone_is_found(member: Any) -> None:
    (text,) = found(member)
    assert " without await, so that it does nothing; write " in text


def _returned(self: Any) -> Any:
    return self.publish_event("Told", 1, "c")


async def _begun(self: Any) -> None:
    self.task = asyncio.create_task(self.publish_event("Told", 1, "c"))
    asyncio.ensure_future(self.publish_event("Told", 2, "c"))  # noqa: RUF006 - it is not run
    await asyncio.gather(*(self.publish_event("Told", number, "c") for number in range(3)))


def _kept(self: Any) -> None:
    self.things.append(self.publish_event("Told", 1, "c"))
    kept = self.publish_event("Told", 1, "c")
    self.things.append(kept)


def _closed(self: Any) -> None:
    self.publish_event("Told", 1, "c").close()


def _not_called(self: Any) -> None:
    self.publish_event  # noqa: B018
    self.call_later(1.0, self.publish_event)


def _in_a_lambda(self: Any) -> None:
    self.call_later(1.0, lambda: self.publish_event("Told", 1, "c"))


def _of_another_object(self: Any, peer: Any) -> None:
    peer.publish_event("Told", 1, "c")
    self.peer.publish_event("Told", 1, "c")
    self.peer.batch.push(1)
    self.things[0].publish_event("Told", 1, "c")
    self.peer().publish_event("Told", 1, "c")


def _done_when_it_returns(self: Any) -> None:
    self.log(6, "short")
    self.manual_ack(1)
    self.manual_nack(2)
    self.stop()
    self.batch.clear()


async def _of_a_module(self: Any) -> None:
    asyncio.get_running_loop()
    asyncio.wait_for(self.publish_event("Told", 1, "c"), 1.0)  # type: ignore[unused-coroutine]
    publish_event("Told")


def publish_event(*_: Any) -> None: ...


def _of_another_self(self: Any) -> Callable[[Any], None]:
    def inner(self: Any) -> None:
        self.publish_event("Told", 1, "c")

    return inner


class _Holder:
    @staticmethod
    def static(endpoint: Any) -> None:
        endpoint.publish_event("Told", 1, "c")


@pytest.mark.parametrize(
    "member",
    [
        *(_returned, _begun, _kept, _closed, _not_called, _in_a_lambda, _of_another_object, _done_when_it_returns),
        *(_of_a_module, _of_another_self, vars(_Holder)["static"]),
    ],
    ids=lambda member: member.__name__,
)
def test_whatever_may_be_right_is_left_alone(member: Any) -> None:
    """What is wrong of it is found when it is dropped."""
    assert found(member) == []


def test_a_method_that_the_user_has_replaced_may_be_a_plain_function() -> None:
    def publish_event(self: Any, *_: Any) -> None: ...

    assert found(_by_name, publish_event) == []


def test_a_method_of_one_object_may_be_a_plain_function() -> None:
    service = shop(_by_name)
    service.publish_event = print
    assert list(unawaited(service)) == []


def test_code_without_columns_tells_nothing() -> None:
    """Python was started with ``-X no_debug_ranges``."""
    bare = _by_name.__code__.replace(co_linetable=b"")
    assert found(FunctionType(bare, globals(), "bare")) == []


def test_what_is_no_code_of_python_is_left_alone() -> None:
    assert found(functools.partialmethod(_by_name), Base, print) == []
