"""What was accepted for publishing and is not confirmed yet, and which confirm is about which publish.

A publish is in one place at a time: held by the delivery whose handler made it (:mod:`eda_core.machine.deliveries`), in
the backlog, on the link, or waiting to be sent again after the broker refused it. It leaves when the broker has
confirmed it, or when its delivery comes again and makes it again (docs/architecture.rst, "Lost connections"). It knows
nothing of deliveries and links but their identifiers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

from eda_core.errors import BufferFull
from eda_core.machine.config import Config
from eda_core.machine.effects import Effect, Publish
from eda_core.machine.identifiers import Epoch, PublishId

Item = TypeVar("Item")


class Confirms(Generic[Item]):
    """What was sent on a channel with publisher confirms, and has no answer yet.

    The tags of a channel count from 1. Answers come in any order, for one tag or for all up to one; an answer for one
    tag says nothing of the lower ones (AMQP 0-9-1, ``basic.ack``).

    Attributes:
        open: the items by tag, in the order of sending.

    Beside the dictionary there is the lowest tag that may still be in it: an answer for many tags costs as much as they
    are many, and the oldest item is found without a walk over those that are gone.
    """

    __slots__ = ("_low", "_next", "open")

    def __init__(self) -> None:
        self.open: dict[int, Item] = {}
        self._low = self._next = 1

    def add(self, item: Item) -> int:
        """Note that ``item`` is sent now. Returns the tag of its confirm."""
        tag = self._next
        self.open[tag] = item
        self._next = tag + 1
        return tag

    def take(self, tag: int, multiple: bool) -> list[Item]:
        """Remove and return what an answer is about, in the order of sending. A tag that is not open has nothing.

        Args:
            multiple: all tags up to this one. Tag 0 means all there are (AMQP 0-9-1, ``basic.ack``).
        """
        if not multiple:
            item = self.open.pop(tag, None)
            return [] if item is None else [item]
        last = self._next - 1 if tag == 0 else min(tag, self._next - 1)
        taken = [item for each in range(self._low, last + 1) if (item := self.open.pop(each, None)) is not None]
        self._low = max(self._low, last + 1)
        return taken

    def oldest(self) -> Item | None:
        """The item that has waited longest for its answer."""
        if not self.open:
            return None
        while self._low not in self.open:
            self._low += 1
        return self.open[self._low]

    def clear(self) -> list[Item]:
        """Remove and return all items, in the order of sending; the next tag is 1 again."""
        items = list(self.open.values())
        self.open = {}
        self._low = self._next = 1
        return items


class Outbox:
    """The publishes of one service.

    Attributes:
        backlog: what is to be sent, in order.
        limit: so many publishes at most are kept, but for those of handlers that run.
        kept: how many publishes are accepted and not confirmed. What handlers hold does not count.
        wanted: somebody waits for space.
        published: how many publishes were accepted so far, and so the identifier of the last one.
        blocked_since: since when the broker takes no publishes, monotonic seconds; ``None`` while it does.
    """

    __slots__ = (
        "_blocked_timeout",
        "_cancellable",
        "_confirm_timeout",
        "_confirms",
        "_refused",
        "_unblocked_at",
        "_window",
        "backlog",
        "blocked_since",
        "kept",
        "limit",
        "published",
        "wanted",
    )

    def __init__(self, config: Config) -> None:
        self._window = config.window
        self.limit: int = config.buffer
        self._confirm_timeout = config.confirm_timeout
        self._blocked_timeout = config.blocked_timeout
        self._confirms: Confirms[Publish] = Confirms()
        self._refused: deque[tuple[float, Publish]] = deque()
        #: Unconfirmed publishes that may be cancelled: whether they are to be sent again should the link not take them.
        self._cancellable: dict[PublishId, bool] = {}
        self._unblocked_at = 0.0
        self.backlog: deque[Publish] = deque()
        self.kept: int = 0
        self.published: int = 0
        self.wanted: bool = False
        self.blocked_since: float | None = None

    # Accepting

    def refuse_if_full(self) -> None:
        """See that there is space for one more publish.

        Raises:
            BufferFull: there is none.
        """
        if self.kept >= self.limit:
            raise BufferFull(
                f"{self.kept} publishes wait for the broker's confirms", hint="publish more slowly, or wait for space"
            )

    def may_cancel(self, publish: Publish) -> None:
        """Remember that this publish may be cancelled as long as it is not confirmed."""
        self._cancellable[publish.pid] = True

    def cancel(self, publishes: Iterable[Publish]) -> list[Publish]:
        """Drop those of these publishes that are not confirmed: nobody wants them any more.

        One that is on the link cannot be taken back; it is not sent again.

        Returns:
            Those that were dropped.
        """
        unwanted = {publish.pid for publish in publishes} & self._cancellable.keys()
        if not unwanted:
            return []
        dropped = [publish for publish in self.backlog if publish.pid in unwanted]
        dropped += [publish for _, publish in self._refused if publish.pid in unwanted]
        if dropped:
            self.backlog = deque(publish for publish in self.backlog if publish.pid not in unwanted)
            self._refused = deque(each for each in self._refused if each[1].pid not in unwanted)
            self._forget(dropped)
        for pid in unwanted & self._cancellable.keys():  # on the link
            self._cancellable[pid] = False
        return dropped

    def _forget(self, publishes: Collection[Publish]) -> None:
        """They are confirmed, or will not be sent any more."""
        self.kept -= len(publishes)
        for publish in publishes:
            self._cancellable.pop(publish.pid, None)

    # On the link

    def send(self, epoch: Epoch, now: float, effects: list[Effect]) -> None:
        """Move what the window allows from the backlog to the link, which must be open and not blocked."""
        backlog, confirms = self.backlog, self._confirms
        space = self._window - len(confirms.open)
        while backlog and space > 0:
            publish = backlog.popleft()
            publish.epoch = epoch
            publish.tag = confirms.add(publish)
            publish.sent_at = now
            effects.append(publish)
            space -= 1

    def confirmed(self, tag: int, multiple: bool) -> list[Publish]:
        """The publishes that the broker has taken."""
        safe = self._confirms.take(tag, multiple)
        if self._cancellable:
            self._forget(safe)
        else:
            self.kept -= len(safe)
        return safe

    def refused(self, tag: int, multiple: bool, due: float) -> tuple[int, list[Publish]]:
        """Keep the publishes that the broker has refused, to be sent again at ``due``.

        Returns:
            How many those are, and the publishes that are dropped instead since nobody wants them any more.
        """
        refused = self._confirms.take(tag, multiple)
        unwanted = [publish for publish in refused if not self._cancellable.get(publish.pid, True)]
        self._refused.extend((due, publish.again()) for publish in refused if publish not in unwanted)
        self._forget(unwanted)
        return len(refused) - len(unwanted), unwanted

    def returned(self, message_id: str | None, reason: str) -> Publish | None:
        """Note that the broker has returned a publish as unroutable. Its confirm follows.

        Returns:
            The publish; ``None`` for one that is not on the link.
        """
        for publish in self._confirms.open.values():  # nearly always it is the first
            if message_id and publish.properties.message_id == message_id:
                publish.returned = reason
                return publish
        return None

    def block(self, now: float) -> None:
        """The broker takes no publishes for a while."""
        if self.blocked_since is None:
            self.blocked_since = now

    def unblock(self, now: float) -> bool:
        """The broker takes publishes again; whether it did not before."""
        if self.blocked_since is None:
            return False
        self.blocked_since = None
        self._unblocked_at = now
        return True

    # Time

    def deadline(self, serving: bool) -> float | None:
        """When :meth:`overdue` or :meth:`retry` has something to say next, monotonic seconds.

        Args:
            serving: the link is open. Before, nothing of it is overdue but the end of an alarm.
        """
        blocked = self.blocked_since
        first = None if blocked is None else blocked + self._blocked_timeout
        if serving:
            if self._refused and (first is None or self._refused[0][0] < first):
                first = self._refused[0][0]
            unconfirmed = self._confirm_due()
            if unconfirmed is not None and (first is None or unconfirmed < first):
                first = unconfirmed
        return first

    def overdue(self, now: float, serving: bool) -> str | None:
        """Why the link is of no use any more; ``None`` if all is well."""
        if self.blocked_since is not None and now >= self.blocked_since + self._blocked_timeout:
            return f"the broker has taken no publishes for {self._blocked_timeout:g} s"
        if serving:
            unconfirmed = self._confirm_due()
            if unconfirmed is not None and now >= unconfirmed:
                return f"a publish was not confirmed within {self._confirm_timeout:g} s"
        return None

    def _confirm_due(self) -> float | None:
        """When the oldest publish has waited too long, unless the broker has said that it takes none."""
        if self.blocked_since is not None:
            return None
        oldest = self._confirms.oldest()
        return None if oldest is None else max(oldest.sent_at, self._unblocked_at) + self._confirm_timeout

    def retry(self, now: float) -> bool:
        """Put the refused publishes whose time has come into the backlog; whether there were any."""
        found = False
        while self._refused and self._refused[0][0] <= now:
            self.backlog.append(self._refused.popleft()[1])
            found = True
        return found

    # The end of a link, and of the service

    def lose_link(self) -> None:
        """Nothing is known of what was on the link.

        What is kept is sent again, in the order of acceptance. The rest is forgotten: redeliveries make it again.
        """
        unsafe = [publish.again() for publish in self._confirms.clear()]
        unsafe += [publish for _, publish in self._refused]
        unsafe += self.backlog
        wanted = self._cancellable
        kept = [publish for publish in unsafe if publish.kept and wanted.get(publish.pid, True)]
        kept.sort(key=_by_acceptance)
        for publish in kept:
            publish.delivery = None
        self._refused.clear()
        self._cancellable = {pid: True for pid, again in wanted.items() if again}
        self.backlog = deque(kept)
        self.kept -= len(unsafe) - len(kept)
        self.blocked_since = None

    def abandon(self) -> list[Publish]:
        """Remove and return everything that is not confirmed: the service is over."""
        unsafe = [*self._confirms.clear(), *(publish for _, publish in self._refused), *self.backlog]
        self._refused.clear()
        self.backlog.clear()
        self._cancellable.clear()
        self.kept = 0
        return unsafe


def _by_acceptance(publish: Publish) -> PublishId:
    return publish.pid
