"""Broker URLs: which are accepted, and that no password is ever shown."""

from __future__ import annotations

import dataclasses
import traceback
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eda_core.errors import LocalError
from eda_core.machine.config import Config
from eda_core.machine.effects import Connect
from eda_core.machine.identifiers import Epoch
from eda_core.urls import Address, check_urls, redact

#: What stands at both ends of each password, so that a part of one is noticed too.
HEAD, TAIL = "HeadOfSecret", "TailOfSecret"


def everything_shown(url: str) -> list[str]:
    """Return all texts that may show the URL."""
    shown = [redact(url), redact(f"cannot connect to {url}: refused"), repr(Connect(Epoch(1), url, "name", 20))]
    shown.append(repr(Config((url, url), "service")))
    refused = []
    for urls in (url, [url], ["amqp://localhost", url]):
        try:
            check_urls(urls)
        except LocalError as error:
            refused += traceback.format_exception_only(error)
    # In a text the end of a URL with white space cannot be told, so there is no machine with such a URL.
    return refused if refused and len(url.split()) > 1 else shown + refused


def leaks(url: str) -> list[str]:
    return [text for text in everything_shown(url) if HEAD in text or TAIL in text]


#: Characters that end the authority of a URL, or the URL itself, or become such when normalized, have their test below.
odd = st.text(st.characters(exclude_categories=["Z", "Cc", "Cs"], exclude_characters="/?#"), max_size=20).filter(
    lambda text: unicodedata.is_normalized("NFKC", text)
)
users = st.text(st.characters(categories=["L", "N"], include_characters="-._~!$&'()*+,;=%"), max_size=10)
TEMPLATES = [
    "amqp://{}@localhost/",
    "amqps://{}@broker.example.org:5671/%2F?heartbeat=10",
    "amqp://{}@",
    "amqp://{}@[::1]:5672/vhost",
    "amqp://{}@localhost:port/",
    "amqp://{}@localhost:99999/",
    "http://{}@localhost/",
    "//{}@localhost",
]


@given(st.sampled_from(TEMPLATES), users, odd)
@example(template=TEMPLATES[0], user="guest", middle=":")
@example(template=TEMPLATES[0], user="guest", middle="@")
@example(template=TEMPLATES[0], user="guest", middle="[")
@example(template=TEMPLATES[0], user="guest", middle="]")
@example(template=TEMPLATES[0], user="guest", middle="%2F%40")
@example(template=TEMPLATES[0], user="", middle="")
def test_a_password_is_never_shown(template: str, user: str, middle: str) -> None:
    assert leaks(template.format(f"{user}:{HEAD}{middle}{TAIL}")) == []


@pytest.mark.parametrize(
    "credentials",
    [
        f"guest:{HEAD}/{TAIL}",
        f"guest:12/{TAIL}",
        f"guest:{HEAD} {TAIL}",
        f"guest:{HEAD}\t{TAIL}",
        f"guest:{HEAD}\n{TAIL}",
        f"guest:{HEAD}\u00a0{TAIL}",
        f"guest@example.org:{HEAD}{TAIL}",
        f"guest/me:{HEAD}{TAIL}",
        f"guest:{HEAD}?{TAIL}",
        f"guest:{HEAD}#{TAIL}",
        f"guest:[{HEAD}{TAIL}]",
        f"guest:{HEAD}\u2100{TAIL}",
        f"guest:{HEAD}@x/{TAIL}",
        f"guest:{HEAD}@x:1/{TAIL}",
        f"guest:{HEAD}@ {TAIL}",
        f"guest:{HEAD}/@\n{TAIL}",
    ],
    ids=repr,
)
def test_a_password_is_never_shown_even_where_it_should_have_been_escaped(credentials: str) -> None:
    assert leaks(f"amqp://{credentials}@localhost/") == []


@pytest.mark.parametrize("start", ["", "amqp:", "amqp:/"], ids=repr)
def test_a_password_is_never_shown_even_where_the_slashes_were_forgotten(start: str) -> None:
    assert leaks(f"{start}guest:{HEAD}{TAIL}@localhost/") == []


@given(st.lists(st.sampled_from([*"/:@ a1*#[].", "//", "amqp:", "\n", "***@", "host:5672"])).map("".join))
def test_what_was_redacted_stays_as_it_is(text: str) -> None:
    """A journal holds redacted URLs, and has to replay to the same texts."""
    assert redact(redact(text)) == redact(text)


def test_what_is_no_password_stays() -> None:
    text = "amqp://guest:secret@a.example.org:5672/%2F and amqps://b.example.org:5671/x: refused (user@host)"
    assert redact(text) == text.replace("secret", "***")
    assert redact("nothing to hide") == "nothing to hide"
    assert redact("amqp://guest@localhost/") == "amqp://guest@localhost/"


def test_what_stands_between_two_urls_is_no_password() -> None:
    text = "nor to amqp://a/: connection refused; nor to amqp://b:port/: what? nor to amqp://guest:secret@c/: refused"
    assert redact(text) == text.replace("secret", "***")


def test_several_passwords_in_one_text_are_hidden() -> None:
    text = " ".join(f"amqp://guest:{HEAD}{number}@host{number}/" for number in range(3))
    assert redact(text) == " ".join(f"amqp://guest:***@host{number}/" for number in range(3))


