"""Takes personal data out of a transcript: pure functions, text in, text out.

What is found is replaced by a placeholder, numbered in the order of appearance and the same wherever the same thing is
meant inside one text: ``[PERSON_1]``, ``[PHONE_1]``, ``[EMAIL_1]``, ``[CARD_1]``. A card's expiry date is generalised
to its quarter (``2027-Q3``): that keeps what statistics need and no more. Placeholders already in the text stay as they
are, so anonymizing twice changes nothing.

It looks for patterns, in English and French, and knows no dictionary of names: a person is found where the conversation
introduces one (as a speaker, after "my name is", after a title), then everywhere else in the text. Things spelled out
in words ("zero six ...", "at example dot com") are beyond it.

Every regular expression runs in linear time: repetitions are bounded, or possessive and anchored by a look-behind, for
the text comes from outside.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

#: What may stand between groups of digits; French typography uses the two no-break spaces.
_SEP: Final = "[ .\\-\u00a0\u202f]"
_SPACE: Final = "[ \u00a0\u202f]"

_EMAIL: Final = re.compile(r"(?<![\w.%+-])[\w.%+-]++@[\w-]++(?:\.[\w-]++)++")

_DIGIT_RUN: Final = re.compile(r"(?<!\w)\d++(?:[ \-\u00a0\u202f]\d++)*+(?!\w)")

_PHONE: Final = re.compile(
    rf"""(?<![\w+])(?:
      (?:\+33|0033){_SEP}?(?:\(0\){_SEP}?)?[1-9](?:{_SEP}?\d{{2}}){{4}}               # +33 6 12 34 56 78
    | 0[1-9](?:{_SEP}?\d{{2}}){{4}}                                                   # 06 12 34 56 78
    | (?:\+44|0044){_SEP}?(?:\(0\){_SEP}?)?\d{{2,4}}{_SEP}?\d{{3,4}}{_SEP}?\d{{3,4}}  # +44 7700 900123
    | \(?0\d{{2,4}}\)?{_SEP}?\d{{3,4}}{_SEP}?\d{{3,4}}                                # 020 7946 0958, 07700 900 123
    | (?:\+?1{_SEP}?)?(?:\([2-9]\d{{2}}\){_SEP}?|[2-9]\d{{2}}{_SEP})[2-9]\d{{2}}{_SEP}\d{{4}}  # (212) 555-0147
    | (?:\+|00)[1-9]\d{{0,2}}(?:{_SEP}?\d{{2,4}}){{2,5}}                              # any other country
    )(?!\w)""",
    re.VERBOSE,
)

_MONTH_YEAR: Final = re.compile(r"(?<![\w/])(\d{2}) ?/ ?(20\d{2}|\d{2})(?![\w/])")
_EXPIRY_CUE: Final = re.compile(
    r"\bexpir|\bvalid (?:until|thru|through)\b|\bvalable jusqu|\bfin de validité|\bdate de validité|\[CARD_\d",
    re.IGNORECASE,
)
#: An expiry date is asked for in one turn and given in the next, perhaps after a hesitation.
_EXPIRY_LINES: Final = 3

_UPPER: Final = "A-ZÀ-ÖØ-ÞŒŠŸŽ"
_LETTER: Final = r"[^\W\d_]"
_JOIN: Final = "['’\\-]"
_WORD: Final = rf"(?:[dDlL]['’])?[{_UPPER}]{_LETTER}*+(?:{_JOIN}{_LETTER}++)*+"
_PARTICLE: Final = "(?:de la|de|du|des|van der|van|von|le|la|el|ben|da|di)"
_NAME: Final = rf"{_WORD}(?:{_SPACE}(?:{_PARTICLE}{_SPACE})?{_WORD}){{0,3}}"
_TITLE: Final = r"(?:(?i:mrs?|ms|miss|mme|mlle|madame|monsieur|mademoiselle|dr|docteur|doctor)\.?|M\.?)"
_SPEAKER: Final = re.compile(
    rf"^(?:\[[\d:.]{{4,12}}\]{_SPACE}?)?({_NAME}\.?(?:{_SPACE}{_NAME})?)(?:{_SPACE}\([^()\n]{{0,40}}\))?{_SPACE}?:(?!//)",
    re.MULTILINE,
)
_INTRODUCED: Final = re.compile(
    rf"\b(?i:my name is|my name['’]s|je m['’]appelle|mon nom est|au nom de|is called|s['’]appelle){_SPACE}"
    rf"(?:{_TITLE}{_SPACE})?({_NAME})"
)
_TITLED: Final = re.compile(rf"(?<!\w){_TITLE}{_SPACE}({_NAME})")
_TOKEN: Final = re.compile(rf"{_LETTER}++(?:{_JOIN}{_LETTER}++)*+")
_NAME_GAP: Final = re.compile(rf"{_SPACE}(?:(?i:{_PARTICLE}){_SPACE})?")

#: Capitalised words that label a speaker or follow a cue without being part of a name.
_NOT_NAMES: Final = frozenset(
    """
    accueil adviser advisor agent agente assistant assistante bot caller cabinet client cliente conseiller conseillère
    courier customer docteur doctor dr driver expert experte gestionnaire i infirmier infirmière je j'ai livreur
    livreuse m madame mademoiselle manager miss mlle mme monsieur mr mrs ms nurse opérateur opératrice operator patient
    patiente reception receptionist répondeur secretary secrétaire secrétariat standard standardiste superviseur
    superviseuse supervisor support svi système system technicien technicienne technician voicemail le la les the monday
    tuesday wednesday thursday friday saturday sunday
    """.split()
)


@dataclass(frozen=True, slots=True)
class Anonymized:
    """The text without personal data, and how many distinct things of each kind were taken out of it."""

    text: str
    counts: dict[str, int]


class _Placeholders:
    """Numbers the distinct things of one kind found in one text."""

    def __init__(self, kind: str, text: str) -> None:
        self._kind = kind
        self._known: dict[str, str] = {}
        # Numbers that the text uses already stand for something else.
        self._offset = max((int(number) for number in re.findall(rf"\[{kind}_(\d{{1,9}})\]", text)), default=0)

    def __call__(self, key: str) -> str:
        if key not in self._known:
            self._known[key] = f"[{self._kind}_{self._offset + len(self._known) + 1}]"
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)


def anonymize(text: str) -> Anonymized:
    """Replace e-mail addresses, card numbers and their expiry dates, phone numbers and names of persons.

    Raises:
        ValueError: an expiry date names no month. (A real anonymizer would cope. This one shows what becomes of a
            message whose handler fails each time.)
    """
    emails = _Placeholders("EMAIL", text)
    text = _EMAIL.sub(lambda found: emails(found[0].casefold()), text)
    cards = _Placeholders("CARD", text)
    text = _DIGIT_RUN.sub(lambda found: _replace_cards(found[0], cards), text)
    text, expiries = _generalise_expiries(text)
    phones = _Placeholders("PHONE", text)
    text = _PHONE.sub(lambda found: phones(_phone_key(found[0])), text)
    persons = _Placeholders("PERSON", text)
    text = _replace_names(text, persons)
    found_counts = (("PERSON", len(persons)), ("PHONE", len(phones)), ("EMAIL", len(emails)), ("CARD", len(cards)))
    counts = {kind: count for kind, count in (*found_counts, ("EXPIRY", expiries)) if count}
    return Anonymized(text, counts)


def luhn(digits: str) -> bool:
    """Whether ``digits`` end with the check digit that card numbers have."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit)
        if position % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def quarter(month: int, year: int) -> str:
    """The quarter of a month, as ``2027-Q3``."""
    first = datetime.date(year, month, 1)
    return f"{first.year}-Q{(first.month - 1) // 3 + 1}"


