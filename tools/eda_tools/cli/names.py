"""Names of queues and exchanges as RabbitMQ has them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pamqp import constants

_ANY: Final = re.compile(".*", re.DOTALL)


@contextmanager
def of_any_characters() -> Iterator[None]:
    """In the block, for the whole process, pamqp takes all names that RabbitMQ takes. It would refuse most characters,
    and so one strange queue could end a tool."""
    before = dict(constants.DOMAIN_REGEX)
    constants.DOMAIN_REGEX.update({"exchange-name": _ANY, "queue-name": _ANY})
    try:
        yield
    finally:
        constants.DOMAIN_REGEX.update(before)
