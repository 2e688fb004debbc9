"""What a scenario is: the services, the messages, what their handlers do, and how much may go wrong.

Values only: nothing here knows how a world is made of them. All of them are shared between the forks of a world, and
nothing changes them. The functions at the end make those that the tests use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eda_core.machine.config import Config
from eda_core.messages.values import AnyMessage, Command, Event, Result

#: What a scenario bounds: how often each of these may happen in one history.
#:
#: - drop: a connection is cut.
#: - refusal: the broker refuses a publish (basic.nack).
#: - failure: a handler fails although its plan does not say so.
#: - outside: a service publishes or calls outside its handlers.
#: - stop: a service is asked to stop.
#: - haste: time jumps to the next deadline although something else could happen first. This happens when the network,
#:   the broker or a handler is slow.
#: - no_link: a connection cannot be opened.
#: - bad_login: a connection cannot be opened because the broker refuses the credentials.
#: - alarm: the broker is short of memory for a while.
#: - cancel: the broker cancels a consumer.
#: - restart: the broker is killed and starts again.
#: - late: a machine is told of something that happened on a link that it has given up.
#: - forget: a caller no longer waits for the result of its call.
#: - channel: the broker closes a channel.
#: - kill: the process of a worker is killed, and a new one is started.
#: - silence: the broker receives and sends nothing more on a link, and nobody is told of that.
#: - question: a service that has nothing else to do asks the broker whether it still works. Elsewhere it asks in any
#:   case, if its settings say so.
BOUNDED: Final = (
    "drop",
    "refusal",
    "failure",
    "outside",
    "stop",
    "haste",
    "no_link",
    "bad_login",
    "alarm",
    "cancel",
    "restart",
    "late",
    "forget",
    "channel",
    "kill",
    "silence",
    "question",
)
#: The place of each in ``BOUNDED``, and in ``State.left``.
BOUND: Final = {name: index for index, name in enumerate(BOUNDED)}

#: A step: its kind, the number of the worker (-1: the broker or time), and what the step is about.
Step = tuple[Any, ...]


class Violation(Exception):
    """Something that must hold does not.

    Attributes:
        rule: the rule that is broken: an invariant (I1 to I6), a rule of the design (R1 to R10), "life"
            (docs/architecture.rst, "Life of a service"), "call" (what :mod:`eda_core.machine.calls` promises), "turn"
            (:mod:`eda_core.machine.turns`), "once" (:mod:`eda_core.services.inbox`) or "counts"
            (:class:`eda_core.Metrics`).
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


@dataclass(frozen=True, slots=True, repr=False)
class Post:
    """A message that a handler, or somebody outside of handlers, publishes.

    Attributes:
        message: its payload is a text, which identifies the message in the explorer: the label.
        immediate: it is published at once, not when the handler succeeds.
        mandatory: as ``Machine.publish`` takes it.
    """

    message: AnyMessage
    immediate: bool = False
    mandatory: bool | None = None

    @property
    def label(self) -> str:
        """The payload of the message."""
        return str(self.message.payload)

    @property
    def name(self) -> str:
        """Its routing key."""
        return self.message.name

    def __repr__(self) -> str:
        return f"{self.label}{' at once' if self.immediate else ''}"


@dataclass(frozen=True, slots=True, repr=False)
class Ask:
    """A call: a command, and a caller that waits for the result.

    Attributes:
        label: identifies the call. On the wire it is followed by the number of the call, because a handler that
            runs again makes its calls again.
        timeout: seconds.
    """

    label: str
    name: str = "peer.Do"
    timeout: float = 50.0

    def __repr__(self) -> str:
        return f"call {self.label}"


