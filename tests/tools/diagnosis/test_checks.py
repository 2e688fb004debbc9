"""What ``doctor`` makes of what it knows: each thing that can be wrong is found, and told with what mends it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eda_core.messages.routing import EXCHANGES
from eda_tools.diagnosis.checks import NOTE, PROBLEM, Finding, findings, shell
from eda_tools.diagnosis.facts import (
    Binding,
    Exchange,
    Policy,
    Queue,
    Survey,
    bindings_of,
    exchange_of,
    policies_of,
    queue_of,
)

DLX = Policy("DLX", r".*\.events|.*\.commands", {"dead-letter-exchange": "am-dlx"})


def healthy() -> Survey:
    """A broker as it should be, seen with the management API."""
    return Survey(
        "/",
        {name: Exchange(name, "topic", True, "") for name in (*EXCHANGES, "am-dlx")},
        {
            "a.events": Queue("a.events", 1, 0, "classic", arguments={}),
            "a.commands": Queue("a.commands", 2, 5, "classic", arguments={}),
            "a.events.retry.500": Queue("a.events.retry.500", 0, 1, "classic", arguments={}),
            "dead-letters": Queue("dead-letters", 0, 0, "classic", arguments={}),
            "amq.gen-1": Queue("amq.gen-1", 0, 0, "classic", durable=False, exclusive=True, arguments={}),
        },
        "am-dlx",
        bindings=[
            Binding("events", "a.events", "Ev"),
            Binding("commands", "a.commands", "a.Do"),
            Binding("configurations", "amq.gen-1", "Conf"),
            Binding("am-dlx", "dead-letters", "#"),
        ],
        policies=[DLX],
        operator_policies=[],
        version=(3, 10),
    )


def unmanaged() -> Survey:
    """The same by AMQP alone."""
    exchanges = {name: Exchange(name, wrong="") for name in (*EXCHANGES, "am-dlx")}
    return Survey("/", exchanges, {"a.events": Queue("a.events", 1, 0, "?", arguments={})}, "am-dlx", ["a"])


def only(survey: Survey, severity: str = PROBLEM) -> Finding:
    (found,) = (finding for finding in findings(survey) if finding.severity == severity)
    return found


def test_there_is_nothing_to_say_about_a_healthy_broker() -> None:
    assert findings(healthy()) == []
    (note,) = findings(unmanaged())
    assert (note.severity, note.check) == (NOTE, "not-checked")


def _wrong(name: str) -> Callable[[Survey], None]:
    def change(survey: Survey) -> None:
        survey.exchanges["events"] = exchange_of({"name": "events", "type": name, "durable": name != "topic"})

    return change


def _without(what: str, name: str) -> Callable[[Survey], None]:
    return lambda survey: getattr(survey, what).pop(name)


def _queue(**changed: Any) -> Callable[[Survey], None]:
    def change(survey: Survey) -> None:
        name = changed.get("name", "a.commands")
        survey.queues[name] = Queue(**{"name": name, "consumers": 1, "messages": 0, "type": "classic", **changed})

    return change


def _set(**changed: Any) -> Callable[[Survey], None]:
    def change(survey: Survey) -> None:
        for name, value in changed.items():
            setattr(survey, name, value)

    return change


def _told(pattern: str) -> Callable[[Survey], None]:
    """A pattern that Python does not know or takes for another, and what the broker says that applies by it."""

    def change(survey: Survey) -> None:
        survey.policies = [Policy("DLX", pattern, DLX.definition)]
        for queue in survey.queues.values():
            queue.told_policy = DLX.definition

    return change


SET_DLX = (
    r"rabbitmqctl set_policy -p / DLX '.*\.events|.*\.commands' "
    r"""'{"dead-letter-exchange":"am-dlx"}' --apply-to queues"""
)


@pytest.mark.parametrize(
    ("change", "check", "subjects", "text", "run"),
    [
        (
            _without("exchanges", "logs"),
            "exchange-missing",
            ("logs",),
            "there is no such exchange",
            ["rabbitmqadmin --vhost=/ declare exchange name=logs type=topic durable=true"],
        ),
        (
            _wrong("direct"),
            "exchange-wrong",
            ("events",),
            "it is of type direct, not topic",
            [
                "rabbitmqadmin --vhost=/ delete exchange name=events",
                "rabbitmqadmin --vhost=/ declare exchange name=events type=topic durable=true",
            ],
        ),
        (_wrong("topic"), "exchange-wrong", ("events",), "it is not durable", None),
        (
            _queue(name="a.events", consumers=0, messages=1),
            "queue-without-consumers",
            ("a.events",),
            "it has no consumers, and 1 message is in it",
            ["rabbitmqctl delete_queue -p / a.events --if-unused"],
        ),
        (
            _queue(consumers=0),
            "commands-unserved",
            ("a.commands",),
            "it has no consumers, and 0 messages are in it; nobody serves a.Do",
            ["rabbitmqctl delete_queue -p / a.commands --if-unused"],
        ),
        (
            _set(commands=["a.Do", "a.Other"]),
            "command-unserved",
            ("a.Other",),
            "nobody serves this command: no queue is bound for it on the exchange commands",
            [],
        ),
        (_set(services=["a", "gone"]), "service-missing", ("gone",), "it has no queue: neither gone.events nor", []),
        (_queue(durable=False), "queue-not-durable", ("a.commands",), "it is not durable", None),
        (
            _queue(name="b.events.retry.1000", consumers=0, messages=2),
            "retry-left-over",
            ("b.events.retry.1000",),
            "it is left over: b.events, whose retries wait in it, does not exist; 2 messages are in it",
            ["rabbitmqctl delete_queue -p / b.events.retry.1000 --if-unused"],
        ),
        (
            _set(policies=[]),
            "no-dead-letter-policy",
            ("a.commands", "a.events"),
            "there is no dead-letter policy",
            [SET_DLX],
        ),
        (
            _set(policies=[Policy("ttl", "^a\\.", {"message-ttl": 5}, 7, "all"), DLX]),
            "no-dead-letter-policy",
            ("a.commands", "a.events"),
            "there is no dead-letter policy",
            [
                r"rabbitmqctl set_policy -p / DLX-more '^(a\.commands|a\.events)$' "
                r"""'{"message-ttl":5,"dead-letter-exchange":"am-dlx"}' --apply-to queues --priority 8"""
            ],
        ),
        (
            _without("exchanges", "am-dlx"),
            "dead-letter-exchange-missing",
            ("am-dlx",),
            "there is no such exchange, where dead letters should go: they are lost",
            None,
        ),
        (
            lambda survey: (survey.bindings.pop(), survey.queues.pop("dead-letters")),
            "dead-letter-queue-missing",
            ("am-dlx",),
            "no queue is bound to it, so dead letters are lost",
            [
                "rabbitmqadmin --vhost=/ declare queue name=dead-letters durable=true",
                "rabbitmqadmin --vhost=/ declare binding source=am-dlx destination=dead-letters 'routing_key=#'",
            ],
        ),
        (
            # Declaring what is of another kind would be refused.
            lambda survey: (survey.bindings.pop(), _queue(name="dead-letters", type="quorum")(survey)),
            "dead-letter-queue-missing",
            ("am-dlx",),
            "no queue is bound to it, so dead letters are lost",
            ["rabbitmqadmin --vhost=/ declare binding source=am-dlx destination=dead-letters 'routing_key=#'"],
        ),
        (
            # The usual policy must not take the other queue from its own.
            _set(policies=[Policy("mine", r"^a\.events$", {"dead-letter-exchange": "am-dlx", "max-length": 9})]),
            "no-dead-letter-policy",
            ("a.commands",),
            "there is no dead-letter policy",
            [f"{SET_DLX} --priority -1"],
        ),
        (
            _queue(type="quorum"),
            "no-delivery-limit",
            ("a.commands",),
            "this quorum queue has no delivery limit",
            [
                r"rabbitmqctl set_policy -p / DLX-delivery-limit '^(a\.commands)$' "
                r"""'{"dead-letter-exchange":"am-dlx","delivery-limit":20}' --apply-to queues --priority 1"""
            ],
        ),
        (
            # Such a policy does not apply to classic queues at all.
            _set(policies=[Policy("DLX", "", {"dead-letter-exchange": "am-dlx", "delivery-limit": 3})]),
            "no-dead-letter-policy",
            ("a.commands", "a.events"),
            "there is no dead-letter policy",
            [SET_DLX.replace("/ DLX ", "/ DLX-2 ")],
        ),
    ],
)
def test_each_thing_that_is_wrong_is_found(
    change: Callable[[Survey], object], check: str, subjects: tuple[str, ...], text: str, run: list[str] | None
) -> None:
    survey = healthy()
    change(survey)
    found = only(survey)
    assert (found.check, found.subjects) == (check, subjects)
    assert found.text.startswith(text)
    assert run is None or list(found.run) == run
    assert found.run or found.advice


@pytest.mark.parametrize(
    "change",
    [
        _queue(type="quorum", arguments={"x-delivery-limit": 5}),
        lambda survey: (_queue(type="quorum")(survey), _set(version=(4, 0))(survey)),
        lambda survey: (
            _queue(type="quorum")(survey),
            survey.operator_policies.append(Policy("o", "", {"delivery-limit": 9})),
        ),
        lambda survey: survey.policies.insert(0, Policy("streams", "", {"max-age": "1D"}, 9)),
        lambda survey: survey.policies.insert(0, Policy("exchanges", "", {"alternate-exchange": "x"}, 9, "exchanges")),
        _told(r"\.(events|commands)\z"),
        _told(r"^[[:alnum:].]+$"),
        _queue(consumers=None, messages=None),
        _set(policies=[], queues={}, bindings=[Binding("am-dlx", "dead-letters", "#")]),
    ],
)
def test_what_is_not_wrong_is_not_told(change: Callable[[Survey], object]) -> None:
    survey = healthy()
    change(survey)
    assert [finding for finding in findings(survey) if finding.severity == PROBLEM] == []


def test_without_management_what_is_not_known_is_not_judged() -> None:
    survey = unmanaged()
    survey.exchanges.pop("am-dlx")
    survey.exchanges["logs"] = Exchange("logs", wrong=None)
    survey.commands = ["b.Do", "a.Do"]
    survey.queues["b.commands"] = Queue("b.commands", 0, 0)
    assert [(finding.severity, finding.check) for finding in findings(survey)] == [
        (PROBLEM, "queue-without-consumers"),
        (PROBLEM, "command-unserved"),
        (PROBLEM, "command-unserved"),
        (PROBLEM, "dead-letter-exchange-missing"),
        (NOTE, "exchange-unknown"),
        (NOTE, "not-checked"),
    ]


def test_dead_letters_that_wait_are_a_note() -> None:
    survey = healthy()
    _queue(name="dead-letters", consumers=0, messages=3)(survey)
    assert only(survey, NOTE).run == (
        "eda inspect_queue - dead-letters --headers-only",
        "eda resurrect - dead-letters",
    )


@pytest.mark.parametrize("name", ["a b", "'; touch /tmp/x; '", "$(id)", "x\n\x1b[31m'é", "a\\b\x07"])
def test_commands_are_safe_to_paste(name: str) -> None:
    survey = healthy()
    _queue(name=f"{name}.events", consumers=0)(survey)
    (line,) = next(each for each in findings(survey) if each.check == "queue-without-consumers").run
    assert line.isprintable()
    said = subprocess.run(["bash", "-c", f'rabbitmqctl() {{ printf "%s|" "$@"; }}; {line}'], capture_output=True)
    assert said.stdout.decode() == f"delete_queue|-p|/|{name}.events|--if-unused|"
    assert shell("plain") == "plain"


def test_every_check_is_in_the_docs() -> None:
    root = Path(__file__).parents[3]
    source = (root / "tools/eda_tools/diagnosis/checks.py").read_text()
    checks = set(re.findall(r'(?:Finding\(\s*(?:PROBLEM|NOTE),|check =|else)\s+"([a-z-]+)"', source))
    assert {"exchange-wrong", "commands-unserved", "queue-without-consumers", "no-delivery-limit"} < checks
    documented = (root / "docs/tools-conversations.rst").read_text()
    assert {check for check in checks if check not in documented} == set()


def test_rows_of_the_api_are_read_whatever_they_hold() -> None:
    assert bindings_of([{}, {"source": ""}, {"source": "events", "destination": "q"}]) == [
        Binding("events", "q", "", False)
    ]
    assert policies_of(None) is None
    assert policies_of([{"name": "p", "definition": [], "priority": None}]) == [Policy("p", "", {}, 0, "all")]
    assert queue_of({"name": "q", "arguments": {"x-queue-type": "quorum"}}).type == "quorum"
