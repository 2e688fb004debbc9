"""The life of a connection of a client as a table.

:class:`eda_core.amqp.client.Client` looks up the cell of its state and an input. A cell is the next state, or
``DISCARD`` (nothing happens) or ``FAULT`` (the broker breaks the protocol: the connection is closed with 503). If the
socket is closed, or the broker is silent, every state is followed by ``CLOSED``. This module knows nothing of bytes and
times.

Source: AMQP 0-9-1, sections 2.2.4 and 1.4.
"""

from __future__ import annotations

from typing import Final

# States
GREETING: Final = "greeting"  # the protocol header is sent
LOGGING_IN: Final = "logging in"  # Connection.StartOk is sent
ENTERING: Final = "entering"  # Connection.TuneOk and Connection.Open are sent
OPEN: Final = "open"  # the handshake is done
CLOSING: Final = "closing"  # Connection.Close is sent
CLOSED: Final = "closed"  # over

STATES: Final = (GREETING, LOGGING_IN, ENTERING, OPEN, CLOSING, CLOSED)

# Inputs: what the broker sends
START: Final = "Connection.Start"  # the broker offers ways to log in
SECURE: Final = "Connection.Secure"  # the broker asks for more to log in
TUNE: Final = "Connection.Tune"  # the login is right, and the broker proposes limits
OPEN_OK: Final = "Connection.OpenOk"  # the virtual host is entered
NOTICE: Final = "notice"  # Connection.Blocked, Connection.Unblocked or Connection.UpdateSecretOk
ON_CHANNEL: Final = "on a channel"  # a method or a part of a message, on a channel
CLOSE: Final = "Connection.Close"  # the broker closes the connection
CLOSE_OK: Final = "Connection.CloseOk"  # the broker has seen that the client closes the connection
# … and what else happens
LEAVE: Final = "leave"  # the user of the client closes the connection
BROKEN: Final = "broken"  # the broker has broken the protocol; FAULT leads here, and so do bytes that are malformed

INPUTS: Final = (START, SECURE, TUNE, OPEN_OK, NOTICE, ON_CHANNEL, CLOSE, CLOSE_OK, LEAVE, BROKEN)

DISCARD: Final = "discard"
FAULT: Final = "fault"

# fmt: off
TABLE: Final[dict[str, dict[str, str]]] = {state: dict(zip(INPUTS, cells, strict=True)) for state, *cells in (
    # INPUTS =   START       SECURE      TUNE      OPEN_OK  NOTICE   ON_CHANNEL  CLOSE    CLOSE_OK  LEAVE    BROKEN
    (GREETING,   LOGGING_IN, FAULT,      FAULT,    FAULT,   FAULT,   FAULT,      CLOSED,  FAULT,    CLOSED,  CLOSED),
    (LOGGING_IN, FAULT,      LOGGING_IN, ENTERING, FAULT,   FAULT,   FAULT,      CLOSED,  FAULT,    CLOSED,  CLOSED),
    (ENTERING,   FAULT,      FAULT,      FAULT,    OPEN,    FAULT,   FAULT,      CLOSED,  FAULT,    CLOSED,  CLOSED),
    (OPEN,       FAULT,      FAULT,      FAULT,    FAULT,   OPEN,    OPEN,       CLOSED,  FAULT,    CLOSING, CLOSING),
    # The broker may have sent more before it has seen Connection.Close, and that may be a Connection.Close, too.
    (CLOSING,    DISCARD,    DISCARD,    DISCARD,  DISCARD, DISCARD, DISCARD,    CLOSING, CLOSED,   DISCARD, DISCARD),
    (CLOSED,     DISCARD,    DISCARD,    DISCARD,  DISCARD, DISCARD, DISCARD,    DISCARD, DISCARD,  DISCARD, DISCARD),
)}
# fmt: on
