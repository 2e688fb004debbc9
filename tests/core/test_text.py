"""Text of unknown length and content becomes one short line."""

from __future__ import annotations

import pytest

from eda_core.text import as_text, one_line, shortened


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("", 5, ""),
        ("abcde", 5, "abcde"),
        ("abcdef", 5, "abcd…"),
        ("ab\ncd", 5, "ab…"),
        ("\n", 5, "…"),
        ("abcde\n", 5, "abcd…"),
    ],
)
def test_a_long_or_broken_text_is_cut_to_one_line(text: str, width: int, short: str) -> None:
    assert shortened(text, width) == short


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("one", "one"),
        ("one\ntwo", "one"),
        ("one\x0btwo", "one"),
        ("a\tb\x00c", "a b c"),
        ("x" * 1_000, "x" * 1_000),
        ("x" * 1_001, "x" * 1_000 + "…"),
    ],
)
def test_a_reason_is_one_line_without_control_characters(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("value", "text"), [("é", "é"), (b"caf\xc3\xa9", "café"), (b"\xff", "\ufffd"), (None, ""), (b"", "")]
)
def test_what_may_be_bytes_is_read_as_text(value: str | bytes | None, text: str) -> None:
    assert as_text(value) == text
