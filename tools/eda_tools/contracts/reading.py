"""Reads the contracts of the services that a command line names, and the recording beside them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Final

from eda_core.messages.envelope import InvalidEnvelope
from eda_core.messages.values import AnyMessage
from eda_tools.cli.loading import split_path
from eda_tools.cli.status import ToolError
from eda_tools.cli.urls import URL_VARIABLE, split_urls
from eda_tools.contracts.facts import Contract, contract_of
from eda_tools.messages.recording import read_recording
from eda_tools.running.worker import make_service

#: A service is made, but not run. So it needs a URL, and no broker.
_ANY_URL: Final = "amqp://localhost/"


def service_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which services are meant."""
    parser.add_argument(
        "services",
        nargs="+",
        type=_path,
        metavar="MODULE:NAME",
        help="a class of a service, a function that takes the list of URLs and returns a service, or a service, as for "
        "eda run. It is made, and not run: no broker is needed. The current directory is searched first",
    )
    parser.add_argument(
        "--observed",
        metavar="FILE",
        help="a recording of eda monitor: what the services have sent in it counts, too",
    )


def _path(text: str) -> str:
    """The type of an argument: ``module:name``."""
    try:
        split_path(text)
    except ToolError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def read_recorded(recording: str | None) -> list[AnyMessage]:
    """Return the valid messages of a recording; none if there is no recording.

    Raises:
        ToolError: it cannot be read. The text says why.
    """
    deliveries = () if recording is None else read_recording(recording)
    opened = (each.opened() for each in deliveries)
    return [each for each in opened if not isinstance(each, InvalidEnvelope)]


def read_contracts(paths: Sequence[str], observed: Sequence[AnyMessage]) -> list[Contract]:
    """Return the contracts of services, in order.

    Args:
        observed: the messages of a recording.

    Raises:
        ToolError: a service cannot be made. The text says why.
    """
    urls = split_urls(os.environ.get(URL_VARIABLE) or _ANY_URL)
    return [contract_of(path, make_service(path, urls), observed) for path in dict.fromkeys(paths)]
