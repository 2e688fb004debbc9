"""The brokers that eda_kombu is tested on: those of eda_aio."""

from tests.adapters.aio.conftest import broker

__all__ = ["broker"]
