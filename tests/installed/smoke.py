"""Try what an extra promises: ``python smoke.py EXTRA URL``, outside the checkout, with only that extra installed.

It needs nothing but the installed wheel and ``project``, beside it. It ends with status 0 and a line for each part, or
with an error. ``core`` stands for no extra at all; ``all`` tries everything; ``pytest`` is the plugin without
hypothesis.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
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


def testing(url: str) -> None:
    """The explorer goes through a small scenario; the strategies, the simulation and the plugin need no adapter."""
    from eda_core import Config, Event
    from eda_core.testing import simulation
    from eda_core.testing.explorer import Scenario, explore

    config = Config.make(url, "smoke", ["Started"])
    found = explore(Scenario("smoke", (config,), (Event("Started", "started", "c1"),), bounds={"drop": 1}))
    assert found.complete, found
    assert found.states > 10, found
    assert simulation.ALL
    run_tests("test_bus.py", "test_strategies.py")


def msgspec(url: str) -> None:
    """Dataclasses are read, and written."""
    from eda_core.messages.models import library_for, without_models

    library = library_for(Order)
    assert library is not None
    order = library.reader(Order)({"number": 7})
    assert order == Order(7), order
    assert without_models([order], json=True) == [{"number": 7}]


def pydantic(url: str) -> None:
    """As msgspec; and pydantic's own models."""
    from pydantic import TypeAdapter, dataclasses

    from eda_core.messages.models import library_for

    msgspec(url)
    model = dataclasses.dataclass(Order)
    library = library_for(model)
    assert library is not None
    assert library.reader(model)({"number": "7"}) == TypeAdapter(model).validate_python({"number": 7})


@dataclass
class Order:
    """A payload."""

    number: int


def run_tests(*files: str, options: Sequence[str] = (), status: int = 0) -> str:
    """Run tests of ``project``, as its author does: pytest finds the plugin by itself. Returns what it has printed."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-rs", "--durations=3", *options]
    command += [f"project/{name}" for name in files]
    done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == status, f"pytest ended with status {done.returncode}:\n{done.stdout}"
    print(*(line for line in done.stdout.splitlines() if line.startswith("SKIPPED")), sep="\n", end="")
    return done.stdout


def without_hypothesis(url: str) -> None:
    """The plugin and the inbox work with ``aio`` and pytest alone; what needs more says how to get it."""
    assert importlib.util.find_spec("hypothesis") is None
    run_tests("test_bus.py", "test_stock.py")
    for name in ("simulation", "strategies"):
        told = "works without hypothesis"
        try:
            importlib.import_module(f"eda_core.testing.{name}")
        except ModuleNotFoundError as missing:
            told = str(missing)
        assert "pip install 'eda-core[testing]'" in told, (name, told)


def services(url: str) -> None:
    """A user's project is tested with all that there is: the plugin, inboxes, replay, simulation, property tests."""
    subprocess.run([sys.executable, "-m", "project.record", "project/stock.journal"], cwd=HERE, check=True)
    run_tests("test_replay.py", options=["-k", "journal", "--eda-update"])
    run_tests("test_stock.py", "test_shop.py", "test_simulated.py", "test_together.py", "test_replay.py")
    failure = run_tests("fails_in_simulation.py", status=1)
    for told in ("The story of this run, in ", "!! ", "stock 1", "handles OrderPlaced again", "@reproduce_failure("):
        assert told in failure, failure


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


def otel(url: str) -> None:
    """A service is traced, and what it would publish has the context of its span."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from eda_core.messages import Event
    from eda_otel.files import FileExporter
    from eda_otel.tracing import Tracing

    with tempfile.TemporaryDirectory() as directory:
        exporter = FileExporter(str(Path(directory) / "spans"))
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        nobody: Any = None
        with Tracing(nobody, provider).sending(Event("Started", 1, "c1"), held=False) as sending:
            assert "traceparent" in sending.message.meta, sending.message
        assert "send events:Started" in (Path(directory) / "spans").read_text("utf-8")
        exporter.shutdown()


def prometheus(url: str) -> None:
    """A service that runs tells its numbers over HTTP. It needs no client library."""
    from urllib.request import urlopen

    from eda_aio import Service
    from eda_probe import HealthServer

    class Smoke(Service):
        TRANSPORT = "native"
        told = b""

        async def on_ready(self) -> None:
            with HealthServer(self, 0) as server:
                address = f"http://127.0.0.1:{server.port}/metrics"
                self.told = await asyncio.to_thread(lambda: urlopen(address, timeout=LONGEST).read())
            await self.stop()

    service = Smoke(url, [], [], "smoke")
    asyncio.run(service.run())
    assert b'eda_ready{service="smoke"} 1.0' in service.told, service.told


def tools(url: str) -> None:
    """Each console script tells its usage, one publishes, one reads a queue, and one writes a project."""
    scripts = Path(sysconfig.get_path("scripts"))
    points = importlib.metadata.distribution("eda-core").entry_points.select(group="console_scripts")
    assert "eda" in points.names, points
    for name in points.names:
        subprocess.run([scripts / name, "--help"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([scripts / "eda", "publish_event", url, "Started", "--data", '{"n": 1}'], check=True)
    subprocess.run([scripts / "eda", "inspect_queue", url, "smoke.events"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([scripts / "eda", "new", "shop", directory], check=True, stdout=subprocess.DEVNULL)
        assert (Path(directory) / "shop" / "service.py").is_file()


PARTS: Final[dict[str, Callable[[str], None]]] = {
    "core": core,
    "testing": testing,
    "aio": aio,
    "pika": pika,
    "kombu": kombu,
    "otel": otel,
    "prometheus": prometheus,
    "tools": tools,
    "msgspec": msgspec,
    "pydantic": pydantic,
    "services": services,
}
#: Not among them: with "all" it would not hold.
PLUGIN: Final = {"pytest": without_hypothesis}


def main(extra: str, url: str) -> None:
    """Try one extra, or all of them."""
    if extra == "tools":
        assert importlib.util.find_spec("aiormq") is None, "the tools need no client library"
    for name in PARTS if extra == "all" else (extra,):
        {**PARTS, **PLUGIN}[name](url)
        print(f"{name} works on Python {sys.version.split()[0]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
