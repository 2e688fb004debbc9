"""The publishes that were accepted and are not confirmed yet.

This module decides which publish is sent next, which confirm is about which publish, and what is sent again. A publish
is in one place at a time: held by the delivery whose handler made it (:mod:`eda_core.machine.deliveries`), in the
backlog, sent on the link, or refused by the broker and waiting to be sent again. It leaves when the broker has
confirmed it, or when its delivery comes again (docs/architecture.rst, "Lost connections"). Of deliveries and links this
module knows only the identifiers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, Generic, TypeVar

from eda_core.errors import BufferFull
from eda_core.machine.config import Config
from eda_core.machine.counts import Counts
from eda_core.machine.effects import Effect, Publish
from eda_core.machine.identifiers import DeliveryId, Epoch, PublishId

Item = TypeVar("Item")

#: Seconds for which the broker may refuse publishes without confirming any, and for which it may confirm none of those
#: that it has read. Then a new link is tried: another channel or node may take them.
_REFUSING: Final = 5.0
_CONFIRMING: Final = 3.0


class Confirms(Generic[Item]):
    """The items that were sent on a channel with publisher confirms and are not answered yet.

    The broker numbers the publishes of a channel from 1. Its answers come in any order, for one tag or for all tags up
    to one. An answer for one tag says nothing about lower tags (AMQP 0-9-1, ``basic.ack``).

    Attributes:
        open: the items by tag, in the order in which they were sent.
    """

    __slots__ = ("_low", "_next", "open")

    def __init__(self) -> None:
        self.open: dict[int, Item] = {}
        #: The lowest tag that may be open, and the next tag. With these, the time that an answer takes depends only on
        #: how many items it answers, and the oldest item is found without a search.
        self._low = self._next = 1

    def add(self, item: Item) -> int:
        """Note that an item is sent now. Returns the tag of its confirm."""
        tag = self._next
        self.open[tag] = item
        self._next = tag + 1
        return tag

    def take(self, tag: int, multiple: bool) -> list[Item]:
        """Remove and return the items that an answer is about, in the order in which they were sent.

        Args:
            tag: the delivery tag of the answer. If it is not open, there is no item.
            multiple: whether it is about all tags up to this one. Then 0 means all (AMQP 0-9-1, ``basic.ack``).
        """
        if not multiple:
            item = self.open.pop(tag, None)
            return [] if item is None else [item]
        last = self._next - 1 if tag == 0 else min(tag, self._next - 1)
        taken = [item for each in range(self._low, last + 1) if (item := self.open.pop(each, None)) is not None]
        self._low = max(self._low, last + 1)
        return taken

    def oldest(self) -> Item | None:
        """Return the item that has waited longest for its answer; ``None`` if there is none."""
        if not self.open:
            return None
        while self._low not in self.open:
            self._low += 1
        return self.open[self._low]

    def clear(self) -> list[Item]:
        """Remove and return all items, in the order in which they were sent. The next tag is 1 again."""
        items = list(self.open.values())
        self.open = {}
        self._low = self._next = 1
        return items


class Outbox:
    """The publishes of one service.

    Attributes:
        backlog: the publishes to send, in order.
        suspects: how many publishes are sent one by one: those that were open when the broker closed the channel.
        limit: how many publishes may be kept. Handlers that run may go beyond it.
        kept: how many publishes were accepted and are not confirmed. Those that handlers hold do not count.
        wanted: whether a caller or a delivery waits for space.
        published: how many publishes were accepted so far. It is also the identifier of the last one.
        blocked_since: since when the broker blocks publishing, monotonic seconds; ``None`` if it does not.
    """

    __slots__ = (
        *"_blocked_timeout _cancellable _confirm_timeout _confirms _counts _open_timeout _opening_due".split(),
        "_read_at",
        *"_refused _refusing_since _tries _troubled _unblocked_at _urls _window backlog blocked_since kept".split(),
        *"limit missing published space suspects wanted".split(),
    )

    def __init__(self, config: Config, counts: Counts) -> None:
        self._counts = counts
        self._window = config.window
        #: How many publishes may be unconfirmed now: the window, 1 while there are suspects, 0 without a channel.
        self.space: int = config.window
        self.suspects: int = 0
        #: The exchanges that may be missing: of those to which publishes were sent when one was missing, those that
        #: have confirmed none since.
        self.missing: set[str] = set()
        #: Whether a confirm ends one of these conditions: suspects, missing exchanges, refusals, no confirms.
        self._troubled = False
        self._open_timeout = config.connect_timeout
        #: When the broker has to have opened the channel again, monotonic seconds; ``None`` if it is open.
        self._opening_due: float | None = None
        #: Since when the broker has refused publishes and confirmed none; since when it has read publishes and answered
        #: none; and how many links were given up for that in a row.
        self._refusing_since: float | None = None
        self._read_at: float | None = None
        self._tries = 0
        self._urls = len(config.urls)
        self.limit: int = config.buffer
        self._confirm_timeout = config.confirm_timeout
        self._blocked_timeout = config.blocked_timeout
        self._confirms: Confirms[Publish] = Confirms()
        self._refused: deque[tuple[float, Publish]] = deque()
        #: The unconfirmed publishes that may be cancelled. The value says whether to send them again after a refusal or
        #: a lost link.
        self._cancellable: dict[PublishId, bool] = {}
        self._unblocked_at = 0.0
        self.backlog: deque[Publish] = deque()
        self.kept: int = 0
        self.published: int = 0
        self.wanted: bool = False
        self.blocked_since: float | None = None

    # Accepting

    def refuse_if_full(self) -> None:
        """Raise ``BufferFull`` if there is no space for one more publish."""
        if self.kept >= self.limit:
            raise BufferFull(
                f"{self.kept} publishes wait for the broker's confirms, which is the limit",
                hint="publish more slowly, or wait until there is space",
            )

    def may_cancel(self, publish: Publish) -> None:
        """Allow to cancel this publish as long as it is not confirmed."""
        self._cancellable[publish.pid] = True

    def cancel(self, publishes: Iterable[Publish]) -> list[Publish]:
        """Drop those of these publishes that are not sent, and return them. The others are not sent again."""
        unwanted = {publish.pid for publish in publishes} & self._cancellable.keys()
        if not unwanted:
            return []
        dropped = self._drop_unsent(lambda publish: publish.pid in unwanted)
        for pid in unwanted & self._cancellable.keys():  # sent already
            self._cancellable[pid] = False
        return dropped

    def _drop_unsent(self, is_unwanted: Callable[[Publish], bool]) -> list[Publish]:
        """Drop the unwanted publishes among those that are not on the link, and return them."""
        dropped = [publish for publish in self.backlog if is_unwanted(publish)]
        dropped += [publish for _, publish in self._refused if is_unwanted(publish)]
        if dropped:
            self.backlog = deque(publish for publish in self.backlog if not is_unwanted(publish))
            self._refused = deque(each for each in self._refused if not is_unwanted(each[1]))
            self._counts.dropped += len(dropped)
            self._forget(dropped)
        return dropped

    def _forget(self, publishes: Collection[Publish]) -> None:
        """Do not count these publishes any more: they are confirmed or dropped."""
        self.kept -= len(publishes)
        for publish in publishes:
            self._cancellable.pop(publish.pid, None)

    # On the link

    def send(self, epoch: Epoch, now: float, effects: list[Effect]) -> None:
        """Send as much of the backlog as the window allows. The link must be open, and not blocked."""
        backlog, confirms = self.backlog, self._confirms
        space = self.space - len(confirms.open)
        while backlog and space > 0:
            publish = backlog.popleft()
            publish.epoch = epoch
            publish.tag = confirms.add(publish)
            publish.sent_at = now
            effects.append(publish)
            space -= 1

    def confirmed(self, tag: int, multiple: bool) -> list[Publish]:
        """Remove and return the publishes that the broker has confirmed."""
        safe = self._confirms.take(tag, multiple)
        if self._troubled:
            self._trust(safe)
        count = len(safe)
        self._counts.confirmed += count
        if self._cancellable:
            self._forget(safe)
        else:
            self.kept -= count
        return safe

    def _trust(self, safe: Collection[Publish]) -> None:
        """Note that the broker takes these publishes, which do not make it close the channel."""
        if safe:
            self._refusing_since, self._read_at, self._tries = None, None, 0
            self.missing.difference_update(publish.exchange for publish in safe)
            self._clear_suspects(len(safe))
            self._troubled = bool(self.suspects or self.missing)

    def _clear_suspects(self, count: int) -> None:
        """Suspect so many publishes less."""
        self.suspects = max(0, self.suspects - count)
        if not self.suspects and self._opening_due is None:
            self.space = self._window

    def refused(self, tag: int, multiple: bool, due: float) -> tuple[int, list[Publish]]:
        """Keep the publishes that the broker has refused, to send them again at ``due``, in monotonic seconds.

        Returns how many are kept, and those that are dropped because they were cancelled.
        """
        refused = self._confirms.take(tag, multiple)
        self._read_at = None
        unwanted = [publish for publish in refused if not self._cancellable.get(publish.pid, True)]
        self._refused.extend((due, publish.again()) for publish in refused if publish not in unwanted)
        self._clear_suspects(len(refused))
        self._counts.refused += len(refused)
        self._counts.dropped += len(unwanted)
        self._forget(unwanted)
        return len(refused) - len(unwanted), unwanted

    def returned(self, message_id: str | None, reason: str) -> Publish | None:
        """Note why the broker has returned a publish. Returns the publish; ``None`` if it is not on the link."""
        for publish in self._confirms.open.values():  # it is nearly always the first one
            if message_id and publish.properties.message_id == message_id:
                publish.returned = reason
                return publish
        return None

    def returned_copies(self, exchange: str, message_id: str | None, reason: str) -> None:
        """Note why the broker has returned a copy of a message. Of several copies with the same id, none is safe."""
        for publish in self._confirms.open.values():
            if publish.exchange == exchange and publish.properties.message_id == message_id:
                publish.returned = reason

    def unconfirmed(self) -> int:
        """Return how many publishes are sent and not answered yet."""
        return len(self._confirms.open)

    def refuses_all(self, now: float) -> str | None:
        """Note that the broker has refused something. Return why to try another link; ``None`` if it need not be."""
        if self._refusing_since is None:
            self._refusing_since, self._troubled = now, True
        if not self._try_another(self._refusing_since, _REFUSING, now):
            return None
        return f"the broker has refused all publishes for {now - self._refusing_since:.0f} s"

    def confirms_none(self, asked: float, now: float) -> str | None:
        """Note that the broker has read what was sent before ``asked``, in monotonic seconds.

        It has answered a question on the same channel. So what it has confirmed before that was read, too.

        Returns why to try another link; ``None`` if it need not be.
        """
        oldest = self._confirms.oldest()
        if oldest is None or oldest.sent_at > asked or self.blocked_since is not None:
            return None
        if self._read_at is None:
            self._read_at, self._troubled = now, True
        if not self._try_another(self._read_at, _CONFIRMING, now):
            return None
        return f"the broker answers, but has confirmed no publish for {now - oldest.sent_at:.0f} s"

    def _try_another(self, since: float, seconds: float, now: float) -> bool:
        """Return whether a condition that lasts ``since`` then, and may last so many seconds, is to end the link.

        Each URL has its turn. If none brings a confirm, another link hardly does, and each one costs the work in
        flight. So the time doubles then, until the condition lasts for the whole time for a confirm.
        """
        rounds = max(0, self._tries + 1 - self._urls)
        longest = max(1.0, self._confirm_timeout / _REFUSING)
        if now < since + seconds * min(2.0 ** min(rounds, 64), longest):
            return False
        self._tries += 1
        return True

    def exchanges(self) -> set[str]:
        """Return the exchanges to which publishes are sent and not confirmed."""
        return {publish.exchange for publish in self._confirms.open.values()}

    def are_missing(self, exchanges: set[str]) -> bool:
        """Note that one of these exchanges is missing. Returns whether all were suspected of that before.

        If not, the next link may help, because it declares the exchanges again.
        """
        known = exchanges <= self.missing
        self.missing |= exchanges
        self._troubled = True
        return known

    def channel_closed(self, now: float) -> tuple[Publish | None, list[Publish]]:
        """Prepare for a new channel, because the broker has closed the present one on account of a publish.

        The publishes that are not confirmed are sent again. If there are several, each is sent alone, so that the next
        close shows which one it is.

        Returns the publish for which the broker has closed the channel, if that is known, and the publishes that are
        dropped because nobody wants them any more.
        """
        open_, wanted = self._confirms.clear(), self._cancellable
        self._troubled, self._read_at = True, None
        self._opening_due = now + self._open_timeout
        self.space = 0
        unwanted = [publish for publish in open_ if not wanted.get(publish.pid, True) or _is_ownerless(publish)]
        self._counts.dropped += len(unwanted)
        self._forget(unwanted)
        if len(open_) == 1:
            self._clear_suspects(1)
            if unwanted:
                return None, unwanted
            self._counts.unsendable += 1
            self._forget(open_)
            return open_[0], []
        gone = set(map(id, unwanted))
        again = [publish.again() for publish in open_ if id(publish) not in gone]
        self.backlog.extendleft(reversed(again))
        self.suspects = len(again)
        return None, unwanted

    def channel_opened(self) -> None:
        """Send again: the channel is open."""
        self._opening_due = None
        self.space = 1 if self.suspects else self._window

    def drop(self, delivery: DeliveryId) -> int:
        """Drop what the handler of a delivery has published for its end, because the delivery has failed.

        What is sent already is only not sent again. Returns how many publishes the delivery does not wait for any more.
        """

        def is_of(publish: Publish) -> bool:
            return publish.delivery == delivery and not publish.kept

        sent = [publish for publish in self._confirms.open.values() if is_of(publish)]
        for publish in sent:
            publish.delivery = None
        return len(sent) + len(self._drop_unsent(is_of))

    def block(self, now: float) -> None:
        """Send nothing: the broker blocks publishing."""
        self._read_at = None
        if self.blocked_since is None:
            self.blocked_since = now

    def unblock(self, now: float) -> bool:
        """Send again: the broker does not block publishing any more. Returns whether it did."""
        if self.blocked_since is None:
            return False
        self.blocked_since = None
        self._unblocked_at = now
        return True

    # Time

    def deadline(self, serving: bool) -> float | None:
        """Return when to call :meth:`overdue` and :meth:`retry` next, in monotonic seconds; ``None`` if nothing is due.

        If the link is not open (``serving``), only a resource alarm can last too long.
        """
        blocked = self.blocked_since
        first = None if blocked is None else blocked + self._blocked_timeout
        if serving:
            if self._refused and (first is None or self._refused[0][0] < first):
                first = self._refused[0][0]
            for due in (self._confirm_due(), self._open_due()):
                if due is not None and (first is None or due < first):
                    first = due
        return first

    def overdue(self, now: float, serving: bool) -> str | None:
        """Return why the link has to be closed; ``None`` if it has not."""
        if self.blocked_since is not None and now >= self.blocked_since + self._blocked_timeout:
            return f"the broker has blocked publishing for {self._blocked_timeout:g} s"
        if serving:
            unconfirmed = self._confirm_due()
            if unconfirmed is not None and now >= unconfirmed:
                return f"a publish was not confirmed within {self._confirm_timeout:g} s"
            opening = self._open_due()
            if opening is not None and now >= opening:
                return f"the broker has not opened a channel for {self._open_timeout:g} s"
        return None

    def _confirm_due(self) -> float | None:
        """Return when the oldest publish has waited too long; ``None`` if there is none, or during an alarm."""
        if self.blocked_since is not None:
            return None
        oldest = self._confirms.oldest()
        return None if oldest is None else max(oldest.sent_at, self._unblocked_at) + self._confirm_timeout

    def _open_due(self) -> float | None:
        """Return when the channel has to be open; ``None`` if it is, or during an alarm: the broker reads nothing."""
        if self._opening_due is None or self.blocked_since is not None:
            return None
        return max(self._opening_due, self._unblocked_at + self._open_timeout)

    def retry(self, now: float) -> bool:
        """Move the refused publishes that are due to the backlog. Returns whether there were any."""
        found = False
        while self._refused and self._refused[0][0] <= now:
            self.backlog.append(self._refused.popleft()[1])
            found = True
        return found

    # The end of a link and of the service

    def lose_link(self) -> list[Publish]:
        """Prepare the publishes for the next link, because the present one is lost.

        Those that are kept are sent again, in the order of their acceptance. The others are forgotten: their handlers
        make them again when the broker has delivered their messages again. Returns those that are kept.
        """
        unsafe = [publish.again() for publish in self._confirms.clear()]
        unsafe += [publish for _, publish in self._refused]
        unsafe += self.backlog
        wanted = self._cancellable
        kept = [publish for publish in unsafe if publish.kept and wanted.get(publish.pid, True)]
        kept.sort(key=_by_acceptance)
        self._refused.clear()
        self._cancellable = {pid: True for pid, again in wanted.items() if again}
        self.backlog = deque(kept)
        self._counts.dropped += len(unsafe) - len(kept)
        self.kept -= len(unsafe) - len(kept)
        self.blocked_since = self._opening_due = self._refusing_since = self._read_at = None
        self.suspects, self.space = 0, self._window
        return kept

    def abandon(self) -> list[Publish]:
        """Remove and return all publishes that are not confirmed: the service has stopped."""
        unsafe = [*self._confirms.clear(), *(publish for _, publish in self._refused), *self.backlog]
        self._refused.clear()
        self.backlog.clear()
        self._cancellable.clear()
        self._counts.dropped += self.kept
        self.kept = 0
        return unsafe


def _is_ownerless(publish: Publish) -> bool:
    """Whether its delivery has failed, and whoever handles that again publishes it again."""
    return publish.delivery is None and not publish.kept


def _by_acceptance(publish: Publish) -> PublishId:
    return publish.pid
