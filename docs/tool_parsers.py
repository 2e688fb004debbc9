"""The parsers of the tools, for the page that lists their options: ``tool_parsers.monitor()`` and so on."""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial

from eda_tools import eda
from eda_tools.cli.catalogue import PROGRAMS, TOOLS


def __getattr__(name: str) -> Callable[[], ArgumentParser]:
    """Return what makes the parser of a tool."""
    if name not in (*TOOLS, *PROGRAMS):
        raise AttributeError(name)
    return partial(eda.parser_of, name)
