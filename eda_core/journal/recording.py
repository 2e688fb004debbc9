"""A machine that writes every input to a journal, with its time, its random numbers and its effects.

It decides nothing that the machine does not decide, and does not know where the lines are kept.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from eda_core.errors import BufferFull, PayloadError
from eda_core.journal.values import plain, refused, shown_fields, without_password
from eda_core.machine.config import Config
from eda_core.machine.effects import Effect
from eda_core.machine.logs import WallOffset
from eda_core.machine.machine import Machine
from eda_core.messages.codec import without_models_for
from eda_core.messages.values import AnyMessage

VERSION: Final = 1

#: The methods of a machine that are inputs.
INPUTS: Final = (
    "start",
    "link_up",
    "declared",
    "link_down",
    "channel_closed",
    "channel_opened",
    "alive",
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
    "collected",
    "identify",
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

#: Inputs with a message, or with a payload, to publish, and where it stands among the arguments.
_PAYLOADS: Final = {"publish": 0, "call": 1}

#: Inputs with a text of the driver's. It may quote a URL with a password.
_WITH_REASONS: Final = ("link_down", "channel_closed", "effect_failed")


class RecordingMachine(Machine):
    """A machine that writes a journal.

    Args:
        write: takes one line, without the line end. It must not raise: a service does not stop because its journal
            cannot be written.
    """

    def __init__(
        self,
        config: Config,
        *,
        random: Callable[[], float],
        token: str,
        wall_offset: WallOffset,
        write: Callable[[str], None],
    ) -> None:
        self._source = random
        self._drawn: list[float] = []
        self._read_offset = wall_offset
        self._offsets: list[float] = []
        self._write = write
        self._nested = False
        super().__init__(config, random=self._draw, token=token, wall_offset=self._offset)
        machine = {"config": plain(config), "token": token, "wall_offset": self._offsets.pop()}
        write(json.dumps({"journal": VERSION, "machine": machine}))

    def _draw(self) -> float:
        number = self._source()
        self._drawn.append(number)
        return number

    def _offset(self) -> float:
        self._offsets.append(self._read_offset() if callable(self._read_offset) else self._read_offset)
        return self._offsets[-1]

    def record(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> list[Effect]:
        """Make an input and write it to the journal, unless another input makes it: then a replay makes it, too."""
        method = getattr(super(), name)
        if self._nested:
            return method(*arguments, **named)  # type: ignore[no-any-return]
        if name in _PAYLOADS:
            arguments = self._without_models(_PAYLOADS[name], arguments)
        entry: dict[str, Any] = {"input": name}
        self._nested = True
        try:
            made: list[Effect] = method(*arguments, **named)
            entry["effects"] = plain(made)
        except Exception as error:
            entry["raised"] = type(error).__name__
            if not isinstance(error, BufferFull):  # that is checked last, so the arguments are valid
                arguments = tuple(map(refused, arguments))
                named = {key: refused(value) for key, value in named.items()}
            raise
        finally:
            self._nested = False
            if "fields" in named:
                named = named | {"fields": shown_fields(named["fields"])}
            if name in _WITH_REASONS:
                arguments = tuple(map(without_password, arguments))
                named = {key: without_password(value) for key, value in named.items()}
            entry |= {"arguments": plain(arguments), "named": plain(named), "random": self._drawn.copy()}
            if self._offsets:
                entry["wall_offsets"] = self._offsets.copy()
            self._drawn.clear()
            self._offsets.clear()
            self._write(json.dumps(entry))
        return made

    def _without_models(self, place: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with a plain payload: a replay knows no models. The machine refuses what has none."""
        given = arguments[place]
        with suppress(PayloadError):
            if isinstance(given, AnyMessage):
                given = replace(given, payload=without_models_for(given.payload, self._content_type))
            else:
                given = without_models_for(given, self._content_type)
        return (*arguments[:place], given, *arguments[place + 1 :])


def _recorded(name: str) -> Callable[..., list[Effect]]:
    @functools.wraps(getattr(Machine, name))
    def record(self: RecordingMachine, *arguments: Any, **named: Any) -> list[Effect]:
        return self.record(name, arguments, named)

    return record


for _name in INPUTS:
    setattr(RecordingMachine, _name, _recorded(_name))
