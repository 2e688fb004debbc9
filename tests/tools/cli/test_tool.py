"""What all tools have in common: arguments, exit statuses, and one line for each error."""

from __future__ import annotations

import argparse
import asyncio
import errno
import importlib
import logging
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from eda_core.errors import LocalError, PublishError, ServiceError
from eda_tools import eda
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.cli import start
from eda_tools.cli import status as cli
from eda_tools.cli.arguments import Parser, common_options, natural, positive, rate, seconds, url_argument
from eda_tools.cli.catalogue import PROGRAMS, TOOLS
from eda_tools.cli.output import Output, OutputClosed
from eda_tools.cli.status import ToolError
from eda_tools.cli.tool import Tool
from tests.support.services import ROOT, environment
from tests.support.tools import EVENTAILS, run_here, run_tool

URL = "amqp://guest:sekret@127.0.0.1:1/"
Run = Callable[[argparse.Namespace, Output], Awaitable[int]]


def arguments(parser: argparse.ArgumentParser) -> None:
    url_argument(parser)
    parser.add_argument("queue", nargs="?")
    parser.add_argument("--filter", nargs="*", default=[])
    parser.add_argument("--save", nargs="?", const=".")
    parser.add_argument("--count", type=natural, default=0)
    common_options(parser)


def tool(run: Run) -> Tool:
    return Tool("probe", "A tool for tests.", arguments, run)


def failing(error: BaseException) -> Tool:
    async def run(args: argparse.Namespace, output: Output) -> int:
        raise error

    return tool(run)


# --- arguments ---


