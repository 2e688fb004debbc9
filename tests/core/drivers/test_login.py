"""What a close of the connection during the login means, and in which words a user is told."""

from __future__ import annotations

import pytest

from eda_core.drivers import CREDENTIALS, VHOST, login_refusal

URL = "amqp://ann:secret@broker/shop"


@pytest.mark.parametrize(
    ("code", "text", "refusal"),
    [
        (
            403,
            "ACCESS_REFUSED - Login was refused",
            (
                "the broker refuses the user 'ann' or its password; check them (rabbitmqctl authenticate_user ann), "
                "and correct the URL",
                CREDENTIALS,
            ),
        ),
        (
            530,
            "NOT_ALLOWED - vhost shop not found",
            ("vhost not found: 'shop'; create it (rabbitmqctl add_vhost shop), or correct the URL", VHOST),
        ),
        (
            530,
            "NOT_ALLOWED - access to vhost 'shop' refused for user 'ann'",
            (
                "vhost refused: the user 'ann' may not use 'shop'; permit it "
                "(rabbitmqctl set_permissions -p shop ann '.*' '.*' '.*'), or correct the URL",
                VHOST,
            ),
        ),
    ],
)
def test_a_refused_login_is_explained(code: int, text: str, refusal: tuple[str, str]) -> None:
    assert login_refusal(URL, code, text) == refusal


@pytest.mark.parametrize("url", ["amqp://guest:wrong@broker/", "amqp://broker/"])
def test_the_user_of_a_new_rabbitmq_is_told_where_he_may_log_in(url: str) -> None:
    text, _ = login_refusal(url, 403, "ACCESS_REFUSED - Login was refused")
    assert text.startswith("the broker refuses the user 'guest' or its password; ")
    assert text.endswith("; from another host RabbitMQ never lets 'guest' in: make a user (rabbitmqctl add_user)")
    assert "wrong" not in text


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (530, "NOT_ALLOWED - access to vhost 'shop' refused for user 'ann': connection limit (1) is reached"),
        (530, "NOT_ALLOWED - access to vhost 'shop' refused for user 'ann': vhost connection limit reached"),
        (530, "NOT_ALLOWED - negotiated frame_max 1 is over the maximum of 0"),
        (541, "INTERNAL_ERROR - access to vhost 'shop' refused for user 'ann': vhost 'shop' is down"),
        (320, "CONNECTION_FORCED - vhost not found"),
        (None, "vhost shop not found"),
    ],
)
def test_what_may_pass_is_no_refusal(code: int | None, text: str) -> None:
    assert login_refusal(URL, code, text) == ("", "")


BY_CERTIFICATE = "amqps://broker/shop?auth_mechanism=EXTERNAL"


def test_with_a_certificate_nobody_asks_for_a_password() -> None:
    words = "the broker has no user of the name in the client's certificate; make one (rabbitmqctl add_user); "
    told = login_refusal(BY_CERTIFICATE, 403, "ACCESS_REFUSED - Login was refused")
    assert told == (f"{words}the log of the broker has the name", CREDENTIALS)


def test_with_a_certificate_the_broker_knows_who_the_user_is() -> None:
    words, what = login_refusal(BY_CERTIFICATE, 530, "NOT_ALLOWED - access to vhost 'shop' refused for user 'ann'")
    assert words.startswith("vhost refused: the user 'ann' may not use 'shop'; permit it (rabbitmqctl set_permissions ")
    assert "-p shop ann " in words
    assert what == VHOST
