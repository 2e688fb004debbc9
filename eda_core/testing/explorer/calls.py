"""Calls in a world: workers that make them, and the other service that answers them.

What is checked of a call (:func:`eda_core.testing.explorer.invariants.judge_replied` and around): it ends exactly once,
with its own result, a time-out when its time is over and a result may have been late or lost, the error of a command
that no service is bound to, or the stop of its worker, unless its caller has gone before that. Its command goes out
when a queue for the result is bound, and like any other publish: whole, and until it is confirmed. Each result is
acknowledged at once, and counted if nobody waits for it.
"""

from __future__ import annotations

from typing import Any, Final

from pamqp import commands

from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.link import SERVING
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.envelope import seal
from eda_core.messages.routing import COMMANDS
from eda_core.messages.values import Command, Result
from eda_core.testing.explorer.invariants import PEER, answered, reply_key
from eda_core.testing.explorer.model import Ask, Called, Piece, Post, Violation
from eda_core.testing.explorer.network import Network
from eda_core.testing.explorer.snapshot import label_of

#: The queue of the other service, which is empty after each step.
INBOX: Final = "inbox"


class Calls(Network):
    """What happens with calls."""

    __slots__ = ()

    def _call(self, index: int, ask: Ask, within: DeliveryId | None, cause: str) -> bool:
        """Make a call; whether the machine took it."""
        machine, node = self._machine(index), self._node(index)
        epoch, track = machine.epoch, self._track(node, within)
        ticket = node.asked = node.asked + 1
        label = f"{ask.label}#{ticket}"
        effects = self._attempt(
            index,
            lambda: machine.call(ask.name, label, self.now, ticket=ticket, timeout=ask.timeout, within=within),
            track,
        )
        if effects is None:
            return False
        correlation_id = f"t{index}-call-{ticket}"
        conversation_id = correlation_id if track is None else "c"
        message = Command(ask.name, label, conversation_id, reply_key(index, node), correlation_id)
        self._accept(node, Piece(Post(message), False, cause="" if track is None else cause, call=True), track)
        node.calls[ticket] = Called(label, ask.name, self.now + ask.timeout, epoch, within)
        if within is not None:
            node.runs[within] = node.runs[within]._replace(waits=True)
        self._note(index, "call", label, within=within)
        self._perform(index, epoch, effects)
        return True

    def _forgets(self, index: int, ticket: int) -> None:
        """The caller has gone; if it was a handler, that does something else."""
        self._spend("forget")
        node = self._node(index)
        called = node.calls.pop(ticket)
        self._call_over(node, called)
        caller = called.caller
        if caller is not None and caller in node.runs:
            node.runs[caller] = node.runs[caller]._replace(waits=False)
        self._tell(index, "forget_call", ticket)

    def _told_result(self, index: int, epoch: int, content: tuple[Any, ...]) -> None:
        """A result comes to a worker that counts on its link."""
        label = label_of(content[5]).partition("=")[0]
        node = self.nodes[index]
        expected = any(call.label == label for call in node.calls.values())
        before = node.machine._calls.late
        self._tell(index, "delivered", epoch, *content)
        node = self.nodes[index]
        dropped = node.machine._calls.late - before
        if node.machine.state in SERVING and dropped != (not expected):
            raise Violation(
                "call", f"of {label}, {'' if expected else 'not '}waited for, {dropped} result(s) are dropped"
            )
        if expected and any(call.label == label for call in node.calls.values()) and node.machine.state in SERVING:
            raise Violation("call", f"its result does not end {label}")

    def _peer_takes(self) -> None:
        """The other service takes what has come to its queue."""
        if self.scenario.answers is None:
            return
        for message in self.broker.messages(INBOX):
            taken, label = message.properties, label_of(message.body)
            self._operate([(commands.Basic.Get(queue=INBOX, no_ack=True), None, b"")])
            if self._answer_to(label) != "none":
                conversation = str((taken.headers or {}).get("conversation_id"))
                call = (label, taken.reply_to or "", taken.correlation_id or "", conversation)
                self.inbox: tuple[tuple[str, str, str, str], ...] = (*self.inbox, call)

    def _answer_to(self, label: str) -> str:
        return (self.scenario.answers or {}).get(label.partition("#")[0], "success")

    def _peer_answers(self, _: int, place: int) -> None:
        label, reply_to, correlation_id, conversation_id = self.inbox[place]
        self.inbox = (*self.inbox[:place], *self.inbox[place + 1 :])
        kind = self._answer_to(label)
        status = "error" if kind == "error" else "success"
        result = Result(reply_to, answered(label, kind), conversation_id, status, correlation_id)
        _exchange, _key, properties, body = seal(result, CBOR, DEFAULT_LIMITS)
        method = commands.Basic.Publish(exchange=COMMANDS, routing_key=reply_to)
        self._operate([(method, properties, body)] * (2 if kind == "twice" else 1))

    def _inbox_methods(self) -> list[Any]:
        """What sets the other service up."""
        if self.scenario.answers is None:
            return []
        bound = commands.Queue.Bind(queue=INBOX, exchange=COMMANDS, routing_key=PEER)
        return [commands.Queue.Declare(queue=INBOX, durable=True), bound]
