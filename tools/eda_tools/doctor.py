"""``eda doctor [--management URL] [--service NAME …] amqp_url``: check a broker for what the architecture needs.

This module asks the broker and shows the checks. :mod:`eda_tools.diagnosis.checks` decides what is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from rich.text import Text

from eda_core.messages.routing import COMMANDS, EVENTS, EXCHANGES, queue_name
from eda_core.testing.deaths import retried
from eda_tools.bus.management import Management, management_option, vhost_of
from eda_tools.cli.arguments import common_options, url_argument
from eda_tools.cli.output import Output, safe
from eda_tools.cli.status import DONE, FAILED, USAGE, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.diagnosis.checks import LEFT_OVER, LOSS, NOTES, PROBLEM, UNSERVED, Check, failed_checks
from eda_tools.diagnosis.facts import (
    Exchange,
    Facts,
    bindings_of,
    exchange_of,
    policies_of,
    queue_of,
    service_of,
    service_of_connection,
)
from eda_tools.diagnosis.handlers import load, service_class, unhandled
from eda_tools.messages.delivery import fields
from eda_tools.messages.recording import read_recording

DEAD_LETTER_EXCHANGE: Final = "am-dlx"
#: The styles of headings and of the word "problem" below them.
_STYLES: Final = {LOSS: "bold red", UNSERVED: "yellow", LEFT_OVER: "cyan", NOTES: "dim"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(parser)
    management_option(parser)
    parser.add_argument(
        "--service",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME",
        help="logical services that must exist; without --management, only their queues are checked",
    )
    parser.add_argument(
        "--command",
        nargs="*",
        action="extend",
        default=[],
        metavar="SERVICE.NAME",
        help="commands that some service must serve",
    )
    parser.add_argument(
        "--class",
        dest="classes",
        nargs="*",
        action="extend",
        type=service_class,
        default=[],
        metavar="SERVICE=MODULE:CLASS",
        help="the class of a service: with --management, its bindings without a handler are found, such as those of "
        "subscriptions that were removed. The module is imported",
    )
    parser.add_argument(
        "--from", dest="recording", metavar="FILE", help="some service must serve the commands in this recording, too"
    )
    parser.add_argument(
        "--dead-letter-exchange",
        metavar="NAME",
        default=DEAD_LETTER_EXCHANGE,
        help="where dead letters must go if no policy says it (default: %(default)s)",
    )
    common_options(parser, json="one JSON object per check that did not pass, one line each")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Check the broker and show what is wrong."""
    if args.classes and args.management is None:
        raise ToolError("--class needs --management: AMQP does not tell of bindings", USAGE)
    loaded = {each.service: load(each) for each in args.classes}
    commands = dict.fromkeys([*args.command, *_recorded(args.recording)])
    facts = await _facts(args, list(commands), output)
    facts.unhandled = [each for name, found in loaded.items() for each in unhandled(name, found, facts.bindings or ())]
    checks = failed_checks(facts)
    group = NOTES
    for each in checks:
        if each.group not in (group, NOTES) and not output.json:
            group = each.group
            output.print(Text(group, style=_STYLES.get(group, "bold")))
        if output.json:
            output.record(_as_json(each))
        else:
            output.print(_as_text(each))
    problems = sum(each.severity == PROBLEM for each in checks)
    looked_at = f"{len(facts.exchanges)} exchanges and {len(facts.queues)} queues looked at"
    output.note(f"{f'{problems} problem(s)' if problems else 'nothing wrong'}; {looked_at}")
    return FAILED if problems else DONE


def _recorded(path: str | None) -> list[str]:
    if path is None:
        return []
    found = (fields(delivery) for delivery in read_recording(path))
    return [message["name"] for message in found if message["kind"] == "command"]


# Asking the broker


async def _facts(args: argparse.Namespace, commands: Sequence[str], output: Output) -> Facts:
    from eda_tools.bus.connect import session

    async with session(args.urls, "doctor", output) as broker:
        services = tuple(dict.fromkeys(args.service))
        facts = Facts(vhost_of(broker.url), {}, {}, args.dead_letter_exchange, services, commands)
        asking = _Asking(broker, facts)
        if args.management is None:
            await asking.by_amqp()
        else:
            output.doing = f"asking the management API at {urlsplit(args.management).hostname}"
            await asking.by_management(Management(args.management, broker.url))
        output.doing = "asking for queues"
        await asking.count_queues()
    return facts


