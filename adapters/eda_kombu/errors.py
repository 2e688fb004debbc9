"""How a publish can fail."""

from __future__ import annotations

from collections.abc import Mapping

from eda_core import PublishError


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
    """Some messages of a ``publish_many`` failed. What was not taken from the iterable was not published.

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
