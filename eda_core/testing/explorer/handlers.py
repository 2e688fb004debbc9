"""The handlers of a world: they publish, call, and end, as the plan of their message says or with a failure.

What a handler publishes goes to its machine. This module does not know what becomes of it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from eda_core.machine.identifiers import TAG_BITS, DeliveryId
from eda_core.machine.outcomes import CONFIGURED, DONE, Failed
from eda_core.machine.outcomes import DEFERRED as DEFERS
from eda_core.messages.values import Event
from eda_core.services.kept import Kept
from eda_core.testing.explorer.judge import Judge
from eda_core.testing.explorer.machines import Machines
from eda_core.testing.explorer.scenario import AFTERWARDS, Ask, Post, Step
from eda_core.testing.explorer.state import (
    AGAIN,
    CLAIMED,
    DEFERRED,
    DONE_ONLY,
    FAILED,
    KEPT,
    REJECTED,
    REQUEUED,
    SUCCEEDED,
    Node,
    Run,
    State,
)

_FAILURE: Final = Failed("on purpose")


@dataclass(slots=True, eq=False)
class Handlers:
    """Handlers that run, and messages that wait to be acknowledged by hand."""

    _state: State
    _judge: Judge
    _machines: Machines

    def steps(self, index: int, node: Node, usual: list[Step], other: list[Step]) -> None:
        """What the handlers of a worker can do."""
        failing = self._state.may("failure")
        for delivery, run in node.runs.items():
            if run.waits:
                continue
            plan = self._state.scenario.plan(run.label)
            posts = plan.late if run.deferred else plan.posts
            if plan.inbox and not run.inbox:
                if not self._is_claimed(run.source):
                    usual.append(("claims", index, delivery))
            elif plan.inbox and run.made == len(posts) and run.inbox in (CLAIMED, DONE_ONLY):
                usual.append(("commits", index, delivery))
            elif run.made < len(posts):
                usual.append(("publishes", index, delivery))
            elif plan.batched and run.made == len(posts):
                usual.append(("pushes", index, delivery))
            elif run.deferred:
                usual.append(("acknowledges", index, delivery))
            else:
                usual.append(("fails" if plan.poison else "succeeds", index, delivery))
            if failing and run.deferred:
                other += [(kind, index, delivery) for kind in ("rejects", "requeues", "fails late")]
            elif failing and not plan.poison:
                other.append(("fails", index, delivery))

    def end(self, index: int, delivery: DeliveryId, end: str, method: str, *arguments: Any, **named: Any) -> None:
        """A handler is over, or its message is settled by hand; the machine is told by its input ``method``."""
        node = self._state.node(index)
        run = node.runs.pop(delivery)
        self._judge.ended(node, delivery, run, end)
        self._machines.tell(index, method, delivery, *arguments, **named)

    def end_batched(self, index: int, delivery: DeliveryId) -> None:
        """The handler of a message of a batch is over, and leaves it to the batch to acknowledge the message."""
        node = self._state.node(index)
        found = node.delivery(delivery)
        doomed = node.runs[delivery].doomed
        end = FAILED if doomed else DEFERRED if found is None or not found.group else SUCCEEDED
        self.end(index, delivery, end, "handled", DEFERS)

    # -- steps --------------------------------------------------------------------------------------------------------

    def publishes(self, index: int, delivery: DeliveryId) -> None:
        """A handler publishes or calls what comes next. If the machine refuses that, the handler fails."""
        node = self._state.node(index)
        run = node.runs[delivery]
        plan = self._state.scenario.plan(run.label)
        post = (plan.late if run.deferred else plan.posts)[run.made]
        earlier = (*plan.posts, *plan.late[: run.made]) if run.deferred else plan.posts[: run.made]
        self._publish(index, delivery, post, earlier)

    def _publish(self, index: int, delivery: DeliveryId, post: Post | Ask, earlier: Sequence[Post | Ask]) -> bool:
        """Publish or call in a handler. Returns whether that goes on."""
        node = self._state.node(index)
        run = node.runs[delivery]
        number = 1 + sum(each.name == post.name for each in earlier)
        identifier = f"{run.source}/{node.machine.config.service}/{post.name}.{number}" if run.source else ""
        node.runs[delivery] = run._replace(made=run.made + 1)
        taken = self._machines.post(index, post, delivery, run.cause, identifier)
        if not taken:
            self.end(index, delivery, FAILED, "failed" if run.deferred else "handled", _FAILURE)
        return taken

    def _is_claimed(self, source: str) -> bool:
        """Whether an open transaction has claimed a message: the next one waits for its end, as in a database."""
        return any(
            run.source == source and run.inbox is CLAIMED for node in self._state.nodes for run in node.runs.values()
        )

    def claims(self, index: int, delivery: DeliveryId) -> None:
        """A handler asks its inbox. If its message was handled before, it publishes again what was published then."""
        node = self._state.node(index)
        run = node.runs[delivery]
        kept = Kept(run.message, self._state.database.get(run.source), node.machine.config.limits)
        self._machines.tell(index, "identify", delivery, run.source)
        if kept.first:
            node.runs[delivery] = run._replace(inbox=CLAIMED)
            return
        node.runs[delivery] = run._replace(inbox=AGAIN)
        posts = [Post(message, mandatory=mandatory) for message, mandatory in kept.again()]
        for number, post in enumerate(posts):
            if not self._publish(index, delivery, post, posts[:number]):
                return
        node.runs[delivery] = node.runs[delivery]._replace(made=len(self._state.scenario.plan(run.label).posts))

    def commits(self, index: int, delivery: DeliveryId) -> None:
        """The transaction of a handler is committed: with its effect, and with what the inbox keeps."""
        node = self._state.node(index)
        run = node.runs[delivery]
        plan = self._state.scenario.plan(run.label)
        if run.inbox is CLAIMED:
            self._judge.has_effect(run.label)
            if plan.inbox is AFTERWARDS:
                node.runs[delivery] = run._replace(inbox=DONE_ONLY)
                return
        kept = Kept(run.message, None, node.machine.config.limits)
        for post in plan.posts:
            assert isinstance(post, Post)
            kept.add(post.message, not isinstance(post.message, Event) if post.mandatory is None else post.mandatory)
        self._state.database = {**self._state.database, run.source: kept.record()}
        node.runs[delivery] = run._replace(inbox=KEPT)

    def succeeds(self, index: int, delivery: DeliveryId) -> None:
        """A handler returns."""
        node = self._state.node(index)
        run = node.runs[delivery]
        plan = self._state.scenario.plan(run.label)
        if plan.batched:
            self.end_batched(index, delivery)
        elif plan.deferred:
            node.runs[delivery] = Run(run.label, 0, True, run.cause, run.source, run.message)
            self._judge.mark(node, delivery, DEFERRED)
            self._machines.tell(index, "handled", delivery, DEFERS)
        else:
            if plan.configures and delivery >> TAG_BITS == node.machine.epoch:
                node.configured = True
            self.end(index, delivery, SUCCEEDED, "handled", CONFIGURED if plan.configures else DONE)

    def fails(self, index: int, delivery: DeliveryId) -> None:
        """A handler raises."""
        if not self._state.scenario.plan(self._state.nodes[index].runs[delivery].label).poison:
            self._state.spend("failure")
        self.end(index, delivery, FAILED, "handled", _FAILURE)

    def acknowledges(self, index: int, delivery: DeliveryId) -> None:
        """A message is acknowledged by hand."""
        self.end(index, delivery, SUCCEEDED, "ack")

    def rejects(self, index: int, delivery: DeliveryId) -> None:
        """A message is rejected by hand."""
        self._state.spend("failure")
        self.end(index, delivery, REJECTED, "nack")

    def requeues(self, index: int, delivery: DeliveryId) -> None:
        """A message is requeued by hand."""
        self._state.spend("failure")
        self.end(index, delivery, REQUEUED, "nack", requeue=True)

    def fails_late(self, index: int, delivery: DeliveryId) -> None:
        """What was to acknowledge a message by hand fails."""
        self._state.spend("failure")
        self.end(index, delivery, FAILED, "failed", _FAILURE)
