"""The declarations of a service, written and read by pamqp."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import base
from pamqp import frame as pamqp_frame
from pamqp.commands import Basic, Exchange, Queue

from eda_core.errors import LocalError
from eda_core.machine import topology
from eda_core.machine.config import Config
from eda_core.machine.topology import (
    REPLIES,
    Subscription,
    any_binding,
    bindings,
    declarations,
    queue_names,
    subscriptions,
)

#: Its milliseconds make the longest name of a queue for retries.
LONGEST_DELAY = 4_000_000.0


def config(service: str = "s", **settings: Any) -> Config:
    return Config.make("amqp://localhost", service, **settings)


def everything(**settings: Any) -> Config:
    return config(
        events=["Done", "Begun"], commands=["s.Do", "s.DoReturn"], configurations=["Set"], logs=["#"], **settings
    )


def written(commands: tuple[base.Frame, ...]) -> list[base.Frame]:
    """Write and read a command, so that the test fails if pamqp cannot write it."""
    read = [pamqp_frame.unmarshal(pamqp_frame.marshal(command, 1))[2] for command in commands]
    assert all(isinstance(command, base.Frame) for command in read)
    return [command for command in read if isinstance(command, base.Frame)]


def test_business_queues_are_shared_and_those_for_configurations_and_logs_are_the_brokers() -> None:
    assert subscriptions(everything()) == (
        Subscription("events", "s.events", ("Done", "Begun")),
        Subscription("commands", "s.commands", ("s.Do", "s.DoReturn")),
        Subscription("configurations", "", ("Set",)),
        Subscription("logs", "", ("#",)),
    )


def test_tools_use_queues_that_vanish_for_everything() -> None:
    wanted = subscriptions(everything(exclusive_queues=True))
    assert [subscription.queue for subscription in wanted] == [""] * 4


def test_without_keys_there_is_no_queue() -> None:
    assert subscriptions(config()) == ()
    assert subscriptions(config(commands=["s.Do"])) == (Subscription("commands", "s.commands", ("s.Do",)),)


def test_all_exchanges_are_declared_whatever_is_subscribed() -> None:
    declared = written(declarations((), ()))
    assert all(isinstance(command, Exchange.Declare) for command in declared)
    assert [
        (command.exchange, command.exchange_type, command.durable, command.passive, command.auto_delete)
        for command in declared
        if isinstance(command, Exchange.Declare)
    ] == [(name, "topic", True, False, False) for name in ("events", "commands", "configurations", "logs")]


def queues_in(commands: list[base.Frame]) -> list[Queue.Declare]:
    return [command for command in commands if isinstance(command, Queue.Declare)]


def test_shared_queues_are_durable_and_have_no_arguments_and_the_others_are_exclusive() -> None:
    """With other arguments than before, the broker would close the channel of each service in production."""
    declared = written(declarations(subscriptions(everything()), ()))
    assert [
        (command.queue, command.durable, command.exclusive, command.auto_delete, command.arguments)
        for command in queues_in(declared)
    ] == [
        ("s.events", True, False, False, {}),
        ("s.commands", True, False, False, {}),
        ("", False, True, False, {}),
        ("", False, True, False, {}),
    ]


def test_retry_queues_come_last_one_for_each_shared_queue_and_delay() -> None:
    declared = queues_in(written(declarations(subscriptions(everything()), (1.5, 60, 1.5))))
    assert [command.queue for command in declared[4:]] == [
        "s.events.retry.1500",
        "s.events.retry.60000",
        "s.commands.retry.1500",
        "s.commands.retry.60000",
    ]
    assert all(command.durable and not command.exclusive for command in declared[4:])
    assert declared[4].arguments == {
        "x-message-ttl": 1500,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "s.events",
    }


def test_queues_of_tools_have_no_retry_queues() -> None:
    assert len(queues_in(written(declarations(subscriptions(everything(exclusive_queues=True)), (1.5,))))) == 4


def replies(*queues: str) -> list[base.Frame]:
    return [Exchange.DeclareOk(), *(Queue.DeclareOk(queue, 0, 0) for queue in queues)]


def test_the_names_of_the_queues_are_read_off_the_replies() -> None:
    wanted = subscriptions(everything())
    names = ["s.events", "s.commands", "amq.gen-1", "amq.gen-2"]
    expected = dict(zip(("events", "commands", "configurations", "logs"), names, strict=True))
    assert queue_names(wanted, replies(*names)) == expected
    assert queue_names(wanted, replies(*names, "s.events.retry.1500")) == expected
    assert queue_names((), replies()) == {}


@pytest.mark.parametrize(
    "answers", [[], replies("s.events"), replies("s.events", ""), [Queue.BindOk(), Queue.BindOk()]]
)
def test_replies_that_do_not_fit_give_no_names(answers: list[base.Frame]) -> None:
    wanted = subscriptions(config(events=["Done"], configurations=["Set"]))
    assert queue_names(wanted, answers) is None


@pytest.mark.parametrize("name", ["amq.gen-é", "amq\ngen"])
def test_a_name_that_cannot_be_written_is_none(name: str) -> None:
    answers = replies("amq.gen-1")
    setattr(answers[-1], "queue", name)  # noqa: B010 - pamqp checks it when it is given, and a broker is free to
    assert queue_names(subscriptions(config(configurations=["Set"])), answers) is None


def test_results_of_calls_come_to_a_queue_of_this_worker_alone() -> None:
    """It is bound to the same exchange as the service's queue for commands, so it has its own consumer tag."""
    wanted = (*subscriptions(config(commands=["s.Do"])), topology.replies("s.token"))
    (_, declared) = queues_in(written(declarations(wanted, (1.5,))))[:2]
    assert (declared.queue, declared.durable, declared.exclusive) == ("", False, True)
    assert len(queues_in(written(declarations(wanted, (1.5,))))) == 3, "no retries of results"
    names = queue_names(wanted, replies("s.commands", "amq.gen-1", "s.commands.retry.1500"))
    assert names == {"commands": "s.commands", REPLIES: "amq.gen-1"}
    bound = [command for command in written(bindings(wanted, names, 7)) if isinstance(command, Queue.Bind)]
    assert [(command.queue, command.exchange, command.routing_key) for command in bound] == [
        ("s.commands", "commands", "s.Do"),
        ("amq.gen-1", "commands", "s.token"),
    ]


