"""Finds the language and the topics of a conversation by lexicons of words: pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: Placeholders of the anonymizer, timestamps and numbers say nothing of the topic.
_NOISE: Final = re.compile(r"\[[A-Z]{1,20}_\d{1,9}\]|\[[\d:.]{4,12}\]")
_TOKEN: Final = re.compile(r"[^\W\d_]+")

#: A topic needs this many words of its lexicon, and this share of all the words found, or it is only a mention.
MIN_HITS: Final = 2
MIN_SCORE: Final = 0.15
MAX_TOPICS: Final = 3


def _lexicon(words: str) -> frozenset[str]:
    return frozenset(fold(words).split())


def fold(text: str) -> str:
    """Lower case without accents, so that ``Énergie`` and ``energie`` are one word."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


_STOP_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "en": _lexicon(
        """the and is it of to you your i my we that this for with on in have has was are be can could would will not
        there
        what when which who they he she thank thanks please yes no hello good"""
    ),
    "fr": _lexicon(
        """le la les un une des du de et est c ce ca que qui je j vous votre vos nous mon ma mes pour avec sur dans au
        aux
        pas ne il elle on oui non merci bonjour plait en d l n s qu"""
    ),
}

_TOPICS: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "billing": {
        "en": _lexicon(
            "bill bills invoice invoices charge charged charges payment payments fee fees refund refunded credit"
        ),
        "fr": _lexicon(
            """facture factures facturation montant prélèvement prélevé prélevée prélèvements remboursement remboursé
            remboursée paiement payer tarif frais forfait"""
        ),
    },
    "connectivity": {
        "en": _lexicon(
            "internet broadband router wifi network connection signal outage line lines engineer loads fibre"
        ),
        "fr": _lexicon("internet box wifi réseau connexion débit fibre panne ligne coupure routeur signal"),
    },
    "card-fraud": {
        "en": _lexicon(
            "fraud fraudulent stolen blocking block blocked dispute transaction transactions suspicious scam pin"
        ),
        "fr": _lexicon("fraude frauduleux frauduleuse volée vol opposition bloquer contester arnaque suspecte"),
    },
    "banking": {
        "en": _lexicon("bank account transfer savings overdraft loan mortgage purse"),
        "fr": _lexicon("banque compte comptes virement virements épargne découvert prêt plafond carte bancaire"),
    },
    "insurance-claim": {
        "en": _lexicon(
            "insurance insurer claim claims policy accident damage excess premium bonus assessor garage repair bumper"
        ),
        "fr": _lexicon(
            "assurance assurances sinistre sinistres franchise constat dégât dégâts expert indemnisation habitation"
        ),
    },
    "delivery": {
        "en": _lexicon("parcel parcels package delivery delivered redelivery courier tracking depot driver shipment"),
        "fr": _lexicon("colis livraison livreur livré suivi dépôt relais commande expédition réceptionner"),
    },
    "energy": {
        "en": _lexicon(
            "energy electricity gas meter meters reading readings tariff kilowatt heating estimate estimates"
        ),
        "fr": _lexicon("énergie électricité gaz compteur relevé consommation chauffage kilowatt creuses pleines"),
    },
    "health": {
        "en": _lexicon(
            "doctor appointment surgery patient fever symptoms rash cough headache throat prescription inhaler nurse"
        ),
        "fr": _lexicon(
            "docteur médecin médical rendez consultation ordonnance fièvre douleur patient sang cabinet vitale santé"
        ),
    },
    "cancellation": {
        "en": _lexicon("cancel cancelled cancellation terminate termination moving"),
        "fr": _lexicon("résilier résiliation résilie annuler annulation déménage déménagement"),
    },
    "complaint": {
        "en": _lexicon("complaint complain unhappy unacceptable apologise apologize disappointed"),
        "fr": _lexicon("réclamation plainte déçu déçue inadmissible inacceptable excuses mécontent mécontente"),
    },
}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and its share, from 0 to 1, of all the words found in the lexicons."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Tags:
    """What a conversation is about, the main topic first, and its language (``en``, ``fr`` or ``unknown``)."""

    language: str
    topics: list[Topic]


def guess_language(text: str) -> str:
    """``en`` or ``fr``, by the share of their commonest words; ``unknown`` if neither stands out."""
    return _language(_words(text))


def tag(text: str) -> Tags:
    """The language and the topics of ``text``; no topic at all if too few words are known."""
    words = _words(text)
    language = _language(words)
    hits: Counter[str] = Counter()
    for name, lexicons in _TOPICS.items():
        known = lexicons[language] if language in lexicons else frozenset().union(*lexicons.values())
        hits[name] = sum(count for word, count in words.items() if word in known)
    total = hits.total()
    topics = [
        Topic(name, round(count / total, 2))
        for name, count in sorted(hits.items(), key=lambda item: (-item[1], item[0]))
        if count >= MIN_HITS and count / total >= MIN_SCORE
    ]
    return Tags(language, topics[:MAX_TOPICS])


def _words(text: str) -> Counter[str]:
    return Counter(_TOKEN.findall(fold(_NOISE.sub(" ", text))))


def _language(words: Counter[str]) -> str:
    counts = {language: sum(words[word] for word in known) for language, known in _STOP_WORDS.items()}
    best, second = sorted(counts, key=lambda language: -counts[language])[:2]
    # One chance hit ("merci" in an English sentence) is no language.
    return best if counts[best] >= 2 and counts[best] > 1.5 * counts[second] else "unknown"
