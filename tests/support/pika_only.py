"""Services of ``eda_pika`` whose messages pika reads and writes."""

from __future__ import annotations

import eda_pika


class PikaOnlyService(eda_pika.Service):
    """A service on the public methods of pika."""

    PIKA_ONLY = True
