"""Which services are simulated, and what their constructors are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from eda_core.errors import LocalError

#: The URL that services are given. Nothing is there.
URL: Final = "amqp://simulated/"


class Deployed:
    """A service class in a simulation, with what its constructor needs beside the URLs of the broker.

    Args:
        service: the class, or a function that takes a list of URLs and returns a service.
        workers: how many workers it has; ``None`` for as many as :func:`eda_core.testing.simulation.simulate` says.
        given: for each further parameter of the constructor, by name, a function that makes what is passed. It is
            called once in each run, and all workers get the same object, also those that are started anew: it is what
            outlives a worker, such as a database.
    """

    def __init__(self, service: Callable[..., Any], workers: int | None = None, /, **given: Callable[[], Any]) -> None:
        self.service = service
        self.workers = workers
        self.given = given
        for name, make in given.items():
            if not callable(make):
                raise LocalError(
                    f"{_name(service)}: {name} is {make!r}, which no run may share with another",
                    hint=f"give a function that makes it, such as {name}=dict",
                )
        self._check()

    def _check(self) -> None:
        try:
            inspect.signature(self.service).bind([URL], **dict.fromkeys(self.given))
        except TypeError as error:
            raise LocalError(
                f"{_name(self.service)} cannot be made in a simulation: {error}",
                hint="say what its constructor is given beside the URLs: Deployed(Archive, store=dict)",
            ) from None
        except ValueError:  # it has no signature that Python could read
            pass

    @staticmethod
    def of(service: Deployed | Callable[..., Any]) -> Deployed:
        """Return the argument, or what is meant by a mere class."""
        return service if isinstance(service, Deployed) else Deployed(service)


def _name(service: Any) -> str:
    return getattr(service, "__name__", repr(service))
