"""Services under test, and the plain AMQP client that stands beside them: an operator, a peer, a witness.

Nothing here waits for a fixed time: what is awaited is an event, and the deadline of each wait says what was missing.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from eda_aio import Service
from eda_core import ReconnectPolicy
from eda_tools.broker import EmbeddedBrokerThread
from tests.support.rabbitmq import RabbitNode
from tests.support.signals import inherited

ROOT = Path(__file__).parents[2]

T = TypeVar("T")
P = ParamSpec("P")

#: Seconds until something that takes milliseconds is given up, on a machine that is busy with other things.
TIMEOUT = 60.0
#: Seconds for a whole test that does not start a broker.
TEST_TIMEOUT = 300.0

DEAD_LETTER_EXCHANGE = "am-dlx"
DEAD_LETTER_QUEUE = "dead-letters"


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a coroutine function a plain test, in an event loop of its own and with a deadline."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(within(test(*args, **kwargs), "the whole test", TEST_TIMEOUT))

    return run


async def within(awaitable: Awaitable[T], what: str, seconds: float = TIMEOUT) -> T:
    """Wait for ``awaitable``; the test fails with ``what`` if that takes too long."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await awaitable
    except TimeoutError:
        if not limit.expired():
            raise
        pytest.fail(f"{what}: not within {seconds:g} s")


class Record(Generic[T]):
    """What has happened so far, in order.

    Attributes:
        all: the items.
    """

    def __init__(self, what: str) -> None:
        self.all: list[T] = []
        self._what = what
        self._news = asyncio.Event()
        self._read = 0

    def add(self, item: T) -> None:
        self.all.append(item)
        self._news.set()

    def wake(self) -> None:
        """Let :meth:`until` look at its condition again, because something else has changed."""
        self._news.set()

    async def until(self, condition: Callable[[list[T]], bool], what: str, seconds: float = TIMEOUT) -> None:
        """Wait until ``condition`` holds for the items."""
        try:
            async with asyncio.timeout(seconds):
                while not condition(self.all):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            tail = ", ".join(map(repr, self.all[-5:]))
            pytest.fail(f"{what}: not within {seconds:g} s; {len(self.all)} {self._what} so far, the last: {tail}")

    async def count(self, number: int, seconds: float = TIMEOUT) -> list[T]:
        """Wait until there are ``number`` items; all of them."""
        await self.until(lambda items: len(items) >= number, f"{number} {self._what}", seconds)
        return self.all

    async def next(self) -> T:
        """The first item that this method has not returned yet."""
        self._read += 1
        return (await self.count(self._read))[self._read - 1]


class Probe(Service):
    """A service that comes back fast and tells when it is ready.

    Attributes:
        ready: how often it was.
        seen: for what the test's own methods note.
    """

    RECONNECT_POLICY = ReconnectPolicy(base=0.05, cap=0.4)
    RETRY_DELAY = 0.05
    STOP_TIMEOUT: ClassVar[float] = 5

    def __init__(
        self,
        url: str | Sequence[str],
        events: Sequence[str] = (),
        commands: Sequence[str] = (),
        name: str = "probe",
        configurations: Sequence[str] = (),
    ) -> None:
        super().__init__(url, events, commands, name, configurations)
        self.ready: Record[int] = Record("times ready")
        self.seen: Record[Any] = Record("things seen")

    async def on_ready(self) -> None:
        self.ready.add(len(self.ready.all) + 1)


