"""What a process has of an object that threads share: its session ends once, in whatever way."""

from __future__ import annotations

from functools import partial
from threading import RLock

import pytest

from eda_core import Config
from eda_core.drivers.processes import ProcessState, sessions_by
from tests.core.drivers.test_blocking import Caller


def in_use() -> tuple[ProcessState[Caller], Caller]:
    session = Caller(urls=("amqp://a/", "amqp://b/"))
    return ProcessState(RLock(), user=7, session=session), session


def test_a_session_that_is_dropped_leaves_its_urls_for_the_next_one() -> None:
    state, session = in_use()
    state.drop()
    assert state.session is None
    assert state.urls == session.machine.urls == ("amqp://a/", "amqp://b/")
    assert session.over


def test_a_session_that_is_closed_has_no_user() -> None:
    state, session = in_use()
    state.close(1.0)
    assert (state.session, state.user) == (None, None)
    assert session.over


def test_a_close_that_is_interrupted_leaves_no_session_and_no_user() -> None:
    state, session = in_use()

    def interrupted(timeout: float) -> None:
        raise KeyboardInterrupt

    session.close = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        state.close(1.0)
    assert (state.session, state.user) == (None, None)


def test_without_a_session_there_is_nothing_to_end() -> None:
    state: ProcessState[Caller] = ProcessState(RLock(), user=7)
    state.drop()
    assert (state.urls, state.user) == ((), 7)
    state.close(1.0)
    assert state.user is None


def test_a_session_is_made_by_the_adapter_or_by_what_stands_in_for_it() -> None:
    state: ProcessState[Caller] = ProcessState(RLock())
    config = Config(service="endpoint", urls=("amqp://a/",))
    made: list[tuple[str, Config, object]] = []

    def make(who: str, config: Config, records: object) -> Caller:
        made.append((who, config, records))
        return Caller()

    with sessions_by(partial(make, "stand-in")):
        assert state.begin(partial(make, "adapter"), config) is state.session
    assert state.begin(partial(make, "adapter"), config) is state.session
    assert made == [("stand-in", config, state.records), ("adapter", config, state.records)]
