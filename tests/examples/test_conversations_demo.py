"""The demo: its bookkeeping, its lines, and one run of all of it."""

import datetime
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eda_core import Command, Event, LogRecord, Result, criticality
from eda_tools.cli.catalogue import PROGRAMS, TOOLS
from examples.conversations.report import explanation, line, next_steps, results, rows
from examples.conversations.tally import Seen, Tally, seen

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)
ROOT = Path(__file__).parents[2]


def event(name: str, conversation_id: str = "c") -> Seen:
    return seen(Event(name, {}, conversation_id, {"app_id": "archive"}), NOW)


def log(level: int, outcome: str = "", conversation_id: str = "c", full: str = "") -> Seen:
    record = {
        "short_message": "it failed",
        "full_message": full,
        "level": level,
        "_outcome": outcome,
        "_routing_key": "anonymizer.AnonymizeText",
        "_conversation_id": conversation_id,
        "_logical_service": "anonymizer",
    }
    return seen(LogRecord(f"anonymizer.{criticality.LABELS[level]}", record, "", {}), NOW)


@pytest.fixture
def shown() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def tally(shown: list[tuple[str, str]]) -> Tally:
    return Tally(lambda message, file: shown.append((message.name, file)))


def test_messages_before_their_conversation_is_known(tally: Tally, shown: list[tuple[str, str]]) -> None:
    assert not tally.see(event("ConversationReceived"))
    assert not tally.see(event("ConversationReceived", "of another run"))
    tally.expect("c", "call.txt")
    assert shown == [("ConversationReceived", "call.txt")]
    tally.no_more()
    assert not tally.see(event("ConversationArchived", "of another run"))
    assert tally.see(event("ConversationArchived"))
    assert shown[1:] == [("ConversationArchived", "call.txt")]
    assert (tally.messages, tally.conversations, tally.archived, tally.unfinished) == (2, 1, 1, [])


def test_retries_and_dead_letters(tally: Tally) -> None:
    for key in "abc":
        tally.expect(key, f"{key}.txt")
    tally.no_more()
    assert tally.unfinished == ["a.txt", "b.txt", "c.txt"]
    tally.see(log(criticality.ALERT, "retry", "a", "Traceback\n ...\nValueError: 13\n"))
    tally.see(log(criticality.ALERT, "dead-letter", "a", "Traceback\n ...\nValueError: 13\n"))
    tally.see(log(criticality.ALERT, "", "b"))
    assert tally.unfinished == ["a.txt", "b.txt", "c.txt"]
    tally.see(log(criticality.EMERGENCY, "dead-letter", "a"))
    tally.see(log(criticality.EMERGENCY, "dead-letter", "b"))
    tally.see(event("ConversationArchived", "b"))
    tally.see(event("ConversationFailed", "c"))
    tally.see(event("ConversationFailed", "c"))
    assert tally.unfinished == []
    assert rows(tally) == [
        ("conversations in", 3),
        ("archived", 1),
        ("failed", 1),
        ("dead-lettered", 1),
        ("messages", 3),
        ("retries", 1),
    ]
    (letter,) = tally.dead_letters
    assert explanation(letter) == "dead letter a.txt: anonymizer.AnonymizeText: it failed (ValueError: 13)"


@pytest.mark.parametrize("payload", [None, 1, [], {}, {"level": "x", "short_message": 5, "full_message": {}}])
def test_any_log_record(payload: Any) -> None:
    assert seen(LogRecord("a.INFO", payload, "", {}), NOW).level == -1


def test_lines() -> None:
    result = Result("archive.TagTopicsReturn", {}, "12345678-9", "error", "k", {"app_id": "tagger"})
    cells = re.split("  +", line(seen(result, NOW), "call.txt", 200).plain)
    assert cells == ["03:04:05.678", "tagger", "result", "archive.TagTopicsReturn", "12345678 call.txt", "error", "{}"]
    command = seen(Command("a.B", {"a": 1}, "12345678-9", "c.D", "k", {"app_id": None}), NOW)
    cells = re.split("  +", line(command, "call.txt", 200).plain)
    assert (cells[1], cells[-2], cells[-1]) == ("-", "12345678 call.txt", '{"a": 1}')


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_lines_fit_any_screen_and_failures_are_whole(width: int) -> None:
    drawn = line(log(criticality.ALERT), "a-rather-long-name-of-a-file.txt", width).plain
    assert all(len(each) <= width for each in drawn.split("\n"))
    assert " ".join(drawn.split()).endswith("it failed")
    text = "payload " * 30
    drawn = line(seen(Event("ConversationReceived", {"text": text}, "12345678-9", {}), NOW), "call.txt", width).plain
    assert all(len(each) <= width for each in drawn.split("\n"))
    assert len(drawn.split("\n")) == 1 if width > 100 else len(drawn.split("\n")) < 6


