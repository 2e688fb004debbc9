"""The names of exchanges and queues, the check of names and routing keys, and the match of binding keys.

The names are those of docs/architecture.rst, "Topology". A binding key matches as AMQP 0-9-1, section 3.1.3.3, says: a
key consists of words with dots between them, ``*`` stands for exactly one word, and ``#`` for zero or more. This module
does not know which keys a service subscribes to.
"""

from __future__ import annotations

from typing import Final

from eda_core.errors import LocalError
from eda_core.text import shortened

#: The exchange of events.
EVENTS: Final = "events"
#: The exchange of commands and results.
COMMANDS: Final = "commands"
#: The exchange of configurations.
CONFIGURATIONS: Final = "configurations"
#: The exchange of log records.
LOGS: Final = "logs"

#: The four exchanges of the architecture.
EXCHANGES: Final = (EVENTS, COMMANDS, CONFIGURATIONS, LOGS)

#: The longest name or routing key, bytes: AMQP 0-9-1 has them as short strings (section 4.2.5.3).
MAX_NAME_BYTES: Final = 255
#: The most bytes of all properties and headers of a message. It leaves some space to the size over which RabbitMQ
#: closes the connection (docs/design.rst, "Size of headers").
MAX_HEADER_BYTES: Final = 120_000


def queue_name(service: str, exchange: str) -> str:
    """Return the name of the queue that the workers of a service share: ``service.events`` or ``service.commands``."""
    return f"{service}.{exchange}"


def check_name(what: str, name: object, *, empty: bool = False) -> str:
    """Return ``name`` if it can be sent as an AMQP short string.

    Raises:
        LocalError: it is not text, is empty (unless ``empty``), cannot be written as UTF-8, or is longer than 255
            bytes. The text calls it ``what``.
    """
    if type(name) is str and name and len(name) <= MAX_NAME_BYTES and name.isascii():  # nearly all names
        return name
    if not isinstance(name, str):
        raise LocalError(f"{what} must be str, not {type(name).__name__}", hint="pass text")
    if not name and not empty:
        raise LocalError(f"{what} is empty", hint="give it a name")
    size = size_of(what, name)
    if size > MAX_NAME_BYTES:
        raise LocalError(
            f"{what} {name[:40]!r}… is {size} bytes long, AMQP 0-9-1 allows {MAX_NAME_BYTES}", hint="shorten it"
        )
    return name


def size_of(what: str, text: str) -> int:
    """Return the number of bytes of ``text`` in UTF-8.

    Raises:
        LocalError: it has lone surrogates. The text of the error calls it ``what``.
    """
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise LocalError(f"{what} {text!r} is not valid Unicode: {error.reason}", hint="remove surrogates") from None


class TopicPattern:
    """A binding key of a topic exchange, compiled once and matched with many routing keys.

    The pattern runs as a nondeterministic automaton. One integer holds the set of its states: bit *i* is set if the
    words of the routing key so far match the first *i* words of the pattern. So a match takes one pass over the words
    of the routing key, however many ``#`` the pattern has. (With backtracking the time would grow exponentially with
    their number.)

    Attributes:
        pattern: the binding key.
    """

    __slots__ = ("_any_word", "_empty_moves", "_final", "_start", "_words", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern: Final = pattern
        words = pattern.split(".") if pattern else []
        self._final = 1 << len(words)
        self._words: dict[str, int] = {}
        self._any_word = 0
        self._empty_moves = 0
        for position, word in enumerate(words):
            if word == "#":
                self._empty_moves |= 1 << position
            elif word == "*":
                self._any_word |= 1 << position
            else:
                self._words[word] = self._words.get(word, 0) | 1 << position
        self._start = self._close(1)

    def _close(self, states: int) -> int:
        """Return ``states`` and those that are reached from them when a ``#``, or several, stand for no word."""
        while True:
            more = states | (states & self._empty_moves) << 1
            if more == states:
                return states
            states = more

    def matches(self, key: str) -> bool:
        """Return whether a message with the routing key ``key`` goes to a queue that is bound with this pattern."""
        states = self._start
        if key:
            for word in key.split("."):
                advanced = states & (self._any_word | self._words.get(word, 0))
                states = self._close(advanced << 1 | states & self._empty_moves)
                if not states:
                    return False
        return bool(states & self._final)

    def __repr__(self) -> str:
        return f"TopicPattern({shortened(self.pattern)!r})"
