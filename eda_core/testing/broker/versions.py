"""What one release of RabbitMQ does otherwise than another, as a table: :data:`VERSIONS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The largest body of a message that the model takes, in bytes.
LARGEST_BODY: Final = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Version:
    """One column of the table: ``docs/broker-versions.rst`` shows it.

    Attributes:
        name: of the release.
        wrong_type_closes_connection: an unknown type of an exchange ends the connection (503), and not only the channel
            (406).
        max_message_bytes: how long the body of a message may be.
        refuses_unknown_delivery_modes: a publish with a ``delivery_mode`` other than 1 and 2 closes the channel.
        topic_hashes: how many words of a topic exchange's binding key may be ``#`` (``None``: unlimited).
        tells_last_death: dead letters have the headers ``x-last-death-*``.
        ignores_foreign_deaths: the ``x-death`` that a client has written is no history; the first death replaces it.
        keeps_carbon_copies: the header ``CC`` stays when the queue has a routing key for its dead letters.
        subtracts_blind_copies: the routing keys in an ``x-death`` are all of the message, without the first one that is
            like a blind copy, for each of these; else the first key and the copies that are not blind.
        reverses_deaths: the older entries of an ``x-death`` are reversed by each death.
        remembers_failures: ``basic.reject`` marks a message: it is redelivered in all queues that it comes to later.
        counts_each_return: ``x-delivery-count`` of a quorum queue counts how often a message came back. Else it counts
            those that a consumer lost or gave back by ``basic.reject``, and ``x-acquired-count`` counts all.
        counts_from_zero: ``basic.get`` tells an ``x-delivery-count`` of 0.
        delivery_limit: the delivery limit of a quorum queue for which nobody says one (``None``: unlimited).
        drops_in_reverse: a quorum queue that drops several messages at once dead-letters the last one first.
        shares_prefetch: ``basic.qos`` with ``global`` is a prefetch that the consumers of the channel share, and a
            channel with one cannot consume from a quorum queue (540); else it is like one without ``global``.
        orders_by_priority: a quorum queue delivers messages with a higher priority first.
        lowest_max_priority: what an ``x-max-priority`` of 0 counts as.
        yields_to_priority: the single active consumer of a quorum queue makes way for one with a higher priority, as
            soon as it has settled what it has; of those that wait the one with the highest priority is next, then the
            one with the largest prefetch. Else it is the one that has waited longest.
        writes_type_as_term: the error for ``basic.get`` on such a queue writes its type as ``<<"quorum">>``.
        returns_by_age: a quorum queue gets back the messages of a channel by the age of their consumers, and then those
            of ``basic.get``; else by consumer tag, where a message of ``basic.get`` has its delivery tag.
        credits_buried_twice: the prefetch of a consumer of a quorum queue grows with each message that reaches the
            delivery limit.
        newer_arguments: quorum queues know the arguments ``x-consumer-timeout``,
            ``x-consumer-disconnected-timeout`` and ``x-delayed-retry-*``, and classic queues
            ``x-queue-leader-locator``; consumers know ``x-consumer-timeout`` and the filters of streams, and no longer
            ``x-credit`` and ``x-cancel-on-ha-failover``.
        ignores_queue_mode: any value of ``x-queue-mode`` is taken, and has no effect.
        oldest_queue_version: the lowest ``x-queue-version``; the highest one is 2.
        refuses_master_locator: ``x-queue-master-locator`` ends the connection (541) whatever its value is, and not only
            if that is unknown.
        states_queue_type: a declaration without ``x-queue-type``, or with an empty one, says "classic" where it is
            compared with the queue.
        quotes_latin_1: the texts of errors quote what is not UTF-8 as if it were Latin-1, and are cut after 255
            characters; else they quote its octets, and are cut after 255 octets.
        mixes_numbers: a headers exchange takes an integer and a float of the same value for equal.
        ignores_times: a headers exchange takes no two times for equal.
        replies_are_queues: the address of a direct reply is a queue: a mandatory reply is never sent back, it waits for
            the commit of a transaction, has a delivery tag of its own, and comes from the same virtual host only; to
            bind the address is 403, to consume from it 406, to fetch from it 540. Else it is none: a mandatory reply is
            delivered and sent back.
        finds_queues_at_publish: a transaction looks for the queues of a message when it is published. If one is deleted
            before the commit, the connection ends (506), and if it is a classic queue and declared again, the commit
            fails (406); else the queues of these names get the message that are there at the commit.
    """

    name: str
    wrong_type_closes_connection: bool
    max_message_bytes: int
    refuses_unknown_delivery_modes: bool
    topic_hashes: int | None
    tells_last_death: bool
    ignores_foreign_deaths: bool
    keeps_carbon_copies: bool
    subtracts_blind_copies: bool
    reverses_deaths: bool
    remembers_failures: bool
    counts_each_return: bool
    counts_from_zero: bool
    delivery_limit: int | None
    drops_in_reverse: bool
    credits_buried_twice: bool
    shares_prefetch: bool
    orders_by_priority: bool
    lowest_max_priority: int
    yields_to_priority: bool
    writes_type_as_term: bool
    returns_by_age: bool
    newer_arguments: bool
    ignores_queue_mode: bool
    oldest_queue_version: int
    refuses_master_locator: bool
    states_queue_type: bool
    quotes_latin_1: bool
    mixes_numbers: bool
    ignores_times: bool
    replies_are_queues: bool
    finds_queues_at_publish: bool


_3_10: Final = Version(
    name="3.10",
    wrong_type_closes_connection=True,
    max_message_bytes=LARGEST_BODY,
    refuses_unknown_delivery_modes=True,
    topic_hashes=None,
    tells_last_death=False,
    ignores_foreign_deaths=False,
    keeps_carbon_copies=False,
    subtracts_blind_copies=False,
    reverses_deaths=True,
    remembers_failures=False,
    counts_each_return=True,
    counts_from_zero=True,
    delivery_limit=None,
    drops_in_reverse=True,
    credits_buried_twice=True,
    shares_prefetch=True,
    orders_by_priority=False,
    lowest_max_priority=0,
    yields_to_priority=False,
    writes_type_as_term=False,
    returns_by_age=False,
    newer_arguments=False,
    ignores_queue_mode=False,
    oldest_queue_version=1,
    refuses_master_locator=False,
    states_queue_type=False,
    quotes_latin_1=False,
    mixes_numbers=True,
    ignores_times=False,
    replies_are_queues=False,
    finds_queues_at_publish=False,
)
_4_3: Final = Version(
    name="4.3",
    wrong_type_closes_connection=False,
    max_message_bytes=16 * 1024 * 1024,
    refuses_unknown_delivery_modes=False,
    topic_hashes=2,
    tells_last_death=True,
    ignores_foreign_deaths=True,
    keeps_carbon_copies=True,
    subtracts_blind_copies=True,
    reverses_deaths=False,
    remembers_failures=True,
    counts_each_return=False,
    counts_from_zero=False,
    delivery_limit=20,
    drops_in_reverse=False,
    credits_buried_twice=False,
    shares_prefetch=False,
    orders_by_priority=True,
    lowest_max_priority=1,
    yields_to_priority=True,
    writes_type_as_term=True,
    returns_by_age=True,
    newer_arguments=True,
    ignores_queue_mode=True,
    oldest_queue_version=2,
    refuses_master_locator=True,
    states_queue_type=True,
    quotes_latin_1=True,
    mixes_numbers=False,
    ignores_times=True,
    replies_are_queues=True,
    finds_queues_at_publish=True,
)
VERSIONS: Final = {version.name: version for version in (_3_10, _4_3)}
NEWEST: Final = _4_3.name
