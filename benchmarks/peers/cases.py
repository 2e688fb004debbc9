"""What is measured, of whom, and how much of it: so that all of it takes about five minutes on two cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.peers.measuring import Bench
from benchmarks.peers.programs.work import PREFETCH

Numbers = dict[str, float]


@dataclass(frozen=True)
class Topic:
    """A kind of measurement, which is a table on the page.

    Attributes:
        name: for ``--only``.
        title: that of its section.
        text: what is measured.
        columns: the numbers of the table, by their names in the results, and their titles.
    """

    name: str
    title: str
    text: str
    columns: dict[str, str]


MESSAGES = {"rate": "messages per second", "cpu": "processor time per message, µs"}

TOPICS = (
    Topic(
        "relay",
        "Relay",
        "One message in and one out: consume, decode the CBOR payload of 200 bytes, call the handler, encode and "
        "publish, and acknowledge the message when the broker has confirmed the publish. The prefetch is 100. The C "
        "client forwards the bytes without a look at them: it shows what the wire alone costs.",
        MESSAGES,
    ),
    Topic(
        "bytecodes",
        "Where the work of a relay goes",
        "The bytecodes of CPython for one relay. Their number hardly depends on what else the machine does. *Wire* is "
        "what frames, properties and payloads go through, in eda_core.amqp and eda_core.messages or in the client "
        "library. *Safety* is the state machine of the core: it remembers deliveries and publishes until they are "
        "settled, retries, and identifies messages. *Service* is the rest of the framework, and the handler. What is "
        "written in C does not count: system calls, cbor2, and most of a task of asyncio.",
        {
            "all": "in all",
            "wire": "wire",
            "machine": "safety",
            "service": "service",
            "python": "standard library of Python",
        },
    ),
    Topic(
        "publish",
        "Publish",
        "Confirmed publishes of 200 bytes, without an incoming message. At most 500 are unconfirmed at the same time, "
        "but *one by one* waits for each confirm.",
        MESSAGES,
    ),
    Topic(
        "consume",
        "Consume",
        "Consume, decode, call a handler that does nothing, and acknowledge. The payload has 200 bytes, the prefetch "
        "is 100.",
        MESSAGES,
    ),
    Topic(
        "call",
        "Call",
        "A command to another process of the same kind, and its result. Processor time is that of the caller. All keep "
        "commands in a durable queue and wait for the confirms of what they publish. Results come to a queue of the "
        "caller with eda_aio; aio-pika and FastStream use direct reply-to, which has no queue.",
        {
            "rate": "calls per second",
            "p50": "half take at most, ms",
            "p99": "99 % take at most, ms",
            "cpu": "processor time per call, µs",
        },
    ),
    Topic(
        "start",
        "Start",
        "The time from the start of the process until the broker has its consumer. The interpreter, the imports and "
        "the connection are in it.",
        {"ms": "ms"},
    ),
    Topic(
        "memory",
        "Memory",
        "The resident memory of the process after 10,000 messages of a backlog of 100,000, the rest of which still "
        "waits. A backlog stays with the broker: the client keeps what the prefetch allows.",
        {"MB": "MB"},
    ),
    Topic(
        "payload",
        "Large payloads",
        "The relay, with payloads of 20 kB and 2 MB. Two megabytes are sent as sixteen frames.",
        {"rate": "messages per second", "cpu": "processor time per message, µs"},
    ),
    Topic(
        "subscriptions",
        "Many subscriptions",
        "The relay of a service that subscribes to so many events, and gets all of them in turns.",
        MESSAGES,
    ),
    Topic(
        "workers",
        "Several workers",
        "The relay, by so many processes of one service. The broker takes processor time as well: on two cores the "
        "rate cannot grow with the number of workers.",
        MESSAGES,
    ),
)


@dataclass(frozen=True)
class Case:
    """One line of a table.

    Attributes:
        topic: the name of its topic.
        client: see ``environments.CLIENTS``.
        variant: what is special, such as the size; "" if nothing is.
        measure: does it.
        rounds: the part of all rounds in which it is measured.
    """

    topic: str
    client: str
    variant: str
    measure: Callable[[Bench], Numbers]
    rounds: float = 0.6

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from all others."""
        return self.topic, self.client, self.variant


