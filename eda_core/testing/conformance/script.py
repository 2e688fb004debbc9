"""The words of the conformance kit: what a check may ask for, and what a runner has to offer.

A check is a generator. It yields requests, one at a time, and is sent the answer to each. It does no I/O itself, so it
can check adapters of every kind: with coroutines, with callbacks, in this thread or in another. It does not
know how a request is done.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import cbor2
from pamqp.commands import Basic

from eda_core.machine.policy import ReconnectPolicy
from eda_core.messages.codec import CBOR
from eda_core.testing.broker.dead_letters import QUEUE

#: What a check does: a generator that yields requests and is sent the answer to each.
Script = Generator["Request", Any, None]
#: What a handler does: a generator function that gets the handler's arguments, and returns what the handler returns.
Handler = Callable[..., Generator["Step", None, Any]]

# -- what a worker connects to ----------------------------------------------------------------------------------------

#: The URL of the broker.
BROKER: Final = "broker"
#: A URL of this machine, with a port that refuses connections.
NOBODY: Final = "nobody"
#: The URL of the broker, with a password that it refuses.
WRONG_PASSWORD: Final = "wrong password"
#: The password for ``WRONG_PASSWORD``. A service must not show it.
THE_WRONG_PASSWORD: Final = "open-sesame"

#: The queue of the broker that gets everything that is dead-lettered.
DEAD_LETTERS: Final = QUEUE


class NotConforming(AssertionError):
    """An adapter does not do what a check demands. The text says what."""


@dataclass(eq=False, slots=True)
class Worker:
    """A service to run.

    Attributes:
        name: the name of the logical service.
        events, commands, configurations, logs: its subscriptions.
        handlers: by the name after ``on_``; ``ready`` and ``unconfigured`` may be among them.
        settings: its class attributes.
        urls: ``BROKER``, ``NOBODY`` or ``WRONG_PASSWORD`` each.
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
        """The class attributes of the service: those of the check, and some that make a check fast."""
        return {"RECONNECT_POLICY": ReconnectPolicy(base=0.05, cap=0.4), "RETRY_DELAY": 0.05, **self.settings}


# -- what a handler may yield -----------------------------------------------------------------------------------------


class Call:
    """Call a method of the service: ``Call("publish_event", "Happened", 1, "c")``."""

    __slots__ = ("arguments", "method", "named")

    def __init__(self, method: str, *arguments: Any, **named: Any) -> None:
        self.method: str = method
        self.arguments: tuple[Any, ...] = arguments
        self.named: dict[str, Any] = named


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait until the check opens the gate. A gate stays open."""

    gate: str


@dataclass(frozen=True, slots=True)
class Say:
    """Note something, as each call of a handler is noted."""

    what: str


#: What a handler may yield.
Step = Call | Hold | Say

# -- what a check may yield -------------------------------------------------------------------------------------------
#
# "Wait" means: until the time of the runner for that is over. Then the check has failed.


@dataclass(frozen=True, slots=True)
class Start:
    """Run the worker, and wait until it has noted ``until``.

    Attributes:
        until: ``None`` to wait for nothing.
    """

    worker: Worker
    until: str | None = "ready"


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the worker to stop, and do not wait.

    Attributes:
        timeout: in how many seconds; ``None`` for the default of the service.
    """

    worker: Worker
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """Wait until the worker has ended. The answer is the text of its error, or ``None``.

    Attributes:
        seconds: in how many seconds it has to end; ``None`` for the time of the runner.
    """

    worker: Worker
    seconds: float | None = None


class Do(Call):
    """Call a method of the service outside its handlers, and wait until it has returned."""

    __slots__ = ("worker",)

    def __init__(self, worker: Worker, method: str, *arguments: Any, **named: Any) -> None:
        super().__init__(method, *arguments, **named)
        self.worker: Worker = worker


class Begin(Do):
    """Call a method of the service outside its handlers, and do not wait."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Join:
    """Wait until every call that was begun has returned."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Seen:
    """Wait until the worker has noted ``what`` so many times. The answer is the list of the arguments of each."""

    worker: Worker
    what: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Notes:
    """The answer is the list of the names of everything that the worker has noted, in order."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Open:
    """Open a gate, for the handlers of the worker that wait for it and for those that come to it."""

    worker: Worker
    gate: str


@dataclass(frozen=True, slots=True)
class Declare:
    """Declare a durable queue, as an operator or another service does, and bind it to a topic exchange.

    Attributes:
        exchange: ``""`` to bind it to none.
        key: the binding key.
        arguments: of the queue.
    """

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
    """Publish a message as it is, and wait until the broker has confirmed it.

    The key and the properties may be some that client libraries refuse to write: let
    :mod:`eda_core.testing.wire.frames` write them.
    """

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
        """The body, decoded from CBOR."""
        return cbor2.loads(self.body)

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers; empty if there are none."""
        return self.properties.headers or {}


