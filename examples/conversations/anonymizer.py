"""The data-processing service ``anonymizer``: the command ``AnonymizeText`` on top of ``anonymize.py``.

    python -m examples.conversations.anonymizer [URL]

Stateless, and it knows nothing of conversations: run as many workers as there is work.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from eda_aio import Service
from eda_core import RetryPolicy
from examples.conversations.anonymize import anonymize
from examples.conversations.worker import add_url_argument, required_url, say_ready


class Anonymizer(Service):
    #: Two workers share the queue, which does not count. With this policy the message says how often it has failed.
    RETRY_POLICY: ClassVar[RetryPolicy] = RetryPolicy(counted=True)

    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, [], ["anonymizer.AnonymizeText"], "anonymizer")

    async def on_ready(self) -> None:
        say_ready()

    async def on_AnonymizeText(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Answers an error to a command that makes no sense: the caller has to know. Bugs are the toolkit's affair."""
        text = payload.get("text") if isinstance(payload, dict) else None
        if not isinstance(text, str):
            reason = {"reason": "AnonymizeText needs a field 'text' of type str"}
            await self.return_error(reply_to, reason, conversation_id, correlation_id)
            return None
        anonymized = anonymize(text)
        return {"text": anonymized.text, "counts": anonymized.counts}


async def _run(url: str) -> None:
    await Anonymizer([url]).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.conversations.anonymizer", description="Run one worker.")
    add_url_argument(parser)
    url = required_url(parser, parser.parse_args().url)
    asyncio.run(_run(url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
