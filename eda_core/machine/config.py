"""The configuration of a service. It is checked when it is made, so that nothing has to be checked later.

It decides which values are allowed. It does not know what they are used for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from eda_core.checks import check_seconds, is_number
from eda_core.errors import LocalError
from eda_core.machine.policy import ReconnectPolicy, RetryPolicy
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS, JSON, Limits
from eda_core.messages.routing import EXCHANGES, check_name
from eda_core.text import shortened
from eda_core.urls import check_urls, redact


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """The configuration of a service. Make it by :meth:`make`, which also checks URLs and binding keys.

    Attributes:
        urls: the URLs of the brokers, which are tried in turn, those whose last attempt failed after the others.
        service: the name of the logical service.
        events, commands, configurations, logs: binding keys. Those for commands are for results, too.
        queue_type: the type of the queues for events and commands, ``"classic"`` or ``"quorum"``; "" for the broker's
            default. Queues that exist are used as they are.
        delivery_limit: how often a quorum queue delivers a message before the broker dead-letters it by itself.
        exclusive_queues: whether to use queues that are deleted with the link. Tools do.
        exclusive_length: how many messages may wait in each of these queues; 0 for any number. The broker drops the
            oldest ones then, so that a tool that is too slow does not fill the memory of the broker.
        hostname, pid: the host and the process id of this worker, for logs and the name of the connection.
        content_type: how payloads are written, ``CBOR`` or ``JSON``.
        prefetch: how many messages may be unacknowledged at once, for each consumer; from 1 to 65535.
        heartbeat: seconds; 10 to 30 suit most networks. With 0 there are none, and nobody notices a peer that has
            vanished.
        probe_interval: for how long the broker may send nothing before it is asked whether it still works, seconds;
            0: it is never asked. A service with several URLs that has had nothing to do for twice this time has the
            broker bind a queue again, which a node that is cut off from its cluster cannot do.
        probe_timeout: how long it may take to answer that before the link is closed, seconds.
        retry_delay: the time until a publish that the broker refused is sent again, seconds.
        blocked_timeout: how long a resource alarm may last before another broker is tried, seconds.
        connect_timeout: the time from the start of connecting until the broker has answered the first declarations,
            and then for the next ones each time, seconds.
        confirm_timeout: how long a publish may wait for its confirm before the link is closed, seconds. The time of a
            resource alarm does not count. If the broker confirms nothing at all, the link is closed earlier.
        stop_timeout: how long a stop may take before unfinished messages are left to other workers, seconds.
        close_timeout: how long the link may take to close, seconds.
        window: how many publishes may be sent and not yet confirmed.
        buffer: how many publishes may be accepted and not yet confirmed. Beyond that, publishes are refused with
            ``BufferFull``, and no handler begins.
        held: how many publishes one handler may hold until it ends.
        dead_letter_exchange: the exchange to which the service publishes messages that it gives up, with the reason in
            their headers; "" to reject them, so that a policy of the broker decides.
        serialize_by: the name of a header, such as ``conversation_id``: handlers of messages with the same value there
            run one after the other in this worker. "" if no handler waits for another one.
        delayed_messages: whether the service publishes delayed messages, so that the exchanges and queues for them are
            declared.
        wait_for_configuration: whether a service that subscribes to configurations consumes nothing else until one of
            them has configured it.

    Raises:
        LocalError: a value is not allowed. The text names it.
    """

    urls: tuple[str, ...]
    service: str
    events: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    configurations: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    queue_type: str = ""
    delivery_limit: int = 20
    exclusive_queues: bool = False
    exclusive_length: int = 0
    hostname: str = "localhost"
    pid: int = 0
    content_type: str = CBOR
    limits: Limits = DEFAULT_LIMITS
    prefetch: int = 10
    heartbeat: int = 20
    probe_interval: float = 4.0
    probe_timeout: float = 4.0
    retry_delay: float = 15.0
    blocked_timeout: float = 3600.0
    connect_timeout: float = 30.0
    confirm_timeout: float = 300.0
    stop_timeout: float = 30.0
    close_timeout: float = 5.0
    window: int = 500
    buffer: int = 10_000
    held: int = 10_000
    dead_letter_exchange: str = ""
    serialize_by: str = ""
    delayed_messages: bool = False
    wait_for_configuration: bool = True
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)

    def __post_init__(self) -> None:
        _check_service(self.service)
        if check_name("dead_letter_exchange", self.dead_letter_exchange, empty=True) in EXCHANGES:
            hint = "give one of its own, such as am-dlx: a service would get its dead letters as messages"
            raise LocalError(f"dead_letter_exchange is {self.dead_letter_exchange!r}", hint=hint)
        if check_name("serialize_by", self.serialize_by, empty=True) in _NO_HEADERS:
            hint = "give the name of a header, such as conversation_id"
            raise LocalError(f"serialize_by is {self.serialize_by!r}, which is no header", hint=hint)
        if self.content_type not in (CBOR, JSON):
            raise LocalError(f"content type {self.content_type!r} is not supported", hint=f"use {CBOR} or {JSON}")
        if self.queue_type not in _QUEUE_TYPES:
            raise LocalError(
                f"queue_type is {self.queue_type!r}",
                hint='give "classic", "quorum", or "" for the default of the broker',
            )
        for name, lowest, highest in _WHOLE:
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= highest:
                raise LocalError(f"{name} is {value!r}", hint=f"give a whole number from {lowest} to {highest}")
        for name in _SECONDS:
            check_seconds(name, getattr(self, name))
        interval = self.probe_interval
        if not is_number(interval) or not 0 <= interval < float("inf"):
            raise LocalError(f"probe_interval is {interval!r}", hint="give seconds, or 0 for never")
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
        """Make a configuration from the values that a user gives.

        The arguments are the attributes of :class:`Config`. ``urls`` may be one URL.

        Raises:
            LocalError: a URL, a name, a binding key or the value of a setting is wrong. The text names it.
            TypeError: there is no setting of this name.
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
        """The name of the connections in the broker's list: ``service@host:pid``."""
        return f"{self.service}@{self.hostname}:{self.pid}"

    def __repr__(self) -> str:
        return f"Config({self.service!r}, {shortened(', '.join(map(redact, self.urls)))})"


