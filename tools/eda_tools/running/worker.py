"""One worker of ``eda run``: ``python -m eda_tools.running.worker LEVEL MODULE:NAME [WATCHED]`` runs a service.

WATCHED is a JSON object of the arguments ``traces`` and ``health`` of :func:`serve`, both lists of texts.

The service is run as a program of its own would run it. This module decides how it is made, and how it is seen from
outside: by its traces (:mod:`eda_otel`) and its health (:mod:`eda_probe`). It tells the supervisor on standard error
(:mod:`eda_tools.running.records`) what the service logs, and whether it could be made.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from eda_core.errors import EdaError, LocalError
from eda_core.services import ServiceApi
from eda_core.urls import redact
from eda_probe import HealthServer
from eda_tools.cli.loading import load_object
from eda_tools.cli.status import DONE, FAILED, USAGE, ToolError
from eda_tools.cli.urls import URL_VARIABLE, split_urls
from eda_tools.running import records
from eda_tools.running.spans import trace_into

LOGGER: Final = logging.getLogger("eda_tools.run")


class RecordHandler(logging.Handler):
    """Writes the records of ``logging`` for the supervisor."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            records.write(records.LOG, fields_of(record))
        except OSError:  # there is no supervisor any more
            pass
        except Exception:
            self.handleError(record)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What is shown of a log record."""
    fields: dict[str, Any] = {
        "time": record.created,
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
    }
    event = getattr(record, "eda_event", None)
    if event is not None:
        fields["event"] = event
    if record.exc_info and record.exc_info[1] is not None:
        fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
    return fields


def make_service(path: str, urls: Sequence[str]) -> ServiceApi[Any]:
    """Load what ``module:name`` names, and make a service of it.

    It may be a service, or what makes one: a class or a function, which is given a list of the broker's URLs.

    Args:
        urls: may be empty, if they are not needed.

    Raises:
        ToolError: it cannot be loaded, or no service comes of it. The text says why, and what to do.
    """
    with _nothing_runs(path.partition(":")[0]):
        found = load_object(path)
    if isinstance(found, ServiceApi):
        return found
    if not callable(found) or (isinstance(found, type) and not issubclass(found, ServiceApi)):
        raise ToolError(f"{path} is no service; {_WHAT}", USAGE)
    made = _made(path, found, urls)
    if isinstance(made, ServiceApi):
        return made
    if inspect.iscoroutine(made):
        made.close()
        raise ToolError(f"{path} is a coroutine function; make it a plain function that returns the service", USAGE)
    raise ToolError(f"{path} returns {type(made).__name__}, which is no service; {_WHAT}", USAGE)


@contextmanager
def _nothing_runs(module: str) -> Iterator[None]:
    """In the block, refuse that a service runs: one that a module runs while it is imported would never be ours."""

    def refuse(service: Any, make: Any) -> NoReturn:
        raise LocalError(
            f"a service is run while {module} is imported", hint='put that under if __name__ == "__main__":'
        )

    usual = ServiceApi.begin_run
    ServiceApi.begin_run = refuse  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        ServiceApi.begin_run = usual  # type: ignore[method-assign]


_WHAT: Final = (
    "name a class that derives from the Service of eda_aio or eda_pika, a function that takes the list of URLs and "
    "returns a service, or a service"
)


def _made(path: str, make: Any, urls: Sequence[str]) -> Any:
    arguments = () if not isinstance(make, type) and _fits(make) is None else (list(urls),)
    wrong = _fits(make, *arguments)
    if wrong is not None:
        name = path.rpartition(":")[2]
        raise ToolError(
            f"{path} cannot be made from the URLs alone: {wrong}; give it a constructor that takes only them, or name "
            f"a function: def make(urls): return {name}(urls, …)",
            USAGE,
        )
    if arguments and not urls:
        raise ToolError(
            f"no broker: give --url, or set the environment variable {URL_VARIABLE}, which no list of processes shows",
            USAGE,
        )
    try:
        return make(*arguments)
    except LocalError as error:
        raise ToolError(f"{path}: {error}", USAGE) from None
    except Exception as error:
        raise ToolError(f"{path} cannot be made: {type(error).__name__}: {error}", FAILED) from error


def _fits(make: Any, *arguments: Any) -> str | None:
    """What is wrong with these arguments, if Python can tell."""
    try:
        inspect.signature(make).bind(*arguments)
    except TypeError as error:
        return str(error)
    except ValueError:  # it has no signature
        pass
    return None


def serve(
    path: str, urls: Sequence[str], *, traces: Sequence[str] | None = None, health: Sequence[str] | None = None
) -> int:
    """Make a service and run it to its end. Returns the exit status.

    Args:
        traces: the file for its spans, and its name in them; ``None`` if there are none.
        health: the address and the port at which it tells how it does; ``None`` if it does not.
    """
    try:
        service: Any = make_service(path, urls)
        if traces is not None:
            file, worker = traces
            trace_into(file, worker, service)
        if health is not None:
            host, port = health
            _tell_health(path, service, host, int(port))
    except ToolError as error:
        cause = error.__cause__
        records.write(
            records.FAULT,
            {
                "message": redact(str(error)),
                "status": error.status,
                "traceback": "".join(traceback.format_exception(cause)).rstrip() if cause is not None else "",
            },
        )
        return error.status
    stop_within = service.STOP_TIMEOUT + service.CLOSE_TIMEOUT
    records.write(records.MADE, {"service": service.logical_service, "stop_within": stop_within})
    try:
        running = service.run()
        if inspect.iscoroutine(running):
            asyncio.run(running)
    except EdaError as error:
        LOGGER.error("%s: %s", type(error).__name__, error)
        return FAILED
    except Exception:
        LOGGER.critical("the service has failed", exc_info=True)
        return FAILED
    return DONE


def _tell_health(path: str, service: ServiceApi[Any], host: str, port: int) -> None:
    try:
        HealthServer(service, port, host)
    except LocalError as error:
        raise ToolError(f"{path}: its health cannot be told: {error}", USAGE) from None


def _be_a_program() -> None:
    """Undo what ``eda_tools`` has prepared for a tool: signals are the service's."""
    sys.excepthook = sys.__excepthook__
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "" not in sys.path and os.getcwd() not in sys.path:  # also for modules that are imported later
        sys.path.insert(0, os.getcwd())


def _stop_without_supervisor() -> None:
    """Ask the service to stop when the supervisor is gone, whose end of the pipe is then closed."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the worker. Returns the exit status."""
    level, path, *more = sys.argv[1:] if argv is None else argv
    watched: dict[str, Any] = json.loads(more[0]) if more else {}
    _be_a_program()
    threading.Thread(target=_stop_without_supervisor, name="eda run", daemon=True).start()
    logging.basicConfig(level=level, handlers=[RecordHandler()])
    return serve(path, split_urls(os.environ.get(URL_VARIABLE, "")), **watched)


if __name__ == "__main__":
    sys.exit(main())
