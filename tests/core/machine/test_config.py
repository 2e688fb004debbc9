"""The configuration: which values are refused with which words, and how the others are stored."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from eda_core.errors import LocalError
from eda_core.machine.config import Config
from eda_core.machine.policy import ReconnectPolicy, RetryPolicy
from eda_core.messages.codec import CBOR, JSON, Limits

WHOLE = [
    ("exclusive_length", 0, 2**31),
    ("prefetch", 1, 65_535),
    ("heartbeat", 0, 65_535),
    ("delivery_limit", 1, 1_000_000),
    ("window", 1, 65_535),
    ("buffer", 1, 10_000_000),
    ("held", 1, 10_000_000),
    ("pid", 0, 2**32),
]
SECONDS = [
    "probe_timeout",
    "retry_delay",
    "blocked_timeout",
    "connect_timeout",
    "confirm_timeout",
    "stop_timeout",
    "close_timeout",
]


def make(**settings: Any) -> Config:
    return Config.make("amqp://localhost", "transcriber", **settings)


def reason(**settings: Any) -> str:
    with pytest.raises(LocalError) as caught:
        make(**settings)
    return str(caught.value)


def test_the_defaults_are_those_of_the_architecture() -> None:
    config = make()
    assert config == Config(("amqp://localhost",), "transcriber")
    assert config.content_type == CBOR
    assert config.retry == RetryPolicy(attempts=2)
    assert config.reconnect == ReconnectPolicy()
    assert config.limits == Limits()
    assert not config.exclusive_queues
    assert 10 <= config.heartbeat <= 30
    assert config.window <= 1000


def test_what_users_write_becomes_tuples() -> None:
    config = Config.make(
        ["amqp://a", "amqps://b"], "s", ["One", "Two.#"], ("s.Do",), ["Set"], ["#", ""], content_type=JSON, prefetch=1
    )
    assert (config.urls, config.service) == (("amqp://a", "amqps://b"), "s")
    assert (config.events, config.commands) == (("One", "Two.#"), ("s.Do",))
    assert (config.configurations, config.logs) == (("Set",), ("#", ""))
    assert (config.content_type, config.prefetch) == (JSON, 1)


def test_it_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().prefetch = 1  # type: ignore[misc]


@pytest.mark.parametrize(("name", "lowest", "highest"), WHOLE)
def test_whole_numbers_have_bounds(name: str, lowest: int, highest: int) -> None:
    for value in (lowest, highest):
        assert getattr(make(**{name: value}), name) == value
    for wrong in (lowest - 1, highest + 1, float(lowest), str(lowest), None, True):
        assert reason(**{name: wrong}) == (f"{name} is {wrong!r}; give a whole number from {lowest} to {highest}")


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_are_more_than_none_and_not_for_ever(name: str) -> None:
    for value in (0.001, 1, 86_400.5):
        assert getattr(make(**{name: value}), name) == value
    for wrong in (0, -1.0, math.inf, math.nan, "5", None, True):
        assert reason(**{name: wrong}) == f"{name} is {wrong!r}; give seconds, more than 0"


def test_the_interval_of_probes_may_be_0_for_none() -> None:
    for value in (0, 0.0, 0.001, 86_400.5):
        assert make(probe_interval=value).probe_interval == value
    for wrong in (-1.0, math.inf, math.nan, "5", None, True, False):
        assert reason(probe_interval=wrong) == f"probe_interval is {wrong!r}; give seconds, or 0 for never"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("exclusive_queues", "bool"),
        ("hostname", "str"),
        ("limits", "Limits"),
        ("retry", "RetryPolicy"),
        ("reconnect", "ReconnectPolicy"),
    ],
)
def test_the_other_settings_are_of_their_kind(name: str, kind: str) -> None:
    for wrong in (None, 3, b"x"):
        assert reason(**{name: wrong}) == f"{name} is {wrong!r}; give a {kind}"


def test_every_number_is_checked() -> None:
    numbers = {field.name for field in dataclasses.fields(Config) if field.type in ("int", "float")}
    assert numbers == {name for name, _, _ in WHOLE} | {*SECONDS, "probe_interval"}


@pytest.mark.parametrize("name", ["events", "commands", "configurations", "logs"])
def test_dead_letters_go_to_no_exchange_of_services(name: str) -> None:
    assert reason(dead_letter_exchange=name) == (
        f"dead_letter_exchange is '{name}'; give one of its own, such as am-dlx: a service would get its dead letters "
        "as messages"
    )
    assert make(dead_letter_exchange="am-dlx").dead_letter_exchange == "am-dlx"


@pytest.mark.parametrize("name", ["correlation_id", "message_id", "routing_key", "payload"])
def test_messages_are_serialized_by_a_header(name: str) -> None:
    assert reason(serialize_by=name) == (
        f"serialize_by is '{name}', which is no header; give the name of a header, such as conversation_id"
    )
    assert make(serialize_by="customer").serialize_by == "customer"


@pytest.mark.parametrize("content_type", ["text/plain", "", None, "application/CBOR"])
def test_there_are_two_content_types(content_type: object) -> None:
    assert reason(content_type=content_type) == (
        f"content type {content_type!r} is not supported; use application/cbor or application/json"
    )


@pytest.mark.parametrize(
    ("service", "text"),
    [
        ("", "the logical service's name is empty"),
        (None, "must be str, not NoneType"),
        ("s" * 256, "is 256 bytes long"),
    ],
)
def test_the_name_of_the_service_is_checked(service: Any, text: str) -> None:
    with pytest.raises(LocalError) as caught:
        Config.make("amqp://localhost", service)
    assert text in str(caught.value)


@pytest.mark.parametrize("service", ["s", "transcriber-2", "a_b.c:d@e#f,g/h+i j", "s" * 100])
def test_a_name_that_fits_into_names_of_queues_passes(service: str) -> None:
    assert Config.make("amqp://localhost", service).service == service


@pytest.mark.parametrize("service", ["été", "a!", "a\nb", "s\n", "s" * 101])
def test_a_name_that_queues_cannot_have_is_refused(service: str) -> None:
    with pytest.raises(LocalError) as caught:
        Config.make("amqp://localhost", service)
    assert f"the logical service's name {service[:40]!r} cannot be part of a queue's name" in str(caught.value)
    assert "at most 100 characters" in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "called"),
    [
        ("events", "event_routing_keys"),
        ("commands", "command_routing_keys"),
        ("configurations", "config_routing_keys"),
        ("logs", "log_routing_keys"),
    ],
)
def test_binding_keys_are_checked_under_the_names_that_users_know(argument: str, called: str) -> None:
    assert reason(**{argument: "Done"}) == f"{called} is the text 'Done'; pass a list: ['Done']"
    assert reason(**{argument: ["Done", 7]}) == f"a key of {called} must be str, not int; pass text"
    assert f"a key of {called} 'kkkk" in reason(**{argument: ["k" * 256]})


def test_urls_are_checked_first_and_without_their_passwords() -> None:
    with pytest.raises(LocalError) as caught:
        Config.make("http://guest:secret@localhost", "")
    assert str(caught.value).startswith("broker URL 'http://guest:***@localhost': the scheme is not amqp or amqps")


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match="prefetsch"):
        make(prefetsch=1)


def test_the_connection_is_called_by_service_host_and_process() -> None:
    assert make(hostname="worker-1", pid=4711).connection_name == "transcriber@worker-1:4711"


def test_a_repr_shows_the_service_and_the_brokers_without_passwords() -> None:
    config = Config.make(["amqp://guest:secret@a", "amqps://b"], "transcriber", ["Done"])
    assert repr(config) == "Config('transcriber', amqp://guest:***@a, amqps://b)"
    assert len(repr(Config.make(["amqp://guest:secret@a"] * 100, "transcriber"))) < 200


@pytest.mark.parametrize("keys", [None, 7])
def test_keys_that_are_no_sequence_are_refused(keys: Any) -> None:
    with pytest.raises(LocalError, match=r"event_routing_keys is .*; pass a list of routing keys"):
        Config.make("amqp://localhost", "svc", keys)


@pytest.mark.parametrize("queue_type", ["stream", "Quorum", None])
def test_a_queue_type_is_classic_or_quorum(queue_type: Any) -> None:
    with pytest.raises(LocalError) as caught:
        make(queue_type=queue_type)
    hint = 'give "classic", "quorum", or "" for the default of the broker'
    assert str(caught.value) == f"queue_type is {queue_type!r}; {hint}"
