"""AMQP 0-9-1 on the client's side, without I/O: for transports that read and write bytes themselves.

:class:`Client` is one connection: bytes in, events out; commands in, bytes out. The functions read single frames, for
transports with a client library that gives out the bytes. Nothing here knows machines and services.
"""

from eda_core.amqp.client import Client, Ended, Event, Opened, Received
from eda_core.amqp.reading import named, read_frame, read_header, read_method, read_properties

__all__ = [
    "Client",
    "Ended",
    "Event",
    "Opened",
    "Received",
    "named",
    "read_frame",
    "read_header",
    "read_method",
    "read_properties",
]
