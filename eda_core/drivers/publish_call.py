"""One call that publishes and waits for the confirms: what is not confirmed yet, what has failed, when it gives up.

It is for adapters whose callers block. The machine tries to publish for ever. This module decides how long a caller
waits for that. It does not know what happens during the wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eda_core.checks import check_seconds
from eda_core.errors import LocalError, PublishError, PublishRefused
from eda_core.machine.effects import PublishDone


class NotConfirmed(PublishError):
    """The broker has not confirmed the message within the limits of the call.

    Attributes:
        may_arrive: the message was sent, and the broker may have it: published again, it may come twice. If false, it
            was never sent and never will be.
    """

    def __init__(self, reason: str, *, may_arrive: bool) -> None:
        sent = "it was sent, and may have arrived: published again, it may come twice"
        super().__init__(reason, hint=sent if may_arrive else "it was never sent: publish it again")
        self.may_arrive = may_arrive


class Unroutable(PublishError):
    """The broker returned a mandatory message, because no queue is bound for it. It is not stored anywhere."""


class PartlyPublished(PublishError):
    """Some messages of an iterable failed. The messages that were not taken from the iterable were not published.

    Attributes:
        taken: how many messages were taken from the iterable.
        failed: the error of each message that was taken and is not confirmed, by its place in the iterable (from 0),
            in order: :class:`NotConfirmed`, :class:`Unroutable`, :class:`~eda_core.PublishRefused`, or what the
            iterable or the check of the message raised.
    """

    def __init__(self, taken: int, failed: Mapping[int, Exception]) -> None:
        self.taken = taken
        self.failed: dict[int, Exception] = dict(sorted(failed.items()))
        first = next(iter(self.failed))
        super().__init__(
            f"{len(self.failed)} of {taken} messages are not published, the first is number {first}: "
            f"{self.failed[first]}",
            hint="see the attributes confirmed and failed",
        )

    @property
    def confirmed(self) -> list[int]:
        """The places of the confirmed messages."""
        return [place for place in range(self.taken) if place not in self.failed]


@dataclass(frozen=True, slots=True)
class PublishLimits:
    """How long a call goes on trying.

    Attributes:
        timeout: seconds without progress until the call gives up; ``None`` for no limit.
        connection_max_retries: attempts to connect in a row, after the first that fails; ``None`` for no limit.
        max_retries: attempts after any failure: no link, a lost link, a refusal by the broker. ``None`` for no limit.
        retry_delay: seconds until refused messages are sent again. Refusals within that time count as one.

    Raises:
        LocalError: a number of retries is not a whole number of 0 or more.
    """

    timeout: float | None = None
    connection_max_retries: int | None = None
    max_retries: int | None = None
    retry_delay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("connection_max_retries", "max_retries"):
            count = getattr(self, name)
            if count is not None and (type(count) is not int or count < 0):
                raise LocalError(f"{name} is {count!r}", hint="give a whole number, or None for any number")

    def of_call(self, max_retries: int | None, timeout: float | None) -> PublishLimits:
        """Return the limits of one call, with ``max_retries`` and, unless it is ``None``, with ``timeout`` in seconds.

        Raises:
            LocalError: one of them is wrong.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        return replace(self, max_retries=max_retries, timeout=self.timeout if timeout is None else timeout)


class PublishCall:
    """One call. The tickets of its messages are their places in it, from 0.

    Attributes:
        taken: how many messages it has taken.
        unconfirmed: the messages that are neither confirmed nor failed: for each whether it was sent.
        failed: the error of each message that is not confirmed and will not be.
        last_error: what went wrong last, for the text of :class:`NotConfirmed`.
        message_id: that of the last message, if there is a trace of it; "" if there is none.
    """

    def __init__(self, limits: PublishLimits, now: float) -> None:
        self.taken: int = 0
        self.unconfirmed: dict[int, bool] = {}
        self.failed: dict[int, Exception] = {}
        self.last_error: str = ""
        self.message_id: str = ""
        self._limits = limits
        self._progress_at = self._refusals_until = now
        self._failed_connects = self._failures = 0

    def accepted(self, now: float) -> None:
        """The machine has accepted the next message."""
        self.unconfirmed[self.taken] = False
        self.taken += 1
        self._progress_at = now

    def not_accepted(self, error: Exception) -> None:
        """The iterable raised instead of giving the next message, or the machine refuses the message."""
        self.failed[self.taken] = error
        self.taken += 1

    def restart_timeout(self, now: float) -> None:
        """Begin the timeout anew, after time that user code took."""
        self._progress_at = now

    def sent(self, ticket: int) -> None:
        """A message is sent, and may arrive from now on."""
        self.unconfirmed[ticket] = True

    def done(self, effect: PublishDone, now: float) -> None:
        """The machine has finished with a message."""
        was_sent = self.unconfirmed.pop(effect.ticket, False)
        self._progress_at = now
        if effect.refused and effect.error is not None:
            self.failed[effect.ticket] = PublishRefused(effect.error)
        elif effect.error is not None:
            self.failed[effect.ticket] = NotConfirmed(self.last_error or effect.error, may_arrive=was_sent)
        elif effect.returned is not None:
            reason = f"the message came back: {effect.returned}"
            self.failed[effect.ticket] = Unroutable(reason, hint="nobody subscribes to it")

    def refused(self, now: float) -> None:
        """The broker refused a message."""
        self.last_error = "the broker refuses it: is a queue full?"
        if now >= self._refusals_until:
            self._refusals_until = now + self._limits.retry_delay
            self._failures += 1

    def link_failed(self, reason: str) -> None:
        """A link was lost, or could not be opened."""
        self.last_error = reason
        self._failed_connects += 1
        self._failures += 1

    def link_open(self) -> None:
        """A link was opened."""
        self._failed_connects = 0

    def deadline(self) -> float | None:
        """When the timeout ends if nothing happens until then, in monotonic seconds."""
        timeout = self._limits.timeout
        return None if timeout is None else self._progress_at + timeout

    def exceeded_limit(self, now: float) -> str:
        """Which limit is exceeded, as the reason to give up; "" if none is."""
        limits, deadline = self._limits, self.deadline()
        connects, retries = limits.connection_max_retries, limits.max_retries
        if deadline is not None and now >= deadline:
            return f"no confirm within {limits.timeout:g} s"
        if connects is not None and self._failed_connects > connects:
            return f"no connection after {connects} retries"
        if retries is not None and self._failures > retries:
            return f"given up after {retries} retries"
        return ""

    def give_up(self, reason: str) -> None:
        """Let every unconfirmed message fail for this reason, when the machine has finished with it."""
        self.last_error = f"{reason} ({self.last_error})" if self.last_error else reason