@asynccontextmanager
async def running(*services: Probe, ready: bool = True) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run services, all ready when the block begins, and stop them at its end. Yields the tasks of their ``run()``.

    Args:
        ready: wait for that.
    """
    tasks = [asyncio.create_task(service.run()) for service in services]
    timeout: float | None = 0.0
    try:
        for service, task in zip(services, tasks, strict=True):
            if ready:
                await _first(service.ready.count(1), task)
        yield tasks
        timeout = None
    finally:
        await asyncio.sleep(0)  # a task that was only just made has not run yet
        for service, task in zip(services, tasks, strict=True):
            if not task.done():
                await service.stop(timeout)
        ended = await within(asyncio.gather(*tasks, return_exceptions=True), "the services stop")
    for result in ended:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def _first(coroutine: Coroutine[Any, Any, Any], run: asyncio.Task[None]) -> None:
    """Wait for the coroutine, or for the end of ``run``, which is an error."""
    waiting = asyncio.create_task(coroutine)
    await asyncio.wait((waiting, run), return_when=asyncio.FIRST_COMPLETED)
    if run.done():
        waiting.cancel()
        await run
        pytest.fail("the service ended before it was ready")
    await waiting


@contextmanager
def reports() -> Iterator[Record[str]]:
    """What services of eda_aio report to the local log."""
    record: Record[str] = Record("reports")

    class Handler(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            record.add(entry.getMessage())

    logger, handler = logging.getLogger("eda_aio"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield record
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# --- the plain client ---

_conversations = itertools.count(1)


def conversation() -> str:
    """A conversation id that no other test uses."""
    return f"conversation {next(_conversations)}"


class Peer:
    """A channel of aio-pika, with publisher confirms, and what tests do with it."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel

    async def publish(self, exchange: str, routing_key: str, body: bytes, **properties: Any) -> None:
        """Publish bytes; returns when they are confirmed."""
        message = aio_pika.Message(body, **properties)
        target = await self.channel.get_exchange(exchange, ensure=False)
        await within(target.publish(message, routing_key, mandatory=False), f"the peer's publish of {routing_key}")

    async def tap(self, exchange: str, routing_key: str = "#") -> Record[AbstractIncomingMessage]:
        """Hear what comes through ``exchange`` from now on."""
        await self.channel.declare_exchange(exchange, "topic", durable=True)
        queue = await self.channel.declare_queue(exclusive=True)
        await queue.bind(exchange, routing_key)
        return await self.consume(queue.name)

    async def consume(self, queue: str) -> Record[AbstractIncomingMessage]:
        """Take what is in ``queue`` and what will come."""
        messages: Record[AbstractIncomingMessage] = Record(f"messages from {queue}")

        async def take(message: AbstractIncomingMessage) -> None:
            messages.add(message)

        source = await self.channel.get_queue(queue, ensure=False)
        await source.consume(take, no_ack=True)
        return messages

    async def waiting_in(self, queue: str) -> int:
        """How many messages are in ``queue`` that no consumer has."""
        declared = await self.channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0

    async def drain(self, queue: str) -> list[AbstractIncomingMessage]:
        """Take out what is in ``queue`` and no consumer has."""
        source, taken = await self.channel.get_queue(queue, ensure=False), []
        while (message := await source.get(no_ack=True, fail=False)) is not None:
            taken.append(message)
        return taken


@asynccontextmanager
async def peer(url: str) -> AsyncIterator[Peer]:
    """A client at ``url``."""
    async with await aio_pika.connect(url) as connection:
        yield Peer(await connection.channel())


# --- the broker under test ---


@dataclass(frozen=True, slots=True)
class BrokerUnderTest:
    """An empty broker.

    Attributes:
        url: its address, with the password ``guest``.
        embedded: the embedded broker, or ...
        node: ... the RabbitMQ node, and ...
        vhost: ... the virtual host there.
    """

    url: str
    embedded: EmbeddedBrokerThread | None = None
    node: RabbitNode | None = None
    vhost: str = ""

    def url_with_password(self, password: str) -> str:
        """Its address for the user guest with another password."""
        return self.url.replace("guest:guest@", f"guest:{password}@")

    async def cut(self) -> None:
        """Cut all connections, those of peers too."""
        if self.embedded is not None:
            await asyncio.to_thread(self.embedded.cut)
        if self.node is not None:
            await asyncio.to_thread(self.node.ctl, "close_all_connections", "-p", self.vhost, "a test")

    async def dead_letters(self, client: Peer) -> Record[AbstractIncomingMessage]:
        """What is dead-lettered, set up as an operator would (the embedded broker comes with that)."""
        if self.node is not None:
            await operate_dead_letters(self.node, self.vhost, client)
        return await client.consume(DEAD_LETTER_QUEUE)


