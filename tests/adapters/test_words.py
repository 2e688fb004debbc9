"""What the adapters tell a newcomer who has made a mistake, in the words that name it and say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

import eda_aio
import eda_pika
from eda_core.errors import StateError
from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import within

NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """What was written to the local log with this name."""
    return [each.getMessage() for each in caplog.records if getattr(each, "eda_event", "") == event]


class AioShop(eda_aio.Service):
    """A service whose handlers do what ``does`` says, and which ends with its first dead letter."""

    does: ClassVar[Any]

    async def on_Paid(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await type(self).does(self)

    async def publish_paid(self) -> None:
        await self.publish_event("Paid", 1, "c")

    on_ready = publish_paid


class PikaShop(eda_pika.Service):
    """The same for plain functions."""

    does: ClassVar[Any]

    def on_Paid(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        type(self).does(self)

    def publish_paid(self) -> None:
        self.publish_event("Paid", 1, "c")

    on_ready = publish_paid


async def _aio_stumbles(shop: Any) -> None:
    await shop.stop()
    raise KeyError("amount")


def _pika_stumbles(shop: Any) -> None:
    shop.stop()
    raise KeyError("amount")


@pytest.mark.parametrize(
    ("kind", "does", "run"),
    [
        pytest.param(AioShop, _aio_stumbles, lambda shop: asyncio.run(shop.run()), id="eda_aio"),
        pytest.param(PikaShop, _pika_stumbles, lambda shop: shop.run(), id="eda_pika"),
    ],
)
def test_the_traceback_of_a_failure_begins_with_the_code_of_the_user(
    kind: Any, does: Any, run: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedBrokerThread() as broker:
        shop = type("Shop", (kind,), {"does": does})(broker.url, ["Paid"], [], "shop")
        run(shop)
    line, title, first, *rest = told(caplog, "handler-failed")[0].splitlines()
    assert (line, title) == ("Paid: KeyError: 'amount'", "Traceback (most recent call last):")
    assert f'File "{__file__}"' in first
    assert first.endswith("in on_Paid")
    assert rest[-1] == "KeyError: 'amount'"
    assert "eda_core" not in "".join(rest)


def test_a_publish_of_a_service_that_does_not_run_says_how_to_test_a_handler() -> None:
    """The newcomer calls a handler in a unit test."""

    async def publish() -> None:
        await AioShop(NOWHERE, ["Paid"], [], "shop").publish_paid()

    words = r"^the service does not run; run it first, and begin in on_ready; in a unit test set the method to {}\(\), "
    words += r'as in docs/tutorial/5-tests\.rst, "Call a handler"$'
    with pytest.raises(StateError, match=words.format("AsyncMock")):
        asyncio.run(within(publish(), "the publish"))
    with pytest.raises(StateError, match=words.format("Mock")):
        PikaShop(NOWHERE, ["Paid"], [], "shop").publish_paid()
