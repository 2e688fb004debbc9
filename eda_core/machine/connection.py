"""The link of one service: when to connect and to which URL, what to declare, when to close, and how to stop.

The tables in :mod:`eda_core.machine.link` say which state follows which. This module does what each state is for. An
input returns what has happened (:data:`OPENED`, :data:`LOST` and others), and the machine does what follows from that.
This module knows nothing of messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from pamqp import base

from eda_core.criticality import NOTICE, WARNING
from eda_core.machine import link
from eda_core.machine.config import Config
from eda_core.machine.counts import Counts
from eda_core.machine.effects import (
    CHECKING,
    CONSUMING,
    CREDENTIALS,
    PUBLISHING,
    Cancel,
    Close,
    Connect,
    Consume,
    Declare,
    Effect,
    Probe,
    Report,
)
from eda_core.machine.events import LINK_LOST, STOPPING, USED_AS_IS
from eda_core.machine.identifiers import Epoch
from eda_core.machine.silence import ASK, GIVE_UP, Silence
from eda_core.machine.topology import (
    Given,
    Subscription,
    any_binding,
    bindings,
    declarations,
    queue_arguments,
    queue_names,
    subscriptions,
)
from eda_core.urls import redact

#: How many commands a ``Declare`` has at most. Its replies show that the broker gets on with many declarations.
PORTION: Final = 500
#: On how many channels a service binds that has more names than a portion. The broker waits for its disk after each
#: binding, but it does so once for the bindings of several channels.
CHANNELS: Final = 16
#: How many commands a ``Declare`` has at most then.
SHARE: Final = 250

# What has happened in an input
OPENED: Final = "opened"  # the link is open
ADDED: Final = "added"  # a queue that was added to the open link can be consumed
LOST: Final = "lost"  # the link is lost, and its deliveries with it
CLOSING: Final = "closing"  # the link is being closed, and its deliveries are lost
ENDED: Final = "ended"  # the service has stopped; ``error`` says why if nobody asked it to


class Connection:
    """The life of one service's link.

    Attributes:
        state: the state of the link, a constant of :mod:`eda_core.machine.link`.
        epoch: the number of the present link, or of the next one while there is none.
        queues: the names of the declared queues, by consumer tag.
        progress: whether a delivery was settled or a publish confirmed on this link.
        stop_due: when a stop closes the link although work is unfinished, monotonic seconds; ``None`` without a stop.
        error: why the service ends, if nobody asked it to.
        lost_at: when the last open link was lost, monotonic seconds; ``None`` if there was none.
        consuming, publishing: how long the broker has been silent on these channels of the open link.
        checking: how long its node has shown no sign that it is together with most others of its cluster.
    """

    __slots__ = (
        *"_added _adding _adding_due _blocked _channels _checking _checks _config _consuming _counts".split(),
        *"_due _failures _given _learned".split(),
        *"_next_url _open_since _portions _random _refused_urls _reopening _replies _silent_urls _waiting".split(),
        *"_wanted _was_open _widens".split(),
        *"checking consuming epoch error lost_at progress publishing queues state stop_due".split(),
    )

    def __init__(self, config: Config, random: Callable[[], float], counts: Counts) -> None:
        self._config = config
        self._counts = counts
        self._random = random
        self.state: str = link.IDLE
        self.epoch: Epoch = Epoch(1)
        self.queues: Mapping[str, str] = {}
        self.progress: bool = False
        self.stop_due: float | None = None
        self.error: str | None = None
        self.lost_at: float | None = None
        self._wanted = subscriptions(config)
        self._given = Given()
        #: Whether the next attempt declares something in another way than this one.
        self._learned = False
        self._consuming: list[str] = []
        #: The queues of the ``Declare`` that waits for its replies.
        self._added: tuple[Subscription, ...] = ()
        #: The channel and the commands of each later ``Declare`` of this step, and the replies to the earlier ones.
        self._portions: deque[tuple[str, tuple[base.Frame, ...]]] = deque()
        self._replies: tuple[base.Frame, ...] = ()
        #: The channels whose ``Declare`` is not answered.
        self._waiting: set[str] = set()
        #: On how many channels a service with many names binds, and whether it tries more on the next link.
        self._channels = CHANNELS
        self._widens = True
        #: The state of adding a queue to the open link, and when the replies to its ``Declare`` are overdue.
        self._adding: str = link.NOTHING
        self._adding_due: float | None = None
        self._failures = 0
        self._next_url = 0
        #: Why each URL has refused the login when it was last tried.
        self._refused_urls: dict[int, str] = {}
        #: The URLs whose last attempt did not open a link. They are tried after the others.
        self._silent_urls: set[int] = set()
        self._open_since: float | None = None
        self._was_open = False
        #: When the present state ends: with the next attempt, or because the link has not opened or closed in time. On
        #: an open link: when the silence of the broker is looked at next.
        self._due: float | None = None
        interval, timeout = config.probe_interval, config.probe_timeout
        self.consuming: Silence = Silence(CONSUMING, interval, timeout)
        self.publishing: Silence = Silence(PUBLISHING, interval, timeout)
        self.checking: Silence = Silence(CHECKING, 2 * interval, 2 * timeout)
        #: Whether the ``Declare`` that checks the node waits for its reply; ``None`` if the broker has refused it.
        self._checking: bool | None = False
        #: Whether the node is checked at all: there is another one to go to.
        self._checks = len(config.urls) > 1
        #: Whether the broker blocks publishing, and so may read nothing; whether the channel for publishing is being
        #: opened again.
        self._blocked = self._reopening = False

    # Inputs, all about the present link

    def start(self, now: float, effects: list[Effect]) -> None:
        """Begin to connect. Raises ``StateError`` if it has begun before."""
        self._go(link.START)
        self._connect(now, effects)

    def link_up(self, effects: list[Effect]) -> None:
        """Declare the exchanges and queues: the link is complete. Raises ``StateError`` if it was complete before."""
        self._go(link.LINK_UP)
        if self.state is link.DECLARING:
            self._added = self._wanted
            config = self._config
            first = declarations(
                self._added, config.retry.delays, queue_arguments(config), delayed=config.delayed_messages
            )
            self._declare(self._given.applied(first), effects)

    def declared(
        self, replies: Sequence[base.Frame], now: float, effects: list[Effect], channel: str = CONSUMING
    ) -> str | None:
        """Go on after the replies to a ``Declare``. Raises ``StateError`` if there was none.

        The replies show that the broker gets on, so the next ones have the whole time again.
        """
        serving = self.state in link.SERVING
        if channel == CHECKING and self._checking:
            self._checking, self.checking.answered = False, now
            return None
        due = now + self._config.connect_timeout
        replies = self._replies = (*self._replies, *replies)
        self._waiting.discard(channel)
        if self._portions or self._waiting:
            self._renew(due)
            self._send_portions(effects)
            return None
        self._replies = ()
        if serving:
            self._adding = link.step(link.ADDING, self._adding, link.REPLIED)
        self._go(link.DECLARED)
        if self.state is link.BINDING or self._adding is link.BINDINGS:
            self._renew(due)
            return self._bind(replies, now, effects)
        if serving:
            self._adding_due = None
            self._add(now, effects)
            return ADDED
        if self.state is not link.OPEN:  # it is being closed
            return None
        if self._widens:
            self._channels = CHANNELS
        self._open_since = now
        self._was_open = True
        self._counts.links_opened += 1
        self.progress = False
        self._refused_urls.clear()
        self._silent_urls.discard(self._next_url)
        if self.stop_due is not None:
            self._go(link.STOP)
        self._add(now, effects)
        return OPENED

    def down(self, reason: str, now: float, effects: list[Effect], refused: str = "") -> str | None:
        """Wait for the next attempt, or end: the link could not be opened, was lost, or is closed.

        Returns what has happened; ``None`` if there was no link.
        """
        before = self.state
        self._go(link.DOWN)
        if self.state is before:
            return None
        if before in link.SERVING:
            self._counts.links_lost += 1
        if self._checking and "channels" in reason.lower():
            self._checks = False  # the user or the connection may not have one more channel
        if self._waiting - {CONSUMING}:  # perhaps the user or the connection may not have so many channels
            self._channels, self._learned = 1, True
            self._widens = "channels" not in reason.lower()
        reason = redact(reason)
        url = self._next_url
        if self._open_since is None:
            self._silent_urls.add(url)
        self._next_url = self._url_after(url)
        if refused == CREDENTIALS or (refused and not self._was_open):
            self._refused_urls[url] = reason
        else:
            self._refused_urls.pop(url, None)
        if self.state is link.STOPPED:
            return self._end()
        if len(self._refused_urls) == len(self._config.urls):
            self._go(link.FATAL)
            reasons = (f"{redact(self._config.urls[each])}: {why}" for each, why in sorted(self._refused_urls.items()))
            self.error = f"the broker refuses the credentials or the vhost on every URL: {'; '.join(reasons)}"
            return self._end()
        delay = self._count_failure(now)
        attempts = None if self._learned else self._config.reconnect.initial_attempts
        self._learned = False
        if attempts is not None and not self._was_open and self._failures >= attempts:
            self._go(link.FATAL)
            self.error = f"no link to {redact(self._config.urls[url])}: {reason}"
            return self._end()
        self.epoch = Epoch(self.epoch + 1)
        if self._open_since is not None:
            self.lost_at = now
        self._due = now + delay
        self._forget_link()
        lost, following = (redact(self._config.urls[number]) for number in (url, self._next_url))
        effects.append(Report(WARNING, f"no link to {lost}: {reason}; trying {following} in {delay:.1f} s", LINK_LOST))
        return LOST

    def refused(self, declaration: base.Frame, reason: str, effects: list[Effect]) -> None:
        """Learn from a declaration that the broker has refused. The next link takes what is there as it is."""
        text = self._given.learn(declaration, redact(reason))
        if text is not None:
            self._failures, self._learned = 0, True
            effects.append(Report(WARNING, text, USED_AS_IS))

    def give_up(self, reason: str, now: float, effects: list[Effect], *, unresponsive: bool = False) -> str | None:
        """Close the link, and treat it as lost.

        Args:
            unresponsive: the broker does not answer.
        """
        effects.append(Close(self.epoch, redact(reason), unresponsive))
        return self.down(reason, now, effects)

    def stop(self, due: float, effects: list[Effect]) -> str | None:
        """Stop consuming. A second call can only make ``due``, in monotonic seconds, earlier."""
        self.stop_due = due if self.stop_due is None else min(due, self.stop_due)
        before = self.state
        self._go(link.STOP)
        if self.state is link.STOPPED and before is not link.STOPPED:
            return self._end()
        if self.state is link.DRAINING and before is link.OPEN:
            effects.append(Report(NOTICE, "stopping", STOPPING))
            effects.extend(Cancel(self.epoch, tag) for tag in self._consuming)
        return None

    def finish(self, now: float, effects: list[Effect]) -> str:
        """Close the link: a stop has nothing left to wait for, or no time."""
        before = self.state
        self._go(link.FINISHED)
        if before in link.SERVING:
            self._counts.links_closed += 1
        if self.state is link.STOPPED:
            return self._end()
        self._due = now + self._config.close_timeout
        self._forget_declarations()
        return CLOSING

    # Queues

    def want(self, subscription: Subscription, now: float, effects: list[Effect]) -> None:
        """Declare one more queue, on this link and on all later ones."""
        self._wanted += (subscription,)
        if self.state in link.SERVING:
            self._add(now, effects)

    def usable(self, tag: str) -> bool:
        """Return whether the queue with this consumer tag is declared and bound on the open link."""
        return tag in self.queues and self._adding is link.NOTHING and self.state in link.SERVING

    def consume(self, tag: str, effects: list[Effect], *, while_stopping: bool = False) -> None:
        """Consume a declared queue. A stop cancels the consumer, unless ``while_stopping``."""
        if not while_stopping:
            self._consuming.append(tag)
        effects.append(Consume(self.epoch, self.queues[tag], tag))

    # Time

    def deadline(self) -> float | None:
        """Return when to call :meth:`tick` next, in monotonic seconds; ``None`` if nothing is due."""
        first = self._due if self._adding_due is None else self._adding_due
        stop_due = self.stop_due
        if stop_due is not None and self.state not in link.OVER and (first is None or stop_due < first):
            first = stop_due
        return first

    def tick(self, now: float, effects: list[Effect], *, busy: bool = False) -> str | None:
        """Do what is due at ``now``. Returns what has happened.

        Args:
            busy: whether the service has something to do.
        """
        if self.stop_due is not None and now >= self.stop_due and self.state not in link.OVER:
            return self.finish(now, effects)
        if self._due is not None and now >= self._due:
            return self._overdue(now, effects, busy)
        if self._adding_due is not None and now >= self._adding_due:
            reason = f"the broker has not answered a declaration for {self._config.connect_timeout:g} s"
            return self.give_up(reason, now, effects, unresponsive=True)
        return None

    def _overdue(self, now: float, effects: list[Effect], busy: bool) -> str | None:
        if self.state is link.BACKOFF:
            self._go(link.DUE)
            self._connect(now, effects)
            return None
        if self.state is link.CLOSING:
            self._go(link.DUE)
            return self._end()
        if self.state in link.SERVING:
            return self._look(now, effects, busy)
        return self.give_up(f"no link after {self._config.connect_timeout:g} s", now, effects, unresponsive=True)

    # Silence

    def watch(self, now: float, *, blocked: bool | None = None, reopening: bool | None = None) -> None:
        """Watch the channels on which the broker can answer from now on, and no others.

        While a queue is added or a channel opened, the broker's reply to that has a deadline of its own.

        Args:
            blocked: whether the broker blocks publishing; ``None`` if that has not changed.
            reopening: whether the channel for publishing is being opened again; ``None`` if that has not changed.
        """
        self._blocked = self._blocked if blocked is None else blocked
        self._reopening = self._reopening if reopening is None else reopening
        if self.state in link.SERVING:
            can_answer = not self._blocked and self._adding is link.NOTHING
            self.consuming.watch(now, can_answer)
            self.publishing.watch(now, can_answer and not self._reopening)
            checks = self._checks and bool(self.queues) and self._checking is not None
            self.checking.watch(now, can_answer and checks)
            self._due = self._silence_due()

    def check_refused(self) -> None:
        """Do not check the node any more on this link: the broker has refused that, and so has answered."""
        self._checking, self.checking.due = None, None

    def _look(self, now: float, effects: list[Effect], busy: bool) -> str | None:
        """Ask a silent broker whether it still works, or give up the link if it does not answer."""
        todo = [(each, each.tick(now)) for each in (self.consuming, self.publishing)]
        for silence, what in todo:
            if what is GIVE_UP:
                reason = f"the broker has not answered for {silence.waited(now):.0f} s"
                return self.give_up(reason, now, effects, unresponsive=True)
        effects.extend(Probe(self.epoch, silence.channel) for silence, what in todo if what is ASK)
        lost = self._check_node(now, effects, busy)
        if lost is None:
            self._due = self._silence_due()
        return lost

    def _check_node(self, now: float, effects: list[Effect], busy: bool) -> str | None:
        """Have the node bind a queue again, if it has given the service nothing to do for long.

        That changes nothing, but a node that is cut off from most others of its cluster cannot do it.
        """
        checking = self.checking
        checking.heard = now if busy or self.state is not link.OPEN else max(checking.heard, self.consuming.heard)
        what = checking.tick(now)
        if what is GIVE_UP:
            why = f"has not answered a declaration for {now - checking.asked:.0f} s"
            reason = f"the broker {why}, and may be cut off from most others of its cluster"
            return self.give_up(reason, now, effects, unresponsive=True)
        if what is ASK and self._checking is False:
            self._checking = True
            effects.append(Declare(self.epoch, (any_binding(self._wanted, self.queues),), CHECKING))
        return None

    def _silence_due(self) -> float | None:
        silences = (self.consuming, self.publishing, self.checking)
        return min((each.due for each in silences if each.due is not None), default=None)

    # Steps

    def _go(self, signal: str) -> None:
        self.state = link.step(link.TABLE, self.state, signal)

    def _connect(self, now: float, effects: list[Effect]) -> None:
        config = self._config
        self._counts.connecting += 1
        self._due = now + config.connect_timeout
        effects.append(Connect(self.epoch, config.urls[self._next_url], config.connection_name, config.heartbeat))

    def _bind(self, replies: Sequence[base.Frame], now: float, effects: list[Effect]) -> str | None:
        """Do the second step of declaring, with the names of the queues from the first."""
        queues = queue_names(self._added, replies)
        if queues is None:
            return self.give_up("the broker did not name the queues it declared", now, effects)
        self.queues = {**self.queues, **queues}
        first = self.state is link.BINDING and self._config.delayed_messages
        commands = bindings(self._added, queues, self._config.prefetch, delayed=first)
        if len(commands) > PORTION and self._channels > 1:
            self._spread(commands, effects)
        else:
            self._declare(commands, effects)
        return None

    def _declare(self, commands: tuple[base.Frame, ...], effects: list[Effect]) -> None:
        """Send these commands one portion after the other on the channel for consuming."""
        self._portions.extend((CONSUMING, portion) for portion in _portions(commands, PORTION))
        self._send_portions(effects)

    def _spread(self, commands: tuple[base.Frame, ...], effects: list[Effect]) -> None:
        """Send these commands on several channels at a time, and the last one on the channel for consuming."""
        *bound, qos = commands
        size = min(SHARE, -(-len(bound) // self._channels))
        shares = enumerate(_portions(tuple(bound), size), 1)
        self._portions.append((CONSUMING, (qos,)))
        self._portions.extend((f"binding {number}", share) for number, share in shares)
        self._send_portions(effects)

    def _send_portions(self, effects: list[Effect]) -> None:
        """Send the next portions: one at a time on each channel."""
        while self._portions and len(self._waiting) < self._channels and self._portions[0][0] not in self._waiting:
            channel, commands = self._portions.popleft()
            self._waiting.add(channel)
            effects.append(Declare(self.epoch, commands, channel))

    def _renew(self, due: float) -> None:
        """Let the replies to the next ``Declare`` be overdue at ``due``, in monotonic seconds."""
        if self.state in link.SERVING:
            self._adding_due = due
        else:
            self._due = due

    def _add(self, now: float, effects: list[Effect]) -> None:
        """Declare the queues that are wanted but not yet declared on the open link."""
        missing = tuple(each for each in self._wanted if each.tag not in self.queues)
        before = self._adding
        if missing:
            self._adding = link.step(link.ADDING, before, link.WANTED)
        if self._adding is not before:
            self._added = missing
            self._adding_due = now + self._config.connect_timeout
            self._declare(self._given.applied(declarations(missing, ())), effects)
        self.watch(now)

    def _url_after(self, url: int) -> int:
        """Return the next URL in turn, without those that did not answer, if there is another one."""
        count = len(self._config.urls)
        in_turn = [(url + step) % count for step in range(1, count + 1)]
        return next((each for each in in_turn if each not in self._silent_urls), in_turn[0])

    @property
    def since(self) -> float | None:
        """Since when the link is open, or since when there is none, monotonic seconds; ``None`` before the first."""
        return self.lost_at if self._open_since is None else self._open_since

    @property
    def dead_lettering(self) -> set[str]:
        """The queues that are known to have a dead-letter exchange. A policy of the operator is not known."""
        return self._given.dead_lettering

    def urls(self) -> tuple[str, ...]:
        """Return all URLs, that of the link or of the next attempt first."""
        urls = self._config.urls
        return urls[self._next_url :] + urls[: self._next_url]

    def _forget_link(self) -> None:
        self._open_since = None
        self._blocked = self._reopening = False
        self.consuming.due = self.publishing.due = self.checking.due = None
        self._checking = False
        self._consuming.clear()
        self.queues = {}
        self._added = ()
        self._forget_declarations()

    def _forget_declarations(self) -> None:
        self._portions.clear()
        self._waiting.clear()
        self._replies = ()
        self._adding, self._adding_due = link.step(link.ADDING, self._adding, link.GONE), None

    def _end(self) -> str:
        self._due = None
        self._forget_link()
        return ENDED

    # Back-off

    def _count_failure(self, now: float) -> float:
        """Count a lost link. Returns the seconds until the next attempt."""
        policy, opened = self._config.reconnect, self._open_since
        if opened is not None:
            lasted = now - opened >= policy.stable_after
            if lasted or self.progress:
                self._failures = 0
        self._failures += 1
        return policy.delay(self._failures, len(self._config.urls), self._random)


def _portions(commands: tuple[base.Frame, ...], size: int) -> Iterator[tuple[base.Frame, ...]]:
    return (commands[at : at + size] for at in range(0, len(commands), size))
