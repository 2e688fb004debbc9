"""Gives a service what a recording or a journal holds, on the embedded broker, and writes down what comes out."""

from __future__ import annotations

import difflib
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.journal import replay as replay_journal
from eda_core.messages.codec import DEFAULT_LIMITS
from eda_core.messages.envelope import InvalidEnvelope, open_envelope
from eda_core.messages.routing import CONFIGURATIONS, EVENTS
from eda_core.messages.values import AnyMessage, Command, Result, kind_of
from eda_core.testing.arrivals import Arrival, DeadLetter
from eda_core.testing.broker import Broker, Outgoing
from eda_core.testing.deaths import published
from eda_core.testing.live.bus import Bus
from eda_core.testing.live.embedded import DEAD_LETTER_QUEUE, EmbeddedBrokerThread
from eda_core.testing.live.services import AnyService, ServiceRunner
from eda_core.testing.recordings import Recorded, is_journal, journal_messages, read_items

#: Seconds for the handlers of one message. They are many, because they only end a test that has failed.
HANDLED_WITHIN: Final = 30.0
#: Seconds between two looks at the broker.
_POLL: Final = 0.002

_UUID: Final = re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b", re.IGNORECASE)
_TIME: Final = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")


class Differs(AssertionError):
    """A service publishes other messages than it is expected to. The text is a diff."""


def read_messages(path: Path) -> list[Recorded]:
    """The messages of a recording or of a journal.

    Raises:
        OSError: the file cannot be read.
        RecordingError, JournalError: it is neither.
    """
    content = path.read_bytes()
    if is_journal(content):
        return list(journal_messages(replay_journal(content.decode("utf-8").splitlines())))
    return list(read_items(content))


def replay(
    path: str | Path, make: Callable[[str], AnyService], *, update: bool = False, expectation: str | Path | None = None
) -> None:
    """Give a service the messages of a recording that it subscribes to, and compare what it publishes.

    Each message is published when the service has done with the one before. The results of commands that the service
    sends are those of the recording. What a timer publishes counts to the message that is handled then.

    Args:
        path: a recording, of ``eda monitor --record`` or ``eda resurrect --backup``, or a journal.
        make: makes the service; it gets the URL of a broker.
        update: write the expectation, instead of comparing.
        expectation: the file with what is expected; by default that of the recording with ``.<service>.expected``
            behind its name.

    Raises:
        Differs: what the service publishes is not what is expected, or there is no expectation yet.
        TimeoutError: a handler does not end.
        OSError, RecordingError, JournalError: as for :func:`read_messages`.
    """
    __tracebackhide__ = True
    source = Path(path)
    recorded = read_messages(source)
    with EmbeddedBrokerThread() as broker, Bus(broker.url) as bus:
        service = make(broker.url)
        name = str(getattr(service, "logical_service", type(service).__name__))
        runner = ServiceRunner(died=bus.service_died)
        runner(service)
        try:
            made = Replay(service, bus, broker, recorded).run()
        finally:
            runner.stop()
        if runner.errors:
            raise runner.errors[0]
    compare("\n".join(made) + "\n", Path(expectation or f"{source}.{name}.expected"), update=update)


def compare(made: str, expectation: Path, *, update: bool) -> None:
    """Compare a text with a file, or write it there. Raises Differs, with a diff."""
    __tracebackhide__ = True
    if update:
        expectation.write_text(made, encoding="utf-8")
        return
    if not expectation.is_file():
        raise Differs(f"there is no {expectation} yet: write it by pytest --eda-update, and read it")
    wanted = expectation.read_text("utf-8")
    if wanted != made:
        lines = difflib.unified_diff(wanted.splitlines(), made.splitlines(), "expected", "published", lineterm="", n=4)
        how = f"if that is right, run pytest --eda-update, which writes {expectation.name}"
        raise Differs("\n".join(["the service publishes other messages than expected:", *lines, how]))