class _Asking:
    """Asks the broker and fills in the facts. Nothing is changed on the broker."""

    def __init__(self, broker: Any, facts: Facts) -> None:
        self._broker = broker
        self._facts = facts

    async def by_amqp(self) -> None:
        from eda_tools.bus.amqp import ChannelClosed

        facts = self._facts
        for name in (*EXCHANGES, facts.dead_letter_exchange):
            try:
                exists = await self._broker.exchange(name)
            except ChannelClosed:  # access refused: it exists
                exists = True
            except TimeoutError:
                raise _no_answer("exchange", name) from None
            if exists:
                wrong = await self._wrong(name) if name in EXCHANGES else ""
                facts.exchanges[name] = Exchange(name, wrong=wrong)
        for service in {*facts.services, *(key.partition(".")[0] for key in facts.commands)}:
            for exchange in (EVENTS, COMMANDS):
                name = queue_name(service, exchange)
                facts.queues[name] = queue_of({"name": name, "type": "?"})

    async def _wrong(self, name: str) -> str | None:
        """How an exchange that exists differs from what services need; ``None`` if the broker does not say.

        To declare it again changes nothing if it is the same, and is refused otherwise.
        """
        from eda_tools.bus.amqp import PRECONDITION_FAILED, ChannelClosed
        from eda_tools.bus.names import ExchangeDeclare

        channel = await self._broker.channel()
        try:
            await channel.ask(ExchangeDeclare(exchange=name, exchange_type="topic", durable=True))
        except ChannelClosed as error:
            return str(error) if error.code == PRECONDITION_FAILED else None
        except TimeoutError:
            return None
        await channel.close()
        return ""

    async def by_management(self, management: Management) -> None:
        facts = self._facts
        overview = await management.get("overview")
        exchanges = await management.list("exchanges", facts.vhost)
        queues = await management.list("queues", facts.vhost)
        bindings = await management.list("bindings", facts.vhost)
        if exchanges is None or queues is None or bindings is None or not isinstance(overview, dict):
            reason = f"it does not tell of virtual host {facts.vhost!r}; may this user see it?"
            raise ToolError(f"{management.url}: {reason}")
        facts.exchanges = {found.name: found for found in map(exchange_of, exchanges)}
        facts.queues = {found.name: found for found in map(queue_of, queues)}
        facts.bindings = bindings_of(bindings)
        facts.policies = policies_of(await management.list("policies", facts.vhost))
        facts.operator_policies = policies_of(await management.list("operator-policies", facts.vhost))
        connections = await management.list("vhosts", facts.vhost, "connections")
        facts.connected = None if connections is None else set(map(service_of_connection, connections))
        facts.version = _version(overview.get("rabbitmq_version"))
        facts.management = management.url

    async def count_queues(self) -> None:
        """Ask how many consumers and messages each relevant queue has. Queues that do not exist are removed."""
        from eda_tools.bus.amqp import ChannelClosed

        facts = self._facts
        for queue in self._relevant():
            try:
                answer = await self._broker.queue(queue)
            except ChannelClosed:  # not permitted, exclusive, or its node is down
                continue
            except TimeoutError:
                raise _no_answer("queue", queue) from None
            if answer is None:
                del facts.queues[queue]
            else:
                facts.queues[queue].consumers = answer.consumer_count
                facts.queues[queue].messages = answer.message_count

    def _relevant(self) -> Iterable[str]:
        bound = {binding.destination for binding in self._facts.bindings or ()}
        return [
            name
            for name, queue in self._facts.queues.items()
            if not queue.exclusive and (service_of(name) or retried(name) or name in bound)
        ]


def _no_answer(kind: str, name: str) -> ToolError:
    from eda_tools.bus.amqp import RPC_TIMEOUT

    return ToolError(f"{kind} {name}: the broker does not say within {RPC_TIMEOUT:g} s whether it exists")


def _version(text: object) -> tuple[int, int] | None:
    try:
        major, minor = str(text).split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        return None


# Showing


def _as_json(check: Check) -> dict[str, Any]:
    return {
        "severity": check.severity,
        "group": check.group,
        "check": check.name,
        "subjects": check.subjects,
        "text": check.text,
        "advice": check.advice or None,
        "run": check.run,
    }


def _as_text(check: Check) -> Text:
    text = Text().append(f"{check.severity:<8} ", style=_STYLES[check.group])
    if check.subjects:
        text.append(", ".join(safe(subject) for subject in check.subjects), style="bold").append(": ")
    text.append(safe(check.text))
    if check.advice:
        text.append(f"\n         {safe(check.advice)}", style="dim")
    for line in check.run:
        text.append(f"\n         $ {safe(line)}")
    return text


TOOL = Tool(
    "doctor",
    "Check a broker for what the architecture needs, and say what to run to mend it.",
    arguments,
    run,
    "Nothing is changed on the broker. The status is 1 if something is wrong.",
    examples=(
        "eda doctor",
        "eda doctor --management http://127.0.0.1:15672 --service transcriber archive",
        "eda doctor --command transcriber.TranscribeAudio",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
