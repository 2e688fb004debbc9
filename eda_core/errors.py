"""The exceptions of the core.

Only wrong local calls raise (rule R1): what the broker, the network or a handler does comes out as effects.
``EdaError`` itself is never raised.
"""

from __future__ import annotations

from typing import Any, Final

#: Characters of a text that shows a peer's payload.
_LONGEST: Final = 500


class EdaError(Exception):
    """Base of everything this toolkit raises on purpose. Never raised itself.

    Attributes:
        hint: what the caller can do about it, one clause, possibly empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Its text is not what it was made of, and other processes, as of a pool, want it whole."""
        return _restored, (type(self), self.args, self.__dict__)


class LocalError(EdaError):
    """A call that the caller could have known to be wrong. Nothing has changed: the call had no effect."""


class StateError(LocalError):
    """An input that the life cycle does not allow in its present state, such as ``start`` twice."""


class PayloadError(LocalError):
    """A payload that cannot be written in the content type, or is over its limits (size, depth)."""


class BufferFull(LocalError):
    """More unsent publishes than the service was configured to keep (rule R9).

    Attributes:
        temporary: confirms will make room, and ``Room`` tells when; false for a handler, whose messages are held until
            it ends.
    """

    def __init__(self, message: str, *, hint: str = "", temporary: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.temporary = temporary


class ServiceError(EdaError):
    """What ended a service that was not asked to stop."""


class PublishError(EdaError):
    """A publish that was accepted and cannot be confirmed any more, or, of a call, that no queue is bound for."""


class CommandError(EdaError):
    """A call whose result is an error.

    Attributes:
        command: ``service.Command``.
        payload: of the result.
    """

    def __init__(self, command: str, payload: Any) -> None:
        super().__init__(f"{command}: {payload!r}"[:_LONGEST])
        self.command = command
        self.payload = payload


class CommandTimeout(EdaError, TimeoutError):
    """A call whose result did not come in time. The command may still be done, or have been done."""


class Reject(EdaError):
    """Raised by a handler to dead-letter its message at once: trying again cannot help."""


class NoHandler(EdaError):
    """A message whose name the service has no method for."""


class NotBegun(Reject):
    """User code that returned a coroutine or a generator: none of what it should do has been done, nor will it be."""


class Abandoned(BaseException):
    """Raised within user code that has to end at once, since its time is over: what it handles stays with the broker.

    It is no ``Exception``: there is nothing to handle, only to clean up.
    """


def _restored(kind: type[EdaError], args: tuple[Any, ...], attributes: dict[str, Any]) -> EdaError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
