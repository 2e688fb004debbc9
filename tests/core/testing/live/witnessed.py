"""An embedded broker in a process of its own, with a witness: ``python -m THIS VERSION CERTIFICATE``.

The witness is a client on a connection of its own, in the event loop of the broker. It does an everyday round, again
and again: it publishes a message, has it confirmed, gets it and acknowledges it. It measures how much processor time
the loop has used while it waited for an answer: the broker works for it or for others then, and for nothing else.
Unlike the time of a clock this does not depend on what else the machine does. The time of the processor still does a
little, and on the machine; so a piece of other work is measured beside it, in the same minutes.

Standard output has the port, the port of a second broker that speaks TLS, and one line of JSON for each line of
standard input: what happened since the last one. Standard error has what is logged, and the end of standard input ends
the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from pamqp import base, body, commands, frame, header

from eda_core.testing.live import EmbeddedBroker

_WORK = {"conversation": "0123456789abcdef" * 2, "turns": [1, 2, 3, 4.5], "text": "bonjour " * 14}
_PROPERTIES = commands.Basic.Properties(delivery_mode=2, headers={"conversation_id": "witness"})


class Witness:
    """See the module.

    Attributes:
        rounds: how many it has done.
        longest: seconds of the processor between a request and its answer, the most.
        works: seconds of the processor for the other piece of work, each time.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.longest = 0.0
        self.works: list[float] = []

    async def run(self, host: str, port: int) -> None:
        """Do rounds until cancelled. An answer that is not the expected one ends the program."""
        self._reader, self._writer = await asyncio.open_connection(host, port)
        self._writer.write(b"AMQP\x00\x00\x09\x01")
        await self._answer(commands.Connection.Start)
        await self._ask(0, commands.Connection.Tune, commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest"))
        self._writer.write(frame.marshal(commands.Connection.TuneOk(2047, 131072, 0), 0))
        await self._ask(0, commands.Connection.OpenOk, commands.Connection.Open("/"))
        await self._ask(1, commands.Channel.OpenOk, commands.Channel.Open())
        await self._ask(1, commands.Confirm.SelectOk, commands.Confirm.Select())
        await self._ask(1, commands.Queue.DeclareOk, commands.Queue.Declare(queue="witness", durable=True))
        while True:
            await self._round()
            self.rounds += 1
            if self.rounds % 10 == 1:
                begin = time.thread_time()
                for _ in range(50):
                    json.loads(json.dumps(_WORK))
                self.works.append(time.thread_time() - begin)
            await asyncio.sleep(0.001)

    async def _round(self) -> None:
        text = b"round %d" % self.rounds
        publish = commands.Basic.Publish(routing_key="witness", mandatory=True)
        content = header.ContentHeader(0, len(text), _PROPERTIES), body.ContentBody(text)
        confirm = await self._ask(1, commands.Basic.Ack, publish, *content)
        assert confirm.delivery_tag == self.rounds + 1, confirm.delivery_tag
        got = await self._ask(1, commands.Basic.GetOk, commands.Basic.Get(queue="witness"))
        assert (got.redelivered, got.message_count) == (False, 0), dict(got)
        assert (await self._frame()).properties.headers == _PROPERTIES.headers
        assert (await self._frame()).value == text
        self._writer.write(frame.marshal(commands.Basic.Ack(got.delivery_tag), 1))

    async def _ask(self, channel: int, answer: type[base.Frame], *asked: frame.FrameTypes) -> Any:
        self._writer.write(b"".join(frame.marshal(each, channel) for each in asked))
        begin = time.thread_time()
        answered = await self._answer(answer)
        self.longest = max(self.longest, time.thread_time() - begin)
        return answered

    async def _answer(self, kind: type[base.Frame]) -> Any:
        answered = await self._frame()
        assert type(answered) is kind, answered
        return answered

    async def _frame(self) -> Any:
        start = await self._reader.readexactly(7)
        rest = await self._reader.readexactly(int.from_bytes(start[3:], "big") + 1)
        return frame.unmarshal(start + rest)[2]


def memory() -> dict[str, int]:
    """Resident bytes now, and the most since the last call. Empty where the system does not tell."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        known = dict(line.split(":", 1) for line in lines)
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # the most begins with what there is now
        return {"now": int(known["VmRSS"].split()[0]) * 1024, "most": int(known["VmHWM"].split()[0]) * 1024}
    return {}


async def main(version: str, certificate: str) -> None:
    """Serve until the end of standard input."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    witness = Witness()
    async with EmbeddedBroker(version=version) as broker, EmbeddedBroker(ssl=tls) as secured:
        print(broker.port, secured.port, flush=True)
        rounds = asyncio.create_task(witness.run(broker.host, broker.port))
        try:
            while await asyncio.to_thread(sys.stdin.readline):
                if rounds.done():
                    rounds.result()
                work = statistics.median(witness.works or [0.0])
                told = {"rounds": witness.rounds, "longest": witness.longest, "work": work, "memory": memory()}
                witness.longest, witness.works = 0.0, []
                print(json.dumps(told), flush=True)
        finally:
            rounds.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await rounds


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    asyncio.run(main(*sys.argv[1:]))
