"""The plugin for pytest, as a user's tests use it: each test here writes test files and runs pytest on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.rabbitmq import find_server
from tests.support.services import environment

pytest_plugins = ["pytester"]

BILLING = """
from eda_aio import Service


class Billing(Service):
    def __init__(self, url):
        super().__init__(url, ["OrderPlaced"], ["billing.ChargeCard"], "billing")

    async def on_OrderPlaced(self, payload, conversation_id, meta):
        if payload["amount"] > 500:
            raise ValueError("over the limit")
        await self.log(4, "an order")
        await self.publish_event("OrderPaid", {"amount": payload["amount"], "currency": "EUR"}, conversation_id)

    async def on_ChargeCard(self, payload, conversation_id, reply_to, correlation_id, meta):
        if payload["amount"] > 500:
            await self.return_error(reply_to, {"reason": "over the limit"}, conversation_id, correlation_id)
        else:
            await self.return_success(reply_to, {"receipt": "R7"}, conversation_id, correlation_id)
"""

SHOP = """
from eda_pika import Service


class Shop(Service):
    def __init__(self, url):
        super().__init__(url, ["OrderPlaced"], ["shop.ChargeCardReturn"], "shop")

    def on_OrderPlaced(self, payload, conversation_id, meta):
        self.send_command("billing.ChargeCard", payload, conversation_id, "shop.ChargeCardReturn", "7")

    def on_ChargeCardReturn(self, payload, conversation_id, status, correlation_id, meta):
        self.publish_event("OrderPaid" if status == "success" else "OrderRefused", payload, conversation_id)
"""


@pytest.fixture(scope="module")
def server() -> Path | None:
    """Where RabbitMQ is. It is looked for before pytester gives the test another home directory."""
    return find_server()


@pytest.fixture
def user(server: Path | None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory with the services of a user, where pytest finds the plugin."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if server is not None:
        monkeypatch.setenv("EDA_RABBITMQ", str(server.parent))
    pytester.makepyfile(billing=BILLING, shop=SHOP)
    return pytester


def run(user: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest as a user does. Warnings are errors: nothing may be left open."""
    return user.runpytest_subprocess("-p", "eda_pytest", "-p", "no:cacheprovider", "-W", "error", *arguments)


