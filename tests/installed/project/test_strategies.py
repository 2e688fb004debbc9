"""The strategies for messages need nothing but the extra ``testing``."""

from __future__ import annotations

from hypothesis import given

from eda_core import Limits
from eda_core.messages import CBOR, AnyMessage, open_envelope, seal
from eda_core.testing import strategies


@given(strategies.messages())
def test_a_message_survives_its_envelope(message: AnyMessage) -> None:
    limits = Limits()
    opened = open_envelope(*seal(message, CBOR, limits), limits)
    assert (type(opened), opened.name, opened.payload) == (type(message), message.name, message.payload)
