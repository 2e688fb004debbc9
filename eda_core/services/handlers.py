"""The methods of a service that are called with messages and at the events of its life, for users to override.

This module decides which method handles a message. It does not know whether the methods are functions or coroutines: it
only passes on what they return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType, MethodType
from typing import Any, Final

from eda_core.errors import InvalidPayload, NoHandler
from eda_core.messages.models import Misfit, Reader
from eda_core.messages.values import ERROR, AnyMessage, Command, Configuration, Event, LogRecord, Message, Result


class Handlers:
    """The methods of a service that are called with messages. Override those that you need.

    A handler returns ``None`` or ``False`` when it is done. If the handler of an event, a command or a result returns
    ``True``, the service will acknowledge the message itself, by ``manual_ack(meta["delivery_tag"])``. If the handler
    of a configuration returns ``True``, the service is configured now. Any other value from the handler of a command is
    the payload of its result, which is published with the status ``success``. From other handlers such a value means
    nothing: it is logged as a warning, and the message is acknowledged. (The service is configured by any true value
    from the handler of a configuration, as with eventail.)

    A handler raises :class:`eda_core.Reject` if trying again cannot help.

    The payload of a handler ``on_…`` may be annotated with a model: a dataclass, a ``TypedDict``, a Struct of msgspec,
    a model of pydantic, or a union, list or map of them. Then the handler is given such a value, and a message with
    another payload is rejected (docs/howto/typed-payloads.rst).

    As in eventail, the methods ``handle_…`` get ``meta`` as a keyword argument, the methods ``on_…`` by position.
    """

    #: How payloads are read, by the names of the handlers whose payloads are annotated with models.
    _eda_readers: Mapping[str, Reader] = MappingProxyType({})

    def handle(self, message: AnyMessage) -> Any:
        """Handle a message of any kind. By default this calls the method for the kind of the message.

        Raises:
            NoHandler: there is no method for the message.
        """
        return _BY_KIND[type(message)](self, message)

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
        """Handle an event. By default this calls ``on_<event>(payload, conversation_id, meta)``."""
        return self._eda_handler("event", event)(payload, conversation_id, meta)

    def handle_command(
        self, command: str, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        """Handle the command ``service.Command``.

        By default this calls ``on_<Command>(payload, conversation_id, reply_to, correlation_id, meta)``.
        """
        return self._eda_handler("command", command)(payload, conversation_id, reply_to, correlation_id, meta)

    def handle_result(
        self, key: str, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        """Handle a result with the routing key ``service.Name``.

        By default this calls ``on_<Name>(payload, conversation_id, status, correlation_id, meta)``.
        """
        return self._eda_handler("result", key)(payload, conversation_id, status, correlation_id, meta)

    def handle_config(self, configuration: str, payload: Any, meta: dict[str, Any]) -> Any:
        """Handle a configuration. By default this calls ``on_<configuration>(payload, meta)``."""
        return self._eda_handler("configuration", configuration)(payload, meta)

    def handle_log(self, key: str, payload: Any, meta: dict[str, Any]) -> Any:
        """Handle a log record. Only tools receive any. By default this does nothing."""

    def handle_returned_message(self, key: str, payload: Any, envelope: dict[str, Any]) -> Any:
        """Handle a message that the broker has returned, because no service receives it. By default this does nothing.

        Args:
            key: the routing key of the message.
            payload: its payload; ``None`` if it cannot be decoded.
            envelope: its headers, and ``reply_to`` and ``correlation_id`` if it has them.
        """

    def subscribes_to(self, kind: str, name: str) -> bool:
        """Return whether the service subscribes to messages with this routing key.

        Args:
            kind: ``"event"``, ``"command"``, ``"result"`` or ``"configuration"``.
        """
        return True

    def on_ready(self) -> Any:
        """Begin the work of the service. This is called after each connection, when the service receives messages."""

    def on_unconfigured(self) -> Any:
        """Ask for a configuration. This is called after each connection if the service subscribes to configurations.

        The service receives no other messages until it is configured. If a configuration is dead-lettered before that,
        because its handler failed or it is no message, this is called again after a while, and each time later.
        """

    def _eda_handler(self, kind: str, name: str) -> Callable[..., Any]:
        """Return the method for a message.

        Raises:
            NoHandler: there is none.
        """
        return _find(self, kind, name)

    def _eda_read_by(self, readers: Mapping[str, Reader]) -> None:
        """Give models to handlers from now on. A service without any finds its handlers as before, at no cost."""
        if readers:
            self._eda_readers = readers
            vars(self)["_eda_handler"] = MethodType(_find_reading, self)


#: Methods that are no handlers: a message named ``ready`` must not call ``on_ready``.
HOOKS: Final = ("on_ready", "on_unconfigured")


def handler_of(service: Handlers | type[Handlers], name: str) -> Callable[..., Any] | None:
    """Return the method ``on_<name>`` of a service or of its class; ``None`` if there is none."""
    method = f"on_{name}"
    handler = None if method in HOOKS else getattr(service, method, None)
    return handler if callable(handler) else None


def _find(service: Handlers, kind: str, name: str) -> Callable[..., Any]:
    word = name.rpartition(".")[2]
    handler = handler_of(service, word)
    if handler is None:
        known = sorted(
            attribute[3:]
            for attribute in dir(service)
            if attribute.startswith("on_") and attribute not in HOOKS and callable(getattr(service, attribute))
        )
        hint = f"define on_{word}(), or do not subscribe to it"
        if not service.subscribes_to(kind, name):
            hint = "the service does not subscribe to it: its binding is left over from an earlier version, and "
            hint += "'eda unbind' takes it away"
        raise NoHandler(
            f"unexpected {kind} {name}: {type(service).__name__} has handlers for {', '.join(known) or 'nothing'}",
            hint=hint,
        )
    return handler


def _find_reading(service: Handlers, kind: str, name: str) -> Callable[..., Any]:
    """Return the method for a message, which first reads the payload if it is to be a model.

    The result of a command that failed says why, and is no model of results: it is passed on as it comes.
    """
    handler = _find(service, kind, name)
    read = service._eda_readers.get(f"on_{name.rpartition('.')[2]}")
    if read is None:
        return handler

    def handle(payload: Any, *others: Any) -> Any:
        if kind == "result" and others[1] == ERROR:
            return handler(payload, *others)
        try:
            model = read(payload)
        except Misfit as misfit:
            raise InvalidPayload(str(misfit)) from None
        return handler(model, *others)

    return handle


#: For each kind of message, how its parts are passed on.
_BY_KIND: Final[dict[type[Message], Callable[[Handlers, Any], Any]]] = {
    Event: lambda service, event: service.handle_event(
        event.name, event.payload, event.conversation_id, meta=event.meta
    ),
    Command: lambda service, command: service.handle_command(
        command.name,
        command.payload,
        command.conversation_id,
        command.reply_to,
        command.correlation_id,
        meta=command.meta,
    ),
    Result: lambda service, result: service.handle_result(
        result.name, result.payload, result.conversation_id, result.status, result.correlation_id, meta=result.meta
    ),
    Configuration: lambda service, configuration: service.handle_config(
        configuration.name, configuration.payload, meta=configuration.meta
    ),
    LogRecord: lambda service, log: service.handle_log(log.name, log.payload, meta=log.meta),
}
