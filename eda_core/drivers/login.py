"""What it means that a broker closes a connection during the login, in words for whoever has to mend it.

It decides for which reasons trying again cannot help. It knows no client library: a transport passes in the reply code
and the text of the broker's ``Connection.Close``.
"""

from __future__ import annotations

import re
from typing import Final

from eda_core.machine.effects import CREDENTIALS, VHOST
from eda_core.urls import Address

#: Reply codes of AMQP 0-9-1: for wrong credentials, and for a virtual host that is missing or not permitted.
_ACCESS_REFUSED: Final = 403
_NOT_ALLOWED: Final = 530
#: The user of a new RabbitMQ, who may log in from the host of the broker only.
_LOCAL_USER: Final = "guest"

#: How RabbitMQ names a virtual host that is missing.
_MISSING: Final = re.compile(r"\bvhost .* not found", re.DOTALL)
#: How RabbitMQ names one that the user may not use. A colon and a limit follow if it only is full.
_DENIED: Final = re.compile(r"\baccess to vhost .* refused for user '?([^:]*?)'?\Z", re.DOTALL)


def login_refusal(url: str, code: int | None, text: str) -> tuple[str, str]:
    """Return why the broker at ``url`` does not let the user in, and what to do.

    Args:
        code: the reply code of the broker's ``Connection.Close``; ``None`` if there is none.
        text: its text.

    Returns:
        The words for the user, and what the broker refuses (``CREDENTIALS`` or ``VHOST``), as ``link_down`` takes it.
        Both are "" if the broker has closed the connection for another reason.
    """
    address = Address.of(url)
    by_certificate = address.mechanism == "EXTERNAL"
    user, vhost = address.user, address.vhost
    if code == _ACCESS_REFUSED and by_certificate:
        hint = "make one (rabbitmqctl add_user); the log of the broker has the name"
        return f"the broker has no user of the name in the client's certificate; {hint}", CREDENTIALS
    if code == _ACCESS_REFUSED:
        hint = f"check them (rabbitmqctl authenticate_user {user}), and correct the URL"
        if user == _LOCAL_USER:
            hint += f"; from another host RabbitMQ never lets {user!r} in: make a user (rabbitmqctl add_user)"
        return f"the broker refuses the user {user!r} or its password; {hint}", CREDENTIALS
    if code != _NOT_ALLOWED:
        return "", ""
    if _MISSING.search(text):
        words = f"vhost not found: {vhost!r}; create it (rabbitmqctl add_vhost {vhost}), or correct the URL"
        return words, VHOST
    denied = _DENIED.search(text)
    if denied:
        user = denied[1] if by_certificate else user
        permit = f"rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*'"
        words = f"vhost refused: the user {user!r} may not use {vhost!r}; permit it ({permit}), or correct the URL"
        return words, VHOST
    return "", ""
