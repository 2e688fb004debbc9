"""How handlers end in a world; those that collect their messages in a batch, and its callbacks.

What is checked: none of a batch is acknowledged before what its callback published is confirmed, nor at all if that is
not sent; a batch that fails is judged like the failures of its handlers; of one whose link was lost, all comes again.
The batches are those of :mod:`eda_core.machine.aggregator`, driven as :mod:`eda_core.services.batch` does.
"""

from __future__ import annotations

from typing import Any

from eda_core.machine.identifiers import TAG_MASK, DeliveryId
from eda_core.machine.outcomes import DEFERRED as DEFERS
from eda_core.testing.explorer.calls import Calls
from eda_core.testing.explorer.model import (
    DEFERRED,
    FAILED,
    NOTHING,
    REQUEUED,
    RUNS,
    SUCCEEDED,
    Hand,
    Node,
    Plan,
    Track,
    Violation,
)


class Groups(Calls):
    """What happens at the end of a handler."""

    __slots__ = ()

    def plan(self, label: str) -> Plan:
        return self.scenario.plans.get(label, NOTHING)

    def _end(self, index: int, delivery: DeliveryId, end: str, method: str, *arguments: Any, **named: Any) -> None:
        """The handler is over, or the message is settled by hand."""
        node = self._node(index)
        run = node.runs.pop(delivery)
        counts = self._mark(node, delivery, end)
        if counts and end is REQUEUED:
            self.requeues: dict[str, int] = {**self.requeues, run.label: self.requeues.get(run.label, 0) + 1}
        if counts and end is FAILED:
            self._count_failure(run.label)
            if self.plan(run.label).configures and not node.configured:
                node.wants_configuration = True  # somebody will send another one
            if not run.deferred:  # a failure publishes nothing
                self._fail_group(node, node.tracks[delivery & TAG_MASK])
                node.pieces = {
                    key: piece for key, piece in node.pieces.items() if not (piece.held and piece.delivery == delivery)
                }
        self._tell(index, method, delivery, *arguments, **named)

    def _mark(self, node: Node, delivery: DeliveryId, end: str) -> bool:
        """Note how a handler ended; whether its delivery still counts."""
        track = node.tracks.get(delivery & TAG_MASK)
        if track is None or track.id != delivery:
            return False
        node.tracks[delivery & TAG_MASK] = track._replace(end=end)
        return True

    def _pushes(self, index: int, delivery: DeliveryId) -> None:
        """A handler pushes its message; if that makes the batch full it waits for the callback, else it ends."""
        node = self._node(index)
        run = node.runs[delivery]
        assert node.batch is not None
        node.runs[delivery] = run._replace(made=run.made + 1)
        if node.batch.add(delivery, run.label, self.now):
            self._hand_over(index, delivery)
        else:
            self._pushed(index, delivery)

    def _pushed(self, index: int, delivery: DeliveryId) -> None:
        """The handler of a message that was pushed ends, and leaves it to the batch to acknowledge."""
        node = self._node(index)
        track = self._track(node, delivery)
        run = node.runs[delivery]
        end = FAILED if run.doomed else DEFERRED if track is None or not track.group else SUCCEEDED
        self._end(index, delivery, end, "handled", DEFERS)

    def _hand_over(self, index: int, handled: DeliveryId | None) -> None:
        """The batch is full, or its time has come: its callback begins."""
        node = self._node(index)
        assert node.batch is not None
        taken: list[tuple[DeliveryId, str]] = []
        for delivery, label in node.batch.take(node.machine):
            if delivery is None or self._track(node, delivery) is None:
                raise Violation("I2", f"the batch hands over {label}, which is not in flight")
            taken.append((delivery, label))
        within = node.batch.publisher(node.machine, taken, handled)
        if within is not None:
            node.hands = (*node.hands, Hand(tuple(taken), handled, within))
            if handled is not None:
                node.runs[handled] = node.runs[handled]._replace(waits=True)

    def _batch_publishes(self, index: int, place: int) -> None:
        node = self._node(index)
        hand = node.hands[place]
        assert self.scenario.batch is not None
        post = self.scenario.batch[2][hand.made]
        node.hands = (*node.hands[:place], hand._replace(made=hand.made + 1), *node.hands[place + 1 :])
        cause = dict(hand.taken)[hand.within] if self.scenario.message_ids else ""
        if not self._publish(index, post, hand.within, cause):
            self._callback_ends(index, place, RuntimeError("full"))

    def _batch_succeeds(self, index: int, place: int) -> None:
        self._callback_ends(index, place, None)

    def _batch_fails(self, index: int, place: int) -> None:
        self._spend("failure")
        self._callback_ends(index, place, RuntimeError("on purpose"))

    def _callback_ends(self, index: int, place: int, error: Exception | None) -> None:
        machine, node = self._machine(index), self._node(index)
        hand = node.hands[place]
        node.hands = (*node.hands[:place], *node.hands[place + 1 :])
        found = [self._track(node, delivery) for delivery, _ in hand.taken]
        tracks = [track for track in found if track is not None and track.end in (RUNS, DEFERRED)]
        if error is None:
            self._judged_together(node, tracks)
        else:
            self._failed_together(node, tracks)
        if hand.handled is not None and hand.handled in node.runs:
            node.runs[hand.handled] = node.runs[hand.handled]._replace(waits=False)
        assert node.batch is not None
        self._feed(index, node.batch.settle, machine, hand.taken, error=error)

    def _judged_together(self, node: Node, tracks: list[Track]) -> None:
        group = tuple(track.id & TAG_MASK for track in tracks)
        for track in tracks:
            end = SUCCEEDED if track.end is DEFERRED else track.end
            node.tracks[track.id & TAG_MASK] = track._replace(end=end, group=group)

    def _failed_together(self, node: Node, tracks: list[Track]) -> None:
        for track in tracks:
            if track.end is RUNS:  # when it has ended
                node.runs[track.id] = node.runs[track.id]._replace(doomed=True)
            else:
                node.tracks[track.id & TAG_MASK] = track._replace(end=FAILED, group=())
                self._count_failure(track.label)

    def _fail_group(self, node: Node, failed: Track) -> None:
        """The handler in which the callback ran has failed after all. If what that published is not safe, all have."""
        if not any(piece in node.pieces for piece in failed.pieces):
            return
        others = [node.tracks[tag] for tag in failed.group if tag in node.tracks and tag != failed.id & TAG_MASK]
        self._failed_together(node, others)

    def _count_failure(self, label: str) -> None:
        self.failures: dict[str, int] = {**self.failures, label: self.failures.get(label, 0) + 1}
