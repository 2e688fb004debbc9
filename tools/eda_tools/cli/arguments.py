"""Parses arguments and reports in one line what is wrong. It does not know what they are for."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

import shtab

from eda_core._version import __version__
from eda_core.errors import LocalError
from eda_core.messages.routing import TopicPattern
from eda_core.urls import check_urls, redact
from eda_tools.cli.status import DONE, USAGE, ToolError
from eda_tools.cli.urls import URL_VARIABLE, split_urls


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one line and finds positional arguments in any place.

    argparse does not always find them between options (bpo-15112), and never behind an option that takes any number of
    values, or an optional one: ``monitor.py --events A B amqp://host/``, ``inspect_queue.py URL --save queue``.

    The argument of :func:`url_argument` may be left out. The first positional argument is the URL if it is ``-`` or
    contains ``://``. Otherwise the URL is that of EDA_AMQP_URL, if this is set.
    """

    #: The argument that :func:`url_argument` has added.
    url: argparse.Action | None = None
    _url_left_out = False

    def error(self, message: str) -> NoReturn:
        if self._url_left_out and re.match("unrecognized arguments: [^-]", message):
            message += "; amqp_url is that of EDA_AMQP_URL, because the first argument is no URL"
        if message.startswith("the following arguments are required: amqp_url"):
            message = message.replace("amqp_url", f"amqp_url (or set {URL_VARIABLE})")
        self.exit(USAGE, f"{self.prog}: {redact(message)} (see {self.prog} --help)\n")

    def format_usage(self) -> str:
        return self._with_optional_url(super().format_usage())

    def format_help(self) -> str:
        return self._with_optional_url(super().format_help())

    def _with_optional_url(self, text: str) -> str:
        return text if self.url is None else re.sub(r"(?<=[\s])amqp_url\b", "[amqp_url]", text, count=1)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._positionals_first(arguments), namespace)

    def _stands_for_url(self, positionals: list[str]) -> str | None:
        """The word to insert where ``positionals`` have no URL, or ``None``."""
        if self.url is None or (positionals and _LOOKS_LIKE_URL.search(positionals[0])):
            return None
        self._url_left_out = bool(os.environ.get(URL_VARIABLE))
        if self._url_left_out:
            return "-"
        return _NO_URL if self.url.nargs == "?" else None

    def _positionals_first(self, arguments: list[str]) -> list[str]:
        known = self._option_string_actions
        for word in arguments:
            if isinstance(known.get(word), (argparse._HelpAction, argparse._VersionAction)):
                return [word]  # whatever else is wrong
        unknown = any(_is_option(word) and word.partition("=")[0] not in known for word in arguments if word != "--")
        words, literal = arguments, list[str]()
        if "--" in arguments:  # says where options end
            words, literal = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
        positionals, options, doubtful = list[str](), list[str](), list[int]()
        rest = words[::-1]
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
                if not rest or _is_option(rest[-1]) or (not positionals and _LOOKS_LIKE_URL.search(rest[-1])):
                    break
                if nargs == "?":
                    doubtful.append(len(options))
                options.append(rest.pop())
        inserted = self._stands_for_url(positionals + literal)
        wanted = sum(action.nargs is None for action in self._actions if not action.option_strings)
        if doubtful and not literal and len(positionals) + (inserted == "-") == wanted - 1:
            positionals.append(options.pop(doubtful[-1]))
            inserted = self._stands_for_url(positionals)
        url = [] if inserted is None else [inserted]
        if unknown:
            return url + arguments  # argparse reports the unknown option
        if any(map(_is_option, literal)):
            return [*options, "--", *url, *positionals, *literal]
        return [*url, *positionals, *literal, *options]


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


#: Stands for a URL that is not needed, was left out, and that the environment does not have either.
_NO_URL: Final = "(no URL)"
_LOOKS_LIKE_URL: Final = re.compile(r"^-$|://")


def broker_urls(text: str) -> tuple[str, ...]:
    """The type of an argument: URLs of brokers, checked. ``-`` takes them from EDA_AMQP_URL."""
    origin = ""
    if text == "-":
        origin, text = f"from {URL_VARIABLE}: ", os.environ.get(URL_VARIABLE, "")
        if not text:
            raise argparse.ArgumentTypeError(f"the broker's URL is '-', but {URL_VARIABLE} is not set")
    elif not _LOOKS_LIKE_URL.search(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no URL of a broker; give one before it, or set {URL_VARIABLE}=amqp://user:password@host:5672/vhost"
        )
    try:
        return check_urls(split_urls(text) or [text])
    except LocalError as error:
        raise argparse.ArgumentTypeError(f"{origin}{error}") from None


def url_argument(
    parser: argparse.ArgumentParser,
    *,
    needed: bool = True,
    help: str = "URL of the broker: amqp://user:password@host:5672/vhost or amqps://…; several, separated by commas, "
    "are tried in turn",
) -> None:
    """Add ``amqp_url``, before all other positional arguments; the checked URLs are ``args.urls``.

    Args:
        needed: whether it is an error if there is none; otherwise ``args.urls`` is then ``None``.
    """
    action = parser.add_argument(
        "urls",
        metavar="amqp_url",
        nargs=None if needed else "?",
        type=broker_urls if needed else _urls_or_none,
        help=f"{help}; if it is left out, or is '-', it is that of the environment variable {URL_VARIABLE}, which no "
        "list of processes shows",
    )
    if isinstance(parser, Parser):
        parser.url = action


def _urls_or_none(text: str) -> tuple[str, ...] | None:
    return None if text == _NO_URL else broker_urls(text)


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
    color_option(parser)


def color_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--color``."""
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


def parser_of(
    prog: str | None, description: str, epilog: str, arguments: Callable[[argparse.ArgumentParser], None]
) -> Parser:
    """A parser of these arguments, and of ``--version``."""
    parser = Parser(prog, description=description, epilog=epilog, formatter_class=Formatter, allow_abbrev=False)
    arguments(parser)
    parser.add_argument("--version", action="version", version=f"eda-core {__version__}")
    return parser


class Formatter(argparse.HelpFormatter):
    """Fills the paragraphs of a text each by itself. Lines that are indented stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = (
            part if part.startswith(" ") else super(Formatter, self)._fill_text(part, width, indent)
            for part in text.split("\n\n")
        )
        return "\n\n".join(parts)


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
    places = [action.dest for action in parser._actions if not action.option_strings]
    # A payload stands one place earlier if the URL is left out.
    files = {"payload", places[places.index("payload") - 1]} if "payload" in places else {"payload"}
    for action in parser._actions:
        if action.metavar in ("FILE", "DIR") or action.dest in files:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads it
        if isinstance(action, argparse._SubParsersAction):
            for subcommand in action.choices.values():
                _complete_files(subcommand)


def filter_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--filter``; the patterns, or None, are ``args.filter``, for :func:`check_filter`.

    Args:
        what: whose names they are.
    """
    parser.add_argument(
        "--filter",
        nargs="*",
        type=TopicPattern,
        metavar="NAME",
        help=f"only {what} of these names; * is one word, # any number (default: all)",
    )


def check_filter(args: argparse.Namespace) -> None:
    """Raise ToolError if ``--filter`` comes without a name: it would leave out everything."""
    if args.filter == []:
        raise ToolError("--filter comes without a name", USAGE)
