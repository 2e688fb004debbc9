"""A bench in each state of the life cycle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eda_core.machine import link
from tests.core.kit import Bench, opened


def idle(**settings: Any) -> Bench:
    return Bench(**settings)


def connecting(**settings: Any) -> Bench:
    bench = Bench(**settings)
    bench.connect()
    return bench


def declaring(**settings: Any) -> Bench:
    bench = connecting(**settings)
    bench.link_up()
    return bench


def binding(**settings: Any) -> Bench:
    bench = connecting(**settings)
    bench.declared(bench.link_up())
    return bench


def draining(**settings: Any) -> Bench:
    """Return a bench that is draining because a handler runs."""
    bench = opened(**settings)
    bench.take()
    bench.stop()
    return bench


def closing(**settings: Any) -> Bench:
    bench = opened(**settings)
    bench.stop()
    return bench


def backing_off(**settings: Any) -> Bench:
    bench = connecting(**settings)
    bench.lose()
    return bench


def stopped(**settings: Any) -> Bench:
    bench = closing(**settings)
    bench.lose()
    return bench


REACH: dict[str, Callable[..., Bench]] = {
    link.IDLE: idle,
    link.CONNECTING: connecting,
    link.DECLARING: declaring,
    link.BINDING: binding,
    link.OPEN: opened,
    link.DRAINING: draining,
    link.CLOSING: closing,
    link.BACKOFF: backing_off,
    link.STOPPED: stopped,
}
every_state = pytest.mark.parametrize("state", link.STATES)
