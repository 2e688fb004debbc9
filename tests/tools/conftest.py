"""The brokers that the tools are tested on."""

from tests.aio.conftest import broker

__all__ = ["broker"]
