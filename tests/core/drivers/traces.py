"""A ``Tracing`` that notes what it is told, and gives each message a header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from eda_core.drivers.tracing import Span
from eda_core.machine.outcomes import Failed
from eda_core.messages.values import AnyMessage, Command

#: The span in whose context code runs, as a library for traces keeps it.
current: ContextVar[str] = ContextVar("current", default="")


class NotedSpan:
    """Attributes:
    name: of the message.
    ended: how often it has ended.
    """

    def __init__(self, traces: Traces, name: str) -> None:
        self._traces, self.name, self.ended = traces, name, 0
        self._token = current.set(name)

    def left(self, error: BaseException | None) -> None:
        current.reset(self._token)
        self._traces.told.append(("left", self.name, type(error).__name__))
        if error is not None:
            self.end(None)

    def end(self, failure: Failed | None) -> None:
        self.ended += 1
        if self.ended == 1:
            self._traces.told.append(("end", self.name, failure.reason if failure else ""))


class NotedSending:
    def __init__(self, traces: Traces, what: tuple[Any, ...], message: Any = None, meta: Any = None) -> None:
        self._traces, self._what = traces, what
        self.message = message
        self.meta: dict[str, Any] = meta

    def accepted(self, message_id: str) -> None:
        self._traces.told.append(("accepted", message_id))

    def counted(self, messages: int) -> None:
        self._traces.told.append(("counted", messages))

    def __enter__(self) -> NotedSending:
        self._traces.told.append(self._what)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._traces.told.append(("sent", type(error).__name__))


class Traces:
    """Attributes:
    told: what it was told, in order.
    spans: of handlers.
    """

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.spans: list[NotedSpan] = []

    def connecting(self, url: str, name: str) -> None:
        self.told.append(("connecting", url, name))

    def handling(self, message: AnyMessage, attempt: int) -> NotedSpan:
        self.told.append(("handling", message.name, attempt))
        self.spans.append(NotedSpan(self, message.name))
        return self.spans[-1]

    def handling_batch(self, metas: Sequence[Mapping[str, Any]]) -> NotedSpan:
        self.told.append(("batch", len(metas)))
        self.spans.append(NotedSpan(self, "batch"))
        return self.spans[-1]

    def sending(self, message: AnyMessage, *, held: bool, within: Span | None = None) -> NotedSending:
        parent = within.name if isinstance(within, NotedSpan) else current.get()
        copy = replace(message, meta={**message.meta, "trace": parent})
        return NotedSending(self, ("sending", message.name, "held" if held else "", parent), copy)

    def calling(self, message: Command) -> NotedSending:
        copy = replace(message, meta={**message.meta, "trace": current.get()})
        return NotedSending(self, ("calling", message.name, message.conversation_id, current.get()), copy)

    def sending_many(self, meta: dict[str, Any]) -> NotedSending:
        return NotedSending(self, ("sending many",), None, {**meta, "trace": current.get()})
