"""Exchanges, queue names, routing keys and the topic match.

The names of exchanges and queues are fixed by the architecture (docs/architecture.rst, "Topology"); the rules of the
topic match are those of AMQP 0-9-1, section 3.1.3.3: a key is words separated by dots, ``*`` stands for exactly one
word and ``#`` for zero or more.
"""

from __future__ import annotations

from typing import Final

from eda_core.errors import LocalError
from eda_core.text import shortened

EVENTS: Final = "events"
COMMANDS: Final = "commands"
CONFIGURATIONS: Final = "configurations"
LOGS: Final = "logs"

EXCHANGES: Final = (EVENTS, COMMANDS, CONFIGURATIONS, LOGS)

#: AMQP 0-9-1 carries names and routing keys as short strings.
MAX_NAME_BYTES: Final = 255
#: Less than where RabbitMQ closes the connection (docs/design.rst, "Size of headers"): the other properties need some
#: room beside the headers.
MAX_HEADER_BYTES: Final = 120_000


def queue_name(service: str, exchange: str) -> str:
    """The durable queue that the workers of ``service`` share: ``service.events`` or ``service.commands``."""
    return f"{service}.{exchange}"


def check_name(what: str, name: object, *, empty: bool = False) -> str:
    """Return ``name`` if it can travel as an AMQP short string.

    Raises:
        LocalError: it is not text, is empty (unless ``empty``), cannot be written as UTF-8 or is longer than 255 bytes.
    """
    if type(name) is str and name and len(name) <= MAX_NAME_BYTES and name.isascii():  # as all but a few are
        return name
    if not isinstance(name, str):
        raise LocalError(f"{what} must be str, not {type(name).__name__}", hint="pass text")
    if not name and not empty:
        raise LocalError(f"{what} is empty", hint="give it a name")
    try:
        size = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError as error:
        raise LocalError(
            f"{what} {name!r} is not valid Unicode: {error.reason}", hint="remove lone surrogates"
        ) from None
    if size > MAX_NAME_BYTES:
        raise LocalError(
            f"{what} {name[:40]!r}… is {size} bytes long, AMQP 0-9-1 allows {MAX_NAME_BYTES}", hint="shorten it"
        )
    return name


class TopicPattern:
    """A binding key of a topic exchange, compiled once and matched many times.

    The pattern is run as a nondeterministic automaton whose state set is one integer: bit *i* is set when the first *i*
    words of the pattern have been consumed. So a match costs one pass over the words of the key, whatever the number of
    ``#`` (a backtracking match is exponential in it).
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
        """Add the states reached by letting a ``#`` stand for no word (runs of ``#`` included)."""
        while True:
            more = states | (states & self._empty_moves) << 1
            if more == states:
                return states
            states = more

    def matches(self, key: str) -> bool:
        """Whether a message with routing key ``key`` goes to a queue bound with this pattern. Never raises."""
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
