"""``unbind`` takes bindings away, says so, and touches nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from eda_tools.cli import status as cli
from eda_tools.unbind import TOOL
from tests.support.rabbitmq import RabbitNode
from tests.support.services import BrokerUnderTest
from tests.support.tools import run_here
from tests.tools.bench import COMMANDS_QUEUE, EVENTS_QUEUE, Operator, operator

UNBOUND = "a.events from events, key Old: "


def bind(bench: Operator) -> None:
    """Two events and two commands for the service, and a message in its queue."""
    bench.channel.queue_unbind(EVENTS_QUEUE, "events", "#")
    bench.channel.queue_unbind(COMMANDS_QUEUE, "commands", "a.#")
    for key in ("Old", "New", "Call.*"):
        bench.channel.queue_bind(EVENTS_QUEUE, "events", key)
    for key in ("a.Old", "a.New"):
        bench.channel.queue_bind(COMMANDS_QUEUE, "commands", key)
    bench.event("Old")


def arrives(bench: Operator, exchange: str, key: str, queue: str) -> bool:
    """Whether a message that is published with this key comes to the queue."""
    before = bench.waiting(queue)
    bench.publish(exchange, key)
    return bench.waiting(queue) == before + 1


def test_bindings_are_taken_away_only_when_asked(
    broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    bind(bench)
    ran = run_here(TOOL, capsys, broker.url, "a", "Old", "a.Old")
    assert (ran.status, ran.out) == (
        cli.DONE,
        f"{UNBOUND}would be unbound\na.commands from commands, key a.Old: would be unbound\n",
    )
    assert ran.err == ("unbind: a.events keeps the 1 message(s) in it\nunbind: nothing was changed; --yes does it\n")
    assert arrives(bench, "events", "Old", EVENTS_QUEUE)

    ran = run_here(TOOL, capsys, broker.url, "a", "Old", "a.Old", "Call.*", "--yes", "--json")
    assert ran.status == cli.DONE
    assert [(each["queue"], each["exchange"], each["key"], each["outcome"]) for each in ran.objects] == [
        (EVENTS_QUEUE, "events", "Old", "is not bound now"),
        (COMMANDS_QUEUE, "commands", "a.Old", "is not bound now"),
        (EVENTS_QUEUE, "events", "Call.*", "is not bound now"),
    ]
    assert ran.err == (
        "unbind: a.events keeps the 2 message(s) in it\n"
        "unbind: a worker of a that still subscribes to a key binds it again when it connects the next time\n"
    )
    assert bench.waiting(EVENTS_QUEUE) == 2
    for exchange, key, queue in (
        ("events", "Old", EVENTS_QUEUE),
        ("events", "Call.Ended", EVENTS_QUEUE),
        ("commands", "a.Old", COMMANDS_QUEUE),
    ):
        assert not arrives(bench, exchange, key, queue), key
    assert arrives(bench, "events", "New", EVENTS_QUEUE)
    assert arrives(bench, "commands", "a.New", COMMANDS_QUEUE)
    assert run_here(TOOL, capsys, broker.url, "a", "Old", "--yes").status == cli.DONE  # twice is no error


def test_a_service_may_have_any_name(
    broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = "café (new).events"  # pamqp refuses such a name, RabbitMQ does not
    bench.channel.queue_declare(queue, durable=True)
    bench.channel.queue_bind(queue, "events", "Old")
    assert arrives(bench, "events", "Old", queue)
    ran = run_here(TOOL, capsys, broker.url, "café (new)", "Old", "--yes")
    assert (ran.status, ran.out) == (cli.DONE, f"{queue} from events, key Old: is not bound now\n")
    assert not arrives(bench, "events", "Old", queue)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("gone Old", cli.FAILED, "gone.events from events, key Old: there is no such queue\n"),
        ("gone Old --yes", cli.FAILED, "gone.events from events, key Old: there is no such queue\n"),
        ("a Old", cli.DONE, f"{UNBOUND}would be unbound\n"),
    ],
)
def test_a_queue_that_does_not_exist(
    words: str, status: int, told: str, broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    bind(bench)
    ran = run_here(TOOL, capsys, broker.url, *words.split())
    assert (ran.status, ran.out) == (status, told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a"], "the following arguments are required: KEY"),
        (["", "Old"], "the service is empty"),
        (["a", "Old", "amqp://guest:secret@h/"], "amqp://guest:***@h/ is a URL, not a key; the URL comes first"),
    ],
)
def test_wrong_usage(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDA_AMQP_URL", "amqp://127.0.0.1:1/")
    ran = run_here(TOOL, capsys, *words)
    assert (ran.status, ran.out) == (cli.USAGE, "")
    assert ran.line.startswith(f"unbind: {told}")


@pytest.fixture
def managed(rabbit_management: RabbitNode) -> Iterator[tuple[str, str]]:
    """The URLs of a virtual host and of its management API."""
    rabbit_management.change_vhosts(add=["of unbind"])
    yield rabbit_management.vhost_url("of unbind"), rabbit_management.management_url
    rabbit_management.change_vhosts(delete=["of unbind"])


def test_the_management_api_tells_what_was_bound(managed: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    url, management = managed
    with operator(url) as bench:
        bench.operate()
        bind(bench)
        options = ("--management", management)
        ran = run_here(TOOL, capsys, url, "a", "Old", "Odd", *options)
        assert (ran.status, ran.out) == (
            cli.PARTLY,
            f"{UNBOUND}would be unbound\na.events from events, key Odd: not bound\n",
        )
        ran = run_here(TOOL, capsys, url, "a", "Old", "--yes", *options)
        assert (ran.status, ran.out) == (cli.DONE, f"{UNBOUND}unbound\n")
        ran = run_here(TOOL, capsys, url, "a", "Old", "--yes", *options)
        assert (ran.status, ran.out) == (cli.FAILED, f"{UNBOUND}not bound\n")
        assert not arrives(bench, "events", "Old", EVENTS_QUEUE)


def test_a_broker_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    ran = asyncio.run(asyncio.to_thread(run_here, TOOL, capsys, "amqp://127.0.0.1:1/", "a", "Old"))
    assert ran.status == cli.NO_CONNECTION
