"""The life of a service's link to the broker, as a table; and, as a second one, how a queue is added to an open link.

``TABLE`` decides which state follows which. :class:`eda_core.machine.connection.Connection` looks an input up, goes to
the state that it finds, and does what that state is for. A cell is the next state, ``IGNORE`` (legal, nothing changes)
or ``ILLEGAL`` (a wrong local call: refused, nothing changes). An input that names an earlier link never reaches the
table. This module knows nothing of time, URLs or queues.
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
#: The link takes deliveries and publishes.
SERVING: Final = (OPEN, DRAINING)
#: The service takes no more calls.
OVER: Final = (CLOSING, STOPPED)
#: There is no link that the broker could say anything about.
WITHOUT_LINK: Final = (IDLE, BACKOFF, CLOSING, STOPPED)

# Inputs
START: Final = "start"  # the driver starts the service
LINK_UP: Final = "link up"  # the driver has opened the link
DECLARED: Final = "declared"  # the driver has the replies to a Declare
DOWN: Final = "down"  # the link was lost, could not be opened, or is given up
DUE: Final = "due"  # the time to wait has passed, for the next attempt or for the link to close
STOP: Final = "stop"  # asked to stop, and there is work to finish first
FINISHED: Final = "finished"  # asked to stop, and there is nothing to finish (any more)
FATAL: Final = "fatal"  # trying again cannot help

INPUTS: Final = (START, LINK_UP, DECLARED, DOWN, DUE, STOP, FINISHED, FATAL)

IGNORE: Final = "ignore"
ILLEGAL: Final = "illegal"

TABLE: Final[dict[str, dict[str, str]]] = {
    IDLE: {
        START: CONNECTING,
        LINK_UP: ILLEGAL,
        DECLARED: ILLEGAL,
        DOWN: ILLEGAL,
        DUE: IGNORE,
        STOP: STOPPED,
        FINISHED: STOPPED,
        FATAL: ILLEGAL,
    },
    CONNECTING: {
        START: ILLEGAL,
        LINK_UP: DECLARING,
        DECLARED: ILLEGAL,
        DOWN: BACKOFF,
        DUE: IGNORE,
        STOP: IGNORE,
        FINISHED: CLOSING,
        FATAL: STOPPED,
    },
    DECLARING: {
        START: ILLEGAL,
        LINK_UP: ILLEGAL,
        DECLARED: BINDING,
        DOWN: BACKOFF,
        DUE: IGNORE,
        STOP: IGNORE,
        FINISHED: CLOSING,
        FATAL: STOPPED,
    },
    BINDING: {
        START: ILLEGAL,
        LINK_UP: ILLEGAL,
        DECLARED: OPEN,
        DOWN: BACKOFF,
        DUE: IGNORE,
        STOP: IGNORE,
        FINISHED: CLOSING,
        FATAL: STOPPED,
    },
    OPEN: {
        START: ILLEGAL,
        LINK_UP: ILLEGAL,
        DECLARED: IGNORE,  # it is about a queue that is added: see ADDING
        DOWN: BACKOFF,
        DUE: IGNORE,
        STOP: DRAINING,
        FINISHED: CLOSING,
        FATAL: STOPPED,
    },
    DRAINING: {
        START: ILLEGAL,
        LINK_UP: ILLEGAL,
        DECLARED: IGNORE,
        DOWN: BACKOFF,
        DUE: IGNORE,
        STOP: IGNORE,
        FINISHED: CLOSING,
        FATAL: STOPPED,
    },
    CLOSING: {
        START: ILLEGAL,
        LINK_UP: IGNORE,
        DECLARED: IGNORE,
        DOWN: STOPPED,
        DUE: STOPPED,
        STOP: IGNORE,
        FINISHED: IGNORE,
        FATAL: STOPPED,
    },
    BACKOFF: {
        START: ILLEGAL,
        LINK_UP: ILLEGAL,
        DECLARED: ILLEGAL,
        DOWN: IGNORE,
        DUE: CONNECTING,
        STOP: IGNORE,
        FINISHED: STOPPED,
        FATAL: STOPPED,
    },
    STOPPED: {
        START: ILLEGAL,
        LINK_UP: IGNORE,
        DECLARED: IGNORE,
        DOWN: IGNORE,
        DUE: IGNORE,
        STOP: IGNORE,
        FINISHED: IGNORE,
        FATAL: IGNORE,
    },
}

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
    """The state that follows in ``table``; the same one where the input is ignored.

    Raises:
        StateError: the input is not legal in ``state``.
    """
    cell = table[state][signal]
    if cell is ILLEGAL:
        raise StateError(f"{signal!r} is not possible while {state}", hint="see the tables in docs/link.rst")
    return state if cell is IGNORE else cell
