"""Notices commands that are answered twice, or that no handler answers.

It decides what is worth a warning, and how often. It does not know how results are published.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeVar

from eda_core.drivers.handling import Run
from eda_core.messages.values import Command, Result

K = TypeVar("K")
V = TypeVar("V")

#: How many commands without an answer, and how many of their names, are remembered.
REMEMBERED: Final = 1000


class Answers:
    """The commands of one service that their handlers did not answer.

    Some services answer later: from a timer, or from the handler of another message. When that is seen for a command,
    nothing is said about commands of its name any more.
    """

    def __init__(self) -> None:
        #: The names of the commands that are not answered, by what their results must have.
        self._open: OrderedDict[tuple[str, str], str] = OrderedDict()
        #: How many commands of a name were not answered; 0 if they are answered later.
        self._counts: OrderedDict[str, int] = OrderedDict()

    def published(self, run: Run | None, result: Result) -> str:
        """Note a result that ``run`` has published. Return a warning; "" if there is nothing to say."""
        key = (result.name, result.correlation_id)
        name = self._open.pop(key, None)
        if name is not None:
            self._counts[name] = 0
        command = None if run is None else run.message
        if run is None or not isinstance(command, Command) or key != (command.reply_to, command.correlation_id):
            return ""
        run.answers += 1
        if run.answers == 1:
            return ""
        return f"{run.name()} has published {run.answers} results of one command {command.name}; answer a command once"

    def ended(self, run: Run, command: Command) -> str:
        """Note that a handler has ended without an answer. Return a warning; "" if there is nothing to say."""
        count = self._counts.get(command.name, 0) + 1
        if count == 1 and command.name in self._counts:  # it is answered later
            return ""
        _remember(self._counts, command.name, count)
        _remember(self._open, (command.reply_to, command.correlation_id), command.name)
        if count & (count - 1):  # 1, 2, 4, 8 … are enough
            return ""
        times = f" ({count} times so far)" if count > 1 else ""
        return (
            f"{run.name()} has not answered the command {command.name}{times}; return the result, or call "
            "return_success() or return_error(); to answer later, return True, and acknowledge the message then"
        )


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
