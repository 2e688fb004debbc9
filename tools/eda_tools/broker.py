"""``eda broker``: runs the embedded broker (:mod:`eda_core.testing.live.embedded`) until a signal ends it.

This module has the command line. It also exports ``EmbeddedBroker`` and ``EmbeddedBrokerThread``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from ssl import Purpose, SSLContext, create_default_context
from typing import Final

from eda_core.testing.broker.versions import NEWEST, VERSIONS
from eda_core.testing.live.embedded import (
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_POLICY,
    DEAD_LETTER_QUEUE,
    LOOPBACK,
    EmbeddedBroker,
    EmbeddedBrokerThread,
    operated_broker,
    report_fault,
)
from eda_core.testing.wire import GUEST
from eda_tools.cli.arguments import seconds
from eda_tools.cli.signals import Ending

__all__ = [
    "DEAD_LETTER_EXCHANGE",
    "DEAD_LETTER_POLICY",
    "DEAD_LETTER_QUEUE",
    "EmbeddedBroker",
    "EmbeddedBrokerThread",
    "arguments",
    "main",
    "operated_broker",
    "parser",
]

LOGGER: Final = logging.getLogger(__name__)


def _user(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not name or not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:PASSWORD")
    return name, password


def _short(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not between 0 and 65535")
    return number


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """A parser of the arguments of the command."""
    made = argparse.ArgumentParser(
        prog=prog,
        description="An AMQP 0-9-1 broker in one process, for trials, demos and tests. It keeps everything in memory "
        "and forgets it when it stops. In production use RabbitMQ.",
        epilog="When it is ready, it prints 'listening on amqp://HOST:PORT/' on standard output. Everything else goes "
        "to standard error. SIGINT, SIGTERM or SIGHUP stops it, a second one at once. Exit status: 0 stopped, 1 cannot "
        "listen or read the certificate, 2 usage, 130 stopped at once.",
    )
    arguments(made)
    return made


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="address to listen on (default: %(default)s, and ::1 where the machine has IPv6)",
    )
    parser.add_argument(
        "--port", type=_short, default=5672, help="port to listen on; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--user",
        type=_user,
        action="append",
        metavar="NAME:PASSWORD",
        help="a user who may log in; repeatable (default: guest:guest)",
    )
    parser.add_argument(
        "--vhost",
        action="append",
        metavar="NAME",
        help="a virtual host; repeatable (default: /). Every user may use all of them",
    )
    parser.add_argument(
        "--rabbitmq",
        choices=list(VERSIONS),
        default=NEWEST,
        help="the release of RabbitMQ to behave like (default: %(default)s)",
    )
    parser.add_argument(
        "--no-dead-letters",
        dest="dead_letters",
        action="store_false",
        help=f"do not set up the exchange {DEAD_LETTER_EXCHANGE}, the queue {DEAD_LETTER_QUEUE} and the policy for the "
        "queues of events and commands",
    )
    parser.add_argument(
        "--confirm-interval",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="collect confirms for so long, and send one for several publishes, as RabbitMQ does under load "
        "(default: each at once)",
    )
    parser.add_argument(
        "--heartbeat", type=_short, default=60, help="seconds proposed to clients; 0 is none (default: %(default)s)"
    )
    parser.add_argument("--certificate", metavar="FILE", help="speak TLS with this chain of certificates (PEM)")
    parser.add_argument("--key", metavar="FILE", help="the private key, if FILE of --certificate does not hold it")
    parser.add_argument("--verbose", action="store_true", help="report connections on standard error")


def _tls(args: argparse.Namespace) -> SSLContext | None:
    if args.certificate is None:
        return None
    context = create_default_context(Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate, args.key)
    return context


def _allow_many_files() -> None:
    """Each connection is an open file: allow as many as this process may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # macOS takes no unlimited number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(args: argparse.Namespace) -> int:
    asyncio.get_running_loop().set_exception_handler(report_fault)
    try:
        tls = _tls(args)
    except OSError as error:  # ssl.SSLError is one
        print(f"cannot read the certificate {args.certificate} and its key: {error}", file=sys.stderr)
        return 1
    broker = EmbeddedBroker(
        args.host,
        args.port,
        users=dict(args.user or GUEST.items()),
        dead_letters=args.dead_letters,
        vhosts=args.vhost or ("/",),
        version=args.rabbitmq,
        confirm_interval=args.confirm_interval,
        heartbeat=args.heartbeat,
        ssl=tls,
    )
    try:
        await broker.start()
    except OSError as error:
        print(f"cannot listen on {args.host} port {args.port}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"listening on {broker.address}", flush=True)
    try:
        await asyncio.Event().wait()  # until a signal cancels it
    finally:
        LOGGER.info("stopping")
        await broker.stop()
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "python -m eda_tools.broker") -> int:
    """Run the command (see ``--help``). Returns the exit status."""
    args = parser(prog).parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if args.verbose else logging.WARNING, format="%(asctime)s %(message)s"
    )
    _allow_many_files()
    with Ending() as ending, contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        return asyncio.run(ending.watched(_serve(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
