"""Brokers that die, freeze, refuse and block: an Endpoint loses nothing, and reports every failure."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

import cbor2
import pytest
from pamqp import frame
from pamqp.commands import Basic

from eda_core import CBOR
from eda_kombu import NotConfirmed, PartlyPublished
from eda_tools.broker import EmbeddedBrokerThread
from tests.adapters.kombu.support import Background, ProxyThread, Publisher, until, witness
from tests.support.rabbitmq import free_port
from tests.support.services import BrokerUnderTest
from tests.support.vhosts import Victim


class Patient(Publisher):
    """An endpoint that does not take a silent peer for dead."""

    HEARTBEAT: ClassVar[int] = 60


@pytest.fixture
def embedded() -> Iterator[EmbeddedBrokerThread]:
    with EmbeddedBrokerThread() as broker:
        yield broker


@contextmanager
def alarmed(broker: EmbeddedBrokerThread) -> Iterator[None]:
    """In the block the broker accepts no publishes."""
    broker.operate(lambda model, now: model.set_alarm(True, now=now))
    try:
        yield
    finally:
        broker.operate(lambda model, now: model.set_alarm(False, now=now))


# --- brokers that die ---


@pytest.mark.parametrize("many", [False, True], ids=["one by one", "publish_many"])
def test_connections_cut_while_publishing_lose_nothing(broker: BrokerUnderTest, many: bool) -> None:
    class Narrow(Publisher):
        WINDOW = 50

    with witness(broker.url) as seen, ProxyThread(broker.url) as front, Narrow(front.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")

        def events() -> Iterator[tuple[str, int, str]]:
            for number in range(500):
                if number in (100, 250, 400):
                    front.call(front.proxy.cut)
                yield "Happened", number, "c"

        if many:
            assert endpoint.publish_many(events()) == 500
        else:
            for event in events():
                endpoint.publish_event(*event)
        assert front.proxy.accepted == 4
        assert {cbor2.loads(body) for body in seen.all(queue)} == set(range(500))


def test_a_broker_killed_while_publishing_500_events_loses_none_and_an_alarm_is_waited_for(
    rabbit_victim: Victim,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node, url = rabbit_victim.node, rabbit_victim.url
    with witness(url) as seen:
        queue = seen.queue("events", name="kept")
    node.sync()
    with Publisher(url, "source", confirm_timeout=60) as endpoint:
        restarting = None
        for number in range(500):
            if number == 250:
                node.kill()
                restarting = Background(node.start)
            endpoint.publish_event("Happened", number, "c")
        assert restarting is not None
        restarting.result(60)
        node.set_memory_alarm(True)
        publish = Background(endpoint.publish_event, "Happened", 500, "c")
        blocked = "the broker blocks publishing"  # as it says when it has begun to read a publish
        until(lambda: publish.done() or blocked in caplog.text, "the publish arrives")
        assert not publish.done(), f"confirmed although there was an alarm: {node.log_tail()}"
        node.set_memory_alarm(False)
        publish.get()
    with witness(url) as seen:
        assert {cbor2.loads(body) for body in seen.all(queue)} == set(range(501))


def test_a_connection_lost_in_a_pause_costs_nothing(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, ProxyThread(broker.url) as front, Publisher(front.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        for number in range(3):
            endpoint.publish_event("Happened", number, "c", 1)
            front.call(front.proxy.cut)
        assert [cbor2.loads(body) for body in seen.all(queue)] == [0, 1, 2]


def test_after_a_pause_longer_than_the_heartbeat_it_connects_anew_without_a_word(
    broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    class Quick(Publisher):
        HEARTBEAT = 1

    with ProxyThread(broker.url) as front, Quick(front.url, "source") as endpoint:
        endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.quiet)  # the broker takes it for dead
        endpoint.publish_event("Happened", 2, "c", 0)
        assert front.proxy.accepted == 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- brokers that cannot be reached ---


def test_the_retries_of_connecting_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    nobody = f"amqp://guest:secret@127.0.0.1:{free_port()}/"
    with (
        Publisher(nobody, "source", 2) as endpoint,
        pytest.raises(NotConfirmed, match=r"no connection after 2 retries.*Connection refused") as caught,
    ):
        endpoint.publish_event("Happened", 1, "c")
    assert not caught.value.may_arrive
    assert "it was never sent" in str(caught.value)
    assert sum("no link to" in record.getMessage() for record in caplog.records) == 3
    assert "secret" not in caplog.text + str(caught.value)


def test_the_retries_of_a_publish_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(f"amqp://127.0.0.1:{free_port()}/", "source") as endpoint:
        for retries in (0, 1, 3):
            caplog.clear()
            with pytest.raises(NotConfirmed, match=f"given up after {retries} retries"):
                endpoint.publish_event("Happened", 1, "c", max_retries=retries)
            assert sum("no link to" in record.getMessage() for record in caplog.records) == retries + 1


def test_the_time_is_limited_too() -> None:
    with Publisher(f"amqp://127.0.0.1:{free_port()}/", "source", confirm_timeout=0.2) as endpoint:
        with pytest.raises(NotConfirmed, match=r"no confirm within 0\.2 s \(amqp://127.*Connection refused"):
            endpoint.publish_event("Happened", 1, "c")
        with pytest.raises(PartlyPublished) as caught:
            endpoint.publish_many([("Happened", 1, "c"), ("Happened", 2, "c")])
        assert list(caught.value.failed) == [0, 1]
        assert caught.value.confirmed == []


def test_brokers_are_tried_in_turn(broker: BrokerUnderTest) -> None:
    urls = [f"amqp://127.0.0.1:{free_port()}/", broker.url_with_password("wrong"), broker.url]
    with witness(broker.url) as seen, Publisher(urls, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 1, "c", max_retries=2)
        assert seen.waiting(queue) == 1


def test_a_wrong_password_is_a_clear_error(broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(broker.url_with_password("sesame"), "source") as endpoint:
        for _ in range(2):  # no retry can help, and a new call looks again
            with pytest.raises(NotConfirmed, match="refuses the user 'guest' or its password; check them") as caught:
                endpoint.publish_event("Happened", 1, "c")
            assert not caught.value.may_arrive
            assert "sesame" not in str(caught.value)
    assert "sesame" not in caplog.text


def test_logs_wait_for_the_broker_and_raise_nothing() -> None:
    port = free_port()
    with Publisher(f"amqp://127.0.0.1:{port}/", "source") as endpoint:
        endpoint.log(3, "first")
        endpoint.log(3, "second")
        with EmbeddedBrokerThread(port=port) as broker, witness(broker.url) as seen:
            queue = seen.queue("logs")

            def arrived() -> int:
                endpoint.log(6, "last")
                return seen.waiting(queue)

            until(arrived, "the logs")
            texts = [json.loads(body)["short_message"] for _, _, body in seen.take(queue, 3)]
            endpoint.close()
    assert texts == ["first", "second", "last"]


def test_a_channel_that_the_broker_closes_is_opened_again(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        endpoint.publish_event("Happened", 1, "c")
        seen.channel.exchange_delete("events")
        endpoint.publish_event("Happened", 2, "c")  # 404, and the exchange is declared anew
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 3, "c")
        assert [cbor2.loads(body) for body in seen.all(queue)] == [3]


def test_an_exchange_of_another_type_is_a_clear_error(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        seen.channel.exchange_declare("events", "fanout", durable=True)
        with pytest.raises(NotConfirmed, match=r"given up after 1 retries.*PRECONDITION_FAILED"):
            endpoint.publish_event("Happened", 1, "c", 1)


# --- brokers that do not answer ---


def test_a_peer_that_takes_connections_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}/"
        with (
            Publisher(url, "source", 1, connect_timeout=0.2) as endpoint,
            pytest.raises(NotConfirmed, match=r"no connection after 1 retries \(.*no answer from the broker"),
        ):
            endpoint.publish_event("Happened", 1, "c")
        with (
            Publisher(url, "source", confirm_timeout=0.2) as endpoint,  # it ends an attempt to connect too
            pytest.raises(NotConfirmed, match=r"no confirm within 0\.2 s \(.*no answer"),
        ):
            Background(endpoint.publish_event, "Happened", 1, "c").get()


def test_a_first_host_that_hangs_costs_its_time_out_once(broker: BrokerUnderTest) -> None:
    """Not at each publish: neither after a lost connection, nor after a publish that failed, nor after a pause."""

    class Quick(Publisher):
        HEARTBEAT = 3  # with 1, a busy machine makes the broker close a connection that is only slow

    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        witness(broker.url) as seen,
        ProxyThread(broker.url) as front,
        Quick([f"amqp://127.0.0.1:{silent.getsockname()[1]}/", front.url], "source", connect_timeout=3) as endpoint,
    ):
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 0, "c")
        front.call(front.proxy.cut)
        endpoint.publish_event("Happened", 1, "c")
        with pytest.raises(KeyboardInterrupt):  # its connection is dropped
            endpoint.publish_many(failing_events())
        endpoint.publish_event("Happened", 2, "c")
        front.call(front.proxy.quiet)  # the broker takes it for dead
        endpoint.publish_event("Happened", 3, "c")
        assert [cbor2.loads(body) for body in seen.all(queue)] == [0, 1, 2, 3]
        assert connections(silent) == 1


def test_a_publish_that_gives_up_at_a_host_that_hangs_begins_with_the_next_one(broker: BrokerUnderTest) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        witness(broker.url) as seen,
        Publisher(
            [f"amqp://127.0.0.1:{silent.getsockname()[1]}/", broker.url], "source", connect_timeout=3
        ) as endpoint,
    ):
        queue = seen.queue("events", name="kept")
        with pytest.raises(NotConfirmed):
            endpoint.publish_event("Happened", 0, "c", 0)
        endpoint.publish_event("Happened", 1, "c", 0)
        assert [cbor2.loads(body) for body in seen.all(queue)] == [1]


def connections(server: socket.socket) -> int:
    """How many connections wait that nobody has accepted."""
    server.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def failing_events() -> Iterator[tuple[str, int, str]]:
    raise KeyboardInterrupt
    yield


def test_a_frozen_peer_is_noticed_by_its_heartbeat(broker: BrokerUnderTest) -> None:
    class Quick(Publisher):
        HEARTBEAT = 1

    with witness(broker.url) as seen, ProxyThread(broker.url) as front, Quick(front.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.freeze)
        endpoint.publish_event("Happened", 2, "c")
        assert front.proxy.accepted == 2
        assert [cbor2.loads(body) for body in seen.all(queue)] == [1, 2]


def test_a_frozen_peer_is_left_whatever_the_heartbeat(broker: BrokerUnderTest) -> None:
    """It takes 8 s (tests/core/machine/test_silence.py), and not the 20 minutes of two heartbeats."""

    class Calm(Publisher):
        HEARTBEAT = 600

    with (
        witness(broker.url) as seen,
        ProxyThread(broker.url) as front,
        Calm([front.url, broker.url], "source") as endpoint,
    ):
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.freeze)
        endpoint.publish_event("Happened", 2, "c")
        assert [cbor2.loads(body) for body in seen.all(queue)] == [1, 2]


def test_a_peer_that_reads_nothing_does_not_hold_up_a_write(broker: BrokerUnderTest) -> None:
    with (
        witness(broker.url) as seen,
        ProxyThread(broker.url) as front,
        Patient(front.url, "source", connect_timeout=0.5) as endpoint,
    ):
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.freeze)
        endpoint.publish_event("Happened", b"x" * (12 << 20), "c")  # more than the system's buffers take
        assert (seen.waiting(queue), front.proxy.accepted) == (2, 2)


def test_without_a_confirm_in_time_it_raises_and_connects_anew(broker: BrokerUnderTest) -> None:
    # The time holds for connecting, too: a busy RabbitMQ once took more than 0.3 s, and was connected to twice.
    with ProxyThread(broker.url) as front, Patient(front.url, "source", confirm_timeout=1.5) as endpoint:
        endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.freeze)
        with pytest.raises(
            NotConfirmed, match=r"no confirm within 1\.5 s; it was sent, and may have arrived"
        ) as caught:
            endpoint.publish_event("Happened", 2, "c")
        assert caught.value.may_arrive
        endpoint.publish_event("Happened", 3, "c")
        assert front.proxy.accepted == 2


def test_only_its_own_confirm_counts(embedded: EmbeddedBrokerThread) -> None:
    """An ack of another publish, one that came too late for example, does not confirm this publish."""
    with ProxyThread(embedded.url) as front, Patient(front.url, "source") as endpoint:
        endpoint.publish_event("Happened", 1, "c")
        with alarmed(embedded):
            publish = Background(endpoint.publish_event, "Happened", 2, "c")
            for tag in (1, 7, 3):
                front.call(front.proxy.inject, frame.marshal(Basic.Ack(tag), 1))
            with pytest.raises(TimeoutError):
                publish.result(0.7)  # longer than a wait goes without a look
        publish.get()


def test_the_late_ack_of_a_publish_that_timed_out_confirms_nothing(embedded: EmbeddedBrokerThread) -> None:
    with witness(embedded.url) as seen, Patient(embedded.url, "source", confirm_timeout=0.3) as endpoint:
        queue = seen.queue("events", name="kept")
        with alarmed(embedded):
            for number in (1, 2):
                with pytest.raises(NotConfirmed) as caught:
                    endpoint.publish_event("Happened", number, "c")
                assert caught.value.may_arrive
        endpoint.publish_event("Happened", 3, "c")
        assert cbor2.loads(seen.all(queue)[-1]) == 3


def test_a_publish_waits_for_the_end_of_an_alarm(
    embedded: EmbeddedBrokerThread, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level("INFO", "eda_kombu"),
        witness(embedded.url) as seen,
        Patient(embedded.url, "source") as endpoint,
    ):
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 0, "c")
        with alarmed(embedded):
            publish = Background(endpoint.publish_event, "Happened", 1, "c")
            until(lambda: "the broker blocks publishing" in caplog.text, "the alarm is told")
            endpoint_logs = Background(endpoint.log, 6, "waits its turn")
            assert not publish.done()
            assert "takes publishes again" not in caplog.text
        publish.get()
        endpoint_logs.get()
        assert seen.waiting(queue) == 2
        assert "the broker takes publishes again" in caplog.text


def test_a_close_in_an_alarm_ends_and_tells_the_publish_that_waits(
    embedded: EmbeddedBrokerThread, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker reads nothing, not even that the connection is to be closed."""

    class Hurried(Patient):
        STOP_TIMEOUT: ClassVar[float] = 0.5

    with caplog.at_level("INFO", "eda_kombu"), Hurried(embedded.url, "source") as endpoint:
        endpoint.publish_event("Happened", 0, "c")
        with alarmed(embedded):
            publish = Background(endpoint.publish_event, "Happened", 1, "c")
            until(lambda: "the broker blocks publishing" in caplog.text, "the alarm is told")
            endpoint.close()
            with pytest.raises(NotConfirmed, match="the endpoint was closed") as caught:
                publish.get()
            assert caught.value.may_arrive