def parsed(*words: str) -> Any:
    parser = Parser("probe")
    arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    "words",
    [
        f"{URL} q --filter A B --count 3",
        f"--filter A B --count 3 {URL} q",
        f"--count 3 --filter A B {URL} q",
        f"--filter A B {URL} q --count 3",
        f"--count 3 {URL} q --filter A B",
        f"--filter A B -- {URL} q",
        "--filter A B - q",
        "- q --filter A B",
    ],
)
def test_the_url_is_found_behind_options_with_any_number_of_values(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDA_AMQP_URL", URL)
    args = parsed(*words.split())
    assert (args.urls, args.queue, args.filter) == ((URL,), "q", ["A", "B"])
    assert args.count == (3 if "--count" in words else 0)


def test_the_url_is_no_directory_to_save_in() -> None:
    args = parsed("--save", URL)
    assert (args.urls, args.save, args.queue) == ((URL,), ".", None)
    assert parsed("--save", "there", URL).save == "there"


def test_urls_are_separated_by_commas_but_passwords_may_have_some() -> None:
    first, second = "amqp://guest:a,b@one/", "amqps://two:5671/vhost"
    assert parsed(f"{first},{second}").urls == (first, second)
    assert parsed(f"{first}, {second}").urls == (first, second)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("", (URL, None, [])),
        ("q", (URL, "q", [])),
        ("- q", (URL, "q", [])),
        ("q --filter A B", (URL, "q", ["A", "B"])),
        ("--filter A B -- q", (URL, "q", ["A", "B"])),
        ("--filter A B", (URL, None, ["A", "B"])),
        ("amqp://elsewhere/ q", ("amqp://elsewhere/", "q", [])),
        ("-- amqp://elsewhere/ q", ("amqp://elsewhere/", "q", [])),
        ("--filter A AMQP://elsewhere/ q", ("AMQP://elsewhere/", "q", ["A"])),
        ("-- -q", (URL, "-q", [])),
        ("q://odd", None),
        ("localhost q", None),
    ],
)
def test_the_url_may_be_left_out_if_the_environment_has_one(
    words: str,
    meant: tuple[str, str | None, list[str]] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDA_AMQP_URL", URL)
    if meant is None:
        with pytest.raises(SystemExit):
            parsed(*words.split())
        told = capsys.readouterr().err
        assert ("the scheme is not amqp or amqps" in told) == ("://" in words)
        because = "unrecognized arguments: q; amqp_url is that of EDA_AMQP_URL, because the first argument is no URL"
        assert (because in told) == ("://" not in words)
    else:
        args = parsed(*words.split())
        assert (args.urls, args.queue, args.filter) == ((meant[0],), *meant[1:])


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("publish_event Name -", {"event": "Name", "payload": "-"}),
        ("publish_event --data 1 Name", {"event": "Name", "payload": None, "data": "1"}),
        ("publish_event - Name -", {"event": "Name", "payload": "-"}),
        ("send_command a.B p.json --timeout 5", {"command": "a.B", "payload": "p.json", "timeout": 5}),
        ("inspect_queue --save q", {"queue": "q", "save": "."}),
        ("inspect_queue q --save d", {"queue": "q", "save": "d"}),
        ("inspect_queue --save d q", {"queue": "q", "save": "d"}),
        ("trace conv", {"conversation": "conv", "recording": None}),
        ("trace --from f conv", {"conversation": "conv", "recording": "f"}),
        ("trace --from f", {"conversation": None, "recording": "f"}),
        ("topology --from f", {"recording": "f"}),
        ("monitor --events A B", {"events": ["A", "B"]}),
    ],
)
def test_what_tools_take_without_a_url(words: str, meant: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    name, *rest = words.split()
    monkeypatch.setenv("EDA_AMQP_URL", URL)
    args = vars(eda.load(name).parser().parse_args(rest))
    assert args["urls"] == (URL,)
    assert {key: args[key] for key in meant} == meant


def test_a_url_that_is_not_needed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDA_AMQP_URL", raising=False)
    args = eda.load("trace").parser().parse_args(["--from", "f", "conv"])
    assert (args.urls, args.conversation) == (None, "conv")
    assert eda.load("topology").parser().parse_args(["--from", "f"]).urls is None


@pytest.mark.parametrize("name", TOOLS)
def test_the_help_has_examples_that_are_valid(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDA_AMQP_URL", URL)
    found = eda.load(name)
    assert found.main(["--help"]) == cli.DONE
    told = capsys.readouterr().out
    assert " [amqp_url]" in told.partition("\n\n")[0] or name in ("trace", "topology")
    assert found.examples
    for example in found.examples:
        assert f"\n  {example}\n" in told
        words = shlex.split(example)
        words = words[words.index("eda") + 1 :]
        end = next((place for place, word in enumerate(words) if word in (">", "|")), None)
        assert words[0] == name
        assert found.parser().parse_args(words[1:end]).urls == (URL,)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "probe: the following arguments are required: amqp_url (or set EDA_AMQP_URL)"),
        (
            "there q",
            "probe: argument amqp_url: 'there' is no URL of a broker; give one before it, or set",
        ),
        (
            "http://guest:sekret@h/",
            "probe: argument amqp_url: broker URL 'http://guest:***@h/': the scheme ",
        ),
        ("amqp://guest:sek#ret@h:x/", "probe: argument amqp_url: broker URL 'amqp://guest:***@h:x/': "),
        ("-", "probe: argument amqp_url: the broker's URL is '-', but EDA_AMQP_URL is not set"),
        (f"{URL} q --count x", "probe: argument --count: 'x' is not a whole number, 0 or more"),
        (f"{URL} q --count -1", "probe: argument --count: "),
        (f"{URL} q --timeout 0", "probe: argument --timeout: '0' is not a number of seconds, more than 0"),
        (f"{URL} q --timeout nan", "probe: argument --timeout: 'nan' is not a number of seconds, more than 0"),
        (f"{URL} q --nope", "probe: unrecognized arguments: --nope"),
        (f"{URL} q --coun 1", "probe: unrecognized arguments: --coun 1"),
        (
            "--save there",
            "probe: argument amqp_url: 'there' is no URL of a broker; give one before it, or set",
        ),
        (f"{URL} q {URL}", "probe: unrecognized arguments: amqp://guest:***@127.0.0.1:1/"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    words: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDA_AMQP_URL", raising=False)
    ran = run_here(failing(AssertionError()), capsys, *words.split())
    assert (ran.status, ran.out) == (cli.USAGE, "")
    assert ran.line.startswith(told)
    assert ran.line.endswith("(see probe --help)")
    assert "sek" not in ran.err


def test_a_url_of_the_environment_that_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDA_AMQP_URL", "guest:sekret@h")
    ran = run_here(failing(AssertionError()), capsys, "-")
    assert ran.status == cli.USAGE
    assert "from EDA_AMQP_URL: " in ran.line
    assert "sekret" not in ran.err


def test_types_of_numbers() -> None:
    assert [seconds("1.5"), rate("0.1"), positive("1"), natural("0")] == [1.5, 0.1, 1, 0]
    for kind, wrong in ((seconds, "inf"), (rate, "0"), (positive, "0"), (natural, "1.5")):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(wrong)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("logger {url}", {"filter": []}),
        ("logger --filter a.* b.ERROR {url}", {"filter": ["a.*", "b.ERROR"]}),
        ("monitor {url}", {"events": None, "commands": None, "configurations": None, "save": None}),
        (
            "monitor --events A B --commands c.D --configurations E --save --json --filter_fields k=v l=w {url}",
            {
                "events": ["A", "B"],
                "commands": ["c.D"],
                "configurations": ["E"],
                "save": ".",
                "json": True,
                "filter_fields": [("k", "v"), ("l", "w")],
            },
        ),
        ("publish_event {url} Name p.json", {"event": "Name", "payload": "p.json"}),
        ("publish_configuration {url} Name p.cbor", {"event": "Name", "payload": "p.cbor"}),
        ("send_command {url} a.B p.json", {"command": "a.B", "payload": "p.json", "timeout": 30}),
        ("inspect_queue {url} q", {"queue": "q", "count": 0, "save": None}),
        ("inspect_queue --count 5 --save {url} q", {"queue": "q", "count": 5, "save": "."}),
        ("inspect_queue {url} --save q", {"queue": "q", "save": "."}),
        ("inspect_queue {url} q --save", {"queue": "q", "save": "."}),
        ("resurrect {url} q", {"queue": "q", "count": 0, "batch_size": 1}),
        (
            "resurrect --count 5 --batch_size 2 --filter A B {url} q",
            {"count": 5, "batch_size": 2},
        ),
    ],
)
def test_eventails_usage_stays_valid(words: str, meant: dict[str, Any]) -> None:
    name, *rest = words.format(url=URL).split()
    args = vars(eda.load(name).parser().parse_args(rest))
    assert args["urls"] == (URL,)
    assert {key: args[key] for key in meant} == meant


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("send_command {url} a.B --timeout 5 p.json", {"command": "a.B", "payload": "p.json", "timeout": 5}),
        ("publish_event --count 2 {url} --rate 3 Name --json -", {"event": "Name", "payload": "-", "count": 2}),
        ("publish_event {url} --data -1 Name", {"event": "Name", "payload": None, "data": "-1"}),
        ("inspect_queue {url} --save d q", {"queue": "q", "save": "d"}),
        ("inspect_queue {url} --save d --count 1 q", {"queue": "q", "save": "d", "count": 1}),
        ("inspect_queue --save d {url} q", {"queue": "q", "save": "d"}),
        ("resurrect --filter A B {url} --batch_size 2 q", {"queue": "q", "batch_size": 2}),
        ("doctor --service a b - --json", {"service": ["a", "b"], "json": True}),
    ],
)
def test_what_is_no_option_may_stand_anywhere(
    words: str, meant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDA_AMQP_URL", URL)
    name, *rest = words.format(url=URL).split()
    args = vars(eda.load(name).parser().parse_args(rest))
    assert args["urls"] == (URL,)
    assert {key: args[key] for key in meant} == meant


# --- exit statuses ---


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ToolError("it is\nodd at amqp://guest:sekret@h/", cli.PARTLY), cli.PARTLY, "it is odd at amqp://guest:***@h/"),
        (ToolError("no"), cli.FAILED, "no"),
        (LocalError("bad", hint="mend it"), cli.USAGE, "bad; mend it"),
        (PublishError("lost"), cli.FAILED, "lost"),
        (ServiceError("the broker refuses the credentials"), cli.NO_CONNECTION, "the broker refuses the credentials"),
        (ServiceError("on_ready failed"), cli.FAILED, "on_ready failed"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), cli.FAILED, "f: No space left on device"),
        (
            ZeroDivisionError("odd \x1b[31m"),
            cli.FAILED,
            r"unexpected ZeroDivisionError: odd \x1b[31m (EDA_DEBUG=1 shows where)",
        ),
    ],
)
def test_errors_are_one_line_and_a_status(
    error: BaseException, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_here(failing(error), capsys, URL)
    assert (ran.status, ran.out, ran.line) == (status, "", f"probe: {told}")


def test_tracebacks_and_logs_are_there_for_whoever_asks_without_passwords(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(args: argparse.Namespace, output: Output) -> int:
        logging.getLogger("a.library").debug("connecting to %s", args.urls[0])
        raise ZeroDivisionError(f"odd {args.urls[0]}")

    monkeypatch.setenv("EDA_DEBUG", "1")
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's handlers would count as the program's own
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    ran = run_here(tool(run), capsys, URL)
    assert ran.status == cli.FAILED
    assert "\nTraceback (most recent call last):\n" in ran.err
    assert "DEBUG:a.library:connecting to amqp://guest:***@127.0.0.1:1/\n" in ran.err
    assert ran.err.count("ZeroDivisionError: odd amqp://guest:***@127.0.0.1:1/") == 2
    assert "sekret" not in ran.err


def test_nobody_reading_any_more_is_a_good_end(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_here(failing(OutputClosed()), capsys, URL)
    assert (ran.status, ran.err) == (cli.DONE, "")


@pytest.mark.parametrize("swallow", [False, True])
def test_a_time_out_cancels_and_says_what_was_waited_for(swallow: bool, capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    async def run(args: argparse.Namespace, output: Output) -> int:
        output.doing = "waiting for Godot"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cleaned.append(True)
            if not swallow:
                raise
        return cli.DONE

    ran = run_here(tool(run), capsys, URL, "--timeout", "0.01")
    assert (ran.status, ran.line) == (cli.TIMED_OUT, "probe: waiting for Godot: timed out after 0.01 s")
    assert cleaned


# --- output ---


def test_json_is_one_object_per_line_in_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    async def run(args: argparse.Namespace, output: Output) -> int:
        assert output.json
        output.record({"é": "\ud800", "raw": b"x", "n": float("nan")})
        output.record({"line\nbreak": 1})
        output.note("and a\nnote")
        return cli.DONE

    ran = run_here(tool(run), capsys, URL, "--json")
    assert ran.objects == [{"é": "\ud800", "raw": "eA==", "n": "nan"}, {"line\nbreak": 1}]
    assert ran.line == "probe: and a note"


def test_long_lines_are_not_broken_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async def run(args: argparse.Namespace, output: Output) -> int:
        output.print("[bold]word[/] :smile: " * 100)
        return cli.DONE

    assert run_here(tool(run), capsys, URL).out == "[bold]word[/] :smile: " * 100 + "\n"


@pytest.mark.parametrize(
    ("arguments", "env", "coloured"),
    [((), {}, False), (("--color", "always"), {}, True), (("--color", "always"), {"NO_COLOR": "1"}, True)],
)
def test_colour_without_a_terminal(
    arguments: tuple[str, ...],
    env: dict[str, str],
    coloured: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ran = run_here(failing(ToolError("red")), capsys, URL, *arguments)
    assert ("\x1b[1;31m" in ran.err) == coloured


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    ("redirection", "status", "told"),
    [
        (">/dev/full", cli.FAILED, "standard output: No space left on device"),
        (">/dev/full --json", cli.FAILED, "standard output: No space left on device"),
        (">&-", cli.FAILED, "no queue is bound for the event Done"),
    ],
)
def test_standard_output_that_cannot_be_written(redirection: str, status: int, told: str) -> None:
    with EmbeddedBrokerThread() as broker:
        command = f"{sys.executable} -m eda_tools publish_event {broker.url} Done --data 1 {redirection}"
        ran = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=20)
    assert (ran.returncode, ran.stdout) == (status, "")
    assert ran.stderr.startswith(f"eda publish_event: {told}")
    assert ran.stderr.count("\n") == 1


# --- eda, and completion ---


def test_eventails_names_are_commands() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    scripts = pyproject["project"]["scripts"]
    assert scripts == {"eda": "eda_tools.cli.start:eda"} | {
        f"{name}.py": f"eda_tools.cli.start:{name}" for name in EVENTAILS
    }
    assert all(callable(getattr(start, target.partition(":")[2])) for target in scripts.values())
    assert {name: importlib.import_module(f"eda_tools.{name}").main for name in TOOLS} == {
        name: eda.load(name).main for name in TOOLS
    }


def test_no_command_shadows_a_module_of_python() -> None:
    """A script finds modules in its own directory first: a command ``trace.py`` would be the module ``trace`` for all
    scripts that are installed beside it."""
    assert {"trace", "logging"} <= sys.stdlib_module_names
    assert sys.stdlib_module_names.isdisjoint(EVENTAILS)


def test_eda_gathers_the_tools(capsys: pytest.CaptureFixture[str]) -> None:
    assert eda.main(["--help"]) == cli.DONE
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in (*TOOLS, *PROGRAMS))
    assert eda.main(["publish-event", "--help"]) == cli.DONE
    assert capsys.readouterr().out.startswith("usage: eda publish_event ")
    assert eda.main(["--version"]) == cli.DONE
    assert capsys.readouterr().out.startswith("eda-core ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "usage: eda [-h]"),
        (["nope"], "eda: there is no tool 'nope'; there are logger, monitor, "),
        (["moniter"], "eda: there is no tool 'moniter'; did you mean monitor?\n"),
        (["Doctor", "amqp://h/"], "eda: there is no tool 'Doctor'; did you mean doctor?\n"),
        (["inspect"], "eda: there is no tool 'inspect'; did you mean inspect_queue?\n"),
        (["send-comand"], "eda: there is no tool 'send-comand'; did you mean send_command?\n"),
        (["brocker"], "eda: there is no tool 'brocker'; did you mean broker?\n"),
        (["--nope", "monitor"], "eda: there is no tool '--nope'; there are logger, monitor, "),
        (["--print-completion", "fish"], "eda: argument --print-completion: invalid choice: 'fish' (choose from "),
    ],
)
def test_eda_without_a_tool_is_wrong_usage(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert eda.main(arguments) == cli.USAGE
    written = capsys.readouterr()
    assert not written.out
    assert written.err.startswith(told)
    assert not arguments or written.err.count("\n") == 1


#: What each tool is given behind the URL.
NEEDED = {
    "publish_event": "Done --data 1",
    "publish_configuration": "Settings --data 1",
    "send_command": "a.Do --data 1",
    "inspect_queue": "q",
    "resurrect": "q",
    "replay": os.devnull,  # a recording without messages
    "trace": "conversation",
    "unbind": "a Old",
    "topology": "--management http://127.0.0.1:1",
}


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_says_in_one_line_that_it_cannot_connect(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = NEEDED.get(name, "").split()
    ran = asyncio.run(run_tool(name, f"{URL},{URL}", *rest))
    assert (ran.status, ran.out) == (cli.NO_CONNECTION, "")
    assert ran.line.startswith(f"{name}.py: no connection to ")
    assert ran.line.endswith(": connection refused")
    monkeypatch.setenv("EDA_AMQP_URL", "http://guest:sekret@h/")
    ran = run_here(eda.load(name), capsys, "-", *rest)
    assert (ran.status, ran.out) == (cli.USAGE, "")
    assert "from EDA_AMQP_URL: broker URL 'http://guest:***@h/': the scheme is not amqp or amqps" in ran.line


@pytest.mark.parametrize("name", ["inspect_queue", "resurrect"])
@pytest.mark.parametrize(
    ("queue", "told"),
    [("x" * 256, "the queue 'xxx"), ("", "the queue is empty"), ("\udcff", r"the queue '\udcff' is not valid Unicode")],
)
def test_names_that_no_queue_can_have(name: str, queue: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with EmbeddedBrokerThread() as broker:
        ran = run_here(eda.load(name), capsys, broker.url, queue)
    assert (ran.status, ran.out) == (cli.USAGE, "")
    assert ran.line.startswith(f"{name}: {told}")


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_is_there_under_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = eda.load(name)
    assert found.name == name
    assert run_here(found, capsys, "--help").status == cli.DONE
    assert run_here(found, capsys, "--print-completion", "bash").status == cli.DONE


def test_modules_of_the_tools_load_nothing_slow_for_help() -> None:
    """--help is fast: what connects is loaded only to connect."""
    code = "import sys, eda_tools.monitor, eda_tools.send_command; print('eda_aio' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert ran.stdout == "False\n"
