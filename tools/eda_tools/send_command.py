"""``send_command.py amqp_url command payload``: send a command, wait for its result and show it.

This module decides what is sent and which status a result means; :mod:`eda_tools.bus.service` sends and receives.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from typing import Final

from eda_core.errors import LocalError
from eda_core.messages.codec import JSON
from eda_core.messages.routing import COMMANDS, check_name, queue_name
from eda_core.messages.values import ERROR, Command
from eda_tools.cli.arguments import common_options, url_argument
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, ERROR_RESULT, FAILED, USAGE, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.messages import show
from eda_tools.messages.delivery import Delivery, fields
from eda_tools.messages.payloads import payload_arguments, read_payload

#: Seconds without a result after which the tool looks whether the service exists.
_LOOK_AFTER: Final = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(parser)
    parser.add_argument("command", help="service.command")
    payload_arguments(parser)
    parser.add_argument("--conversation-id", metavar="ID", help="conversation id (default: a new one)")
    common_options(parser, timeout=30, json="the result as one JSON object")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Send the command and wait for its result."""
    from eda_tools.bus.service import watching

    check_name("the command", args.command)
    if "." not in args.command:
        raise ToolError(f"the command {args.command!r} names no service; write it as service.command", USAGE)
    output.doing = "reading the payload"
    payload = await read_payload(args)
    # No other queue is bound for this key, so every message with it is an answer.
    reply_to = f"eda-send_command.{uuid.uuid4().hex}"
    conversation_id = args.conversation_id if args.conversation_id is not None else str(uuid.uuid4())
    command = Command(args.command, payload.value, conversation_id, reply_to, uuid.uuid4().hex)
    as_json = payload.content_type == JSON
    async with watching(args.urls, "send_command", output, as_json=as_json, commands=[reply_to]) as watch:
        output.doing = f"sending the command {args.command}"
        if not await watch.publish(command):
            raise ToolError(f"no service is bound to {args.command}: nobody gets the command", FAILED)
        output.doing = f"waiting for the result of {args.command} (conversation {conversation_id})"
        if (result := await watch.next(_LOOK_AFTER)) is None:
            await _note_missing_service(args, output)
        while result is None:
            result = await watch.next()
        return _shown(result, command, output)


async def _note_missing_service(args: argparse.Namespace, output: Output) -> None:
    """Say so if no service seems to serve the command.

    The queue of the service is looked for. That any queue took the command does not say much: a monitor's takes all.
    """
    from eda_tools.bus.connect import session

    service = args.command.partition(".")[0]
    queue = queue_name(service, COMMANDS)
    waiting = output.doing
    try:
        async with session(args.urls, "send_command", output) as broker:
            found = await broker.queue(queue)
    except (ToolError, LocalError):  # it is exclusive, this user may not see it, or its name is too long
        return
    finally:
        output.doing = waiting
    if found is None:
        output.note(f"there is no queue {queue}: {service} does not seem to run, and only a monitor gets the command")
    elif not found.consumer_count:
        output.note(f"no worker of {service} consumes {queue} now: the command waits there")


def _shown(result: Delivery, command: Command, output: Output) -> int:
    found = fields(result)
    if output.json:
        output.record(show.as_json(found, body=result.body))
    else:
        output.print(show.as_text(found, body=result.body))
    if found["kind"] != "result":
        raise ToolError(f"what came back is not a result: {found.get('error', found['kind'])}", FAILED)
    for name, sent in (("correlation_id", command.correlation_id), ("conversation_id", command.conversation_id)):
        if found[name] != sent:
            output.note(f"the result's {name} is {found[name]!r}, the command's was {sent!r}")
    return ERROR_RESULT if found["status"] == ERROR else DONE


TOOL = Tool(
    "send_command",
    "Send a command to a service, wait for its result and show it.",
    arguments,
    run,
    "If no service is bound for the command, the tool ends at once, with status 1.",
    examples=(
        'eda send_command greeter.Greet --data \'{"name": "Zoë"}\'',
        "eda send_command transcriber.TranscribeAudio audio.json --timeout 300",
        "eda send_command greeter.Greet name.json --json | jq .payload",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
