"""A journal of every input, to replay after the fact: ``python -m eda_core.journal replay FILE``.

The machine is deterministic but for the time and the random numbers that it is given, so a record of its inputs with
both is a record of everything it did. One JSON object per line: first the machine's configuration (without passwords),
then each input with its arguments, the random numbers drawn and the effects that came out. A journal holds the messages
themselves.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import cbor2
from pamqp import base, commands
from pamqp.commands import Basic

from eda_core import effects, policy, values
from eda_core.codec import Limits
from eda_core.config import Config
from eda_core.effects import Effect
from eda_core.errors import BufferFull
from eda_core.machine import Machine
from eda_core.urls import redact

VERSION: Final = 1

#: The methods of a machine that are inputs.
INPUTS: Final = (
    "start",
    "link_up",
    "declared",
    "link_down",
    "channel_closed",
    "consumer_cancelled",
    "blocked",
    "unblocked",
    "effect_failed",
    "callback_failed",
    "stop",
    "hold",
    "release",
    "tick",
    "delivered",
    "handled",
    "failed",
    "ack",
    "ack_together",
    "nack",
    "publish",
    "call",
    "forget_call",
    "confirmed",
    "refused",
    "returned",
    "log",
    "use_json",
)

#: Inputs with texts of the driver's, which may quote a URL.
_WITH_REASONS: Final = ("link_down", "channel_closed", "effect_failed")

#: Deeper values are written as CBOR in one piece.
_MOST_LEVELS: Final = 60
#: Of the arguments of a call that was refused, which may be anything: as much is written, and as deep.
_MOST_REFUSED: Final = (100_000, 50)
#: What pamqp may write in a header, beside lists and dictionaries.
_IN_HEADERS: Final = (str, int, float, bytes, bytearray, datetime, Decimal, type(None))


@dataclasses.dataclass(frozen=True)
class Shown:
    """What stands for a value in the fields of a log that JSON has no form for: the log has its text."""

    text: str
    quoted: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.quoted


_CLASSES: Final[dict[str, Any]] = {
    name: kind
    for module in (effects, values, policy)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
} | {"Config": Config, "Limits": Limits, "Shown": Shown}


class JournalError(ValueError):
    """A file that is no journal. The text says which line and why."""


# Writing


class RecordingMachine(Machine):
    """A machine that keeps a journal.

    Args:
        write: takes one line, without its end. It must not raise: a service does not stop because its journal cannot be
            written.
    """

    def __init__(
        self,
        config: Config,
        *,
        random: Callable[[], float],
        token: str,
        wall_offset: float,
        write: Callable[[str], None],
    ) -> None:
        self._source = random
        self._drawn: list[float] = []
        self._write = write
        self._nested = False
        super().__init__(config, random=self._draw, token=token, wall_offset=wall_offset)
        machine = {"config": plain(config), "token": token, "wall_offset": wall_offset}
        write(json.dumps({"journal": VERSION, "machine": machine}))

    def _draw(self) -> float:
        number = self._source()
        self._drawn.append(number)
        return number

    def record(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> list[Effect]:
        """Make the input and write it down. Inputs made by other inputs are not written: they follow from those."""
        method = getattr(super(), name)
        if self._nested:
            return method(*arguments, **named)  # type: ignore[no-any-return]
        entry: dict[str, Any] = {"input": name}
        self._nested = True
        try:
            made: list[Effect] = method(*arguments, **named)
            entry["effects"] = plain(made)
        except Exception as error:
            entry["raised"] = type(error).__name__
            if not isinstance(error, BufferFull):  # the last of all checks
                arguments = tuple(map(_refused, arguments))
                named = {key: _refused(value) for key, value in named.items()}
            raise
        finally:
            self._nested = False
            if "fields" in named:
                named = named | {"fields": _shown_fields(named["fields"])}
            if name in _WITH_REASONS:
                arguments = tuple(map(_without_password, arguments))
                named = {key: _without_password(value) for key, value in named.items()}
            entry |= {"arguments": plain(arguments), "named": plain(named), "random": self._drawn.copy()}
            self._drawn.clear()
            self._write(json.dumps(entry))
        return made


def _recorded(name: str) -> Callable[..., list[Effect]]:
    @functools.wraps(getattr(Machine, name))
    def record(self: RecordingMachine, *arguments: Any, **named: Any) -> list[Effect]:
        return self.record(name, arguments, named)

    return record


for _name in INPUTS:
    setattr(RecordingMachine, _name, _recorded(_name))


# Values to JSON and back


def plain(value: Any, levels: int = _MOST_LEVELS) -> Any:
    """``value`` as JSON can hold it: objects as maps with their class's name under ``$``, URLs without passwords."""
    if value is None or isinstance(value, (bool, str)) or (isinstance(value, int) and value.bit_length() < 10_000):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else {"$": "float", "is": repr(value)}
    return _structured(value, levels - 1) if levels else _in_cbor(value)


