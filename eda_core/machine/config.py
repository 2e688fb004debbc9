"""The configuration of a service: checked once, when it is made, so that nothing has to be checked later."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from eda_core.checks import check_seconds
from eda_core.errors import LocalError
from eda_core.machine.policy import ReconnectPolicy, RetryPolicy
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS, JSON, Limits
from eda_core.messages.routing import check_name
from eda_core.text import shortened
from eda_core.urls import check_urls, redact


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """All that a service is told before it starts. :meth:`make` is the way to get one from what users write.

    Attributes:
        urls: brokers, tried in turn.
        service: name of the logical service.
        events, commands, configurations, logs: binding keys.
        exclusive_queues: use queues that vanish with the link, for tools.
        hostname, pid: of this worker, for logs and the connection's name.
        content_type: of what it publishes.
        prefetch: messages unacknowledged at once, per consumer; from 1 to 65535.
        heartbeat: seconds; 10 to 30 suit most networks. 0 turns them off, and with them the detection of dead peers.
        retry_delay: seconds until a publish that the broker refused is sent again.
        blocked_timeout: seconds a resource alarm may last before another broker is tried.
        connect_timeout: seconds from starting to connect until consuming.
        confirm_timeout: seconds the oldest publish may stay unconfirmed, while not blocked, before the link is given
            up.
        stop_timeout: seconds until a stop leaves what is unfinished to other workers, and closes the link.
        close_timeout: seconds for the link to close.
        window: publishes unconfirmed at once.
        buffer: publishes accepted and not yet confirmed. Over that callers are refused, and no handler begins.
        held: publishes that one handler may hold until it ends.
        wait_for_configuration: a service that subscribes to configurations consumes nothing else until one of them has
            configured it.
    """

    urls: tuple[str, ...]
    service: str
    events: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    configurations: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    exclusive_queues: bool = False
    hostname: str = "localhost"
    pid: int = 0
    content_type: str = CBOR
    limits: Limits = DEFAULT_LIMITS
    prefetch: int = 10
    heartbeat: int = 20
    retry_delay: float = 15.0
    blocked_timeout: float = 3600.0
    connect_timeout: float = 30.0
    confirm_timeout: float = 300.0
    stop_timeout: float = 30.0
    close_timeout: float = 5.0
    window: int = 500
    buffer: int = 10_000
    held: int = 10_000
    wait_for_configuration: bool = True
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)

    def __post_init__(self) -> None:
        _check_service(self.service)
        if self.content_type not in (CBOR, JSON):
            raise LocalError(f"content type {self.content_type!r} is not supported", hint=f"use {CBOR} or {JSON}")
        for name, lowest, highest in _WHOLE:
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= highest:
                raise LocalError(f"{name} is {value!r}", hint=f"give a whole number from {lowest} to {highest}")
        for name in _SECONDS:
            check_seconds(name, getattr(self, name))
        for name, kind in _KINDS:
            if not isinstance(getattr(self, name), kind):
                raise LocalError(f"{name} is {getattr(self, name)!r}", hint=f"give a {kind.__name__}")

    @classmethod
    def make(
        cls,
        urls: str | Sequence[str],
        service: str,
        events: Sequence[str] = (),
        commands: Sequence[str] = (),
        configurations: Sequence[str] = (),
        logs: Sequence[str] = (),
        **settings: object,
    ) -> Self:
        """Check and normalize what a user passed; ``settings`` are the other attributes.

        Raises:
            LocalError: something is wrong with a URL, a name, a binding key or the value of a setting.
            TypeError: there is no such setting.
        """
        return cls(
            check_urls(urls),
            service,
            _keys("event_routing_keys", events),
            _keys("command_routing_keys", commands),
            _keys("config_routing_keys", configurations),
            _keys("log_routing_keys", logs),
            **settings,  # type: ignore[arg-type]  # names and values are checked by __init__ and __post_init__
        )

    @property
    def connection_name(self) -> str:
        """``service@host:pid``, as operators see it in the broker's list of connections."""
        return f"{self.service}@{self.hostname}:{self.pid}"

    def __repr__(self) -> str:
        return f"Config({self.service!r}, {shortened(', '.join(map(redact, self.urls)))})"


_QUEUE_NAME = re.compile(r"[a-zA-Z0-9\-_.:@#,/+ ]+")
#: A queue's name has 127 characters at most; ``.commands.retry.4000000000`` comes behind.
_LONGEST_SERVICE = 100

#: Settings that are whole numbers, with their bounds.
_WHOLE = (
    ("prefetch", 1, 65_535),
    ("heartbeat", 0, 65_535),
    ("window", 1, 65_535),
    ("buffer", 1, 10_000_000),
    ("held", 1, 10_000_000),
    ("pid", 0, 2**32),
)
_SECONDS = ("retry_delay", "blocked_timeout", "connect_timeout", "confirm_timeout", "stop_timeout", "close_timeout")

_KINDS = (
    ("exclusive_queues", bool),
    ("wait_for_configuration", bool),
    ("hostname", str),
    ("limits", Limits),
    ("retry", RetryPolicy),
    ("reconnect", ReconnectPolicy),
)


def _check_service(name: str) -> None:
    """It becomes part of names of queues, and pamqp keeps to the characters that AMQP 0-9-1 allows in those."""
    check_name("the logical service's name", name)
    if len(name) > _LONGEST_SERVICE or not _QUEUE_NAME.fullmatch(name):
        raise LocalError(
            f"the logical service's name {name[:40]!r} cannot be part of a queue's name",
            hint=f"use letters, digits and -_.:@#,/+ and at most {_LONGEST_SERVICE} characters",
        )


def _keys(what: str, keys: Sequence[str]) -> tuple[str, ...]:
    if isinstance(keys, str):
        raise LocalError(f"{what} is the text {keys!r}", hint=f"pass a list: [{keys!r}]")
    if not isinstance(keys, Sequence):
        raise LocalError(f"{what} is {type(keys).__name__}", hint="pass a list of routing keys")
    return tuple(check_name(f"a key of {what}", key, empty=True) for key in keys)
