"""AMQP 0-9-1 as bytes: reads what a broker sends. For transports that read frames themselves.

It knows nothing of connections, services and machines.
"""

from eda_core.amqp.reading import named, read_frame, read_header, read_method, read_properties

__all__ = ["named", "read_frame", "read_header", "read_method", "read_properties"]
