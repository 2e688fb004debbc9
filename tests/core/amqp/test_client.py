"""The client's side of a connection, wired back to back with the server's side."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import base
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue

from eda_core.amqp import Client, Ended, Received
from eda_core.amqp.states import CLOSED, CLOSING, OPEN
from eda_core.amqp.writing import write_content, write_method
from eda_core.errors import LocalError, StateError
from eda_core.messages.properties import persistent
from tests.core.amqp.pair import PROPERTIES, Pair, client_in, message, names, sent, split


@pytest.mark.parametrize("step", [0, 1, 7, 4096])
def test_a_conversation(step: int) -> None:
    pair = Pair(step).open()
    client = pair.client
    channel = client.open_channel()
    assert pair.ask(
        channel, Confirm.Select(), Queue.Declare(queue="q"), Basic.Consume(queue="q", consumer_tag="t")
    ) == [
        "Channel.OpenOk",
        "Confirm.SelectOk",
        "Queue.DeclareOk",
        "Basic.ConsumeOk",
    ]
    bodies = [b"", b"one", b"x" * 300_000]
    for body in bodies:
        client.publish(channel, "", "q", PROPERTIES, body, mandatory=True)
    client.publish(channel, "", "nowhere", PROPERTIES, b"lost", mandatory=True)
    events = [event for event in pair.exchange() if isinstance(event, Received)]
    delivered = [event for event in events if isinstance(event.method, Basic.Deliver)]
    assert [event.body for event in delivered] == bodies
    assert [event.method.delivery_tag for event in delivered] == [1, 2, 3]
    assert {event.method.routing_key for event in delivered} == {"q"}
    assert all(dict(event.properties or {}) == dict(PROPERTIES) for event in delivered)
    assert [event.body for event in events if isinstance(event.method, Basic.Return)] == [b"lost"]
    assert [event.method.delivery_tag for event in events if isinstance(event.method, Basic.Ack)] == [1, 2, 3, 4]
    client.ack(channel, 3, multiple=True)
    assert pair.ask(channel, Queue.Purge(queue="q")) == ["Queue.PurgeOk"]
    client.close_channel(channel)
    assert names(pair.exchange()) == ["Channel.CloseOk"]
    assert client.close(pair.now) == []
    assert pair.exchange() == [Ended("")]
    assert (client.state, client.should_close) == (CLOSED, True)


def test_the_broker_closes_a_channel_and_it_can_be_opened_again() -> None:
    pair = Pair().open()
    channel = pair.client.open_channel()
    assert pair.ask(channel, Queue.Declare(queue="missing", passive=True)) == ["Channel.OpenOk", "Channel.Close"]
    assert not pair.client.is_open(channel)
    assert pair.client.open_channel() == channel
    assert pair.ask(channel, Queue.Declare(queue="q")) == ["Channel.OpenOk", "Queue.DeclareOk"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [({"password": "wrong"}, 403, "ACCESS_REFUSED"), ({"vhost": "nowhere"}, 530, "NOT_ALLOWED")],
)
def test_a_login_is_refused(options: dict[str, Any], code: int, text: str) -> None:
    pair = Pair(**options)
    [end] = pair.exchange()
    assert isinstance(end, Ended)
    assert end.code == code
    assert text in end.reason
    assert pair.client.should_close


def test_the_broker_closes_the_connection() -> None:
    pair = Pair().open()
    pair.server.shutdown(now=0.0)
    assert pair.exchange() == [Ended("CONNECTION_FORCED - broker shutdown", 320)]
    assert pair.client.state is CLOSED


def test_heartbeats() -> None:
    pair = Pair(heartbeat=20).open()
    assert pair.client.deadline() == 10.0
    assert pair.client.tick(10.0) == []
    assert pair.client.data_to_send() == b"\x08\x00\x00\x00\x00\x00\x00\xce"
    assert pair.client.deadline() == 20.0
    [end] = pair.client.tick(40.0)
    assert end == Ended("the broker has been silent for 40.0 s")


def test_no_heartbeats_before_the_limits_are_agreed_on() -> None:
    client = Client(now=0.0, heartbeat=20)
    client.data_to_send()
    assert client.tick(9.0) == client.tick(10.0) == []
    assert not client.has_data
    assert client.deadline() == 20.0


def test_without_heartbeats_a_silent_broker_is_waited_for() -> None:
    pair = Pair(heartbeat=0).open()
    assert pair.client.deadline() is None
    assert pair.client.tick(1e9) == []
    assert (pair.client.state, pair.client.has_data) == (OPEN, False)


def test_the_bytes_to_send_are_counted() -> None:
    pair = Pair().open()
    client = pair.client
    assert client.pending == 0
    channel = client.open_channel()
    for size in (0, 10, 5000):
        client.publish(channel, "", "q", PROPERTIES, bytes(size))
        before = client.pending
        assert client.pending == before > size
        client.ack(channel, 1)
        assert client.pending == before + 21
    counted = client.pending
    assert counted == len(client.data_to_send())
    assert client.pending == 0


def test_a_broker_that_breaks_the_protocol_is_told_so() -> None:
    pair = Pair().open()
    [end] = pair.client.receive(b"\x09\x00\x00\x00\x00\x00\x00\xce", 0.0)
    assert end == Ended("the broker breaks the protocol: a frame of the type 9")
    assert pair.exchange() == []  # Connection.Close and its answer
    assert pair.client.state is CLOSED


def test_an_alarm_is_told() -> None:
    pair = Pair().open()
    channel = pair.client.open_channel()
    pair.exchange()
    pair.server.route(pair.server.broker.set_alarm(True, now=0.0), now=0.0)
    pair.client.publish(channel, "", "q", PROPERTIES, b"")
    assert names(pair.exchange()) == ["Connection.Blocked"]
    pair.server.route(pair.server.broker.set_alarm(False, now=0.0), now=0.0)
    assert names(pair.exchange()) == ["Connection.Unblocked"]


def test_channel_flow_holds_messages() -> None:
    pair = Pair().open()
    channel = pair.client.open_channel()
    pair.exchange()
    pair.client.receive(write_method(channel, Channel.Flow(False)), 0.0)
    assert pair.client.data_to_send() == write_method(channel, Channel.FlowOk(False))
    pair.client.publish(channel, "", "q", PROPERTIES, b"held")
    assert not pair.client.has_data
    pair.client.receive(write_method(channel, Channel.Flow(True)), 0.0)
    assert b"held" in pair.client.data_to_send()


def test_a_secret_is_updated() -> None:
    pair = Pair().open()
    pair.client.update_secret("guest", "renewed")
    [event] = pair.exchange()
    assert isinstance(event, Received)
    assert isinstance(event.method, Connection.UpdateSecretOk)


def test_frames_behind_one_that_breaks_the_protocol_are_taken() -> None:
    """The broker may have closed the connection before it has heard what it did wrong."""
    pair = Pair().open()
    wrong = write_method(0, Connection.OpenOk())
    [end] = pair.client.receive(wrong + write_method(0, Connection.Close(320, "shutdown", 0, 0)), 0.0)
    assert end == Ended("the broker breaks the protocol: Connection.OpenOk on channel 0 while open")
    close, close_ok = sent(pair.client)
    assert isinstance(close, Connection.Close)
    assert (close.reply_code, close.reply_text) == (503, "Connection.OpenOk on channel 0 while open")
    assert isinstance(close_ok, Connection.CloseOk)


def test_an_end_is_not_found_in_what_was_read_before() -> None:
    """Octets that look like Connection.CloseOk, in a frame before the one that breaks the protocol."""
    pair = Pair().open()
    garbage = write_method(0, Connection.Blocked(write_method(0, Connection.CloseOk()).decode("latin-1")))
    assert write_method(0, Connection.CloseOk())[:-1] in garbage
    octets = garbage.replace(b"\xc3\x8e", b"\xce\x00")
    events = pair.client.receive(octets + b"\x09" * 8, 0.0)
    assert names(events) == ["Connection.Blocked", "Ended"]
    assert pair.client.state is CLOSING
    assert not pair.client.should_close
    assert pair.client.receive(b"\x09" * 20 + write_method(0, Connection.CloseOk())[:5], 0.0) == []
    assert pair.client.receive(write_method(0, Connection.CloseOk())[5:], 0.0) == []
    assert pair.client.should_close


@pytest.mark.parametrize("cut", range(1, 12))
def test_the_end_is_found_behind_what_has_no_frames(cut: int) -> None:
    """Nobody knows where a frame begins there, and the answer to Connection.Close may come in two pieces."""
    pair = Pair().open()
    answer = write_method(0, Connection.CloseOk())
    assert names(pair.client.receive(b"HTTP/1.1 400 Bad Request", 0.0)) == ["Ended"]
    for piece in (answer[:-1], b"more", b"more" + answer[:cut]):
        assert pair.client.receive(piece, 0.0) == []
        assert not pair.client.should_close
    pair.client.receive(answer[cut:] + b"more", 0.0)
    assert pair.client.should_close


def test_both_close_a_channel_at_once() -> None:
    """Each answers the other's Channel.Close. The number cannot be opened again before."""
    pair = Pair().open()
    client = pair.client
    channel = client.open_channel()
    assert pair.ask(channel) == ["Channel.OpenOk"]
    client.send(channel, Queue.Declare(queue="missing", passive=True))  # the broker closes the channel for it
    client.close_channel(channel)
    pair.server.receive(pair.there, client.data_to_send(), now=0.0)
    close, close_ok = split(pair.there.data_to_send())
    assert client.receive(close, 0.0) == []
    with pytest.raises(StateError, match="channel 1 is in use"):
        client.open_channel(channel)
    assert [method.name for method in sent(client)] == ["Channel.CloseOk"]
    assert names(client.receive(close_ok, 0.0)) == ["Channel.CloseOk"]
    pair.server.receive(pair.there, write_method(channel, Channel.CloseOk()), now=0.0)
    assert client.open_channel(channel) == channel
    assert pair.ask(channel, Queue.Declare(queue="q")) == ["Channel.OpenOk", "Queue.DeclareOk"]


