"""The words of the conformance kit: what a check asks of the one who runs it.

A check is a generator. It yields requests, one at a time, and is sent what each came to. It does no I/O itself, so
that any kind of adapter can be put to it: with coroutines, with callbacks, in this thread or in another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import cbor2
from pamqp.commands import Basic

from eda_core.machine.policy import ReconnectPolicy
from eda_core.messages.codec import CBOR

Script = Generator["Request", Any, None]
#: What a handler does: a generator function that gets the handler's arguments, and returns what the handler returns.
Handler = Callable[..., Generator["Step", None, Any]]

# What a worker may be told to connect to
BROKER: Final = "broker"
NOBODY: Final = "nobody"  # a port of this machine that refuses connections
WRONG_PASSWORD: Final = "wrong password"
#: What the password is then; it must not be shown to anybody.
THE_WRONG_PASSWORD: Final = "open-sesame"

DEAD_LETTERS: Final = "dead-letters"
"""The queue of the broker under test where everything that is dead-lettered can be found."""


class NotConforming(AssertionError):
    """An adapter does not do what is promised."""


@dataclass(eq=False, slots=True)
class Worker:
    """A service to run.

    Attributes:
        name: of the logical service.
        events, commands, configurations, logs: its subscriptions.
        handlers: by the name behind ``on_``, ``ready`` and ``unconfigured`` included.
        settings: class attributes.
        urls: BROKER, NOBODY, WRONG_PASSWORD.
        exclusive: it calls ``use_exclusive_queues()``.
        json: it calls ``use_json()``.
    """

    name: str
    events: Sequence[str] = ()
    commands: Sequence[str] = ()
    configurations: Sequence[str] = ()
    logs: Sequence[str] = ()
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    urls: Sequence[str] = (BROKER,)
    exclusive: bool = False
    json: bool = False

    def attributes(self) -> dict[str, Any]:
        """The class attributes of the service: those of the check, on top of some that make it quick."""
        return {"RECONNECT_POLICY": ReconnectPolicy(base=0.05, cap=0.4), "RETRY_DELAY": 0.05, **self.settings}


# What a handler may yield


class Call:
    """Call a method of the service: ``Call("publish_event", "Happened", 1, "c")``."""

    __slots__ = ("arguments", "method", "named")

    def __init__(self, method: str, *arguments: Any, **named: Any) -> None:
        self.method: str = method
        self.arguments: tuple[Any, ...] = arguments
        self.named: dict[str, Any] = named


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait until the check opens the gate; a gate stays open."""

    gate: str


@dataclass(frozen=True, slots=True)
class Say:
    """Note something, as each call of a handler is noted anyway."""

    what: str


Step = Call | Hold | Say

# What a check may yield. "Wait" means for as long as the runner has patience; then the check has failed.


@dataclass(frozen=True, slots=True)
class Start:
    """Run the worker, and wait until it has noted ``until``, if that is given."""

    worker: Worker
    until: str | None = "ready"


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask it to stop, within ``timeout`` seconds if given."""

    worker: Worker
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """Wait for its end; comes to the text of its error, or None.

    Attributes:
        seconds: it has to come by then, if given.
    """

    worker: Worker
    seconds: float | None = None


class Do(Call):
    """Call a method of the service, from outside its handlers, and wait until that has returned."""

    __slots__ = ("worker",)

    def __init__(self, worker: Worker, method: str, *arguments: Any, **named: Any) -> None:
        super().__init__(method, *arguments, **named)
        self.worker: Worker = worker


class Begin(Do):
    """Call it and do not wait."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Join:
    """Wait until everything that was begun has returned."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Seen:
    """Wait until the worker has noted ``what`` ``count`` times; comes to the arguments of each."""

    worker: Worker
    what: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Notes:
    """Comes to the names of everything the worker has noted so far, in order."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Open:
    """Let the handlers of the worker pass that wait at the gate."""

    worker: Worker
    gate: str


