"""Writes Mermaid diagrams (https://mermaid.js.org) and escapes text from the network. It decides no content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from eda_tools.cli.output import Output, safe
from eda_tools.diagrams.conversation import Step
from eda_tools.messages.show import shortened

#: Characters of a name, and of a label, which is a name and some words.
_LONGEST: Final = 80
_LABEL: Final = 160
#: The largest diagram that a page draws by default: Mermaid's maxTextSize, and maxEdges of flowcharts.
MAX_TEXT: Final = 50_000
MAX_EDGES: Final = 500
SEQUENCE: Final = "sequenceDiagram"
#: Characters that are not escaped, besides letters and digits.
_PLAIN: Final = frozenset(" ._-/,()*")
#: A word that ends a diagram wherever it stands.
_KEYWORD: Final = re.compile(r"\b(end)\b", re.IGNORECASE)


def text(value: object) -> str:
    """``value`` as a label."""
    shown = shortened(safe(value), _LABEL)
    escaped = "".join(
        character if character.isalnum() or character in _PLAIN else f"#{ord(character)};" for character in shown
    )
    return _KEYWORD.sub(lambda found: f"#{ord(found[1][0])};{found[1][1:]}", escaped.strip()) or "#32;"


def too_large(lines: Sequence[str]) -> str:
    """Why pages would not draw these lines, of which each has one arrow at most; "" if they would."""
    size, arrows = sum(len(line) + 1 for line in lines), sum("->" in line for line in lines)
    if size <= MAX_TEXT and (arrows <= MAX_EDGES or lines[0] == SEQUENCE):
        return ""
    return (
        f"{size:,} characters and {arrows:,} arrows: pages draw no more than {MAX_TEXT:,} and, in flowcharts, "
        f"{MAX_EDGES} unless they set Mermaid's maxTextSize and maxEdges higher"
    )


def show(lines: Sequence[str], output: Output) -> None:
    """Print a diagram, and say if it is too large for most pages."""
    for line in lines:
        output.print(line)
    reason = too_large(lines)
    if reason:
        output.note(reason)


class Names:
    """Short identifiers for any names: ``s1``, ``s2`` …"""

    def __init__(self, letter: str) -> None:
        self._letter = letter
        self._ids: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        return self._ids.setdefault(name, f"{self._letter}{len(self._ids) + 1}")

    def items(self) -> Iterable[tuple[str, str]]:
        """The names and their identifiers, in the order in which they were asked for."""
        return self._ids.items()


def sequence(steps: Sequence[Step]) -> Iterator[str]:
    """A conversation as the lines of a sequence diagram.

    An event goes to the services that act on it, or to its exchange if there are none. An arrow is dotted, and its
    label says so, if the cause of its message is inferred.
    """
    participants = Names("p")
    arrows = [arrow for step in steps for arrow in _arrows(step, participants)]
    yield SEQUENCE
    for name, identifier in participants.items():
        yield f"    participant {identifier} as {text(name)}"
    yield from (f"    {arrow}" for arrow in arrows)


def _arrows(step: Step, participants: Names) -> Iterator[str]:
    sender = participants[step.service or "unknown"]
    label = f"{step.number}. {step.kind} {shortened(safe(step.name), _LONGEST)}"
    if step.text("status"):
        label += f" {step.text('status')}"
    if step.cause is not None:
        label += f" (after {step.cause.number}{', inferred' if step.inferred else ''})"
    elif step.unseen:
        label += " (cause not seen)"
    for receiver in _receivers(step):
        yield f"{sender}{'-->>' if step.inferred else '->>'}{participants[receiver]}: {text(label)}"


def _receivers(step: Step) -> Iterable[str]:
    if step.addressee:
        return (step.addressee,)
    acting = dict.fromkeys(effect.service for effect in step.effects if effect.service)
    return acting or (f"({step.text('exchange') or 'no exchange'})",)
