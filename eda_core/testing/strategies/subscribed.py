"""Messages for a service: those that it subscribes to, with payloads that its handlers are annotated with.

This module decides which names, kinds and payloads are drawn. It does not know what becomes of the messages.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

from eda_core.errors import LocalError, PayloadError
from eda_core.machine.config import Config
from eda_core.messages.codec import CBOR, JSON, encode
from eda_core.messages.routing import TopicPattern
from eda_core.messages.values import ERROR, SUCCESS, AnyMessage, Command, Configuration, Event, Result
from eda_core.services.api import ServiceApi
from eda_core.services.checks import PARAMETERS, handler_names, overrides
from eda_core.services.handlers import handler_of
from eda_core.testing.simulation.deployed import URL, Deployed
from eda_core.testing.strategies.typed import carried, typed
from eda_core.testing.strategies.values import (
    command_names,
    conversation_ids,
    fits,
    json_payloads,
    own_headers,
    texts,
)
from eda_core.testing.strategies.values import words as any_words

Strategy = st.SearchStrategy
Kind = type[Event] | type[Command] | type[Result] | type[Configuration]
Source = Deployed | ServiceApi[Any] | Callable[..., Any]

#: The methods that decide which handler a message has. Where one is overridden, names have no handlers.
_DISPATCHERS: Final[dict[Kind, tuple[str, str]]] = {
    Event: ("an event", "handle_event"),
    Command: ("a command", "handle_command"),
    Result: ("a result", "handle_result"),
    Configuration: ("a configuration", "handle_config"),
}
_WILDCARDS: Final = ("*", "#")


def services(
    *services: Source,
    payloads: Mapping[str, Any] | None = None,
    conversations: Strategy[str] | None = None,
    content_type: str = CBOR,
) -> Strategy[AnyMessage]:
    """Messages that services subscribe to: events, commands for them, results that come to them, and configurations.

    Each payload fits the annotation of ``payload`` in the handler of the message, see :func:`typed`. If there is none,
    it is any value of the JSON data model. Where a routing key of the service has wildcards, names are drawn that match
    it. If its last word is a wildcard, the last word of a name is one for which the class has a handler of this kind,
    unless it has none or overrides ``handle`` and the like. Log records are not drawn.

    Args:
        services: classes of services whose constructors take URLs; :class:`eda_core.testing.simulation.Deployed` if
            they take more; or services that were made. A class is made once to see what it subscribes to.
        payloads: for some messages, what their payloads are: a strategy, or a type. The key is the name, the last word
            of it, or a pattern with ``*`` and ``#``; the first of these that there is counts.
        conversations: the conversation ids; by default any.
        content_type: with which the payloads must be written.

    Raises:
        LocalError: a service subscribes to nothing, cannot be made, or has an annotation for which there is no
            strategy; or ``payloads`` has a key that no service subscribes to. When a payload is drawn: it cannot be
            written.
    """
    if not services:
        raise LocalError("services() is given no service", hint="give it the class of one: services(Billing)")
    if content_type not in (CBOR, JSON):
        raise LocalError(f"content type {content_type!r} is not supported", hint=f"use {CBOR} or {JSON}")
    given = _Payloads(payloads or {})
    own = conversation_ids() if conversations is None else conversations
    drawn: list[Strategy[AnyMessage]] = []
    subscribed: list[str] = []
    for source in services:
        with made(source) as service:
            found = _Subscriber(service, given, own, content_type)
            keys = [*found.config.events, *found.config.commands, *found.config.configurations]
            drawn += found.messages()
            subscribed += keys
        if not keys:
            raise LocalError(
                f"{type(service).__name__} subscribes to no events, commands, results and configurations",
                hint="give services() a service with routing keys",
            )
    given.check(list(dict.fromkeys(subscribed)))
    return st.one_of(*drawn)


@contextmanager
def made(source: Source) -> Iterator[ServiceApi[Any]]:
    """Make a service, to look at it, and what its constructor needs, which is closed after the block.

    Raises:
        LocalError: the result is no service.
    """
    if isinstance(source, ServiceApi):
        yield source
        return
    if not isinstance(source, Deployed) and not callable(source):
        raise LocalError(f"{source!r} is neither a service nor the class of one", hint="give the class: Billing")
    deployed = Deployed.of(source)
    given = {name: make() for name, make in deployed.given.items()}
    try:
        service = deployed.service([URL], **given)
        if not isinstance(service, ServiceApi):
            raise LocalError(
                f"{getattr(deployed.service, '__name__', deployed.service)} makes {type(service).__name__}, which is "
                "no service",
                hint="give a class that is derived from eda_aio.Service or eda_pika.Service",
            )
        yield service
    finally:
        for each in given.values():
            if callable(close := getattr(each, "close", None)):
                close()


class _Payloads:
    """What the user says about payloads.

    Args:
        given: see :func:`services`.

    Attributes:
        names: the keys without wildcards.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._strategies = {name: _strategy(name, each) for name, each in given.items()}
        self._patterns = {name: TopicPattern(name) for name in self._strategies if _is_pattern(name)}
        self.names: Final = [name for name in self._strategies if name not in self._patterns]

    def of(self, name: str) -> Strategy[Any] | None:
        """Return what the payload of a message is, if it is given."""
        for key in (name, _last(name)):
            if key in self._strategies:
                return self._strategies[key]
        found = next((key for key, pattern in self._patterns.items() if pattern.matches(name)), None)
        return None if found is None else self._strategies[found]

    def check(self, subscribed: list[str]) -> None:
        """Refuse keys that no message has which comes by one of these binding keys."""
        for key in self._strategies:
            if not any(self._concerns(key, each) for each in subscribed):
                known = dict.fromkeys(name for each in subscribed for name in (each, _last(each)))
                near = get_close_matches(key, known, 1)
                raise LocalError(
                    f"payloads has {key!r}, to which no service subscribes; they subscribe to {', '.join(subscribed)}",
                    hint=f"do you mean {near[0]!r}?" if near else "name a message that a service subscribes to",
                )

    def _concerns(self, key: str, subscribed: str) -> bool:
        if not _is_pattern(subscribed):
            return key in (subscribed, _last(subscribed)) or (key in self._patterns and _matches(key, subscribed))
        if key in self._patterns or _matches(subscribed, key):
            return True
        return "." not in key and _last(subscribed) in (*_WILDCARDS, key)


