"""The checks of ``doctor``: each finds what it is for, and tells what mends it."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eda_aio
import eda_pika
from eda_core.messages.routing import EXCHANGES
from eda_core.services.handlers import Handlers
from eda_tools.cli.status import ToolError
from eda_tools.diagnosis.checks import (
    LEFT_OVER,
    LOSS,
    NOTE,
    NOTES,
    PROBLEM,
    UNSERVED,
    Check,
    failed_checks,
    shell,
)
from eda_tools.diagnosis.facts import (
    Binding,
    Exchange,
    Facts,
    Policy,
    Queue,
    bindings_of,
    exchange_of,
    policies_of,
    queue_of,
)
from eda_tools.diagnosis.handlers import load, service_class, unhandled

DLX = Policy("DLX", r".*\.events|.*\.commands", {"dead-letter-exchange": "am-dlx"})


def healthy() -> Facts:
    """A broker on which nothing is wrong, with what the management API tells."""
    return Facts(
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


def unmanaged() -> Facts:
    """The same broker, with what AMQP alone tells."""
    exchanges = {name: Exchange(name, wrong="") for name in (*EXCHANGES, "am-dlx")}
    return Facts("/", exchanges, {"a.events": Queue("a.events", 1, 0, "?", arguments={})}, "am-dlx", ["a"])


def only(facts: Facts, severity: str = PROBLEM) -> Check:
    (found,) = (each for each in failed_checks(facts) if each.severity == severity)
    return found


def test_there_is_nothing_to_say_about_a_healthy_broker() -> None:
    assert failed_checks(healthy()) == []
    (note,) = failed_checks(unmanaged())
    assert (note.severity, note.name) == (NOTE, "not-checked")


def _wrong(name: str) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        facts.exchanges["events"] = exchange_of({"name": "events", "type": name, "durable": name != "topic"})

    return change


def _without(what: str, name: str) -> Callable[[Facts], None]:
    return lambda facts: getattr(facts, what).pop(name)


def _queue(**changed: Any) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        name = changed.get("name", "a.commands")
        facts.queues[name] = Queue(**{"name": name, "consumers": 1, "messages": 0, "type": "classic", **changed})

    return change


def _set(**changed: Any) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        for name, value in changed.items():
            setattr(facts, name, value)

    return change


def _told(pattern: str) -> Callable[[Facts], None]:
    """A policy whose pattern Python cannot read as the broker does; the broker tells to which queues it applies."""

    def change(facts: Facts) -> None:
        facts.policies = [Policy("DLX", pattern, DLX.definition)]
        for queue in facts.queues.values():
            queue.told_policy = DLX.definition

    return change


#: Definitions, as ``rabbitmqctl export_definitions`` writes them.
DURABLE = {"vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}
TOPIC = DURABLE | {"type": "topic", "internal": False}
BINDING = {
    "source": "am-dlx",
    "vhost": "/",
    "destination": "dead-letters",
    "destination_type": "queue",
    "routing_key": "#",
    "arguments": {},
}


def _imports(**definitions: object) -> dict[str, object]:
    """Stands for a line that imports these definitions, with the keys in any order."""
    return definitions


def _imported(line: str) -> dict[str, object] | str:
    """The definitions that a line imports; the line itself if it imports none."""
    printf, _, command = line.rpartition(" >/tmp/eda-definitions.json && ")
    if command != "rabbitmqctl import_definitions /tmp/eda-definitions.json":
        return line
    definitions: dict[str, object] = json.loads(shlex.split(printf)[2])
    return definitions


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
            [_imports(exchanges=[TOPIC | {"name": "logs"}])],
        ),
        (
            _wrong("direct"),
            "exchange-wrong",
            ("events",),
            "it is of type direct, not topic",
            [
                "rabbitmqadmin --vhost=/ delete exchange --name=events || "
                "rabbitmqadmin --vhost=/ delete exchange name=events",
                _imports(exchanges=[TOPIC | {"name": "events"}]),
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
            [_imports(exchanges=[TOPIC | {"name": "am-dlx"}], bindings=[BINDING])],
        ),
        (
            lambda facts: (facts.bindings.pop(), facts.queues.pop("dead-letters")),
            "dead-letter-queue-missing",
            ("am-dlx",),
            "no queue is bound to it, so dead letters are lost",
            [_imports(queues=[DURABLE | {"name": "dead-letters"}], bindings=[BINDING])],
        ),
        (
            # The broker would refuse to declare an existing queue of another kind.
            lambda facts: (facts.bindings.pop(), _queue(name="dead-letters", type="quorum")(facts)),
            "dead-letter-queue-missing",
            ("am-dlx",),
            "no queue is bound to it, so dead letters are lost",
            [_imports(bindings=[BINDING])],
        ),
        (
            # The usual policy must not replace the policy of the other queue.
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
    change: Callable[[Facts], object], check: str, subjects: tuple[str, ...], text: str, run: list[object] | None
) -> None:
    facts = healthy()
    change(facts)
    found = only(facts)
    assert (found.name, found.subjects) == (check, subjects)
    assert found.text.startswith(text)
    assert run is None or [_imported(line) for line in found.run] == run
    assert found.run or found.advice


@pytest.mark.parametrize(
    "change",
    [
        _queue(type="quorum", arguments={"x-delivery-limit": 5}),
        lambda facts: (_queue(type="quorum")(facts), _set(version=(4, 0))(facts)),
        lambda facts: (
            _queue(type="quorum")(facts),
            facts.operator_policies.append(Policy("o", "", {"delivery-limit": 9})),
        ),
        lambda facts: facts.policies.insert(0, Policy("streams", "", {"max-age": "1D"}, 9)),
        lambda facts: facts.policies.insert(0, Policy("exchanges", "", {"alternate-exchange": "x"}, 9, "exchanges")),
        _told(r"\.(events|commands)\z"),
        _told(r"^[[:alnum:].]+$"),
        _queue(consumers=None, messages=None),
        _set(policies=[], queues={}, bindings=[Binding("am-dlx", "dead-letters", "#")]),
    ],
)
def test_what_is_not_wrong_is_not_told(change: Callable[[Facts], object]) -> None:
    facts = healthy()
    change(facts)
    assert [each for each in failed_checks(facts) if each.severity == PROBLEM] == []


def test_without_management_what_is_not_known_is_not_judged() -> None:
    facts = unmanaged()
    facts.exchanges.pop("am-dlx")
    facts.exchanges["logs"] = Exchange("logs", wrong=None)
    facts.commands = ["b.Do", "a.Do"]
    facts.queues["b.commands"] = Queue("b.commands", 0, 0)
    assert [(each.severity, each.name) for each in failed_checks(facts)] == [
        (PROBLEM, "dead-letter-exchange-missing"),
        (PROBLEM, "queue-without-consumers"),
        (PROBLEM, "command-unserved"),
        (PROBLEM, "command-unserved"),
        (NOTE, "exchange-unknown"),
        (NOTE, "not-checked"),
    ]


def test_dead_letters_that_wait_are_a_note() -> None:
    facts = healthy()
    _queue(name="dead-letters", consumers=0, messages=3)(facts)
    assert only(facts, NOTE).run == (
        "eda inspect_queue dead-letters --headers-only",
        "eda resurrect dead-letters",
    )


@pytest.mark.parametrize("name", ["a b", "'; touch /tmp/x; '", "$(id)", "x\n\x1b[31m'é", "a\\b\x07"])
def test_commands_are_safe_to_paste(name: str, tmp_path: Path) -> None:
    facts = healthy()
    _queue(name=f"{name}.events", consumers=0)(facts)
    (line,) = next(each for each in failed_checks(facts) if each.name == "queue-without-consumers").run
    assert line.isprintable()
    said = subprocess.run(["bash", "-c", f'rabbitmqctl() {{ printf "%s|" "$@"; }}; {line}'], capture_output=True)
    assert said.stdout.decode() == f"delete_queue|-p|/|{name}.events|--if-unused|"
    facts = healthy()
    facts.policies = []
    facts.dead_letter_exchange = name
    (line,) = next(each for each in failed_checks(facts) if each.name == "dead-letter-exchange-missing").run
    assert line.isprintable()
    line = line.replace("/tmp/eda-definitions.json", str(tmp_path / "definitions"))
    for program in ("bash", "sh"):
        said = subprocess.run([program, "-c", f'rabbitmqctl() {{ cat "$2"; }}; {line}'], capture_output=True)
        assert json.loads(said.stdout)["exchanges"][0]["name"] == name
    assert shell("plain") == "plain"


@pytest.mark.parametrize(
    ("url", "old", "new"),
    [
        ("http://localhost:15672", "--port=15672 --vhost=/", "--port=15672 --vhost=/"),
        ("http://rabbit", "--host=rabbit --vhost=/", "--host=rabbit --vhost=/"),
        (
            "https://rabbit/prefix",
            "--host=rabbit --port=443 --vhost=/ --ssl --path-prefix=/prefix",
            "--host=rabbit --port=443 --vhost=/ --use-tls --path-prefix=/prefix/api",
        ),
    ],
)
def test_both_versions_of_rabbitmqadmin_are_told_where_the_api_is(url: str, old: str, new: str) -> None:
    facts = healthy()
    facts.management = url
    _wrong("direct")(facts)
    assert only(facts).run[0] == (
        f"rabbitmqadmin {new} delete exchange --name=events || rabbitmqadmin {old} delete exchange name=events"
    )
    facts.version = (4, 0)
    assert only(facts).run[0] == f"rabbitmqadmin {new} delete exchange --name=events"


def test_what_loses_messages_comes_first() -> None:
    facts = healthy()
    _without("exchanges", "logs")(facts)
    _queue(name="b.events.retry.1000", consumers=0, messages=2)(facts)
    _queue(name="dead-letters", consumers=0, messages=3)(facts)
    facts.policies = []
    _queue(durable=False, consumers=0)(facts)
    assert [(each.group, each.name) for each in failed_checks(facts)] == [
        (LOSS, "queue-not-durable"),
        (LOSS, "no-dead-letter-policy"),
        (UNSERVED, "exchange-missing"),
        (UNSERVED, "commands-unserved"),
        (LEFT_OVER, "retry-left-over"),
        (NOTES, "dead-letters"),
    ]


def test_a_worker_that_waits_for_its_configuration_is_no_problem() -> None:
    facts = healthy()
    _queue(consumers=0, messages=2)(facts)
    facts.connected = {"b"}
    assert only(facts).name == "commands-unserved"
    facts.connected = {"a"}
    waits = only(facts, NOTE)
    assert (waits.name, waits.subjects) == ("worker-waits", ("a.commands",))
    assert waits.text.startswith("a is connected but does not consume: it waits for its configuration, or ")
    assert waits.text.endswith("; 2 messages are in it")
    assert [each for each in failed_checks(facts) if each.severity == PROBLEM] == []
    facts = unmanaged()
    facts.queues["a.events"].consumers = 0
    assert only(facts).text.endswith(" (a worker that waits for its configuration does not consume either)")


class Plain(Handlers):
    def on_Ev(self) -> None: ...

    def on_Do(self) -> None: ...


class Catching(Plain):
    def handle_event(self, *args: Any, **keys: Any) -> None: ...


def test_bindings_without_a_handler_are_found() -> None:
    facts = healthy()
    old = [("events", "a.events", "Old"), ("events", "a.events", "Call.Old"), ("commands", "a.commands", "a.OldReturn")]
    others = [("events", "a.events", "Call.*"), ("events", "b.events", "Old"), ("events", "a.commands", "Odd")]
    assert facts.bindings is not None
    facts.bindings = [*facts.bindings, *(Binding(*each) for each in old + others)]
    facts.unhandled = list(unhandled("a", Plain, facts.bindings))
    first, second = (each for each in failed_checks(facts) if each.name == "binding-unhandled")
    assert (first.group, first.subjects, first.run) == (
        LEFT_OVER,
        ("a.events",),
        ("eda unbind a Old Call.Old --yes",),
    )
    assert second.run == ("eda unbind a a.OldReturn --yes",)
    assert list(unhandled("a", Catching, facts.bindings)) == [("a", "a.commands", "a.OldReturn")]
    for adapter in (eda_aio, eda_pika):
        own = type("Own", (adapter.Service,), {"on_Ev": Plain.on_Ev, "on_Do": Plain.on_Do})
        assert len(list(unhandled("a", own, facts.bindings))) == 3


@pytest.mark.parametrize("text", ["a", "a=b", "a=b:", "=b:C", "a=:C"])
def test_what_names_no_class(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not SERVICE=module:Class"):
        service_class(text)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere_at_all:C", "there is no module nowhere_at_all"),
        ("mine:No", "mine has no No; it defines Odd, Mine"),
        ("mine:NUMBER", "mine:NUMBER is no class of a service"),
        ("mine:Odd", "mine:Odd is no class of a service"),
    ],
)
def test_what_is_no_class_of_a_service(path: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "NUMBER = 1\nclass Odd: ...\nfrom eda_aio import Service\nclass Mine(Service): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(ToolError) as caught:
        load(service_class(f"a={path}"))
    assert str(caught.value).startswith(told)
    assert load(service_class("a=mine:Mine")).__name__ == "Mine"


def test_every_check_is_in_the_docs() -> None:
    root = Path(__file__).parents[3]
    source = (root / "tools/eda_tools/diagnosis/checks.py").read_text()
    checks = set(re.findall(r'(?:Check\(\s*(?:PROBLEM|NOTE),|name =|else)\s+"([a-z-]+)"', source))
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
