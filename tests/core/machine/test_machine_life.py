"""What a service writes to the local log about its life, and the names of all that it writes there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import eda_core
from eda_core._version import __version__
from eda_core.criticality import ERROR, NOTICE
from eda_core.machine import events
from eda_core.machine.effects import VHOST, Declare, Report
from eda_core.machine.outcomes import CONFIGURED, Failed
from tests.core.kit import LIFE, REJECTED, Bench, only

ROOT = Path(inspect.getfile(eda_core)).parent


def life(bench: Bench) -> list[tuple[str, str]]:
    """The name and the text of each report about the life of the service, so far."""
    return [(each.event, each.text) for each in bench.seen if isinstance(each, Report) and each.event in LIFE]


def connected(bench: Bench, broker: str = "RabbitMQ 4.3.6", library: str = "carrier 1.0") -> None:
    bench.connect()
    up = bench.machine.link_up(bench.epoch, bench.now, broker=broker, library=library)
    bench.declared(only(Declare, bench.declared(only(Declare, bench.did(up)))))


def test_a_start_names_versions_broker_queues_and_prefetch() -> None:
    bench = Bench(urls=["amqp://user:secret@one/"], events=["Happened"], commands=["svc.Do"], prefetch=7)
    connected(bench)
    assert life(bench) == [
        (
            "started",
            f"started: svc@box:7, eda-core {__version__} on carrier 1.0; RabbitMQ 4.3.6 at amqp://user:***@one/; "
            "queues svc.events, svc.commands; prefetch 7",
        ),
        ("ready", "ready: receives events, commands"),
    ]
    assert {each.level for each in bench.seen if isinstance(each, Report)} == {NOTICE}


def test_what_is_not_known_is_left_out() -> None:
    bench = Bench(urls=["amqp://one/"], events=[], commands=[])
    connected(bench, "", "")
    (_, started), (_, ready) = life(bench)
    assert started == f"started: svc@box:7, eda-core {__version__}; broker at amqp://one/; queues none; prefetch 10"
    assert ready == "ready: receives nothing, publishes only"


def test_a_service_with_configurations_is_configured_and_then_ready() -> None:
    bench = Bench(events=["Happened"], commands=[], configurations=["Settings"])
    connected(bench)
    assert [name for name, _ in life(bench)] == ["started"]
    bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    assert life(bench)[1:] == [
        ("configured", "configured"),
        ("ready", "ready: receives events, configurations"),
    ]


def test_a_new_link_says_how_long_there_was_none() -> None:
    bench = Bench(urls=["amqp://one/"], events=["Happened"], commands=[])
    connected(bench)
    bench.lose()
    bench.now += 2.0
    bench.connect()
    bench.lose("again")  # the time counts from the loss of the open link
    bench.now += 3.0
    since = bench.now
    connected(bench)
    (name, text), ready = life(bench)[2:]
    assert (name, ready) == ("reconnected", ("ready", "ready: receives events"))
    assert text.startswith("reconnected after ")
    assert float(text.split()[2]) >= 5.0 + bench.now - since - 0.1
    assert text.endswith(" s: RabbitMQ 4.3.6 at amqp://one/")


def test_it_is_ready_while_it_receives_its_messages() -> None:
    bench = Bench(events=["Happened"], commands=[], configurations=["Settings"])
    assert not bench.machine.ready
    connected(bench)
    assert not bench.machine.ready, "it waits for its configuration"
    bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    assert bench.machine.ready
    bench.lose()
    assert not bench.machine.ready
    connected(bench)
    bench.handled(bench.take("Settings", exchange="configurations"), CONFIGURED)
    assert bench.machine.ready
    bench.take()
    bench.stop()
    assert not bench.machine.ready, "it takes no new messages"


def test_the_end_counts_what_was_done() -> None:
    bench = Bench(events=["Happened"])
    connected(bench)
    bench.handled(bench.take())
    bench.handled(bench.take(), Failed("ValueError: no"))
    bench.confirm(bench.send())
    bench.stop()
    bench.did(bench.machine.link_down(bench.epoch, "closed", bench.now))
    assert life(bench)[-1] == ("stopped", "stopped: handled 1, failed 1, published 1")


def test_an_end_that_nobody_asked_for_is_an_error_with_its_reason() -> None:
    bench = Bench(urls=["amqp://one/"])
    bench.connect()
    bench.lose("vhost not found: 'x'", refused=VHOST)
    last = [each for each in bench.seen if isinstance(each, Report)][-1]
    reason = "the broker refuses the credentials or the vhost on every URL: amqp://one/: vhost not found: 'x'"
    assert (last.level, last.event) == (ERROR, "stopped")
    assert last.text == f"stopped: {reason}; handled 0, failed 0, published 0"


# Failures


def reports(bench: Bench, name: str) -> list[str]:
    return [each.text for each in bench.seen if isinstance(each, Report) and each.event == name]


def test_the_local_log_has_the_traceback_of_the_first_attempt_only() -> None:
    bench = Bench(events=["Happened"])
    connected(bench)
    for redelivered in (False, True):
        failure = Failed("ValueError: no", "Traceback …\nValueError: no")
        bench.handled(bench.take(message_id="m", redelivered=redelivered), failure)
    assert reports(bench, events.HANDLER_FAILED) == [
        "Happened: ValueError: no\nTraceback …\nValueError: no",
        "Happened: ValueError: no",
    ]
    text = f"giving up on Happened after 2 attempt(s): {REJECTED}; its message_id is m"
    assert reports(bench, events.GIVING_UP) == [text]


@pytest.mark.parametrize(
    ("current", "words"),
    [
        ("inequivalent arg 'x-dead-letter-exchange' for queue 'svc.events': received none but current is the value "
         "'am-dlx' of type 'longstr'", "dead-lettered"),
        ("inequivalent arg 'x-queue-type' for queue 'svc.events': received none but current is the value 'quorum'",
         REJECTED),
    ],
)  # fmt: skip
def test_dead_letters_are_claimed_where_the_broker_has_named_their_exchange(current: str, words: str) -> None:
    bench = Bench(events=["Happened"])
    bench.connect()
    declare = bench.link_up()
    queue = next(each for each in declare.commands if getattr(each, "queue", ""))
    refusal = f"PRECONDITION_FAILED - {current}"
    bench.did(bench.machine.channel_closed(bench.epoch, refusal, bench.now, declaration=queue))
    bench.open()
    bench.handled(bench.take(), Failed("ValueError: no", permanent=True))
    [line] = reports(bench, events.GIVING_UP)
    assert line == f"giving up on Happened after 1 attempt(s): {words}; its message_id is id-2-1"


# Names


def names() -> dict[str, str]:
    """The names, by the constant for each."""
    return {name: value for name, value in vars(events).items() if name.isupper()}


def levels() -> dict[str, str]:
    """The levels that the comments give, by constant."""
    found = re.findall(r'^([A-Z_]+): Final = "[a-z-]+"  # ([A-Z or]+): ', inspect.getsource(events), re.MULTILINE)
    assert len(found) == len(names())
    return dict(found)


def test_each_report_of_the_core_and_the_adapters_has_a_name() -> None:
    """A ``Report`` has a third argument, and a call of ``report`` has, too."""
    found = 0
    used: set[str] = set()
    for room in (ROOT / "machine", ROOT / "drivers", ROOT / "services", ROOT.parent / "adapters"):
        for path in room.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if called == "Report" or (called == "report" and isinstance(node.func, ast.Attribute)):
                    assert len(node.args) == 3, f"{path}:{node.lineno} reports without a name"
                    found += 1
                    level, event = node.args[0], ast.unparse(node.args[2]).rpartition(".")[2].removeprefix("HAS_")
                    if called == "Report" and isinstance(level, ast.Name) and level.id.isupper():
                        assert level.id in levels()[event], f"{path}:{node.lineno} reports at another level"
    for path in (*ROOT.rglob("*.py"), *(ROOT.parent / "adapters").rglob("*.py")):
        if path.name != "events.py":
            text = path.read_text()
            used |= {name for name in names() if name in text}
    assert found > 20
    assert used == set(names()), "a name that nothing reports"


def test_names_are_unique_and_can_be_searched_for() -> None:
    values = list(names().values())
    assert len(set(values)) == len(values) > 20
    assert all(value.replace("-", "").isalpha() and value.islower() for value in values)
