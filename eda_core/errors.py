"""The exceptions of the core.

Only wrong local calls raise (rule R1): what the broker, the network or a handler does comes out as effects.
``EdaError`` itself is never raised.
"""

from __future__ import annotations


class EdaError(Exception):
    """Base of everything this toolkit raises on purpose. Never raised itself.

    Attributes:
        hint: what the caller can do about it, one clause, possibly empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.hint = hint


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
    """A publish that was accepted and can no longer be confirmed: the service stopped before the broker answered."""