def test_every_key_is_bound_and_then_comes_the_prefetch() -> None:
    wanted = subscriptions(config(events=["Done", "Begun.#", ""], configurations=["Set"]))
    *bound, qos = written(bindings(wanted, {"events": "s.events", "configurations": "amq.gen-1"}, 7))
    assert [
        (command.queue, command.exchange, command.routing_key) for command in bound if isinstance(command, Queue.Bind)
    ] == [
        ("s.events", "events", "Done"),
        ("s.events", "events", "Begun.#"),
        ("s.events", "events", ""),
        ("amq.gen-1", "configurations", "Set"),
    ]
    assert len(bound) == 4
    assert isinstance(qos, Basic.Qos)
    assert (qos.prefetch_count, qos.prefetch_size, qos.global_) == (7, 0, False)


def test_the_first_binding_is_there_by_itself() -> None:
    wanted = subscriptions(config(events=["Done", "Begun.#"], configurations=["Set"]))
    queues = {"events": "s.events", "configurations": "amq.gen-1"}
    first, *_ = bindings(wanted, queues, 7)
    assert any_binding(wanted, queues).marshal() == first.marshal()


def test_without_subscriptions_there_is_only_the_prefetch() -> None:
    assert [command.name for command in bindings((), {}, 1)] == ["Basic.Qos"]


@pytest.mark.parametrize(
    "service",
    ["s", "été", "a!", "a b", "a/b+c", "s>", "<s", "s\n", *("s" * size for size in range(90, 256))],
    ids=lambda name: f"{len(name)} {name[:9]}",
)
def test_whatever_service_a_configuration_accepts_can_be_declared(service: str) -> None:
    """The input ``link_up`` declares, and must not raise."""
    try:
        made = config(service, events=["Done"], commands=["s.Do"])
    except LocalError:
        return
    assert len(written(declarations(subscriptions(made), (1.0, LONGEST_DELAY)))) == 10


def test_a_subscription_is_shown_without_its_keys() -> None:
    assert repr(Subscription("events", "svc.events", ("Happened",) * 100)) == "<Subscription events, 100 keys>"
