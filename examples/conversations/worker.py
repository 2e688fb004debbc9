"""What the commands of this package have in common: where the broker is, and how to say that a worker is ready."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Final

URL_VARIABLE = "EDA_AMQP_URL"
#: The exchange to which the services publish what they give up, with the reason; by default they reject it.
DEAD_LETTERS: Final = os.environ.get("DEAD_LETTER_EXCHANGE", "")


def add_url_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "url",
        nargs="?",
        default=os.environ.get(URL_VARIABLE),
        help=f"the broker; default: the environment variable {URL_VARIABLE}, which keeps its password out of sight",
    )


def required_url(parser: ArgumentParser, url: str | None) -> str:
    if not url:
        parser.error(f"no broker: give its URL, or set {URL_VARIABLE}")
    return url


def say_ready() -> None:
    """Tell whoever has started this worker that it consumes."""
    print("ready", flush=True)


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
