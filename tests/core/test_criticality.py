"""The severities: names, numbers and what ``logging`` makes of them."""

from __future__ import annotations

import logging

import pytest

from eda_core import criticality

#: RFC 5424, table 2, under the names that the log bus uses.
SEVERITIES = {
    "EMERGENCY": 0,
    "ALERT": 1,
    "CRITICAL": 2,
    "ERROR": 3,
    "WARNING": 4,
    "NOTICE": 5,
    "INFO": 6,
    "DEBUG": 7,
}


@pytest.mark.parametrize(("name", "level"), SEVERITIES.items())
def test_each_severity_has_its_number_and_its_label(name: str, level: int) -> None:
    assert getattr(criticality, name) == level
    assert criticality.LABELS[level] == name


def test_there_are_no_others() -> None:
    assert {name for name in vars(criticality) if name.isupper()} == {
        *SEVERITIES,
        "LABELS",
        "CRITICITY_LABELS",
        "LOGGING_LEVELS",
    }
    assert len(criticality.LABELS) == len(criticality.LOGGING_LEVELS) == 8


@pytest.mark.parametrize("name", ["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"])
def test_severities_that_logging_knows_by_name_keep_their_level(name: str) -> None:
    assert criticality.LOGGING_LEVELS[SEVERITIES[name]] == getattr(logging, name)


def test_a_graver_severity_never_has_a_lower_level_in_logging() -> None:
    assert list(criticality.LOGGING_LEVELS) == sorted(criticality.LOGGING_LEVELS, reverse=True)
    assert all(level in logging.getLevelNamesMapping().values() for level in criticality.LOGGING_LEVELS)