class Replay:
    """One run of one service."""

    def __init__(self, service: Any, bus: Bus, broker: EmbeddedBrokerThread, recorded: Sequence[Recorded]) -> None:
        self._service = service
        self._bus = bus
        self._broker = broker
        self._messages = [(each, message) for each in recorded if (message := _opened(each)) is not None]
        self._names = _Names()
        self._seen = 0  # arrivals that were looked at
        #: The commands of the recording, and those that the service has sent now, by name, in order.
        self._then: dict[str, list[Command]] = defaultdict(list)
        self._now: dict[str, list[Command]] = defaultdict(list)
        self._results: dict[str, tuple[Recorded, Result]] = {}
        for each, message in self._messages:
            if isinstance(message, Command):
                self._then[message.name].append(message)
            elif isinstance(message, Result) and message.correlation_id:
                self._results.setdefault(message.correlation_id, (each, message))

    def run(self) -> list[str]:
        """Give the service each message. Returns the lines that say what was published."""
        lines: list[str] = []
        given: set[str] = set()
        for number, (each, message) in enumerate(self._messages):
            identifier = each.properties.message_id
            if each.published or (each.redelivered and identifier in given) or not self._is_input(message):
                continue  # a broker delivers a message again that its handler has failed on: so it will now
            given.add(identifier or "")
            self._publish(each, message, f"replay-{number}")
            lines += [f"{self._line(kind_of(message), message)}", *self._outputs(message.name), ""]
        return lines[:-1]

    def _is_input(self, message: AnyMessage) -> bool:
        kind = kind_of(message)
        return kind != "log" and bool(self._service.subscribes_to(kind, message.name))

    def _publish(self, each: Recorded, message: AnyMessage, identifier: str, command: Command | None = None) -> None:
        """Publish a message as it was, without the headers of the broker.

        Args:
            command: the command that it answers now; ``None`` to look for it.
        """
        properties = Basic.Properties()
        for name, value in each.properties:
            setattr(properties, name, value)
        headers = {name: value for name, value in (each.properties.headers or {}).items() if not name.startswith("x-")}
        properties.headers, properties.message_id, properties.user_id = headers, identifier, None
        key = message.name
        if isinstance(message, Result):
            asked = command or self._counterpart(message)
            if asked is not None:
                key, properties.correlation_id = asked.reply_to, asked.correlation_id or None
        exchange, _ = _origin(each)
        self._bus.publish_raw(exchange, key, properties, each.body)

    def _counterpart(self, result: Result) -> Command | None:
        """The command of now that stands where the one that a recorded result answers stood."""
        for name, commands in self._then.items():
            for place, command in enumerate(commands):
                if command.correlation_id == result.correlation_id and command.reply_to == result.name:
                    now = self._now[name]
                    return now[place] if place < len(now) else None
        return None

    def _outputs(self, handled: str) -> Iterator[str]:
        """What the service has published, when it has done with what it was given."""
        limit = time.monotonic() + HANDLED_WITHIN
        while True:
            idle, answered = self._idle(), False
            new = self._bus.arrivals()[self._seen :]
            self._seen += len(new)
            for found in new:
                if found.kind != "log" and (not found.sent or found.kind == "dead letter"):
                    yield f"  -> {self._line(found.kind, found.message)}"
                    answered |= self._answer(found)
            if idle and not answered:
                return
            if time.monotonic() > limit:
                raise TimeoutError(f"the handlers of {handled} have not ended within {HANDLED_WITHIN:g} s")
            threading.Event().wait(0 if idle else _POLL)

    def _answer(self, found: Arrival) -> bool:
        """Answer a command whose handler waits for the result, as ``call`` does. Returns whether it was one."""
        command = found.message
        if not isinstance(command, Command):
            return False
        place = len(self._now[command.name])
        self._now[command.name].append(command)
        then = self._then[command.name]
        waits = not self._service.subscribes_to("result", command.reply_to)
        if waits and place < len(then) and then[place].correlation_id in self._results:
            each, result = self._results[then[place].correlation_id]
            self._publish(each, result, f"replay-answer-{command.name}-{place}", command)
            return True
        return False

    def _idle(self) -> bool:
        """Whether the broker has nothing that waits for a service or that a service has not acknowledged."""
        found: list[bool] = []

        def look(model: Broker, _now: float) -> list[Outgoing]:
            queues = [name for name in model.queue_names() if name != DEAD_LETTER_QUEUE]
            found.append(not any(model.messages(name) or model.unacked(name) for name in queues))
            return []

        self._broker.operate(look)
        return found[0]

    def _line(self, kind: str, message: Any) -> str:
        what = f"{kind} {self._names.of(message.name)}"
        if isinstance(message, DeadLetter):
            return f"{what} {message.reason} in {message.queue}"
        status = f" {message.status}" if isinstance(message, Result) else ""
        return f"{what}{status} {self._names.of(_json(message.payload))}"


def _opened(each: Recorded) -> AnyMessage | None:
    exchange, key = _origin(each)
    try:
        return open_envelope(exchange, key, each.properties, each.body, DEFAULT_LIMITS)
    except InvalidEnvelope:
        return None


def _origin(each: Recorded) -> tuple[str, str]:
    if each.exchange in (EVENTS, CONFIGURATIONS):
        return each.exchange, each.routing_key
    headers = each.properties.headers if isinstance(each.properties.headers, dict) else {}
    return published(headers, each.routing_key) or (each.exchange, each.routing_key)


def _json(payload: Any) -> str:
    return json.dumps(payload, ensure_ascii=False, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


class _Names:
    """Gives random ids and times names that are the same in each run."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def of(self, text: str) -> str:
        """The text, with ``<id 1>`` for the first UUID, and so on, and with ``<time>`` for times."""
        text = _UUID.sub(lambda match: self._ids.setdefault(match[0].lower(), f"<id {len(self._ids) + 1}>"), text)
        return _TIME.sub("<time>", text)
