"""Channels that the broker closes, and that the machine is told of."""

from __future__ import annotations

from eda_core.machine.effects import PUBLISHING, Effect
from eda_core.messages.values import Event
from tests.core.kit import Bench

#: What RabbitMQ says to who may not publish to a topic.
REFUSAL = "ACCESS_REFUSED - access to topic 'Told' in exchange 'events' in vhost '/' refused for user 'guest'"


def closed(bench: Bench, reason: str = REFUSAL, channel: str = PUBLISHING) -> list[Effect]:
    return bench.did(bench.machine.channel_closed(bench.epoch, reason, bench.now, channel=channel))


def reopened(bench: Bench, channel: str = PUBLISHING) -> list[Effect]:
    return bench.did(bench.machine.channel_opened(bench.epoch, bench.now, channel=channel))


def told(number: int) -> Event:
    return Event("Told", {"n": number}, "c-1")
