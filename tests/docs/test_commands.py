"""The commands in docs/tools.rst and all other documents have options that their tools understand.

The pages of the tools (``tools*.rst``) show too many commands to run each of them on a broker of its own.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator

import pytest

from eda_tools import eda
from eda_tools.cli.catalogue import PROGRAMS, TOOLS
from tests.docs.blocks import Block
from tests.docs.test_pages import PAGES

#: A tool, at the beginning of a line or behind what a shell allows there.
_COMMAND = re.compile(
    rf"(?:^|[|&;(] *|= ?)(?:[A-Z_]+=\S+ )*(?:nohup )?(?:eda (?P<eda>\w+)|(?P<old>{'|'.join(TOOLS)})\.py) "
)


def commands() -> Iterator[tuple[Block, str, list[str]]]:
    """The tools with their arguments, and the blocks in which they stand."""
    for page in PAGES:
        for block in page.blocks:
            if block.language not in ("", "console", "bash"):
                continue
            for line in block.text.replace("\\\n", " ").splitlines():
                text = line.removeprefix("$ ")
                found = _COMMAND.search(text)
                # A line with [ is a description of how to use the tool.
                if not found or "[--" in text or "…" in text or (block.language == "console" and text == line):
                    continue
                name = found["eda"] or found["old"]
                yield block, name, _arguments(text[found.end() :])


def _arguments(text: str) -> list[str]:
    """The words of a shell's command up to the first operator or comment."""
    words = shlex.shlex(text, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    return list(itertools.takewhile(lambda word: not re.fullmatch("[();<>|&]+", word), words))


@pytest.mark.parametrize(
    ("block", "name", "arguments"), [pytest.param(*each, id=f"{each[0]} {each[1]}") for each in commands()]
)
def test_a_tool_understands_its_arguments(
    block: Block, name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDA_AMQP_URL", "amqp://localhost/")
    monkeypatch.setenv("EDA_MANAGEMENT_URL", "http://localhost:15672")
    assert name in (*TOOLS, *PROGRAMS), f"{block}: there is no tool {name}"
    try:
        eda.parser_of(name).parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{block}: eda {name} does not understand {arguments}")


def test_commands_are_found() -> None:
    assert len(list(commands())) >= 20
