"""Effects are values. Their texts name what they are about, without passwords and payloads."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
from pamqp.commands import Basic, Exchange, Queue

from eda_core.machine import effects
from eda_core.machine.effects import (
    ON_LINK,
    Ack,
    Cancel,
    Close,
    Connect,
    Consume,
    Declare,
    Nack,
    OpenChannel,
    Probe,
    Publish,
    PublishDone,
    PublishLog,
    Ready,
    Replied,
    Report,
    Returned,
    Stopped,
    Unconfigured,
)
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.messages.values import Result
from tests.core.kit import SHOWN, URLS, make_publish

EPOCH = Epoch(1)


def test_the_union_has_every_effect_of_the_module() -> None:
    defined = {
        value
        for value in vars(effects).values()
        if dataclasses.is_dataclass(value) and isinstance(value, type) and value.__module__ == effects.__name__
    }
    assert set(get_args(effects.Effect)) == defined


@pytest.mark.parametrize("kind", [Connect, Publish, PublishLog, Close, *ON_LINK])
def test_what_touches_the_link_carries_its_epoch(kind: type) -> None:
    assert "epoch" in {field.name for field in dataclasses.fields(kind)}


def test_the_loss_of_a_log_or_of_a_hook_is_not_the_loss_of_the_link() -> None:
    assert set(ON_LINK) == {Declare, Consume, Cancel, OpenChannel, Probe, Publish, Ack, Nack}


def test_connect_does_not_show_the_password() -> None:
    assert "secret" in URLS[0]
    assert repr(Connect(EPOCH, URLS[0], "svc@box:7", 20)) == f"Connect(epoch=1, url={SHOWN[0]!r})"
    assert "secret" not in SHOWN[0]


def test_a_peer_may_be_silent_for_two_heartbeats() -> None:
    assert [Connect(EPOCH, URLS[0], "svc@box:7", beat).user_timeout for beat in (20, 0)] == [40_000, 0]


def test_declare_names_its_commands() -> None:
    shown = repr(Declare(EPOCH, (Exchange.Declare(exchange="events"), Queue.Declare(queue="svc.events"))))
    assert shown == "Declare(epoch=1, Exchange.Declare, Queue.Declare)"


def test_publishes_and_logs_do_not_show_what_they_carry() -> None:
    publish = make_publish(5, body=b"private")
    publish.tag = 3
    assert repr(publish) == "Publish(#5 events/Happened, 7 bytes, tag=3)"
    log = PublishLog(EPOCH, "logs", "svc.INFO", Basic.Properties(), b"private")
    assert repr(log) == "PublishLog(svc.INFO, 7 bytes)"


def test_what_may_be_long_is_shown_shortened_and_in_one_line() -> None:
    long = "x" * 300
    more = f"{long}\nand more"
    reply = Result(long, "private", long, "success", "k")
    for effect in (
        Returned(long, {"private": 1}, {}, more),
        Replied(1, long, reply, more),
        Report(4, more),
        Close(EPOCH, more),
        PublishDone(1, more),
        Stopped(more),
        Connect(EPOCH, f"amqp://{long}/", "svc@box:7", 20),
        Consume(EPOCH, long, "events"),
    ):
        assert len(repr(effect)) < 300
        assert "\n" not in repr(effect)
        assert "private" not in repr(effect)
    assert (
        repr(Consume(EPOCH, "svc.events", "events"))
        == f"Consume(epoch={EPOCH}, queue='svc.events', consumer_tag='events')"
    )
    assert repr(Report(4, "text")) == "Report(4, 'text')"
    assert repr(Close(EPOCH, "text")) == "Close(epoch=1, reason='text')"
    assert [repr(Stopped()), repr(Stopped("text"))] == ["Stopped()", "Stopped(error='text')"]
    assert [repr(PublishDone(1)), repr(PublishDone(1, "text"))] == ["PublishDone(1)", "PublishDone(1, error='text')"]
    assert repr(PublishDone(1, returned="no route")) == "PublishDone(1, returned='no route')"
    assert repr(Replied(1, "svc.Do", None, "text")) == "Replied(1, 'svc.Do', error='text')"


def test_a_publish_sent_again_is_the_same_but_for_its_sending() -> None:
    properties = Basic.Properties(correlation_id="k")
    first = make_publish(
        5,
        epoch=Epoch(4),
        exchange="commands",
        routing_key="svc.Do",
        properties=properties,
        body=b"body",
        mandatory=True,
        delivery=DeliveryId(8),
        ticket=6,
        kept=False,
    )
    first.tag, first.sent_at = 12, 34.5
    again = first.again()
    assert again is not first
    assert again.properties is properties
    differing = {
        field.name for field in dataclasses.fields(Publish) if getattr(again, field.name) != getattr(first, field.name)
    }
    assert differing == {"tag", "sent_at"}
    assert (again.tag, again.sent_at) == (0, 0.0)


def test_publishes_are_told_apart_by_identity() -> None:
    assert make_publish(1) != make_publish(1)


def test_the_other_effects_are_equal_by_value() -> None:
    assert Ack(EPOCH, 1, False) == Ack(EPOCH, 1, False) != Ack(EPOCH, 1, True)
    assert Ready() == Ready()
    assert len({Ready(), Unconfigured()}) == 2
    assert PublishDone(1) == PublishDone(1, None) != PublishDone(1, "lost")
    assert Stopped() == Stopped(None)


def test_what_a_driver_may_keep_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Report(4, "text").text = "other"  # type: ignore[misc]  # that is what is tested
