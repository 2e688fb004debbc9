"""The name for direct replies: it is no queue, and yet declared. Clients look for it before they use it."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pamqp import commands

from tests.differential.client import Received
from tests.differential.comparison import Model, Rabbit

_NAME: Final = "amq.rabbitmq.reply-to"
DECLARATIONS: Final[dict[str, dict[str, Any]]] = {
    "passively": {"queue": _NAME, "passive": True},
    "actively": {"queue": _NAME},
    "as another kind of queue": {"queue": _NAME, "durable": True, "arguments": {"x-queue-type": "quorum"}},
    "an address": {"queue": f"{_NAME}.address"},
    "an address, passively": {"queue": f"{_NAME}.address", "passive": True},
}


@pytest.mark.parametrize("how", DECLARATIONS)
def test_a_declaration_is_answered_as_by_rabbitmq(rabbit: Rabbit, how: str) -> None:
    if "address" in how and rabbit.version == "4.3":
        pytest.skip("RabbitMQ 4.3 answers with 541, an internal error")
    answers = []
    for client in (Model("", version=rabbit.version).connect(0), rabbit.connect()):
        try:
            client.call(1, commands.Channel.Open(), commands.Channel.OpenOk)
            client.send(1, commands.Queue.Declare(**DECLARATIONS[how]))
            (answer,) = client.until(_is_answer)
        finally:
            client.hang_up()
        # RabbitMQ has another vhost.
        answers.append({name: str(value).partition(" in vhost")[0] for name, value in answer.method})
    assert answers[0] == answers[1]
    assert ("reply_code" in answers[0]) == ("address" in how)


def _is_answer(received: Received) -> bool:
    return isinstance(received.method, commands.Queue.DeclareOk | commands.Channel.Close)
