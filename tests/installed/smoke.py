"""Try what an extra promises: ``python smoke.py EXTRA URL``, outside the checkout, with only that extra installed.

It needs nothing but the installed wheel. It ends with status 0 and one line, or with an error. ``core`` stands for no
extra at all; ``all`` tries everything.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

#: Seconds until a conversation that does not end is an error.
LONGEST: Final = 30.0


def core(url: str) -> None:
    """A message survives its envelope, a machine begins to connect, and the journal tells its usage."""
    import eda_core
    from eda_core import messages

    event = messages.Event("Started", {"n": 1, "text": "é"}, "c1")
    limits = eda_core.Limits()
    opened = messages.open_envelope(*messages.seal(event, messages.JSON, limits), limits)
    assert (opened.payload, opened.conversation_id) == (event.payload, "c1"), opened
    config = eda_core.Config.make(url, "smoke", ["Started"])
    machine = eda_core.Machine(config, random=lambda: 0.5, token="smoke", wall_offset=lambda: 0.0)
    (connect,) = machine.start(0.0)
    assert isinstance(connect, eda_core.Connect), connect
    subprocess.run([sys.executable, "-m", "eda_core.journal", "--help"], check=True, stdout=subprocess.DEVNULL)


#: What a user writes with nothing but the extra ``testing``: pytest finds the plugin by itself.
PLUGIN_TEST: Final = """
def test_the_bus(eda_broker, eda_bus, eda_service):
    sent = eda_bus.publish_event("Started", {"n": 1})
    (arrived,) = eda_bus.arrivals()
    assert (arrived.message.payload, arrived.message.conversation_id) == ({"n": 1}, sent.conversation_id)
    assert eda_service.errors == []
"""


def testing(url: str) -> None:
    """The explorer goes through a small scenario; the strategies and the plugin are there, with what they need."""
    from eda_core import Config, Event
    from eda_core.testing import strategies
    from eda_core.testing.explorer import Scenario, explore

    config = Config.make(url, "smoke", ["Started"])
    found = explore(Scenario("smoke", (config,), (Event("Started", "started", "c1"),), bounds={"drop": 1}))
    assert found.complete, found
    assert found.states > 10, found
    assert strategies.__doc__
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "test_bus.py").write_text(PLUGIN_TEST, encoding="utf-8")
        subprocess.run([sys.executable, "-m", "pytest", "-q", directory], check=True, stdout=subprocess.DEVNULL)


def conforms(service: type[Any]) -> None:
    """One check of the conformance kit runs: all that the kit needs is in the wheel."""
    from eda_core.testing import conformance

    chosen = "events_reach_their_subscribers"
    conformance.check(service, without=[check.name for check in conformance.CHECKS if check.name != chosen])


def aio(url: str) -> None:
    """Coroutines: an event leads to a command, the command to a result."""
    from eda_aio import Service

    class Smoke(Service):
        answer: Any = None

        async def on_ready(self) -> None:
            await self.publish_event("Started", {"n": 1}, "c1", mandatory=True)

        async def on_Started(self, payload: Any, conversation_id: str, meta: Any) -> None:
            await self.send_command("smoke.Double", payload, conversation_id, "smoke.DoubleReturn", "k1")

        async def on_Double(self, payload: Any, conversation_id: str, reply_to: str, key: str, meta: Any) -> None:
            await self.return_success(reply_to, {"n": 2 * payload["n"]}, conversation_id, key)

        async def on_DoubleReturn(self, payload: Any, conversation_id: str, status: str, key: str, meta: Any) -> None:
            self.answer = payload, status, key
            await self.stop()

    async def run() -> Smoke:
        service = Smoke(url, ["Started"], ["smoke.Double", "smoke.DoubleReturn"], "smoke")
        async with asyncio.timeout(LONGEST):
            await service.run()
        return service

    assert asyncio.run(run()).answer == ({"n": 2}, "success", "k1")
    conforms(Service)


def pika(url: str) -> None:
    """Callbacks: an event leads to a command, the command to a result."""
    from eda_pika import Service

    class Smoke(Service):
        answer: Any = None

        def on_ready(self) -> None:
            self.call_later(LONGEST, self.stop)
            self.publish_event("Started", {"n": 1}, "c1", mandatory=True)

        def on_Started(self, payload: Any, conversation_id: str, meta: Any) -> None:
            self.send_command("smoke.Double", payload, conversation_id, "smoke.DoubleReturn", "k1")

        def on_Double(self, payload: Any, conversation_id: str, reply_to: str, key: str, meta: Any) -> None:
            self.return_success(reply_to, {"n": 2 * payload["n"]}, conversation_id, key)

        def on_DoubleReturn(self, payload: Any, conversation_id: str, status: str, key: str, meta: Any) -> None:
            self.answer = payload, status, key
            self.stop()

    service = Smoke(url, ["Started"], ["smoke.Double", "smoke.DoubleReturn"], "smoke")
    service.run()
    assert service.answer == ({"n": 2}, "success", "k1"), service.answer
    conforms(Service)


def kombu(url: str) -> None:
    """An endpoint publishes, and the broker confirms."""
    from eda_kombu import Endpoint

    with Endpoint(url, "smoke", confirm_timeout=LONGEST) as endpoint:
        endpoint.publish_event("Started", {"n": 1}, "c1")


def tools(url: str) -> None:
    """Each console script tells its usage, and one publishes."""
    scripts = Path(sysconfig.get_path("scripts"))
    points = importlib.metadata.distribution("eda-core").entry_points.select(group="console_scripts")
    assert "eda" in points.names, points
    for name in points.names:
        subprocess.run([scripts / name, "--help"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([scripts / "eda", "publish_event", url, "Started", "--data", '{"n": 1}'], check=True)


PARTS: Final[dict[str, Callable[[str], None]]] = {
    "core": core,
    "testing": testing,
    "aio": aio,
    "pika": pika,
    "kombu": kombu,
    "tools": tools,
}


def main(extra: str, url: str) -> None:
    """Try one extra, or all of them."""
    for name in PARTS if extra == "all" else (extra,):
        PARTS[name](url)
        print(f"{name} works on Python {sys.version.split()[0]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
