"""The private RabbitMQ node does what the tests on top of it rely on."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from eda_core.testing.live import rabbitmq as support
from tests.support.rabbitmq import RabbitNode, RabbitNodeError, find_server, free_port
from tests.support.vhosts import VhostPool, Victim

LINUX = sys.platform == "linux"


def channel_to(url: str) -> pika.adapters.blocking_connection.BlockingChannel:
    """A channel with publisher confirms on a connection of its own."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.confirm_delivery()
    return channel


def publish(channel: pika.adapters.blocking_connection.BlockingChannel, queue: str, body: bytes) -> None:
    """Publish a persistent message to a queue; returns when the broker has confirmed it."""
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def node(rabbitmq: RabbitNode) -> Iterator[RabbitNode]:
    """A started node that is the test's own; skipped, or failed in CI, where there is none to share either."""
    own = RabbitNode()
    try:
        own.start()
        yield own
    finally:
        own.stop(grace=0.0)


def test_a_confirmed_message_survives_a_kill(node: RabbitNode) -> None:
    channel = channel_to(node.url)
    channel.queue_declare("kept", durable=True)
    publish(channel, "kept", b"still here")

    node.sync()
    node.kill()
    assert not node.running
    with pytest.raises(pika.exceptions.AMQPError):
        channel.queue_declare("kept", passive=True)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", node.port), timeout=1)

    node.start()
    again = channel_to(node.url)
    method, _, body = again.basic_get("kept", auto_ack=True)
    assert method is not None
    assert body == b"still here"
    again.connection.close()

    processes, directory = node.process_ids(), node.directory
    assert len(processes) > 2 or not LINUX
    node.stop()
    assert node.process_ids() == []
    assert all(ended(pid) for pid in processes)
    assert not directory.exists()
    node.stop()  # a second time is harmless


def test_alarms_and_freezing(rabbit_victim: Victim) -> None:
    node = rabbit_victim.node
    node.set_memory_alarm(True)
    assert "memory" in node.eval("rabbit_alarm:get_alarms().")
    node.set_memory_alarm(False)
    assert node.eval("rabbit_alarm:get_alarms().") == "[]"

    node.pause()
    with socket.create_connection(("127.0.0.1", node.port), timeout=0.3) as link:  # the kernel accepts
        link.sendall(support.AMQP_HEADER)
        with pytest.raises(TimeoutError):
            link.recv(1)
        node.resume()
        link.settimeout(10)
        assert link.recv(1) == b"\x01"


def test_vhosts_are_empty_and_apart(rabbitmq: RabbitNode, rabbit_vhost: str, rabbit_vhosts: VhostPool) -> None:
    other = rabbit_vhosts.take()
    here, there = channel_to(rabbitmq.vhost_url(rabbit_vhost)), channel_to(rabbitmq.vhost_url(other))
    here.queue_declare("q")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
        there.queue_declare("q", passive=True)
    here.connection.close()
    there.connection.close()
    rabbit_vhosts.give_back(other)
    rabbitmq.change_vhosts(delete=[other])
    assert other not in rabbitmq.ctl("list_vhosts").split()


def test_the_dead_letter_policy(rabbitmq: RabbitNode, rabbit_vhost: str, rabbit_url: str) -> None:
    rabbitmq.set_dlx_policy(rabbit_vhost)
    channel = channel_to(rabbit_url)
    channel.exchange_declare("am-dlx", "fanout", durable=True)
    channel.queue_declare("dead")
    channel.queue_bind("dead", "am-dlx")
    channel.queue_declare("some.events", durable=True)
    publish(channel, "some.events", b"poison")
    method, _, _ = channel.basic_get("some.events")
    channel.basic_nack(method.delivery_tag, requeue=False)
    give_up = time.monotonic() + 10
    body = None
    while body is None and time.monotonic() < give_up:
        body = channel.basic_get("dead", auto_ack=True)[2]
    assert body == b"poison"
    channel.connection.close()


def test_a_failed_command_raises_with_its_output(rabbitmq: RabbitNode) -> None:
    with pytest.raises(RabbitNodeError, match="no_such_command"):
        rabbitmq.ctl("no_such_command")
    with pytest.raises(RabbitNodeError, match="badmatch"):
        rabbitmq.eval("ok = no.")


def test_a_node_that_dies_while_starting_tells_why(rabbitmq: RabbitNode) -> None:
    node = RabbitNode()
    try:
        (node.directory / "rabbitmq.conf").write_text("no.such.setting = 1\n")
        with pytest.raises(RabbitNodeError, match=r"no\.such\.setting"):
            node.start()
    finally:
        node.stop()
    assert node.process_ids() == []


@pytest.mark.skipif(not LINUX, reason="finds processes in /proc")
def test_nothing_outlives_a_killed_test_run(rabbitmq: RabbitNode) -> None:
    """Not even SIGKILL, after which no code of the run is executed, leaves a broker behind."""
    script = "from tests.support.rabbitmq import RabbitNode; node = RabbitNode(); node.start(); "
    script += "print(node.directory, *node.process_ids()); input()"
    run = subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    with run:
        assert run.stdout is not None
        directory, *pids = run.stdout.readline().split()
        run.send_signal(signal.SIGKILL)
    assert len(pids) > 2
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up and not (all(ended(int(pid)) for pid in pids) and not Path(directory).exists()):
        time.sleep(0.05)
    assert [pid for pid in pids if not ended(int(pid))] == []
    assert not Path(directory).exists()


def test_ports_are_distinct_and_outside_the_range_of_clients() -> None:
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == 20
    known = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(known.read_text().split()[0]) if known.exists() else 32_768
    assert max(ports) < lowest


def test_the_directory_of_the_server_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDA_RABBITMQ", str(tmp_path))
    assert find_server() is None
    with pytest.raises(RabbitNodeError, match="not installed"):
        RabbitNode()
    script = tmp_path / "rabbitmq-server"
    script.touch()
    os.chmod(script, 0o755)
    assert find_server() == script


def test_a_node_with_management_answers_its_api(rabbit_management: RabbitNode) -> None:
    login = urllib.request.HTTPPasswordMgrWithPriorAuth()
    login.add_password(None, rabbit_management.management_url, "guest", "guest", is_authenticated=True)
    api = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(login))
    with api.open(f"{rabbit_management.management_url}/api/whoami", timeout=10) as answer:
        assert b'"name":"guest"' in answer.read()


def test_a_node_without_management_has_no_address_for_it() -> None:
    node = RabbitNode()
    with pytest.raises(RabbitNodeError, match="has no management plugin"):
        node.management_url  # noqa: B018
    node.stop()