def test_services_are_tested_in_threads(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import pytest

        from billing import Billing
        from shop import Shop


        def test_an_order_is_paid(eda_broker, eda_bus, eda_service):
            eda_service(Billing(eda_broker.url))
            sent = eda_bus.publish_event("OrderPlaced", {"amount": 80}, "c1")
            paid = eda_bus.expect_event("OrderPaid", where={"amount": 80}, conversation_id="c1")
            assert paid.payload == {"amount": 80, "currency": "EUR"}
            assert paid.meta["causation_id"]
            eda_bus.expect_log("billing.WARNING", where={"short_message": "an order"})
            names = [each.message.name for each in eda_bus.arrivals() if each.kind == "event"]
            assert names == ["OrderPlaced", "OrderPaid"]
            assert sent.conversation_id == "c1"


        def test_a_command_is_called(eda_broker, eda_bus, eda_service):
            eda_service(Billing(eda_broker.url))
            result = eda_bus.call("billing.ChargeCard", {"amount": 80})
            assert (result.status, result.payload) == ("success", {"receipt": "R7"})
            assert eda_bus.call("billing.ChargeCard", {"amount": 900}).status == "error"


        @pytest.mark.parametrize("amount", [80, 900])
        def test_two_services(eda_broker, eda_bus, eda_service, amount):
            eda_service(Billing(eda_broker.url))
            eda_service(Shop(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": amount}, "c2")
            eda_bus.expect_command("billing.ChargeCard")
            eda_bus.expect_result("ChargeCardReturn", where=lambda result: result.correlation_id == "7")
            eda_bus.expect_event("OrderPaid" if amount == 80 else "OrderRefused", conversation_id="c2")


        def test_the_test_plays_the_other_service(eda_broker, eda_bus, eda_service):
            eda_service(Shop(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": 80})
            command = eda_bus.expect_command("ChargeCard")
            eda_bus.answer(command, {"reason": "stolen"}, "error")
            assert eda_bus.expect_event("OrderRefused").payload == {"reason": "stolen"}


        def test_what_fails_is_dead_lettered(eda_broker, eda_bus, eda_service):
            eda_service(Billing(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": 900}, "c3")
            dead = eda_bus.expect_dead_letter("OrderPlaced", where={"amount": 900})
            assert (dead.queue, dead.reason, dead.conversation_id) == ("billing.events", "rejected", "c3")
            record = eda_bus.expect_log("billing.ALERT")
            assert "over the limit" in record.payload["full_message"]


        def test_a_cut_loses_nothing(eda_broker, eda_bus, eda_service):
            eda_service(Billing(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": 1})
            eda_bus.expect_event("OrderPaid", where={"amount": 1})
    """)
    run(user).assert_outcomes(passed=7)


def test_services_are_tested_in_the_loop_of_the_test(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import asyncio

        import pytest

        from billing import Billing
        from shop import Shop


        def test_an_order_is_paid(eda_broker, eda_bus, eda_service):
            async def test():
                async with eda_service.aio(Billing(eda_broker.url), Shop(eda_broker.url)):
                    await eda_bus.aio.publish_event("OrderPlaced", {"amount": 80}, "c1")
                    await eda_bus.aio.expect_event("OrderPaid", where={"currency": "EUR"})
                    await eda_bus.aio.expect_event("OrderPaid", where={"receipt": "R7"})
                    assert (await eda_bus.aio.call("billing.ChargeCard", {"amount": 900})).status == "error"
                    assert len(await eda_bus.aio.arrivals()) > 5
                    with pytest.raises(RuntimeError, match="await the method of eda_bus.aio"):
                        eda_bus.expect_event("OrderPaid")

            asyncio.run(test())
    """)
    run(user).assert_outcomes(passed=1)


def test_a_failed_expectation_shows_what_arrived(user: pytest.Pytester) -> None:
    user.makepyfile("""
        from billing import Billing


        def test_an_order_is_paid(eda_broker, eda_bus, eda_service):
            eda_service(Billing(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": 80}, "c1")
            eda_bus.expect_log("WARNING")
            eda_bus.publish_event("OrderPlaced", {"amount": 900}, "c2")
            eda_bus.expect_dead_letter("OrderPlaced")
            eda_bus.expect_event("OrderPaid", where={"amount": 80, "currency": "USD"}, within=0.2)
    """)
    result = run(user)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*NotArrived: no event OrderPaid with {'amount': 80, 'currency': 'USD'} within 0.2 s",
            "E*of this name there is, in the conversation c1:",
            "E*- expected, + arrived",
            "E*  {'amount': 80,",
            "E*-  'currency': 'USD'}",
            "E*+  'currency': 'EUR'}",
            "E*what has arrived, in order:",
            "E*the test sent event OrderPlaced [[]c1[]] {'amount': 80}",
            "E*event OrderPaid [[]c1[]] {'amount': 80, 'currency': 'EUR'}",
            "E*dead letter OrderPlaced (rejected in billing.events) [[]c2[]] {'amount': 900}",
            "E*billing has logged: *",
            "E*ValueError: over the limit",
        ]
    )
    assert "asyncio" not in result.stdout.str().partition("NotArrived")[0], "the traceback is that of the test"


def test_a_service_that_dies_fails_the_test_with_its_traceback(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import asyncio

        import pytest

        from billing import Billing
        from shop import Shop


        class Weak(Billing):
            async def on_OrderPlaced(self, payload, conversation_id, meta):
                raise SystemExit("weak service")


        class Unready(Billing):
            async def on_ready(self):
                raise LookupError("no table")


        def test_in_a_thread(eda_broker, eda_bus, eda_service):
            eda_service(Weak(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": 80})
            eda_bus.expect_event("OrderPaid", within=600)


        def test_that_looks_away(eda_broker, eda_bus, eda_service):
            service = eda_service(Weak(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": 80})
            while not eda_service.errors:
                pass


        def test_that_is_not_ready(eda_broker, eda_service):
            eda_service(Unready(eda_broker.url))


        def test_in_the_loop(eda_broker, eda_bus, eda_service):
            async def test():
                async with eda_service.aio(Weak(eda_broker.url)):
                    await eda_bus.aio.publish_event("OrderPlaced", {"amount": 80})
                    await asyncio.Event().wait()

            asyncio.run(test())


        def test_without_a_broker(eda_service):
            class Lost(Billing):
                pass

            eda_service(Lost("amqp://guest:wrong@127.0.0.1:1/"), within=0.5)
    """)
    result = run(user)
    result.assert_outcomes(failed=5)
    text = result.stdout.str()
    assert "ServiceDied: no event OrderPaid before a service ended: SystemExit: weak service" in text
    assert 'raise SystemExit("weak service")' in text
    assert "no table" in text
    assert "TimeoutError: Lost is not ready within 0.5 s" in text


def test_any_client_can_use_the_broker(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import asyncio

        import aio_pika
        import kombu
        import pika


        def test_pika(eda_broker):
            connection = pika.BlockingConnection(pika.URLParameters(eda_broker.url))
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("jobs")
            channel.basic_publish("", "jobs", b"one", mandatory=True)
            method, _, body = channel.basic_get("jobs", auto_ack=True)
            assert body == b"one"
            connection.close()


        def test_aio_pika(eda_broker):
            async def test():
                async with await aio_pika.connect_robust(eda_broker.url) as connection:
                    channel = await connection.channel()
                    queue = await channel.declare_queue("jobs", auto_delete=True)
                    await channel.default_exchange.publish(aio_pika.Message(b"one"), "jobs")
                    async with queue.iterator() as messages:
                        async for message in messages:
                            await message.ack()
                            assert message.body == b"one"
                            break

            asyncio.run(test())


        def test_kombu(eda_broker):
            with kombu.Connection(eda_broker.url) as connection:
                queue = connection.SimpleQueue("jobs")
                queue.put({"n": 1})
                message = queue.get(timeout=60)
                assert message.payload == {"n": 1}
                message.ack()
                queue.close()


        def test_they_are_apart(eda_broker):
            with kombu.Connection(eda_broker.url) as connection:
                queue = connection.SimpleQueue("jobs")
                assert queue.qsize() == 0
                queue.close()
    """)
    run(user, "-W", "default::ResourceWarning").assert_outcomes(passed=4)


def test_workers_of_xdist_have_brokers_of_their_own(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import pytest

        from billing import Billing


        @pytest.mark.parametrize("number", range(8))
        def test_an_order_is_paid(eda_broker, eda_bus, eda_service, number):
            eda_service(Billing(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": number})
            eda_bus.expect_event("OrderPaid", where={"amount": number})
            assert len([each for each in eda_bus.arrivals() if each.kind == "event"]) == 2
    """)
    run(user, "-n", "2").assert_outcomes(passed=8)


def test_a_given_url_is_not_shared_by_workers(user: pytest.Pytester) -> None:
    user.makepyfile("""
        def test_the_url(eda_broker):
            print("the URL is", eda_broker.url)
    """)
    shared = run(user, "-n", "1", "--eda-url", "amqp://broker/")
    shared.assert_outcomes(errors=1)
    shared.stdout.fnmatch_lines(["*--eda-url: the workers of pytest-xdist would share the queues of one vhost*"])
    run(user, "-n", "1", "-rP", "--eda-url", "amqp://broker/{worker}").stdout.fnmatch_lines(
        ["the URL is amqp://broker/gw0"]
    )
    run(user, "-rP", "--eda-url", "amqp://broker/{worker}").stdout.fnmatch_lines(["the URL is amqp://broker/main"])
    run(user, "-rP", "--eda-url", "amqp://broker/").stdout.fnmatch_lines(["the URL is amqp://broker/"])


RABBIT_TESTS = """
    from billing import Billing


    def test_a_dead_letter(eda_broker, eda_bus, eda_service):
        assert eda_broker.node.running
        eda_service(Billing(eda_broker.url))
        eda_bus.publish_event("OrderPlaced", {"amount": 900})
        assert eda_bus.expect_dead_letter("OrderPlaced", within=60).queue == "billing.events"
        eda_broker.node.kill()


    def test_another(eda_broker, eda_bus, eda_service):
        eda_service(Billing(eda_broker.url))
        eda_bus.publish_event("OrderPlaced", {"amount": 80})
        eda_bus.expect_event("OrderPaid", within=60)
"""


def test_the_same_tests_run_on_rabbitmq(user: pytest.Pytester, rabbitmq: object) -> None:
    """``rabbitmq`` marks the test, and skips it where there is none."""
    user.makepyfile(RABBIT_TESTS)
    run(user, "--eda-broker=rabbitmq").assert_outcomes(passed=2)


def test_without_rabbitmq_it_is_said_how_to_get_it(user: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDA_RABBITMQ", "/nowhere")
    user.makepyfile("""
        def test_on_rabbitmq(eda_rabbitmq):
            pass


        def test_on_either(eda_broker):
            pass
    """)
    result = run(user, "-rs", "--eda-broker=rabbitmq")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*RabbitMQ is not installed: apt-get install rabbitmq-server*EDA_RABBITMQ*"])


def test_who_does_not_use_it_pays_nothing(user: pytest.Pytester) -> None:
    user.makepyfile("""
        import sys


        def test_nothing_is_loaded():
            assert "eda_pytest" in sys.modules
            assert [name for name in sys.modules if name.startswith(("eda_core", "pamqp", "cbor2"))] == []
    """)
    run(user).assert_outcomes(passed=1)


def test_it_works_without_hypothesis(user: pytest.Pytester) -> None:
    user.makeconftest("""
        import sys

        sys.modules["hypothesis"] = None
    """)
    user.makepyfile("""
        from billing import Billing


        def test_an_order_is_paid(eda_broker, eda_bus, eda_service):
            eda_service(Billing(eda_broker.url))
            eda_bus.publish_event("OrderPlaced", {"amount": 80})
            eda_bus.expect_event("OrderPaid")
    """)
    run(user, "-p", "no:hypothesispytest").assert_outcomes(passed=1)


def test_the_options_explain_themselves(user: pytest.Pytester) -> None:
    result = run(user, "--help")
    result.stdout.fnmatch_lines(
        ["services on AMQP (eda-core):", "*--eda-broker={embedded,rabbitmq}", "*--eda-url=URL*"]
    )
    fixtures = run(user, "--fixtures")
    fixtures.stdout.fnmatch_lines(["eda_bus*", "eda_service*", "eda_broker*"])
