"""The spans of one service, and how their context travels in the headers of messages.

This module decides how spans are named, which attributes they have, and which span is whose parent. It does not know
when a handler begins or a message is published: the core tells it (:mod:`eda_core.drivers.tracing`).

Source: OpenTelemetry's semantic conventions for messaging spans and for RabbitMQ, version 1.40.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TracerProvider

from eda_core import AnyMessage, Command, Configuration, Event, LogRecord, Result
from eda_core._version import __version__
from eda_core.drivers import tracing
from eda_core.machine.identifiers import TAG_MASK
from eda_core.machine.outcomes import Failed, failure
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS, queue_name
from eda_core.services import EndpointApi, ServiceApi
from eda_core.urls import Address

LOGGER: Final = logging.getLogger("eda_otel")

_EXCHANGES: Final[Mapping[type, str]] = {
    Event: EVENTS,
    Command: COMMANDS,
    Result: COMMANDS,
    Configuration: CONFIGURATIONS,
}
#: The last word of the routing key for the results of a worker's calls: there is one for each worker.
_WORKER: Final = re.compile(r"[0-9a-f]{12}")
_SEND: Final = {
    "messaging.system": "rabbitmq",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
}
_PROCESS: Final = {
    "messaging.system": "rabbitmq",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
}
_CALL: Final = {"messaging.system": "rabbitmq", "messaging.operation.name": "call"}


def instrument(service: ServiceApi[Any] | EndpointApi, tracer_provider: TracerProvider | None = None) -> None:
    """Let OpenTelemetry trace a service or an endpoint: its handlers, its publishes and its calls.

    The context travels in the headers of messages. The propagator is the global one: by default it writes
    ``traceparent``, ``tracestate`` and ``baggage``. Headers whose names begin with ``x-`` are left out, because the
    broker does not take them from publishers.

    Args:
        service: of any adapter. Call this before it runs. An endpoint is traced from now on.
        tracer_provider: who makes the spans; by default the global one.

    Raises:
        StateError: the service runs already.
    """
    service.trace_by(Tracing(service, tracer_provider))


class Tracing:
    """The traces of one service or endpoint, see :class:`eda_core.drivers.Tracing`.

    Args:
        service: whose handlers and publishes are traced.
        tracer_provider: who makes the spans; by default the global one.
    """

    def __init__(self, service: ServiceApi[Any] | EndpointApi, tracer_provider: TracerProvider | None = None) -> None:
        self._service = service
        #: The logical service by which the queues are named; "" if they have no names.
        self._queues = ""
        #: Attributes of the link; none before the first one is opened.
        self._tracer = trace.get_tracer("eda_otel", __version__, tracer_provider)
        self._broker: dict[str, Any] = {}
        self._told = False

    def connecting(self, url: str, name: str) -> None:
        address, service = Address.of(url), self._service
        if isinstance(service, ServiceApi) and not service.exclusive_queues:
            self._queues = service.logical_service
        self._broker = {"server.address": address.host, "server.port": address.port, "messaging.client.id": name}

    def handling(self, message: AnyMessage, attempt: int) -> tracing.Span:
        made = _HandlerSpan()
        if isinstance(message, LogRecord):
            return made
        try:
            exchange = _EXCHANGES[type(message)]
            queue = queue_name(self._queues, exchange) if self._queues and exchange != CONFIGURATIONS else ""
            attributes = self._attributes(_PROCESS, message, queue)
            meta = message.meta
            if type(tag := meta.get("delivery_tag")) is int:
                attributes["messaging.rabbitmq.message.delivery_tag"] = tag & TAG_MASK
            if type(identity := meta.get("message_id")) is str:
                attributes["messaging.message.id"] = identity
            if attempt:
                attributes["eda.attempt"] = attempt
            context = _extracted(meta)
            span = self._tracer.start_span(_name("process", attributes), context, SpanKind.CONSUMER, attributes)
            made.begin(span, trace.set_span_in_context(span, context))
        except Exception:
            self._tell()
        return made

    def handling_batch(self, metas: Sequence[Mapping[str, Any]]) -> tracing.Span:
        made = _HandlerSpan()
        try:
            attributes = {**_PROCESS, **self._broker, "messaging.batch.message_count": len(metas)}
            queue = f":{queue_name(self._queues, EVENTS)}" if self._queues else ""
            attributes["messaging.destination.name"] = f"{EVENTS}{queue}"
            links = [
                Link(context, {"messaging.message.id": identity} if type(identity) is str else {})
                for context, identity in ((_span_context(meta), meta.get("message_id")) for meta in metas)
                if context.is_valid
            ]
            span = self._tracer.start_span(_name("process", attributes), None, SpanKind.CONSUMER, attributes, links)
            made.begin(span, trace.set_span_in_context(span))
        except Exception:
            self._tell()
        return made

    def sending(self, message: AnyMessage, *, held: bool, within: tracing.Span | None = None) -> _Sending:
        made = _Sending(message)
        try:
            parent = within.context if isinstance(within, _HandlerSpan) else get_current()
            attributes = self._attributes(_SEND, message)
            attributes["eda.held"] = held
            meta = self._send(made, parent, attributes, message.meta)
            if meta is not message.meta:
                made.message = replace(message, meta=meta)
        except Exception:
            self._tell()
        return made

    def calling(self, message: Command) -> _Sending:
        made = _Sending(message)
        try:
            attributes = self._attributes(_CALL, message)
            call = self._tracer.start_span(_name("call", attributes), None, SpanKind.CLIENT, attributes)
            made.spans.append(call)
            attributes = self._attributes(_SEND, message)
            meta = self._send(made, trace.set_span_in_context(call), attributes, message.meta)
            made.message = replace(message, meta=meta)
        except Exception:
            self._tell()
        return made

    def sending_many(self, meta: dict[str, Any]) -> _Sending:
        made = _Sending(None, meta)
        try:
            attributes = {**_SEND, **self._broker, "messaging.destination.name": EVENTS}
            made.meta = self._send(made, get_current(), attributes, meta)
        except Exception:
            self._tell()
        return made

    def _send(
        self, made: _Sending, parent: Context, attributes: dict[str, Any], meta: dict[str, Any]
    ) -> dict[str, Any]:
        """Begin the span of a publish. Return the ``meta`` with its context, or as it is, if it has a context."""
        given = _span_context(meta)
        links = [Link(given)] if given.is_valid else None
        span = self._tracer.start_span(_name("send", attributes), parent, SpanKind.PRODUCER, attributes, links)
        made.spans.append(span)
        if not self._broker:
            made.broker = lambda: self._broker
        if links:
            return meta
        headers: dict[str, Any] = {}
        propagate.inject(headers, trace.set_span_in_context(span, parent))
        return {**meta, **{name: value for name, value in headers.items() if not name.startswith("x-")}}

    def _attributes(self, operation: Mapping[str, Any], message: AnyMessage, queue: str = "") -> dict[str, Any]:
        name = message.name
        attributes = {
            **operation,
            **self._broker,
            "messaging.destination.name": f"{_EXCHANGES[type(message)]}:{name}{queue and f':{queue}'}",
            "messaging.rabbitmq.destination.routing_key": name,
        }
        if message.conversation_id:
            attributes["messaging.message.conversation_id"] = message.conversation_id
        if isinstance(message, Result):
            attributes["eda.result.status"] = message.status
            if _WORKER.fullmatch(name.rpartition(".")[2]):
                attributes["messaging.destination.temporary"] = True
        return attributes

    def _tell(self) -> None:
        """Log, once, what is wrong: a message must not suffer from its trace."""
        if not self._told:
            self._told = True
            LOGGER.warning("a span could not be made; this is told once", exc_info=True)


class _HandlerSpan:
    """The span of a handler or of a callback. Until :meth:`begin` it does nothing."""

    def __init__(self) -> None:
        self._span: trace.Span | None = None
        self._token: Any = None
        self.context = Context()

    def begin(self, span: trace.Span, context: Context) -> None:
        self._span, self.context, self._token = span, context, attach(context)

    def left(self, error: BaseException | None) -> None:
        # A coroutine that is thrown away is closed anywhere, and its own context goes with it.
        if self._token is not None and not isinstance(error, GeneratorExit):
            detach(self._token)
        if error is not None:
            self.end(failure(error))

    def end(self, failure: Failed | None) -> None:
        span, self._span = self._span, None
        if span is not None:
            _end(span, failure)


class _Sending:
    """A publish: its span, or, for a call, that of the call and that of its command.

    Attributes:
        spans: those that have not ended. The last one is that of the message.
        broker: returns attributes that were not known when they began.
    """

    def __init__(self, message: Any, meta: dict[str, Any] | None = None) -> None:
        self.message = message
        self.meta: dict[str, Any] = meta or {}
        self.spans: list[trace.Span] = []
        self.broker: Callable[[], dict[str, Any]] | None = None

    def accepted(self, message_id: str) -> None:
        if self.spans:
            self.spans[-1].set_attribute("messaging.message.id", message_id)
        if len(self.spans) > 1:  # the command is sent, and the call waits for its result
            _end(self.spans.pop(), None)

    def counted(self, messages: int) -> None:
        for span in self.spans:
            span.set_attribute("messaging.batch.message_count", messages)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        failed = None if error is None else failure(error)
        if self.broker is not None:  # an endpoint connects when it publishes
            for span in self.spans:
                span.set_attributes(self.broker())
        while self.spans:
            _end(self.spans.pop(), failed)


class _Headers(Getter[Mapping[str, Any]]):
    """Reads headers. Peers may have written anything into them."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        return [value] if type(value) is str else None

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return list(carrier)


