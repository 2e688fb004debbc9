"""The server side of AMQP 0-9-1 without I/O, in front of :mod:`eda_core.testing.broker`: bytes in, bytes out."""

from eda_core.testing.wire.connection import (
    CLOSING_TIMEOUT,
    HANDSHAKE_TIMEOUT,
    MAX_BODY,
    PROTOCOL_HEADER,
    ServerConnection,
)
from eda_core.testing.wire.server import GUEST, Server

__all__ = ["CLOSING_TIMEOUT", "GUEST", "HANDSHAKE_TIMEOUT", "MAX_BODY", "PROTOCOL_HEADER", "Server", "ServerConnection"]
