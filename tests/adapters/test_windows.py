"""Adapters where Python has no SIGHUP, no fork and so on, as on Windows."""

from __future__ import annotations

import signal

import pytest

from eda_tools.broker import EmbeddedBroker
from tests.support.services import asynchronous, program

#: Takes away what Windows does not have, and then runs the rest.
WINDOWS = """
import os, signal, socket, sys

ABSENT = {
    signal: '''SIGHUP SIGKILL SIGSTOP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE pthread_kill pthread_sigmask
               sigwait siginterrupt setitimer alarm pause''',
    os: "fork forkpty register_at_fork getuid geteuid killpg",
    socket: "TCP_USER_TIMEOUT SO_REUSEPORT",
}
for module, names in ABSENT.items():
    for name in names.split():
        vars(module).pop(name, None)
"""

#: A loop like that of Windows, which wakes by itself when a signal comes, and knows neither readers nor signals.
LOOP = """
import asyncio

class Loop(asyncio.SelectorEventLoop):
    def add_reader(self, *arguments):
        raise NotImplementedError

    def add_signal_handler(self, *arguments):
        raise NotImplementedError

    def run_forever(self):
        signal.set_wakeup_fd(self._csock.fileno())
        try:
            super().run_forever()
        finally:
            signal.set_wakeup_fd(-1)
"""

AIO = f"""{WINDOWS}{LOOP}
from eda_aio import Service

class Probe(Service):
    async def on_ready(self):
        print("ready", flush=True)

with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(Probe(os.environ["EDA_AMQP_URL"], [], [], "svc").run())
print("over", flush=True)
"""

PIKA = f"""{WINDOWS}
from eda_pika import Service

class Probe(Service):
    def on_ready(self):
        print("ready", flush=True)

Probe(os.environ["EDA_AMQP_URL"], [], [], "svc").run()
print("over", flush=True)
"""

ENDLESS = f"""{WINDOWS}
from eda_pika import Service

class Probe(Service):
    STOP_TIMEOUT = 0.1

    def on_ready(self):
        print("ready", flush=True)
        while True:
            pass

Probe(os.environ["EDA_AMQP_URL"], [], [], "svc").run()
print("over", flush=True)
"""

KOMBU = f"""{WINDOWS}
from eda_kombu import Endpoint

with Endpoint(os.environ["EDA_AMQP_URL"], "svc") as endpoint:
    endpoint.publish_event("Happened", 1, "c")
print("over", flush=True)
"""


@pytest.mark.parametrize("package", ["eda_aio", "eda_pika", "eda_kombu"])
@asynchronous
async def test_an_adapter_can_be_imported(package: str) -> None:
    async with program("-c", f"{WINDOWS}\nimport {package}") as run:
        assert (await run.end(), run.errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("code", [AIO, PIKA, ENDLESS], ids=["eda_aio", "eda_pika", "eda_pika, without end"])
@asynchronous
async def test_a_signal_stops_a_service(code: str, number: signal.Signals) -> None:
    async with EmbeddedBroker() as broker, program("-c", code, url=broker.url) as run:
        await run.says("ready")
        run.process.send_signal(number)
        assert await run.end() == 0, run.errors
        assert run.lines.all[-1] == "over"


@asynchronous
async def test_an_endpoint_publishes() -> None:
    async with EmbeddedBroker() as broker, program("-c", KOMBU, url=broker.url) as run:
        assert (await run.end(), run.errors, run.lines.all) == (0, "", ["over"])
