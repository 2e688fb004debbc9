"""The methods of the services of all adapters, and which input each of them makes."""

from __future__ import annotations

import contextvars
import inspect
import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from eda_core import ReconnectPolicy, RetryPolicy, criticality
from eda_core.drivers.handling import handling
from eda_core.errors import LocalError, StateError
from eda_core.machine.effects import Ack, Connect, Effect, Nack, Publish, PublishLog, Report
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import DEFERRED, DONE
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS, Limits
from eda_core.messages.envelope import InvalidEnvelope, seal
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, Result
from eda_core.services.api import ServiceApi
from tests.core.drivers.test_base import Carrier
from tests.core.kit import SHOWN, URLS, WALL, Bench, of, only, opened


class Service(ServiceApi[str]):
    """An adapter that only records what it is asked for."""

    published: list[tuple[AnyMessage, bool, bool]]
    bench: Bench

    def worker_identity(self) -> tuple[str, int]:
        return "box", 7

    def publish_message(
        self, message: AnyMessage, *, mandatory: bool, immediate: bool = False, timeout: float | None = None
    ) -> str:
        self.__dict__.setdefault("published", []).append((message, mandatory, immediate))
        return "published"

    def make_input(self, call: Callable[[Machine, float], list[Effect]], *, waits: bool = True) -> str:
        self.make_input_now(call, waits=waits)
        return "told"

    def make_input_now(self, call: Callable[[Machine, float], list[Effect]], *, waits: bool = True) -> None:
        self.bench.did(call(self.bench.machine, self.bench.now))


def service(**named: Any) -> Service:
    return Service([URLS[0]], ["Happened"], ["svc.Do"], "svc", **named)


def on_bench() -> tuple[Service, Bench]:
    made = service()
    made.bench = opened()
    return made, made.bench


def test_the_constructor_takes_what_eventails_does_in_the_same_order() -> None:
    made = Service([*URLS], ["Happened"], ["svc.Do"], "svc", ["Settings"])
    config = made._eda_config
    assert made.logical_service == config.service == "svc"
    assert (config.urls, config.events, config.commands) == (URLS, ("Happened",), ("svc.Do",))
    assert (config.configurations, config.logs) == (("Settings",), ())
    assert (config.hostname, config.pid) == ("box", 7)


def test_a_delivery_is_read_as_the_message_that_it_is() -> None:
    _, key, properties, body = seal(Event("Happened", {"n": 1}, "c"), CBOR, DEFAULT_LIMITS)
    message = service().read_delivery("events", key, properties, body, DEFAULT_LIMITS)
    assert (type(message), message.name, message.payload) == (Event, "Happened", {"n": 1})
    with pytest.raises(InvalidEnvelope):
        service().read_delivery("events", key, properties, b"\xff", DEFAULT_LIMITS)


def test_tools_subscribe_to_logs() -> None:
    assert service(log_routing_keys=["#"])._eda_config.logs == ("#",)


def test_the_defaults_of_the_class_attributes_are_those_of_the_configuration() -> None:
    config = service()._eda_config
    assert (config.prefetch, config.heartbeat, config.retry_delay) == (10, 20, 15)
    assert (config.blocked_timeout, config.stop_timeout) == (3600, 30)
    assert (config.retry, config.reconnect) == (RetryPolicy(), ReconnectPolicy())


def test_class_attributes_are_settings() -> None:
    class Tuned(Service):
        PREFETCH_COUNT = 3
        HEARTBEAT = 11
        RETRY_DELAY = 2.5
        BLOCKED_TIMEOUT = 60
        STOP_TIMEOUT = 4
        RETRY_POLICY = RetryPolicy(5)
        RECONNECT_POLICY = ReconnectPolicy(2, 8)

    config = Tuned(URLS[0], [], [], "svc")._eda_config
    assert (config.prefetch, config.heartbeat, config.retry_delay) == (3, 11, 2.5)
    assert (config.blocked_timeout, config.stop_timeout) == (60, 4)
    assert (config.retry, config.reconnect) == (RetryPolicy(5), ReconnectPolicy(2, 8))