def test_an_interrupted_publish_leaves_a_sound_endpoint(embedded: EmbeddedBrokerThread) -> None:
    with witness(embedded.url) as seen, ProxyThread(embedded.url) as front, Patient(front.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 1, "c")
        # What runs the tests may ignore it, as a shell script has its background jobs do.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with alarmed(embedded):
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            try:
                with pytest.raises(KeyboardInterrupt):
                    endpoint.publish_event("Happened", 2, "c")
                timer.join()
            finally:
                signal.signal(signal.SIGINT, before)
        endpoint.publish_event("Happened", 3, "c")
        assert front.proxy.accepted == 2
        assert cbor2.loads(seen.all(queue)[-1]) == 3


def test_close_does_not_wait_for_ever(broker: BrokerUnderTest) -> None:
    class Brief(Patient):
        STOP_TIMEOUT = 0.5

    with ProxyThread(broker.url) as front:
        endpoint = Brief(front.url, "source", confirm_timeout=None)
        endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.freeze)
        publish = Background(endpoint.publish_event, "Happened", 2, "c")
        until(lambda: endpoint._process().user, "the publish begins")
        Background(endpoint.close).get()
        with pytest.raises(NotConfirmed, match="the endpoint was closed"):
            publish.get()


def test_a_handler_of_signals_may_close(embedded: EmbeddedBrokerThread) -> None:
    with alarmed(embedded), Patient(embedded.url, "source") as endpoint:
        before = signal.signal(signal.SIGUSR1, lambda *_: endpoint.close())
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(NotConfirmed, match="the endpoint was closed"):
                endpoint.publish_event("Happened", 1, "c")
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)


# --- brokers that refuse ---


def test_refused_publishes_are_sent_again_whole(broker: BrokerUnderTest) -> None:
    with witness(broker.url) as seen, Publisher(broker.url, "source") as endpoint:
        queue = seen.queue("events", name="full", x_max_length=1, x_overflow="reject-publish")
        endpoint.publish_event("Happened", 1, "first")
        with pytest.raises(NotConfirmed, match=r"given up after 1 retries.*is a queue full") as caught:
            endpoint.publish_event("Happened", 2, "given up", max_retries=1)
        assert caught.value.may_arrive, "in another queue, perhaps"
        publish = Background(endpoint.publish_many, [("Happened", number, "again") for number in (3, 4)])
        with pytest.raises(TimeoutError):
            publish.result(0.2)
        taken = seen.take(queue, 3)
        assert publish.get() == 2
    assert sorted(cbor2.loads(body) for _, _, body in taken) == [1, 3, 4]
    for _, properties, _ in taken:
        assert properties.headers["conversation_id"] in ("first", "again")
        assert (properties.delivery_mode, properties.content_type, bool(properties.message_id)) == (2, CBOR, True)