#: How a handler uses an inbox: the database commits what it does and what the inbox keeps together; or, which is wrong,
#: one after the other.
TOGETHER: Final = "together"
AFTERWARDS: Final = "afterwards"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the handler of a message does.

    Attributes:
        posts: what it publishes, in order, before it ends. It waits for the end of each call, and goes on whether the
            call succeeded or not.
        late: what is published for the message after the handler deferred the acknowledgement, and before the
            acknowledgement is given.
        poison: it fails each time.
        deferred: it acknowledges by hand.
        configures: it is the handler of a configuration, and configures the service.
        batched: it adds its message to the batch of its worker.
        inbox: how it uses an inbox; "" if it does not. Then its effect is a row in the database of its service.
    """

    posts: tuple[Post | Ask, ...] = ()
    late: tuple[Post, ...] = ()
    poison: bool = False
    deferred: bool = False
    configures: bool = False
    batched: bool = False
    inbox: str = ""


NOTHING: Final = Plan()


@dataclass(frozen=True, slots=True, repr=False)
class Scenario:
    """Services, what they do, and how much may go wrong.

    Attributes:
        services: one configuration for each worker.
        inputs: messages that wait for the services at the start. The payload of each is its label.
        plans: by label. The handler of a message without a plan does nothing, and succeeds.
        outside: what the first service publishes or calls outside its handlers, in order.
        request: what a service publishes when it is unconfigured.
        configuration: the answer to the request.
        bounds: how often each of :data:`BOUNDED` may happen; 0 for those that are not named.
        sinks: binding keys (exchange, key) of a queue that nobody consumes.
        message_ids: whether the inputs have a message id. Messages of ``eventail`` have none.
        answers: what another service, ``peer``, answers to calls, by label: "success" (also for labels that are not
            named), "error", "twice" or "none". ``None`` if there is no such service.
        batch: how workers collect messages, if they do: how many, for how many seconds, and what they publish then.
        untaken: labels of messages for which the broker closes the channel on which they are published.
        fresh: the search begins before the first link is open, else when all links are open.
    """

    name: str
    services: tuple[Config, ...]
    inputs: tuple[AnyMessage, ...] = ()
    plans: Mapping[str, Plan] = field(default_factory=dict)
    outside: tuple[Post | Ask, ...] = ()
    request: Post | None = None
    configuration: AnyMessage | None = None
    bounds: Mapping[str, int] = field(default_factory=dict)
    sinks: tuple[tuple[str, str], ...] = (("events", "#"), ("commands", "caller.#"))
    message_ids: bool = True
    answers: Mapping[str, str] | None = None
    batch: tuple[int, float, tuple[Post, ...]] | None = None
    untaken: frozenset[str] = frozenset()
    fresh: bool = False

    def __repr__(self) -> str:
        services = [
            f"{c.service} prefetch={c.prefetch} window={c.window} buffer={c.buffer} urls={len(c.urls)} {c.retry} "
            f"stop_timeout={c.stop_timeout:g}"
            for c in self.services
        ]
        return f"<Scenario {self.name}: {'; '.join(services)}; message ids: {self.message_ids}>"

    def left(self) -> tuple[int, ...]:
        """How often each of :data:`BOUNDED` may happen, in that order.

        Raises:
            ValueError: ``bounds`` has a name that is not in :data:`BOUNDED`.
        """
        unknown = set(self.bounds) - set(BOUNDED)
        if unknown:
            raise ValueError(f"no such bound: {', '.join(sorted(unknown))}; there are {', '.join(BOUNDED)}")
        return tuple(self.bounds.get(name, 0) for name in BOUNDED)

    def plan(self, label: str) -> Plan:
        """What the handler of this message does."""
        return self.plans.get(label, NOTHING)


# -- what scenarios are made of ---------------------------------------------------------------------------------------

ONE_URL: Final = ("amqp://a/",)
TWO_URLS: Final = ("amqp://a/", "amqp://b/")


def service(urls: tuple[str, ...] = ONE_URL, name: str = "svc", **settings: Any) -> Config:
    """The configuration of a service that subscribes to the event ``In`` and the command ``<name>.Do``.

    Args:
        settings: what else ``Config.make`` takes. By default ``prefetch`` is 2, ``stop_timeout`` 100 s, and the broker
            is not asked for signs of life.
    """
    known: dict[str, Any] = {"events": ("In",), "commands": (f"{name}.Do",), "prefetch": 2, "stop_timeout": 100.0}
    known["probe_interval"] = 0
    return Config.make(urls, name, **{**known, **settings})


def event(label: str, name: str = "In", conversation: str = "c") -> Event:
    """An event with this label."""
    return Event(name, label, conversation)


def command(label: str, name: str = "svc.Do") -> Command:
    """A command of ``caller`` with this label."""
    return Command(name, label, "c", "caller.DoReturn", f"id-{label}")


def said(label: str, **how: Any) -> Post:
    """An event that a service publishes, and that no service of the scenario gets."""
    return Post(event(label, "Out"), **how)


def answered(label: str, of: str) -> Post:
    """The result of the command with the label ``of``."""
    return Post(Result("caller.DoReturn", label, "c", "success", f"id-{of}"))


def asked(label: str) -> Post:
    """A command to a service that does not exist: the broker returns it."""
    return Post(Command("nobody.Do", label, "c", "svc.DoReturn", "id"))
