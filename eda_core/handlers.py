"""From a message to the method of a service that handles it, and from what that does to an outcome.

What the adapters' ``Service`` classes have in common: the methods that users override. Whether they are plain functions
or coroutines is the adapter's business; here their results are only passed on.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Final

from eda_core.criticality import ERROR
from eda_core.errors import EdaError
from eda_core.values import (
    CONFIGURED,
    DEFERRED,
    DONE,
    AnyMessage,
    Command,
    Configuration,
    Event,
    Failed,
    LogRecord,
    Message,
    Outcome,
    Result,
)


class Reject(EdaError):
    """Raised by a handler to dead-letter its message at once: trying again cannot help."""


class NoHandler(EdaError):
    """A message whose name the service has no method for."""


class NotBegun(Reject):
    """User code that returned a coroutine or a generator: none of what it should do has been done, nor will it be."""


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


def outcome(message: AnyMessage, returned: object) -> Outcome:
    """What a handler that returned has come to."""
    try:
        if not returned:
            return DONE
        check_begun(returned)
    except Exception as error:  # whether an array is true, say, is an error
        return failure(error)
    if type(message) is LogRecord:
        return DONE
    return CONFIGURED if type(message) is Configuration else DEFERRED


def check_begun(returned: object) -> None:
    """See that what a handler, a hook or a timer returned is not its own work, still to be done.

    Raises:
        NotBegun: it is a coroutine or a generator.
    """
    if isinstance(returned, (Coroutine, Generator, AsyncGenerator)):
        if isinstance(returned, Coroutine):
            returned.close()  # or Python warns of it later, elsewhere
        raise NotBegun(
            f"nothing is done: what was returned is still to be run ({type(returned).__name__})",
            hint="await it where handlers are coroutines; elsewhere they have neither async nor yield",
        )


#: Characters of a reason. An error may quote a whole payload; the traceback has it.
_LONGEST_REASON: Final = 1_000


def _one_line(text: str) -> str:
    """The first line; in it nothing that would break a log's lines."""
    first = text[: _LONGEST_REASON + 1].splitlines()[0] if text else ""
    if len(first) > _LONGEST_REASON:
        first = f"{first[:_LONGEST_REASON]}…"
    return "".join(character if character.isprintable() else " " for character in first)


def failure(error: BaseException) -> Failed:
    """What a handler that raised has come to."""
    try:
        text = str(error)
    except BaseException:  # an exception of the user's whose __str__ fails, with whatever
        text = "it cannot be shown"
    if isinstance(error, NoHandler):
        return Failed(_one_line(text), permanent=True, level=ERROR)
    reason = _one_line(f"{type(error).__name__}: {text}")
    try:
        detail = "".join(traceback.format_exception(error))
    except BaseException:  # or one whose other parts fail
        detail = ""
    return Failed(reason, detail, permanent=isinstance(error, Reject))
