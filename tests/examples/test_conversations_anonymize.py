"""The anonymizer's pure functions, and what they make of the transcripts that come with the example."""

import contextlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.conversations.anonymize import anonymize, luhn, quarter
from examples.conversations.transcripts import SHIPPED, Transcript, read_transcripts

POISONED = "13-telecom-card-update-en.txt"

#: Every word of a person's name in the transcripts: a list of its own, so that the anonymizer is not its own judge.
NAMES = """
    Oliver Pemberley Élodie Castagnier Grace Adeyinka Bastien Roquefeuil Rowan O'Halleran Desmond Achterberg Solène
    Vauquelin Jean-Pierre Marchandeau Priya Ramanujar Whitcombe Fatoumata Delacroisière Ibrahim Callum Strathearn Isla
    Anaïs Guellaut Corentin Brazidec Hippolyte Santerre Marguerite Oustalet Apolline Tabitha Fennimore Jocelyn
    Quillfeather
""".split()

PHONES = [
    "06 12 34 56 78",
    "06.12.34.56.78",
    "06-12-34-56-78",
    "0612345678",
    "06\u00a012\u00a034\u202f56 78",
    "+33 6 12 34 56 78",
    "+33612345678",
    "+33 (0)6 12 34 56 78",
    "0033 6 12 34 56 78",
    "01 99 00 12 34",
    "020 7946 0958",
    "(020) 7946 0958",
    "07700 900123",
    "07700 900 123",
    "07700900123",
    "01632 960 455",
    "+44 7700 900318",
    "+44 (0)20 7946 0958",
    "(212) 555-0147",
    "212-555-0147",
    "212.555.0147",
    "+1 415 555 0192",
    "+49 30 901820 123",
]
NOT_PHONES = ["1 800 euros", "48213 kilowatt hours", "10:02:11", "2027-06-30", "12/05/2027"]
NOT_PHONES += ["HB-20417", "3.14159", "75011 Paris"]

CARDS = ["4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111", "3782 822463 10005", "4222222222222"]


def transcripts() -> list[Transcript]:
    return read_transcripts(SHIPPED)


def healthy() -> list[Transcript]:
    return [transcript for transcript in transcripts() if transcript.name != POISONED]


@pytest.mark.parametrize("number", PHONES)
def test_phone_number(number: str) -> None:
    assert anonymize(f"call {number}, please").text == "call [PHONE_1], please"
    assert anonymize(f"{number}").text == "[PHONE_1]"


@pytest.mark.parametrize("text", NOT_PHONES)
def test_other_numbers_stay(text: str) -> None:
    assert anonymize(text).text == text


def test_one_number_written_in_several_ways_is_one_placeholder() -> None:
    text = "06 12 34 56 78, +33 6 12 34 56 78, 0033612345678, +33 (0)6.12.34.56.78; 07700 900123 = +44 7700 900123; "
    assert (
        anonymize(text + "06 12 34 56 79").text
        == "[PHONE_1], [PHONE_1], [PHONE_1], [PHONE_1]; [PHONE_2] = [PHONE_2]; [PHONE_3]"
    )


@pytest.mark.parametrize("number", CARDS)
def test_card_number(number: str) -> None:
    assert anonymize(f"it is {number}.").text == "it is [CARD_1]."


def test_a_number_with_a_wrong_check_digit_is_no_card() -> None:
    assert anonymize("reference 4111 1111 1111 1112").counts == {}


def test_a_card_number_is_found_between_other_digits() -> None:
    assert anonymize("12 4111 1111 1111 1111 350").text == "12 [CARD_1] 350"


@pytest.mark.parametrize(
    ("digits", "valid"), [("4111111111111111", True), ("4111111111111112", False), ("378282246310005", True)]
)
def test_luhn(digits: str, valid: bool) -> None:
    assert luhn(digits) is valid


@given(st.text("0123456789", min_size=12, max_size=18))
def test_luhn_accepts_one_check_digit_of_ten(digits: str) -> None:
    assert sum(luhn(digits + last) for last in "0123456789") == 1


@given(st.integers(1, 12), st.integers(2000, 2099))
def test_quarter(month: int, year: int) -> None:
    assert quarter(month, year) == f"{year}-Q{ {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 3, 8: 3, 9: 3}.get(month, 4) }"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A: the expiry date?\nB: 09/27.", "A: the expiry date?\nB: 2027-Q3."),
        ("elle expire en 03/28", "elle expire en 2028-Q1"),
        ("valable jusqu'à 06/2029", "valable jusqu'à 2029-Q2"),
        ("4111 1111 1111 1111, 12 / 30", "[CARD_1], 2030-Q4"),
        ("le 05/12 à midi", "le 05/12 à midi"),
        ("expires on 01/02/2027", "expires on 01/02/2027"),
    ],
)
def test_expiry_dates_become_quarters(text: str, expected: str) -> None:
    assert anonymize(text).text == expected


