"""What a message costs the embedded broker, as ratios measured in one run: ``python -m benchmarks.broker``.

A client on a plain socket does two things, each with messages of 200 bytes through a topic exchange:

confirmed
    publishes to a queue, with at most 500 publishes that are not confirmed;
relay
    consumes with a prefetch of 100, publishes each message to another queue, and acknowledges it when that is
    confirmed.

It encodes nothing while time is measured, and counts what comes back in bytes: so the broker is what limits it. There
are three servers, each in a process of its own: a broker with the queues of the client, one with 4,000 queues more, and
a server of asyncio that only reads the same bytes and sends back as many. They work in turns, in short rounds, so that
what else the machine does hits all of them. It can only make a round longer: of each server the round counts than which
one in ten is shorter.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pamqp import base, body, commands, frame, header

#: Bytes of a body.
SIZE = 200
#: How many queues the second broker has more. Each has a binding, and a message that expires in an hour.
OTHERS = 4_000
WINDOW = 500
PREFETCH = 100
#: A message may cost so many times as much with 4,000 queues.
BOUND = 1.15

_ECHO = """
import asyncio, sys

class Answering(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.asked, self.each, self.rest = transport, 0, 0, b""

    def data_received(self, data):
        if not self.asked:  # the first line: how many bytes ask for how many
            line, _, data = data.partition(b"\\n")
            self.asked, self.each = map(int, line.split())
        whole, left = divmod(len(self.rest) + len(data), self.asked)
        self.rest = bytes(left)
        self.transport.write(bytes(whole * self.each))

async def main():
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print("listening on amqp://127.0.0.1:%d/" % server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def server(*command: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port, and the number of the process."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rstrip("/\n").rpartition(":")[2]), process.pid
        finally:
            process.terminate()


def cpu(pid: int) -> float:
    """Seconds of the processor that a process has used (Linux: clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def method(value: base.Frame) -> bytes:
    """A method on channel 1."""
    return frame.marshal(value, 1)


def published(key: str) -> bytes:
    """A persistent message for the topic exchange."""
    head = header.ContentHeader(0, SIZE, commands.Basic.Properties(delivery_mode=2, content_type="application/cbor"))
    parts = (commands.Basic.Publish(exchange="events", routing_key=key), head, body.ContentBody(bytes(SIZE)))
    return b"".join(frame.marshal(part, 1) for part in parts)


CONFIRM = len(method(commands.Basic.Ack(1)))
DELIVERY = (
    len(published("source"))
    - len(method(commands.Basic.Publish(exchange="events", routing_key="source")))
    + len(method(commands.Basic.Deliver("c", 1, False, "events", "source")))
)


class Client:
    """A client on a plain socket, with one channel that confirms."""

    def __init__(self, port: int, pid: int) -> None:
        self.pid = pid
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, size: int) -> None:
        """Read so many bytes, whatever they are."""
        while size:
            size -= len(self.socket.recv(min(size, 1 << 16)))

    def call(self, *asked: base.Frame) -> None:
        """Send methods, and wait for the answer to the last one: that of one more method, whose size is known."""
        mark = method(commands.Basic.QosOk())
        self.socket.sendall(b"".join(map(method, (*asked, commands.Basic.Qos(prefetch_count=PREFETCH)))))
        seen = b""
        while not seen.endswith(mark):
            seen = seen[-len(mark) :] + self.socket.recv(1 << 16)

    def open(self) -> None:
        """Log in, open a channel that confirms, and declare what both measurements need."""
        hello = [
            commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"),
            commands.Connection.TuneOk(2047, 131072, 0),
            commands.Connection.Open("/"),
        ]
        self.socket.sendall(b"AMQP\x00\x00\x09\x01" + b"".join(frame.marshal(each, 0) for each in hello))
        self.call(
            commands.Channel.Open(),
            commands.Confirm.Select(),
            commands.Exchange.Declare(exchange="events", exchange_type="topic"),
            *(each for name in ("source", "target") for each in self._queue(name)),
        )

    def _queue(self, name: str) -> list[base.Frame]:
        declare = commands.Queue.Declare(queue=name, durable=True, arguments={"x-message-ttl": 3_600_000})
        return [declare, commands.Queue.Bind(queue=name, exchange="events", routing_key=name)]

    def add_queues(self, number: int) -> None:
        """Declare, bind and fill so many queues more."""
        for some in range(0, number, 100):
            names = [f"other.{each}" for each in range(some, min(number, some + 100))]
            self.call(*(each for name in names for each in self._queue(name)))
            self.socket.sendall(b"".join(map(published, names)))
            self.read(len(names) * CONFIRM)


def exchange(client: Client, packets: Sequence[bytes], back: int, ahead: int) -> tuple[float, float]:
    """Send packets, of which so many may wait for their answers of ``back`` bytes.

    Returns:
        Seconds of the clock, and of the server's processor.
    """
    begin, used = time.perf_counter(), cpu(client.pid)
    for number in range(len(packets) + ahead):
        if number >= ahead:
            client.read(back)
        if number < len(packets):
            client.socket.sendall(packets[number])
    return time.perf_counter() - begin, cpu(client.pid) - used


class Confirmed:
    """Publishes that are confirmed."""

    name = "confirmed publish"
    each = WINDOW // 2  # messages of a packet
    ahead = 2  # packets
    back = each * CONFIRM

    def packets(self, count: int, first: int) -> list[bytes]:
        """The packets for so many messages; ``first`` is the first delivery tag."""
        return [published("target") * self.each] * (count // self.each)

    def begin(self, client: Client, count: int) -> int:
        """Do what comes before. Returns how many messages will be delivered."""
        return 0

    def end(self, client: Client) -> None:
        """Do what comes afterwards."""
        client.call(commands.Queue.Purge(queue="target"))


class Relay(Confirmed):
    """Messages that are consumed, published, confirmed and acknowledged."""

    name = "relay"
    each = PREFETCH // 2
    ahead = 1
    back = each * (CONFIRM + DELIVERY)

    def packets(self, count: int, first: int) -> list[bytes]:
        """Each has the publishes for some messages, and the acknowledgements of as many."""
        tags = range(first, first + count, self.each)
        acks = [b"".join(method(commands.Basic.Ack(tag + n)) for n in range(self.each)) for tag in tags]
        return [published("target") * self.each + each for each in acks]

    def begin(self, client: Client, count: int) -> int:
        """Fill the queue, and begin to consume."""
        for _ in range(0, count + PREFETCH, self.each):
            client.socket.sendall(published("source") * self.each)
            client.read(self.each * CONFIRM)
        client.socket.sendall(method(commands.Basic.Consume(queue="source", consumer_tag="c")))
        client.read(len(method(commands.Basic.ConsumeOk("c"))) + PREFETCH * DELIVERY)
        return count + PREFETCH

    def end(self, client: Client) -> None:
        """Give up what is still here."""
        client.call(commands.Basic.Cancel(consumer_tag="c"), commands.Basic.Recover(True))
        client.call(commands.Queue.Purge(queue="source"), commands.Queue.Purge(queue="target"))


class Subject:
    """One of the servers, at one of the works, and what was measured of it.

    Args:
        others: how many queues it has more; None if it is no broker.
    """

    def __init__(self, work: Confirmed, port: int, pid: int, others: int | None) -> None:
        self.work, self.others = work, others
        self.client = Client(port, pid)
        self.next_tag = 1
        self.clock: list[float] = []
        self.cpu: list[float] = []
        if others is None:
            self.client.socket.sendall(b"%d %d\n" % (len(work.packets(work.each, 1)[0]), work.back))
        else:
            self.client.open()
            self.client.add_queues(others)

    def measure(self, count: int) -> None:
        """One round."""
        packets = self.work.packets(count, self.next_tag)
        if self.others is not None:
            self.next_tag += self.work.begin(self.client, count)
        clock, used = exchange(self.client, packets, self.work.back, self.work.ahead)
        if self.others is not None:
            self.work.end(self.client)
        self.clock.append(clock / count)
        self.cpu.append(used / count)


def shortest(rounds: list[float]) -> float:
    """The round than which one in ten is shorter."""
    return statistics.quantiles(rounds, n=10)[0]


def compare(work: Confirmed, rounds: int, count: int) -> float:
    """Measure and print one work. Returns how much more a message costs with more queues."""
    with ExitStack() as stack:
        broker = ("-m", "eda_tools.broker", "--port", "0")
        kinds = {"bytes only": (("-c", _ECHO), None), "1 queue": (broker, 0), f"{OTHERS:,} queues": (broker, OTHERS)}
        subjects = {
            name: Subject(work, *stack.enter_context(server(*command)), others)
            for name, (command, others) in kinds.items()
        }
        for _ in range(rounds):
            for subject in subjects.values():
                subject.measure(count)
    echo, one, many = (shortest(each.cpu) for each in subjects.values())
    for name, subject in subjects.items():
        seconds = shortest(subject.cpu)
        print(
            f"{work.name:18s}{name:>13s}{1 / shortest(subject.clock):10,.0f}/s{seconds * 1e6:8.1f} us CPU"
            f"{seconds / echo:8.1f} x bytes only{seconds / one:7.2f} x 1 queue"
        )
    return many / one


def main() -> int:
    """Print the costs. With ``--check`` the status is 1 if other queues make a message dearer than the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--count", type=int, default=3_000, help="messages per round (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help=f"fail if a ratio to one queue is above {BOUND}")
    options = parser.parse_args()
    ratios = [compare(work, options.rounds, options.count) for work in (Confirmed(), Relay())]
    return int(options.check and max(ratios) > BOUND)


if __name__ == "__main__":
    sys.exit(main())