def test_on_a_channel_that_is_closed_nothing_but_the_answer_is_heard() -> None:
    pair = Pair().open()
    client = pair.client
    channel = client.open_channel()
    client.close_channel(channel)
    assert not client.is_open(channel)
    with pytest.raises(StateError, match="channel 1 is not open"):
        client.ack(channel, 1)
    client.data_to_send()
    late = [Channel.OpenOk(), Channel.Flow(False), Basic.ConsumeOk("t")]
    assert client.receive(b"".join(write_method(channel, method) for method in late), 0.0) == []
    assert client.receive(message(channel, b"late"), 0.0) == []
    assert not client.has_data
    assert names(client.receive(write_method(channel, Channel.CloseOk()), 0.0)) == ["Channel.CloseOk"]


@pytest.mark.parametrize("method", [Connection.Tune(), Connection.Blocked(), Connection.Close(320, "", 0, 0)])
def test_methods_of_the_connection_come_on_channel_0_only(method: base.Frame) -> None:
    pair = Pair().open()
    pair.client.open_channel()
    pair.exchange()
    assert pair.client.receive(write_method(1, method), 0.0) == [
        Ended(f"the broker breaks the protocol: {method.name} on channel 1")
    ]


def test_an_end_comes_on_channel_0_only() -> None:
    pair = Pair().open()
    pair.client.close(0.0)
    assert pair.client.receive(write_method(1, Connection.CloseOk()), 0.0) == []
    assert pair.client.state is CLOSING
    assert pair.client.receive(write_method(0, Connection.CloseOk()), 0.0) == [Ended("")]


