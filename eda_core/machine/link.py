"""The life of a service's link to the broker as a table, and in a second table how a queue is added to an open link.

The tables decide which state follows which. :class:`eda_core.machine.connection.Connection` looks up the cell of its
state and an input. A cell is the next state, ``IGNORE`` (nothing changes) or ``ILLEGAL`` (a wrong local call, which
raises; nothing changes). An input about an earlier link never comes to the table. This module knows nothing of time,
URLs or queues.
"""

from __future__ import annotations

from typing import Final

from eda_core.errors import StateError

# States
IDLE: Final = "idle"  # not started
CONNECTING: Final = "connecting"  # waiting for the link
DECLARING: Final = "declaring"  # exchanges and queues asked for
BINDING: Final = "binding"  # bindings and prefetch asked for
OPEN: Final = "open"  # consuming and publishing
DRAINING: Final = "draining"  # asked to stop: no new work, finishing what runs
CLOSING: Final = "closing"  # nothing left to do, waiting for the link to close
BACKOFF: Final = "backoff"  # waiting before the next attempt
STOPPED: Final = "stopped"  # over

STATES: Final = (IDLE, CONNECTING, DECLARING, BINDING, OPEN, DRAINING, CLOSING, BACKOFF, STOPPED)
#: In these states there are deliveries and publishes.
SERVING: Final = (OPEN, DRAINING)
#: In these states the service accepts no publishes and no calls any more.
OVER: Final = (CLOSING, STOPPED)
#: In these states there is no link, or none that matters any more.
WITHOUT_LINK: Final = (IDLE, BACKOFF, CLOSING, STOPPED)

# Inputs
START: Final = "start"  # the driver starts the service
LINK_UP: Final = "link up"  # the driver has opened the link
DECLARED: Final = "declared"  # the driver has the replies to a Declare
DOWN: Final = "down"  # the link was lost, could not be opened, or is given up
DUE: Final = "due"  # the time to wait has passed, for the next attempt or for the link to close
STOP: Final = "stop"  # asked to stop, and there is work to finish first
FINISHED: Final = "finished"  # asked to stop, and there is nothing to finish, or no time left
FATAL: Final = "fatal"  # trying again cannot help

INPUTS: Final = (START, LINK_UP, DECLARED, DOWN, DUE, STOP, FINISHED, FATAL)

IGNORE: Final = "ignore"
ILLEGAL: Final = "illegal"

# fmt: off
TABLE: Final[dict[str, dict[str, str]]] = {state: dict(zip(INPUTS, cells, strict=True)) for state, *cells in (
    # INPUTS =     START       LINK_UP    DECLARED  DOWN     DUE         STOP      FINISHED  FATAL
    (IDLE,         CONNECTING, ILLEGAL,   ILLEGAL,  ILLEGAL, IGNORE,     STOPPED,  STOPPED,  ILLEGAL),
    (CONNECTING,   ILLEGAL,    DECLARING, ILLEGAL,  BACKOFF, IGNORE,     IGNORE,   CLOSING,  STOPPED),
    (DECLARING,    ILLEGAL,    ILLEGAL,   BINDING,  BACKOFF, IGNORE,     IGNORE,   CLOSING,  STOPPED),
    (BINDING,      ILLEGAL,    ILLEGAL,   OPEN,     BACKOFF, IGNORE,     IGNORE,   CLOSING,  STOPPED),
    # On an open link the replies are about a queue that is added, see ADDING.
    (OPEN,         ILLEGAL,    ILLEGAL,   IGNORE,   BACKOFF, IGNORE,     DRAINING, CLOSING,  STOPPED),
    (DRAINING,     ILLEGAL,    ILLEGAL,   IGNORE,   BACKOFF, IGNORE,     IGNORE,   CLOSING,  STOPPED),
    (CLOSING,      ILLEGAL,    IGNORE,    IGNORE,   STOPPED, STOPPED,    IGNORE,   IGNORE,   STOPPED),
    (BACKOFF,      ILLEGAL,    ILLEGAL,   ILLEGAL,  IGNORE,  CONNECTING, IGNORE,   STOPPED,  STOPPED),
    (STOPPED,      ILLEGAL,    IGNORE,    IGNORE,   IGNORE,  IGNORE,     IGNORE,   IGNORE,   IGNORE),
)}
# fmt: on

# Adding a queue to an open link: its states
NOTHING: Final = "nothing to add"  # no queue is missing
QUEUE: Final = "declaring a queue"  # the queue is asked for
BINDINGS: Final = "binding a queue"  # its bindings are asked for

ADDING_STATES: Final = (NOTHING, QUEUE, BINDINGS)

# … and its inputs
WANTED: Final = "wanted"  # a queue is missing on the open link
REPLIED: Final = "replied"  # the driver has the replies to a Declare
GONE: Final = "gone"  # the link is not open any more

ADDING_INPUTS: Final = (WANTED, REPLIED, GONE)

ADDING: Final[dict[str, dict[str, str]]] = {
    NOTHING: {WANTED: QUEUE, REPLIED: ILLEGAL, GONE: IGNORE},
    QUEUE: {WANTED: IGNORE, REPLIED: BINDINGS, GONE: NOTHING},
    BINDINGS: {WANTED: IGNORE, REPLIED: NOTHING, GONE: NOTHING},
}


def step(table: dict[str, dict[str, str]], state: str, signal: str) -> str:
    """Return the state that follows ``state`` in ``table``; the same state if the input is ignored.

    Raises:
        StateError: the input is not legal in ``state``.
    """
    cell = table[state][signal]
    if cell is ILLEGAL:
        raise StateError(f"{signal!r} is not possible while {state}", hint="see the tables in docs/link.rst")
    return state if cell is IGNORE else cell