#: The broker does not take this event from those who use the URL that :func:`forbid` returns.
FORBIDDEN = ("Forbidden", "x" * 60_000)


async def forbid(broker: BrokerUnderTest) -> str:
    """Let the broker close the channel for :data:`FORBIDDEN` and for logs. Returns the URL of the user concerned.

    RabbitMQ does so for want of permission, the embedded broker because of the size. It takes small logs.
    """
    if broker.embedded is not None:
        broker.embedded.operate(lambda embedded, now: embedded.limit_messages(50_000, now=now))
        return broker.url
    node, user = broker.node, f"limited-{broker.vhost}"
    assert node is not None
    async with peer(broker.url) as client:  # RabbitMQ 4.3 wants to have them before it hears of permissions
        for exchange in ("events", "logs"):
            await client.channel.declare_exchange(exchange, "topic", durable=True)

    def set_up() -> None:
        node.ctl("add_user", user, "guest")
        node.ctl("set_permissions", "-p", broker.vhost, user, ".*", ".*", ".*")
        node.ctl("set_topic_permissions", "-p", broker.vhost, user, "events", "^(?!Forbidden)", ".*")
        node.ctl("set_topic_permissions", "-p", broker.vhost, user, "logs", "^$", ".*")

    await asyncio.to_thread(set_up)
    return broker.url.replace("guest:guest@", f"{user}:guest@")


async def operate_dead_letters(node: RabbitNode, vhost: str, client: Peer) -> None:
    """The operator's steps on RabbitMQ (docs/architecture.rst, "Dead letters")."""
    exchange = await client.channel.declare_exchange(DEAD_LETTER_EXCHANGE, "topic", durable=True)
    queue = await client.channel.declare_queue(DEAD_LETTER_QUEUE, durable=True)
    await queue.bind(exchange, "#")
    await asyncio.to_thread(node.set_dlx_policy, vhost)


# --- programs ---


def environment(url: str | None = None) -> dict[str, str]:
    """For programs of the checkout, as it is, with the broker's address where they look for it."""
    inherited = {key: value for key, value in os.environ.items() if key != "EDA_AMQP_URL"}
    path = os.pathsep.join(str(ROOT / part) for part in (".", "adapters", "tools"))
    return {**inherited, "PYTHONPATH": path, "PYTHONUTF8": "1"} | ({"EDA_AMQP_URL": url} if url else {})


class Program:
    """A Python program in a process of its own.

    Attributes:
        lines: what it has written to stdout so far.
        notes: what it has written to stderr so far.
        ended: it writes no more lines to stdout.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ended = False
        self.lines: Record[str] = Record("lines of the program")
        self.notes: Record[str] = Record("lines of the program on stderr")
        self._reading = asyncio.gather(self._read_lines(), self._read_errors())

    async def _read_lines(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.add(line.decode().rstrip("\n"))
        self.ended = True
        self.lines.wake()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.notes.add(line.decode().rstrip("\n"))

    async def says(self, line: str, times: int = 1) -> None:
        """Wait until it has written ``line``, so often."""
        await self.lines.until(lambda lines: lines.count(line) >= times, f"the line {line!r} ({times} times)")

    def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def end(self) -> int:
        """Wait for its end; its exit status."""
        try:
            status = await within(self.process.wait(), "the end of the program")
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            await self._reading
            assert self.process.stdin is not None
            self.process.stdin.close()
        return status

    @property
    def errors(self) -> str:
        """Its stderr; complete once it has ended."""
        return "".join(f"{line}\n" for line in self.notes.all)


@asynccontextmanager
async def program(
    *arguments: str,
    url: str | None = None,
    cwd: Path = ROOT,
    ignored: Container[signal.Signals] = (),
    settings: Mapping[str, str] = {},
) -> AsyncIterator[Program]:
    """Run ``python ARGUMENTS``; killed at the end of the block if it still runs.

    Args:
        ignored: signals that it inherits as ignored.
        settings: more variables of its environment.
    """
    pipe, env = asyncio.subprocess.PIPE, {**environment(url), **settings}
    with inherited(ignored):
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=cwd
        )
    started = Program(process)
    try:
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await started.end()