@pytest.mark.parametrize(
    "url",
    [
        "amqp://localhost",
        "amqps://guest:guest@broker.example.org:5671/%2Fvhost?heartbeat=10",
        "AMQP://localhost:5672/",
        "amqp://[::1]:5672/",
        "amqp://:secret@localhost/",
    ],
)
def test_urls_come_back_as_they_were(url: str) -> None:
    assert check_urls(url) == (url,)
    assert check_urls([url, url]) == (url, url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://localhost", "the scheme is not amqp or amqps"),
        ("localhost", "the scheme is not amqp or amqps"),
        ("", "the scheme is not amqp or amqps"),
        ("amqp://", "there is no host"),
        ("amqp:///vhost", "there is no host"),
        ("amqp://:5672/", "there is no host"),
        ("amqp://guest@/", "there is no host"),
        ("amqp://localhost:65536/", "Port out of range 0-65535"),
        ("amqp://localhost:x/", "Port could not be cast to integer value as 'x'"),
        ("amqp://[::1/", "Invalid IPv6 URL"),
        (
            "amqp://guest@localhost:65536/",
            "the port is not a number up to 65535, or it has a character that must be written as %XX, perhaps in the "
            "password",
        ),
    ],
)
def test_a_bad_url_is_refused_with_the_reason_and_an_example(url: str, problem: str) -> None:
    for urls in (url, ["amqp://localhost", url]):
        with pytest.raises(LocalError) as caught:
            check_urls(urls)
        told = f"broker URL {url!r}: {problem}; write it as amqp://user:password@host:5672/vhost"
        assert str(caught.value) == told
        assert redact(told) == told.replace("password@", "***@")  # the reason, between two URLs, is not taken for one


@pytest.mark.parametrize("urls", [[], (), ["amqp://localhost", None], b"amqp://localhost", [7]])
def test_no_url_or_no_text_is_refused(urls: Any) -> None:
    reason = "a broker URL must be str, not " if urls else "no broker URL was given; for example amqp://"
    with pytest.raises(LocalError, match=reason):
        check_urls(urls)


@pytest.mark.parametrize("urls", [None, 7, {"amqp://localhost"}])
def test_what_is_no_sequence_of_urls_is_refused(urls: Any) -> None:
    with pytest.raises(LocalError, match="pass a URL, or a list of them"):
        check_urls(urls)


# What a URL says


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://localhost", ("localhost", 5672, "guest", "guest", "/", False, {})),
        ("amqps://localhost", ("localhost", 5671, "guest", "guest", "/", True, {})),
        ("AMQPS://LocalHost:1234/", ("localhost", 1234, "guest", "guest", "/", True, {})),
        ("amqp://me:s%40crt@[::1]/%2F", ("::1", 5672, "me", "s@crt", "/", False, {})),
        ("amqp://me%3A@box//", ("box", 5672, "me:", "guest", "/", False, {})),
        ("amqp://:secret@box/a%2Fb%20c", ("box", 5672, "guest", "secret", "a/b c", False, {})),
        (
            "amqp://box/v?cafile=%2Fca.pem&x=1",
            ("box", 5672, "guest", "guest", "v", False, {"cafile": "/ca.pem", "x": "1"}),
        ),
    ],
)
def test_what_a_url_leaves_out_is_filled_in(url: str, said: tuple[Any, ...]) -> None:
    address = Address.of(url)
    assert dataclasses.astuple(address) == said
    assert Address.of(check_urls(url)[0]) == address


@pytest.mark.parametrize(
    ("query", "mechanism"), [("", "PLAIN"), ("?auth_mechanism=external", "EXTERNAL"), ("?auth_mechanism=Odd", "ODD")]
)
def test_a_url_may_name_the_way_to_log_in(query: str, mechanism: str) -> None:
    assert Address.of(f"amqp://box/{query}").mechanism == mechanism


def test_a_url_with_another_way_to_log_in_is_refused() -> None:
    with pytest.raises(LocalError, match="auth_mechanism is 'GSSAPI', not PLAIN or EXTERNAL"):
        check_urls("amqp://box/?auth_mechanism=gssapi")


def test_an_address_is_shown_without_the_password() -> None:
    assert repr(Address.of(f"amqps://me:{HEAD}@box/v")) == "Address(me@box:5671, 'v', TLS)"
    assert repr(Address.of(f"amqp://me:{HEAD}@box")) == "Address(me@box:5672, '/')"
    assert len(repr(Address.of(f"amqp://me:{HEAD}@{'box' * 500}/{'v' * 500}"))) < 200


class Context:
    """Records how it is made, and which certificate it loads."""

    def __init__(self, **trusted: str | None) -> None:
        self.trusted, self.shown = trusted, tuple[Any, ...]()

    def load_cert_chain(self, *shown: Any) -> None:
        self.shown = shown


@pytest.mark.parametrize(
    ("query", "trusted", "shown"),
    [
        ("", {"cafile": None, "capath": None}, ()),
        ("?cafile=/ca.pem", {"cafile": "/ca.pem", "capath": None}, ()),
        ("?capath=/cas&keyfile=/key", {"cafile": None, "capath": "/cas"}, ()),
        ("?certfile=/me.pem", {"cafile": None, "capath": None}, ("/me.pem", None)),
        ("?certfile=/me.pem&keyfile=/key", {"cafile": None, "capath": None}, ("/me.pem", "/key")),
    ],
)
def test_the_options_of_a_url_say_whom_to_trust_and_what_to_show(query: str, trusted: Any, shown: Any) -> None:
    made = Address.of(f"amqps://box/{query}").tls_context(None, Context)
    assert (made.trusted, made.shown) == (trusted, shown)


def test_a_context_of_ones_own_counts_for_more_than_the_url() -> None:
    own: Any = Context()
    assert Address.of("amqps://box/?certfile=/me.pem").tls_context(own, Context) is own
    assert own.shown == ()


@pytest.mark.parametrize("given", [None, Context()], ids=["none", "own"])
def test_without_tls_there_is_no_context(given: Any) -> None:
    assert Address.of("amqp://box/?cafile=/ca.pem").tls_context(given, Context) is None
