"""From a message to the method of a service that handles it, and from what that does to an outcome.

What the adapters' ``Service`` classes have in common: the methods that users override. Whether they are plain functions
or coroutines is the adapter's business; here their results are only passed on.
"""

from __future__ import annotations

from typing import Any, Final

from eda_core.errors import NoHandler
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Message, Result


class Handlers:
    """The methods of a service that are called with messages; override those you need.

    The ``handle_…`` of a kind are given ``meta`` by that name, as eventail does, the ``on_…`` by its place.

    A truthy value returned from the handler of an event, command or result means: I will acknowledge it myself, by
    ``manual_ack(meta["delivery_tag"])``. From the handler of a configuration it means: the service is configured.
    """

    def handle(self, message: AnyMessage) -> Any:
        """Handle any message; by default passes its parts on to the method for its kind.

        Raises:
            NoHandler: there is no method for it.
        """
        return _BY_KIND[type(message)](self, message)

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
        """Handle an event; by default calls ``on_<event>(payload, conversation_id, meta)``."""
        return _find(self, "event", event)(payload, conversation_id, meta)

    def handle_command(
        self,
        command: str,
        payload: Any,
        conversation_id: str,
        reply_to: str,
        correlation_id: str,
        meta: dict[str, Any],
    ) -> Any:
        """Handle ``service.Command``; by default calls
        ``on_<Command>(payload, conversation_id, reply_to, correlation_id, meta)``."""
        return _find(self, "command", command)(payload, conversation_id, reply_to, correlation_id, meta)

    def handle_result(
        self,
        key: str,
        payload: Any,
        conversation_id: str,
        status: str,
        correlation_id: str,
        meta: dict[str, Any],
    ) -> Any:
        """Handle the result ``service.Name``; by default calls
        ``on_<Name>(payload, conversation_id, status, correlation_id, meta)``."""
        return _find(self, "result", key)(payload, conversation_id, status, correlation_id, meta)

    def handle_config(self, configuration: str, payload: Any, meta: dict[str, Any]) -> Any:
        """Handle a configuration; by default calls ``on_<configuration>(payload, meta)``."""
        return _find(self, "configuration", configuration)(payload, meta)

    def handle_log(self, key: str, payload: Any, meta: dict[str, Any]) -> Any:
        """Handle a log record (tools only); by default does nothing."""

    def handle_returned_message(self, key: str, payload: Any, envelope: dict[str, Any]) -> Any:
        """A mandatory message came back: no queue is bound for it. By default does nothing more than the log has."""

    def on_ready(self) -> Any:
        """The service consumes business messages; after each (re)connection."""

    def on_unconfigured(self) -> Any:
        """The service waits for its configuration; after each (re)connection, if it subscribes to any."""


#: Called by the life cycle; a message of that name must not call them.
_HOOKS: Final = ("on_ready", "on_unconfigured")


def _find(service: Handlers, kind: str, name: str) -> Any:
    method = f"on_{name.rpartition('.')[2]}"
    handler = None if method in _HOOKS else getattr(service, method, None)
    if not callable(handler):
        known = sorted(
            attribute[3:]
            for attribute in dir(service)
            if attribute.startswith("on_") and attribute not in _HOOKS and callable(getattr(service, attribute))
        )
        raise NoHandler(
            f"unexpected {kind} {name}: {type(service).__name__} has handlers for {', '.join(known) or 'nothing'}",
            hint="check the subscriptions",
        )
    return handler


def _event(service: Handlers, message: Event) -> Any:
    return service.handle_event(message.name, message.payload, message.conversation_id, meta=message.meta)


def _command(service: Handlers, message: Command) -> Any:
    return service.handle_command(
        message.name,
        message.payload,
        message.conversation_id,
        message.reply_to,
        message.correlation_id,
        meta=message.meta,
    )


def _result(service: Handlers, message: Result) -> Any:
    return service.handle_result(
        message.name,
        message.payload,
        message.conversation_id,
        message.status,
        message.correlation_id,
        meta=message.meta,
    )


def _configuration(service: Handlers, message: Configuration) -> Any:
    return service.handle_config(message.name, message.payload, meta=message.meta)


def _log(service: Handlers, message: LogRecord) -> Any:
    return service.handle_log(message.name, message.payload, meta=message.meta)


_BY_KIND: Final[dict[type[Message], Any]] = {
    Event: _event,
    Command: _command,
    Result: _result,
    Configuration: _configuration,
    LogRecord: _log,
}
