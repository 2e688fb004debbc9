"""Messages for a service are those that it subscribes to, with payloads that its handlers are annotated with."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum
from typing import Any, NotRequired, TypedDict

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import eda_aio
import eda_pika
from eda_core import Command, Configuration, Event, Result
from eda_core.errors import LocalError
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS, JSON
from eda_core.messages.envelope import open_envelope, seal
from eda_core.messages.values import AnyMessage
from eda_core.testing.simulation import Deployed
from eda_core.testing.strategies import services

FEW = settings(
    max_examples=50,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)
Meta = dict[str, Any]


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Line(TypedDict):
    article: str
    count: int
    note: NotRequired[Any]


@dataclass
class Order:
    number: int
    size: Size
    at: datetime.datetime
    lines: list[Line]
    pair: tuple[int, str] = (0, "")


ORDER = Order(1, Size.SMALL, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), [])


class Shop(eda_aio.Service):
    """Subscribes to something of each kind."""

    def __init__(self, urls: str | list[str] = "amqp://localhost/") -> None:
        super().__init__(urls, ["OrderPlaced", "Closed"], ["shop.Pack", "billing.Charged"], "shop", ["Prices"])

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: Meta) -> None: ...

    async def on_Closed(self, payload: Any, conversation_id: str, meta: Meta) -> None: ...

    async def on_Pack(
        self, payload: Line, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta
    ) -> None: ...

    async def on_Charged(
        self, payload: dict[str, float], conversation_id: str, status: str, correlation_id: str, meta: Meta
    ) -> None: ...

    async def on_Prices(self, payload: dict[str, int], meta: Meta) -> bool:
        return True


def drawn(strategy: st.SearchStrategy[AnyMessage], number: int = 100) -> list[AnyMessage]:
    """Draw so many messages."""
    found: list[AnyMessage] = []
    settings(FEW, max_examples=number)(given(strategy)(lambda message: found.append(message)))()
    return found


def test_each_subscription_is_drawn() -> None:
    assert {(type(each), each.name) for each in drawn(services(Shop))} == {
        (Event, "OrderPlaced"),
        (Event, "Closed"),
        (Command, "shop.Pack"),
        (Result, "billing.Charged"),
        (Configuration, "Prices"),
    }


@FEW
@given(services(Shop))
def test_a_payload_fits_the_annotation_as_it_travels(message: AnyMessage) -> None:
    payload = message.payload
    match message.name:
        case "OrderPlaced":
            assert {*payload} == {"number", "size", "at", "lines", "pair"}
            assert type(payload["number"]) is int
            assert payload["size"] in ("s", "l")
            assert payload["at"].tzinfo is datetime.UTC
            assert all({"article", "count"} <= {*line} <= {"article", "count", "note"} for line in payload["lines"])
            assert type(payload["pair"]) is list
        case "shop.Pack":
            assert isinstance(message, Command)
            assert message.reply_to
            assert type(payload["article"]) is str
            assert type(payload["count"]) is int
        case "billing.Charged":
            assert isinstance(message, Result)
            assert message.status in ("success", "error")
            assert all(type(each) is float for each in payload.values())
        case "Prices":
            assert all(type(each) is int for each in payload.values())


@FEW
@given(services(Shop))
def test_a_peer_can_publish_each_and_the_service_reads_it_as_it_is(message: AnyMessage) -> None:
    exchange, key, properties, body = seal(message, CBOR, DEFAULT_LIMITS)
    read = open_envelope(exchange, key, properties, body, DEFAULT_LIMITS)
    assert (type(read), read.name, read.payload) == (type(message), message.name, message.payload)


def test_a_service_that_was_made_and_a_deployed_one_are_taken() -> None:
    class Stored(Shop):
        def __init__(self, urls: list[str], store: dict[str, Any]) -> None:
            super().__init__(urls)

    for source in (Shop(), Deployed(Stored, store=dict)):
        assert "Closed" in {each.name for each in drawn(services(source))}


def test_what_a_class_is_given_to_be_looked_at_is_closed() -> None:
    closed: list[int] = []

    class Store:
        def close(self) -> None:
            closed.append(1)

    class Stored(Shop):
        def __init__(self, urls: list[str], store: Store) -> None:
            super().__init__(urls)

    services(Deployed(Stored, store=Store))
    assert closed == [1]


# Payloads that are given


@FEW
@given(services(Shop, payloads={"Closed": st.just({"day": 1}), "billing.Charged": Line, "Prices.#": Line}))
def test_payloads_are_given_by_name_last_word_or_pattern_and_by_strategy_or_type(message: AnyMessage) -> None:
    if message.name == "Closed":
        assert message.payload == {"day": 1}
    if message.name in ("billing.Charged", "Prices"):
        assert {"article", "count"} <= {*message.payload}


@FEW
@given(services(Shop, payloads={"*.*": st.just(1), "Pack": st.just(2)}))
def test_a_name_counts_before_a_pattern(message: AnyMessage) -> None:
    expected = {"billing.Charged": 1, "shop.Pack": 2}.get(message.name)
    assert expected is None or message.payload == expected


@FEW
@given(
    services(
        Shop,
        payloads={"OrderPlaced": st.just(Order(1, Size.SMALL, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), []))},
    )
)
def test_objects_that_a_given_strategy_draws_become_what_travels(message: AnyMessage) -> None:
    if message.name == "OrderPlaced":
        assert message.payload["number"] == 1
        assert type(message.payload) is dict


@FEW
@given(services(Shop, conversations=st.sampled_from(["c1", "c2"])))
def test_conversations_are_given(message: AnyMessage) -> None:
    assert message.conversation_id in ("c1", "c2") or isinstance(message, Configuration)


# Wildcards


class Wide(eda_pika.Service):
    """Subscribes by patterns, and has handlers of each kind."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["orders.*.#", "*.Moved"], ["wide.*", "#.Answer", "other.*"], "wide")

    def on_Placed(self, payload: Line, conversation_id: str, meta: Meta) -> None: ...

    def on_Moved(self, payload: int, conversation_id: str, meta: Meta) -> None: ...

    def on_Do(self, payload: int, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta) -> None: ...

    def on_Answer(self, payload: str, conversation_id: str, status: str, correlation_id: str, meta: Meta) -> None: ...


