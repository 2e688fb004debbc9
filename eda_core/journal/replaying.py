"""Feeds the inputs of a journal to a new machine.

It decides which lines are valid. It does not compare the effects that come out with those in the journal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from eda_core.journal.recording import INPUTS, VERSION
from eda_core.journal.values import SET, JournalError, in_order, plain, restore
from eda_core.machine.machine import Machine


def replay(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any], Any]]:
    """Feed a journal to a new machine.

    Args:
        lines: of the journal, in order.

    Yields:
        For each input: the number of its line, from 1; the object on that line; and the effects that came out now, as
        JSON values. They equal the recorded ones if the machine still decides as it did. If the input raises, its
        effects are the name of the exception.

    Raises:
        JournalError: a line is not of a journal.
    """
    numbered = enumerate(lines, 1)
    number, line = next(numbered, (1, ""))
    draws: list[float] = []
    offsets: list[float] = []
    machine = _machine(_parse(number, line), draws, offsets)
    for number, line in numbered:
        entry = _parse(number, line)
        try:
            draws[:], offsets[:] = entry["random"], entry.get("wall_offsets", ())
            arguments, named = [*restore(entry["arguments"])], {**restore(entry["named"])}
            method = getattr(machine, entry["input"] if entry["input"] in INPUTS else "")
        except Exception as error:
            raise JournalError(f"line {number} cannot be read: {_why(error)}") from error
        try:
            made = plain(method(*arguments, **named))
        except JournalError as error:
            raise JournalError(f"line {number}: {error}") from None
        except Exception as error:  # one that was recorded, or any if the file was changed
            made = type(error).__name__
        if SET in line:
            entry, made = in_order(entry), in_order(made)
        yield number, entry, made


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _machine(header: dict[str, Any], draws: list[float], offsets: list[float]) -> Machine:
    if header.get("journal") != VERSION:
        raise JournalError(f"line 1 is not the head of a journal of version {VERSION}")

    def draw() -> float:
        if not draws:
            raise JournalError("the machine draws a random number, and drew none here when it was recorded")
        return draws.pop(0)

    def wall_offset() -> float:
        return offsets.pop(0) if offsets else first

    try:
        made = header["machine"]
        first = float(made["wall_offset"])
        return Machine(restore(made["config"]), random=draw, token=made["token"], wall_offset=wall_offset)
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