def test_a_wrong_argument_is_refused_when_the_service_is_made() -> None:
    with pytest.raises(LocalError, match="the logical service's name is empty"):
        Service(URLS[0], [], [], "")


def test_a_store_without_its_limit_is_refused_when_the_service_is_made() -> None:
    class Wrong(Service):
        CLAIM_CHECK: ClassVar[Any] = {"store": "payloads"}

    with pytest.raises(LocalError, match=r"CLAIM_CHECK is \{'store': 'payloads'\}; give a ClaimCheck"):
        Wrong(URLS[0], [], [], "svc")


def test_settings_before_the_run() -> None:
    made = service()
    assert made._eda_config.content_type == "application/cbor"
    assert not made._eda_config.exclusive_queues
    made.use_json()
    made.use_exclusive_queues()
    assert made._eda_config.content_type == "application/json"
    assert made._eda_config.exclusive_queues


def test_the_machine_of_a_run_has_the_settings_made_so_far() -> None:
    made = service()
    made.use_json()
    machine = made.make_machine(random=lambda: 0.5, token="tok", wall_offset=0.0)
    assert type(machine) is Machine
    assert machine.config is made._eda_config


def test_settings_may_be_made_until_the_run() -> None:
    made = service()
    made.__dict__["PREFETCH_COUNT"] = 3  # as a constructor of eventail's time may, with a value of its own
    machine = made.make_machine(random=lambda: 0.5, token="tok", wall_offset=0.0)
    assert machine.config.prefetch == 3
    wrong = service()
    wrong.__dict__["HEARTBEAT"] = "never"
    with pytest.raises(LocalError, match="heartbeat is 'never'"):
        wrong.make_machine(random=lambda: 0.5, token="tok", wall_offset=0.0)


def test_json_may_be_chosen_at_any_time() -> None:
    made, bench = on_bench()
    made._eda_machine = bench.machine
    made.use_json()
    assert only(Publish, bench.publish()).properties.content_type == "application/json"
    assert made._eda_config.content_type == "application/json"


def test_what_comes_too_late_is_refused() -> None:
    made, bench = on_bench()
    made._eda_machine = bench.machine
    with pytest.raises(
        StateError, match=r"use_exclusive_queues\(\) comes too late: the service runs already; call it before run"
    ):
        made.use_exclusive_queues()
    with pytest.raises(StateError, match=r"keep_journal\(\) comes too late"):
        made.keep_journal(print)
    assert not made.exclusive_queues


def test_what_services_read() -> None:
    made, bench = on_bench()
    assert (made.exclusive_queues, made.published_messages) == (False, 0)
    made.use_exclusive_queues()
    assert made.exclusive_queues
    made._eda_machine = bench.machine
    bench.publish()
    bench.publish()
    assert made.published_messages == 2


def test_a_correlation_id_that_is_none_is_no_correlation_id() -> None:
    made = service()
    made.send_command("svc.Do", 1, "c-1", "me.DoReturn", None)
    made.return_success("me.DoReturn", 1, "c-1", None)
    made.return_error("me.DoReturn", 1, "c-1", None)
    assert [getattr(message, "correlation_id", "-") for message, _, _ in made.published] == ["", "", ""]


def test_a_journal_has_every_input_and_no_password() -> None:
    made, lines = service(), list[str]()
    made.keep_journal(lines.append)
    machine = made.make_machine(random=lambda: 0.5, token="tok", wall_offset=0.0)
    assert only(Connect, machine.start(1.0)).url == URLS[0]
    first, second = map(json.loads, lines)
    assert first["machine"]["token"] == "tok"
    assert second["input"] == "start"
    assert "secret" in URLS[0]
    assert not any("secret" in line for line in lines)


# The delivery being handled


def test_what_is_published_in_a_handler_is_of_its_delivery() -> None:
    made = service()
    assert made.handled_delivery() is None
    with handling(made, DeliveryId(7)):
        assert made.handled_delivery() == 7
    assert made.handled_delivery() is None


