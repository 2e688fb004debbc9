"""Services of ``eda_aio`` on the core's own AMQP."""

from __future__ import annotations

import eda_aio


class NativeService(eda_aio.Service):
    """A service without a client library."""

    TRANSPORT = "native"
