"""Calls that are under way in a world: callers that no longer wait, and the other service that answers.

A handler makes a call as it publishes: see :mod:`eda_core.testing.explorer.machines`. This module
does not know how a call may end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pamqp import commands

from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.envelope import seal
from eda_core.messages.routing import COMMANDS
from eda_core.messages.values import Result
from eda_core.testing.explorer.judge import PEER, Judge, result_of
from eda_core.testing.explorer.machines import Machines
from eda_core.testing.explorer.network import Network
from eda_core.testing.explorer.scenario import Step
from eda_core.testing.explorer.snapshot import label_of
from eda_core.testing.explorer.state import Node, State

#: The queue of the other service. It is empty after each step.
INBOX: Final = "inbox"


@dataclass(slots=True, eq=False)
class Calls:
    """The callers, and the other service."""

    _state: State
    _judge: Judge
    _machines: Machines
    _network: Network

    def caller_steps(self, index: int, node: Node, other: list[Step]) -> None:
        """What the callers of a worker can do."""
        if self._state.may("forget"):
            other += [("forgets", index, ticket) for ticket in node.calls]

    def answer_steps(self, usual: list[Step], other: list[Step]) -> None:
        """What the other service can do."""
        if self._state.inbox and not self._state.alarm:
            usual.append(("peer answers", -1, 0))
            other += [("peer answers", -1, place) for place in range(1, len(self._state.inbox))]

    def set_up(self) -> None:
        """The other service declares its queue."""
        if self._state.scenario.answers is not None:
            bind = commands.Queue.Bind(queue=INBOX, exchange=COMMANDS, routing_key=PEER)
            declare = commands.Queue.Declare(queue=INBOX, durable=True)
            self._network.operate([(declare, None, b""), (bind, None, b"")])

    def collect(self) -> None:
        """The other service takes what has come to its queue."""
        state = self._state
        if state.scenario.answers is None:
            return
        for message in state.broker.messages(INBOX):
            properties, label = message.properties, label_of(message.body)
            self._network.operate([(commands.Basic.Get(queue=INBOX, no_ack=True), None, b"")])
            if self._kind(label) != "none":
                conversation = str((properties.headers or {}).get("conversation_id"))
                call = (label, properties.reply_to or "", properties.correlation_id or "", conversation)
                state.inbox = (*state.inbox, call)

    def _kind(self, label: str) -> str:
        return (self._state.scenario.answers or {}).get(label.partition("#")[0], "success")

    # -- steps --------------------------------------------------------------------------------------------------------

    def forgets(self, index: int, ticket: int) -> None:
        """A caller has gone. If it was a handler, that does something else now."""
        self._state.spend("forget")
        node = self._state.node(index)
        call = node.calls.pop(ticket)
        self._judge.call_ended(node, call)
        node.resume(call.caller)
        self._machines.tell(index, "forget_call", ticket)

    def peer_answers(self, _: int, place: int) -> None:
        """The other service answers one of the calls that it has taken."""
        state = self._state
        label, reply_to, correlation_id, conversation_id = state.inbox[place]
        state.inbox = (*state.inbox[:place], *state.inbox[place + 1 :])
        kind = self._kind(label)
        status = "error" if kind == "error" else "success"
        result = Result(reply_to, result_of(label, kind), conversation_id, status, correlation_id)
        _exchange, _key, properties, body = seal(result, CBOR, DEFAULT_LIMITS)
        method: Any = commands.Basic.Publish(exchange=COMMANDS, routing_key=reply_to)
        self._network.operate([(method, properties, body)] * (2 if kind == "twice" else 1))
