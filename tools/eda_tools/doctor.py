"""``doctor [--management URL] [--service NAME …] amqp_url``: check a broker for what the architecture needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from rich.text import Text

from eda_core.messages.routing import COMMANDS, EVENTS, EXCHANGES, queue_name
from eda_tools.bus.management import Management, management_option, vhost_of
from eda_tools.cli.arguments import common_options, url_argument
from eda_tools.cli.output import Output, safe
from eda_tools.cli.status import DONE, FAILED, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.diagnosis.checks import PROBLEM, Finding, findings
from eda_tools.diagnosis.facts import (
    Exchange,
    Survey,
    bindings_of,
    exchange_of,
    policies_of,
    queue_of,
    retried,
    service_of,
)
from eda_tools.messages.delivery import fields
from eda_tools.messages.recording import read_recording

DEAD_LETTER_EXCHANGE: Final = "am-dlx"
_TIMEOUT: Final = 10.0  # seconds for an answer of the broker
_STYLES: Final = {PROBLEM: "bold red"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    url_argument(parser)
    management_option(parser)
    parser.add_argument(
        "--service",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME",
        help="logical services that have to be there; without --management the only ones whose queues are looked at",
    )
    parser.add_argument(
        "--command",
        nargs="*",
        action="extend",
        default=[],
        metavar="SERVICE.NAME",
        help="commands that have to be served",
    )
    parser.add_argument(
        "--from", dest="recording", metavar="FILE", help="the commands in this recording have to be served, too"
    )
    parser.add_argument(
        "--dead-letter-exchange",
        metavar="NAME",
        default=DEAD_LETTER_EXCHANGE,
        help="where dead letters are to go, if no policy says it (default: %(default)s)",
    )
    common_options(parser, json="one JSON object per finding, one line each")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Check, and tell."""
    commands = dict.fromkeys([*args.command, *_recorded(args.recording)])
    survey = await _survey(args, list(commands), output)
    found = findings(survey)
    for finding in found:
        if output.json:
            output.record(_as_json(finding))
        else:
            output.print(_as_text(finding))
    problems = sum(finding.severity == PROBLEM for finding in found)
    told = f"{len(survey.exchanges)} exchanges and {len(survey.queues)} queues looked at"
    output.note(f"{f'{problems} problem(s)' if problems else 'nothing wrong'}; {told}")
    return FAILED if problems else DONE


def _recorded(path: str | None) -> list[str]:
    if path is None:
        return []
    found = (fields(delivery) for delivery in read_recording(path))
    return [message["name"] for message in found if message["kind"] == "command"]


# Looking


async def _survey(args: argparse.Namespace, commands: Sequence[str], output: Output) -> Survey:
    from eda_tools.bus.connect import session

    async with session(args.urls, "doctor", output) as broker:
        survey = Survey(
            vhost_of(broker.url), {}, {}, args.dead_letter_exchange, tuple(dict.fromkeys(args.service)), commands
        )
        look = _Look(broker, survey)
        if args.management is None:
            await look.without_management()
        else:
            output.doing = f"asking the management API at {urlsplit(args.management).hostname}"
            await look.with_management(Management(args.management, broker.url))
        output.doing = "asking for queues"
        await look.count_queues()
    return survey