def test_email_addresses() -> None:
    anonymized = anonymize("Write to Jo.Doe+x@mail.example.org, JO.DOE+X@mail.example.org or zoé@exemple.example.")
    assert anonymized.text == "Write to [EMAIL_1], [EMAIL_1] or [EMAIL_2]."
    assert anonymized.counts == {"EMAIL": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my name is Ada Byron. Ada?", "my name is [PERSON_1]. [PERSON_1]?"),
        ("Je m'appelle Zoé Lenoir", "Je m'appelle [PERSON_1]"),
        ("je m’appelle Zoé", "je m’appelle [PERSON_1]"),
        ("Mme Lenoir et M. Lebrun, et Mme Lenoir", "Mme [PERSON_1] et M. [PERSON_2], et Mme [PERSON_1]"),
        ("Mr O'Neil and Mrs. Van Horn", "Mr [PERSON_1] and Mrs. [PERSON_2]"),
        ("Ask Mr Roe. Roe's file, Roe.", "Ask Mr [PERSON_1]. [PERSON_1]'s file, [PERSON_1]."),
        ("Mme Amélie Petit. Le dossier d'Amélie.", "Mme [PERSON_1]. Le dossier d'[PERSON_1]."),
        ("Ann Lee: hi\nBob Lee: hi Ann, LEE", "[PERSON_1]: hi\n[PERSON_2]: hi [PERSON_1], [PERSON_1]"),
        ("[00:00:01] Jean-Luc de la Tour : bonjour", "[00:00:01] [PERSON_1] : bonjour"),
        ("Agent: hello\nCliente : bonjour", "Agent: hello\nCliente : bonjour"),
        ("A: A day\nB: à bientôt", "A: A day\nB: à bientôt"),
        ("Agent Sophie Bernard: hello, Sophie", "Agent [PERSON_1]: hello, [PERSON_1]"),
        ("Rosewood and Mr Rose", "Rosewood and Mr [PERSON_1]"),
    ],
)
def test_names(text: str, expected: str) -> None:
    assert anonymize(text).text == expected


def test_numbering_leaves_placeholders_of_before_alone() -> None:
    text = "[PERSON_2]: hi, my name is Ada. [PHONE_1]"
    assert anonymize(text).text == "[PERSON_2]: hi, my name is [PERSON_3]. [PHONE_1]"


@pytest.mark.parametrize("transcript", healthy(), ids=lambda transcript: transcript.name)
def test_no_personal_data_is_left(transcript: Transcript) -> None:
    text = anonymize(transcript.text).text
    assert [name for name in NAMES if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)] == []
    assert "@" not in text
    for line in text.split("\n"):
        spoken = re.sub(r"^\[[\d:]+\]", "", line)
        assert not re.search(r"\d(?:\W{0,3}\d){8,}", spoken), line
        assert not re.search(r"\d\d/\d\d", spoken), line


@pytest.mark.parametrize("transcript", healthy(), ids=lambda transcript: transcript.name)
def test_anonymizing_twice_changes_nothing(transcript: Transcript) -> None:
    once = anonymize(transcript.text)
    assert once.counts["PERSON"] >= 1
    assert anonymize(once.text).text == once.text
    assert anonymize(transcript.text) == once


def test_exactly_one_transcript_is_poisoned() -> None:
    failing = []
    for transcript in transcripts():
        try:
            anonymize(transcript.text)
        except ValueError as error:
            failing.append((transcript.name, str(error)))
    assert [name for name, _ in failing] == [POISONED]
    assert "month" in failing[0][1]
    assert len(transcripts()) == 13


def test_transcripts_are_as_documented() -> None:
    for transcript in transcripts():
        assert transcript.encoding == "utf-8"
        assert 15 <= len(transcript.text.strip().split("\n")) <= 40


@given(st.text(st.sampled_from("0189 +-./()@aÀZé'’:[]M\n\u00a0"), max_size=200))
def test_any_text_gives_a_text_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(anonymize(text).text, str)


UNITS = ["1", "1 ", "12 34 ", "a", "a.", "a@", "a@a.", "A", "Aa ", "A'a", "M. A", "Aa-", "+", "(", "0", "00 ", "1/"]


@pytest.mark.parametrize("unit", [*UNITS, "[CARD_1] 0"])
def test_time_is_linear(unit: str) -> None:
    # A quadratic pattern needs minutes for this. Of the processor: what others do beside must not count.
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    anonymize(text)
    assert time.process_time() - started < 10
