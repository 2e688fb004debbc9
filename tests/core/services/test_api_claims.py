"""CLAIM_CHECK of a service: what is stored, and which results have to be."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.errors import LocalError
from eda_core.machine.effects import Publish
from eda_core.messages.codec import CBOR, decode
from eda_core.messages.values import AnyMessage, Command, Event
from eda_core.services.claims import ClaimCheck
from tests.core.drivers.jobs import Runs, Service
from tests.core.kit import URLS, of, only
from tests.core.services.claiming import LARGE, OVER, SMALL, Memory, key_of, put

COMMAND = Command("svc.Do", None, "c-1", "peer.DoReturn", "k")


def begun(claims: ClaimCheck | None) -> tuple[Service, Runs]:
    service = type("Claiming", (Service,), {"CLAIM_CHECK": claims})(URLS[0], ["Happened"], [], "svc")
    driver = service.begin_run(Runs)
    driver.tell(driver.machine.start)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    return service, driver


@pytest.mark.parametrize(("payload", "stored"), [(LARGE, True), (SMALL, False)])
def test_only_a_large_payload_is_stored_when_it_is_published(payload: str, stored: bool) -> None:
    memory = Memory()
    service, driver = begun(ClaimCheck(memory, OVER))
    service.publish_event("Told", payload, "c-1", headers={"tenant": "a"})
    publish = only(Publish, driver.link.asked)
    assert (publish.properties.headers or {})["tenant"] == "a"
    assert key_of(publish) == (put(Memory(), payload) if stored else None)
    assert [decode(body, CBOR) for body in memory.bodies.values()] == [payload] * stored


def test_what_the_store_does_not_take_is_not_published() -> None:
    class Full(Memory):
        def put(self, key: str, body: bytes) -> None:
            raise OSError("no space left")

    service, driver = begun(ClaimCheck(Full(), OVER))
    with pytest.raises(OSError, match="no space left"):
        service.publish_event("Told", LARGE, "c-1")
    assert of(Publish, driver.link.asked) == []


def test_without_a_store_a_payload_that_is_in_one_is_not_handled() -> None:
    _, driver = begun(None)
    with pytest.raises(LocalError, match="the payload of Happened is in a store"):
        driver.run_handler(Event("Happened", None, "c-1", {"claim_check": "0" * 64}))


def test_with_a_store_the_driver_gives_messages_to_what_redeems_them() -> None:
    service, driver = begun(ClaimCheck(Memory(), OVER))
    assert driver.redeeming == service._eda_redeem_and_handle


@pytest.mark.parametrize(
    ("message", "returned", "large"),
    [
        (COMMAND, LARGE, True),
        (COMMAND, SMALL, False),
        (COMMAND, None, False),
        (COMMAND, True, False),
        (Event("Happened", None, "c-1"), LARGE, False),
    ],
)
def test_only_a_large_result_of_a_command_has_to_be_stored(message: AnyMessage, returned: Any, large: bool) -> None:
    assert begun(ClaimCheck(Memory(), OVER))[0]._eda_is_large(message, returned) is large
    assert not begun(None)[0]._eda_is_large(message, returned)
