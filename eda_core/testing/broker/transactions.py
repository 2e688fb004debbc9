"""The methods of class Tx. Publishes and acknowledgements wait in the channel's ``Transaction`` for its commit.

RabbitMQ checks and routes a message when it is published, and a commit is not all or nothing: if a queue refuses one
message, everything else is done, and then the channel is closed.
"""

from __future__ import annotations

from collections.abc import Sequence

from pamqp import base, commands

from eda_core.testing.broker.call import Call
from eda_core.testing.broker.message import PRECONDITION_FAILED, RESOURCE_ERROR, AmqpMessage, Refusal
from eda_core.testing.broker.replies import is_queue
from eda_core.testing.broker.state import HeldPublish, Transaction


def select(call: Call, method: commands.Tx.Select) -> None:
    """Make a channel transactional, for ever.

    Raises:
        Refusal: 406. It has confirms.
    """
    if call.channel.confirming:
        raise Refusal(PRECONDITION_FAILED, "cannot switch from confirm to tx mode")
    if call.channel.transaction is None:
        call.channel.transaction = Transaction()
    call.reply(commands.Tx.SelectOk())


def hold_publish(
    call: Call, transaction: Transaction, message: AmqpMessage, queues: Sequence[str], *, mandatory: bool
) -> None:
    """Hold a message that was routed to ``queues``, some of which may not exist."""
    known = ((name, call.engine.queues.get((call.connection.vhost, name))) for name in queues)
    uids = {name: None if queue.quorum else queue.uid for name, queue in known if queue is not None}
    transaction.publishes.append(HeldPublish(message, mandatory, tuple(queues), uids))


def settle(call: Call, tags: list[int], how: str, *, failed: bool = False) -> None:
    """Settle deliveries (see ``Engine.settle``), now or when the transaction is committed."""
    channel, engine = call.channel, call.engine
    if channel.transaction is None:
        engine.settle(channel, tags, how, failed=failed)
    else:
        failed = failed and engine.version.remembers_failures  # else the two are of one kind
        channel.transaction.hold(how, failed, {tag: channel.unacked.pop(tag) for tag in tags})


def commit(call: Call, method: commands.Tx.Commit) -> None:
    """Do what the transaction holds.

    Raises:
        Refusal: 406, the channel is not transactional, or a queue has refused a message; 506, a queue is gone.
    """
    transaction = _demand(call, method)
    # What is not done yet stays in the transaction: if the connection ends it is rolled back.
    whole = True
    while transaction.publishes:
        whole &= _publish(call, transaction.publishes.pop(0))
    if whole:
        call.reply(commands.Tx.CommitOk())
        _settle_all(call, transaction)
        return
    sent = len(call.engine.out)
    _settle_all(call, transaction)
    # What the channel gets now it would get after its end.
    out, here = call.engine.out, (call.connection.id, call.channel.number)
    out[sent:] = [item for item in out[sent:] if (item.connection, item.channel) != here]
    raise Refusal(PRECONDITION_FAILED, "partial tx completion")


def _settle_all(call: Call, transaction: Transaction) -> None:
    while transaction.settlements:
        how, failed, deliveries = transaction.settlements.pop(0)
        call.channel.unacked.update(deliveries)
        call.engine.settle(call.channel, sorted(deliveries), how, failed=failed)


def roll_back(call: Call, method: commands.Tx.Rollback) -> None:
    """Forget what the transaction holds. The deliveries that it was to settle are unsettled again.

    Raises:
        Refusal: 406. The channel is not transactional.
    """
    _demand(call, method)
    call.channel.roll_back()
    call.reply(commands.Tx.RollbackOk())


def _demand(call: Call, method: base.Frame) -> Transaction:
    if call.channel.transaction is None:
        raise Refusal(PRECONDITION_FAILED, "channel is not transactional")
    return call.channel.transaction


def _publish(call: Call, held: HeldPublish) -> bool:
    """Publish a message that was held. Returns whether no queue refuses it."""
    if not call.engine.version.finds_queues_at_publish:
        return call.place(held.message, held.queues, mandatory=held.mandatory)
    targets = [name for name in held.queues if name in held.uids or is_queue(call, name)]
    lost = [name for name in targets if _is_lost(call, name, held.uids)]
    found = [name for name in targets if name not in lost]
    return call.place(held.message, found, mandatory=held.mandatory and not lost) and not lost


def _is_lost(call: Call, name: str, uids: dict[str, int | None]) -> bool:
    """Whether a queue, or the one that has its name now, gets no message that was published for it.

    Raises:
        Refusal: 506. There is none any more.
    """
    vhost, queue = call.connection.vhost, call.engine.queues.get((call.connection.vhost, name))
    if name not in uids:  # it is an address for direct replies
        return False
    if queue is None:
        missing = f'{{not_found,{{resource,<<"{vhost}">>,queue,<<"{name}">>}}}}'
        raise Refusal(RESOURCE_ERROR, f"failed to deliver message: {missing}")
    return uids[name] not in (None, queue.uid)
