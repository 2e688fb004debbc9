"""What a message costs in the core, as ratios measured side by side in one run: ``python benchmarks/core.py``.

A relay is: delivered, decoded, dispatched, one publish by its handler, handled, confirmed, acknowledged. It is compared
with ``cbor2.loads`` and ``cbor2.dumps`` of the same payload of 200 bytes, which every relay has to do in any case. Both
are timed in turns, in rounds so short that what else the machine does hits both. It can only make a round longer, and
the more so the more memory is touched in it; so of each the round counts than which one in ten is shorter.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable

import cbor2
from pamqp.commands import Basic, Exchange, Queue

from eda_core import CBOR, DONE, Ack, Config, Dispatch, Effect, Epoch, Event, Limits, Machine, Publish
from eda_core.messages.envelope import seal

PAYLOAD = {"conversation": "0123456789abcdef" * 2, "turns": [1, 2, 3, 4.5], "language": "fr", "text": "bonjour " * 14}
EPOCH = Epoch(1)


def opened(prefetch: int = 1) -> Machine:
    """A machine with an open link."""
    config = Config.make("amqp://localhost/", "bench", ["Asked"], prefetch=max(1, prefetch))
    machine = Machine(config, random=lambda: 0.5, token="bench", wall_offset=0.0)
    machine.start(0.0)
    machine.link_up(EPOCH, 0.0)
    machine.declared(EPOCH, [*(Exchange.DeclareOk() for _ in range(4)), Queue.DeclareOk("bench.events", 0, 0)], 0.0)
    machine.declared(EPOCH, [], 0.0)
    return machine


def source() -> bytes:
    """The body of the message that is relayed."""
    return seal(Event("Asked", PAYLOAD, "c0ffee"), CBOR, Limits())[3]


class Relay:
    """Relays through one machine, keeping so many messages in flight."""

    def __init__(self, in_flight: int) -> None:
        self.machine = opened(in_flight)
        self.body = source()
        self.properties = Basic.Properties(
            content_type=CBOR, delivery_mode=2, message_id="m", headers={"conversation_id": "c"}
        )
        self.tag = 0
        self.waiting: deque[Dispatch] = deque()
        for _ in range(in_flight - 1):
            self.deliver()
        self.check()

    def deliver(self) -> None:
        """One more delivery in flight."""
        self.tag += 1
        (dispatch,) = self.machine.delivered(EPOCH, self.tag, False, "events", "Asked", self.properties, self.body, 1.0)
        self.waiting.append(dispatch)  # type: ignore[arg-type]  # see check()

    def once(self) -> tuple[Effect, Effect]:
        """One relay; the oldest of those in flight is finished, so that acknowledgements go out in order."""
        machine = self.machine
        self.deliver()
        dispatch = self.waiting.popleft()
        message = dispatch.message
        machine.publish(Event("Answered", message.payload, message.conversation_id), 1.0, within=dispatch.delivery)
        (publish,) = machine.handled(dispatch.delivery, DONE, 1.0)
        (ack,) = machine.confirmed(EPOCH, publish.tag, 1.0)  # type: ignore[union-attr]
        return publish, ack

    def check(self) -> None:
        """See that a relay is what it is said to be; beforehand, as it is not what is timed."""
        publish, ack = self.once()
        assert isinstance(publish, Publish)
        assert publish.routing_key == "Answered"
        assert cbor2.loads(publish.body) == PAYLOAD
        headers = {"conversation_id": "c", "causation_id": "m", "deduplication_id": "m/bench/Answered.1"}
        assert publish.properties.headers == headers
        assert isinstance(ack, Ack)


def pair(body: bytes) -> None:
    """What a relay cannot do without."""
    cbor2.dumps(cbor2.loads(body))


def timed(function: Callable[[], object], repeat: int) -> float:
    """Seconds per call."""
    begin = time.perf_counter()
    for _ in range(repeat):
        function()
    return (time.perf_counter() - begin) / repeat


def compare(
    first: Callable[[], object], second: Callable[[], object], rounds: int, repeat: int
) -> tuple[float, float, float]:
    """Seconds per call of both, timed in turns, and how many times the second the first takes."""
    times = [(timed(first, repeat), timed(second, repeat)) for _ in range(rounds)]
    one, other = (statistics.quantiles(each, n=10)[0] for each in zip(*times, strict=True))
    return one, other, one / other


def bytes_per_delivery(count: int) -> float:
    """Memory of a delivery in flight, bytes, beside its body and its decoded payload."""
    relay = Relay(1)
    body = relay.body
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    payloads = [cbor2.loads(body) for _ in range(count)]
    payload = (tracemalloc.get_traced_memory()[0] - before) / count
    del payloads
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(count):
        relay.deliver()
    total = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    return total - payload


def main() -> int:
    """Print the ratios; status 1 if one is over its bound and ``--check`` was given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="fail over the bounds of the project")
    options = parser.parse_args()
    body = source()
    relay = Relay(1)
    one, codec, ratio = compare(relay.once, lambda: pair(body), options.rounds, options.repeat)
    print(f"payload                    {len(body):8d} bytes")
    print(f"loads + dumps              {codec * 1e6:8.2f} us")
    print(f"relay, 1 in flight         {one * 1e6:8.2f} us   {ratio:5.2f} x loads + dumps (bound 6)")
    growth = 0.0
    for in_flight in (10, 100, 1000, 10_000):
        many, _, growth = compare(Relay(in_flight).once, relay.once, options.rounds, options.repeat)
        print(f"relay, {in_flight:6d} in flight    {many * 1e6:8.2f} us   {growth:5.2f} x 1 in flight")
    memory = bytes_per_delivery(10_000)
    print(f"memory per delivery        {memory:8.0f} bytes beside the payload (bound 2000)")
    return int(options.check and (ratio > 6 or memory > 2000 or growth > 1.5))


if __name__ == "__main__":
    sys.exit(main())
