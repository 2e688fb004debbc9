"""A machine for tests, with a clock, a broker that accepts everything, and functions that select effects by kind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pamqp import base
from pamqp.commands import Basic, Exchange, Queue

from eda_core.machine import link
from eda_core.machine.config import Config
from eda_core.machine.effects import Connect, Declare, Dispatch, Effect, Publish, Report
from eda_core.machine.events import CONFIGURED, READY, RECONNECTED, STARTED, STOPPED
from eda_core.machine.identifiers import DeliveryId, Epoch, PublishId
from eda_core.machine.in_flight import Group
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import DONE, Outcome
from eda_core.messages import envelope
from eda_core.messages.codec import Limits, encode
from eda_core.messages.properties import Unreadable
from eda_core.messages.values import AnyMessage, Event
from eda_core.urls import redact

Kind = TypeVar("Kind")


class Sealed(NamedTuple):
    """The parts of a message that is published."""

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes


def seal(message: AnyMessage, content_type: str, limits: Limits) -> Sealed:
    """Return what ``eda_core.messages.seal`` returns, with names for its parts."""
    return Sealed(*envelope.seal(message, content_type, limits))


URLS = ("amqp://user:secret@one/", "amqp://user:secret@two/")
#: The same, as they may be shown.
SHOWN = tuple(map(redact, URLS))
#: Of the results of calls, which only this worker gets; not ``svc.tok``, for the bench subscribes to ``svc.#``.
REPLY_KEY = "replies.svc.tok"
#: Wall clock time at monotonic time 0.
WALL = 1_000_000.0


def config(**settings: Any) -> Config:
    """Return the configuration of a service with events, commands and one broker, changed by ``settings``.

    The broker is asked for no sign of life unless the test says so.
    """
    subscribed = {"events": ["Happened"], "commands": ["svc.#"]}
    settings = {"urls": URLS[0], "service": "svc", **subscribed, "probe_interval": 0, **settings}
    return Config.make(hostname="box", pid=7, **settings)


def of(kind: type[Kind], effects: Iterable[object]) -> list[Kind]:
    """Return the effects of one kind, in order."""
    return [effect for effect in effects if isinstance(effect, kind)]


def only(kind: type[Kind], effects: Iterable[object]) -> Kind:
    """Return the only effect of its kind."""
    (found,) = of(kind, effects)
    return found


def kinds(effects: Iterable[object]) -> list[str]:
    """Return the names of the effects' types, in order."""
    return [type(effect).__name__ for effect in effects]


def replies(declare: Declare) -> list[base.Frame]:
    """Return the replies of a broker that accepts all commands."""
    answers: list[base.Frame] = []
    for number, command in enumerate(declare.commands):
        if isinstance(command, Exchange.Declare):
            answers.append(Exchange.DeclareOk())
        elif isinstance(command, Queue.Declare):
            answers.append(Queue.DeclareOk(command.queue or f"amq.gen-{number}", 0, 0))
        elif isinstance(command, Queue.Bind):
            answers.append(Queue.BindOk())
        else:
            answers.append(Basic.QosOk())
    return answers


def make_publish(number: int, *, kept: bool = True, ticket: int | None = None, **fields: Any) -> Publish:
    """Return a publish that is not sent yet."""
    message = {"exchange": "events", "routing_key": "Happened", "properties": Basic.Properties(), "body": b""}
    given: dict[str, Any] = {**message, "epoch": Epoch(1), **fields}
    return Publish(PublishId(number), kept=kept, ticket=ticket, **given)


