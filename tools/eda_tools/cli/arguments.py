"""Parses arguments and reports in one line what is wrong. It does not know what they are for."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Any, Final, NoReturn

import shtab

from eda_core.errors import LocalError
from eda_core.urls import check_urls, redact
from eda_tools.cli.status import DONE, USAGE


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one line and finds positional arguments in any place.

    argparse does not always find them between options (bpo-15112), and never behind an option that takes any number of
    values, or an optional one: ``monitor.py --events A B amqp://host/``, ``inspect_queue.py URL --save queue``.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {redact(message)} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._positionals_first(arguments), namespace)

    def _positionals_first(self, arguments: list[str]) -> list[str]:
        known = self._option_string_actions
        if any(_is_option(word) and word.partition("=")[0] not in known for word in arguments):
            return arguments  # argparse reports an unknown option; "--" is one here, and says where options end
        positionals, options, doubtful = list[str](), list[str](), list[int]()
        rest = arguments[::-1]
        while rest:
            word = rest.pop()
            if not _is_option(word):
                positionals.append(word)
                continue
            options.append(word)
            nargs = known[word].nargs if word in known else 0
            if nargs is None and rest:
                options.append(rest.pop())
            most = {"?": 1, "*": len(rest)}.get(str(nargs), 0)
            for _ in range(most):
                if not rest or _is_option(rest[-1]) or (not positionals and _LOOKS_LIKE_URL.match(rest[-1])):
                    break
                if nargs == "?":
                    doubtful.append(len(options))
                options.append(rest.pop())
        wanted = sum(action.nargs is None for action in self._actions if not action.option_strings)
        if doubtful and len(positionals) == wanted - 1:
            positionals.append(options.pop(doubtful[-1]))
        return positionals + options


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


_LOOKS_LIKE_URL: Final = re.compile(r"amqps?://|-$", re.IGNORECASE)


def broker_urls(text: str) -> tuple[str, ...]:
    """The type of an argument: URLs of brokers, checked. ``-`` takes them from EDA_AMQP_URL."""
    origin = ""
    if text == "-":
        origin, text = "from EDA_AMQP_URL: ", os.environ.get("EDA_AMQP_URL", "")
        if not text:
            raise argparse.ArgumentTypeError("the broker's URL is '-', but EDA_AMQP_URL is not set")
    try:
        return check_urls([url.strip() for url in re.split(r",\s*(?=amqps?://)", text, flags=re.IGNORECASE)])
    except LocalError as error:
        raise argparse.ArgumentTypeError(f"{origin}{error}") from None


def url_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``amqp_url``; the checked URLs are ``args.urls``."""
    parser.add_argument(
        "urls",
        metavar="amqp_url",
        type=broker_urls,
        help="URL of the broker: amqp://user:password@host:5672/vhost or amqps://…; several, separated by commas, are "
        "tried in turn; '-' takes it from the environment variable EDA_AMQP_URL, so that no process list shows the "
        "password",
    )


def common_options(
    parser: argparse.ArgumentParser, *, timeout: float | None = None, json: str = "one JSON object per line"
) -> None:
    """Add ``--json`` (``args.json``), ``--timeout`` (``args.timeout``, seconds or None) and ``--color``."""
    parser.add_argument("--json", action="store_true", help=json)
    default = "none" if timeout is None else f"{timeout:g}"
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=timeout,
        metavar="SECONDS",
        help=f"end after this time, with status 124 (default: {default})",
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: colours on a terminal, unless NO_COLOR is set (default: %(default)s)",
    )


def seconds(text: str) -> float:
    """The type of an argument: seconds, more than 0."""
    return _number(text, "a number of seconds, more than 0", above=0)


def positive(text: str) -> int:
    """The type of an argument: a whole number, more than 0."""
    return int(_number(text, "a whole number, more than 0", above=0, whole=True))


def natural(text: str) -> int:
    """The type of an argument: a whole number, 0 or more."""
    return int(_number(text, "a whole number, 0 or more", above=-1, whole=True))


def rate(text: str) -> float:
    """The type of an argument: so many per second, more than 0."""
    return _number(text, "a number per second, more than 0", above=0)


def _number(text: str, wanted: str, *, above: float, whole: bool = False) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not above < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def completion_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--print-completion``."""
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        help="print a script that completes the command's words in this shell",
    )


class _PrintCompletion(argparse.Action):
    """Prints a script that completes the command's words. The shell evaluates it."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None) -> NoReturn:
        if " " in parser.prog:  # the script would complete the words of a command that does not exist
            parser.error(f"eda's script completes all of its tools: eda --print-completion {values}")
        _complete_files(parser)
        print(shtab.complete(parser, values))
        parser.exit(DONE)


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Let the shell complete the arguments that are names of files, also those of subcommands."""
    for action in parser._actions:
        if action.metavar in ("FILE", "DIR") or action.dest == "payload":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it
        if isinstance(action, argparse._SubParsersAction):
            for subcommand in action.choices.values():
                _complete_files(subcommand)
