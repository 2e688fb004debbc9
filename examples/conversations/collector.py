"""Publishes ``ConversationReceived`` for each transcript of a directory.

    python -m examples.conversations.collector DIRECTORY [URL]

Once the broker has confirmed a conversation, its id and file name, separated by a tab, are printed. Ends when all are
sent.
"""

from __future__ import annotations

import argparse
import signal
import sys
import uuid
from collections.abc import Sequence

from eda_core import PublishError
from eda_kombu import Endpoint
from examples.conversations.transcripts import Transcript, TranscriptError, read_transcripts
from examples.conversations.worker import add_url_argument, note, required_url


def collect(url: str, transcripts: Sequence[Transcript]) -> None:
    """Publish the transcripts, each when the broker has confirmed the one before.

    Raises:
        PublishError: the broker did not confirm one.
    """
    with Endpoint([url], "collector") as endpoint:
        for transcript in transcripts:
            conversation_id = str(uuid.uuid4())
            message = {"name": transcript.name, "text": transcript.text}
            endpoint.publish_event("ConversationReceived", message, conversation_id)
            print(conversation_id, transcript.name, sep="\t", flush=True)


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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        collect(url, transcripts)
    except PublishError as error:
        note(str(error))
        return 1
    except KeyboardInterrupt:
        note("stopped before every conversation was sent; those printed are with the broker")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
