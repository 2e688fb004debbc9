"""A service whose vhost is missing or not permitted ends, and says so in the same words with every transport."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

import eda_kombu
from eda_core.testing.conformance import Worker
from eda_core.testing.conformance.running.runner import Cast
from eda_core.urls import redact
from eda_tools.broker import EmbeddedBroker, EmbeddedBrokerThread
from tests.conformance.test_conformance import ADAPTERS
from tests.support.rabbitmq import RabbitNode
from tests.support.services import TIMEOUT, asynchronous, within

EACH = pytest.mark.parametrize("adapter", ADAPTERS)

MISSING = "vhost not found: 'nowhere'; create it (rabbitmqctl add_vhost nowhere), or correct the URL"
REFUSED = "vhost refused: the user 'guest' may not use {0!r}; permit it "
REFUSED += "(rabbitmqctl set_permissions -p {0} guest '.*' '.*' '.*'), or correct the URL"
PREFIX = "the broker refuses the credentials or the vhost on every URL: "
WRONG = "the broker refuses the user 'guest' or its password; check them (rabbitmqctl authenticate_user guest), and "
WRONG += "correct the URL; from another host RabbitMQ never lets 'guest' in: make a user (rabbitmqctl add_user)"


def elsewhere(url: str, vhost: str) -> str:
    """The URL of another vhost of the same broker, with user and password."""
    return f"amqp://guest:guest@{urlsplit(url).hostname}:{urlsplit(url).port}/{vhost}"


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return f"amqp://guest:{password}@{parts.hostname}:{parts.port}{parts.path}"


async def end(adapter: str, url: str) -> str | None:
    """The error with which a service ends that nobody asks to. It begins with the URL, which is left out."""
    error = await error_of(adapter, url)
    assert error is not None
    return error.replace(f"{redact(url)}: ", "")


async def error_of(adapter: str, url: str) -> str | None:
    cast = Cast(Worker("service", events=["Happened"]), ADAPTERS[adapter], [url])
    await cast.start()
    assert cast.end is not None
    await within(asyncio.shield(cast.end), "the service ends by itself", 15.0)
    return cast.end.result()


def failure_of_an_endpoint(url: str) -> str:
    with (
        eda_kombu.Endpoint(url, "probe", confirm_timeout=15.0) as endpoint,
        pytest.raises(eda_kombu.NotConfirmed) as raised,
    ):
        endpoint.publish_event("Happened", {}, "c")
    return str(raised.value)


@EACH
@asynchronous
async def test_a_wrong_password_is_told_with_its_url_and_its_user(
    adapter: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with EmbeddedBroker() as embedded:
        wrong = with_password(embedded.url, "sesame")
        shown = with_password(embedded.url, "***")
        assert await error_of(adapter, wrong) == f"{PREFIX}{shown}: {WRONG}"
    assert f"stopped: {PREFIX}{shown}: {WRONG}" in caplog.text
    assert "sesame" not in caplog.text


@EACH
@pytest.mark.rabbitmq
@asynchronous
async def test_a_wrong_password_of_rabbitmq_ends_a_service(adapter: str, rabbitmq: RabbitNode) -> None:
    assert await end(adapter, with_password(rabbitmq.url, "sesame")) == PREFIX + WRONG


@EACH
@asynchronous
async def test_a_missing_vhost_of_the_embedded_broker_ends_a_service(adapter: str) -> None:
    async with EmbeddedBroker() as embedded:
        assert await end(adapter, elsewhere(embedded.url, "nowhere")) == PREFIX + MISSING


@EACH
@pytest.mark.rabbitmq
@asynchronous
async def test_a_missing_vhost_of_rabbitmq_ends_a_service(adapter: str, rabbitmq: RabbitNode) -> None:
    assert await end(adapter, elsewhere(rabbitmq.url, "nowhere")) == PREFIX + MISSING


@EACH
@pytest.mark.rabbitmq
@asynchronous
async def test_a_vhost_without_permissions_ends_a_service(
    adapter: str, rabbitmq: RabbitNode, rabbit_vhost: str
) -> None:
    await asyncio.to_thread(rabbitmq.ctl, "clear_permissions", "-p", rabbit_vhost, "guest")
    url = elsewhere(rabbitmq.url, rabbit_vhost)
    assert await end(adapter, url) == PREFIX + REFUSED.format(rabbit_vhost)


@EACH
@pytest.mark.rabbitmq
@asynchronous
async def test_a_vhost_that_is_refused_for_a_while_does_not_end_a_service(
    adapter: str, rabbitmq: RabbitNode, rabbit_vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator takes the permissions away while the service runs, and gives them back."""

    async def operate(*arguments: str) -> None:
        await asyncio.to_thread(rabbitmq.ctl, *arguments)

    cast = Cast(Worker("service", events=["Happened"]), ADAPTERS[adapter], [elsewhere(rabbitmq.url, rabbit_vhost)])
    await cast.start()
    await within(cast.seen("ready", 1), "ready")
    await operate("clear_permissions", "-p", rabbit_vhost, "guest")
    await operate("close_all_connections", "-p", rabbit_vhost, "permissions have changed")
    async with asyncio.timeout(TIMEOUT):
        while caplog.text.count(REFUSED.format(rabbit_vhost)) < 3:
            await asyncio.sleep(0.05)
    await operate("set_permissions", "-p", rabbit_vhost, "guest", ".*", ".*", ".*")
    await within(cast.seen("ready", 2), "ready again")
    await cast.subject.stop(None)
    assert cast.end is not None
    assert await cast.end is None


def test_an_endpoint_names_the_url_and_the_user_of_a_wrong_password() -> None:
    with EmbeddedBrokerThread() as embedded:
        text = failure_of_an_endpoint(with_password(embedded.url, "sesame"))
        assert f"{with_password(embedded.url, '***')}: {WRONG}" in text
    assert "sesame" not in text


def test_an_endpoint_names_a_missing_vhost_of_the_embedded_broker() -> None:
    with EmbeddedBrokerThread() as embedded:
        assert MISSING in failure_of_an_endpoint(elsewhere(embedded.url, "nowhere"))


@pytest.mark.rabbitmq
def test_an_endpoint_names_a_vhost_of_rabbitmq(rabbitmq: RabbitNode, rabbit_vhost: str) -> None:
    assert MISSING in failure_of_an_endpoint(elsewhere(rabbitmq.url, "nowhere"))
    rabbitmq.ctl("clear_permissions", "-p", rabbit_vhost, "guest")
    assert REFUSED.format(rabbit_vhost) in failure_of_an_endpoint(elsewhere(rabbitmq.url, rabbit_vhost))
