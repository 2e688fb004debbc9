"""The methods of endpoints, without an adapter: which messages they publish, and within which limits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from eda_core.drivers.publish_call import NotConfirmed, PartlyPublished, PublishCall, PublishLimits, Unroutable
from eda_core.errors import LocalError
from eda_core.machine.effects import PublishDone
from eda_core.messages.values import AnyMessage, Command, Configuration, Event
from eda_core.services.endpoints import EndpointApi
from tests.core.drivers.traces import Traces


class Endpoint(EndpointApi):
    """Notes what it is to publish; ``answers`` are the answers of the broker, by the place in the call."""

    def __init__(self) -> None:
        self._eda_limits = PublishLimits(timeout=300.0, retry_delay=1.0)
        self.sent: list[tuple[AnyMessage, bool, PublishLimits]] = []
        self.answers: dict[int, PublishDone] = {}
        self.message_id = ""

    def _eda_publish(self, messages: Iterable[AnyMessage], mandatory: bool, limits: PublishLimits) -> PublishCall:
        call = PublishCall(limits, 0.0)
        for place, message in enumerate(messages):
            self.sent.append((message, mandatory, limits))
            call.accepted(0.0)
            call.done(self.answers.get(place, PublishDone(place)), 0.0)
        call.message_id = self.message_id
        return call


def options(**given: Any) -> dict[str, Any]:
    return {"headers": {"tenant": "a"}, "expiration": 60, "priority": 3, **given}


META = {"tenant": "a", "expiration": "60000", "priority": 3}


@pytest.mark.parametrize(
    ("method", "arguments", "message", "mandatory"),
    [
        ("publish_event", ("Happened", 1, "c"), Event("Happened", 1, "c", META), False),
        ("publish_configuration", ("Settings", 1), Configuration("Settings", 1, "", META), False),
        (
            "send_command",
            ("svc.Do", 1, "c", "shop.DoReturn", "k"),
            Command("svc.Do", 1, "c", "shop.DoReturn", "k", META),
            True,
        ),
        (
            "send_command",
            ("svc.Do", 1, 7, "shop.DoReturn", None),
            Command("svc.Do", 1, "7", "shop.DoReturn", "", META),
            True,
        ),
    ],
)
def test_each_method_publishes_its_kind_of_message(
    method: str, arguments: tuple[Any, ...], message: AnyMessage, mandatory: bool
) -> None:
    endpoint = Endpoint()
    getattr(endpoint, method)(*arguments, **options(timeout=5.0, max_retries=2))
    getattr(endpoint, method)(*arguments, **options(mandatory=not mandatory))
    assert endpoint.sent == [
        (message, mandatory, PublishLimits(timeout=5.0, max_retries=2, retry_delay=1.0)),
        (message, not mandatory, PublishLimits(timeout=300.0, retry_delay=1.0)),
    ]


def test_many_events_are_published_in_one_call() -> None:
    endpoint = Endpoint()
    assert endpoint.publish_many([("Happened", 1, "c"), ("Told", 2, "d")], **options()) == 2
    assert [message for message, *_ in endpoint.sent] == [Event("Happened", 1, "c", META), Event("Told", 2, "d", META)]
    endpoint.answers[1] = PublishDone(1, None, "NO_ROUTE")
    with pytest.raises(PartlyPublished) as caught:
        endpoint.publish_many([("Happened", 1, "c"), ("Told", 2, "d")], mandatory=True)
    assert (caught.value.confirmed, list(caught.value.failed)) == ([0], [1])


def test_a_command_that_no_service_takes_is_named() -> None:
    endpoint = Endpoint()
    endpoint.answers[0] = PublishDone(0, None, "NO_ROUTE")
    words = (
        r"^no queue is bound for the command svc\.Do; start the service, which makes the queue, or correct the name$"
    )
    with pytest.raises(Unroutable, match=words):
        endpoint.send_command("svc.Do", 1, "c", "shop.DoReturn", "k")
    with pytest.raises(Unroutable, match="the message came back: NO_ROUTE; nobody subscribes to it"):
        endpoint.publish_event("Happened", 1, "c", mandatory=True)


def test_what_is_not_confirmed_is_raised() -> None:
    endpoint = Endpoint()
    endpoint.answers[0] = PublishDone(0, "the service stopped")
    with pytest.raises(NotConfirmed):
        endpoint.send_command("svc.Do", 1, "c", "shop.DoReturn", "k")


def test_wrong_arguments_are_refused_before_anything_is_published() -> None:
    endpoint = Endpoint()
    with pytest.raises(LocalError, match="timeout is 0"):
        endpoint.send_command("svc.Do", 1, "c", "shop.DoReturn", "k", timeout=0)
    with pytest.raises(LocalError, match="the header 'x-own' cannot be sent"):
        endpoint.send_command("svc.Do", 1, "c", "shop.DoReturn", "k", headers={"x-own": 1})
    assert endpoint.sent == []


def test_each_publish_has_a_trace() -> None:
    endpoint, traces = Endpoint(), Traces()
    endpoint.trace_by(traces)
    endpoint.publish_event("Happened", 1, "c", **options())
    assert traces.told == [("sending", "Happened", "", ""), ("sent", "NoneType")]
    assert endpoint.sent[0][0] == Event("Happened", 1, "c", {**META, "trace": ""})
    endpoint.answers[0], endpoint.message_id = PublishDone(0, None, "NO_ROUTE"), "m-1"
    with pytest.raises(Unroutable):
        endpoint.publish_event("Happened", 1, "c", mandatory=True)
    assert traces.told[2:] == [("sending", "Happened", "", ""), ("accepted", "m-1"), ("sent", "Unroutable")]


def test_many_events_have_one_trace() -> None:
    endpoint, traces = Endpoint(), Traces()
    endpoint.trace_by(traces)
    assert endpoint.publish_many([("Happened", 1, "c"), ("Told", 2, "d")], **options()) == 2
    assert traces.told == [("sending many",), ("counted", 2), ("sent", "NoneType")]
    assert [message.meta for message, *_ in endpoint.sent] == [{**META, "trace": ""}] * 2
    endpoint.answers[1] = PublishDone(1, None, "NO_ROUTE")
    with pytest.raises(PartlyPublished):
        endpoint.publish_many([("Happened", 1, "c"), ("Told", 2, "d")], mandatory=True)
    assert traces.told[3:] == [("sending many",), ("counted", 2), ("sent", "PartlyPublished")]
