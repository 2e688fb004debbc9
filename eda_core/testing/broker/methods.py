"""The methods of clients: what the broker does for each, in the table :data:`HANDLERS`.

A function here checks a method, lets the engine or the topology do what it asks for, and replies. It raises ``Refusal``
if the broker refuses the method. It does not know what becomes of messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from pamqp import base, commands

from eda_core.testing.broker import addresses, replies, transactions
from eda_core.testing.broker.arguments import (
    Limits,
    check_consumer_arguments,
    check_master_locator,
    check_queue_arguments,
    demand_same,
    demand_same_queue,
    refuse_unmodelled,
)
from eda_core.testing.broker.bindings import Binding
from eda_core.testing.broker.call import Call
from eda_core.testing.broker.engine import ACK, DISCARD, REQUEUE
from eda_core.testing.broker.message import (
    ACCESS_REFUSED,
    CHANNEL_ERROR,
    NOT_ALLOWED,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    AmqpMessage,
    Dropped,
    Refusal,
    accept,
)
from eda_core.testing.broker.queue import QUORUM_PREFETCH, QUORUM_PRIORITIES, Consumer, ConsumerKey, Queue
from eda_core.testing.broker.ready import ALIKE, Priorities
from eda_core.testing.broker.state import frame
from eda_core.testing.broker.texts import quoted
from eda_core.testing.broker.topology import (
    EXCHANGE,
    QUEUE,
    Exchange,
    refuse_default,
    refuse_reserved,
)
from eda_core.testing.broker.values import freeze
from eda_core.testing.broker.versions import Version


def _clean(name: str) -> str:
    """``name`` without line ends: RabbitMQ removes them in declarations and bindings."""
    return name.replace("\n", "").replace("\r", "")


def _unsupported(what: str) -> Refusal:
    return Refusal(NOT_IMPLEMENTED, what)


# -- channel ---------------------------------------------------------------------------------------------------------


def _channel_open(call: Call, method: commands.Channel.Open) -> None:
    raise Refusal(CHANNEL_ERROR, "second 'channel.open' seen")


def _channel_close(call: Call, method: commands.Channel.Close) -> None:
    call.engine.close_channels([call.channel])
    del call.connection.channels[call.channel.number]
    call.reply(commands.Channel.CloseOk())


def _channel_flow(call: Call, method: commands.Channel.Flow) -> None:
    if not method.active:
        raise _unsupported("active=false")
    call.reply(commands.Channel.FlowOk(True))


def _confirm_select(call: Call, method: commands.Confirm.Select) -> None:
    if call.channel.transaction is not None:
        raise Refusal(PRECONDITION_FAILED, "cannot switch from tx to confirm mode")
    call.channel.confirming = True
    call.reply(commands.Confirm.SelectOk(), unless=method.nowait)


# -- exchanges -------------------------------------------------------------------------------------------------------


def _exchange_declare(call: Call, method: commands.Exchange.Declare) -> None:
    name = _clean(method.exchange)
    if method.passive:
        refuse_default(name)
        call.topology.exchange(name)
    else:
        arguments = dict(method.arguments or {})
        call.topology.declare(
            Exchange(name, method.exchange_type, method.durable, method.auto_delete, method.internal, arguments)
        )
    call.reply(commands.Exchange.DeclareOk(), unless=method.nowait)


def _exchange_delete(call: Call, method: commands.Exchange.Delete) -> None:
    call.topology.delete(_clean(method.exchange), if_unused=method.if_unused)
    call.reply(commands.Exchange.DeleteOk(), unless=method.nowait)


def _binding(source: str, kind: str, destination: str, key: str, arguments: Any) -> Binding:
    binding = Binding(_clean(source), kind, _clean(destination), key, freeze(arguments or {}))
    refuse_default(binding.source, *([binding.destination] if kind == EXCHANGE else []))
    return binding


def _exchange_bind(call: Call, method: commands.Exchange.Bind) -> None:
    binding = _binding(method.source, EXCHANGE, method.destination, method.routing_key, method.arguments)
    call.topology.exchange(binding.source)
    call.topology.exchange(binding.destination)
    call.topology.bind(binding, dict(method.arguments or {}), lambda: None)
    call.reply(commands.Exchange.BindOk(), unless=method.nowait)


def _exchange_unbind(call: Call, method: commands.Exchange.Unbind) -> None:
    binding = _binding(method.source, EXCHANGE, method.destination, method.routing_key, method.arguments)
    call.topology.unbind(binding)
    call.reply(commands.Exchange.UnbindOk(), unless=method.nowait)


# -- queues ----------------------------------------------------------------------------------------------------------


def _queue_declare(call: Call, method: commands.Queue.Declare) -> None:
    name = _clean(method.queue)
    if name.startswith(addresses.NAME):
        replies.declare(call, method, name)
        return
    queue = call.queue(name) if method.passive else _declared_queue(call, name, method)
    call.channel.last_queue = queue.name
    counts = (0, 0)
    if not method.nowait:
        counts = (len(queue), call.engine.consumer_count(queue))
        call.engine.note_unused(queue)
    answer = frame(commands.Queue.DeclareOk, queue=queue.name, message_count=counts[0], consumer_count=counts[1])
    call.reply(answer, unless=method.nowait)


def _declared_queue(call: Call, name: str, method: commands.Queue.Declare) -> Queue:
    engine, arguments = call.engine, dict(method.arguments or {})
    if name:
        refuse_reserved(QUEUE, name)
    elif arguments.get("x-queue-type") == "quorum":
        raise Refusal(PRECONDITION_FAILED, "Cannot declare a server-named queue for type rabbit_quorum_queue")
    else:
        name = call.fresh_name("amq.gen-")
    owner = call.connection.id if method.exclusive else None
    durable = method.durable and not method.exclusive
    resource = call.topology.word(QUEUE, name)
    current = engine.queues.get((call.connection.vhost, name))
    if current is not None:
        if current.owner != owner:
            raise call.locked(current)
        demand_same(resource, "durable", current.durable, durable, engine.version)
        demand_same(resource, "auto_delete", current.auto_delete, method.auto_delete, engine.version)
        demand_same_queue(resource, current.kind, current.arguments, arguments, engine.version)
        return current
    kind = check_queue_arguments(resource, arguments, engine.version)
    if kind == "quorum":
        _check_quorum(resource, durable, owner is not None, method.auto_delete)
    check_master_locator(arguments, engine.version)
    refuse_unmodelled(resource, kind, arguments, engine.version)
    queue = Queue(
        uid=engine.next_uid,
        vhost=call.connection.vhost,
        name=name,
        kind=kind,
        durable=durable,
        auto_delete=method.auto_delete,
        owner=owner,
        arguments=arguments,
        limits=Limits(),
        priorities=_priorities(kind, arguments, engine.version),
    )
    engine.add_queue(queue)
    return queue


def _priorities(kind: str, arguments: dict[str, Any], version: Version) -> Priorities:
    if kind == "quorum":
        return QUORUM_PRIORITIES if version.orders_by_priority else ALIKE
    if "x-max-priority" not in arguments:
        return ALIKE
    return Priorities(0, max(arguments["x-max-priority"], version.lowest_max_priority))


def _check_quorum(resource: str, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    wrong = [("auto-delete", auto_delete), ("exclusive-owner", exclusive), ("non-durable", not durable)]
    for name, present in wrong:
        if present:
            raise Refusal(PRECONDITION_FAILED, f"invalid property '{name}' for {resource}")


def _queue_delete(call: Call, method: commands.Queue.Delete) -> None:
    name = _clean(call.named(method.queue))
    if (call.connection.vhost, name) not in call.engine.queues:
        call.reply(commands.Queue.DeleteOk(0), unless=method.nowait)
        return
    queue = call.queue(name)
    for asked, flag in ((method.if_unused, "if-unused"), (method.if_empty, "if-empty")):
        if asked and queue.quorum:
            operations = f"queue.delete operations with {flag} flag set are not supported by quorum queues"
            raise _unsupported(f"cannot delete {call.word(queue)}. {operations}")
    if method.if_empty and len(queue):
        raise Refusal(PRECONDITION_FAILED, f"{call.word(queue)} not empty")
    if method.if_unused and queue.consumers:
        raise Refusal(PRECONDITION_FAILED, f"{call.word(queue)} in use")
    call.reply(commands.Queue.DeleteOk(len(queue)), unless=method.nowait)
    call.engine.delete_queue(queue)


def _queue_purge(call: Call, method: commands.Queue.Purge) -> None:
    name = call.named(method.queue)
    if replies.is_queue(call, name):
        call.reply(commands.Queue.PurgeOk(0), unless=method.nowait)
        return
    queue = call.queue(name)
    count = queue.purge()
    queue.watch_length()
    call.reply(commands.Queue.PurgeOk(count), unless=method.nowait)


def _queue_binding(call: Call, method: commands.Queue.Bind | commands.Queue.Unbind) -> Binding:
    name = call.named(method.queue)
    key = method.routing_key
    if not method.queue and not key:
        key = name
    replies.refuse_binding(call, _clean(name))
    return _binding(method.exchange, QUEUE, name, key, method.arguments)


def _queue_bind(call: Call, method: commands.Queue.Bind) -> None:
    binding = _queue_binding(call, method)
    call.topology.exchange(binding.source)
    queue = call.engine.queue(call.connection.vhost, binding.destination)
    call.topology.bind(binding, dict(method.arguments or {}), lambda: call.demand_access(queue))
    call.reply(commands.Queue.BindOk(), unless=method.nowait)


def _queue_unbind(call: Call, method: commands.Queue.Unbind) -> None:
    binding = _queue_binding(call, method)
    if call.topology.bound(binding):
        queue = call.engine.queue(call.connection.vhost, binding.destination)
        call.demand_access(queue)
        call.topology.unbind(binding)
    call.reply(commands.Queue.UnbindOk())


# -- publishing ------------------------------------------------------------------------------------------------------


def _publish(call: Call, method: commands.Basic.Publish) -> None:
    if method.immediate:
        raise _unsupported("immediate=true")
    exchange, message = _checked(call, method)
    channel = call.channel
    queues = call.engine.route(exchange, call.connection.vhost, message)
    if channel.transaction is not None:
        transactions.hold_publish(call, channel.transaction, message, queues, mandatory=method.mandatory)
        return
    accepted = call.place(message, queues, mandatory=method.mandatory)
    if not channel.confirming:
        return
    tag = channel.next_publish
    channel.next_publish += 1
    if not accepted:
        # RabbitMQ sets "multiple" if no earlier publish waits for its confirm.
        alone = not channel.unconfirmed or tag < channel.unconfirmed[0]
        call.reply(commands.Basic.Nack(tag, multiple=alone, requeue=False))
    elif call.auto_confirm:
        call.reply(commands.Basic.Ack(tag))
    else:
        channel.unconfirmed.append(tag)


def _checked(call: Call, method: commands.Basic.Publish) -> tuple[Exchange, AmqpMessage]:
    most = call.engine.max_message_bytes
    if len(call.body) > most or isinstance(call.body, Dropped):  # the limit may have been lower when it came
        size = f"message size {len(call.body)} is larger than configured max size {most}"
        raise Refusal(PRECONDITION_FAILED, size)
    exchange = call.topology.exchange(method.exchange)
    if exchange.internal:
        word = call.topology.word(EXCHANGE, exchange.name)
        raise Refusal(ACCESS_REFUSED, f"cannot publish to internal {word}")
    properties = call.properties or commands.Basic.Properties()
    if properties.reply_to == addresses.NAME:
        properties = replies.with_address(call, properties)
    if properties.user_id is not None and properties.user_id != call.connection.user:
        claimed = (
            f"user_id property set to '{quoted(properties.user_id)}' but "
            f"authenticated user was '{quoted(call.connection.user)}'"
        )
        raise Refusal(PRECONDITION_FAILED, claimed)
    message = accept(exchange.name, method.routing_key, properties, call.body, call.engine.version)
    if not exchange.name:
        replies.demand_readable(call, message.routing_keys)
    return exchange, message


# -- consuming -------------------------------------------------------------------------------------------------------


def _qos(call: Call, method: commands.Basic.Qos) -> None:
    if method.prefetch_size:
        raise _unsupported(f"prefetch_size!=0 ({method.prefetch_size})")
    channel = call.channel
    call.reply(commands.Basic.QosOk())
    was_limited = channel.limited
    if not method.global_ or not call.engine.version.shares_prefetch:
        channel.prefetch = method.prefetch_count
        channel.global_limit = channel.volume = 0
    elif not method.prefetch_count:
        channel.global_limit = channel.volume = 0
    else:
        if not channel.global_limit:
            channel.volume = len(channel.unacked)
        channel.global_limit = method.prefetch_count
    if was_limited and not channel.limited:
        call.engine.resume(channel)


def _consume(call: Call, method: commands.Basic.Consume) -> None:
    engine, channel = call.engine, call.channel
    name = call.named(method.queue)
    tag = method.consumer_tag
    if tag in channel.consumers:
        raise Refusal(NOT_ALLOWED, f"attempt to reuse consumer tag '{quoted(tag)}'")
    if name == addresses.NAME:
        replies.consume(call, method)
        return
    replies.refuse_consume(call, name)
    queue = call.queue(name)
    resource = call.word(queue)
    priority = check_consumer_arguments(resource, queue.kind, method.arguments or {}, engine.version)
    if queue.quorum and channel.global_limit:
        raise _unsupported(f"{resource} does not support global qos")
    if not queue.quorum and (queue.exclusive_consumer or (method.exclusive and (queue.single or queue.consumers))):
        raise Refusal(ACCESS_REFUSED, f"{resource} in exclusive use")
    while not tag or tag in channel.consumers:  # a client may have chosen one like those of the broker
        tag = call.fresh_name("amq.ctag-")
    credit = channel.prefetch or (QUORUM_PREFETCH if queue.quorum else None)
    key = ConsumerKey(channel.connection, channel.number, tag)
    channel.consumed += 1
    consumer = Consumer(key, method.no_ack, None if method.no_ack else credit, priority, channel.consumed)
    queue.add_consumer(consumer, exclusive=method.exclusive)
    channel.consumers[tag] = queue.uid
    call.reply(frame(commands.Basic.ConsumeOk, consumer_tag=tag), unless=method.nowait)
    engine.activate(queue)
    engine.deliver_ready(queue)
    if queue.quorum:
        engine.shorten(queue)


def _cancel(call: Call, method: commands.Basic.Cancel) -> None:
    tag = method.consumer_tag or ""
    call.reply(frame(commands.Basic.CancelOk, consumer_tag=tag), unless=method.nowait)
    if call.channel.replies is not None and call.channel.replies.tag == tag:
        call.channel.replies = None
        return
    uid = call.channel.consumers.get(tag)
    if uid is not None:
        key = ConsumerKey(call.channel.connection, call.channel.number, tag)
        call.engine.cancel(call.engine.uids[uid], key)


def _get(call: Call, method: commands.Basic.Get) -> None:
    name = call.named(method.queue)
    replies.refuse_get(call, name)
    call.engine.fetch(call.channel, call.queue(name), no_ack=method.no_ack)


def _settled_tags(call: Call, tag: int, multiple: bool) -> list[int]:
    """The tags of the deliveries that a client settles.

    Raises:
        Refusal: 406. There is no unsettled delivery with this tag.
    """
    unacked = call.channel.unacked
    if multiple and tag == 0:
        return list(unacked)
    if tag not in unacked:
        raise Refusal(PRECONDITION_FAILED, f"unknown delivery tag {tag}")
    return [known for known in unacked if known <= tag] if multiple else [tag]


def _ack(call: Call, method: commands.Basic.Ack) -> None:
    transactions.settle(call, _settled_tags(call, method.delivery_tag, method.multiple), ACK)


def _nack(call: Call, method: commands.Basic.Nack) -> None:
    how = REQUEUE if method.requeue else DISCARD
    transactions.settle(call, _settled_tags(call, method.delivery_tag, method.multiple), how)


def _reject(call: Call, method: commands.Basic.Reject) -> None:
    how = REQUEUE if method.requeue else DISCARD
    transactions.settle(call, _settled_tags(call, method.delivery_tag or 0, False), how, failed=True)


def _recover(call: Call, method: commands.Basic.Recover | commands.Basic.RecoverAsync) -> None:
    if not method.requeue:
        raise _unsupported("requeue=false")
    call.reply(commands.Basic.RecoverOk(), unless=isinstance(method, commands.Basic.RecoverAsync))
    call.engine.settle(call.channel, list(call.channel.unacked), REQUEUE)


Handler = Callable[[Call, Any], None]

HANDLERS: Final = cast(
    dict[type[base.Frame], Handler],
    {
        commands.Channel.Open: _channel_open,
        commands.Channel.Close: _channel_close,
        commands.Channel.Flow: _channel_flow,
        commands.Confirm.Select: _confirm_select,
        commands.Tx.Select: transactions.select,
        commands.Tx.Commit: transactions.commit,
        commands.Tx.Rollback: transactions.roll_back,
        commands.Exchange.Declare: _exchange_declare,
        commands.Exchange.Delete: _exchange_delete,
        commands.Exchange.Bind: _exchange_bind,
        commands.Exchange.Unbind: _exchange_unbind,
        commands.Queue.Declare: _queue_declare,
        commands.Queue.Delete: _queue_delete,
        commands.Queue.Purge: _queue_purge,
        commands.Queue.Bind: _queue_bind,
        commands.Queue.Unbind: _queue_unbind,
        commands.Basic.Publish: _publish,
        commands.Basic.Qos: _qos,
        commands.Basic.Consume: _consume,
        commands.Basic.Cancel: _cancel,
        commands.Basic.Get: _get,
        commands.Basic.Ack: _ack,
        commands.Basic.Nack: _nack,
        commands.Basic.Reject: _reject,
        commands.Basic.Recover: _recover,
        commands.Basic.RecoverAsync: _recover,
    },
)
