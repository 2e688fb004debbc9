"""The names of what is written to the local log."""

from __future__ import annotations

import re
from pathlib import Path

from eda_core.machine import events

NAMES = {name: value for name, value in vars(events).items() if name.isupper()}
#: The comment behind each name, in the order of the file.
COMMENTS = re.findall(r'^([A-Z_]+): Final = "([^"]+)"  # (.+)$', Path(events.__file__).read_text("utf-8"), re.MULTILINE)


def test_each_kind_of_line_has_a_name_of_its_own() -> None:
    """Somebody who filters by a name gets one kind of line."""
    assert len(set(NAMES.values())) == len(NAMES) > 20


def test_names_are_words_that_a_filter_can_be_written_with() -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", value) for value in NAMES.values())


def test_each_name_says_its_level_and_when_the_line_is_written() -> None:
    """The page docs/log-events.rst is made of these comments."""
    assert {name: value for name, value, _ in COMMENTS} == NAMES
    levels = "EMERGENCY|ALERT|CRITICAL|ERROR|WARNING|NOTICE|INFO|DEBUG"
    for name, _, comment in COMMENTS:
        assert re.match(rf"({levels})(( or |, )({levels}))*: \S", comment), (name, comment)