_QUEUE_NAME = re.compile(r"[a-zA-Z0-9\-_.:@#,/+ ]+")
#: AMQP 0-9-1 allows 127 characters in the name of a queue, and ``.commands.retry.4000000000`` may be added.
_LONGEST_SERVICE = 100

#: What a message has that is no header.
_NO_HEADERS = (
    *"app_id content_encoding content_type correlation_id delivery_tag expiration message_id message_type".split(),
    *"name payload priority reply_to routing_key timestamp user_id".split(),
)

_QUEUE_TYPES = ("", "classic", "quorum")

#: The settings that are whole numbers, with the lowest and the highest value of each.
_WHOLE = (
    ("exclusive_length", 0, 2**31),
    ("prefetch", 1, 65_535),
    ("delivery_limit", 1, 1_000_000),
    ("heartbeat", 0, 65_535),
    ("window", 1, 65_535),
    ("buffer", 1, 10_000_000),
    ("held", 1, 10_000_000),
    ("pid", 0, 2**32),
)
_SECONDS = (
    "probe_timeout",
    "retry_delay",
    "blocked_timeout",
    "connect_timeout",
    "confirm_timeout",
    "stop_timeout",
    "close_timeout",
)

_KINDS = (
    ("exclusive_queues", bool),
    ("delayed_messages", bool),
    ("wait_for_configuration", bool),
    ("hostname", str),
    ("limits", Limits),
    ("retry", RetryPolicy),
    ("reconnect", ReconnectPolicy),
)


def _check_service(name: str) -> None:
    """Check that the name can be part of the name of a queue. AMQP 0-9-1 and pamqp allow few characters there."""
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
