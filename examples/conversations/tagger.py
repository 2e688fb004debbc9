"""The data-processing service ``tagger``: the command ``TagTopics`` on top of ``tagging.py``.

    python -m examples.conversations.tagger [URL]

Stateless, like the anonymizer.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

from eda_aio import Service
from examples.conversations.tagging import tag
from examples.conversations.worker import DEAD_LETTERS, add_url_argument, required_url, say_ready


class Tagged(TypedDict):
    """The payload of a result. A topic has a ``name`` and a ``score``."""

    language: str
    topics: list[dict[str, Any]]


class Tagger(Service):
    DEAD_LETTER_EXCHANGE: ClassVar[str] = DEAD_LETTERS

    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, [], ["tagger.TagTopics"], "tagger")

    async def on_ready(self) -> None:
        say_ready()

    async def on_TagTopics(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Tagged | None:
        text = payload.get("text") if isinstance(payload, dict) else None
        if not isinstance(text, str):
            reason = {"reason": "TagTopics needs a field 'text' of type str"}
            await self.return_error(reply_to, reason, conversation_id, correlation_id)
            return None
        tags = tag(text)
        return {
            "language": tags.language,
            "topics": [{"name": topic.name, "score": topic.score} for topic in tags.topics],
        }


async def _run(url: str) -> None:
    await Tagger([url]).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.conversations.tagger", description="Run one worker.")
    add_url_argument(parser)
    url = required_url(parser, parser.parse_args().url)
    asyncio.run(_run(url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
