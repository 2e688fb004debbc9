"""The names of headers."""

from __future__ import annotations

import pytest

from eda_core.messages import headers

OWN = [headers.CONVERSATION_ID, headers.STATUS, headers.CAUSATION_ID, headers.DEDUPLICATION_ID, headers.ATTEMPT]
ORIGIN = [headers.ORIGIN_EXCHANGE, headers.ORIGIN_ROUTING_KEY]


@pytest.mark.parametrize("name", [*OWN, *ORIGIN])
def test_a_header_of_the_toolkit_has_no_name_of_the_brokers(name: str) -> None:
    """Names that begin with x- are the broker's, and CC and BCC make it route copies."""
    assert not name.startswith("x-")
    assert name not in headers.ROUTING


def test_the_count_of_deliveries_is_the_brokers() -> None:
    assert headers.DELIVERY_COUNT_HEADER.startswith("x-")
