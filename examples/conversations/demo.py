"""Runs the whole pipeline and shows every message on the bus.

    python -m examples.conversations.demo [--fast] [DIRECTORY]

DIRECTORY holds the transcripts, by default those that come with the example. One of them makes the anonymizer fail each
time, so there is a retry and a dead letter to see while all the others go through. The retry comes after two seconds,
so that it can be seen; with --fast it comes at once.

The demo starts an embedded broker of its own, unless the environment variable ``EDA_AMQP_URL`` names one. That broker
is used as it is: give the demo a virtual host of its own if services called archive, anonymizer, tagger or collector
run there (it refuses to start while one does). At the end the demo deletes those of its queues that did not exist
before; the four exchanges stay, and so does what reached a dead-letter queue, if the operator has set one up.

Exit status: 0 when each conversation was archived, dead-lettered or failed; 1 when the demo could not be completed; 2
for a wrong DIRECTORY or EDA_AMQP_URL; 130 when interrupted. Its processes are ended in all cases.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from eda_core import LocalError
from eda_core.urls import check_urls
from examples.conversations.processes import Child, Children, DemoError
from examples.conversations.queues import guest_of
from examples.conversations.report import Report
from examples.conversations.tally import Tally
from examples.conversations.transcripts import SHIPPED, TranscriptError, read_transcripts
from examples.conversations.watcher import Watcher, watching
from examples.conversations.worker import URL_VARIABLE, note

#: Workers per service.
WORKERS: Final = {"archive": 1, "anonymizer": 3, "tagger": 2}

#: Seconds until everything has to be up.
START_DEADLINE: Final = 30.0
#: Seconds without any message of the run after which it is given up.
PROGRESS_DEADLINE: Final = 60.0


async def run_demo(directory: Path, url: str | None, report: Report, *, fast: bool) -> Tally:
    """Run the pipeline over ``directory`` on the broker at ``url``, or on an embedded one.

    Args:
        fast: whether a failed message is tried again at once.

    Raises:
        DemoError: it could not be completed.
    """
    tally = Tally(report.message)
    async with contextlib.AsyncExitStack() as stack:
        # Ended in reverse order: the workers, the watcher, what is left on the broker, the broker.
        state = Path(stack.enter_context(TemporaryDirectory(prefix="eda-demo-"))) / "archive.sqlite"
        if url is None:
            url = await _start_broker(await stack.enter_async_context(Children()))
        else:
            await stack.enter_async_context(guest_of(url))
        watcher = await stack.enter_async_context(watching(url, tally, START_DEADLINE))
        children = await stack.enter_async_context(Children())
        workers = await _start_workers(children, url, state, fast=fast)
        await _collect(children, directory, url, tally)
        await _until_finished(watcher, workers, tally)
        for child, status in (await children.stop()).items():
            if status:
                raise DemoError(await child.obituary())
        # The workers have sent all they had to say; the watcher may not have read it yet.
        await watcher.catch_up()
    return tally


async def _start_broker(children: Children) -> str:
    broker = await children.start("the embedded broker", "eda_tools.broker", "--port", "0")
    try:
        async with asyncio.timeout(START_DEADLINE):
            return (await broker.line_starting("listening on ")).strip()
    except TimeoutError:
        raise DemoError(f"the embedded broker was not ready within {START_DEADLINE:.0f} s") from None


async def _start_workers(children: Children, url: str, state: Path, *, fast: bool) -> list[Child]:
    workers: list[Child] = []
    options_of = {"archive": ["--state", str(state)], "anonymizer": [] if fast else ["--patient"]}
    for service, count in WORKERS.items():
        options = options_of.get(service, [])
        for number in range(1, count + 1):
            module = f"examples.conversations.{service}"
            workers.append(await children.start(f"{service} {number}", module, *options, url=url))
    waiting = ""
    try:
        async with asyncio.timeout(START_DEADLINE):
            for worker in workers:
                waiting = worker.name
                await worker.line_starting("ready")
    except TimeoutError:
        raise DemoError(f"{waiting} was not ready within {START_DEADLINE:.0f} s") from None
    return workers


async def _collect(children: Children, directory: Path, url: str, tally: Tally) -> None:
    collector = await children.start("the collector", "examples.conversations.collector", str(directory), url=url)
    try:
        while True:
            async with asyncio.timeout(PROGRESS_DEADLINE):
                line = await collector.line()
            if line is None:
                break
            conversation_id, _, file = line.partition("\t")
            tally.expect(conversation_id, file)
    except TimeoutError:
        raise DemoError(f"the collector has sent nothing for {PROGRESS_DEADLINE:.0f} s") from None
    tally.no_more()
    if await collector.ended():
        raise DemoError(await collector.obituary())


async def _until_finished(watcher: Watcher, workers: list[Child], tally: Tally) -> None:
    ends = {worker.exited: worker for worker in workers}
    while tally.unfinished:
        watcher.progress.clear()
        progress = asyncio.create_task(watcher.progress.wait())
        try:
            done, _ = await asyncio.wait(
                (progress, *ends), timeout=PROGRESS_DEADLINE, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            progress.cancel()
        for end in ends.keys() & done:
            raise DemoError(await ends[end].obituary())
        if not done:
            files = ", ".join(tally.unfinished[:5])
            raise DemoError(f"no message for {PROGRESS_DEADLINE:.0f} s, with {len(tally.unfinished)} to go: {files}")


async def _main(directory: Path, url: str | None, report: Report, *, fast: bool) -> Tally:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await run_demo(directory, url, report, fast=fast)


def main() -> int:
    description, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m examples.conversations.demo",
        description=description,
        epilog=details.split("\n\n", 1)[-1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", nargs="?", type=Path, default=SHIPPED, help="default: the transcripts shipped")
    parser.add_argument("--fast", action="store_true", help="try a failed message again at once")
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    url = os.environ.get(URL_VARIABLE) or None
    try:
        read_transcripts(directory)
        if url is not None:
            check_urls(url)
    except TranscriptError as error:
        note(str(error))
        return 2
    except LocalError as error:
        note(f"{URL_VARIABLE}: {error}")
        return 2
    # The demo says itself what goes wrong; logging's last resort would print the client library's version before it.
    logging.getLogger().addHandler(logging.NullHandler())
    report = Report()
    try:
        report.summary(asyncio.run(_main(directory, url, report, fast=arguments.fast)))
    except DemoError as error:
        note(f"demo: {error}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        note("demo: interrupted")
        return 130
    finally:
        report.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
