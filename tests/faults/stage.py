"""The stage of a scenario: a vhost of a broker; proxies and processes for each kind of service; jobs; the counts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from eda_core.testing.live.proxy import Proxy
from tests.faults.counting import Interval, Observed, Outcome, Step, count, read_journal
from tests.faults.kinds import Kind
from tests.faults.services.common import DONE, READY
from tests.faults.source import Source, channel, consumers, death_of, drain, number_of, ready
from tests.support.rabbitmq import RabbitNode
from tests.support.rabbitmq_cluster import RabbitCluster
from tests.support.services import ROOT, environment

T = TypeVar("T")

HARNESS = "harness"  # user and password
#: Seconds without any progress after which a service counts as stuck.
QUIET = 30.0
#: Seconds that a worker has to end in when it is told to.
STOP = 20.0
LETTERS = "dead-letters"


class StageError(Exception):
    """The harness itself could not do what a scenario asks for."""


@dataclass(slots=True)
class Broker:
    """A node or a cluster, which scenarios share and mistreat.

    Attributes:
        nodes: of it.
        cluster: if it is one.
    """

    nodes: list[RabbitNode]
    cluster: RabbitCluster | None = None
    _vhosts: int = 0

    @classmethod
    def single(cls, server: Path | None) -> Broker:
        """One node, started."""
        node = RabbitNode(server)
        node.start()
        node.ctl("add_user", HARNESS, HARNESS)
        return cls([node])

    @classmethod
    def three(cls, server: Path | None) -> Broker:
        """A cluster of three, started."""
        cluster = RabbitCluster(3, server)
        try:
            cluster.start()
            cluster.nodes[0].ctl("add_user", HARNESS, HARNESS)
        except BaseException:
            cluster.stop()
            raise
        return cls(cluster.nodes, cluster)

    def add_vhost(self, queue_type: str) -> str:
        """A new vhost with the dead-letter policy, in which new queues have this type."""
        self._vhosts += 1
        name, node = f"faults-{self._vhosts}", self.nodes[0]
        node.ctl("add_vhost", name, "--default-queue-type", queue_type)
        for user in ("guest", HARNESS):
            node.ctl("set_permissions", "-p", name, user, ".*", ".*", ".*")
        node.set_dlx_policy(name)
        return name

    def heal(self) -> None:
        """Have every node run."""
        if self.cluster is not None:
            self.cluster.start()
        for node in self.nodes:
            node.start()

    def stop(self) -> None:
        """Stop all."""
        for node in reversed(self.nodes):
            node.stop(grace=0.0)


class Worker:
    """A process of a service.

    Attributes:
        number: among all of the scenario.
        log: the file with what it writes.
        status: how it has ended, if it has.
    """

    def __init__(self, number: int, kind: Kind, settings: dict[str, Any], directory: Path) -> None:
        self.number = number
        self.log = directory / f"{kind.name}-{number}.log"
        self.status: int | None = None
        self._kind = kind
        self._journal = directory / f"{kind.name}-{number}.journal"
        self._journal.touch()
        self._settings = {**settings, "journal": str(self._journal)}
        self._read = 0
        self._steps: list[Step] = []

    async def start(self) -> None:
        """Start it; it is ready some time later."""
        command = [self._kind.python, "-m", f"tests.faults.services.{self._kind.program}", json.dumps(self._settings)]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} if self._kind.theirs else environment()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=env, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process.returncode is None

    def steps(self) -> list[Step]:
        """What it has done so far."""
        with self._journal.open("rb") as file:
            file.seek(self._read)
            news = file.read()
        news = news[: news.rfind(b"\n") + 1]
        self._read += len(news)
        self._steps += read_journal(self.number, news.decode())
        return self._steps

    def lines(self) -> int:
        """How many lines it has written to its log, the harness's own left aside."""
        with self.log.open(errors="replace") as log:
            return sum(" harness " not in line for line in log)

    def held(self) -> dict[str, int]:
        """What its process holds: file descriptors, threads, memory in KiB, and the tasks that it has told of last."""
        process = Path(f"/proc/{self.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        tasks = [step.number for step in self.steps() if step.what == READY]
        return {
            "descriptors": len(list((process / "fd").iterdir())),
            "threads": int(status["Threads"]),
            "memory": int(status["VmRSS"].split()[0]),
            "tasks": tasks[-1] if tasks else 0,
        }

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL it."""
        self.signal(signal.SIGKILL)
        await self._process.wait()

    async def end(self) -> float:
        """SIGTERM it, and SIGKILL it when it does not end; how long that has taken."""
        begin = time.monotonic()
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP):
                self.status = await self._process.wait()
        except TimeoutError:
            await self.kill()
            self.status = -signal.SIGKILL
        return time.monotonic() - begin


@dataclass(slots=True)
class Company:
    """All that there is of one kind of service in a scenario.

    Attributes:
        proxies: one for each node of the broker.
        workers: all that there were.
        lines: of log before the first fault.
        links: lost links of a publisher.
        held: what a worker held, at several times.
    """

    kind: Kind
    proxies: list[Proxy]
    settings: dict[str, Any]
    workers: list[Worker] = field(default_factory=list)
    lines: int = 0
    links: int = 0
    statuses: list[int] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    quiet: bool = False
    held: list[dict[str, int]] = field(default_factory=list)

    def running(self) -> list[Worker]:
        """Those that live."""
        return [worker for worker in self.workers if worker.running]

    def steps(self) -> list[Step]:
        """What they have done so far, in order."""
        return sorted((step for worker in self.workers for step in worker.steps()), key=lambda step: step.time)

    def done(self) -> set[int]:
        """The jobs that they have done so far."""
        return {step.number for worker in self.workers for step in worker.steps() if step.what == DONE}

    def readies(self) -> int:
        """How often they were ready."""
        return sum(step.what == READY for worker in self.workers for step in worker.steps())

    def log_lines(self) -> int:
        """How many lines they have logged."""
        return sum(worker.lines() for worker in self.workers)


class Stage:
    """An asynchronous context manager: within it everything runs, and jobs flow.

    Attributes:
        broker, vhost: where.
        companies: the services, by the name of their kind.
        source: of the jobs.
        faults: the times of the faults so far.
        poison: the numbers of jobs whose handler raises an error.
    """

    def __init__(
        self,
        broker: Broker,
        kinds: Sequence[Kind],
        directory: Path,
        *,
        workers: int = 1,
        rate: float = 40.0,
        work: float = 0.01,
        queue_type: str = "classic",
        publishes: bool = True,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.broker = broker
        self.faults: list[Interval] = []
        self.excused: list[Interval] = []
        self.poison: set[int] = set()
        self.companies: dict[str, Company] = {}
        self.vhost = ""
        self._kinds = kinds
        self._directory = directory
        self._count = workers
        self._rate = rate
        self._work = work
        self._queue_type = "quorum" if broker.cluster else queue_type
        self._attributes = attributes or {}
        self._publishes = publishes
        self._made = 0
        self._stack = AsyncExitStack()
        self.source = Source([], "Job", rate)

    # Setting up

    async def __aenter__(self) -> Self:
        try:
            self.vhost = await thread(self.broker.add_vhost, self._queue_type)
            await self._operate()
            self.source = Source(self.urls(), "Job", self._rate)
            self._stack.push_async_callback(self.source.stop)
            for kind in self._kinds:
                await self._cast(kind)
            await self.until(lambda company: company.readies() >= self._count, "all workers are ready", 60)
            self.source.start()
            return self
        except BaseException:
            await self._stack.aclose()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for company in self.companies.values():
                for worker in company.running():
                    await worker.kill()
        finally:
            await self._stack.aclose()
            if self.vhost and all(node.running for node in self.broker.nodes):
                await thread(self.broker.nodes[0].ctl, "delete_vhost", self.vhost)

    def urls(self, user: str = HARNESS, ports: Sequence[int] = ()) -> list[str]:
        """The addresses of the vhost, on each node; the harness's own ones by default."""
        ports = ports or [node.port for node in self.broker.nodes]
        return [f"amqp://{user}:{user}@127.0.0.1:{port}/{quote(self.vhost, safe='')}" for port in ports]

    async def _operate(self) -> None:
        """The operator's part: the exchange of dead letters, and the harness's: its witnesses."""
        async with self.operator() as opened:
            for exchange in ("events", "am-dlx"):
                await opened.exchange_declare(exchange, exchange_type="topic", durable=True)
            for kind in self._kinds:
                await opened.queue_declare(kind.witness, durable=True)
                await opened.queue_bind(kind.witness, "events", kind.done)
            await opened.queue_declare(LETTERS, durable=True)
            await opened.queue_bind(LETTERS, "am-dlx", "#")

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Any]:
        """A channel of the operator to a node that answers."""
        for url in self.urls():
            try:
                stack = AsyncExitStack()
                opened = await stack.enter_async_context(channel(url))
            except Exception:
                continue
            async with stack:
                yield opened
            return
        raise StageError("no node answers the operator")

    async def _cast(self, kind: Kind) -> None:
        proxies = [await self._stack.enter_async_context(Proxy(node.port)) for node in self.broker.nodes]
        settings = {
            "urls": self.urls("guest", [proxy.port for proxy in proxies]),
            "service": kind.name,
            "job": kind.job,
            "done": kind.done,
            "attributes": {**kind.attributes, **({} if kind.theirs else self._attributes)},
            "rate": self._rate,
            "work": self._work,
            "publishes": self._publishes,
        }
        self.companies[kind.name] = Company(kind, proxies, settings)
        for _ in range(self._count):
            await self.hire(self.companies[kind.name])

    async def hire(self, company: Company) -> Worker:
        """Start one more worker."""
        self._made += 1
        settings = {**company.settings, "first": self._made * 10_000_000}
        worker = Worker(self._made, company.kind, settings, self._directory)
        await worker.start()
        company.workers.append(worker)
        return worker

    # What scenarios do

    @property
    def node(self) -> RabbitNode:
        """The first node of the broker."""
        return self.broker.nodes[0]

    def proxies(self) -> Iterator[Proxy]:
        """All of them."""
        for company in self.companies.values():
            yield from company.proxies

    async def flow(self, jobs: int = 20) -> None:
        """Let jobs flow, until each kind has handled some."""
        self.source.flow()
        await self.until(lambda company: len(company.done()) >= jobs, f"{jobs} jobs are done", 60)
        for company in self.companies.values():
            company.lines = company.log_lines()

    @contextmanager
    def fault(self, links: int = 1) -> Iterator[None]:
        """A block in which nobody can be served. ``links``: those that a publisher loses by that."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.faults.append((begin, time.monotonic()))
            for company in self.companies.values():
                company.links += links

    async def until(self, condition: Callable[[Company], bool], what: str, seconds: float) -> None:
        """Wait until a condition holds for every kind. Raises StageError, which says for which it does not."""
        give_up = time.monotonic() + seconds
        while waiting := [name for name, company in self.companies.items() if not condition(company)]:
            if time.monotonic() > give_up:
                raise StageError(f"{what}: not within {seconds:g} s for {', '.join(waiting)}{self._tails(waiting)}")
            await asyncio.sleep(0.05)

    def _tails(self, names: Collection[str]) -> str:
        """The ends of the logs of these kinds."""
        text = ""
        for worker in (worker for name in names for worker in self.companies[name].workers[-1:]):
            lines = worker.log.read_text(errors="replace").splitlines()[-15:]
            text += f"\n--- {worker.log.name}\n" + "\n".join(lines)
        return text

    async def again(self, seconds: float, jobs: int = 10) -> None:
        """Wait until every kind has handled some more jobs, so many seconds at most: who has not is found later."""
        before = {name: len(company.done()) for name, company in self.companies.items()}
        with suppress(StageError):
            await self.until(lambda each: len(each.done()) >= before[each.kind.name] + jobs, "more jobs", seconds)

    async def waiting(self, queue: str) -> int:
        """How many messages of a queue no consumer has."""
        async with self.operator() as opened:
            return await ready(opened, queue)

    async def consumed(self, queue: str) -> bool:
        """Whether a queue is there and has a consumer."""
        try:
            async with self.operator() as opened:
                return await consumers(opened, queue) > 0
        except Exception:
            return False

    # The end

    async def outcomes(self) -> dict[str, Outcome]:
        """Wait until all is handled, stop all workers, and count."""
        self.source.flow(False)
        flushed = await self.source.flushed(60)
        await asyncio.gather(*(self._finish(company) for company in self.companies.values()))
        await self._await_dead_connections()
        if self.poison:
            await self._await_letters()
        end = time.monotonic()
        lines = {name: company.log_lines() - company.lines for name, company in self.companies.items()}
        for company in self.companies.values():
            await self.dismiss(company, company.running())
        await self.source.stop()
        if not flushed:
            raise StageError(f"{len(self.source.pending)} jobs could not be published in a minute")
        letters = await drain(self._living(), LETTERS, death_of)
        return {
            name: count(await self._observed(company, letters, lines[name], end))
            for name, company in self.companies.items()
        }

    async def _finish(self, company: Company) -> None:
        """Wait until a kind has handled all, or makes no progress."""
        if not company.kind.handles:
            return
        wanted = set(self.source.confirmed) - self.poison
        seen, since = -1, time.monotonic()
        while not wanted <= (done := company.done()):
            if len(done) > seen:
                seen, since = len(done), time.monotonic()
            elif time.monotonic() - since > QUIET and not await self._left(company):
                return  # they are not in its queue: they were dead-lettered or are lost
            elif time.monotonic() - since > 2 * QUIET:
                company.quiet = True
                return
            await asyncio.sleep(0.1)

    async def _await_dead_connections(self) -> None:
        """Wait until no message is unacknowledged: the broker may not have noticed yet that a connection is dead.

        It notices by the heartbeats. Then its messages come again, although their handlers have ended once.
        """
        give_up = time.monotonic() + 2 * QUIET
        while await self._unacknowledged() and time.monotonic() < give_up:
            await asyncio.sleep(0.5)

    async def _unacknowledged(self) -> int:
        """How many messages consumers of the services' queues have."""
        columns = ("name", "messages_unacknowledged")
        node = next(node for node in self.broker.nodes if node.answers())
        listed = await asyncio.to_thread(node.ctl, "list_queues", "-q", "-p", self.vhost, *columns)
        queues = {company.kind.queue for company in self.companies.values()}
        rows = (line.split("\t") for line in listed.splitlines())
        return sum(int(row[1]) for row in rows if len(row) == len(columns) and row[0] in queues)

    async def _left(self, company: Company) -> int:
        return await self.waiting(company.kind.queue)

    async def _await_letters(self) -> None:
        wanted = len(self.poison) * sum(company.kind.handles for company in self.companies.values())
        give_up = time.monotonic() + QUIET
        while await self.waiting(LETTERS) < wanted and time.monotonic() < give_up:
            await asyncio.sleep(0.2)

    async def dismiss(self, company: Company, workers: Sequence[Worker]) -> None:
        """SIGTERM workers and note how they end."""
        company.stops += await asyncio.gather(*(worker.end() for worker in workers))
        company.statuses += [worker.status for worker in workers if worker.status is not None]

    def _living(self) -> str:
        for node, url in zip(self.broker.nodes, self.urls(), strict=True):
            if node.answers():
                return url
        raise StageError("no node answers")

    async def _observed(self, company: Company, letters: Counter[tuple[str, int]], lines: int, end: float) -> Observed:
        kind, url = company.kind, self._living()
        witnessed = await drain(url, kind.witness, number_of)
        return Observed(
            handles=kind.handles,
            sent=self.source.confirmed,
            resent=self.source.resent,
            poison=self.poison if kind.handles else (),
            steps=company.steps(),
            # What publishes nothing is witnessed by its own journal.
            witnessed=witnessed if self._publishes else Counter(company.done()),
            dead=Counter({number: times for (queue, number), times in letters.items() if queue == kind.queue}),
            left=(await drain(url, kind.queue, number_of)).total() if kind.handles else 0,
            faults=self.faults,
            excused=self.excused,
            links=company.links,
            log_lines=lines,
            statuses=company.statuses,
            stops=company.stops,
            end=end,
            quiet=company.quiet,
            held=company.held,
        )


async def thread(call: Callable[..., T], *arguments: Any) -> T:
    """Call something that blocks, in a thread."""
    return await asyncio.to_thread(call, *arguments)
