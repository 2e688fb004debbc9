"""``eda trace amqp_url CONVERSATION_ID`` or ``eda trace --from FILE [CONVERSATION_ID]``: draw one conversation.

This module collects the messages and draws the tree; :mod:`eda_tools.diagrams.conversation` decides what caused what.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from typing import Any, Final

from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from eda_tools.bus.watch import Fields, matching, watch_options
from eda_tools.cli.arguments import url_argument
from eda_tools.cli.output import Output, safe
from eda_tools.cli.status import DONE, FAILED, PARTLY, TIMED_OUT, USAGE, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.diagrams import mermaid
from eda_tools.diagrams.conversation import FAILED as HANDLER_FAILED
from eda_tools.diagrams.conversation import Failure, Step, build, tells_of_failure, walk
from eda_tools.messages import show
from eda_tools.messages.delivery import BEGINNING, fields, is_of
from eda_tools.messages.recording import read_recording
from eda_tools.messages.where import Predicate

#: Levels of a tree that are indented. Deeper messages are drawn at the last of them.
_DEEPEST: Final = 30
#: Columns of a terminal that are kept for the message itself.
_MESSAGE_COLUMNS: Final = 40
_INDENT: Final = 4
#: Characters of most conversation ids, which are shown whole so that they can be copied.
_UUID: Final = 36


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    parser.usage = (
        "%(prog)s [options] amqp_url CONVERSATION_ID\n       %(prog)s [options] --from FILE [CONVERSATION_ID]"
    )
    url_argument(parser, needed=False, help="URL of the broker to watch, not needed with --from")
    parser.add_argument(
        "conversation",
        nargs="?",
        metavar="CONVERSATION_ID",
        help="the conversation; with --from it may be left out: the conversations of the recording are then listed",
    )
    parser.add_argument(
        "--from", dest="recording", metavar="FILE", help="draw it from a recording that monitor --record has written"
    )
    parser.add_argument("--mermaid", action="store_true", help="draw it as a Mermaid sequence diagram")
    watch_options(parser, json="one JSON object per message, one line each")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Draw the conversation."""
    if args.mermaid and args.json:
        raise ToolError("--mermaid or --json, not both", USAGE)
    if args.recording is not None:
        return _recorded(args, output)
    if args.conversation is None:
        raise ToolError("give CONVERSATION_ID, or --from FILE", USAGE)
    if args.urls is None:
        raise ToolError("no URL: give one or set EDA_AMQP_URL, or give --from FILE", USAGE)
    return await _live(args.urls, args.conversation, args, output)


# By watching


async def _live(urls: tuple[str, ...], conversation: str, args: argparse.Namespace, output: Output) -> int:
    """Draw the messages that pass, whatever ends the watching."""
    seen: list[Fields] = []
    logs: list[Fields] = []
    interactive = output.drawable and not args.json and not args.mermaid
    try:
        with _watched(seen, logs, output) if interactive else contextlib.nullcontext():
            async for found in _messages(urls, conversation, args, output, logs):
                seen.append(found)
    finally:
        if seen:
            _draw(build([*seen, *logs]), args, output)
    if not seen:
        waited = f"within {args.idle_timeout:g} s"
        raise ToolError(f"no message of conversation {conversation} came {waited}", TIMED_OUT)
    return DONE


@contextlib.contextmanager
def _watched(seen: list[Fields], logs: list[Fields], output: Output) -> Iterator[None]:
    """Show the tree as it grows."""
    with Live(
        get_renderable=lambda: tree(build([*seen, *logs]), output.out.width) if seen else Text(),
        console=output.out,
        refresh_per_second=4,
        transient=True,
    ):
        yield


async def _messages(
    urls: tuple[str, ...], conversation: str, args: argparse.Namespace, output: Output, logs: list[Fields]
) -> AsyncIterator[Fields]:
    """The messages of the conversation. Logs about their failures are added to ``logs``; they are not counted."""
    from eda_tools.bus.service import watching

    everything = ["#"]
    async with watching(
        urls, "trace", output, events=everything, commands=everything, configurations=everything, logs=everything
    ) as watch:
        output.doing = f"watching for messages of conversation {conversation}"
        output.note(f"{output.doing}; Ctrl-C ends")

        def wanted(found: Fields) -> bool:
            if found["kind"] != "log":
                return is_of(found, conversation)
            if tells_of_failure(found) and is_of(found, conversation):
                logs.append(found)
            return False

        mine = matching(watch, args, wanted)
        async for delivery, found in mine:
            yield show.as_json(found, body=delivery.body)


# From a recording


def _recorded(args: argparse.Namespace, output: Output) -> int:
    if args.count is not None or args.idle_timeout is not None:
        raise ToolError("--count and --idle-timeout are for watching, not for --from", USAGE)
    by_conversation, broken = read_conversations(args.recording, args.where)
    if not by_conversation:
        raise broken or ToolError(f"{args.recording}: there is no{' such' if args.where else ''} message in it")
    if args.conversation is not None:
        _draw_one(args.conversation, by_conversation, args, output, complete=broken is None)
    elif len(by_conversation) == 1:
        _draw_one(next(iter(by_conversation)), by_conversation, args, output, complete=broken is None)
    elif args.mermaid:
        raise ToolError(f"{args.recording} has {len(by_conversation)} conversations; name one to draw", USAGE)
    else:
        _list(by_conversation, output)
    if broken is None:
        return DONE
    output.error(str(broken))
    return PARTLY