def _replace_cards(run: str, cards: Callable[[str], str]) -> str:
    # A run of digits may hold more than the card (its number, then an amount), so the card is looked for from group to
    # group.
    groups = list(re.finditer(r"\d+", run))
    pieces: list[str] = []
    copied = first = 0
    while first < len(groups):
        digits, found = "", False
        for last in range(first, len(groups)):
            digits += groups[last][0]
            if len(digits) > 19:
                break
            # No card number begins with 0, and phone numbers do.
            if len(digits) >= 13 and digits[0] != "0" and luhn(digits):
                pieces += [run[copied : groups[first].start()], cards(digits)]
                copied, first, found = groups[last].end(), last + 1, True
                break
        if not found:
            first += 1
    return "".join([*pieces, run[copied:]])


def _generalise_expiries(text: str) -> tuple[str, int]:
    """Replace dates such as ``09/27`` near a mention of a card or an expiry; elsewhere they are days or ratios."""
    count = 0

    def generalise(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        month, year = int(found[1]), int(found[2])
        return quarter(month, year if year > 99 else 2000 + year)

    lines = text.split("\n")
    near = 0
    for index, line in enumerate(lines):
        if _EXPIRY_CUE.search(line):
            near = _EXPIRY_LINES
        if near:
            lines[index] = _MONTH_YEAR.sub(generalise, line)
            near -= 1
    return "\n".join(lines), count


def _phone_key(number: str) -> str:
    """What two ways to write one number have in common."""
    digits = re.sub(r"\D", "", number.replace("(0)", ""))
    international = number.startswith(("+", "00"))
    digits = digits.removeprefix("00")
    if international and digits.startswith(("33", "44")):
        return "0" + digits[2:]
    if len(digits) == 11 and digits.startswith("1"):
        return digits[1:]
    return digits


def _replace_names(text: str, persons: Callable[[str], str]) -> str:
    owners = _owners(_find_names(text))
    if not owners:
        return text
    pieces: list[str] = []
    copied = 0
    for start, end, person in _occurrences(text, owners):
        pieces += [text[copied:start], persons(person)]
        copied = end
    return "".join([*pieces, text[copied:]])


def _find_names(text: str) -> list[tuple[str, ...]]:
    """The names that the conversation introduces, each as its words without titles, roles and particles."""
    names: dict[tuple[str, ...], None] = {}
    for pattern in (_SPEAKER, _INTRODUCED, _TITLED):
        for found in pattern.finditer(text):
            words = [token for token in _TOKEN.findall(found[1]) if token.casefold() not in _NOT_NAMES]
            # Particles are lower-case; speakers called "A" and "B" are not persons, and "A" is a word of English and
            # French.
            name = tuple(word for word in words if len(word) > 1 and (word[0].isupper() or word[1] in "'’"))
            if name:
                names[name] = None
    return list(names)


def _owners(names: list[tuple[str, ...]]) -> dict[str, list[str]]:
    """Who may be meant by each word: persons are named by their longest name, and shorter names belong to them."""
    owners: dict[str, list[str]] = {}
    for name in sorted(names, key=len, reverse=True):
        known = set(owners.get(name[0], ())).intersection(*(owners.get(word, ()) for word in name))
        if not known:
            person = " ".join(name)
            for word in dict.fromkeys(name):
                owners.setdefault(word, []).append(person)
    for word in list(owners):
        owners.setdefault(word.upper(), owners[word])
    return owners


def _occurrences(text: str, owners: dict[str, list[str]]) -> Iterator[tuple[int, int, str]]:
    """Where persons are named: adjacent words that may mean one person are taken together."""
    start = end = 0
    candidates: list[str] = []
    for token in _TOKEN.finditer(text):
        known = _lookup(token, owners)
        if known is None:
            continue
        begin, finish, people = known
        joined = [person for person in candidates if person in people]
        if candidates and joined and _NAME_GAP.fullmatch(text, end, begin):
            end, candidates = finish, joined
            continue
        if candidates:
            yield start, end, candidates[0]
        start, end, candidates = begin, finish, people
    if candidates:
        yield start, end, candidates[0]


def _lookup(token: re.Match[str], owners: dict[str, list[str]]) -> tuple[int, int, list[str]] | None:
    """The part of a word that names a person: all of it, or what is left without an elision or a possessive."""
    word, start, end = token[0], token.start(), token.end()
    if word in owners:
        return start, end, owners[word]
    marks = [index for index, character in enumerate(word) if character in "'’-"]
    if marks and word[: marks[-1]] in owners:
        return start, start + marks[-1], owners[word[: marks[-1]]]
    if marks and word[marks[0] + 1 :] in owners:
        return start + marks[0] + 1, end, owners[word[marks[0] + 1 :]]
    return None