@FEW
@given(services(Wide))
def test_names_for_wildcards_match_and_have_a_handler_of_their_kind(message: AnyMessage) -> None:
    prefix, _, last = message.name.rpartition(".")
    made = Wide(["amqp://localhost/"])
    match message:
        case Event():
            assert made.subscribes_to("event", message.name)
            assert last in ("Placed", "Moved")
        case Command():
            assert prefix == "wide"
            assert last in ("Do", "Answer")
        case Result():
            assert made.subscribes_to("result", message.name)
            assert prefix != "wide"
            assert last == "Answer"
    if last == "Moved":
        assert type(message.payload) is int
    if last == "Placed":
        assert {"article", "count"} <= {*message.payload}


def test_a_wildcard_stands_for_words() -> None:
    names = {each.name for each in drawn(services(Wide), 300)}
    assert {"orders.Placed", "orders.Moved", "wide.Do", "Answer", "other.Answer"} <= names
    assert any(name.startswith("orders.") and name.count(".") > 1 for name in names)
    assert any(name.endswith(".Answer") and name.count(".") > 1 for name in names)


def test_a_name_with_a_given_payload_is_drawn_for_a_wildcard() -> None:
    found = drawn(services(Wide, payloads={"orders.eu.Special": st.just(5)}))
    assert {each.payload for each in found if each.name == "orders.eu.Special"} == {5}


def test_a_service_that_dispatches_itself_gets_any_name_that_matches() -> None:
    class All(eda_aio.Service):
        def __init__(self, urls: list[str]) -> None:
            super().__init__(urls, ["#"], [], "all")

        async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None: ...

        async def on_Never(self, payload: int, conversation_id: str, meta: Meta) -> None: ...

    names = {each.name for each in drawn(services(All))}
    assert len({"." in name for name in names}) == 2
    assert "Never" not in names


# Bad input


def service(annotation: Any, keys: tuple[str, ...] = ("Done",)) -> type[eda_aio.Service]:
    class Made(eda_aio.Service):
        def __init__(self, urls: list[str]) -> None:
            super().__init__(urls, list(keys), [], "made")

        async def on_Done(self, payload: Any, conversation_id: str, meta: Meta) -> None: ...

    Made.on_Done.__annotations__["payload"] = annotation
    return Made


class Opaque:
    def __init__(self, unknown) -> None:  # type: ignore[no-untyped-def]
        self.unknown = unknown


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: services(), "services() is given no service"),
        (lambda: services(3), "3 is neither a service nor the class of one"),  # type: ignore[arg-type]
        (lambda: services(lambda urls: {}), "makes dict, which is no service"),
        (lambda: services(service(Any, ())), "Made subscribes to no events"),
        (lambda: services(Shop, service(Any, ())), "Made subscribes to no events"),
        (lambda: services(Shop, content_type="text/plain"), "'text/plain' is not supported"),
        (lambda: services(Shop, payloads={"OrderPlacd": int}), "do you mean 'OrderPlaced'?"),
        (lambda: services(Shop, payloads={"Nothing": int}), "they subscribe to OrderPlaced, Closed, shop.Pack"),
        (lambda: services(Wide, payloads={"wide.a.b": int}), "payloads has 'wide.a.b', to which no service subscribes"),
        (lambda: services(Shop, payloads={"Closed": {"a": 1}}), "write st.just({'a': 1})"),
        (lambda: services(Shop, payloads={1: int}), "payloads has the key 1"),  # type: ignore[dict-item]
        (lambda: services(service("Missing")), "Made.on_Done(): nothing can be drawn for its payload"),
        (lambda: services(service(Opaque)), "payloads={'Done': strategy}"),
        (lambda: services(service(list[Opaque], ("#",))), "there is no strategy for list"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(call: Any, words: str) -> None:
    with pytest.raises(LocalError) as caught:
        call()
    assert words in str(caught.value)


@pytest.mark.parametrize(("annotation", "content_type"), [(slice, CBOR), (datetime.datetime, JSON)])
def test_what_cannot_be_written_is_told_when_it_is_drawn(annotation: Any, content_type: str) -> None:
    with pytest.raises(LocalError, match=f"Made, Done: payload cannot be written as {content_type}"):
        drawn(services(service(annotation), content_type=content_type))