def _structured(value: Any, levels: int) -> Any:
    if isinstance(value, (list, tuple)):
        return [plain(item, levels) for item in value]
    if isinstance(value, (bytes, bytearray)):
        kind = "bytes" if isinstance(value, bytes) else "bytearray"  # in a header each is written as another type
        return {"$": kind, "is": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$": "datetime", "is": value.isoformat()}
    if isinstance(value, (Basic.Properties, base.Frame)):
        return {"$": value.name} | {name: plain(field, levels) for name, field in value if field is not None}
    if _CLASSES.get(type(value).__name__) is type(value):
        fields = {field.name: plain(getattr(value, field.name), levels) for field in dataclasses.fields(value)}
        return {"$": type(value).__name__} | _without_passwords(fields)
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and "$" not in value:
            return {key: plain(item, levels) for key, item in value.items()}
        return {"$": "map", "is": [[plain(key, levels), plain(item, levels)] for key, item in value.items()]}
    if isinstance(value, (set, frozenset)):
        return {"$": "set", "is": [plain(item, levels) for item in value]}
    return _in_cbor(value)


def _shown_fields(value: Any, levels: int = _MOST_LEVELS) -> Any:
    """The fields of a log, whose values may be anything, as they will be shown."""
    if value is None or isinstance(value, (str, int, float)) or not levels:
        return value
    if isinstance(value, (list, tuple)):
        return [_shown_fields(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {key: _shown_fields(item, levels - 1) for key, item in value.items()}
    try:
        return Shown(str(value), repr(value))
    except Exception:  # so a log has it too
        return Shown(*[f"<{type(value).__name__}>"] * 2)


def _in_cbor(value: Any) -> dict[str, Any]:
    try:
        return {"$": "cbor", "is": base64.b64encode(cbor2.dumps(value)).decode()}
    except Exception:  # the machine refuses it too, and that is what has to be recorded
        return {"$": "cbor", "is": "", "of": type(value).__name__}


def _refused(value: Any) -> Any:
    """An argument of a refused call, clipped: what is beyond is replaced by what no machine takes either."""
    if isinstance(value, values.AnyMessage):
        conversation: Any = value.conversation_id if type(value.conversation_id) is str else object()
        meta = _clipped(value.meta, _left(), _MOST_REFUSED[1], header=True)
        return dataclasses.replace(value, payload=_refused(value.payload), conversation_id=conversation, meta=meta)
    return _clipped(value, _left(), _MOST_REFUSED[1])


def _left() -> Iterator[int]:
    return iter(range(_MOST_REFUSED[0]))


def _clipped(value: Any, left: Iterator[int], levels: int, *, header: bool = False) -> Any:
    if next(left, None) is None or not levels:
        return object()
    if isinstance(value, list) or (isinstance(value, tuple) and not header):
        return [_clipped(item, left, levels - 1, header=header) for item in value]
    if isinstance(value, dict):
        return {key: _clipped(item, left, levels - 1, header=header) for key, item in value.items()}
    # A payload may have a tuple, which comes back as a list; a header may not.
    return object() if header and not isinstance(value, _IN_HEADERS) else value


def _without_password(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


def _without_passwords(fields: dict[str, Any]) -> dict[str, Any]:
    if "url" in fields:
        fields["url"] = redact(fields["url"])
    if "urls" in fields:
        fields["urls"] = [redact(url) for url in fields["urls"]]
    return fields


#: In each line with a set.
_SET: Final = '"$": "set"'


class _InOrder(frozenset[Any]):
    """A set that is written in the order in which it was: what a process puts first is chance."""

    def __new__(cls, items: Iterable[Any]) -> _InOrder:
        order = tuple(items)
        made = super().__new__(cls, order)
        made._order = order
        return made

    _order: tuple[Any, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)


def _sorted(value: Any) -> Any:
    """``value``, made by :func:`plain`, with its sets in an order that is the same in each process."""
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _sorted(item) for key, item in value.items()}
    if value.get("$") == "set":
        value["is"].sort(key=json.dumps)
    return value


_SIMPLE: Final[dict[str, Callable[[Any], Any]]] = {
    "float": float,
    "bytes": base64.b64decode,
    "bytearray": lambda text: bytearray(base64.b64decode(text)),
    "datetime": datetime.fromisoformat,
    "map": lambda items: {_key(revive(key)): revive(item) for key, item in items},
    "set": lambda items: _InOrder(_key(revive(item)) for item in items),
    "cbor": lambda text: cbor2.loads(base64.b64decode(text)) if text else object(),
}


def revive(value: Any) -> Any:
    """What :func:`plain` was given (tuples come back as lists)."""
    if isinstance(value, list):
        return [revive(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {key: revive(item) for key, item in value.items()}
    kind = value["$"]
    if kind in _SIMPLE:
        return _SIMPLE[kind](value["is"])
    fields = {name: revive(field) for name, field in value.items() if name != "$"}
    if kind in _CLASSES:
        return _CLASSES[kind](**{name: _key(field) for name, field in fields.items()} if kind in _FROZEN else fields)
    if "." not in kind:
        raise JournalError(f"unknown class {kind!r}")
    return _frame(kind, fields)


#: Classes whose sequences have to be tuples.
_FROZEN: Final = ("Config", "RetryPolicy", "Declare")


def _key(value: Any) -> Any:
    if isinstance(value, set):
        return frozenset(value)
    return tuple(_key(item) for item in value) if isinstance(value, list) else value


def _frame(kind: str, fields: dict[str, Any]) -> Any:
    family, _, name = kind.partition(".")
    frame = getattr(getattr(commands, family), name)()
    for field, value in fields.items():
        setattr(frame, field, value)
    return frame


# Replaying


def replay(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any], Any]]:
    """Feed a journal to a new machine.

    Yields:
        For each input: the number of its line from 1, what was recorded, and the effects that came out now, both as
        JSON values; they are equal if the machine still decides as it did. An input that raised gives the error's name
        instead.

    Raises:
        JournalError: a line is not of a journal.
    """
    numbered = enumerate(lines, 1)
    number, line = next(numbered, (1, ""))
    draws: list[float] = []
    machine = _machine(_parse(number, line), draws)
    for number, line in numbered:
        entry = _parse(number, line)
        try:
            draws[:] = entry["random"]
            arguments, named = [*revive(entry["arguments"])], {**revive(entry["named"])}
            method = getattr(machine, entry["input"] if entry["input"] in INPUTS else "")
        except Exception as error:
            raise JournalError(f"line {number} cannot be read: {_why(error)}") from error
        try:
            made = plain(method(*arguments, **named))
        except JournalError as error:
            raise JournalError(f"line {number}: {error}") from None
        except Exception as error:  # as recorded; and any, if the file was changed
            made = type(error).__name__
        if _SET in line:
            entry, made = _sorted(entry), _sorted(made)
        yield number, entry, made


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _machine(header: dict[str, Any], draws: list[float]) -> Machine:
    if header.get("journal") != VERSION:
        raise JournalError(f"line 1 is not the head of a journal of version {VERSION}")

    def draw() -> float:
        if not draws:
            raise JournalError("the machine draws a random number where it did not when it was recorded")
        return draws.pop(0)

    try:
        made = header["machine"]
        return Machine(revive(made["config"]), random=draw, token=made["token"], wall_offset=made["wall_offset"])
    except Exception as error:
        raise JournalError(f"line 1 cannot be read: {_why(error)}") from error


def _parse(number: int, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise JournalError(f"line {number} is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise JournalError(f"line {number} is not a JSON object")
    return entry


def _shown(value: Any) -> str:
    """``value`` in one line; pamqp's classes have no ``repr`` of their own."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, (Basic.Properties, base.Frame)):
        return f"{value.name}({', '.join(f'{name}={field!r}' for name, field in value if field not in (None, ''))})"
    return values.shortened(repr(value), 200)


def main(arguments: list[str]) -> int:
    """The command. Status 0: replayed to identical effects; 1: they differ; 2: usage, or not a journal (to its end: the
    last line of a process that was killed may be cut; how far it could be replayed is told)."""
    if len(arguments) != 2 or arguments[0] not in ("replay", "show"):
        print("usage: python -m eda_core.journal replay FILE   (or show FILE: print it line by line)", file=sys.stderr)
        return 2
    try:
        with open(arguments[1], encoding="utf-8") as file:
            return _replay_file(file, arguments[1], show=arguments[0] == "show")
    except (OSError, UnicodeDecodeError) as error:
        print(f"{arguments[1]}: {error}", file=sys.stderr)
        return 2


def _replay_file(lines: Iterable[str], path: str, *, show: bool) -> int:
    inputs = produced = 0
    status = 0
    try:
        for number, entry, made in replay(lines):
            if show:
                given = [_shown(revive(item)) for item in entry["arguments"]]
                given += [f"{name}={_shown(revive(item))}" for name, item in entry["named"].items()]
                print(f"{number}: {entry['input']}({', '.join(given)}) -> {_shown(revive(made))}")
            recorded = entry.get("raised", entry.get("effects"))
            if made != recorded:
                print(f"line {number}: {entry['input']} gave other effects", file=sys.stderr)
                print(f"  recorded: {json.dumps(recorded)}\n  replayed: {json.dumps(made)}", file=sys.stderr)
                return 1
            inputs += 1
            produced += len(made) if isinstance(made, list) else 0
    except JournalError as error:
        print(f"{path}: {error}", file=sys.stderr)
        status = 2
    print(f"replayed {inputs} inputs to {produced} identical effects")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
