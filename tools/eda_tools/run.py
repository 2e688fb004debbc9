"""``eda run MODULE:NAME …``: run services, each worker in a process of its own, and start again what dies.

This module has the command line and the signals. :mod:`eda_tools.running` starts and watches the processes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from eda_tools.cli.arguments import Parser, broker_urls, color_option, parser_of, positive, seconds
from eda_tools.cli.command import run_command
from eda_tools.cli.loading import split_path
from eda_tools.cli.output import Output
from eda_tools.cli.status import USAGE, ToolError
from eda_tools.cli.urls import URL_VARIABLE
from eda_tools.running.backoff import Backoff
from eda_tools.running.changes import Changes
from eda_tools.running.log import Log
from eda_tools.running.spans import check_file
from eda_tools.running.supervisor import Supervisor, workers_of

__all__ = ["arguments", "main", "parser"]

#: The signals that end all.
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
#: Seconds for the last lines of the log.
_LAST_LINES: Final = 3.0
#: How many workers there may be. Each is a process of about 30 MB.
_MOST_WORKERS: Final = 1000
_LARGEST_PORT: Final = 65535
_LEVELS: Final = ("debug", "info", "warning", "error")

_EPILOG: Final = """\
examples:

  eda run shop.orders:Orders
  eda run shop.orders:Orders shop.billing:Billing=3
  eda run --reload --log-level debug shop.orders:Orders
  eda run --traces spans.jsonl shop.orders:Orders
  eda run --health-port 8080 shop.orders:Orders=3

SIGINT, SIGTERM or SIGHUP stops all services as each stops by itself: handlers that run are finished. A second one stops
them at once.

Exit status: 0 stopped, or all services have ended by themselves; 1 a service raises an error when it is loaded, or a
worker did not stop in good order; 2 usage, or there is no such service; 130 stopped at once."""


def parser(prog: str | None = None) -> Parser:
    """A parser of the arguments of the command."""
    return parser_of(
        prog,
        "Run services, each worker in a process of its own. A worker that dies is started again. All that they write "
        "is one log on standard output.",
        _EPILOG,
        arguments,
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "services",
        nargs="+",
        type=_service,
        metavar="MODULE:NAME[=WORKERS]",
        help="a class of a service, which is made of the list of the broker's URLs; a function that takes that list "
        "and returns a service; or a service. The current directory is searched first",
    )
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="workers of each service (default: %(default)s)"
    )
    parser.add_argument(
        "--url",
        dest="urls",
        type=broker_urls,
        metavar="URL",
        help="the broker, or several, separated by commas: amqp://user:password@host:5672/vhost. The services find it "
        f"in the environment variable {URL_VARIABLE}, which is also the default, and which no list of processes shows",
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help="start all anew when a Python file below the current directory has changed",
    )
    parser.add_argument(
        "--reload-dir",
        dest="directories",
        action="append",
        metavar="DIR",
        help="with --reload, look into this directory instead; repeatable",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="json: one object per line (default: %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        choices=_LEVELS,
        default="info",
        help="what the services log to Python's logging (default: %(default)s)",
    )
    parser.add_argument(
        "--traces",
        metavar="FILE",
        help="trace the services with OpenTelemetry, and append each span that has ended to this file, as a line of "
        "JSON. It needs the extra [otel]",
    )
    parser.add_argument(
        "--restart-delay",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="until a worker that has died is started again. The delay doubles with each death, up to a minute, until "
        "the worker has run for a minute (default: %(default)g)",
    )
    parser.add_argument(
        "--health-port",
        type=positive,
        metavar="PORT",
        help="tell over HTTP how each worker does, at /live, /ready, /health and /metrics: the first worker at this "
        "port, the next one at the next port, and so on, in the order of the services",
    )
    parser.add_argument(
        "--health-host",
        metavar="HOST",
        help="the address for that; 0.0.0.0 and :: mean all addresses of this host (default: 127.0.0.1)",
    )
    color_option(parser)


def _service(text: str) -> tuple[str, int | None]:
    """The type of an argument: ``module:name`` and the number of workers, if there is one."""
    path, equals, count = text.partition("=")
    try:
        split_path(path)
    except ToolError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path, positive(count) if equals else None


def main(argv: Sequence[str] | None = None, prog: str = "eda run") -> int:
    """Run the command (see ``--help``). Returns the exit status."""
    return run_command(parser(prog), lambda args, output: asyncio.run(_run(args, output)), argv, json="log_format")


async def _run(args: argparse.Namespace, output: Output) -> int:
    services = {path: count or args.workers for path, count in args.services}
    urls = args.urls
    if urls is None and os.environ.get(URL_VARIABLE):
        urls = _urls_of_environment()
    workers = workers_of(services) if sum(services.values()) <= _MOST_WORKERS else []
    _check(args, len(workers))
    traces = check_file(args.traces) if args.traces else ""
    with Log(output, [worker.path for worker in workers], lambda: supervisor.stop()) as log:
        supervisor = Supervisor(
            workers,
            log,
            level=args.log_level.upper(),
            environment={URL_VARIABLE: ",".join(urls)} if urls else {},
            backoff=partial(Backoff, args.restart_delay, max(60.0, args.restart_delay)),
            changes=Changes(args.directories or ["."]) if args.reload else None,
            traces=traces,
            health=None if args.health_port is None else (args.health_host or "127.0.0.1", args.health_port),
        )
        _on_signals(supervisor.stop)
        try:
            status = await supervisor.run()
        finally:
            written = log.end(_LAST_LINES)
        if not written:  # nobody reads it: whatever is flushed at the end would wait for ever
            os._exit(status)
        return status


def _check(args: argparse.Namespace, workers: int) -> None:
    """Check what the parser cannot: arguments that belong together.

    Raises:
        ToolError: they do not. The text says why.
    """
    if not workers:
        raise ToolError(f"there are more than {_MOST_WORKERS:,} workers; give fewer for each service", USAGE)
    if args.health_port is None and args.health_host is not None:
        raise ToolError("--health-host is of no use without --health-port", USAGE)
    if args.health_port is not None and args.health_port + workers - 1 > _LARGEST_PORT:
        raise ToolError(f"--health-port {args.health_port}: the last of {workers} worker(s) has no port", USAGE)
    if args.directories and not args.reload:
        raise ToolError("--reload-dir is of no use without --reload", USAGE)
    for directory in args.directories or ():
        if not os.path.isdir(directory):
            raise ToolError(f"--reload-dir {directory}: there is no such directory", USAGE)


def _urls_of_environment() -> tuple[str, ...]:
    try:
        return broker_urls("-")
    except argparse.ArgumentTypeError as error:
        raise ToolError(str(error), 2) from None


def _on_signals(call: Callable[[], None]) -> None:
    """Let each signal call ``call`` in the running loop. What the process ignores stays ignored, as ``nohup`` wants."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        try:
            loop.add_signal_handler(number, call)
        except NotImplementedError:  # Windows
            with suppress(ValueError):
                signal.signal(number, partial(_from_handler, loop, call))


def _from_handler(loop: asyncio.AbstractEventLoop, call: Callable[[], None], *_: object) -> None:
    loop.call_soon_threadsafe(call)


if __name__ == "__main__":
    sys.exit(main())
