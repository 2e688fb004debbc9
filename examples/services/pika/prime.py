"""Computes: answers the command ``prime.FindPrimes`` with the primes of a range. Start several to share the work.

python -m examples.services.pika.prime
"""

from __future__ import annotations

from eda_pika import JSON_MODEL, ReconnectingSupervisor, Service
from examples.services.common import broker_url, primes_between, say


class Prime(Service):
    PREFETCH_COUNT = 2  # work that takes long is better left for a worker who is free
    HANDLER_THREADS = 1  # so that heartbeats go on meanwhile

    def on_ready(self) -> None:
        say("prime: ready")

    def on_FindPrimes(
        self, payload: JSON_MODEL, conversation_id: str, reply_to: str, correlation_id: str, meta: JSON_MODEL
    ) -> JSON_MODEL | None:
        try:
            primes = primes_between(payload["low"], payload["high"])
        except (KeyError, TypeError, ValueError) as error:
            self.return_error(reply_to, {"reason": repr(error)}, conversation_id, correlation_id)
            return None
        return {"primes": primes}


if __name__ == "__main__":
    ReconnectingSupervisor(Prime, broker_url(), [], ["prime.FindPrimes"], "prime").run()
