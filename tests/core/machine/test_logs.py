"""Records for the logs exchange, with a link and without."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eda_core.criticality import ERROR, INFO
from eda_core.errors import LocalError
from eda_core.machine.effects import Effect, PublishLog
from eda_core.machine.identifiers import Epoch
from eda_core.machine.logs import KEPT_LOGS, Logs
from tests.core.kit import WALL, config, of, only, snapshot

FIRST, SECOND = Epoch(1), Epoch(2)


def some_logs() -> Logs:
    return Logs(config(), WALL)


def write(logs: Logs, short: str = "text", level: int = INFO, now: float = 2.5, **named: Any) -> list[PublishLog]:
    effects: list[Effect] = []
    logs.write(level, short, now, effects, **named)
    return of(PublishLog, effects)


def begin(logs: Logs, epoch: Epoch) -> list[PublishLog]:
    effects: list[Effect] = []
    logs.opened(epoch, effects)
    return of(PublishLog, effects)


def texts(effects: list[PublishLog]) -> list[str]:
    return [json.loads(effect.body)["short_message"] for effect in effects]


def test_it_is_open_while_there_is_a_link_whose_channel_is_not_closed() -> None:
    logs = some_logs()
    assert not logs.open
    begin(logs, FIRST)
    assert logs.open
    logs.channel_closed("ACCESS_REFUSED - no")
    assert not logs.open
    begin(logs, SECOND)
    assert logs.open
    logs.lost()
    assert not logs.open


def test_a_record_goes_out_at_once_while_there_is_a_link() -> None:
    logs = some_logs()
    begin(logs, SECOND)
    effect = only(PublishLog, write(logs, "it broke", ERROR, full="all of it", conversation_id="c-1", fields={"k": 1}))
    assert (effect.epoch, effect.exchange, effect.routing_key) == (SECOND, "logs", "svc.ERROR")
    assert (effect.properties.content_type, effect.properties.delivery_mode) == ("application/json", 1)
    assert json.loads(effect.body) == {
        "version": "1.1",
        "host": "svc@box",
        "short_message": "it broke",
        "full_message": "all of it",
        "timestamp": WALL + 2.5,
        "level": 3,
        "_levelname": "ERROR",
        "_conversation_id": "c-1",
        "_logical_service": "svc",
        "_worker_pid": 7,
        "_k": 1,
    }


def test_records_written_without_a_link_go_out_with_the_next_one_in_order() -> None:
    logs = some_logs()
    assert write(logs, "one") == write(logs, "two") == []
    sent = begin(logs, FIRST)
    assert texts(sent) == ["one", "two"]
    assert {effect.epoch for effect in sent} == {FIRST}
    assert begin(logs, SECOND) == []


def test_a_kept_record_has_the_time_at_which_it_was_written() -> None:
    logs = some_logs()
    write(logs, now=1.0)
    assert json.loads(only(PublishLog, begin(logs, FIRST)).body)["timestamp"] == WALL + 1.0


def test_a_lost_link_keeps_records_again() -> None:
    logs = some_logs()
    begin(logs, FIRST)
    logs.lost()
    assert write(logs, "between") == []
    assert texts(begin(logs, SECOND)) == ["between"]
    assert texts(write(logs, "after")) == ["after"]


def test_the_latest_records_are_kept_and_no_more() -> None:
    logs = some_logs()
    for number in range(KEPT_LOGS + 3):
        write(logs, str(number))
    assert texts(begin(logs, FIRST)) == [str(number) for number in range(3, KEPT_LOGS + 3)]


@pytest.mark.parametrize(("level", "fields"), [(8, None), (-1, None), (True, None), (INFO, {"id": 1})])
def test_a_refused_record_leaves_nothing_behind(level: int, fields: dict[str, Any] | None) -> None:
    logs = some_logs()
    before = snapshot(logs)
    with pytest.raises(LocalError):
        write(logs, level=level, fields=fields)
    assert snapshot(logs) == before


def test_a_closed_channel_keeps_records_until_the_next_link_and_is_told_once_for_each_reason() -> None:
    logs = some_logs()
    begin(logs, FIRST)
    assert logs.channel_closed("ACCESS_REFUSED - access to topic 'svc.INFO'")
    assert write(logs, "kept") == []
    assert not logs.channel_closed("ACCESS_REFUSED - access to topic 'svc.ERROR'")
    assert logs.channel_closed("PRECONDITION_FAILED - message size 9")
    assert texts(begin(logs, SECOND)) == ["kept"]


def test_the_time_stamps_follow_a_clock_that_is_set_and_not_each_reading() -> None:
    offset = 1000.0
    logs = Logs(config(), lambda: offset)
    begin(logs, FIRST)
    stamps: list[float] = []
    for step in (0.0, -0.05, 0.05, 3600.0):
        offset += step
        stamps += [json.loads(effect.body)["timestamp"] for effect in write(logs, now=1.0)]
    assert stamps == [1001.0, 1001.0, 1001.0, 4601.0]
