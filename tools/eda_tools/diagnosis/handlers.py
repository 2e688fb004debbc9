"""Tells which subscriptions a service's class has no handler for. It loads the class and makes no instance of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from eda_core.machine.outcomes import PACKAGES
from eda_core.messages.routing import COMMANDS, EVENTS, queue_name
from eda_core.services.handlers import Handlers, handler_of
from eda_tools.cli.loading import load_object
from eda_tools.cli.status import USAGE, ToolError
from eda_tools.diagnosis.facts import Binding

#: The methods by which a class takes any message, by exchange.
_OWN: Final = {EVENTS: ("handle", "handle_event"), COMMANDS: ("handle", "handle_command", "handle_result")}


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """A service and the class of its workers, as ``module:Class``."""

    service: str
    path: str


def service_class(text: str) -> ServiceClass:
    """The type of an argument: ``SERVICE=module:Class``."""
    service, equals, path = text.partition("=")
    module, colon, name = path.partition(":")
    if not (service and equals and module and colon and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not SERVICE=module:Class")
    return ServiceClass(service, path)


def load(found: ServiceClass) -> type[Handlers]:
    """Import the class. The current directory is searched first, as ``python -m`` does.

    Raises:
        ToolError: it cannot be imported, or is no class of a service.
    """
    loaded = load_object(found.path)
    if not isinstance(loaded, type) or not issubclass(loaded, Handlers):
        raise ToolError(f"{found.path} is no class of a service", USAGE)
    return loaded


def unhandled(service: str, loaded: type[Handlers], bindings: Iterable[Binding]) -> Iterator[tuple[str, str, str]]:
    """The bindings of the service's queues for which the class has no method ``on_<Name>``: service, queue and key.

    Nothing is said of keys with wildcards, and of a class that has a method of its own for messages of any name.
    """
    for exchange, methods in _OWN.items():
        if any(getattr(loaded, name) is not getattr(_defaults(loaded), name) for name in methods):
            continue
        queue = queue_name(service, exchange)
        for binding in bindings:
            if (binding.source, binding.destination) != (exchange, queue) or not binding.to_queue:
                continue
            name = binding.key.rpartition(".")[2]
            if not set(binding.key) & set("*#") and not handler_of(loaded, name):
                yield service, queue, binding.key


def _defaults(loaded: type[Handlers]) -> type:
    """The class of an adapter, or of the core, from which ``loaded`` derives."""
    return next((each for each in loaded.__mro__ if each.__module__.partition(".")[0] in PACKAGES), Handlers)
