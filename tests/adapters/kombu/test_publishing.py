"""What the methods of an Endpoint put on the wire, and what they refuse, on each broker."""

from __future__ import annotations

import json
import logging
import os
import socket
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from eda_core import CBOR, JSON, LocalError, PayloadError, StateError, criticality
from eda_core.services import ClaimCheck
from eda_kombu import Endpoint, NotConfirmed, PartlyPublished, Unroutable
from examples.claim_stores import DirectoryStore
from tests.adapters.kombu.support import Background, ProxyThread, Publisher, witness
from tests.support.services import BrokerUnderTest

MESSAGE = {"name": "Ada", "text": "déjà vu", "turns": [1, 2.5, None, True]}


# --- the wire ---


@pytest.mark.parametrize("content_type", [CBOR, JSON])
def test_an_event_on_the_wire(broker: BrokerUnderTest, content_type: str) -> None:
    with witness(broker.url) as seen, Publisher([broker.url], "source") as endpoint:
        queue = seen.queue("events")
        if content_type == JSON:
            endpoint.force_json()
        endpoint.publish_event("Happened", MESSAGE, "a conversation")
        ((key, properties, body),) = seen.take(queue, 1)
    assert key == "Happened"
    assert (properties.delivery_mode, properties.content_type) == (2, content_type)
    assert properties.headers == {"conversation_id": "a conversation"}
    assert not properties.reply_to
    assert not properties.correlation_id
    assert properties.app_id == "source"
    assert properties.message_id
    assert (json.loads(body.decode()) if content_type == JSON else cbor2.loads(body)) == MESSAGE
    if content_type == JSON:
        assert "déjà vu".encode() in body, "non-ASCII characters are kept"


