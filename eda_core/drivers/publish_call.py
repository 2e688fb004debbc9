"""A caller that publishes and waits for the confirms: what is open, what has failed, and when to give up.

For adapters whose callers block. The machine tries for ever; whether somebody waits so long is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eda_core.errors import LocalError, PublishError
from eda_core.machine.effects import Publish


class NotConfirmed(PublishError):
    """The broker has not confirmed the message, in the time or in the attempts that it was given.

    Attributes:
        may_arrive: it was sent and may have been taken; whoever publishes it again may double it. If false, it was
            never sent, and never will be.
    """

    def __init__(self, reason: str, *, may_arrive: bool) -> None:
        sent = "it was sent, and may have arrived: published again, it may come twice"
        super().__init__(reason, hint=sent if may_arrive else "it was never sent: publish it again")
        self.may_arrive = may_arrive


class Unroutable(PublishError):
    """A mandatory message was returned: no queue is bound for it. It is not stored anywhere."""


class PartlyPublished(PublishError):
    """Some of many messages failed. What was not taken from the iterable was not published.

    Attributes:
        taken: how many messages were taken from the iterable.
        failed: why, for each message taken that is not confirmed, by its place in the iterable (from 0), in order:
            :class:`NotConfirmed`, :class:`Unroutable`, or what the iterable or the check of the message raised.
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
        """The places of the messages that the broker has."""
        return [place for place in range(self.taken) if place not in self.failed]


@dataclass(frozen=True, slots=True)
class Patience:
    """What a caller gives its publishes.

    Attributes:
        timeout: seconds without any step forward; ``None`` for any time.
        connection_max_retries: attempts to connect in a row, after the first that fails; ``None`` for any number.
        max_retries: how often to try again after any failure (no link, a lost one, a refusal); ``None`` likewise.
        retry_delay: seconds until refused publishes are sent again; refusals within that count as one.

    Raises:
        LocalError: a number of retries is not one.
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


class Waiting:
    """One call. Its tickets are the places of its messages, from 0.

    Attributes:
        taken: how many messages it has come to.
        open: those that are neither confirmed nor failed, with their message ids once they were sent.
        failed: why the others are not confirmed.
        trouble: what has gone wrong last.
    """

    def __init__(self, patience: Patience, now: float) -> None:
        self.taken: int = 0
        self.open: dict[int, str | None] = {}
        self.failed: dict[int, Exception] = {}
        self.trouble: str = ""
        self._patience = patience
        self._progress = self._refusals_until = now
        self._links = self._failures = 0

    def accepted(self, now: float) -> None:
        """The machine has taken the message with the next ticket."""
        self.open[self.taken] = None
        self.taken += 1
        self._progress = now

    def resumed(self, now: float) -> None:
        """It goes on, after what took its time elsewhere."""
        self._progress = now

    def wrong(self, error: Exception) -> None:
        """There is no next message, or it cannot be sent."""
        self.failed[self.taken] = error
        self.taken += 1

    def sent(self, publish: Publish) -> None:
        """It may arrive from now on. That it came back on an earlier link, unconfirmed, does not count any more."""
        if publish.ticket is not None:
            self.open[publish.ticket] = publish.properties.message_id
            self.failed.pop(publish.ticket, None)

    def settled(self, ticket: int, error: str | None, now: float) -> None:
        """The machine's ``Settled``."""
        message_id = self.open.pop(ticket, None)
        self._progress = now
        if error is not None:
            self.failed[ticket] = NotConfirmed(self.trouble or error, may_arrive=message_id is not None)

    def returned(self, message_id: str | None, reason: str) -> None:
        """A mandatory message came back; its confirm follows."""
        for ticket, each in self.open.items():
            if each is not None and each == message_id:
                self.failed[ticket] = Unroutable(f"the message came back: {reason}", hint="nobody subscribes to it")

    def refused(self, now: float) -> None:
        """The broker has refused a message."""
        self.trouble = "the broker refuses it: is a queue full?"
        if now >= self._refusals_until:
            self._refusals_until = now + self._patience.retry_delay
            self._failures += 1

    def link_failed(self, reason: str) -> None:
        """There is no link, or not any more."""
        self.trouble = reason
        self._links += 1
        self._failures += 1

    def link_open(self) -> None:
        """There is one."""
        self._links = 0

    def deadline(self) -> float | None:
        """When patience ends, monotonic seconds, if nothing happens until then."""
        timeout = self._patience.timeout
        return None if timeout is None else self._progress + timeout

    def hopeless(self, now: float) -> bool:
        """Whether to wait no longer; ``trouble`` then says why."""
        patience, deadline = self._patience, self.deadline()
        connects, retries = patience.connection_max_retries, patience.max_retries
        if deadline is not None and now >= deadline:
            reason = f"no confirm within {patience.timeout:g} s"
        elif connects is not None and self._links > connects:
            reason = f"no connection after {connects} retries"
        elif retries is not None and self._failures > retries:
            reason = f"given up after {retries} retries"
        else:
            return False
        self.give_up(reason)
        return True

    def give_up(self, reason: str) -> None:
        """What is still open will be settled as failed, for this reason."""
        self.trouble = f"{reason} ({self.trouble})" if self.trouble else reason
