"""Publishes ``ConversationReceived`` for each transcript of a directory.

    python -m examples.conversations.collector DIRECTORY [URL]

Once the broker has confirmed a conversation, its id and file name, separated by a tab, are printed. Ends when all are
sent.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from collections.abc import Sequence

from eda_aio import Service
from examples.conversations.transcripts import Transcript, TranscriptError, read_transcripts
from examples.conversations.worker import add_url_argument, note, required_url


class Collector(Service):
    """Subscribes to nothing: it is there to publish."""

    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, [], [], "collector")
        self.ready = asyncio.Event()

    async def on_ready(self) -> None:
        # Comes again after each reconnection, so the work itself is done elsewhere.
        self.ready.set()


async def collect(url: str, transcripts: Sequence[Transcript]) -> int:
    """Publish the transcripts and return how many the broker has confirmed: all, unless stopped by a signal."""
    service = Collector([url])
    running = asyncio.create_task(service.run())
    sending = asyncio.create_task(_publish(service, transcripts))
    await asyncio.wait((running, sending), return_when=asyncio.FIRST_COMPLETED)
    if sending.done():
        await service.stop()
    else:
        sending.cancel()
    (sent,) = await asyncio.gather(sending, return_exceptions=True)
    await running
    if isinstance(sent, asyncio.CancelledError):
        return 0
    if isinstance(sent, BaseException):
        raise sent
    return sent


async def _publish(service: Collector, transcripts: Sequence[Transcript]) -> int:
    await service.ready.wait()
    for transcript in transcripts:
        conversation_id = str(uuid.uuid4())
        message = {"name": transcript.name, "text": transcript.text}
        await service.publish_event("ConversationReceived", message, conversation_id)
        print(conversation_id, transcript.name, sep="\t", flush=True)
    return len(transcripts)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.conversations.collector", description=__doc__.split("\n")[0]
    )
    parser.add_argument("directory", help="where the *.txt files are")
    add_url_argument(parser)
    arguments = parser.parse_args()
    url = required_url(parser, arguments.url)
    try:
        transcripts = read_transcripts(arguments.directory)
    except TranscriptError as error:
        note(str(error))
        return 2
    for transcript in transcripts:
        if transcript.encoding != "utf-8":
            note(f"{transcript.name}: is not UTF-8, read as {transcript.encoding}")
    if asyncio.run(collect(url, transcripts)) < len(transcripts):
        note("stopped before every conversation was sent; those printed are with the broker")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
