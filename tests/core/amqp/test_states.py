"""The table of a connection, cell by cell, and that the client does what each cell says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from pamqp import base
from pamqp.commands import Basic, Channel, Connection

from eda_core.amqp import Client, Ended, Event, Opened, Received, read_method, states
from eda_core.amqp.reading import METHOD
from eda_core.amqp.states import (
    BROKEN,
    CLOSE,
    CLOSE_OK,
    CLOSED,
    CLOSING,
    DISCARD,
    ENTERING,
    FAULT,
    GREETING,
    INPUTS,
    LEAVE,
    LOGGING_IN,
    NOTICE,
    ON_CHANNEL,
    OPEN,
    OPEN_OK,
    SECURE,
    START,
    STATES,
    TABLE,
    TUNE,
)
from eda_core.amqp.writing import write_content, write_frame, write_method
from eda_core.errors import StateError
from eda_core.messages import Properties
from tests.core.amqp import pair
from tests.core.amqp.pair import SERVER_PROPERTIES, client_in, described, sent

CELLS = list(itertools.product(STATES, INPUTS))
OPENING = (GREETING, LOGGING_IN, ENTERING)

WAY = {GREETING: START, LOGGING_IN: TUNE, ENTERING: OPEN_OK}  # what leads from each state to the next one
#: What the broker sends for each input, in all its kinds.
OCTETS: dict[str, list[bytes]] = {
    **{signal: [pair.HANDSHAKE[state][0]] for state, signal in WAY.items()},
    SECURE: [write_method(0, Connection.Secure("more"))],
    CLOSE: [write_method(0, Connection.Close(320, "shutdown", 0, 0))],
    CLOSE_OK: [pair.CLOSE_OK],
    NOTICE: [
        write_method(0, method)
        for method in (Connection.Blocked("memory"), Connection.Unblocked(), Connection.UpdateSecretOk())
    ],
    ON_CHANNEL: [
        write_method(1, Basic.ConsumeOk("tag")),
        write_method(7, Basic.Ack(1)),
        b"".join(write_content(7, Properties().marshal(), b"body", 0)),
        b"".join(write_content(7, Properties().marshal(), b"body", 0)[3:]),
    ],
    BROKEN: [
        write_frame(9, 0, b""),  # a frame of a type that does not exist
        write_frame(METHOD, 0, b"\0\x0a\0\x63"),  # a method that does not exist
        write_frame(METHOD, 0, b"\0\x0a\0\x1e"),  # Connection.Tune without its arguments
        write_method(0, Connection.OpenOk())[:-1] + b"\0",  # another octet at the end of a frame
        b"\1\0\0\xff\xff\xff\xff",  # a frame of 4 GiB
        b"AMQP\0\0\x09\1",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
}
#: What the client sends when it takes an input, unless that is a fault.
ANSWERS: dict[tuple[str, str], list[type[base.Frame]]] = {
    (GREETING, START): [Connection.StartOk],
    (LOGGING_IN, SECURE): [Connection.SecureOk],
    (LOGGING_IN, TUNE): [Connection.TuneOk, Connection.Open],
    **{(state, CLOSE): [Connection.CloseOk] for state in (*OPENING, OPEN, CLOSING)},
    (OPEN, LEAVE): [Connection.Close],
}


def in_state(state: str) -> Client:
    return client_in(state, close_timeout=100.0)


def expected(state: str, signal: str) -> str:
    """Return the table, made in another way: input by input instead of state by state."""
    if state is CLOSED:
        return DISCARD
    if state is CLOSING:
        return {CLOSE_OK: CLOSED, CLOSE: CLOSING}.get(signal, DISCARD)
    if signal is CLOSE:
        return CLOSED
    if signal in (LEAVE, BROKEN):
        return CLOSING if state is OPEN else CLOSED
    if signal in (NOTICE, ON_CHANNEL):
        return OPEN if state is OPEN else FAULT
    order = {START: LOGGING_IN, TUNE: ENTERING, OPEN_OK: OPEN}
    if signal in order:
        return order[signal] if WAY.get(state) is signal else FAULT
    assert signal in (SECURE, CLOSE_OK)
    return LOGGING_IN if (state, signal) == (LOGGING_IN, SECURE) else FAULT


def reachable(start: str) -> set[str]:
    found, todo = {start}, [start]
    while todo:
        for cell in TABLE[todo.pop()].values():
            if cell in STATES and cell not in found:
                found.add(cell)
                todo.append(cell)
    return found


# --- the table ---


def test_states_and_inputs_are_distinct_and_the_table_has_exactly_them() -> None:
    assert len({*STATES, *INPUTS, DISCARD, FAULT}) == len(STATES) + len(INPUTS) + 2
    assert tuple(TABLE) == STATES
    assert all(tuple(row) == INPUTS for row in TABLE.values())


@pytest.mark.parametrize(("state", "signal"), CELLS)
def test_every_cell_is_what_the_rules_of_the_protocol_say(state: str, signal: str) -> None:
    assert TABLE[state][signal] is expected(state, signal)


def test_every_state_is_reachable_and_can_end() -> None:
    assert reachable(GREETING) == set(STATES)
    assert all(CLOSED in reachable(state) for state in STATES)
    assert reachable(CLOSED) == {CLOSED}
    assert reachable(CLOSING) == {CLOSING, CLOSED}


def test_the_module_keeps_each_state_in_its_list() -> None:
    """A state or input that someone adds must be in the list that the product tests run over."""
    constants = {value for name, value in vars(states).items() if name.isupper() and isinstance(value, str)}
    assert constants == {*STATES, *INPUTS, DISCARD, FAULT}


def test_each_input_has_bytes() -> None:
    assert {*OCTETS, LEAVE} == {*INPUTS}


# --- the client ---


def whole(client: Client, data: bytes) -> list[Event]:
    return client.receive(data, 0.0)


def byte_by_byte(client: Client, data: bytes) -> list[Event]:
    return [event for octet in data for event in client.receive(bytes((octet,)), 0.0)]


@pytest.mark.parametrize("receive", [whole, byte_by_byte])
@pytest.mark.parametrize(
    ("state", "signal", "kind"),
    [(state, signal, kind) for state, signal in CELLS for kind in range(len(OCTETS.get(signal, [b""])))],
)
def test_what_follows_is_what_the_cell_says(
    state: str, signal: str, kind: int, receive: Callable[[Client, bytes], list[Event]]
) -> None:
    client, cell = in_state(state), TABLE[state][signal]
    events = client.close(0.0) if signal is LEAVE else receive(client, OCTETS[signal][kind])
    if cell is DISCARD:
        assert (client.state, events, client.has_data) == (state, [], False)
    elif cell is FAULT or signal is BROKEN:
        check_fault(client, events, state)
    else:
        assert client.state is cell
        assert [described(event) for event in events] == following(state, signal, OCTETS.get(signal, [b""])[kind])
        assert [type(method) for method in sent(client)] == ANSWERS.get((state, signal), [])
    assert client.should_close is (client.state is CLOSED)


def check_fault(client: Client, events: list[Event], state: str) -> None:
    """The user and the broker are told, once; and what comes then means nothing."""
    assert client.state is TABLE[state][BROKEN]
    [end] = events
    assert isinstance(end, Ended)
    assert end.code is None
    assert end.reason.startswith("the broker breaks the protocol: ")
    [close] = sent(client)
    assert isinstance(close, Connection.Close)
    assert close.reply_code in (501, 503, 505)
    assert f"the broker breaks the protocol: {close.reply_text}" == end.reason
    assert client.close(0.0) == client.lose("") == client.tick(1e9) == []


def following(state: str, signal: str, data: bytes) -> list[tuple[Any, ...]]:
    """The events when an input is taken, described."""
    if signal is CLOSE:
        return [] if state is CLOSING else [(Ended("shutdown", 320),)]
    if signal is LEAVE:
        return [] if state is OPEN else [(Ended(""),)]
    if signal is CLOSE_OK:
        return [(Ended(""),)]
    if signal is OPEN_OK:
        return [(Opened(SERVER_PROPERTIES),)]
    if signal is NOTICE or data.startswith(b"\1\0\1"):
        return [described(Received(data[2], read_method(data[7:-1])))]
    return []  # what belongs to no channel of the client, too: the broker may have sent it before it has closed one


@pytest.mark.parametrize("state", STATES)
def test_a_lost_socket_ends_every_state(state: str) -> None:
    client = in_state(state)
    assert client.lose("reset by peer") == ([] if state is CLOSED else [Ended("reset by peer")])
    assert (client.state, client.should_close, client.deadline()) == (CLOSED, True, None)
    assert client.lose("again") == []


@pytest.mark.parametrize("state", STATES)
def test_a_silent_broker_ends_every_state(state: str) -> None:
    client = in_state(state)
    assert client.deadline() == (None if state is CLOSED else 10.0), "a heartbeat is due"
    assert client.tick(10.0) == client.tick(39.9) == []
    assert client.deadline() == (None if state is CLOSED else 40.0)
    assert client.tick(40.0) == ([] if state is CLOSED else [Ended("the broker has been silent for 40.0 s")])
    assert (client.state, client.should_close, client.deadline()) == (CLOSED, True, None)
    assert client.tick(80.0) == []


@pytest.mark.parametrize("state", STATES)
def test_heartbeats_are_sent_when_the_limits_are_agreed(state: str) -> None:
    client = in_state(state)
    assert client.tick(9.9) == []
    assert not client.has_data
    assert client.receive(b"", 4.0) == client.tick(4.5) == []
    client.tick(10.0)
    assert client.data_to_send() == (b"" if state in (GREETING, LOGGING_IN, CLOSED) else b"\x08\0\0\0\0\0\0\xce")


@pytest.mark.parametrize("state", STATES)
def test_the_broker_may_send_heartbeats_at_any_time(state: str) -> None:
    client = in_state(state)
    assert client.receive(b"\x08\0\0\0\0\0\0\xce", 30.0) == []
    assert (client.state, client.has_data) == (state, False)
    assert client.tick(69.0) == []
    assert client.state is state


@pytest.mark.parametrize("heartbeat", [0, 20])
def test_a_broker_that_does_not_answer_close_is_given_up(heartbeat: int) -> None:
    client = Client(now=0.0, heartbeat=heartbeat, close_timeout=3.0)
    for signal in WAY.values():
        client.receive(OCTETS[signal][0], 0.0)
    assert client.close(1.0) == client.close(2.0) == []
    assert client.deadline() == 4.0
    assert client.tick(3.9) == []
    assert client.tick(4.0) == [Ended("the broker does not answer Connection.Close")]
    assert (client.state, client.should_close, client.deadline()) == (CLOSED, True, None)


def test_without_heartbeats_a_silent_broker_is_waited_for() -> None:
    client = Client(now=0.0, heartbeat=0)
    for signal in WAY.values():
        assert client.deadline() is None
        client.receive(OCTETS[signal][0], 0.0)
    client.data_to_send()
    assert client.deadline() is None
    assert client.tick(1e9) == []
    assert (client.state, client.has_data) == (OPEN, False)


@pytest.mark.parametrize("state", [state for state in STATES if state is not OPEN])
def test_only_an_open_connection_sends_what_the_user_asks_for(state: str) -> None:
    client = in_state(state)
    sends: list[Callable[[], None]] = [
        lambda: client.send(1, Channel.Flow(True)),
        lambda: client.ack(1, 1),
        lambda: client.publish(1, "", "q", Properties(), b""),
        lambda: client.close_channel(1),
    ]
    for send in sends:
        with pytest.raises(StateError, match=f"channel 1 is not open, and the connection is {state}"):
            send()
    with pytest.raises(StateError, match=f"a channel cannot be opened: the connection is {state}; wait for Opened"):
        client.open_channel()
    with pytest.raises(StateError, match=f"the secret cannot be updated: the connection is {state}"):
        client.update_secret("new", "")
    assert not client.is_open(1)
    assert not client.has_data