EVERYBODY = ("C", "pika", "eda_pika", "native", "eda_aio", "aio-pika", "FastStream", "eventail")
#: The share of the usual number of messages for those that need longer for each.
SLOWER = {"eda_aio": 0.6, "aio-pika": 0.6, "FastStream": 0.4}


def cases(scale: float = 1.0) -> list[Case]:
    """All of them, in the order in which each round goes through them.

    Args:
        scale: how many messages to take, as a factor.
    """

    def many(number: int, client: str = "") -> int:
        return max(20, int(number * scale * SLOWER.get(client, 1)))

    made = [*_messages(many), *_calls(many), *_processes(many), *_scaled(many)]
    return sorted(made, key=lambda case: [topic.name for topic in TOPICS].index(case.topic))


def _messages(many: Callable[..., int]) -> Iterator[Case]:
    for client in EVERYBODY:
        consumed = max(10 * PREFETCH, many(6000, client))  # of fewer, the last would be taken before the first are done
        yield Case("relay", client, "", partial(Bench.relay, client=client, count=many(5000, client)), 1.0)
        yield Case("consume", client, "", partial(Bench.consume, client=client, count=consumed))
        if client != "C":
            yield Case("bytecodes", client, "", partial(Bench.bytecodes, client=client, count=many(1500)), 0.0)  # once
    for client in (*EVERYBODY[:-1], "kombu many", "kombu one"):  # eventail does not bound what is unconfirmed
        number = many(500 if client == "kombu one" else 4000, client)
        yield Case("publish", client, "", partial(Bench.publish, client=client, count=number))


def _calls(many: Callable[..., int]) -> Iterator[Case]:
    for flight, number in ((1, 300), (50, 1000)):
        for client in ("native", "eda_aio", "aio-pika", "FastStream"):
            measure = partial(Bench.call, client=client, count=many(number, client), flight=flight)
            yield Case("call", client, f"{flight} at a time", measure)


def _processes(many: Callable[..., int]) -> Iterator[Case]:
    for client in EVERYBODY:
        yield Case("start", client, "", partial(Bench.start, client=client))
        measure = partial(Bench.memory, client=client, count=many(10_000), backlog=many(100_000))
        yield Case("memory", client, "", measure, 0.0)  # once


def _scaled(many: Callable[..., int]) -> Iterator[Case]:
    for title, size, number in (("20 kB", 20_000, 1500), ("2 MB", 2_000_000, 25)):
        for client in ("pika", "eda_pika", "native"):
            yield Case("payload", client, title, partial(Bench.relay, client=client, count=many(number), size=size))
    for subscriptions in (1, 10, 100, 1000):
        measure = partial(Bench.relay, client="native", count=many(5000), subscriptions=subscriptions)
        yield Case("subscriptions", "native", counted(subscriptions, "subscription"), measure)
    for workers in (1, 2, 4):
        measure = partial(Bench.relay, client="native", count=many(8000), workers=workers)
        yield Case("workers", "native", counted(workers, "worker"), measure)


def counted(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Claim:
    """A ratio that is told.

    Attributes:
        number: which number of the results: ``cpu``, ``rate``.
        one, other: the keys of the two cases; the ratio is that of the first to the second.
        bound: what is aimed at, as text; "" if nothing is.
    """

    number: str
    one: tuple[str, str, str]
    other: tuple[str, str, str]
    bound: str = ""


def _relays(number: str, one: str, other: str, bound: str) -> Claim:
    return Claim(number, ("relay", one, ""), ("relay", other, ""), bound)


CLAIMS = (
    _relays("cpu", "native", "pika", "≤ 0.8"),
    _relays("cpu", "native", "aio-pika", "≤ 0.15"),
    _relays("cpu", "native", "FastStream", "≤ 0.1"),
    _relays("rate", "native", "C", "≥ 0.8"),
    _relays("cpu", "eda_pika", "pika", "≤ 1.25"),
    _relays("cpu", "eda_pika", "eventail", "≤ 0.95"),
    _relays("cpu", "eda_aio", "aio-pika", "≤ 0.85"),
    Claim("rate", ("publish", "kombu many", ""), ("publish", "kombu one", ""), "≥ 8"),
    Claim(
        "cpu",
        ("subscriptions", "native", "1,000 subscriptions"),
        ("subscriptions", "native", "1 subscription"),
        "≤ 1.1",
    ),
)