@pytest.mark.parametrize("wrong", [Queue.Declare(queue="q"), Channel.Open(), Basic.Qos()])
def test_a_method_that_only_a_client_sends_is_a_fault(wrong: base.Frame) -> None:
    pair = Pair().open()
    pair.client.open_channel()
    pair.exchange()
    reason = f"the broker breaks the protocol: {wrong.name} on channel 1"
    assert pair.client.receive(write_method(1, wrong), 0.0) == [Ended(reason)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mechanism": "AMQPLAIN"}, "the mechanism 'AMQPLAIN' is not supported; use PLAIN or EXTERNAL"),
        ({"heartbeat": 65_536}, "heartbeat is 65536; give a whole number from 0 to 65535"),
        ({"heartbeat": True}, "heartbeat is True; give a whole number from 0 to 65535"),
        ({"frame_max": 4095}, "frame_max is 4095; give a whole number from 4096 to 4294967295"),
        ({"channel_max": 0}, "channel_max is 0; give a whole number from 1 to 65535"),
        ({"user": "a\0b"}, "the user or the password has a NUL in it; the mechanism PLAIN cannot express it"),
        ({"password": "a\0b"}, "the user or the password has a NUL in it; the mechanism PLAIN cannot express it"),
        (
            {"password": "secret\ud800"},
            "the user or the password cannot be sent to a broker: it is not UTF-8; AMQP 0-9-1 does not allow it",
        ),
        (
            {"properties": {"product": object}},
            "the name or a property cannot be sent to a broker: product error: Unknown type: <class 'type'> "
            "(<class 'object'>); AMQP 0-9-1 does not allow it",
        ),
        (
            {"name": "\ud800"},
            "the name or a property cannot be sent to a broker: it is not UTF-8; AMQP 0-9-1 does not allow it",
        ),
        (
            {"vhost": "v" * 128},
            "the virtual host cannot be sent to a broker: Max length exceeded for virtual_host; "
            "AMQP 0-9-1 does not allow it",
        ),
        (
            {"vhost": "\ud800"},
            "the virtual host cannot be sent to a broker: it is not UTF-8; AMQP 0-9-1 does not allow it",
        ),
    ],
)
def test_a_wrong_argument_is_named_at_once(options: dict[str, Any], text: str) -> None:
    with pytest.raises(LocalError) as raised:
        Client(now=0.0, **options)
    assert str(raised.value) == text
    assert "secret" not in text


