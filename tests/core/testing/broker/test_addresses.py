"""Addresses of direct replies: each is read as it was written, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.testing.broker import ConnectionId
from eda_core.testing.broker.addresses import PREFIX, Address, Place, crashes, read
from eda_core.testing.broker.versions import VERSIONS

OLD, NEW = VERSIONS["3.10"], VERSIONS["4.3"]
ADDRESSES = st.builds(
    Address,
    st.builds(Place, st.integers(1, 2**40).map(ConnectionId), st.integers(1, 65535), st.integers(0, 2**40)),
    st.text(alphabet="abcXYZ019-_", min_size=1),
)


@given(ADDRESSES, st.sampled_from([OLD, NEW]))
def test_an_address_is_read_as_it_was_written(address: Address, version: object) -> None:
    assert version in (OLD, NEW)
    for release in (OLD, NEW):
        assert read(address.name, release) == address
        assert not crashes(address.name, release)


@given(st.text())
def test_what_no_broker_has_written_is_no_address(text: str) -> None:
    for release in (OLD, NEW):
        assert read(PREFIX + text, release) is None


@pytest.mark.parametrize(
    ("rest", "old", "new"),
    [("", False, True), ("x", False, True), ("x.y", True, True), ("x.y.z", False, True), (".x.y", True, True)],
)
def test_releases_fail_to_read_different_names(rest: str, old: bool, new: bool) -> None:
    assert crashes(PREFIX + rest, OLD) is old
    assert crashes(PREFIX + rest, NEW) is new


def test_dots_are_read_differently() -> None:
    address = Address(Place(ConnectionId(1), 2, 3), "k")
    more = address.name.replace(PREFIX, f"{PREFIX}.")
    assert (read(more, OLD), read(more, NEW)) == (address, None)
    longer = f"{address.name}.x"
    assert (read(longer, OLD), read(longer, NEW)) == (None, address._replace(key="k.x"))
