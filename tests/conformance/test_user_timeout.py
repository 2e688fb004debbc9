"""How long the system waits for a peer that acknowledges nothing (TCP_USER_TIMEOUT), on each connection of a service.

It must not wait for 15 minutes where messages come from, and must wait for ever where messages go: in an alarm the
broker reads nothing.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eda_core.testing.conformance import Start, Worker
from eda_core.testing.conformance.running.brokers import Embedded
from eda_core.testing.conformance.script import accept, equal
from eda_kombu import Endpoint
from eda_tools.broker import EmbeddedBrokerThread
from tests.conformance.test_cuts import Steps, every_adapter, play

pytestmark = pytest.mark.skipif(
    not (hasattr(socket, "TCP_USER_TIMEOUT") and Path("/proc/self/fd").exists()), reason="Linux has it"
)


def own_sockets() -> Iterator[socket.socket]:
    """The connected sockets of this process over TCP on IPv4."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # it is not connected, or is the one of the listing
            number = os.dup(int(name))
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                os.close(number)
                continue
            with socket.socket(fileno=number) as duplicate:
                duplicate.getpeername()
                if duplicate.family == socket.AF_INET and duplicate.type == socket.SOCK_STREAM:
                    yield duplicate


def user_timeouts(port: int) -> dict[int, int]:
    """The option of each connection to ``port``, by its own port, milliseconds."""
    return {
        sock.getsockname()[1]: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        for sock in own_sockets()
        if sock.getpeername()[1] == port
    }


@every_adapter
@pytest.mark.parametrize("heartbeat", [7, 0])
def test_a_connection_for_consuming_ends_on_a_network_that_stalls_and_one_for_publishing_does_not(
    adapter: str, heartbeat: int
) -> None:
    """The service opens the one for consuming first."""

    def script(under_test: Embedded) -> Steps:
        settings: dict[str, Any] = {"HEARTBEAT": heartbeat}
        worker = Worker("listener", events=["Happened"], handlers={"Happened": accept}, settings=settings)
        yield Start(worker)
        found = user_timeouts(under_test.proxy.port)
        consuming, publishing = (link.writers["down"].get_extra_info("peername")[1] for link in under_test.proxy.links)
        equal(found, {consuming: 2000 * heartbeat, publishing: 0}, "milliseconds")

    play(script, adapter)


def test_an_endpoint_waits_for_the_end_of_an_alarm() -> None:
    """py-amqp sets the option to one second."""
    with EmbeddedBrokerThread() as broker, Endpoint(broker.url, "source") as endpoint:
        endpoint.publish_event("Happened", 1, "c")
        assert list(user_timeouts(broker.port).values()) == [0]
