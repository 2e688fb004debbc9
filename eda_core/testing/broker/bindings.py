"""The bindings of one exchange: :class:`Bindings` finds those that a message matches.

It does not look at the others: what a message costs does not grow with the number of bindings, those of a headers
exchange aside. Queues and exchanges are known here by their names only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from eda_core.testing.broker.message import AmqpMessage
from eda_core.testing.broker.values import same_header
from eda_core.testing.broker.versions import Version

DIRECT: Final = "direct"
FANOUT: Final = "fanout"
HEADERS: Final = "headers"
TOPIC: Final = "topic"


class Binding(NamedTuple):
    """A binding.

    Attributes:
        source: the exchange that the messages come from.
        kind: of the destination, "queue" or "exchange".
        destination: its name.
        key: the binding key.
        arguments: their hashable image.
    """

    source: str
    kind: str
    destination: str
    key: str
    arguments: Any


class _Node:
    """A word of the binding keys of a topic exchange: the keys that end with it, and the words that follow it."""

    __slots__ = ("bindings", "words")

    def __init__(self) -> None:
        self.bindings: dict[Binding, None] = {}
        self.words: dict[str, _Node] = {}


def _words(key: str) -> list[str]:
    return key.split(".") if key else []


class _Topics:
    """The bindings of a topic exchange, as a tree of the words of their keys."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, binding: Binding, arguments: dict[str, Any]) -> None:
        node = self._root
        for word in _words(binding.key):
            node = node.words.setdefault(word, _Node())
        node.bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        words = _words(binding.key)
        path = [self._root]
        for word in words:
            path.append(path[-1].words[word])
        del path[-1].bindings[binding]
        while words and not (path[-1].bindings or path[-1].words):
            path.pop()
            del path[-1].words[words.pop()]

    def find(self, message: AmqpMessage) -> Iterator[Binding]:
        for key in message.routing_keys:
            yield from self._matching(_words(key))

    def _matching(self, words: list[str]) -> Iterator[Binding]:
        # Each place in the tree is visited once for each number of words, however many words "#" lead to it.
        places = [(self._root, 0)]
        seen = set()
        while places:
            place = node, at = places.pop()
            if place in seen:
                continue
            seen.add(place)
            many = node.words.get("#")
            if many is not None:
                places.extend((many, end) for end in range(at, len(words) + 1))
            if at == len(words):
                yield from node.bindings
                continue
            for word in (words[at], "*"):
                if word in node.words:
                    places.append((node.words[word], at + 1))


class _Keys:
    """The bindings of a direct exchange, by their keys."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[Binding, None]] = {}

    def add(self, binding: Binding, arguments: dict[str, Any]) -> None:
        self._by_key.setdefault(binding.key, {})[binding] = None

    def remove(self, binding: Binding) -> None:
        alike = self._by_key[binding.key]
        del alike[binding]
        if not alike:
            del self._by_key[binding.key]

    def find(self, message: AmqpMessage) -> Iterator[Binding]:
        for key in message.routing_keys:
            yield from self._by_key.get(key, ())


class _Each:
    """The bindings of a headers exchange, which are looked at one by one, or of a fanout exchange, which all match."""

    def __init__(self, matcher: Callable[[dict[str, Any]], Callable[[AmqpMessage], bool]]) -> None:
        self._matcher = matcher
        self._matches: dict[Binding, Callable[[AmqpMessage], bool]] = {}

    def add(self, binding: Binding, arguments: dict[str, Any]) -> None:
        self._matches[binding] = self._matcher(arguments)

    def remove(self, binding: Binding) -> None:
        del self._matches[binding]

    def find(self, message: AmqpMessage) -> Iterable[Binding]:
        return [binding for binding, matches in self._matches.items() if matches(message)]


class Bindings:
    """The bindings of one exchange.

    Args:
        kind: the type of the exchange.
    """

    __slots__ = ("_arguments", "_index", "_kind", "_version")

    def __init__(self, kind: str, version: Version) -> None:
        self._kind = kind
        self._version = version
        self._arguments: dict[Binding, dict[str, Any]] = {}
        self._index: _Topics | _Keys | _Each | None = None  # made for the first message: most clones route none

    def clone(self) -> Bindings:
        """An independent copy."""
        copy = Bindings(self._kind, self._version)
        copy._arguments = self._arguments.copy()
        return copy

    def __len__(self) -> int:
        return len(self._arguments)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._arguments)

    def __contains__(self, binding: object) -> bool:
        return binding in self._arguments

    def add(self, binding: Binding, arguments: dict[str, Any]) -> None:
        """Add a binding. Of one that is there the arguments are those from now on."""
        self._arguments[binding] = arguments
        if self._index is not None:
            self._index.add(binding, arguments)

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is there."""
        del self._arguments[binding]
        if self._index is not None:
            self._index.remove(binding)

    def find(self, message: AmqpMessage) -> set[Binding]:
        """The bindings that a message matches."""
        if self._index is None:
            self._index = self._new_index()
            for binding, arguments in self._arguments.items():
                self._index.add(binding, arguments)
        return set(self._index.find(message))

    def _new_index(self) -> _Topics | _Keys | _Each:
        if self._kind == TOPIC:
            return _Topics()
        if self._kind == DIRECT:
            return _Keys()
        if self._kind == FANOUT:
            return _Each(lambda arguments: lambda message: True)
        return _Each(lambda arguments: _headers_matcher(arguments, self._version))


def _headers_matcher(arguments: dict[str, Any], version: Version) -> Callable[[AmqpMessage], bool]:
    match = arguments.get("x-match", "all")
    wanted = [
        (key, value)
        for key, value in arguments.items()
        if key != "x-match" and (match.endswith("with-x") or not key.startswith("x-"))
    ]

    def matches(message: AmqpMessage) -> bool:
        headers = message.properties.headers or {}
        found = (
            key in headers and (value is None or same_header(value, headers[key], version)) for key, value in wanted
        )
        return all(found) if match.startswith("all") else any(found)

    return matches