@dataclass(frozen=True, slots=True)
class Declare:
    """Declare a durable queue, as an operator or another service would, and bind it to a topic exchange."""

    queue: str
    exchange: str = ""
    key: str = "#"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a queue."""

    queue: str


@dataclass(frozen=True, slots=True)
class Put:
    """Publish a message as it is, and wait until the broker has confirmed it."""

    exchange: str
    key: str
    body: bytes
    properties: Basic.Properties


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was taken out of a queue."""

    exchange: str
    key: str
    body: bytes
    properties: Basic.Properties
    redelivered: bool

    @property
    def payload(self) -> Any:
        """The body, from CBOR."""
        return cbor2.loads(self.body)

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.properties.headers or {}


@dataclass(frozen=True, slots=True)
class Take:
    """Wait for a message in the queue and take it out; comes to a ``Taken``."""

    queue: str


@dataclass(frozen=True, slots=True)
class Count:
    """How many messages of the queue no consumer has, or None if there is no such queue.

    Attributes:
        until: wait until it is that many.
    """

    queue: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Links:
    """Wait until so many connections of workers have been accepted since the check began."""

    count: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the connections of all workers, without a word."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Forward nothing more, in either direction, on the present connections of workers; they stay open."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Raise or clear the broker's memory alarm."""

    on: bool


@dataclass(frozen=True, slots=True)
class Restart:
    """Kill the broker, and start it again on its data."""


Request = (
    Start
    | Stop
    | Ended
    | Do
    | Join
    | Seen
    | Notes
    | Open
    | Declare
    | Delete
    | Put
    | Take
    | Count
    | Links
    | Cut
    | Freeze
    | Alarm
    | Restart
)


# What runs a check


class Subject(Protocol):
    """A running worker, as an adapter's author makes it: see ``docs/embedding.rst``."""

    async def start(self) -> None:
        """Begin to serve, in the background."""

    async def stop(self, timeout: float | None) -> None:
        """Ask it to stop, and return at once."""

    async def ended(self) -> str | None:
        """Wait for its end; the text of the error it ended with."""

    async def call(self, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Call a method of the service outside its handlers; return when it has (or what it returns is done)."""

    def open(self, gate: str) -> None:
        """Let handlers pass that wait at the gate, now and later."""


class MakeSubject(Protocol):
    """Makes a subject of a worker.

    Its service has a method ``on_<name>`` for each of ``worker.handlers``, which notes its name and arguments and then
    does what the generator says. ``on_ready``, ``on_unconfigured`` and ``handle_returned_message`` note ``ready``,
    ``unconfigured`` and ``returned`` in any case. ``note`` may be called from any thread.
    """

    def __call__(
        self, worker: Worker, urls: Sequence[str], note: Callable[[str, tuple[Any, ...]], None]
    ) -> Subject: ...


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and the script that puts an adapter to the test.

    Attributes:
        name: the promise, in a few words.
        why: what it is about.
    """

    name: str
    why: str
    script: Callable[[], Script]

    def __str__(self) -> str:
        return self.name


def check_of(script: Callable[[], Script]) -> Check:
    """The check that a generator function is, named like the function."""
    return Check(script.__name__, (script.__doc__ or "").strip(), script)


# Short cuts


def accept(*_arguments: Any) -> Generator[Step, None, None]:
    """A handler that does nothing more than to be noted."""
    yield from ()


def event(name: str, payload: Any, conversation_id: str = "c", **properties: Any) -> Put:
    """An event as a peer publishes it."""
    return message("events", name, payload, {"conversation_id": conversation_id}, **properties)


def message(exchange: str, key: str, payload: Any, headers: Mapping[str, Any], **properties: Any) -> Put:
    """Any message with a body in CBOR."""
    given: dict[str, Any] = {"content_type": CBOR, "delivery_mode": 2, **properties}
    return Put(exchange, key, cbor2.dumps(payload), Basic.Properties(headers=dict(headers), **given))


def stop(worker: Worker, seconds: float | None = None) -> Script:
    """Stop the worker; it ends without an error, within so many seconds if given."""
    yield Stop(worker)
    equal((yield Ended(worker, seconds)), None, f"the error that {worker.name} ends with")


def equal(got: object, wanted: object, what: str) -> None:
    """Raises NotConforming if they are not."""
    if got != wanted:
        raise NotConforming(f"{what}: {got!r} instead of {wanted!r}")


def true(condition: object, what: str) -> None:
    """Raises NotConforming if it is not."""
    if not condition:
        raise NotConforming(what)
