"""The tagger's pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.conversations.anonymize import anonymize
from examples.conversations.tagging import MAX_TOPICS, Topic, fold, guess_language, tag
from examples.conversations.transcripts import SHIPPED, read_transcripts

TOPICS = {
    "01-telecom-slow-internet-en.txt": "connectivity",
    "02-telecom-facture-fr.txt": "billing",
    "03-bank-card-fraud-en.txt": "card-fraud",
    "04-banque-virement-fr.txt": "banking",
    "05-insurance-car-claim-en.txt": "insurance-claim",
    "06-assurance-degat-des-eaux-fr.txt": "insurance-claim",
    "07-delivery-lost-parcel-en.txt": "delivery",
    "08-livraison-retard-fr.txt": "delivery",
    "09-energy-meter-reading-en.txt": "energy",
    "10-energie-demenagement-fr.txt": "energy",
    "11-cabinet-medical-rendez-vous-fr.txt": "health",
    "12-doctor-appointment-en.txt": "health",
}


@pytest.mark.parametrize("name", TOPICS)
def test_main_topic_and_language_of_the_shipped_transcripts(name: str) -> None:
    text = next(transcript.text for transcript in read_transcripts(SHIPPED) if transcript.name == name)
    tags = tag(anonymize(text).text)
    assert tags.language == name[-6:-4]
    assert tags.topics[0].name == TOPICS[name]


@pytest.mark.parametrize("text", ["", "[PERSON_1] 12 34", "xyzzy", "Hm. Hm!"])
def test_nothing_known(text: str) -> None:
    tags = tag(text)
    assert (tags.language, tags.topics) == ("unknown", [])


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is it that you have there?", "en"),
        ("Est-ce que vous avez le dossier ?", "fr"),
        ("EST-CE QUE VOUS AVEZ LE DOSSIER ?", "fr"),
        ("merci", "unknown"),
    ],
)
def test_language(text: str, language: str) -> None:
    assert guess_language(text) == language == tag(text).language


def test_scores_are_shares_of_the_words_found() -> None:
    text = "The bill and the invoice: the bill is for the parcel and the parcel."
    assert tag(text).topics == [Topic("billing", 0.6), Topic("delivery", 0.4)]


def test_one_word_is_only_a_mention() -> None:
    assert tag("You have the bill, and that is it.").topics == []


def test_placeholders_are_no_words() -> None:
    assert tag("[CARD_1] [PHONE_1]") == tag("")


def test_fold() -> None:
    assert fold("ÉNERGIE Dégât ça") == "energie degat ca"


@given(st.text())
def test_any_text(text: str) -> None:
    tags = tag(text)
    assert len(tags.topics) <= MAX_TOPICS
    assert all(0 < topic.score <= 1 for topic in tags.topics)
    assert sorted(tags.topics, key=lambda topic: -topic.score) == tags.topics
