"""``send_command.py amqp_url command payload``: send a command, wait for its result and show it.

This module decides what is sent and which status a result means; :mod:`eda_tools.bus.service` sends and receives.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from eda_core.criticality import EMERGENCY
from eda_core.errors import LocalError
from eda_core.messages.codec import JSON
from eda_core.messages.routing import COMMANDS, LOGS, check_name, queue_name
from eda_core.messages.values import ERROR, Command
from eda_tools.cli.arguments import common_options, url_argument
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, ERROR_RESULT, FAILED, USAGE, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.logger import Layout
from eda_tools.messages import show
from eda_tools.messages.delivery import Delivery, fields
from eda_tools.messages.payloads import payload_arguments, read_payload

if TYPE_CHECKING:
    from eda_tools.bus.service import Watch

#: Seconds without a result after which the tool looks whether the service exists.
_LOOK_AFTER: Final = 1.0
#: Seconds for a result that the service may have sent before it gave the command up.
_RESULT_OF_FAILURE: Final = 1.0
#: Seconds for logs that are on their way when there is a result.
_LATE_LOGS: Final = 0.1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(parser)
    parser.add_argument("command", help="service.command")
    payload_arguments(parser)
    parser.add_argument("--conversation-id", metavar="ID", help="conversation id (default: a new one)")
    parser.add_argument("--no-logs", action="store_true", help="do not show the logs of the conversation")
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
    logs = [] if args.no_logs else ["#"]
    async with watching(args.urls, "send_command", output, as_json=as_json, commands=[reply_to], logs=logs) as watch:
        output.doing = f"sending the command {args.command}"
        if not await watch.publish(command):
            raise ToolError(f"no service is bound to {args.command}: nobody gets the command", FAILED)
        output.doing = f"waiting for the result of {args.command} (conversation {conversation_id})"
        following = _Following(watch, command, output, new=args.conversation_id is None)
        result = await following.result(lambda: _note_missing_service(args, output))
        return _shown(result, command, output)


class _Following:
    """Waits for the result of a command and shows the logs of its conversation.

    Args:
        new: whether the conversation began with this command. Otherwise a log may be about an earlier command of the
            same name.
    """

    def __init__(self, watch: Watch, command: Command, output: Output, *, new: bool) -> None:
        self._watch = watch
        self._command = command
        self._output = output
        self._new = new
        self._layout = Layout(without=("conversation",))
        self._given_up = ""

    async def result(self, look: Callable[[], Awaitable[None]]) -> Delivery:
        """The result.

        Args:
            look: called if nothing came for a while.

        Raises:
            ToolError: the service says in a log that it has given the command up.
        """
        clock, looked = asyncio.get_running_loop().time, False
        look_at, until = clock() + _LOOK_AFTER, math.inf
        while True:
            limit = min(until, math.inf if looked else look_at)
            left = None if limit == math.inf else limit - clock()
            delivery = None if left is not None and left <= 0 else await self._watch.next(left)
            if delivery is not None and delivery.exchange != LOGS:
                await self._last_logs()
                return delivery
            if delivery is not None:
                if self._log(delivery):
                    looked = True  # the service is there
                if self._given_up and until == math.inf:
                    until = clock() + _RESULT_OF_FAILURE
            elif self._given_up:
                raise ToolError(f"{self._command.name} has failed. Its service says: {self._given_up}", FAILED)
            else:
                looked = True
                await look()

    async def _last_logs(self) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + _LATE_LOGS
        while (left := end - clock()) > 0 and (delivery := await self._watch.next(left)) is not None:
            if delivery.exchange == LOGS:
                self._log(delivery)

    def _log(self, delivery: Delivery) -> bool:
        """Show a log if it is of the conversation. Returns whether it is."""
        found = fields(delivery)
        record = found.get("payload")
        if not isinstance(record, dict) or record.get("_conversation_id") != self._command.conversation_id:
            return False
        self._output.aside(self._layout.text(found))
        service = self._command.name.partition(".")[0]
        about_command = record.get("_logical_service") == service and record.get("_routing_key") == self._command.name
        if self._new and about_command and record.get("level") == EMERGENCY and record.get("_outcome") == "dead-letter":
            self._given_up = str(record.get("short_message", ""))
        return True


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
    "Send a command to a service, wait for its result and show it. The logs of the conversation are shown meanwhile.",
    arguments,
    run,
    "If no service is bound for the command, the tool ends at once, with status 1. So it does when the service says "
    "in a log that it has given the command up.",
    examples=(
        'eda send_command greeter.Greet --data \'{"name": "Zoë"}\'',
        "eda send_command transcriber.TranscribeAudio audio.json --timeout 300",
        "eda send_command greeter.Greet name.json --json | jq .payload",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