@dataclass(frozen=True, slots=True)
class Take:
    """Wait for a message in the queue, and take it out. The answer is a :class:`Taken`."""

    queue: str


@dataclass(frozen=True, slots=True)
class Count:
    """The answer is the number of messages of the queue that no consumer has; ``None`` if there is no such queue.

    Attributes:
        until: wait until there are so many; ``None`` not to wait.
    """

    queue: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Links:
    """Wait until the broker has accepted so many connections of workers since the check began.

    The answer is how many it has accepted.
    """

    count: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the connections of all workers, without a close of AMQP."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Forward nothing more on the present connections of workers, in both directions. They stay open."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Raise or clear the broker's memory alarm."""

    on: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """Let the broker take only messages of at most so many bytes, on the channels that are opened from now on.

    For a larger one it closes the channel.
    """

    size: int


@dataclass(frozen=True, slots=True)
class Restart:
    """Kill the broker, and start it again with its data."""


#: What a check may yield.
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
    | Limit
    | Restart
)


# -- what runs a check ------------------------------------------------------------------------------------------------


class Subject(Protocol):
    """A running worker, which the author of an adapter provides: see ``docs/embedding.rst``."""

    async def start(self) -> None:
        """Begin to serve, in the background."""

    async def stop(self, timeout: float | None) -> None:
        """Ask the service to stop, and return at once.

        Args:
            timeout: seconds; ``None`` for the default of the service.
        """

    async def ended(self) -> str | None:
        """Wait until the service has ended. Returns the text of its error, or ``None``."""

    async def call(self, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Call a method of the service outside its handlers. Return when it has returned, or its awaitable is done."""

    def open(self, gate: str) -> None:
        """Open a gate, for handlers that wait for it now and for those that come to it."""


class MakeSubject(Protocol):
    """Makes a subject of a worker.

    The service of the subject has a method ``on_<name>`` for each of ``worker.handlers``. The method notes its name and
    its arguments, and then does what the generator yields. ``on_ready``, ``on_unconfigured`` and
    ``handle_returned_message`` always note ``ready``, ``unconfigured`` and ``returned``.
    """

    def __call__(self, worker: Worker, urls: Sequence[str], note: Callable[[str, tuple[Any, ...]], None]) -> Subject:
        """Make it.

        Args:
            urls: what to connect to.
            note: takes a name and arguments. Any thread may call it.
        """


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of the toolkit, and the script that checks it.

    Attributes:
        name: the promise, in a few words.
        why: what it means.
        script: makes the generator.
    """

    name: str
    why: str
    script: Callable[[], Script]

    def __str__(self) -> str:
        return self.name


def check_of(script: Callable[[], Script]) -> Check:
    """The check of a generator function. It has the name of the function, and its docstring for ``why``."""
    return Check(script.__name__, (script.__doc__ or "").strip(), script)


# -- short cuts for scripts -------------------------------------------------------------------------------------------


def accept(*_arguments: Any) -> Generator[Step, None, None]:
    """A handler that does nothing, so that it is only noted."""
    yield from ()


def event(name: str, payload: Any, conversation_id: str = "c", **properties: Any) -> Put:
    """A request to publish an event as a peer does."""
    return message("events", name, payload, {"conversation_id": conversation_id}, **properties)


def message(exchange: str, key: str, payload: Any, headers: Mapping[str, Any], **properties: Any) -> Put:
    """A request to publish a message with a body in CBOR.

    Args:
        properties: what else to set in the properties of the message.
    """
    given: dict[str, Any] = {"content_type": CBOR, "delivery_mode": 2, **properties}
    return Put(exchange, key, cbor2.dumps(payload), Basic.Properties(headers=dict(headers), **given))


def stop(worker: Worker, seconds: float | None = None) -> Script:
    """Stop a worker, and check that it ends without an error.

    Args:
        seconds: in how many seconds it has to end; ``None`` for the time of the runner.
    """
    yield Stop(worker)
    equal((yield Ended(worker, seconds)), None, f"the error that {worker.name} ends with")


def equal(got: object, wanted: object, what: str) -> None:
    """Check that ``got`` equals ``wanted``.

    Args:
        what: what is compared, for the text of the error.

    Raises:
        NotConforming: it does not.
    """
    if got != wanted:
        raise NotConforming(f"{what}: {got!r} instead of {wanted!r}")


def true(condition: object, what: str) -> None:
    """Check that ``condition`` is true.

    Args:
        what: what is checked, for the text of the error.

    Raises:
        NotConforming: it is not.
    """
    if not condition:
        raise NotConforming(what)
