"""The inbox of a service: it handles each message once in effect, although the broker may deliver it again.

This module decides what a handler does with a message that it has handled before: it publishes again what it published
then, and does nothing else. Where that is kept is the business of a store (:mod:`eda_core.services.stores`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from inspect import iscoroutine
from types import TracebackType
from typing import Any, TypeVar

from eda_core.checks import check_seconds
from eda_core.drivers.handling import Run, run_of
from eda_core.errors import LocalError
from eda_core.machine.effects import Effect
from eda_core.machine.machine import Machine
from eda_core.messages.deduplication import fitting, source_of
from eda_core.messages.headers import DEDUPLICATION_ID
from eda_core.messages.values import AnyMessage, Command, Event, Result
from eda_core.services.api import ServiceApi
from eda_core.services.kept import Kept
from eda_core.services.stores import MemoryStore, Store

T = TypeVar("T")


class Inbox:
    """Lets the handlers of a service handle each message once in effect.

    In a handler write ``with database, self.inbox.once(database) as first:``, and do the work in the block if ``first``
    is true. The inbox keeps what is published in the block, in the same transaction as the work. If the message was
    handled before, ``first`` is false, and what was published then is published again, with the same
    ``deduplication_id``: the worker may have died after its commit and before the broker had it all.

    Args:
        service: the service whose handlers use it.
        store: where it is kept; by default a :class:`MemoryStore`.
    """

    def __init__(self, service: ServiceApi[Any], store: Store | None = None) -> None:
        self._service = service
        self._store: Store = MemoryStore() if store is None else store

    def once(self, transaction: Any = None, *, key: str = "") -> Once:
        """Return a context manager, also for ``async with``, that says whether the message is handled the first time.

        Leave it before the transaction is committed. Answer a command in it by ``return_success`` or ``return_error``:
        a result that the handler returns is not kept.

        Args:
            transaction: what the store writes to; for a ``DatabaseStore`` a connection.
            key: what identifies the message, for messages without a ``message_id``, or to use several blocks for one
                message. By default it is the header ``deduplication_id``, or else the ``message_id``.

        Raises, when it is entered:
            LocalError: it is not used in the handler of an event, a command or a result, or nothing identifies the
                message, or the handler has used it for this key. The text says what to do.
        """
        return Once(self._service, self._store, transaction, key)

    def forget(self, transaction: Any = None, *, older_than: float) -> Any:
        """Forget the messages that were handled more than ``older_than`` seconds ago. Returns how many these were.

        A message that comes again after that time is handled again. With a store whose methods are coroutines, await
        what this returns.

        Raises:
            LocalError: ``older_than`` is not a number of seconds, more than 0.
            StateError: the service was not run yet.
        """
        check_seconds("older_than", older_than)
        return self._store.forget(transaction, self._service.wall_time() - older_than)


class Once:
    """One use of an inbox: see :meth:`Inbox.once`."""

    def __init__(self, service: ServiceApi[Any], store: Store, transaction: Any, key: str) -> None:
        self._service = service
        self._store = store
        self._transaction = transaction
        self._own_key = key
        self._source = self._key = ""
        self._run: Run | None = None
        self._kept: Kept | None = None

    def __enter__(self) -> bool:
        stored = self._claim()
        if stored is not None and not isinstance(stored, str):
            if iscoroutine(stored):
                stored.close()
            raise LocalError("the store of this inbox has to be awaited", hint="write 'async with inbox.once(…)'")
        return self._begin(stored)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(failed=kind is not None)

    async def __aenter__(self) -> bool:
        return self._begin(await _awaited(self._claim()))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _awaited(self._end(failed=kind is not None))

    def _claim(self) -> str | Awaitable[str | None] | None:
        run, source = self._identify()
        self._run, self._source, self._key = run, source, fitting(f"{self._service.logical_service}/{source}")
        return self._store.claim(self._transaction, self._key, self._service.wall_time())

    def _identify(self) -> tuple[Run, str]:
        """Return the handler that runs, and what identifies its message."""
        run = run_of(self._service)
        if run is None or run.delivery is None or not isinstance(run.message, (Event, Command, Result)):
            raise LocalError(
                "Inbox.once() is used outside of the handler of an event, a command or a result",
                hint="a callback of a batch, a configuration and a timer have no message that is handled once",
            )
        if self._service.exclusive_queues:
            raise LocalError(
                "Inbox.once() is used in a service with exclusive queues, where each worker handles each message",
                hint="use an inbox where workers share their queues",
            )
        meta = run.message.meta
        source = (
            fitting(self._own_key) if self._own_key else source_of(meta.get(DEDUPLICATION_ID), meta.get("message_id"))
        )
        if not source:
            raise LocalError(
                f"nothing identifies {run.message.name}: it has neither a deduplication_id nor a message_id",
                hint="pass what makes it unique, such as inbox.once(…, key=payload['order'])",
            )
        if run.keep is not None or source in run.keys:
            raise LocalError(
                f"the handler of {run.message.name} uses Inbox.once() a second time",
                hint="use one block for each message, or blocks one after the other, each with a key of its own",
            )
        return run, source

    def _begin(self, stored: str | None) -> bool:
        run, service = self._run, self._service
        assert run is not None
        assert run.message is not None
        delivery, source = run.delivery, self._source
        assert delivery is not None
        run.keys += (source,)
        service.make_input_now(lambda machine, now: machine.identify(delivery, source, now))
        config = service._eda_config
        kept = Kept(run.message, stored, config.limits, config.content_type)
        for message, mandatory in kept.again():
            self._publish(message, mandatory)
        self._kept = kept
        if kept.first:
            run.keep = kept.add
        return kept.first

    def _publish(self, message: AnyMessage, mandatory: bool) -> None:
        publish = self._service.publishing(message, mandatory=mandatory, immediate=False)

        def make(machine: Machine, now: float) -> list[Effect]:
            return publish(message, machine, now)

        self._service.make_input_now(make)

    def _end(self, *, failed: bool) -> Awaitable[None] | None:
        run, kept = self._run, self._kept
        assert run is not None
        assert kept is not None
        run.keep = None
        if failed or not kept.first:
            return None  # the rollback of the transaction takes back the claim
        return self._store.keep(self._transaction, self._key, kept.record())


async def _awaited(value: T | Awaitable[T]) -> T:
    return await value if isinstance(value, Awaitable) else value