def _strategy(name: object, given: Any) -> Strategy[Any]:
    """Return what the user means by a value of ``payloads``."""
    if not isinstance(name, str):
        raise LocalError(f"payloads has the key {name!r}, which is no name of a message", hint="use text")
    if isinstance(given, st.SearchStrategy):
        return given.map(carried)
    if given is None or isinstance(given, (str, bytes, int, float, dict, list)):
        raise LocalError(
            f"payloads has {given!r} for {name!r}, which is neither a strategy nor a type",
            hint=f"for this value alone write st.just({given!r})",
        )
    return typed(given)


@dataclass(slots=True)
class _Subscriber:
    """A service, and how its messages are drawn."""

    service: ServiceApi[Any]
    payloads: _Payloads
    conversations: Strategy[str]
    content_type: str
    _typed: dict[str, Strategy[Any]] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return self.service._eda_config

    def messages(self) -> Iterator[Strategy[AnyMessage]]:
        """Return the messages of each binding key and kind."""
        for key in self.config.events:
            yield self._of_key(Event, key)
        for key in self.config.commands:
            kinds = self._kinds(key)
            with_handlers = [kind for kind in kinds if not _is_pattern(_last(key)) or self._handlers(kind)]
            for kind in with_handlers or kinds:
                yield self._of_key(kind, key)
        for key in self.config.configurations:
            yield self._of_key(Configuration, key)

    def _kinds(self, key: str) -> list[Kind]:
        """Return what comes by a binding key of commands and results: commands are those with our own name."""
        last, ours = _last(key), self.config.service
        word = "Any" if last in _WILDCARDS else last
        kinds: list[Kind] = [Command] if _matches(key, f"{ours}.{word}") else []
        if not kinds or _is_pattern(key.rpartition(".")[0]) or last == "#":
            kinds.append(Result)
        return kinds

    def _of_key(self, kind: Kind, key: str) -> Strategy[AnyMessage]:
        if not _is_pattern(key):
            return self._message(kind, key)
        for word in self._handlers(kind) if _last(key) in _WILDCARDS else [_last(key)]:
            self._payload(kind, word)  # so that an annotation for which there is nothing is found now
        names = st.one_of(*(self._names(kind, each) for each in self._shortened(kind, key)))
        names = names.filter(lambda name: _matches(key, name) and self._is(kind, name) and fits(name))
        given = [name for name in self.payloads.names if _matches(key, name) and self._is(kind, name)]
        if given:
            names = st.sampled_from(given) | names
        return names.flatmap(lambda name: self._message(kind, name))

    def _shortened(self, kind: Kind, key: str) -> list[str]:
        """Return a binding key, and what is left of it if a ``#`` at its end stands for no word and a handler fits."""
        keys, handlers = [key], self._handlers(kind)
        while kind is not Command and keys[-1].endswith(".#"):
            keys.append(keys[-1][:-2])
        return [each for each in keys if not handlers or _last(each) in (*_WILDCARDS, *handlers)] or [key]

    def _names(self, kind: Kind, key: str) -> Strategy[str]:
        *before, last = key.split(".")
        if last not in _WILDCARDS:
            ends: Strategy[str] = st.just(last)
        else:
            ends = st.sampled_from(handlers) if (handlers := self._handlers(kind)) else _words()
        starts = st.just(self.config.service) if kind is Command else _starts(before, last == "#")
        return st.builds(lambda start, end: f"{start}.{end}" if start else end, starts, ends)

    def _is(self, kind: Kind, name: str) -> bool:
        is_ours = name.rpartition(".")[0] == self.config.service
        return kind not in (Command, Result) or is_ours == (kind is Command)

    def _handlers(self, kind: Kind) -> list[str]:
        """Return the last words of the names for which the class has handlers of a kind; none if it dispatches."""
        what, dispatcher = _DISPATCHERS[kind]
        if overrides(self.service, "handle", dispatcher):
            return []
        config = self.config
        keys = {Event: config.events, Configuration: config.configurations}
        mine = keys.get(kind, config.commands)
        taken = {_last(key) for each in (*keys.values(), config.commands) if each is not mine for key in each}
        foreign = {Command: "status", Result: "reply_to"}.get(kind, "correlation_id")
        return [
            name[3:]
            for name in handler_names(self.service)
            if name[3:] not in taken and _takes(getattr(self.service, name), len(PARAMETERS[what]), foreign)
        ]

    def _message(self, kind: Kind, name: str) -> Strategy[AnyMessage]:
        payload = self._payload(kind, name)
        meta: Strategy[dict[str, Any]] = st.builds(dict) | own_headers()
        conversation = self.conversations
        drawn: dict[Kind, Callable[[], Strategy[AnyMessage]]] = {
            Event: lambda: st.builds(Event, st.just(name), payload, conversation, meta),
            Command: lambda: st.builds(
                Command, st.just(name), payload, conversation, command_names(), texts(min_size=1), meta
            ),
            Result: lambda: st.builds(
                Result, st.just(name), payload, conversation, st.sampled_from([SUCCESS, ERROR]), texts(), meta
            ),
            Configuration: lambda: st.builds(Configuration, st.just(name), payload, st.just("") | conversation, meta),
        }
        return drawn[kind]()

    def _payload(self, kind: Kind, name: str) -> Strategy[Any]:
        """Return the payloads of a message: what the user says, or else what the annotation of its handler says."""
        given = self.payloads.of(name)
        if given is None:
            word = _last(name)
            if word not in self._typed:
                self._typed[word] = self._annotated(kind, word)
            given = self._typed[word]

        def written(payload: Any) -> Any:
            try:
                encode(payload, self.content_type, self.config.limits)
            except PayloadError as error:
                raise LocalError(
                    f"{type(self.service).__name__}, {name}: {error}",
                    hint=f"give what it is: payloads={{{_last(name)!r}: strategy}}",
                ) from None
            return payload

        return given.map(written)

    def _annotated(self, kind: Kind, word: str) -> Strategy[Any]:
        handler = None
        if not overrides(self.service, "handle", _DISPATCHERS[kind][1]):
            handler = handler_of(self.service, word)
        if handler is None:
            return json_payloads()
        where = f"{type(self.service).__name__}.on_{word}()"
        try:
            first = next(iter(inspect.signature(handler).parameters), "")
            hint = typing.get_type_hints(handler, include_extras=True).get(first, Any)
            return typed(hint)
        except (LocalError, NameError, TypeError, ValueError) as error:
            raise LocalError(
                f"{where}: nothing can be drawn for its payload: {error}",
                hint=f"give what it is: payloads={{{word!r}: strategy}}",
            ) from None


def _takes(handler: Callable[..., Any], count: int, foreign: str) -> bool:
    """Return whether a handler takes so many arguments, and is not one of another kind by a name that it has."""
    try:
        signature = inspect.signature(handler)
        signature.bind(*(None for _ in range(count)))
    except (TypeError, ValueError):
        return False
    return foreign not in signature.parameters


def _starts(words: list[str], more: bool) -> Strategy[str]:
    """Return what comes before the last word of a routing key, by the words of a binding key before its last one.

    Args:
        more: further words may follow.
    """
    parts = [*words, "#"] if more else words
    drawn = [st.lists(_words(), max_size=2) if each == "#" else st.tuples(_word(each)) for each in parts]
    return st.tuples(*drawn).map(lambda found: ".".join(word for part in found for word in part))


def _word(word: str) -> Strategy[str]:
    return _words() if word == "*" else st.just(word)


@cache
def _words() -> Strategy[str]:
    return st.from_regex(r"[a-z]{1,8}", fullmatch=True) | any_words()


def _matches(pattern: str, name: str) -> bool:
    return TopicPattern(pattern).matches(name)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _is_pattern(key: str) -> bool:
    return any(word in _WILDCARDS for word in key.split("."))