def test_what_the_pipeline_has_found(tally: Tally) -> None:
    for key in "ab":
        tally.expect(key, f"{key}.txt")
    topics = [{"name": "billing", "score": 0.4}, {"name": "energy", "score": 0.2}]
    payload = {"name": "a.txt", "language": "en", "topics": topics, "counts": {"PHONE": 2, "CARD": 0, "EMAIL": 1}}
    for key, archived in (("b", "odd"), ("a", payload)):
        tally.see(seen(Event("ConversationArchived", archived, key, {}), NOW))
    assert results(tally) == [("a.txt", "en", "billing, energy", "1 email, 2 phone"), ("b.txt", "", "", "")]


def test_the_next_steps_are_three_and_their_tools_exist(capsys: pytest.CaptureFixture[str]) -> None:
    steps = next_steps()
    assert len(steps) == 3
    commands = [shlex.split(command) for _, lines in steps for command in lines]
    names = [words[place + 1] for words in commands for place, word in enumerate(words[:-1]) if word.endswith("eda")]
    assert names == ["broker", "monitor", "inspect_queue"]
    assert set(names) <= TOOLS.keys() | PROGRAMS.keys()


def test_nothing_in_a_message_breaks_a_line_or_commands_the_terminal() -> None:
    assert seen(Event("a\x1b[2J\nb", {}, "c", {"app_id": "\x07x\ty"}), NOW).name == "a[2J b"


def run_demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "EDA_AMQP_URL"}
    path = os.pathsep.join(str(ROOT / part) for part in (".", "adapters", "tools"))
    return subprocess.run(
        [sys.executable, "-m", "examples.conversations.demo", *arguments],
        env={**inherited, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_whole_run() -> None:
    done = run_demo()
    assert (done.returncode, done.stderr) == (0, "")
    run, found, counts, steps = done.stdout.split("\n\n")
    lines = counts.splitlines()
    table = dict(line.rsplit(None, 1) for line in lines[:-1])
    # Six messages for each archived conversation, two for the poisoned one.
    assert table == {
        "conversations in": "13",
        "archived": "12",
        "dead-lettered": "1",
        "messages": "74",
        "retries": "1",
    }
    assert lines[-1].startswith("dead letter 13-telecom-card-update-en.txt: ")
    assert "ValueError: month must be in 1..12" in lines[-1]
    assert sum("  ConversationArchived " in line for line in run.splitlines()) == 12
    assert len(found.splitlines()) == 13
    assert re.search(
        r"^02-telecom-facture-fr.txt +fr +billing +1 email, 1 person, 1 phone$",
        re.sub(" +$", "", found, flags=re.M),
        re.M,
    )
    assert steps.startswith("Next steps:\n1. ")
    failed, gave_up = (
        datetime.datetime.fromisoformat(f"2026-01-01T{line[:12]}")
        for line in run.splitlines()
        if "  anonymizer.ALERT " in line
    )
    # After 2 s. The times are those at which the lines were printed: on a busy machine the first one may be late.
    assert gave_up - failed > datetime.timedelta(seconds=1.0), "the retry is slow enough to be seen"


@pytest.mark.parametrize(("argument", "problem"), [("missing", "no such directory"), ("empty", "holds no *.txt file")])
def test_a_wrong_directory(tmp_path: Path, argument: str, problem: str) -> None:
    (tmp_path / "empty").mkdir()
    done = run_demo(str(tmp_path / argument))
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("url", "status"), [("http://u:secret@127.0.0.1/", 2), ("amqp://u:secret@127.0.0.1:1/", 1)])
def test_a_wrong_broker(url: str, status: int) -> None:
    done = run_demo(EDA_AMQP_URL=url)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr
