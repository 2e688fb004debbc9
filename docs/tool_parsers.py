"""The parsers of the tools, for the page that lists their options: ``tool_parsers.monitor()`` and so on."""

from argparse import ArgumentParser
from collections.abc import Callable

from eda_tools import eda
from eda_tools.cli.catalogue import TOOLS


def __getattr__(name: str) -> Callable[[], ArgumentParser]:
    """Return what makes the parser of a tool."""
    if name not in TOOLS:
        raise AttributeError(name)
    return eda.load(name).parser
