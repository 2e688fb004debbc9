"""The kinds of services that the harness puts through the scenarios. A new transport is one more entry."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Names the Python interpreter of an environment with eventail[synchronous]; without it eventail is left out.
EVENTAIL = "EDA_EVENTAIL_PYTHON"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of service.

    Attributes:
        name: of the logical service, of its queues and its events.
        title: in the table.
        program: the module in ``tests/faults/services``.
        attributes: of the class of the service.
        handles: it handles jobs; else it only publishes.
        theirs: it runs on eventail.
    """

    name: str
    title: str
    program: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    handles: bool = True
    theirs: bool = False

    @property
    def job(self) -> str:
        """The event that it handles."""
        return "Job"

    @property
    def done(self) -> str:
        """The event that it publishes for each job."""
        return f"{self.name.capitalize()}Done"

    @property
    def queue(self) -> str:
        """The queue of its events."""
        return f"{self.name}.events"

    @property
    def witness(self) -> str:
        """The queue of the harness that gets what it publishes."""
        return f"witness.{self.name}"

    @property
    def python(self) -> str:
        """The interpreter that runs it; empty if it is not there."""
        return os.environ.get(EVENTAIL, "") if self.theirs else sys.executable


KINDS = (
    Kind("aio", "eda_aio", "on_aio"),
    Kind("native", "eda_aio, native", "on_aio", {"TRANSPORT": "native"}),
    Kind("pika", "eda_pika", "on_pika"),
    Kind("threads", "eda_pika, 4 threads", "on_pika", {"HANDLER_THREADS": 4}),
    Kind("custom", "the transport of examples/", "on_custom"),
    Kind("kombu", "eda_kombu", "on_kombu", handles=False),
    Kind("eventail", "eventail", "on_eventail", theirs=True),
    Kind("endpoint", "eventail, synchronous", "on_eventail_endpoint", handles=False, theirs=True),
)


def chosen(names: Iterable[str] = ()) -> list[Kind]:
    """The kinds of these names, or all that can run here. Raises ValueError for an unknown name, or no eventail."""
    known = {kind.name: kind for kind in KINDS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no kind of service is called {unknown[0]!r}: choose from {', '.join(known)}")
    kinds = [known[name] for name in names]
    if missing := [kind.name for kind in kinds if not kind.python]:
        raise ValueError(f"{missing[0]} needs eventail: set {EVENTAIL} to the Python of an environment with it")
    return kinds or [kind for kind in KINDS if kind.python]
