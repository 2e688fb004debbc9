"""What the explorer checks: the invariants (docs/architecture.rst, "Invariants"), judged from outside the machine.

Everything here is decided by what the world itself did and saw (which handler ended how, which confirm the broker
gave, what is in its queues); the machine's own books are not asked, but for the state of its link.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eda_core.errors import CommandError, CommandTimeout, PublishError
from eda_core.machine import link as life
from eda_core.machine.calls import answer
from eda_core.machine.config import Config
from eda_core.machine.effects import Ack, Nack, Publish, Replied
from eda_core.machine.identifiers import TAG_MASK
from eda_core.messages.codec import encode
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS
from eda_core.messages.values import Command, Configuration, Event, Result
from eda_core.testing.broker.model import Broker
from eda_core.testing.explorer.model import (
    FAILED,
    REJECTED,
    RESULT,
    RUNS,
    SUCCEEDED,
    Called,
    Link,
    Node,
    Piece,
    Track,
    Violation,
)
from eda_core.testing.explorer.snapshot import label_of

DEAD: Final = "dead"
SINK: Final = "sink"
#: The command of the service that answers calls.
PEER: Final = "peer.Do"

_EXCHANGE: Final = {Event: EVENTS, Command: COMMANDS, Result: COMMANDS, Configuration: CONFIGURATIONS}


def judge_ack(node: Node, effect: Ack) -> list[Track]:
    """I1 and I2 for an acknowledgement; returns the deliveries that it settles."""
    if effect.tag not in node.tracks:
        raise Violation("I2", f"{effect} is about no unsettled delivery of its link")
    if not effect.multiple:
        covered = [effect.tag]
    else:
        covered = [tag for tag in node.tracks if tag <= effect.tag]
    return [_judge_settled(node, node.tracks.pop(tag), effect) for tag in covered]


def _judge_settled(node: Node, track: Track, effect: Ack) -> Track:
    retried = track.end is FAILED and track.retried
    if track.end not in (SUCCEEDED, RESULT) and not retried:
        raise Violation("I1", f"{effect} acknowledges {track.label}, whose handler {track.end}")
    tracks = [track, *(node.tracks[tag] for tag in track.group if tag in node.tracks)]
    unsafe = [node.pieces[key].post.label for each in tracks for key in each.pieces if key in node.pieces]
    if unsafe:
        raise Violation("I1", f"{effect} acknowledges {track.label} before {', '.join(unsafe)} is confirmed")
    return track


def judge_nack(node: Node, effect: Nack, failures: int, requeues: int, disturbed: bool) -> Track:
    """I2 and I4 for a rejection.

    Args:
        failures: of the handler of this message so far, while its delivery counted.
        requeues: attempts of this message that ended so, likewise.
        disturbed: whether something happened to the message that its worker cannot know of.
    """
    track = node.tracks.pop(effect.tag, None)
    if track is None:
        raise Violation("I2", f"{effect} is about no unsettled delivery of its link")
    if track.end is RESULT:
        raise Violation("call", f"{effect} rejects {track.label}, the result of a call")
    if track.end is SUCCEEDED:
        raise Violation("I4", f"{effect} gives back {track.label}, whose handler succeeded")
    if effect.requeue:
        if track.end is RUNS and (node.machine.state is not life.DRAINING or track.id in node.runs):
            raise Violation("I2", f"{effect} gives back {track.label} while its handler runs")
        if track.end is REJECTED:
            raise Violation("I4", f"{effect} requeues {track.label}, which its handler rejected")
        if track.end is FAILED and failures >= node.machine.config.retry.attempts and not disturbed:
            raise Violation("I4", f"{track.label} is tried again after {failures} failed attempt(s)")
    elif track.end is FAILED:
        _judge_giving_up(node, track, failures, requeues, disturbed)
    elif track.end is not REJECTED:
        raise Violation("I4", f"{effect} dead-letters {track.label}, whose handler {track.end}")
    if track.end is REJECTED and any(key in node.pieces for key in track.pieces):
        raise Violation("I1", f"{effect} rejects {track.label} before what it published is confirmed")
    return track


def _judge_giving_up(node: Node, track: Track, failures: int, requeues: int, disturbed: bool) -> None:
    """I4: to the dead letters after exactly the attempts of the policy, those included that gave the message back.

    A redelivered message of which its worker knows nothing counts as failed once, elsewhere (``policy.AttemptMemory``);
    a delayed retry that is lost with its link begins anew, so there may be more attempts.
    """
    retry = node.machine.config.retry
    fewest = retry.attempts - 1 if disturbed and not retry.delays else retry.attempts
    most = failures if disturbed else retry.attempts
    if not max(1, fewest - requeues) <= failures <= most:
        raise Violation("I4", f"{track.label} is dead-lettered after {failures} of {retry.attempts} attempts")


def judge_publish(node: Node, link: Link, effect: Publish) -> None:
    """A publish goes out: it is one of those accepted, it is whole, its time has come."""
    piece = node.pieces.get(effect.pid)
    if piece is None:
        raise Violation("I3", f"{effect!r} was confirmed, or forgotten, or never asked for, and is sent")
    track = node.tracks.get(piece.delivery & TAG_MASK)
    if piece.held and track is not None and track.end is RUNS:
        raise Violation("R6", f"{piece.post.label} is sent although its handler has not succeeded")
    if effect.pid in link.sent.values():
        raise Violation("I3", f"{piece.post.label} is sent twice")
    if effect.tag != link.last + 1:
        raise Violation("I3", f"{effect!r} has the confirm tag {effect.tag}, the channel will count {link.last + 1}")
    if len(link.sent) >= node.machine.config.window:
        raise Violation("R9", f"{effect!r} goes beyond the window of {node.machine.config.window}")
    if not piece.retry:
        wrong = misfit(piece, effect, node.machine.config)
        if wrong:
            raise Violation("I3", f"{piece.post.label} is not sent as it was accepted: {wrong}")


def misfit(piece: Piece, effect: Publish, config: Config) -> str | None:
    """How a publish differs from its message (docs/architecture.rst, "Envelope"); ``None`` if it does not."""
    message = piece.post.message
    mandatory = piece.post.mandatory
    exchange = _EXCHANGE[type(message)]
    headers: dict[str, Any] = {"conversation_id": message.conversation_id}
    if piece.cause:
        headers["causation_id"] = piece.cause
    reply_to = correlation_id = None
    if isinstance(message, Command):
        reply_to, correlation_id = message.reply_to, message.correlation_id
    elif isinstance(message, Result):
        correlation_id = message.correlation_id
        headers["status"] = message.status
    properties = effect.properties
    pairs = {
        "exchange": (effect.exchange, exchange),
        "routing_key": (effect.routing_key, message.name),
        "body": (effect.body, encode(message.payload, config.content_type, config.limits)),
        "mandatory": (effect.mandatory, exchange == COMMANDS if mandatory is None else mandatory),
        "delivery_mode": (properties.delivery_mode, 2),
        "content_type": (properties.content_type, config.content_type),
        "reply_to": (properties.reply_to or None, reply_to),
        "correlation_id": (properties.correlation_id or None, correlation_id),
        "headers": (properties.headers, headers),
        "app_id": (properties.app_id, config.service),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            return f"{name} is {found!r}, not {expected!r}"
    return None if properties.message_id else "no message_id"


def judge_lost(broker: Broker, promised: frozenset[str], done: frozenset[str]) -> None:
    """Conservation: whatever the broker was given and no handler has finished is still in one of its queues."""
    missing = promised - done
    if not missing:
        return
    engine = broker._engine
    for queue in engine.queues.values():
        if queue.name != SINK:
            missing = missing - {label_of(entry.message.body) for entry in queue.entries()}
    for connection in engine.connections.values():
        for channel in connection.channels.values():
            missing = missing - {label_of(pending.entry.message.body) for pending in channel.unacked.values()}
    if missing:
        raise Violation("I4", f"lost: {', '.join(sorted(missing))} is in no queue, and was not handled")


def reply_key(index: int, node: Node) -> str:
    """Where the results of a worker's calls are sent to."""
    return f"{node.machine.config.service}.t{index}"


