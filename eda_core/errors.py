"""The exceptions of the toolkit.

Only wrong local calls raise (rule R1). What the broker, the network or a handler does comes out of the machine as
effects. This module defines the exceptions; it does not know which function raises them.
"""

from __future__ import annotations

from typing import Any, Final

#: Characters of the text of a ``CommandError``, which shows a payload of any size.
_LONGEST: Final = 500


class EdaError(Exception):
    """The base class of all exceptions of this toolkit. It is never raised itself.

    Args:
        message: what is wrong.
        hint: what the caller can do about it, as one clause.

    Attributes:
        hint: the argument of this name; "" if there is none.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Let ``pickle`` restore an exception whose ``args`` are not the arguments of its ``__init__``."""
        return type(self).__new__, (type(self),), {**self.__dict__, "args": self.args}


class LocalError(EdaError):
    """A call or an argument that is wrong. The call had no effect."""


class StateError(LocalError):
    """A call that is not possible in the present state of the service, such as a second ``start``."""


class PayloadError(LocalError):
    """A payload that its content type cannot express, or that is too large or nested too deep."""


class BufferFull(LocalError):
    """A publish that was refused because too many others wait for the broker's confirms (rule R9).

    Attributes:
        temporary: whether waiting helps. If true, the effect ``BufferAvailable`` tells when there is space again. It is
            false for a handler that holds as many publishes as it may: they are sent when the handler has ended.
    """

    def __init__(self, message: str, *, hint: str = "", temporary: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.temporary = temporary


class ServiceError(EdaError):
    """The reason why a service ended although nobody asked it to stop."""


class NotReady(EdaError, TimeoutError):
    """A service was not ready in the time that somebody was willing to wait. It goes on trying."""


class NotAnswered(EdaError, TimeoutError):
    """A service did not answer a question of another thread in time: its event loop, or its thread, is busy."""


class PublishError(EdaError):
    """A publish that was accepted but will not be confirmed, or a call whose command no service receives."""


class PublishTimeout(PublishError, TimeoutError):
    """A publish whose confirm did not come in the time that its caller was willing to wait.

    Attributes:
        may_arrive: whether the message is still being sent, and may arrive. If false, it was never accepted.
    """

    def __init__(self, message: str, *, hint: str = "", may_arrive: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.may_arrive = may_arrive


class PublishRefused(PublishError):
    """A publish for which the broker has closed the channel. It is not stored anywhere, and is not sent again.

    RabbitMQ does so if the user may not publish to the topic (403), if the message is larger than the broker allows
    (406), or if the exchange is missing (404). The text has the broker's words.
    """


class CommandError(EdaError):
    """A call whose result has the status ``error``.

    Attributes:
        command: the command, as ``service.Command``.
        payload: the payload of the result.
    """

    def __init__(self, command: str, payload: Any) -> None:
        super().__init__(f"{command}: {payload!r}"[:_LONGEST])
        self.command = command
        self.payload = payload


class CommandTimeout(EdaError, TimeoutError):
    """A call whose result did not come in time. The command may have been carried out, or may still be."""


class Reject(EdaError):
    """A handler raises this to dead-letter its message at once, because trying again cannot help.

    If the message is a command, it is answered: its sender gets a result with the status ``error`` and the payload
    ``{"reason": text}``, where ``text`` is that of the exception. The message is dead-lettered when the broker has
    confirmed this result.
    """


class InvalidPayload(Reject):
    """A payload that does not fit the annotation of its handler. The text names the field, and quotes no value."""


class NoHandler(EdaError):
    """A message whose name the service has no method for."""


class NotBegun(Reject):
    """User code that returned a coroutine or a generator, which nobody runs: the work was not done."""


class Abandoned(BaseException):
    """Raised in user code that has to end at once, because its time is over. Its message stays with the broker.

    It is no ``Exception``, so that user code does not handle it by mistake: there is only something to clean up.
    """