def snapshot(value: object) -> object:
    """Return the whole state of an object as plain values that can be compared."""
    if value is None or isinstance(value, (int, float, str, bytes)) or callable(value):
        return value
    if isinstance(value, Config):  # immutable
        return id(value)
    if isinstance(value, Group):  # its members are on their own, and name it
        return (value.missing, [each.tag for each in value.members])
    if isinstance(value, Mapping):
        return {"of": type(value).__name__, "items": [(snapshot(key), snapshot(each)) for key, each in value.items()]}
    if isinstance(value, (set, frozenset)):
        return {"of": "set", "items": sorted(map(repr, value))}
    if isinstance(value, (list, tuple, deque)):
        return {"of": type(value).__name__, "items": [snapshot(each) for each in value]}
    names = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())}
    names |= set(getattr(value, "__dict__", {}))
    return {"of": type(value).__name__, **{name: snapshot(getattr(value, name, None)) for name in sorted(names)}}


def forget_stale(machine: Machine) -> None:
    """Reset the counts of ignored reports, to compare all else with an earlier snapshot."""
    machine._stale = machine._deliveries.stale = 0


#: What becomes of a rejected message if no dead-letter exchange is known.
REJECTED = "rejected; without a dead-letter exchange RabbitMQ drops it: run 'eda doctor' or 'eda inspect_queue' to "
REJECTED += 'find out, see docs/operating/dead-letters.rst, "Kept or dropped"'

#: The reports of the service's life come at the side of what an input is for. test_machine_life.py is about them.
LIFE = (STARTED, CONFIGURED, READY, RECONNECTED, STOPPED)