def read_conversations(path: str, where: Predicate | None = None) -> tuple[dict[str, list[Fields]], ToolError | None]:
    """Read a recording. Returns its messages by conversation, in the order in which the conversations began.

    Also returns the error that ended the reading before the end of the file, or ``None``.
    """
    found: dict[str, list[Fields]] = {}
    try:
        for delivery in read_recording(path):
            message = fields(delivery)
            if where is None or where(message):
                whole = show.as_json(message, body=delivery.body)
                found.setdefault(message["conversation_id"], []).append(whole)
    except ToolError as error:
        return found, error
    return found, None


def _draw_one(
    name: str, by_conversation: dict[str, list[Fields]], args: argparse.Namespace, output: Output, *, complete: bool
) -> None:
    if name not in by_conversation and len(name) >= BEGINNING:
        begun = [each for each in by_conversation if each.startswith(name)]
        name = begun[0] if len(begun) == 1 else name
    if name not in by_conversation:
        some = ", ".join(each or "(none)" for each in list(by_conversation)[:3])
        more = f" and {len(by_conversation) - 3} more" if len(by_conversation) > 3 else ""
        part = "" if complete else " as far as it can be read"
        raise ToolError(f"{args.recording}: conversation {name} is not in it{part}; there are {some}{more}", FAILED)
    _draw(build(by_conversation[name]), args, output)


def _list(by_conversation: dict[str, list[Fields]], output: Output) -> None:
    table = Table()
    table.add_column("conversation", overflow="fold", min_width=_UUID)
    for name in ("began", "lasted", "messages", "first message"):
        table.add_column(name, overflow="fold")
    for name, messages in by_conversation.items():
        times = [message["received"] for message in messages]
        first = min(messages, key=lambda message: message["received"])
        row = {
            "conversation_id": name,
            "began": min(times),
            "seconds": (max(times) - min(times)).total_seconds(),
            "messages": len(messages),
            "first": {"kind": first["kind"], "name": first["name"]},
        }
        if output.json:
            output.record(row)
        else:
            cells = show.local_time(row["began"]), f"{row['seconds']:.3f} s", f"{len(messages):,}"
            table.add_row(safe(name) or "(none)", *cells, f"{first['kind']} {safe(first['name'])}")
    if not output.json:
        output.print(table)


# Drawing


def _draw(steps: list[Step], args: argparse.Namespace, output: Output) -> None:
    if args.json:
        for step in steps:
            output.record(as_json(step))
    elif args.mermaid:
        mermaid.show(list(mermaid.sequence(steps)), output)
    else:
        output.print(tree(steps, output.out.width))


def as_json(step: Step) -> dict[str, Any]:
    """The object that ``--json`` writes: that of the other tools, and the place of the message in the conversation."""
    return {
        "number": step.number,
        "elapsed": step.elapsed,
        "service": step.service or None,
        "service_inferred": step.service_inferred,
        "cause": None if step.cause is None else step.cause.number,
        "edge": step.edge or None,
        "inferred": step.inferred,
        "unseen_cause": step.unseen or None,
        "repeats": None if step.repeats is None else step.repeats.number,
        "failures": [asdict(failure) for failure in step.failures],
        **step.fields,
    }


def tree(steps: list[Step], width: int) -> Tree:
    """A conversation for people: each message below the one that caused it.

    Args:
        width: columns of the terminal.
    """
    deepest = max(1, min(_DEEPEST, (width - _MESSAGE_COLUMNS) // _INDENT))
    conversation = Text("conversation ", style="dim").append(
        safe(steps[0].text("conversation_id")), style="bold not dim"
    )
    root = Tree(conversation, guide_style="dim")
    nodes: list[Tree] = [root]  # the last one of each level
    for step in walk(steps):
        level = min(step.level, deepest)
        del nodes[level + 1 :]
        nodes.append(nodes[level].add(_line(step, deepest)))
        for failure in step.failures:
            nodes[-1].add(_failure(failure))
    return root


def _failure(failure: Failure) -> Text:
    line = Text(f"✗ {failure.outcome}", style="red" if failure.outcome == HANDLER_FAILED else "bold red")
    if failure.service:
        line.append("  in ", style="not bold dim").append(safe(failure.service), style="not bold")
    return line.append(f"  {safe(failure.text)}", style="not bold")


def _line(step: Step, deepest: int) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    if step.inferred:
        line.append("~ ", style="yellow")
    if step.level > deepest:
        line.append(f"(level {step.level}) ", style="dim")
    line.append(f"{step.kind} ", style=show.STYLES.get(step.kind, ""))
    line.append(safe(step.name), style="bold")
    show.append_status(line, step.text("status"))
    line.append(f"  +{step.elapsed:.3f} s", style="dim")
    _append_origin(line, step)
    if "error" in step.fields:
        line.append(f"  {safe(step.fields['error'])}", style="red")
    if "payload" in step.fields:
        line.append(f"  {show.summary(step.fields['payload'])}")
    return line


def _append_origin(line: Text, step: Step) -> None:
    if step.service:
        line.append("  by ", style="dim").append("~" * step.service_inferred + safe(step.service))
    if step.inferred:
        line.append(f"  (inferred by {'correlation id' if step.edge == 'correlation' else 'time'})", style="yellow")
    if step.unseen:
        line.append(f"  (its cause {safe(step.unseen)} was not seen)", style="yellow")
    if step.repeats is not None:
        line.append(f"  (again: same id as {step.repeats.number})", style="yellow")


TOOL = Tool(
    "trace",
    "Draw one conversation: which message caused which.",
    arguments,
    run,
    "A message is marked with ~ if its cause is inferred.",
    examples=(
        "eda trace 6ecd5dd7-63a1-4b1c-a2ff-a1f0f4e49e3e",
        "eda trace --from calls.cbor",
        "eda trace --from calls.cbor 6ecd5dd7-63a1-4b1c-a2ff-a1f0f4e49e3e --mermaid",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
