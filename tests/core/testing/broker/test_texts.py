"""What the texts of errors quote. ``tests/differential/test_texts.py`` compares the same with RabbitMQ."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from eda_core.testing.broker.texts import octet_by_octet, quoted, reply_text, string, term, value
from eda_core.testing.broker.values import Integer
from eda_core.testing.broker.versions import VERSIONS

OLD, NEW = VERSIONS["3.10"], VERSIONS["4.3"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a", "a"), ("é€", "é€"), (b"\xc3\xa9", "é"), ("\udcff", "\udcff"), ("é\udcff", "\udcc3\udca9\udcff")],
)
def test_a_name_that_is_not_utf_8_is_quoted_octet_by_octet(name: str | bytes, shown: str) -> None:
    assert quoted(name) == shown


def test_a_release_quotes_octets_and_another_one_takes_them_for_latin_1() -> None:
    text = f"no queue '{quoted('é' + chr(0xDCFF))}'"
    assert reply_text("NOT_FOUND", text, OLD) == "NOT_FOUND - no queue 'é\udcff'"
    assert reply_text("NOT_FOUND", text, NEW) == "NOT_FOUND - no queue 'Ã©ÿ'"
    assert reply_text("INTERNAL_ERROR", "", NEW) == "INTERNAL_ERROR"


def test_what_is_too_long_is_cut_in_octets_or_in_characters() -> None:
    old = reply_text("X", "é" * 200, OLD)
    assert old == "X - " + "é" * 124 + "..."
    assert reply_text("XX", "é" * 200, OLD) == "XX - " + "é" * 123 + "\udcc3..."
    assert reply_text("X", "a" * 300, NEW) == "X - " + "a" * 248 + "..."
    assert reply_text("X", "é" * 125, NEW) == "X - " + "é" * 125
    assert reply_text("X", "é" * 126, NEW) is None, "256 octets do not fit into a short string"


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("a", '"a"', '"a"'),
        ('"\\\n', r'"\"\\\n"', r'"\"\\\n"'),
        ("é", '"é"', '"é"'),
        ("€", "[226,130,172]", "[8364]"),
        ("\x01", "[1]", "[1]"),
        ("", '""', '""'),
        (octet_by_octet("é"), '"\udcc3\udca9"', '"\udcc3\udca9"'),
        (octet_by_octet("€"), "[226,130,172]", "[226,130,172]"),
    ],
)
def test_strings_of_erlang(text: str, old: str, new: str) -> None:
    assert (string(text, OLD), string(text, NEW)) == (old, new)


@pytest.mark.parametrize(
    ("it", "old", "new"),
    [
        (True, "true", "true"),
        (5, "5", "5"),
        (1.0, "1.0", "1.0"),
        (None, "undefined", "undefined"),
        ("a", '<<"a">>', '<<"a">>'),
        ("é", '<<"é">>', '<<"é"/utf8>>'),
        ("€", "<<226,130,172>>", '<<"€"/utf8>>'),
        (b"\xff", '<<"\udcff">>', '<<"\udcff">>'),
        (b"\x01", "<<1>>", "<<1>>"),
        (Decimal("1.25"), "{2,125}", "{2,125}"),
        (Decimal("-3"), "{0,-3}", "{0,-3}"),
        (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), "60", "60"),
        ([1, "a"], '[{signedint,1},{longstr,<<"a">>}]', '[{signedint,1},{longstr,<<"a">>}]'),
        ({"k": Integer(1, "b")}, '[{<<"k">>,byte,1}]', '[{<<"k">>,byte,1}]'),
    ],
    ids=repr,
)
def test_terms_of_erlang(it: object, old: str, new: str) -> None:
    assert (term(it, OLD), term(it, NEW)) == (old, new)


def test_the_value_of_an_argument() -> None:
    assert [value(it, NEW) for it in (None, "é", b"\xff", True, [1])] == [
        *("none", "'é'", "'\udcff'", "'true'", "'[{signedint,1}]'"),
    ]