def test_what_another_service_publishes_in_that_handler_is_not() -> None:
    """Two services may run in one process, and the handler of one call the other."""
    one, other = service(), service()
    with handling(one, DeliveryId(7)):
        assert other.handled_delivery() is None
        with handling(other, DeliveryId(8)):
            assert (one.handled_delivery(), other.handled_delivery()) == (None, 8)
        assert one.handled_delivery() == 7


def test_a_hook_within_a_handler_is_of_no_delivery() -> None:
    made = service()
    with handling(made, DeliveryId(7)):
        with handling(made, None):
            assert made.handled_delivery() is None
        assert made.handled_delivery() == 7


def test_a_handler_that_fails_leaves_no_delivery_behind() -> None:
    made = service()
    with pytest.raises(ValueError, match="no"), handling(made, DeliveryId(7)):
        raise ValueError("no")
    assert made.handled_delivery() is None


def test_a_context_copied_in_a_handler_stays_within_its_delivery() -> None:
    """What a task publishes that a handler has started belongs to the delivery, also after the handler's end."""
    made = service()
    with handling(made, DeliveryId(7)):
        context = contextvars.copy_context()
    assert context.run(made.handled_delivery) == 7
    assert made.handled_delivery() is None


# Publishing


@pytest.mark.parametrize(
    ("call", "message", "mandatory", "immediate"),
    [
        (lambda s: s.publish_event("Told", 1, "c-1"), Event("Told", 1, "c-1"), False, False),
        (lambda s: s.publish_event("Told", 1, "c-1", True, immediate=True), Event("Told", 1, "c-1"), True, True),
        (lambda s: s.publish_configuration("Settings", 1), Configuration("Settings", 1, ""), False, False),
        (
            lambda s: s.publish_configuration("Settings", 1, immediate=True),
            Configuration("Settings", 1, ""),
            False,
            True,
        ),
        (
            lambda s: s.send_command("svc.Do", 1, "c-1", "me.DoReturn", "k"),
            Command("svc.Do", 1, "c-1", "me.DoReturn", "k"),
            True,
            False,
        ),
        (
            lambda s: s.send_command("svc.Do", 1, "c-1", "me.DoReturn", "k", False, immediate=True),
            Command("svc.Do", 1, "c-1", "me.DoReturn", "k"),
            False,
            True,
        ),
        (
            lambda s: s.return_success("me.DoReturn", 1, "c-1", "k"),
            Result("me.DoReturn", 1, "c-1", "success", "k"),
            True,
            False,
        ),
        (
            lambda s: s.return_error("me.DoReturn", 1, "c-1", "k", False),
            Result("me.DoReturn", 1, "c-1", "error", "k"),
            False,
            False,
        ),
    ],
)
def test_each_method_publishes_its_kind_of_message(
    call: Callable[[Service], str], message: AnyMessage, mandatory: bool, immediate: bool
) -> None:
    made = service()
    assert call(made) == "published"
    assert made.published == [(message, mandatory, immediate)]


def test_log_writes_a_record() -> None:
    made, bench = on_bench()
    assert made.log(criticality.INFO, "short", "full", "c-1", {"k": 1}) == "told"
    record = only(PublishLog, bench.seen)
    assert record.routing_key == "svc.INFO"
    for part in (b'"short"', b'"full"', b'"c-1"', b'"_k": 1'):
        assert part in record.body


def test_log_refuses_what_is_no_level() -> None:
    made, _ = on_bench()
    with pytest.raises(LocalError, match="log level 9"):
        made.log(9, "short")


def test_manual_ack_acknowledges_one_or_all_before_it() -> None:
    made, bench = on_bench()
    tags = [bench.take() for _ in range(3)]
    for tag in tags:
        bench.handled(tag, DEFERRED)
    assert made.manual_ack(tags[0]) == "told"
    assert bench.seen[-1] == Ack(bench.epoch, 1, False)
    made.manual_ack(tags[2], multiple=True)
    assert bench.seen[-1] == Ack(bench.epoch, 3, True)


