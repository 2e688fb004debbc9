"""The life cycle of a service's link to the broker, as one table.

Everything that decides how states follow each other is in ``TABLE``; the machine looks an input up, goes to the state
it finds and then does what that state is for. A cell is the next state, ``IGNORE`` (legal, no change) or ``ILLEGAL`` (a
wrong local call: refused and nothing changes). Inputs that name a link are compared with the present epoch before they
come here, so whatever is about an earlier link never reaches the table.
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
STOPPED: Final = "stopped"

STATES: Final = (IDLE, CONNECTING, DECLARING, BINDING, OPEN, DRAINING, CLOSING, BACKOFF, STOPPED)

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
        DECLARED: ILLEGAL,
        DOWN: BACKOFF,
        DUE: IGNORE,
        STOP: DRAINING,
        FINISHED: CLOSING,
        FATAL: STOPPED,
    },
    DRAINING: {
        START: ILLEGAL,
        LINK_UP: ILLEGAL,
        DECLARED: ILLEGAL,
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


def step(state: str, signal: str) -> str:
    """The state that follows; the same one where the signal is ignored.

    Raises:
        StateError: the signal is not legal in ``state``.
    """
    cell = TABLE[state][signal]
    if cell is ILLEGAL:
        raise StateError(f"{signal!r} is not possible while {state}", hint="see the table in eda_core.machine.link")
    return state if cell is IGNORE else cell