def is_bound(broker: Broker, key: str | None) -> bool:
    """Whether a queue for the results of calls is bound under this routing key."""
    return any(binding.source == COMMANDS and binding.key == key for binding in broker.bindings())


def judge_reachable(broker: Broker, effect: Publish) -> None:
    """The command of a call goes out: the queue of its result is there."""
    if not is_bound(broker, effect.properties.reply_to):
        raise Violation("call", f"{effect!r} is sent before its result can come")


def judge_replied(node: Node, effect: Replied, answers: Mapping[str, str], now: float, disturbed: bool) -> Called:
    """A call is over: once, and with what became of it.

    Args:
        answers: of the other service, by label.
        disturbed: whether a result may have been late, or lost even though no link was.
    """
    called = node.calls.pop(effect.ticket, None)
    if called is None:
        raise Violation("call", f"{effect!r}, of a call that is over")
    kind = answers.get(called.label.partition("#")[0], "success")
    over = node.machine.state in (life.CLOSING, life.STOPPED)
    try:
        told, expected = ("result", answer(effect)), ("result", answered(called.label, kind))
        right = kind != "error"
    except CommandError as error:
        told, expected = ("error", error.payload), ("error", answered(called.label, kind))
        right = kind == "error"
    except CommandTimeout as error:
        told = expected = ("time-out", str(error))
        lost = called.epoch < node.machine.epoch or node.machine.state is life.BACKOFF
        right = now >= called.due and (disturbed or kind == "none" or lost)
    except PublishError as error:
        told = expected = ("failure", str(error))
        right = over or called.name != PEER
    if not right or told != expected or effect.command != called.name:
        raise Violation("call", f"{called.label}, which is answered by {kind!r}, comes to {told[0]}: {told[1]}")
    return called


def answered(label: str, kind: str) -> str:
    """The payload of the result of a call."""
    return f"{label}={kind}"


def judge_quiet(node: Node) -> str | None:
    """What is unfinished in a node for which nothing can happen any more (I5); ``None`` if it is as it should be."""
    machine = node.machine
    if node.over:
        return None if machine.state is life.STOPPED else f"it said Stopped and is {machine.state}"
    if machine.state is not life.OPEN:
        return f"it is {machine.state}"
    if node.stop_due is not None:
        return "it was asked to stop and has not"
    if node.pieces:
        return f"not confirmed: {', '.join(sorted(piece.post.label for piece in node.pieces.values()))}"
    if node.calls or len(machine._calls) or machine._calls._held:
        return f"not over: {[call.label for call in node.calls.values()]}, or of those it knows: {machine._calls._held}"
    if node.hands:
        return "the callback of a batch has not ended"
    if node.tracks:
        return f"not settled: {', '.join(sorted(track.label for track in node.tracks.values()))}"
    if node.starved:
        return "a caller still waits for room"
    if machine._outbox.kept:
        return f"it counts {machine._outbox.kept} publish(es) as unsafe, and all are confirmed"
    return None