def test_manual_nack_rejects_or_requeues_one_or_all_before_it() -> None:
    made, bench = on_bench()
    tags = [bench.take() for _ in range(4)]
    for tag in tags:
        bench.handled(tag, DEFERRED)
    assert made.manual_nack(tags[0]) == "told"
    assert bench.seen[-1] == Nack(bench.epoch, 1, False)
    made.manual_nack(tags[1], True)
    assert bench.seen[-1] == Nack(bench.epoch, 2, True)
    made.manual_nack(tags[3], multiple=True)
    assert bench.seen[-2:] == [Nack(bench.epoch, 3, False), Nack(bench.epoch, 4, False)]


# For adapters


class Runs(Carrier):
    """A driver that only records what it is asked for."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)


def test_a_service_runs_once() -> None:
    made = service()
    with pytest.raises(StateError, match="does not run"):
        made.running_driver()
    driver = made.begin_run(Runs)
    assert made.running_driver() is driver
    assert driver.service is made
    with pytest.raises(StateError, match="runs once"):
        made.begin_run(Runs)
    assert made.running_driver() is driver


def test_a_service_that_cannot_run_says_why_to_who_waits_for_it_too() -> None:
    class Wrong(Service):
        def on_Happened(self) -> None: ...

    told: list[object] = []
    made = Wrong([URLS[0]], ["Happened"], [], "svc")
    made._eda_readiness.wait(told.append)
    with pytest.raises(LocalError, match=r"Wrong cannot run\n- on_Happened\(\) cannot be called") as caught:
        made.begin_run(Carrier)
    assert told == [caught.value]


def test_what_is_suspicious_about_its_objects_is_told_at_the_start_or_when_they_are_made() -> None:
    made = service()
    made._eda_doubt("the first is odd")
    driver = made.begin_run(Carrier)
    made._eda_doubt("the second is odd")
    reports = [rest[1] for what, *rest in driver.done if what == "report"]
    assert [text.splitlines()[-1] for text in reports] == ["- the first is odd", "- the second is odd"]


def test_a_driver_that_could_not_be_made_leaves_the_service_as_it_was() -> None:
    made = service()

    def fail(_service: Service) -> Runs:
        raise OSError("no more files")

    with pytest.raises(OSError, match="no more files"):
        made.begin_run(fail)
    assert made.begin_run(Runs).service is made


def test_timers_are_those_of_the_driver_asked_where_it_wants_to_be() -> None:
    asked: list[str] = []

    class Elsewhere(Runs):
        def ask(self, call: Callable[[], Any]) -> Any:
            asked.append("asked")
            return call()

    made = service()
    with pytest.raises(StateError, match="does not run"):
        made.call_later(1.0, print)
    with pytest.raises(StateError, match="does not run"):
        made.cancel_timer(1)
    driver = made.begin_run(Elsewhere)
    driver.done.clear()
    made.cancel_timer(made.call_later(1.0, print))
    driver.clock = 101.0
    driver.tick()
    assert (driver.armed, driver.done, asked) == ([101.0], [], ["asked"] * 2)


def test_to_cancel_a_timer_of_a_service_that_has_stopped_is_no_error() -> None:
    class Gone(Runs):
        def ask(self, call: Callable[[], Any]) -> Any:
            raise StateError("the service has stopped")

    made = service()
    made.begin_run(Gone)
    made.cancel_timer(1)
    with pytest.raises(StateError, match="has stopped"):
        made.call_later(1.0, print)


class Telling(Service):
    """An adapter that publishes as the core does by default: nobody waits for the confirm."""

    publish_message = ServiceApi.publish_message


def test_what_is_published_in_a_handler_is_held_with_its_delivery() -> None:
    made = Telling(URLS[0], ["Happened"], ["svc.Do"], "svc")
    made.bench = bench = opened()
    tag = bench.take()
    with handling(made, tag):
        assert made.publish_event("Held", 1, "c-1") == "told"
        made.publish_event("Progress", 1, "c-1", immediate=True)
        with handling(service(), tag):  # one service calls another
            made.publish_event("Outside", 1, "c-1", True)
    sent = of(Publish, bench.seen)
    assert [(each.routing_key, each.mandatory) for each in sent] == [("Progress", False), ("Outside", True)]
    bench.handled(tag, DONE)
    assert of(Publish, bench.seen)[-1].routing_key == "Held"


def test_an_input_that_does_not_wait_is_made_where_the_driver_wants_to_be() -> None:
    class Own(Service):
        make_input_now = ServiceApi.make_input_now

    made = Own(URLS[0], [], [], "svc")
    driver = made.begin_run(Runs)
    made.make_input_now(lambda machine, now: [Report(6, f"{machine is driver.machine} at {now}")])
    assert driver.done == [("report", 6, "True at 100.0")]


def test_a_log_waits_for_nothing_and_has_the_time_of_its_making() -> None:
    class Own(Service):
        make_input_now = ServiceApi.make_input_now

    class Later(Runs):
        def post(self, call: Callable[[], object]) -> None:
            posted.append(call)

    posted: list[Callable[[], object]] = []
    made = Own(URLS[0], [], [], "svc")
    driver = made.begin_run(Later)
    driver.clock = 50.0
    fields = {"n": 1}
    assert made.log(6, "short", additional_fields=fields) == "told"
    driver.clock, fields["n"] = 60.0, 2
    kept = driver.machine._logs._kept
    assert len(kept) == 0
    posted.pop()()
    record = json.loads(kept[0][1])
    assert (record["timestamp"], record["_n"]) == (WALL + 50.0, 1), "what the caller changes later does not count"
    with pytest.raises(LocalError, match="log level 9"):
        made.log(9, "short")
    with pytest.raises(LocalError, match="name 'id'"):
        made.log(6, "short", additional_fields={"id": 1})
    assert posted == []


def test_every_setting_of_a_service_gets_to_the_machine() -> None:
    class Own(Service):
        HELD = 7
        LIMITS = Limits(max_bytes=100)
        CONNECT_TIMEOUT = 1.5
        CLOSE_TIMEOUT = 2.5

    config = Own([URLS[0]], [], [], "svc")._eda_config
    assert (config.held, config.limits) == (7, Limits(max_bytes=100))
    assert (config.connect_timeout, config.close_timeout) == (1.5, 2.5)


def test_a_wrong_setting_is_named() -> None:
    class Own(Service):
        LIMITS = 100  # type: ignore[assignment]

    with pytest.raises(LocalError, match="limits is 100; give a Limits"):
        Own([URLS[0]], [], [], "svc")


def test_a_constructor_that_forgets_its_base_class_is_named() -> None:
    class Forgetful(Service):
        def __init__(self) -> None: ...

    with pytest.raises(LocalError, match=r"the constructor of Forgetful has not called .*super\(\).__init__\("):
        Forgetful().subscribes_to("event", "Happened")
    assert "_eda_config" in dict(inspect.getmembers(Forgetful)), "the class itself can be looked at"


@pytest.mark.parametrize(
    ("kind", "name", "subscribed"),
    [
        ("event", "Happened", True),
        ("event", "svc.Do", False),
        ("command", "svc.Do", True),
        ("result", "svc.Do", True),
        ("configuration", "Settings", True),
        ("configuration", "Happened", False),
    ],
)
def test_a_service_knows_what_it_subscribes_to(kind: str, name: str, subscribed: bool) -> None:
    made = Service([URLS[0]], ["Happened"], ["svc.Do"], "svc", ["Set*", "Settings"])
    assert made.subscribes_to(kind, name) == subscribed


def in_command() -> tuple[Telling, Runs, Any]:
    """A service that runs, its driver, and a run of the handler of a command."""
    made = Telling(URLS[0], ["Happened"], ["svc.Do", "svc.DoneReturn"], "svc")
    made.bench = opened()
    driver = made.begin_run(Runs)
    return made, driver, handling(made, None, Command("svc.Do", 1, "c-1", "other.DoReturn", "k"))


def test_a_result_that_a_handler_publishes_answers_its_command_and_an_inbox_keeps_it() -> None:
    made, _, handler = in_command()
    kept = []
    with handler as run:
        run.keep = lambda message, mandatory: kept.append((message.name, mandatory))
        made.return_success("other.DoReturn", 2, "c-1", "k")
    assert (run.answers, kept) == (1, [("other.DoReturn", True)])


def test_a_command_whose_result_cannot_come_is_warned_of_once_for_each_key() -> None:
    made, driver, _ = in_command()
    for key in ("svc.DoneReturn", "svc.Gone", "other.Return", "svc.Gone", "svc.Lost"):
        made.send_command("other.Do", 1, "c-1", key, "k")
    told = [each[2] for each in driver.done if each[0] == "report" and "cannot come" in each[2]]
    assert ["svc.Gone" in text for text in told] == [True, False]
    assert "add 'svc.Lost' to command_routing_keys, and define on_Lost()" in told[1]


def test_the_wall_time_is_that_of_the_machine() -> None:
    made, driver, _ = in_command()
    made.make_machine(random=lambda: 0.5, token="tok", wall_offset=WALL)
    assert made.wall_time() == driver.now() + WALL


def test_a_message_of_a_batch_is_not_acknowledged_by_hand() -> None:
    made, bench = on_bench()
    first, second = bench.take(), bench.take()
    made._eda_batched[first] = object()
    with pytest.raises(LocalError, match=rf"delivery {first} is in a batch, which acknowledges it; return True after"):
        made.manual_ack(first)
    with pytest.raises(LocalError, match=r"multiple=True\) would acknowledge 1 message\(s\) that are in a batch"):
        made.manual_ack(second, multiple=True)
    made._eda_batched.clear()
    bench.handled(first, DEFERRED)
    bench.handled(second, DEFERRED)
    made.manual_ack(second, multiple=True)
    assert only(Ack, bench.seen).multiple


# How it does


def test_a_service_that_was_not_run_is_idle() -> None:
    made = service()
    health = made.health()
    assert (health.service, health.worker, health.state, health.link.url) == ("svc", "box:7", "idle", SHOWN[0])
    assert made.metrics().service == "svc"
    assert made.metrics().published == 0


def test_a_service_that_runs_asks_its_driver() -> None:
    made = service()
    carrier = made.begin_run(Carrier)
    carrier.tell(carrier.machine.start)
    assert made.health() == carrier.health()
    assert made.health().state == "connecting"
    assert made.metrics().connecting == 1


def test_the_end_of_a_service_is_told_once() -> None:
    made, told = service(), []
    made.when_ended(lambda: told.append("first"))
    carrier = made.begin_run(Carrier)
    carrier.tell(carrier.machine.start)
    assert told == []
    carrier.tell(carrier.machine.link_down, carrier.machine.epoch, "refused", refused="credentials")
    assert carrier.over
    assert told == ["first"]
    made.when_ended(lambda: told.append("second"))
    assert told == ["first", "second"]


def test_a_refusal_to_run_is_no_end() -> None:
    class Wrong(Service):
        def on_Happened(self) -> None: ...

    made = Wrong([URLS[0]], ["Happened"], [], "svc")
    told: list[str] = []
    made.when_ended(lambda: told.append("ended"))
    with pytest.raises(LocalError, match="cannot run"):
        made.begin_run(Carrier)
    assert told == []


def test_handlers_are_timed_by_whom_the_service_was_told_of() -> None:
    made, told = service(), []
    made.time_handlers_by(lambda message, seconds, outcome: told.append(message))
    carrier = made.begin_run(Carrier)
    assert carrier.timed is made._eda_timed
    assert carrier.timed is not None
    made.make_machine(random=lambda: 0.5, token="tok", wall_offset=WALL)
    with pytest.raises(StateError, match=r"time_handlers_by\(\) comes too late"):
        made.time_handlers_by(print)
