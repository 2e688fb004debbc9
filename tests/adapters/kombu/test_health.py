"""How an endpoint does, at any time and for any thread."""

from __future__ import annotations

import time

import pytest

from eda_kombu import NotConfirmed
from tests.adapters.kombu.support import Background, Publisher
from tests.support.services import BrokerUnderTest


def test_an_endpoint_connects_when_it_is_used(broker: BrokerUnderTest) -> None:
    with Publisher([broker.url], "source") as endpoint:
        before = endpoint.health()
        assert (before.service, before.state, before.link.open) == ("source", "idle", False)
        endpoint.publish_event("Happened", 1, "c")
        after = endpoint.health()
        assert (after.state, after.link.open, after.waiting, after.last_error) == ("open", True, 0, None)
        assert "guest@" not in after.link.url.replace("guest:***@", "")
    assert endpoint.health().state == "idle"


def test_another_thread_may_ask_while_a_publish_waits() -> None:
    endpoint = Publisher(["amqp://guest:guest@127.0.0.1:1/"], "source", confirm_timeout=20.0)
    publish = Background(endpoint.publish_event, "Happened", 1, "c")
    while endpoint.health().last_error is None:
        time.sleep(0.01)
    health = endpoint.health()
    assert health.last_error is not None
    assert health.last_error.event == "link-lost"
    assert health.state in ("connecting", "backoff")
    endpoint.close()
    with pytest.raises(NotConfirmed):
        publish.get()
