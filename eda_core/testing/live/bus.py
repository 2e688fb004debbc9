"""Publishes for a test, and watches everything on the bus. It has a thread of its own, and needs no client library."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import uuid
from collections.abc import Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from pamqp.commands import Basic, Exchange

from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.envelope import seal
from eda_core.messages.routing import EXCHANGES
from eda_core.messages.values import SUCCESS, AnyMessage, Command, Configuration, Event, LogRecord, Result
from eda_core.testing.arrivals import Arrival, DeadLetter, Expectation, NotArrived, Where, arrival, report
from eda_core.testing.broker.dead_letters import EXCHANGE, exchanges
from eda_core.testing.live.client import ChannelClosed, Client, ClientChannel, Received

T = TypeVar("T")

#: pytest shows no line of this module in a traceback: a failure is told where the test expects something.
__tracebackhide__ = True

#: Seconds that an expectation waits. It is long, because it only ends a test that has failed.
WITHIN: Final = 10.0
#: Seconds to connect and to declare.
_OPENING: Final = 30.0


class ServiceDied(AssertionError):
    """A service under test has ended with an error, which is the cause of this exception."""


class AsyncBus:
    """The methods of :class:`Bus` as coroutines, for tests that are coroutines: the attribute ``aio`` of a bus."""

    def __init__(self, loop: asyncio.AbstractEventLoop, within: float, exchange: str) -> None:
        self._loop = loop  # that of the thread
        self._within = within
        self._exchange = exchange
        self._token = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)
        self._client: Client | None = None
        self._publisher: ClientChannel | None = None
        self._arrivals: list[Arrival] = []
        self._news = asyncio.Event()
        self._died: BaseException | None = None
        self._dead_letters = True
        self._queue = ""
        self._marks: dict[str, asyncio.Event] = {}
        self._name = f"test-{self._token}"

    # What tests do

    async def publish_event(
        self, name: str, payload: Any, conversation_id: str | None = None, meta: Mapping[str, Any] | None = None
    ) -> Event:
        """See :meth:`Bus.publish_event`."""
        return await self._send(Event(name, payload, _conversation(conversation_id), dict(meta or {})))

    async def publish_configuration(
        self, name: str, payload: Any, conversation_id: str = "", meta: Mapping[str, Any] | None = None
    ) -> Configuration:
        """See :meth:`Bus.publish_configuration`."""
        return await self._send(Configuration(name, payload, conversation_id, dict(meta or {})))

    async def send_command(
        self,
        command: str,
        payload: Any,
        conversation_id: str | None = None,
        reply_to: str | None = None,
        correlation_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Command:
        """See :meth:`Bus.send_command`."""
        name = command.rpartition(".")[2]
        return await self._send(
            Command(
                command,
                payload,
                _conversation(conversation_id),
                f"{self._name}.{name}Return" if reply_to is None else reply_to,
                str(uuid.uuid4()) if correlation_id is None else correlation_id,
                dict(meta or {}),
            )
        )

    async def call(
        self, command: str, payload: Any, conversation_id: str | None = None, *, within: float | None = None
    ) -> Result:
        """See :meth:`Bus.call`."""
        sent = await self.send_command(command, payload, conversation_id)
        expected = Expectation("result", sent.reply_to, correlation_id=sent.correlation_id)
        return cast(Result, (await self._expected(expected, within)).message)

    async def answer(self, command: Command, payload: Any, status: str = SUCCESS) -> Result:
        """See :meth:`Bus.answer`."""
        return await self._send(
            Result(command.reply_to, payload, command.conversation_id, status, command.correlation_id)
        )

    async def expect_event(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> Event:
        """See :meth:`Bus.expect_event`."""
        return cast(Event, await self._expect("event", name, where, conversation_id, within))

    async def expect_command(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> Command:
        """See :meth:`Bus.expect_command`."""
        return cast(Command, await self._expect("command", name, where, conversation_id, within))

    async def expect_result(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> Result:
        """See :meth:`Bus.expect_result`."""
        return cast(Result, await self._expect("result", name, where, conversation_id, within))

    async def expect_log(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> LogRecord:
        """See :meth:`Bus.expect_log`."""
        return cast(LogRecord, await self._expect("log", name, where, conversation_id, within))

    async def expect_dead_letter(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> DeadLetter:
        """See :meth:`Bus.expect_dead_letter`."""
        if not self._dead_letters:
            raise NotArrived(f"the broker has no exchange {self._exchange!r}: declare it, and set the policy for it")
        return cast(DeadLetter, await self._expect("dead letter", name, where, conversation_id, within))

    async def arrivals(self) -> list[Arrival]:
        """See :meth:`Bus.arrivals`."""
        return await self._here(self._copied())

    # How it is done. What follows runs in the loop of the thread, behind _here.

    async def _here(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work in the thread, and wait for it in the loop of the caller."""
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        except AssertionError as error:
            raise error.with_traceback(None)  # noqa: B904 - the same error, without the way through the threads

    async def _send(self, message: T) -> T:
        await self._here(self._publish(cast(AnyMessage, message)))
        return message

    async def _expect(
        self, kind: str, name: str, where: Where | None, conversation: str | None, within: float | None
    ) -> Any:
        return (await self._expected(Expectation(kind, name, where, conversation), within)).message

    async def _expected(self, expected: Expectation, within: float | None) -> Arrival:
        return await self._here(self._await(expected, self._within if within is None else within))

    async def _copied(self) -> list[Arrival]:
        """Everything that the broker has routed so far: a mark in the same queue comes behind it."""
        assert self._publisher is not None
        mark = f"{self._token}-mark-{next(self._numbers)}"
        come = self._marks[mark] = asyncio.Event()
        await self._publisher.publish("", self._queue, Basic.Properties(message_id=mark), b"")
        async with asyncio.timeout(_OPENING):
            await come.wait()
        del self._marks[mark]
        return list(self._arrivals)

    async def _publish(self, message: AnyMessage) -> None:
        exchange, key, properties, body = seal(message, CBOR, DEFAULT_LIMITS)
        properties.message_id = f"{self._token}-{next(self._numbers)}"
        assert self._publisher is not None
        await self._publisher.publish(exchange, key, properties, body)

    async def _publish_raw(self, exchange: str, key: str, properties: Basic.Properties, body: bytes) -> None:
        properties.message_id = f"{self._token}-{properties.message_id}"
        assert self._publisher is not None
        await self._publisher.publish(exchange, key, properties, body)

    async def _await(self, expected: Expectation, within: float) -> Arrival:
        limit = asyncio.get_running_loop().time() + within
        while True:
            found = next((each for each in self._arrivals if expected.met_by(each)), None)
            if found is not None:
                found.taken = True
                return found
            if self._died is not None:
                after = f"before a service ended: {type(self._died).__name__}: {self._died}"
                raise ServiceDied(report(expected, self._arrivals, after)) from self._died
            self._news.clear()
            try:
                async with asyncio.timeout_at(limit):
                    await self._news.wait()
            except TimeoutError:
                raise NotArrived(report(expected, self._arrivals, f"within {within:g} s")) from None

    async def _open(self, url: str) -> None:
        async with asyncio.timeout(_OPENING):
            self._client = await Client.connect(url, "test")
            channel = await self._client.channel()
            for method in exchanges():
                await channel.ask(method)
            bindings = [(exchange, "#") for exchange in EXCHANGES]
            if await self._exists(self._exchange):
                bindings.append((self._exchange, "#"))
            else:
                self._dead_letters = False
            self._queue = await channel.temporary_queue(*bindings)
            await channel.watch(self._queue, self._received)
            self._publisher = await self._client.channel()

    async def _exists(self, exchange: str) -> bool:
        assert self._client is not None
        channel = await self._client.channel()  # of its own: not to find the exchange closes it
        try:
            await channel.ask(Exchange.Declare(exchange=exchange, passive=True))
        except ChannelClosed:
            return False
        await channel.close()
        return True

    async def _close(self) -> None:
        if self._client is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OPENING):
                    await self._client.close()

    def _received(self, got: Received) -> None:
        mark = self._marks.get(str(got.properties.message_id))
        if mark is not None:
            mark.set()
            return
        sent = str(got.properties.message_id).startswith(f"{self._token}-")
        dead = got.exchange == self._exchange
        self._arrivals.append(arrival(got.exchange, got.routing_key, got.properties, got.body, dead=dead, sent=sent))
        self._news.set()

    def _service_died(self, error: BaseException) -> None:
        self._died = error
        self._news.set()