def test_a_command_on_the_wire(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher([broker.url], "shop") as endpoint:
        queue = seen.queue("commands", "billing.ChargeCard")
        endpoint.send_command("billing.ChargeCard", MESSAGE, "c", "shop.ChargeCardReturn", "order 7")
        ((key, properties, body),) = seen.take(queue, 1)
    assert (key, cbor2.loads(body)) == ("billing.ChargeCard", MESSAGE)
    assert (properties.reply_to, properties.correlation_id) == ("shop.ChargeCardReturn", "order 7")
    assert (properties.delivery_mode, properties.headers) == (2, {"conversation_id": "c"})


def test_a_command_that_no_service_takes_raises(broker: BrokerUnderTest) -> None:
    with Publisher(broker.url, "shop") as endpoint:
        with pytest.raises(Unroutable, match=r"^no queue is bound for the command billing\.ChargeCard; start"):
            endpoint.send_command("billing.ChargeCard", 1, "c", "shop.ChargeCardReturn", "k")
        endpoint.send_command("billing.ChargeCard", 1, "c", "shop.ChargeCardReturn", "k", mandatory=False)


def test_a_command_without_a_reply_key_is_refused() -> None:
    """It would be no message of the architecture: its receiver would dead-letter it."""
    with Endpoint("amqp://127.0.0.1:1/", "shop") as endpoint, pytest.raises(LocalError, match="reply_to is empty"):
        endpoint.send_command("billing.ChargeCard", 1, "c", "", "k")


def test_messages_that_wait_on_the_broker(broker: BrokerUnderTest) -> None:
    class Late(Publisher):
        DELAYED_MESSAGES = True

    with witness(broker.url) as seen, Late([broker.url], "source") as endpoint:
        events, commands = seen.queue("events"), seen.queue("commands")
        endpoint.publish_event("Happened", 3, "c", delay=3)
        endpoint.publish_many([("Happened", 2, "c")], delay=2)
        endpoint.publish_event("Happened", 0, "c", delay=0)
        endpoint.send_command("billing.ChargeCard", 1, "c", "shop.ChargeCardReturn", "k", delay=1)
        got = [(key, cbor2.loads(body)) for key, _, body in (*seen.take(events, 3), *seen.take(commands, 1))]
    assert got == [("Happened", 0), ("Happened", 2), ("Happened", 3), ("billing.ChargeCard", 1)]


def test_large_payloads_wait_in_a_store(broker: BrokerUnderTest, tmp_path: Path) -> None:
    class Large(Publisher):
        CLAIM_CHECK = ClaimCheck(DirectoryStore(tmp_path), over=100)

    with witness(broker.url) as seen, Large([broker.url], "source") as endpoint:
        queue = seen.queue("events")
        endpoint.publish_event("Happened", "x" * 1000, "c")
        endpoint.publish_many([("Happened", "y" * 1000, "c"), ("Happened", "small", "c")])
        got = seen.take(queue, 3)
    assert [cbor2.loads(body) for _, _, body in got] == [None, None, "small"]
    keys = [properties.headers.get("claim_check") for _, properties, _ in got]
    assert [path.name for path in sorted(tmp_path.rglob("*")) if path.is_file()] == sorted(filter(None, keys))


def test_who_does_not_declare_the_queues_cannot_publish_late() -> None:
    with Endpoint("amqp://127.0.0.1:1/", "shop") as endpoint:
        with pytest.raises(LocalError, match="set DELAYED_MESSAGES = True in the class"):
            endpoint.publish_event("Happened", 1, "c", delay=1)


def test_options_on_the_wire(broker: BrokerUnderTest) -> None:
    options: dict[str, Any] = {"headers": {"tenant": "a"}, "expiration": 60, "priority": 3, "timeout": 30.0}
    with witness(broker.url) as seen, Publisher([broker.url], "source") as endpoint:
        events, configurations = seen.queue("events"), seen.queue("configurations")
        endpoint.publish_event("Happened", 1, "c", **options)
        endpoint.publish_many([("Happened", 2, "c"), ("Happened", 3, "c")], **options)
        endpoint.publish_configuration("Settings", 4, **options)
        got = [*seen.take(events, 3), *seen.take(configurations, 1)]
    for _, properties, _ in got:
        assert properties.headers["tenant"] == "a"
        assert (properties.expiration, properties.priority) == ("60000", 3)


def test_a_wrong_option_is_refused() -> None:
    with Endpoint("amqp://127.0.0.1:1/", "source") as endpoint:
        with pytest.raises(LocalError, match="the header 'x-own' cannot be sent"):
            endpoint.publish_event("Happened", 1, "c", headers={"x-own": 1})
        with pytest.raises(LocalError, match="timeout is 0; give seconds, more than 0"):
            endpoint.publish_many([("Happened", 1, "c")], timeout=0)


def test_the_timeout_of_a_call_takes_the_place_of_the_endpoints() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        with Endpoint(url, "source") as endpoint, pytest.raises(NotConfirmed, match=r"no confirm within 0\.5 s"):
            endpoint.publish_event("Happened", 1, "c", timeout=0.5)


def test_json_may_be_forced_at_any_time(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher([broker.url], "source") as endpoint:
        queue = seen.queue("events")
        endpoint.publish_event("Happened", 1, "c")
        endpoint.force_json()
        endpoint.publish_event("Happened", 2, "c")
        assert [properties.content_type for _, properties, _ in seen.take(queue, 2)] == [CBOR, JSON]


def test_a_configuration_on_the_wire(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher([broker.url], "source") as endpoint:
        queue = seen.queue("configurations")
        endpoint.publish_configuration("Configured", MESSAGE)
        ((key, properties, body),) = seen.take(queue, 1)
    assert (key, properties.delivery_mode, properties.content_type) == ("Configured", 2, CBOR)
    assert not properties.headers["conversation_id"]
    assert cbor2.loads(body) == MESSAGE


def test_a_log_on_the_wire(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher([broker.url], "source") as endpoint:
        queue = seen.queue("logs")
        endpoint.log(criticality.ERROR, "short", "full", "a conversation", {"a": 1, "_b": 2})
        endpoint.log(criticality.DEBUG, "only short")
        (key, properties, body), (second, _, rest) = seen.take(queue, 2)
    assert (key, second) == ("source.ERROR", "source.DEBUG")
    assert (properties.delivery_mode, properties.content_type, properties.headers) == (1, JSON, None)
    record = json.loads(body)
    assert record.pop("host").startswith("source@")
    assert record.pop("timestamp") > 1e9
    assert record == {
        "version": "1.1",
        "short_message": "short",
        "full_message": "full",
        "level": 3,
        "_levelname": "ERROR",
        "_conversation_id": "a conversation",
        "_logical_service": "source",
        "_worker_pid": os.getpid(),
        "_a": 1,
        "_b": 2,
    }
    assert json.loads(rest)["short_message"] == "only short"


def test_a_message_of_many_frames_arrives_whole(broker: BrokerUnderTest) -> None:
    data = os.urandom(700_000)
    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        queue = seen.queue("events")
        endpoint.publish_event("Big", data, "c")
        assert cbor2.loads(seen.take(queue, 1)[0][2]) == data


def test_a_publish_returns_when_it_is_confirmed(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        for number in range(20):
            endpoint.publish_event("Happened", number, "c")
            assert seen.waiting(queue) == number + 1, "no waiting here: it is there when the call returns"


def test_the_connection_has_a_name(rabbit_url: str, rabbitmq: Any, rabbit_vhost: str) -> None:
    with Publisher(rabbit_url, "source") as endpoint:
        endpoint.publish_event("Happened", 1, "c")
        tables = rabbitmq.ctl("-q", "list_connections", "-p", rabbit_vhost, "client_properties")
    assert f"source@{os.uname().nodename}:{os.getpid()}" in tables


def test_nothing_is_connected_before_the_first_publish(broker: BrokerUnderTest) -> None:
    with ProxyThread(broker.url) as front, Publisher(front.url, "source") as endpoint:
        assert front.proxy.accepted == 0
        endpoint.publish_event("Happened", 1, "c")
        endpoint.publish_event("Happened", 2, "c")
        assert front.proxy.accepted == 1


# --- mandatory ---


def test_an_unroutable_mandatory_event_raises(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        endpoint.publish_event("Unheard", 1, "c")  # nobody's loss
        with pytest.raises(Unroutable, match="NO_ROUTE; nobody subscribes to it"):
            endpoint.publish_event("Unheard", 1, "c", mandatory=True)
        queue = seen.queue("events", "Heard")
        endpoint.publish_event("Heard", 1, "c", mandatory=True)
        with pytest.raises(Unroutable):
            endpoint.publish_configuration("Unheard", 1, mandatory=True)
        assert len(seen.take(queue, 1)) == 1


def test_the_unroutable_one_of_many_is_named(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        queue = seen.queue("events", "Heard", "kept")
        names = ["Heard"] * 7 + ["Unheard"] + ["Heard"] * 3
        with pytest.raises(PartlyPublished, match="number 7: the message came back") as caught:
            endpoint.publish_many([(name, 1, "c") for name in names], mandatory=True)
        assert isinstance(caught.value.failed[7], Unroutable)
        assert len(caught.value.failed) == 1
        assert seen.waiting(queue) == len(caught.value.confirmed)
        assert set(range(7)) <= set(caught.value.confirmed)


# --- many ---


def test_many_are_taken_as_the_window_allows(broker: BrokerUnderTest) -> None:
    class Narrow(Publisher):
        WINDOW = 10

    with witness(broker.url) as seen, Narrow(broker.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        ahead: list[int] = []

        def events() -> Iterator[tuple[str, Any, str]]:
            for number in range(200):
                if number % 50 == 49:
                    ahead.append(number - seen.waiting(queue))
                yield "Happened", number, "c"

        assert endpoint.publish_many(events()) == 200
        assert seen.waiting(queue) == 200
        assert all(each <= 10 for each in ahead)
        assert endpoint.publish_many([]) == 0
        bodies = [cbor2.loads(body) for body in seen.all(queue)]
    assert bodies == list(range(200)), "in their order"


def test_what_fails_before_the_wire_ends_many(broker: BrokerUnderTest) -> None:
    def broken() -> Iterator[tuple[str, Any, str]]:
        yield "Happened", 1, "c"
        raise KeyError("no more")

    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        with pytest.raises(PartlyPublished, match="1 of 2 messages") as caught:
            endpoint.publish_many(broken())
        assert (caught.value.confirmed, list(caught.value.failed)) == ([0], [1])
        assert isinstance(caught.value.failed[1], KeyError)
        bad: list[Any] = [("Happened", 1, "c"), ("Happened", object(), "c"), ("Happened", 3, "c")]
        with pytest.raises(PartlyPublished) as caught:
            endpoint.publish_many(bad)
        assert isinstance(caught.value.failed[1], PayloadError)
        assert caught.value.taken == 2
        with pytest.raises(PartlyPublished, match=r"pass \(name, message, conversation_id\)") as caught:
            endpoint.publish_many(["Happened"])  # type: ignore[list-item]
        assert isinstance(caught.value.failed[0], LocalError)
        assert seen.waiting(queue) == 2


def test_an_iterable_may_log_but_not_publish(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        queue = seen.queue("logs")

        def events() -> Iterator[tuple[str, Any, str]]:
            yield "Happened", 1, "c"
            endpoint.log(6, "half way")
            yield "Happened", 2, "c"
            endpoint.publish_event("Happened", 3, "c")

        with pytest.raises(PartlyPublished, match="do not publish in its own iterable") as caught:
            endpoint.publish_many(events())
        assert caught.value.confirmed == [0, 1]
        assert json.loads(seen.take(queue, 1)[0][2])["short_message"] == "half way"


# --- wrong calls ---


def test_wrong_calls_raise_before_anything_is_sent() -> None:
    nobody = "amqp://guest:secret@127.0.0.1:1/"
    with Publisher([nobody], "source") as endpoint:
        for payload in (object(), b"x" * (17 << 20), {"a": {1, object()}}):
            with pytest.raises(PayloadError):
                endpoint.publish_event("Happened", payload, "c")
        for arguments in ((("x" * 300), 1, "c"), ("", 1, "c"), ("Happened", 1, None), (3, 1, "c")):
            with pytest.raises(LocalError):
                endpoint.publish_event(*arguments)
        with pytest.raises(LocalError, match="max_retries is -1"):
            endpoint.publish_event("Happened", 1, "c", -1)
        with pytest.raises(LocalError, match="from 0 to 7"):
            endpoint.log(9, "short")
        with pytest.raises(LocalError, match="a log field cannot have the name 'id'"):
            endpoint.log(3, "short", additional_fields={"id": 1})
    for wrong in ({"confirm_timeout": 0}, {"connect_timeout": -1}, {"connection_max_retries": 1.5}):
        with pytest.raises(LocalError):
            Endpoint([nobody], "source", **wrong)
    for urls in ([], ["http://127.0.0.1/"], [3]):
        with pytest.raises(LocalError):
            Endpoint(urls, "source")  # type: ignore[arg-type]
    with pytest.raises(LocalError):
        Endpoint([nobody], "")
    assert "secret" not in repr(endpoint)


def test_a_wrong_call_costs_no_connection(broker: BrokerUnderTest) -> None:
    with ProxyThread(broker.url) as front, Publisher(front.url, "source") as endpoint:
        endpoint.publish_event("Happened", 1, "c")
        with pytest.raises(PayloadError):
            endpoint.publish_event("Happened", object(), "c")
        with pytest.raises(LocalError):
            endpoint.log(9, "short")
        endpoint.publish_event("Happened", 2, uuid.uuid4())  # type: ignore[arg-type]  # as eventail lets one
        assert front.proxy.accepted == 1


def test_closed_is_closed(broker: BrokerUnderTest) -> None:
    with ProxyThread(broker.url) as front:
        with Publisher(front.url, "source") as endpoint:
            endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.quiet)
        for call in (
            lambda: endpoint.publish_event("Happened", 1, "c"),
            lambda: endpoint.publish_many([]),
            lambda: endpoint.log(3, "short"),
        ):
            with pytest.raises(StateError, match="the endpoint is closed; make another one"):
                call()
        endpoint.close()
        Publisher(front.url, "source").close()
        assert front.proxy.accepted == 1


# --- threads, forks, handlers of logging ---


def test_threads_share_an_endpoint(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, ProxyThread(broker.url) as front, Publisher(front.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")

        def work(thread: int) -> None:
            for number in range(60):
                endpoint.publish_event("Happened", [thread, number], "c")

        for call in [Background(work, thread) for thread in range(3)]:
            call.get()
        bodies = [cbor2.loads(body) for body in seen.all(queue)]
        assert front.proxy.accepted == 1
    assert sorted(bodies) == [[thread, number] for thread in range(3) for number in range(60)]


def test_a_child_process_gets_a_connection_of_its_own(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, ProxyThread(broker.url) as front, Publisher(front.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", "parent", "c")
        with warnings.catch_warnings():  # the broker's and the proxy's threads are not the child's business
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            try:
                endpoint.publish_event("Happened", "child", "c")
                endpoint.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        endpoint.publish_event("Happened", "parent again", "c")
        assert front.proxy.accepted == 2, "the parent's connection has lived on"
        assert [cbor2.loads(body) for body in seen.all(queue)] == ["parent", "child", "parent again"]


def test_what_is_logged_here_may_be_passed_on_to_the_bus(broker: BrokerUnderTest) -> None:
    errors: list[Exception] = []

    class PassOn(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            endpoint.log(criticality.WARNING, record.getMessage())
            try:
                endpoint.publish_event("Warned", 1, "c")
            except Exception as error:
                errors.append(error)

    handler = PassOn()
    logger = logging.getLogger("eda_kombu")
    nobody = "amqp://127.0.0.1:1/"
    with witness(broker.url) as seen, Publisher([nobody, broker.url], "source") as endpoint:
        queue = seen.queue("logs")
        logger.addHandler(handler)
        try:
            endpoint.publish_event("Heard", 1, "c")
        finally:
            logger.removeHandler(handler)
        assert f"no link to {nobody}" in json.loads(seen.take(queue, 1)[0][2])["short_message"]
    assert errors
    assert all(isinstance(error, StateError) for error in errors)