def test_the_login_by_certificate_needs_no_user() -> None:
    client = Client(now=0.0, mechanism="EXTERNAL", user="\0", password="\ud800")
    client.data_to_send()
    assert client.receive(write_method(0, Connection.Start(0, 9, {}, "PLAIN EXTERNAL", "en_US")), 0.0) == []
    [start_ok] = sent(client)
    assert isinstance(start_ok, Connection.StartOk)
    assert (start_ok.mechanism, start_ok.response) == ("EXTERNAL", "")
    assert client.receive(write_method(0, Connection.Secure("who?")), 0.0) == []
    [secure_ok] = sent(client)
    assert isinstance(secure_ok, Connection.SecureOk)
    assert secure_ok.response == ""


def test_the_broker_does_not_offer_the_mechanism() -> None:
    pair = Pair(mechanism="EXTERNAL")
    assert pair.exchange() == [
        Ended("the broker does not offer the mechanism EXTERNAL; it offers PLAIN AMQPLAIN"),
    ]
    assert (pair.client.state, pair.client.should_close) == (CLOSED, True)


@pytest.mark.parametrize("mechanisms", [b"\xff\xfe", b"", b"PLAINER", b"plain"])
def test_the_broker_offers_nothing_that_is_known(mechanisms: bytes) -> None:
    start = write_method(0, Connection.Start(0, 9, {}, "?" * len(mechanisms), "en_US"))
    octets = start.replace(b"?" * len(mechanisms), mechanisms) if mechanisms else start
    [end] = Client(now=0.0).receive(octets, 0.0)
    assert isinstance(end, Ended)
    assert end.reason.startswith("the broker does not offer the mechanism PLAIN; it offers ")


