"""Keeping the link: connect, declare, lose it, wait, try again, stop. The lower half of the machine.

How states follow each other is in :mod:`eda_core.machine.link`; this module does what each state is for, and
calls the upper half (:mod:`eda_core.machine`) when the link opens, is lost, or the service is over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pamqp import base

from eda_core.checks import is_number
from eda_core.criticality import NOTICE, WARNING
from eda_core.errors import LocalError, StateError
from eda_core.machine import link
from eda_core.machine.config import Config
from eda_core.machine.effects import Cancel, Close, Connect, Declare, Effect, Report, Stopped
from eda_core.machine.identifiers import Epoch
from eda_core.machine.topology import Subscription, bindings, declarations, queue_names, subscriptions
from eda_core.messages.codec import JSON
from eda_core.urls import redact

#: So many links lost soon after consuming began, with nothing ever delivered, point to a message that kills its reader.
_SUSPICIOUS_LOSSES = 3
SERVING: Final = (link.OPEN, link.DRAINING)
OVER: Final = (link.CLOSING, link.STOPPED)
_WITHOUT_LINK: Final = (link.IDLE, link.BACKOFF, link.CLOSING, link.STOPPED)


class LinkKeeper(ABC):
    """The life of the link of one service.

    Attributes:
        config: what the service is.
        state: where the life of the link stands, a constant of :mod:`eda_core.machine.link`.
        epoch: of the present link, or of the next one while there is none.
        stale: how many reports about earlier links, or about nothing known, were ignored.
    """

    __slots__ = (
        "_adding",
        "_blocked_since",
        "_consuming",
        "_delivered_any",
        "_due",
        "_error",
        "_failures",
        "_holds",
        "_mute_losses",
        "_next_url",
        "_open_since",
        "_queues",
        "_random",
        "_refused_urls",
        "_stop_due",
        "_unblocked_at",
        "_wanted",
        "config",
        "epoch",
        "stale",
        "state",
    )

    def __init__(self, config: Config, random: Callable[[], float]) -> None:
        self.config: Config = config
        self.state: str = link.IDLE
        self.epoch: Epoch = Epoch(1)
        self.stale: int = 0
        self._random = random
        self._wanted = subscriptions(config)
        self._queues: Mapping[str, str] = {}
        #: Queues that are being declared; on an open link, those it did not begin with.
        self._adding: tuple[Subscription, ...] = ()
        self._consuming: list[str] = []
        self._failures = 0
        self._next_url = 0
        self._refused_urls: set[int] = set()
        self._open_since: float | None = None
        self._delivered_any = False
        self._mute_losses = 0
        #: When the present state is over: the next attempt, or the end of patience with connecting or closing.
        self._due: float | None = None
        self._stop_due: float | None = None
        self._holds = 0
        self._blocked_since: float | None = None
        self._unblocked_at = 0.0
        self._error: str | None = None

    # What the upper half does

    @abstractmethod
    def _opened(self, now: float, effects: list[Effect]) -> None:
        """The link is open: start to consume and to publish."""

    @abstractmethod
    def _added(self, now: float, effects: list[Effect]) -> None:
        """What :meth:`_want` asked for on an open link is declared."""

    @abstractmethod
    def _lost(self) -> None:
        """The link is gone, and with it every delivery and everything unconfirmed on it."""

    @abstractmethod
    def _abandon(self, effects: list[Effect]) -> None:
        """The service is over: report what can no longer be done."""

    @abstractmethod
    def _move(self, now: float, effects: list[Effect]) -> None:
        """Send and settle what now can be."""

    @abstractmethod
    def _busy(self) -> bool:
        """Whether a stop has to wait for something."""

    # Inputs

    def start(self, now: float) -> list[Effect]:
        """Begin.

        Raises:
            StateError: it had begun.
        """
        effects: list[Effect] = []
        self._go(link.START)
        self._connect(now, effects)
        return effects

    def link_up(self, epoch: Epoch, now: float) -> list[Effect]:
        """The link asked for by ``Connect`` is complete.

        Raises:
            StateError: it was reported before.
        """
        if self._is_stale(epoch):
            return []
        self._go(link.LINK_UP)
        if self.state is not link.DECLARING:
            return []
        self._adding = self._wanted
        return [Declare(self.epoch, declarations(self._adding, self.config.retry.delays))]

    def declared(self, epoch: Epoch, replies: Sequence[base.Frame], now: float) -> list[Effect]:
        """The replies to a ``Declare``, in order.

        Raises:
            StateError: none was asked for.
        """
        effects: list[Effect] = []
        if self._is_stale(epoch):
            return effects
        if self._adding and self._serving():
            self._add_further(replies, now, effects)
            return effects
        self._go(link.DECLARED)
        if self.state is link.BINDING:
            self._bind(replies, now, effects)
        elif self.state is link.OPEN:
            self._due = None
            self._open_since = now
            self._delivered_any = False
            self._refused_urls.clear()
            if self._stop_due is not None:
                self._go(link.STOP)
            self._add(effects)
            self._opened(now, effects)
        return effects

    def link_down(self, epoch: Epoch, reason: str, now: float, *, refused: bool = False) -> list[Effect]:
        """The link could not be opened, was lost, or is closed as asked.

        Args:
            reason: one line for the log; passwords in URLs are removed.
            refused: the broker refused the credentials.
        """
        effects: list[Effect] = []
        if not self._is_stale(epoch):
            self._down(reason, now, effects, refused)
        return effects

    def channel_closed(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        """The broker closed one of the channels; the link is taken up anew, since its topology may be gone."""
        return self._drop(epoch, f"channel closed: {reason}", now)

    def consumer_cancelled(self, epoch: Epoch, consumer_tag: str, now: float) -> list[Effect]:
        """The broker cancelled a consumer: its queue was deleted or has moved to another node."""
        return self._drop(epoch, f"the broker cancelled the consumer of {consumer_tag}", now)

    def blocked(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        """The broker is short of resources and asks not to publish; before the link is open, too."""
        if self._is_stale(epoch) or self.state in _WITHOUT_LINK:
            return []
        if self._blocked_since is None:
            self._blocked_since = now
        return [Report(WARNING, f"the broker blocks publishing: {reason}")]

    def unblocked(self, epoch: Epoch, now: float) -> list[Effect]:
        """The broker takes publishes again."""
        effects: list[Effect] = []
        if not self._is_stale(epoch) and self._blocked_since is not None:
            self._blocked_since = None
            self._unblocked_at = now
            effects.append(Report(NOTICE, "the broker takes publishes again"))
            self._move(now, effects)
        return effects

    def stop(self, now: float, timeout: float | None = None) -> list[Effect]:
        """Take no new work, finish what runs, acknowledge, close. Called again, it can only shorten the time left.

        Args:
            timeout: seconds until what is unfinished is abandoned, by default the configuration's ``stop_timeout``.

        Raises:
            LocalError: the timeout is not a number.
        """
        effects: list[Effect] = []
        if timeout is None:
            timeout = self.config.stop_timeout
        elif not is_number(timeout) or timeout != timeout:
            raise LocalError(f"timeout is {timeout!r}", hint="give seconds")
        due = now + timeout
        self._stop_due = due if self._stop_due is None else min(due, self._stop_due)
        before = self.state
        if not self._over():
            self._go(link.STOP)
            if self.state is link.STOPPED:
                self._end(None, effects)
            elif before is link.OPEN:
                effects.append(Report(NOTICE, "stopping"))
                effects.extend(Cancel(self.epoch, tag) for tag in self._consuming)
            self._finish_if_quiet(now, effects)
        return effects

    def hold(self, now: float) -> list[Effect]:
        """There is work that the machine knows nothing of, such as a batch: a stop waits for its :meth:`release`."""
        self._holds += 1
        return []

    def release(self, now: float) -> list[Effect]:
        """The work of one :meth:`hold` is done.

        Raises:
            StateError: of each was.
        """
        effects: list[Effect] = []
        if not self._holds:
            raise StateError("there is nothing to release", hint="call hold first, once for each release")
        self._holds -= 1
        self._finish_if_quiet(now, effects)
        return effects

    def use_json(self, now: float) -> list[Effect]:
        """Write the payloads of what is published from now on as JSON."""
        self.config = replace(self.config, content_type=JSON)
        return []

    # Time

    def deadline(self) -> float | None:
        """When to call :meth:`tick` next, monotonic seconds; ``None`` if nothing is waited for. May lie in the past."""
        first = self._due
        if not self._over():
            if self._stop_due is not None and (first is None or self._stop_due < first):
                first = self._stop_due
            if self._blocked_since is not None:
                patience = self._blocked_since + self.config.blocked_timeout
                first = patience if first is None else min(first, patience)
        return first

    def tick(self, now: float) -> list[Effect]:
        """Time has passed. Early, late and repeated calls do no harm (rule R7)."""
        effects: list[Effect] = []
        if self._stop_due is not None and now >= self._stop_due and not self._over():
            self._finish(now, effects)
        if self._due is not None and now >= self._due:
            if self.state is link.BACKOFF:
                self._go(link.DUE)
                self._connect(now, effects)
            elif self.state is link.CLOSING:
                self._go(link.DUE)
                self._end(None, effects)
            else:
                self._give_up(f"no link after {self.config.connect_timeout:g} s", now, effects)
        if self._blocked_since is not None and now >= self._blocked_since + self.config.blocked_timeout:
            self._give_up("publishing was blocked for too long", now, effects)
        return effects

    # Steps

    def _go(self, signal: str) -> None:
        self.state = link.step(self.state, signal)

    def _over(self) -> bool:
        return self.state in OVER

    def _serving(self) -> bool:
        return self.state in SERVING

    def _is_stale(self, epoch: Epoch) -> bool:
        if epoch == self.epoch:
            return False
        self._ignore()
        return True

    def _ignore(self) -> None:
        """Count a report that is about nothing known any more."""
        self.stale += 1

    def _connect(self, now: float, effects: list[Effect]) -> None:
        url = self.config.urls[self._next_url]
        self._due = now + self.config.connect_timeout
        effects.append(Connect(self.epoch, url, self.config.connection_name, self.config.heartbeat))

    def _drop(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if not self._is_stale(epoch) and not self._over():
            self._give_up(reason, now, effects)
        return effects

    def _give_up(self, reason: str, now: float, effects: list[Effect]) -> None:
        """Lose the link by our own decision."""
        effects.append(Close(self.epoch, redact(reason)))
        self._down(reason, now, effects, False)

    def _down(self, reason: str, now: float, effects: list[Effect], refused: bool) -> None:
        before = self.state
        self._go(link.DOWN)
        if self.state is before:  # nothing to lose
            self._ignore()
            return
        reason = redact(reason)
        url = self._next_url
        self._next_url = (url + 1) % len(self.config.urls)
        self._note_refusal(url, refused)
        if self.state is link.STOPPED:
            self._end(None, effects)
            return
        if len(self._refused_urls) == len(self.config.urls):
            self._go(link.FATAL)
            self._end(f"the broker refuses the credentials on every URL: {reason}", effects)
            return
        delay = self._count_failure(now)
        self.epoch = Epoch(self.epoch + 1)
        self._due = now + delay
        self._open_since = None
        self._consuming.clear()
        self._queues = {}
        self._adding = ()
        self._blocked_since = None
        self._lost()
        effects.append(Report(WARNING, f"no link to {redact(self.config.urls[url])}: {reason}{self._hint(delay)}"))
        self._move(now, effects)

    def _bind(self, replies: Sequence[base.Frame], now: float, effects: list[Effect]) -> None:
        """The second step of declaring, with the names from the first."""
        queues = queue_names(self._adding, replies)
        if queues is None:
            self._give_up("the broker did not name the queues it declared", now, effects)
        else:
            self._queues = {**self._queues, **queues}
            effects.append(Declare(self.epoch, bindings(self._adding, queues, self.config.prefetch)))

    def _want(self, subscription: Subscription, effects: list[Effect]) -> None:
        """One more queue, on this link and all later ones."""
        self._wanted += (subscription,)
        if self._serving():
            self._add(effects)

    def _add(self, effects: list[Effect]) -> None:
        """Declare, on an open link, what was not wanted yet when it was opened. State and table are as they were."""
        self._adding = tuple(each for each in self._wanted if each.tag not in self._queues)
        if self._adding:
            effects.append(Declare(self.epoch, declarations(self._adding, ())))

    def _add_further(self, replies: Sequence[base.Frame], now: float, effects: list[Effect]) -> None:
        if self._adding[0].tag in self._queues:
            self._adding = ()
            self._added(now, effects)
        else:
            self._bind(replies, now, effects)

    def _note_refusal(self, url: int, refused: bool) -> None:
        if refused:
            self._refused_urls.add(url)
        else:
            self._refused_urls.discard(url)

    def _count_failure(self, now: float) -> float:
        """Note a lost link; seconds until the next attempt."""
        opened = self._open_since
        if opened is not None:
            mute = self._consuming and not self._delivered_any and now - opened < self.config.reconnect.stable_after
            self._mute_losses = self._mute_losses + 1 if mute else 0
            if now - opened >= self.config.reconnect.stable_after:
                self._failures = 0
        self._failures += 1
        return self.config.reconnect.delay(self._failures, len(self.config.urls), self._random)

    def _hint(self, delay: float) -> str:
        hint = f"; trying {redact(self.config.urls[self._next_url])} in {delay:.1f} s"
        if self._mute_losses >= _SUSPICIOUS_LOSSES:
            hint += (
                f" ({self._mute_losses} links were lost as soon as messages were due: a message at the head of a "
                "queue may have headers that no client can read; look at it with the broker's own tools)"
            )
        return hint

    # The end

    def _finish_if_quiet(self, now: float, effects: list[Effect]) -> None:
        if self._stop_due is not None and not self._over() and not self._holds and not self._busy():
            self._finish(now, effects)

    def _finish(self, now: float, effects: list[Effect]) -> None:
        self._go(link.FINISHED)
        if self.state is link.STOPPED:
            self._end(None, effects)
        else:
            self._due = now + self.config.close_timeout
            self._give_back(effects)
            effects.append(Close(self.epoch, "the service stops"))

    def _give_back(self, effects: list[Effect]) -> None:
        """Nothing more is sent: what is unfinished is the broker's again, or cannot be done any more."""
        self._blocked_since = None
        self._lost()
        self._abandon(effects)

    def _end(self, error: str | None, effects: list[Effect]) -> None:
        self._due = None
        self._give_back(effects)
        effects.append(Stopped(error or self._error))
