"""Work for the workers that tests send signals to: ``tests.adapters.aio.worker`` and ``tests.adapters.pika.worker``."""

from __future__ import annotations

import cbor2

from tests.support.services import Peer, Program, conversation


async def send_jobs(client: Peer, numbers: range, *, wait: bool) -> None:
    """Publish a ``Job`` for each number; its handler waits for a line if it is told to ``wait``."""
    for number in numbers:
        body = cbor2.dumps({"number": number, "waits": wait})
        headers = {"conversation_id": conversation()}
        await client.publish("events", "Job", body, content_type="application/cbor", headers=headers)


async def jobs_left(client: Peer) -> list[int]:
    """The jobs in the queue of the workers, which are taken out of it."""
    return sorted(cbor2.loads(message.body)["number"] for message in await client.drain("worker.events"))


def numbers(worker: Program, verb: str) -> list[int]:
    """The jobs of which the worker has written that they are ``begun`` or ``done``."""
    return sorted(int(line.split()[1]) for line in worker.lines.all if line.startswith(f"{verb} "))
