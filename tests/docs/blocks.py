"""The code blocks of the documents, and what the comments before them say about running them.

A block is a ``code-block`` directive or a literal block (``::``). These comments stand directly before a block:

``.. test: background``
    The command goes on. If the same command runs already, that one is stopped first.
``.. test: once more``
    The command goes on, beside those that run already.
``.. test: stop``
    The block has no command of its own: the command in it is stopped.
``.. test: output``
    The first line is a command that runs in the background. The others are what it has printed since.
``.. test: file NAME``
    The block is a file, for pages where it must have no caption: GitHub does not know captions.
``.. test: status N``
    The last command of the block ends with the status N.
``.. not run: REASON``
    The block is not run.

These stand at the top of a page:

``.. page: after PAGE``
    The files of the other page are there at the beginning.
``.. page: on RabbitMQ``
    The page is run on RabbitMQ, with the command ``rabbitmqctl``, and not on the embedded broker.
``.. page: tested by FILE``
    Another test runs or compares the blocks of this page.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

_DIRECTIVE = re.compile(r"^(?P<indent> *)\.\. (?:code-block|code|sourcecode):: *(?P<language>[\w+-]*)$")
_LITERAL = re.compile(r"^(?P<indent> *)(?!\.\. )\S?.*::$")
_OPTION = re.compile(r"^ +:(?P<name>[\w-]+):(?: +(?P<value>.+))?$")
_COMMENT = re.compile(r"^ *\.\. (?P<kind>test|not run): (?P<text>.+)$")
_PAGE = re.compile(r"^\.\. page: (?P<text>.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block.

    Attributes:
        line: the number of its first line, from 1.
        language: that of the directive; "" for a literal block.
        caption: its title, which is the name of the file that it is; "" without one.
        text: what is in it, without its indentation.
        orders: what the comments before it say after ``test:``.
        not_run: why it is not run; "" if it is.
    """

    page: str
    line: int
    language: str
    text: str
    caption: str = ""
    orders: tuple[str, ...] = ()
    not_run: str = ""

    @property
    def file(self) -> str:
        """The name of the file that it is; "" if it is none."""
        named = (order.removeprefix("file ") for order in self.orders if order.startswith("file "))
        return next(named, self.caption)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Page:
    """A document.

    Attributes:
        path: from the root of the checkout.
        after: the path of the page whose files are there at the beginning; "" without one.
        on_rabbitmq: whether it is run on RabbitMQ.
        tested_by: the path of the test that looks after the blocks of this page; "" if the page itself is run.
    """

    path: str
    text: str
    after: str = ""
    tested_by: str = ""
    on_rabbitmq: bool = False
    blocks: list[Block] = field(default_factory=list)


def read_page(path: Path) -> Page:
    """Read a document and its blocks."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
    after, tested_by, on_rabbitmq = "", "", False
    for order in _PAGE.findall(text):
        if order.startswith("after "):
            after = (path.parent / order.removeprefix("after ")).resolve().relative_to(ROOT).as_posix()
        elif order.startswith("tested by "):
            tested_by = order.removeprefix("tested by ")
        elif order == "on RabbitMQ":
            on_rabbitmq = True
        else:
            raise ValueError(f"{name}: the comment '.. page: {order}' means nothing; see tests/docs/blocks.py")
    return Page(name, text, after, tested_by, on_rabbitmq, blocks_of(name, text))


def blocks_of(name: str, text: str) -> list[Block]:
    """Return the code blocks in the text of a page."""
    lines, found, number = text.splitlines(), [], 0
    while number < len(lines):
        directive, literal = _DIRECTIVE.match(lines[number]), _LITERAL.match(lines[number])
        start = number
        number += 1
        if directive is None and literal is None:
            continue
        indent = len((directive or literal)["indent"])  # type: ignore[index]
        options = {}
        while directive and number < len(lines) and (option := _OPTION.match(lines[number])):
            options[option["name"]] = option["value"] or ""
            number += 1
        first = number
        while number < len(lines) and (not lines[number].strip() or _indent(lines[number]) > indent):
            number += 1
        content = textwrap.dedent("\n".join(lines[first:number])).strip("\n")
        before = start
        while literal and before and lines[before - 1].strip():  # the comment stands before the whole paragraph
            before -= 1
        orders, reason = _comments(lines, before)
        language = directive["language"] if directive else ""
        found.append(Block(name, start + 1, language, content, options.get("caption", ""), orders, reason))
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _comments(lines: list[str], start: int) -> tuple[tuple[str, ...], str]:
    """Return the orders and the reason in the comments directly before a line. Empty lines may be in between."""
    orders, reason, number = [], "", start - 1
    while number >= 0 and (not lines[number].strip() or _COMMENT.match(lines[number])):
        if comment := _COMMENT.match(lines[number]):
            if comment["kind"] == "not run":
                reason = comment["text"]
            else:
                orders.append(comment["text"])
        number -= 1
    return tuple(reversed(orders)), reason