class Bus:
    """Publishes for a test, and watches the bus from the moment when it is made: a context manager.

    Each message answers one expectation. What the test itself has published answers none, unless it becomes a dead
    letter. While it watches, the broker has a queue for every message, so no command comes back as unroutable.

    ``where`` is a map that the payload has to contain, or a function that gets the message and returns whether it is
    the one. In a map, maps are compared in the same way, and everything else by ``==``.

    Args:
        url: of the broker.
        within: seconds that an expectation waits by default.
        dead_letter_exchange: the exchange to which the operator's policy sends dead letters.

    Attributes:
        aio: the same methods as coroutines, for tests that are coroutines.

    Raises (on entering):
        OSError: there is no broker; or it refuses the login.
    """

    def __init__(self, url: str, *, within: float = WITHIN, dead_letter_exchange: str = EXCHANGE) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="eda bus", daemon=True)
        self.aio: AsyncBus = AsyncBus(self._loop, within, dead_letter_exchange)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._run(self.aio._open(self._url))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def publish_event(
        self, name: str, payload: Any, conversation_id: str | None = None, meta: Mapping[str, Any] | None = None
    ) -> Event:
        """Publish an event, wait until the broker has confirmed it, and return it.

        Args:
            conversation_id: by default that of a new conversation.
            meta: headers and properties, as for the method of a service.

        Raises:
            LocalError: the message cannot be written.
            ConnectionError: the broker does not take it.
        """
        return self._run(self.aio.publish_event(name, payload, conversation_id, meta))

    def publish_configuration(
        self, name: str, payload: Any, conversation_id: str = "", meta: Mapping[str, Any] | None = None
    ) -> Configuration:
        """Publish a configuration and return it; otherwise like :meth:`publish_event`."""
        return self._run(self.aio.publish_configuration(name, payload, conversation_id, meta))

    def send_command(
        self,
        command: str,
        payload: Any,
        conversation_id: str | None = None,
        reply_to: str | None = None,
        correlation_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Command:
        """Send a command and return it; otherwise like :meth:`publish_event`.

        Args:
            command: ``service.CommandName``.
            reply_to: the routing key for the result, by default one of this test.
            correlation_id: by default a new one.
        """
        return self._run(self.aio.send_command(command, payload, conversation_id, reply_to, correlation_id, meta))

    def call(
        self, command: str, payload: Any, conversation_id: str | None = None, *, within: float | None = None
    ) -> Result:
        """Send a command, wait for its result and return it, whether it is a success or an error.

        Raises:
            NotArrived: there is no result within so many seconds.
            ServiceDied: a service under test has ended meanwhile.
        """
        return self._run(self.aio.call(command, payload, conversation_id, within=within))

    def answer(self, command: Command, payload: Any, status: str = SUCCESS) -> Result:
        """Publish the result of a command that a service has sent, in place of the service that it is for."""
        return self._run(self.aio.answer(command, payload, status))

    def expect_event(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> Event:
        """Wait for an event and return it. It may have arrived before.

        Args:
            name: its name; with ``*`` for one word and ``#`` for any number.
            where: what it says, see the class.
            conversation_id: its conversation.
            within: seconds.

        Raises:
            NotArrived: there is none. The text shows what did arrive.
            ServiceDied: a service under test has ended meanwhile.
        """
        return self._run(self.aio.expect_event(name, where=where, conversation_id=conversation_id, within=within))

    def expect_command(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> Command:
        """Wait for a command; otherwise like :meth:`expect_event`.

        Args:
            name: ``service.CommandName``, or ``CommandName`` alone.
        """
        return self._run(self.aio.expect_command(name, where=where, conversation_id=conversation_id, within=within))

    def expect_result(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> Result:
        """Wait for the result of a command; otherwise like :meth:`expect_event`.

        Args:
            name: the ``reply_to`` of the command, or the part of it after the service.
        """
        return self._run(self.aio.expect_result(name, where=where, conversation_id=conversation_id, within=within))

    def expect_log(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> LogRecord:
        """Wait for a log record on the bus; otherwise like :meth:`expect_event`.

        Args:
            name: ``service.LEVEL``, or ``LEVEL`` alone.
        """
        return self._run(self.aio.expect_log(name, where=where, conversation_id=conversation_id, within=within))

    def expect_dead_letter(
        self,
        name: str,
        *,
        where: Where | None = None,
        conversation_id: str | None = None,
        within: float | None = None,
    ) -> DeadLetter:
        """Wait for a dead letter; otherwise like :meth:`expect_event`.

        Args:
            name: the routing key with which it was published first.
        """
        return self._run(self.aio.expect_dead_letter(name, where=where, conversation_id=conversation_id, within=within))

    def publish_raw(self, exchange: str, key: str, properties: Basic.Properties, body: bytes) -> None:
        """Publish a message as it is, but for the beginning of its ``message_id``, and wait for the confirm.

        Raises:
            ConnectionError: the broker does not take it.
        """
        self._run(self.aio._publish_raw(exchange, key, properties, body))

    def arrivals(self) -> list[Arrival]:
        """Everything that was published so far, in the order of the broker; also what the test itself has sent."""
        return self._run(self.aio.arrivals())

    def service_died(self, error: BaseException) -> None:
        """Let expectations that wait, and those to come, fail at once. Any thread may call this."""
        self._loop.call_soon_threadsafe(self.aio._service_died, error)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with _no_loop(work):
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except AssertionError as error:
            raise error.with_traceback(None)  # noqa: B904 - the same error, without the way through the threads

    def _end(self) -> None:
        asyncio.run_coroutine_threadsafe(self.aio._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def _no_loop(work: Coroutine[Any, Any, Any]) -> Iterator[None]:
    """Refuse to block an event loop: the services in it could not do what is waited for."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        yield
    else:
        work.close()
        raise RuntimeError("this would block the event loop: in a coroutine, await the method of eda_bus.aio")


def _conversation(given: str | None) -> str:
    return str(uuid.uuid4()) if given is None else given