class _Look:
    """Fills a survey. Nothing is changed on the broker."""

    def __init__(self, broker: Any, survey: Survey) -> None:
        self._broker = broker
        self._survey = survey

    async def without_management(self) -> None:
        from aiormq.exceptions import ChannelClosed

        for name in (*EXCHANGES, self._survey.dead_letter_exchange):
            try:
                exists = await self._broker.exchange(name) is not None
            except ChannelClosed:  # access refused: it is there
                exists = True
            except TimeoutError:
                raise ToolError(f"exchange {name}: the broker does not tell of it within {_TIMEOUT:g} s") from None
            if exists:
                wrong = await self._wrong(name) if name in EXCHANGES else ""
                self._survey.exchanges[name] = Exchange(name, wrong=wrong)
        for service in {*self._survey.services, *(key.partition(".")[0] for key in self._survey.commands)}:
            for exchange in (EVENTS, COMMANDS):
                self._survey.queues[name] = queue_of({"name": (name := queue_name(service, exchange)), "type": "?"})

    async def _wrong(self, name: str) -> str | None:
        """What is wrong with an exchange that exists: to declare it again changes nothing if it is the same, and is
        refused otherwise."""
        from aiormq.exceptions import ChannelClosed, ChannelPreconditionFailed

        channel = await self._broker.channel()
        try:
            await channel.exchange_declare(name, exchange_type="topic", durable=True, timeout=_TIMEOUT)
        except ChannelPreconditionFailed as error:
            return " ".join(str(part) for part in error.args)
        except (ChannelClosed, TimeoutError):
            return None
        await channel.close()
        return ""

    async def with_management(self, management: Management) -> None:
        vhost = self._survey.vhost
        overview = await management.get("overview")
        exchanges = await management.list("exchanges", vhost)
        queues = await management.list("queues", vhost)
        bindings = await management.list("bindings", vhost)
        if exchanges is None or queues is None or bindings is None or not isinstance(overview, dict):
            raise ToolError(f"{management.url}: it does not tell of virtual host {vhost!r}; may this user see it?")
        survey = self._survey
        survey.exchanges = {found.name: found for found in map(exchange_of, exchanges)}
        survey.queues = {found.name: found for found in map(queue_of, queues)}
        survey.bindings = bindings_of(bindings)
        survey.policies = policies_of(await management.list("policies", vhost))
        survey.operator_policies = policies_of(await management.list("operator-policies", vhost))
        survey.version = _version(overview.get("rabbitmq_version"))
        survey.admin = _admin(management.url)

    async def count_queues(self) -> None:
        """Ask each queue that matters how many consumers and messages it has; forget those that are not there."""
        from aiormq.exceptions import ChannelClosed

        for queue in self._relevant():
            try:
                answer = await self._broker.queue(queue)
            except ChannelClosed:  # not permitted, exclusive, its node is down
                continue
            except TimeoutError:
                raise ToolError(f"queue {queue}: the broker does not tell of it within {_TIMEOUT:g} s") from None
            if answer is None:
                del self._survey.queues[queue]
            else:
                self._survey.queues[queue].consumers = answer.consumer_count
                self._survey.queues[queue].messages = answer.message_count

    def _relevant(self) -> Iterable[str]:
        survey = self._survey
        bound = {binding.destination for binding in survey.bindings or ()}
        return [
            name
            for name, queue in survey.queues.items()
            if not queue.exclusive and (service_of(name) or retried(name) or name in bound)
        ]


def _version(text: object) -> tuple[int, int] | None:
    try:
        major, minor = str(text).split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        return None


def _admin(url: str) -> tuple[str, ...]:
    """Options with which ``rabbitmqadmin`` finds the API, where that is not at its usual place."""
    parts = urlsplit(url)
    host, port, tls = parts.hostname or "localhost", parts.port, parts.scheme == "https"
    options = [f"--host={host}"] if host != "localhost" else []
    if port or tls:
        options.append(f"--port={port or 443}")
    return (*options, *(["--ssl"] if tls else []), *([f"--path-prefix={parts.path}"] if parts.path else []))


# Telling


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "check": finding.check,
        "subjects": finding.subjects,
        "text": finding.text,
        "advice": finding.advice or None,
        "run": finding.run,
    }


def _as_text(finding: Finding) -> Text:
    text = Text(f"{finding.severity:<8} ", style=_STYLES.get(finding.severity, "bold"))
    if finding.subjects:
        text.append(", ".join(safe(subject) for subject in finding.subjects), style="bold not red").append(": ")
    text.append(safe(finding.text), style="not bold not red")
    if finding.advice:
        text.append(f"\n         {safe(finding.advice)}", style="not bold not red")
    for line in finding.run:
        text.append(f"\n         $ {safe(line)}", style="not bold cyan")
    return text


TOOL = Tool(
    "doctor",
    "Check a broker for what the architecture needs, and say what to run to mend it.",
    arguments,
    run,
    "Nothing is changed on the broker. The status is 1 if something is wrong.",
)
main = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