def test_a_long_reason_to_close_is_cut_to_what_a_reply_text_can_hold() -> None:
    for text, short in (("\U0001f600" * 100, "\U0001f600" * 63), ("\ud800" * 300, " " * 255), ("one\ntwo", "one")):
        pair = Pair().open()
        assert pair.client.close(0.0, 320, text) == []
        [close] = sent(pair.client)
        assert isinstance(close, Connection.Close)
        assert close.reply_text == short


@pytest.mark.parametrize("code", [-1, 65_536, "200", None])
def test_a_reply_code_that_is_none_changes_nothing(code: Any) -> None:
    pair = Pair().open()
    with pytest.raises(LocalError, match="the reply code cannot be sent to a broker"):
        pair.client.close(0.0, code)
    assert (pair.client.state, pair.client.has_data) == (OPEN, False)


def test_a_secret_is_updated_while_the_connection_is_open() -> None:
    client = Client(now=0.0)
    with pytest.raises(StateError, match="the secret cannot be updated: the connection is greeting; wait for Opened"):
        client.update_secret("new", "")


@pytest.mark.parametrize(("secret", "reason"), [("\ud800", ""), ("new", "r" * 256)])
def test_a_secret_that_cannot_be_written_is_refused(secret: str, reason: str) -> None:
    pair = Pair().open()
    with pytest.raises(LocalError, match="the secret or the reason cannot be sent"):
        pair.client.update_secret(secret, reason)
    assert not pair.client.has_data


def test_a_message_belongs_to_a_channel() -> None:
    pair = Pair().open()
    header = b"".join(write_content(0, PROPERTIES.marshal(), b"", 0))
    assert pair.client.receive(header, 0.0) == [
        Ended("the broker breaks the protocol: a content header on channel 0 while open")
    ]


def test_what_does_not_fit_into_a_frame_is_refused() -> None:
    """The broker would close the connection for it."""
    pair = Pair(frame_max=4096).open()
    client = pair.client
    channel = client.open_channel()
    pair.exchange()
    with pytest.raises(ValueError, match=r"Queue\.Declare has 4120 bytes, and 4096 fit into a frame"):
        client.send(channel, Queue.Declare(queue="q", arguments={"x": "y" * 4092}))
    with pytest.raises(ValueError, match="properties of 4106 bytes do not fit into a frame, which can have 4076"):
        client.publish(channel, "", "q", persistent("", {"x": "y" * 4092}), b"")
    assert not client.has_data
    assert pair.ask(channel, Queue.Declare(queue="q")) == ["Queue.DeclareOk"]


def test_a_tag_of_64_bits_is_acknowledged_as_it_was_read() -> None:
    pair = Pair().open()
    channel = pair.client.open_channel()
    pair.exchange()
    octets = message(channel, b"", 5).replace((5).to_bytes(8), b"\xff" * 8, 1)
    [event] = pair.client.receive(octets, 0.0)
    assert isinstance(event, Received)
    pair.client.ack(channel, event.method.delivery_tag)
    assert pair.client.data_to_send()[11:19] == b"\xff" * 8


def test_a_method_that_just_fits_into_a_frame_is_sent() -> None:
    client = client_in(OPEN)
    client.frame_max = len(write_method(1, Queue.Declare(queue="qq")))
    client.send(1, Queue.Declare(queue="qq"))
    with pytest.raises(ValueError, match=r"Queue\.Declare has "):
        client.send(1, Queue.Declare(queue="qqq"))
    assert [method.name for method in sent(client)] == ["Queue.Declare"]


def test_all_bytes_that_come_are_counted() -> None:
    client = client_in(OPEN)
    before, data = client.received, message(1, b"body")
    client.receive(data[:10], 0.0)
    client.receive(data[10:], 0.0)
    assert client.received == before + len(data)


def test_no_channel_outlives_its_connection() -> None:
    for leave in (False, True):
        client = client_in(OPEN, (1, 2))
        assert set(client.channels) == {1, 2}
        if leave:
            client.close(0.0)
        else:
            client.lose("reset by peer")
        assert not client.channels
