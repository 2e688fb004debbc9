"""``publish_event.py amqp_url event payload``: publish an event, and say whether anybody gets it."""

from __future__ import annotations

import argparse
import sys

from eda_core.messages.values import Event
from eda_tools.bus.publish import publish, publish_arguments
from eda_tools.cli.output import Output
from eda_tools.cli.tool import Tool


async def run(args: argparse.Namespace, output: Output) -> int:
    """Publish it."""
    return await publish(args, output, "publish_event", Event)


TOOL = Tool(
    "publish_event",
    "Publish an event, confirmed by the broker, and print its conversation id.",
    publish_arguments,
    run,
    "An event that no queue is bound for is reported, with status 1.",
)
main = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
