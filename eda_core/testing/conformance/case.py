"""All checks, and how to run them against a transport. It chooses; ``running`` does the work, and is loaded for it."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eda_core.errors import LocalError
from eda_core.testing.conformance import faults, messages, settling
from eda_core.testing.conformance.script import Check, MakeSubject

if TYPE_CHECKING:
    from eda_core.testing.live.rabbitmq import RabbitNode
    from eda_core.testing.live.vhosts import RabbitVhost

#: All checks, the most basic ones first.
CHECKS: Final[tuple[Check, ...]] = (*messages.MESSAGES, *settling.SETTLING, *faults.FAULTS)

#: Where handlers run in the thread of the network, a lost link is noticed when they have ended.
_NEEDS_THREADS: Final = frozenset({"a_handler_that_runs_goes_on_after_a_lost_link"})


@dataclass(frozen=True, slots=True)
class Case:
    """A check of one transport, ready to run. ``conformance.cases`` makes it.

    Attributes:
        check: the check.
        service: the class of the services, or a function that makes subjects.
        threads: the ``HANDLER_THREADS`` of the services, where handlers are plain functions.
    """

    check: Check
    service: type[Any] | MakeSubject
    threads: int = 0

    @property
    def __name__(self) -> str:
        """The name of the check. pytest takes it for the id of the test."""
        return self.check.name

    def run(self, broker: RabbitVhost | None = None) -> None:
        """Run the check.

        Args:
            broker: an empty vhost, with the dead-letter policy, of a node that the check may kill; the fixture
                ``eda_rabbitmq`` gives one. By default the check has an embedded broker of its own.

        Raises:
            NotConforming: the transport does not do what is promised.
        """
        from eda_core.testing.conformance.running import performing

        performing.run(self.check, self.service, self.threads, broker)


def cases(service: type[Any] | MakeSubject, *, threads: int = 0, without: Collection[str] = ()) -> list[Case]:
    """The checks as cases of a test, for ``pytest.mark.parametrize``. :meth:`Case.run` runs one.

    Args:
        service: the class that the services of the transport derive from; or a function that makes subjects, if these
            services are neither like ``CoroutineService`` nor like ``CallbackService``.
        threads: the ``HANDLER_THREADS`` of the services, for handlers that are plain functions.
        without: names of checks to leave out.

    Raises:
        LocalError: there is no check of a name in ``without``.
    """
    left_out = {*without}
    unknown = left_out - {check.name for check in CHECKS}
    if unknown:
        raise LocalError(
            f"there is no check {min(unknown)!r}", hint="the names are those of eda_core.testing.conformance.CHECKS"
        )
    if isinstance(service, type) and not inspect.iscoroutinefunction(service.run) and not threads:
        left_out |= _NEEDS_THREADS
    return [Case(check, service, threads) for check in CHECKS if check.name not in left_out]


def check(
    service: type[Any] | MakeSubject,
    *,
    broker: RabbitNode | None = None,
    threads: int = 0,
    without: Collection[str] = (),
) -> None:
    """Run all checks, one after the other.

    Args:
        service: as for :func:`cases`.
        broker: a node of RabbitMQ that runs, and that the checks may kill. By default it is the embedded broker.
        threads: as for :func:`cases`.
        without: names of checks to leave out.

    Raises:
        ExceptionGroup: some checks have failed. It has a ``NotConforming`` or another exception for each, whose
            note names the check.
        LocalError: there is no check of a name in ``without``.
    """
    from eda_core.testing.conformance.running import performing

    chosen, failures = cases(service, threads=threads, without=without), []
    with performing.vhosts(broker) as next_vhost:
        for case in chosen:
            try:
                case.run(next_vhost())
            except Exception as error:
                error.add_note(f"in the check {case.check.name}: {case.check.why}")
                failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(chosen)} checks have failed", failures)