class Bench:
    """One machine with a clock, and short forms of its inputs.

    Attributes:
        jitter: what the machine's random source gives.
        seen: every effect so far.
    """

    def __init__(self, *, jitter: float = 0.5, **settings: Any) -> None:
        self.config = config(**settings)
        self.jitter = jitter
        self.machine = Machine(self.config, random=lambda: self.jitter, token="tok", wall_offset=WALL)
        self.now = 100.0
        self.seen: list[Effect] = []
        self._tags: dict[Epoch, int] = {}

    def did(self, effects: list[Effect]) -> list[Effect]:
        """Note the effects of an input, and return them without the reports of the service's life."""
        self.seen += effects
        return [each for each in effects if not (isinstance(each, Report) and each.event in LIFE)]

    @property
    def epoch(self) -> Epoch:
        return self.machine.epoch

    @property
    def state(self) -> str:
        return self.machine.state

    # Time

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass without any tick."""
        self.now += seconds
        return self.did(self.machine.tick(self.now))

    def due(self) -> list[Effect]:
        """Wait for the deadline, and tick."""
        deadline = self.machine.deadline()
        assert deadline is not None
        return self.wait(max(0.0, deadline - self.now))

    # The link

    def connect(self) -> Connect:
        """Start, or wait for the next attempt. The machine is connecting then."""
        if self.state is link.IDLE:
            return only(Connect, self.did(self.machine.start(self.now)))
        return only(Connect, self.due())

    def link_up(self) -> Declare:
        return only(Declare, self.did(self.machine.link_up(self.epoch, self.now)))

    def declared(self, declare: Declare) -> list[Effect]:
        return self.did(self.machine.declared(self.epoch, replies(declare), self.now, channel=declare.channel))

    def open(self) -> list[Effect]:
        """Open the link, and return the effects of the last step."""
        self.connect()
        return self.declared(only(Declare, self.declared(self.link_up())))

    def lose(self, reason: str = "cut", *, refused: str = "") -> list[Effect]:
        return self.did(self.machine.link_down(self.epoch, reason, self.now, refused=refused))

    def stop(self, timeout: float | None = None) -> list[Effect]:
        return self.did(self.machine.stop(self.now, timeout))

    # Deliveries

    def deliver(
        self,
        name: str = "Happened",
        payload: object = None,
        *,
        exchange: str = "events",
        tag: int | None = None,
        epoch: Epoch | None = None,
        redelivered: bool = False,
        headers: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        unreadable: str = "",
        **properties: Any,
    ) -> list[Effect]:
        """Deliver a message. By default it has the next tag of its link, and a message id of its own.

        Args:
            unreadable: why its properties cannot be read; "" if they can be.
        """
        epoch = self.epoch if epoch is None else epoch
        if tag is None:
            tag = self._tags.get(epoch, 0) + 1
        self._tags[epoch] = max(tag, self._tags.get(epoch, 0))
        properties.setdefault("message_id", f"id-{epoch}-{tag}")
        properties.setdefault("content_type", self.config.content_type)
        given: dict[str, Any] = {"conversation_id": "c-1"} if headers is None else dict(headers)
        written = Basic.Properties(headers=given, **properties)
        if unreadable:
            written = Unreadable.of(written, unreadable)
        body = encode(payload, self.config.content_type) if body is None else body
        return self.did(self.machine.delivered(epoch, tag, redelivered, exchange, name, written, body, self.now))

    def take(self, name: str = "Happened", payload: object = None, **fields: Any) -> DeliveryId:
        """Deliver a message, and return the delivery that is dispatched."""
        return only(Dispatch, self.deliver(name, payload, **fields)).delivery

    def handled(self, delivery: DeliveryId, outcome: Outcome = DONE) -> list[Effect]:
        return self.did(self.machine.handled(delivery, outcome, self.now))

    def ack(self, delivery: DeliveryId, *, multiple: bool = False) -> list[Effect]:
        return self.did(self.machine.ack(delivery, self.now, multiple=multiple))

    def nack(self, delivery: DeliveryId, *, requeue: bool = False, multiple: bool = False) -> list[Effect]:
        return self.did(self.machine.nack(delivery, self.now, requeue=requeue, multiple=multiple))

    # Publishing

    def publish(self, message: AnyMessage | None = None, **named: Any) -> list[Effect]:
        """Publish a message, by default an event."""
        message = Event("Told", {"n": 1}, "c-1") if message is None else message
        return self.did(self.machine.publish(message, self.now, **named))

    def send(self, message: AnyMessage | None = None, **named: Any) -> Publish:
        """Publish, and return the publish, which is sent at once."""
        return only(Publish, self.publish(message, **named))

    def confirm(self, *publishes: Publish, multiple: bool = False) -> list[Effect]:
        """Confirm publishes, one after the other."""
        effects: list[Effect] = []
        for publish in publishes:
            effects += self.machine.confirmed(publish.epoch, publish.tag, self.now, multiple=multiple)
        return self.did(effects)

    def refuse(self, publish: Publish, *, multiple: bool = False) -> list[Effect]:
        return self.did(self.machine.refused(publish.epoch, publish.tag, self.now, multiple=multiple))

    # Calls

    def call(self, ticket: int = 1, **named: Any) -> list[Effect]:
        """Make a call, by default with a timeout of 30 s."""
        named = {"timeout": 30.0, **named}
        return self.did(self.machine.call("peer.Do", {"n": ticket}, self.now, ticket=ticket, **named))

    def reply(self, ticket: int, payload: object = "yes", status: str = "success") -> list[Effect]:
        """Deliver the result of a call."""
        headers = {"conversation_id": "c-1", "status": status}
        correlation_id = f"tok-call-{ticket}"
        return self.deliver(REPLY_KEY, payload, exchange="commands", headers=headers, correlation_id=correlation_id)


def opened(**settings: Any) -> Bench:
    """Return a bench with an open link."""
    bench = Bench(**settings)
    bench.open()
    return bench


def calling(**settings: Any) -> Bench:
    """Return a bench with a queue for results, on which call 1 is sent and confirmed."""
    bench = opened(**settings)
    declared = bench.declared(only(Declare, bench.call()))
    bench.confirm(only(Publish, bench.declared(only(Declare, declared))))
    return bench


def acknowledged(effects: Sequence[object], unacked: set[int]) -> set[int]:
    """Return the tags that a broker would acknowledge, and remove them from ``unacked``."""
    covered: set[int] = set()
    for effect in effects:
        tag, multiple = getattr(effect, "tag", 0), getattr(effect, "multiple", False)
        found = {each for each in unacked if each <= tag} if multiple else {tag} & unacked
        assert found, f"{effect!r} would close the channel: the tag is unknown"
        covered |= found
        unacked -= found
    return covered
