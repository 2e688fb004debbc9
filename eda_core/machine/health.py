"""What a service does at one moment, as a value for people and probes. It decides nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHealth:
    """The link of a service to the broker.

    Attributes:
        url: the URL of the link, or of the next attempt to connect, without the password.
        broker: the name and the version of the broker of the last link; "" if there was none, or it did not say so.
        open: whether the link is open, so that messages come and go.
        seconds: for how long it has been open; or, if it is not, since when there is none. ``None`` before the first
            link.
        number: the number of the link, or of the next one. Each attempt to connect has one.
        opened: how many links were opened so far.
        lost: how many open links were lost so far.
        blocked: for how long the broker has blocked publishing, seconds; ``None`` if it does not.
    """

    url: str
    broker: str
    open: bool
    seconds: float | None
    number: int
    opened: int
    lost: int
    blocked: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastError:
    """The last thing that a service has reported as a warning or as something worse.

    Attributes:
        text: what has happened, in one line, as it is in the local log. Text of exceptions of handlers may be in it.
        event: the name of what has happened (docs/log-events.rst).
        level: the syslog severity, from 0 to 4.
        seconds: how long ago that was.
    """

    text: str
    event: str
    level: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a service does at one moment. All times are in seconds until that moment.

    Attributes:
        service: the name of the logical service.
        worker: the host and the process id of the worker, as ``host:pid``.
        state: the state of the link: ``idle`` (the service was not run), ``connecting``, ``declaring``, ``binding``,
            ``open``, ``draining`` (a stop waits for what runs), ``closing``, ``backoff`` (no link, the next attempt
            comes), or ``stopped``.
        ready: whether the service receives its messages.
        configured: whether it is configured, or need not be. It is false without a link.
        stopping: whether a stop was asked for.
        link: the link.
        queues: the queues that are declared on the open link.
        in_flight: deliveries that are not settled.
        running: handlers that run.
        paused: deliveries in flight whose handler waits for space in the outbox, or for its turn.
        oldest_seconds: for how long the oldest delivery in flight has been so; ``None`` if there is none.
        oldest_name: the name of its message; "" if there is none.
        waiting: messages that were accepted for publishing, are not held by a handler, and are not confirmed.
        held: messages that handlers hold until they succeed.
        calls: calls that wait for their results.
        callers: callers that wait for space for a publish or a call.
        last_error: the last warning or error; ``None`` if there was none.
    """

    service: str
    worker: str
    state: str
    ready: bool
    configured: bool
    stopping: bool
    link: LinkHealth
    queues: tuple[str, ...]
    in_flight: int
    running: int
    paused: int
    oldest_seconds: float | None
    oldest_name: str
    waiting: int
    held: int
    calls: int
    callers: int = 0
    last_error: LastError | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can express. The names are those of the attributes."""
        return {**asdict(self), "queues": list(self.queues)}