_HEADERS: Final = _Headers()


def _extracted(meta: Mapping[str, Any]) -> Context:
    """Return the context that a message has brought. What is current where it is handled does not belong to it."""
    return propagate.extract(meta, Context(), _HEADERS)


def _span_context(meta: Mapping[str, Any]) -> trace.SpanContext:
    """Return the context of the span that a message has in its headers; an invalid one if it has none."""
    if not meta:
        return trace.INVALID_SPAN_CONTEXT
    return trace.get_current_span(_extracted(meta)).get_span_context()


def _name(operation: str, attributes: Mapping[str, Any]) -> str:
    """Return the name of a span. There should be few of them, so no key of a single worker is in it."""
    destination: str = attributes["messaging.destination.name"]
    if "messaging.destination.temporary" in attributes:
        destination = destination.partition(":")[0]
    return f"{operation} {destination}"


def _end(span: trace.Span, failed: Failed | None) -> None:
    try:
        if failed is not None:
            kind = failed.error or "_OTHER"
            text = failed.reason.removeprefix(f"{kind}: ")
            span.set_attribute("error.type", kind)
            described = {"exception.type": kind, "exception.message": text, "exception.stacktrace": failed.detail}
            span.add_event("exception", described)
            span.set_status(Status(StatusCode.ERROR, failed.reason))
        span.end()
    except Exception:
        LOGGER.warning("a span could not be ended", exc_info=True)
