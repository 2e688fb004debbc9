"""What the tests of eda_kombu share: a witness that uses another client library, faults, and threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import pika
from pika.spec import BasicProperties

from eda_core import ReconnectPolicy
from eda_core.testing.live.proxy import Proxy
from eda_kombu import Endpoint

T = TypeVar("T")

#: Seconds until something that takes milliseconds is given up.
TIMEOUT = 20.0


class Publisher(Endpoint):
    """An endpoint that tries again soon."""

    RECONNECT_POLICY: ClassVar[ReconnectPolicy] = ReconnectPolicy(base=0.05, cap=0.2)
    RETRY_DELAY: ClassVar[float] = 0.05
    STOP_TIMEOUT: ClassVar[float] = 4


class Witness:
    """A blocking connection of pika, which sees what was published."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url + "%2F" if url.endswith("/") else url))
        self.channel = self._connection.channel()

    def queue(self, exchange: str, key: str = "#", name: str = "", **arguments: Any) -> str:
        """A queue bound to ``exchange``: the witness's own, or a durable one called ``name``."""
        self.channel.exchange_declare(exchange, "topic", durable=True)
        declared = self.channel.queue_declare(
            name,
            durable=bool(name),
            exclusive=not name,
            arguments={k.replace("_", "-"): v for k, v in arguments.items()},
        )
        self.channel.queue_bind(declared.method.queue, exchange, key)
        return str(declared.method.queue)

    def waiting(self, queue: str) -> int:
        """How many messages the queue has."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def take(self, queue: str, count: int) -> list[tuple[str, BasicProperties, bytes]]:
        """Take ``count`` messages of ``queue``: routing key, properties and body of each."""
        taken: list[tuple[str, BasicProperties, bytes]] = []
        deadline = time.monotonic() + TIMEOUT
        for method, properties, body in self.channel.consume(queue, auto_ack=True, inactivity_timeout=0.2):
            if method is not None:
                taken.append((method.routing_key, properties, body))
            if len(taken) == count:
                break
            assert time.monotonic() < deadline, f"{len(taken)} of {count} messages came"
        self.channel.cancel()
        return taken

    def all(self, queue: str) -> list[bytes]:
        """Take all messages that are in ``queue`` now; their bodies."""
        bodies = []
        while (got := self.channel.basic_get(queue, auto_ack=True))[0] is not None:
            bodies.append(bytes(got[2]))
        return bodies

    def close(self) -> None:
        self._connection.close()


@contextmanager
def witness(url: str) -> Iterator[Witness]:
    """A witness at ``url``."""
    made = Witness(url)
    try:
        yield made
    finally:
        made.close()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that does not notify anybody."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {TIMEOUT:g} s"
        time.sleep(0.01)


class Background(Future[T]):
    """A call in a thread of its own."""

    def __init__(self, function: Callable[..., T], *arguments: Any, **named: Any) -> None:
        super().__init__()
        self._call: Callable[[], T] = partial(function, *arguments, **named)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.set_result(self._call())
        except BaseException as error:
            self.set_exception(error)

    def get(self) -> T:
        """Return or raise what the call did. Fail if it takes too long."""
        return self.result(TIMEOUT)


class ProxyThread:
    """A ``Proxy`` in front of the broker at ``url``, in a thread of its own; a context manager.

    Attributes:
        url: of the proxy.
    """

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.proxy = Proxy(urlsplit(url).port or 5672)
        self._target = url
        self.url = ""

    def __enter__(self) -> ProxyThread:
        self._thread.start()
        self._await(self.proxy.__aenter__())
        self.url = self._target.replace(f":{urlsplit(self._target).port}", f":{self.proxy.port}")
        return self

    def __exit__(self, *_error: object) -> None:
        self._await(self.proxy.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _await(self, awaitable: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result(TIMEOUT)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the proxy in its thread, and wait for it."""

        async def run() -> Any:
            result = function(*arguments)
            return await result if asyncio.iscoroutine(result) else result

        return self._await(run())
