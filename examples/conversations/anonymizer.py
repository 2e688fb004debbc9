"""The data-processing service ``anonymizer``: the command ``AnonymizeText`` on top of ``anonymize.py``.

    python -m examples.conversations.anonymizer [URL]

Stateless, and it knows nothing of conversations: run as many workers as there is work.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

from eda_aio import Service
from eda_core import RetryPolicy
from examples.conversations.anonymize import anonymize
from examples.conversations.worker import DEAD_LETTERS, add_url_argument, required_url, say_ready


class Anonymized(TypedDict):
    """The payload of a result."""

    text: str
    counts: dict[str, int]


class Anonymizer(Service):
    DEAD_LETTER_EXCHANGE: ClassVar[str] = DEAD_LETTERS
    #: Three workers share the queue, which does not count. With this policy the message says how often it has failed.
    RETRY_POLICY: ClassVar[RetryPolicy] = RetryPolicy(counted=True)

    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, [], ["anonymizer.AnonymizeText"], "anonymizer")

    async def on_ready(self) -> None:
        say_ready()

    async def on_AnonymizeText(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Anonymized | None:
        """Answers an error to a command that makes no sense: the caller has to know. Bugs are the toolkit's affair."""
        text = payload.get("text") if isinstance(payload, dict) else None
        if not isinstance(text, str):
            reason = {"reason": "AnonymizeText needs a field 'text' of type str"}
            await self.return_error(reply_to, reason, conversation_id, correlation_id)
            return None
        anonymized = anonymize(text)
        return {"text": anonymized.text, "counts": anonymized.counts}


class PatientAnonymizer(Anonymizer):
    """Waits before it tries a message again."""

    RETRY_POLICY: ClassVar[RetryPolicy] = RetryPolicy(attempts=2, delays=(2.0,))


async def _run(url: str, service: type[Anonymizer]) -> None:
    await service([url]).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.conversations.anonymizer", description="Run one worker.")
    add_url_argument(parser)
    parser.add_argument("--patient", action="store_true", help="wait two seconds before a message is tried again")
    arguments = parser.parse_args()
    url = required_url(parser, arguments.url)
    asyncio.run(_run(url, PatientAnonymizer if arguments.patient else Anonymizer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
