"""Replays dead letters, batch by batch: read, back up, publish, await the confirms, acknowledge.

It does not decide which dead letters are wanted or what becomes of them when they are published
(:mod:`eda_tools.dead_letters.republish`). A dead letter is acknowledged only when its copy is confirmed and did not
come back, so the tool can be killed at any moment. Only what waits at the beginning is looked at, each message once, so
the tool ends even if what it sends dies again at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from rich.table import Table
from rich.text import Text

from eda_core.testing.deaths import published
from eda_tools.bus.amqp import AmqpError
from eda_tools.bus.confirming import CONFIRM_TIMEOUT, Answer, Copy, Publisher
from eda_tools.bus.connect import Session
from eda_tools.bus.pace import Pace
from eda_tools.bus.queues import Reader
from eda_tools.cli.output import Output, OutputClosed, safe
from eda_tools.cli.status import FAILED, ToolError
from eda_tools.dead_letters.backup import Backup
from eda_tools.dead_letters.groups import last_moment
from eda_tools.dead_letters.republish import CopyRules, Unsendable
from eda_tools.messages import show
from eda_tools.messages.delivery import Delivery, fields
from eda_tools.messages.recording import dumps

#: Seconds to wait for the broker's answers, after the tool was told to end.
_GRACE: Final = 3.0
#: Seconds without a confirm after which the tool says so.
_SLOW_CONFIRM: Final = 3.0

REPLAYED: Final = "replayed"
SKIPPED: Final = "skipped"
FAILURE: Final = "failed"


@dataclass(slots=True)
class Item:
    """A dead letter that was read.

    Attributes:
        position: from the head of the queue, beginning with 1.
        tag: its delivery tag.
        name: the routing key of its first publish.
        loses_user: whether its copy has no ``user_id``.
        copy: the message to publish.
        image: its item of the backup.
        reason: why the copy was not sent, or why that is unknown.
    """

    position: int
    tag: int
    delivery: Delivery
    name: str
    loses_user: bool = False
    copy: Copy | None = None
    image: bytes = field(default=b"", repr=False)
    reason: str = ""


class Outcomes:
    """What became of the dead letters: shows each one and counts them.

    Attributes:
        snapshot: how many there were at the beginning.
        read: how many were read.
    """

    def __init__(self, output: Output, *, dry_run: bool) -> None:
        self.snapshot = 0
        self.read = 0
        self._output = output
        self._dry_run = dry_run
        self._counts: dict[str, Counter[str]] = {}
        self._reasons: Counter[str] = Counter()
        self._users = 0

    def _count(self, outcome: str) -> int:
        return sum(counts[outcome] for counts in self._counts.values())

    @property
    def replayed(self) -> int:
        return self._count(REPLAYED)

    @property
    def failed(self) -> int:
        return self._count(FAILURE)

    def add(self, item: Item, outcome: str, reason: str = "") -> None:
        """Count one dead letter. Show it if output is JSON, or if this is a dry run."""
        self._counts.setdefault(item.name, Counter())[outcome] += 1
        self._users += outcome == REPLAYED and item.loses_user
        if outcome == FAILURE:
            self._reasons[reason] += 1
        with contextlib.suppress(OutputClosed):  # the work goes on, even if nobody reads the output any more
            if self._output.json and outcome != SKIPPED:
                self._output.record(self._as_json(item, outcome) | ({"reason": reason} if reason else {}))
            elif self._dry_run and outcome == REPLAYED and item.copy is not None:
                target = item.copy.exchange or f"the queue {item.copy.routing_key}"
                line = Text().append(f"to {safe(target)}: ", style="dim")
                width, moment = max(20, self._output.out.width - len(line)), last_moment(item.delivery) or "-"
                self._output.print(line.append_text(show.as_line(fields(item.delivery), width, time=moment)))

    def _as_json(self, item: Item, outcome: str) -> dict[str, object]:
        return {
            "position": item.position,
            "outcome": "would be replayed" if self._dry_run and outcome == REPLAYED else outcome,
            "name": item.name,
            "conversation_id": item.delivery.headers.get("conversation_id"),
            "message_id": item.delivery.properties.message_id,
            "exchange": None if item.copy is None else item.copy.exchange,
            "routing_key": None if item.copy is None else item.copy.routing_key,
        }

    def show(self) -> None:
        """Show the reasons of failures, and the totals."""
        for reason, count in self._reasons.most_common():
            self._output.note(f"{count} failed: {reason}")
        if self._users:
            self._output.note(
                f"{self._users} sent without user_id: it was another user's, which the broker would refuse from us"
            )
        with contextlib.suppress(OutputClosed):
            if self._output.json:
                totals = {name: self._count(name) for name in (REPLAYED, SKIPPED, FAILURE)}
                self._output.record(
                    {"total": totals | {"unread": max(0, self.snapshot - self.read)}, "dry_run": self._dry_run}
                )
            else:
                self._output.print(self._table())

    def _table(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("message", overflow="fold")
        for name in ("would be replayed" if self._dry_run else REPLAYED, SKIPPED, FAILURE):
            table.add_column(name, justify="right")
        outcomes = (REPLAYED, SKIPPED, FAILURE)
        for name, counts in sorted(self._counts.items()):
            table.add_row(Text(safe(name)), *(str(counts[outcome]) for outcome in outcomes))
        table.add_row("all", *(str(self._count(outcome)) for outcome in outcomes), style="bold")
        return table


class Replay:
    """The work of ``resurrect``. The caller opens and closes everything that is passed to it."""

    def __init__(
        self,
        args: argparse.Namespace,
        output: Output,
        session: Session,
        reader: Reader,
        publisher: Publisher,
        rules: CopyRules,
        backup: Backup | None,
        outcomes: Outcomes,
    ) -> None:
        self._args = args
        self._output = output
        self._session = session
        self._reader = reader
        self._publisher = publisher
        self._rules = rules
        self._backup = backup
        self._outcomes = outcomes
        self._exchanges: dict[str, bool] = {"": True}
        self._chosen = 0
        self._pacing = Pace(args.rate)
        self._ending = asyncio.Event()
        self._slowness_told = False

    async def run(self, wanted: Callable[[Delivery], bool]) -> None:
        """Replay the dead letters for which ``wanted`` is true, at most ``--count``.

        Raises:
            ToolError: the backup cannot be written, or the broker does not confirm any more.
            AmqpError, TimeoutError: a connection was lost.
        """
        self._output.doing = f"sending dead letters of {self._args.queue!r}"
        with self._output.progress(self._args.queue, self._outcomes.snapshot) as show_read:
            while batch := await self._read(wanted, show_read):
                working = asyncio.ensure_future(self._work(batch))
                try:
                    await asyncio.shield(working)
                except asyncio.CancelledError:
                    self._ending.set()
                    await asyncio.wait((working,), timeout=_GRACE)
                    raise

    async def _read(self, wanted: Callable[[Delivery], bool], show_read: Callable[[int], None]) -> list[Item]:
        """Read the next batch. Those that are not wanted are skipped, and held until the end."""
        batch: list[Item] = []
        while len(batch) < self._args.batch_size and self._outcomes.read < self._outcomes.snapshot:
            if self._args.count and self._chosen >= self._args.count:
                break
            if not batch:
                await self._reader.renew()
            wanted_yet = self._outcomes.snapshot - self._outcomes.read
            if self._args.count:
                wanted_yet = min(wanted_yet, self._args.count - self._chosen)
            got = await self._reader.next(wanted_yet)
            if got is None:
                break
            self._outcomes.read += 1
            show_read(self._outcomes.read)
            tag, delivery = got
            origin = published(delivery.headers, delivery.routing_key)
            item = Item(self._outcomes.read, tag, delivery, delivery.routing_key if origin is None else origin[1])
            if wanted(delivery):
                self._chosen += 1
                batch.append(item)
            else:
                self._outcomes.add(item, SKIPPED)
        return batch

    async def _work(self, batch: list[Item]) -> None:
        ready = [item for item in batch if await self._prepared(item)]
        if self._args.dry_run:
            for item in ready:
                self._outcomes.add(item, REPLAYED)
            return
        if self._backup is not None:
            self._backup.write([item.image for item in ready])
        unknown = await self._send(ready)
        if len(ready) > 1:
            # The broker closed the channel because of one message. Sent alone, the others are not affected by it.
            unknown = [again for item in unknown for again in await self._send([item])]
        for item in unknown:
            self._outcomes.add(item, FAILURE, f"it is not known whether it was sent: {item.reason}")

    async def _prepared(self, item: Item) -> bool:
        """Make what is to be sent and backed up. Returns whether the item can be sent."""
        try:
            item.copy = self._rules.copy(item.delivery)
        except Unsendable as error:
            self._outcomes.add(item, FAILURE, str(error))
            return False
        if self._backup is not None:
            try:
                item.image = dumps(item.delivery)
            except Exception as error:  # cbor2 raises many kinds for what AMQP can carry and CBOR cannot
                self._outcomes.add(item, FAILURE, f"it cannot be backed up: {error}")
                return False
        item.loses_user = self._rules.loses_user(item.delivery)
        if not await self._exists(item.copy.exchange):
            self._outcomes.add(item, FAILURE, f"there is no exchange {item.copy.exchange!r}")
            return False
        return True

    async def _exists(self, exchange: str) -> bool:
        """Whether an exchange exists. A publish to a missing one would close the channel."""
        if exchange not in self._exchanges:
            try:
                self._exchanges[exchange] = await self._session.exchange(exchange)
            except AmqpError:
                self._exchanges[exchange] = True  # publishing to it will show
        return self._exchanges[exchange]

    async def _send(self, items: list[Item]) -> list[Item]:
        """Publish copies and acknowledge those that are confirmed. Returns the items whose fate is unknown."""
        sent: list[tuple[Item, asyncio.Future[Answer]]] = []
        for item in items:
            await self._pace()
            if self._ending.is_set():
                break
            assert item.copy is not None
            with self._telling_of_slowness():
                sent.append((item, await self._publisher.publish(item.copy)))
        with self._telling_of_slowness():
            answers = await self._publisher.answers([each for _, each in sent])
        unknown: list[Item] = []
        late: list[str] = []
        for (item, _), answer in zip(sent, answers, strict=True):
            item.reason = answer.reason
            if answer.sent:
                self._reader.ack(item.tag)
                self._outcomes.add(item, REPLAYED)
            elif answer.late:
                late.append(answer.reason)
            elif answer.sent is None:
                unknown.append(item)
            else:
                self._outcomes.add(item, FAILURE, answer.reason)
        if late:
            raise ToolError(f"{len(late)} may have been sent, but {late[0]}", FAILED)
        return unknown

    @contextlib.contextmanager
    def _telling_of_slowness(self) -> Iterator[None]:
        """If the block takes long, say once that the broker is slow to confirm. Otherwise the tool seems to hang."""
        timer = asyncio.get_running_loop().call_later(_SLOW_CONFIRM, self._tell_of_slowness)
        try:
            yield
        finally:
            timer.cancel()

    def _tell_of_slowness(self) -> None:
        if not self._slowness_told:
            self._slowness_told = True
            limit = f"waiting up to {CONFIRM_TIMEOUT:g} s"
            self._output.note(f"the broker does not confirm: is it short of memory or disk? {limit}")

    async def _pace(self) -> None:
        """Wait as long as ``--rate`` demands, or until the tool is told to end."""
        if self._args.rate is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), self._pacing.wait(asyncio.get_running_loop().time()))
