"""The scenarios: what happens to services, their brokers and the connections between them.

Each is a coroutine function that gets a stage on which jobs flow. Afterwards jobs cease, everything is handled that can
be, and the stage counts. Times are seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eda_core.testing.live.proxy import DOWN, UP, Direction, Link, Proxy
from tests.faults.stage import Broker, Company, Stage, Worker, thread
from tests.support.rabbitmq import RabbitNode, RabbitNodeError
from tests.support.rabbitmq_cluster import wait_until

Play = Callable[[Stage], Awaitable[None]]

MEBIBYTE = 1 << 20
#: Of a message of 16 MiB, what is not its padding.
ENVELOPE = 64  # bytes


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table.

    Attributes:
        name: to choose it by.
        title: what happens.
        play: does it.
        cluster: it needs a cluster of three.
        workers: of each kind.
        rate: jobs per second for each kind.
        work: seconds that a handler takes.
        queue_type: of the services' queues, on a single node; a cluster has quorum queues.
        handlers_only: kinds that only publish have no part in it.
        publishes: handlers publish that their jobs are done.
        limit: seconds, after which the scenario is given up.
        attributes: of the classes of services that are not on eventail.
    """

    name: str
    title: str
    play: Play
    cluster: bool = False
    workers: int = 1
    rate: float = 40.0
    work: float = 0.01
    queue_type: str = "classic"
    handlers_only: bool = False
    publishes: bool = True
    limit: float = 400.0
    attributes: Mapping[str, Any] = field(default_factory=dict)


SCENARIOS: dict[str, Scenario] = {}


def scenario(title: str, **options: Any) -> Callable[[Play], Play]:
    """Make a function a scenario of its name."""

    def register(play: Play) -> Play:
        name = play.__name__
        SCENARIOS[name] = Scenario(name, title, play, **options)
        return play

    return register


# --- The broker ---


@scenario("nothing, for 20 s")
async def nothing(stage: Stage) -> None:
    with stage.fault(links=0):
        pass
    await asyncio.sleep(20)


@scenario("the broker is killed (SIGKILL) and started again, 10 times", limit=600)
async def broker_killed(stage: Stage) -> None:
    for _ in range(10):
        await thread(stage.node.sync)
        with stage.fault():
            await thread(stage.node.kill)
            await thread(stage.node.start)
        await stage.again(30)


@scenario("the broker has an alarm for 20 s")
async def alarm(stage: Stage) -> None:
    with stage.fault(links=0):
        await thread(stage.node.set_memory_alarm, True)
        try:
            await asyncio.sleep(20)
        finally:
            await thread(stage.node.set_memory_alarm, False)
    await stage.again(40)


@scenario("the broker is frozen for 40 s")
async def broker_frozen(stage: Stage) -> None:
    with stage.fault():
        stage.node.pause()
        try:
            await asyncio.sleep(40)
        finally:
            stage.node.resume()
    await stage.again(60)


@scenario("the queue of the events is deleted, 3 times", handlers_only=True)
async def queue_deleted(stage: Stage) -> None:
    for _ in range(3):
        await _idle(stage)
        with stage.fault():
            async with stage.operator() as opened:
                for company in stage.companies.values():
                    await opened.queue_delete(company.kind.queue)
        begin = time.monotonic()
        # Who never comes back is found when the jobs flow again: they are not handled.
        await asyncio.gather(*(_consumed(stage, company, begin + 30) for company in stage.companies.values()))
        stage.source.flow()
        await stage.again(30)


async def _idle(stage: Stage) -> None:
    """Have no job on the way: what is in a queue is lost with it."""
    stage.source.flow(False)
    await stage.source.flushed(30)
    wanted = set(stage.source.confirmed)
    await stage.until(lambda company: wanted <= company.done(), "all jobs are done", 60)
    await asyncio.sleep(0.5)  # for the confirms and acknowledgements


async def _consumed(stage: Stage, company: Company, give_up: float) -> None:
    while not await stage.consumed(company.kind.queue) and time.monotonic() < give_up:
        await asyncio.sleep(0.1)


@scenario("the exchange of the events is deleted while jobs are handled, 3 times")
async def exchange_deleted(stage: Stage) -> None:
    for _ in range(3):
        # Jobs cannot be published without it; those that wait then are done while it is not there.
        stage.source.add(100, work=0.05)
        await stage.source.caught_up(20)
        begin = time.monotonic()
        with stage.fault():
            async with stage.operator() as opened:
                await opened.exchange_delete("events")
            await asyncio.sleep(3)
            async with stage.operator() as opened:  # puts right what it did
                await opened.exchange_declare("events", exchange_type="topic", durable=True)
                for company in stage.companies.values():
                    await opened.queue_bind(company.kind.witness, "events", company.kind.done)
                    if company.kind.handles:
                        await opened.queue_bind(company.kind.queue, "events", company.kind.job)
        stage.excused.append((begin - 1, time.monotonic() + 0.5))
        await stage.again(30)


@scenario("all permissions are revoked and connections closed; permissions are given back after 10 s")
async def permissions_revoked(stage: Stage) -> None:
    with stage.fault():
        await thread(stage.node.ctl, "clear_permissions", "-p", stage.vhost, "guest")
        # The broker goes on to allow what it has allowed before on a channel.
        await thread(stage.node.ctl, "close_all_connections", "-p", stage.vhost, "permissions have changed")
        await asyncio.sleep(10)
        await thread(stage.node.ctl, "set_permissions", "-p", stage.vhost, "guest", ".*", ".*", ".*")
    await stage.again(40)


# --- Workers ---


@scenario("one of three workers is killed (SIGKILL), 20 times", workers=3, limit=600)
async def worker_killed(stage: Stage) -> None:
    for _ in range(20):
        await asyncio.gather(*(_replace(stage, company, _kill) for company in stage.companies.values()))


@scenario("one of two workers is stopped (SIGTERM), 100 times", workers=2, limit=1200)
async def worker_stopped(stage: Stage) -> None:
    for _ in range(100):
        await asyncio.gather(*(_replace(stage, company, stage.dismiss) for company in stage.companies.values()))


async def _replace(stage: Stage, company: Company, end: Callable[[Company, list[Worker]], Awaitable[None]]) -> None:
    """End the oldest worker, and wait until the one that replaces it is ready."""
    oldest = company.running()[0]
    with stage.fault(links=0):
        pass
    await end(company, [oldest])
    new = await stage.hire(company)
    give_up = time.monotonic() + 30
    while not new.steps() and time.monotonic() < give_up:
        await asyncio.sleep(0.05)
    await asyncio.sleep(random.random() / 2)


async def _kill(company: Company, workers: list[Worker]) -> None:
    for worker in workers:
        await worker.kill()


@scenario("20 poison messages while one of three workers is killed 5 times", workers=3, handlers_only=True)
async def poison_classic(stage: Stage) -> None:
    await _poison(stage)


@scenario("the same, with quorum queues", workers=3, handlers_only=True, queue_type="quorum")
async def poison_quorum(stage: Stage) -> None:
    await _poison(stage)


async def _poison(stage: Stage) -> None:
    for _ in range(5):
        stage.poison.update(stage.source.add(4, poison=True))
        await asyncio.gather(*(_replace(stage, company, _kill) for company in stage.companies.values()))


# --- Load ---


@scenario("20 messages of 16 MiB", rate=5, work=0, limit=600)
async def large_messages(stage: Stage) -> None:
    with stage.fault(links=0):
        stage.source.flow(False)
        stage.source.add(20, size=16 * MEBIBYTE - ENVELOPE)
        await stage.source.flushed(120)
    await stage.until(_has_done(stage), "the large messages are done", 240)


def _has_done(stage: Stage) -> Callable[[Company], bool]:
    return lambda company: not company.kind.handles or set(stage.source.confirmed) <= company.done()


@scenario("a backlog of 100,000 messages", work=0, handlers_only=True, limit=900)
async def backlog(stage: Stage) -> None:
    await _idle(stage)
    for company in stage.companies.values():
        await stage.dismiss(company, company.running())
    stage.source.add(100_000)
    await stage.source.flushed(200)
    done = {name: len(company.done()) for name, company in stage.companies.items()}
    with stage.fault(links=0):
        pass
    for company in stage.companies.values():
        await stage.hire(company)
    begin = time.monotonic()
    left = set(stage.companies)
    while left and time.monotonic() < begin + 500:
        left = {name for name in left if len(stage.companies[name].done()) < done[name] + 100_000}
        await asyncio.sleep(0.5)


# --- Connections ---

#: So that a service does not wait seconds after each of many attempts. eventail has nothing like it.
FAST = {"RECONNECT_POLICY": {"base": 0.05, "cap": 0.3}}


@scenario("all connections are cut, 20 times")
async def cuts(stage: Stage) -> None:
    for number in range(20):
        with stage.fault():
            for proxy in stage.proxies():
                proxy.reset() if number % 2 else proxy.cut()
        await stage.again(20)


@scenario("connections are cut again as soon as a service is ready, 1,000 times", rate=5, attributes=FAST, limit=900)
async def reconnects(stage: Stage) -> None:
    await asyncio.gather(*(_reconnect(stage, company, 1_000) for company in stage.companies.values()))
    await stage.again(20)


async def _reconnect(stage: Stage, company: Company, times: int) -> None:
    """Cut the connections of one kind, and note what its process holds after a tenth of it and at the end."""
    for number in range(1, times + 1):
        ready, done = company.readies(), len(company.done())
        with stage.fault(links=0):
            for proxy in company.proxies:
                proxy.cut()
        company.links += 1
        give_up = time.monotonic() + 30
        # A publisher does not tell when it is ready: it is when it has published.
        while (company.readies() == ready) if company.kind.handles else (len(company.done()) == done):
            if time.monotonic() > give_up:
                return  # it stands still, which the end of the scenario shows
            await asyncio.sleep(0.01)
        if number in (times // 10, times):
            company.held.append(company.running()[0].held())


@scenario("the first of a service's two connections is cut alone, 10 times")
async def first_connection_cut(stage: Stage) -> None:
    await _cut_alone(stage, 0)


@scenario("the second of a service's two connections is cut alone, 10 times")
async def second_connection_cut(stage: Stage) -> None:
    await _cut_alone(stage, 1)


async def _cut_alone(stage: Stage, which: int) -> None:
    for _ in range(10):
        with stage.fault():
            for proxy in stage.proxies():
                if proxy.links:  # of those that have one connection, it
                    proxy.links[min(which, len(proxy.links) - 1)].cut()
        await stage.again(20)


@scenario("connections are cut at each step of the handshake", attributes=FAST)
async def handshake_cut(stage: Stage) -> None:
    """Step by step: the first frame of the broker is the last one of the first connection, and so on."""
    for proxy in stage.proxies():
        proxy.watch = _Steps(proxy).watch
    with stage.fault(links=40):
        for proxy in stage.proxies():
            proxy.cut()
        give_up = time.monotonic() + 90
        while any(proxy.watch is not None for proxy in stage.proxies()) and time.monotonic() < give_up:
            await asyncio.sleep(0.1)
        for proxy in stage.proxies():
            proxy.watch = None
    await stage.again(30)


class _Steps:
    """Lets one frame of the broker more through on each connection than on the one before, up to 40."""

    LAST = 40

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._links: dict[Link, tuple[int, bytes]] = {}  # frames that may still pass, and the beginning of one

    def watch(self, link: Link, direction: Direction, data: bytes) -> bytes:
        if direction == UP:
            return data
        allowed, rest = self._links.get(link, (len(self._links) + 1, b""))
        if allowed > self.LAST:
            self._proxy.watch = None
            return data
        sent, rest = b"", rest + data
        while allowed and len(rest) >= (size := 8 + int.from_bytes(rest[3:7])):  # type, channel, size, payload, end
            sent, rest, allowed = sent + rest[:size], rest[size:], allowed - 1
        self._links[link] = allowed, rest
        link.ending = not allowed
        return sent


@scenario("the network drops everything for 40 s, and takes no new connection")
async def network_gone(stage: Stage) -> None:
    with stage.fault():
        for proxy in stage.proxies():
            proxy.hole = True
            proxy.freeze()
        await asyncio.sleep(40)
        for proxy in stage.proxies():
            proxy.hole = False
            proxy.thaw()
    await stage.again(90)


async def _one_way(stage: Stage, direction: Direction) -> None:
    """The present connections carry nothing more in one direction."""
    with stage.fault():
        for proxy in stage.proxies():
            proxy.freeze(direction)
    await stage.again(120)


@scenario("what the broker sends is dropped for good; new connections work")
async def deaf(stage: Stage) -> None:
    await _one_way(stage, DOWN)


@scenario("what services send is dropped for good; new connections work")
async def mute(stage: Stage) -> None:
    await _one_way(stage, UP)


@scenario("a round trip takes 200 ms, and a connection carries 100 kB/s, for 30 s")
async def slow_network(stage: Stage) -> None:
    with stage.fault(links=0):
        for proxy in stage.proxies():
            proxy.delay, proxy.rate = 0.1, 100_000
        for proxy in stage.proxies():
            proxy.cut()  # starting over is slow as well
    await asyncio.sleep(30)
    for proxy in stage.proxies():
        proxy.delay = proxy.rate = 0.0


# --- A cluster of three ---


@scenario("cluster: the node that services are connected to is killed, and started 20 s later", cluster=True)
async def connected_node_killed(stage: Stage) -> None:
    await _lose(stage, stage.node)


@scenario("cluster: the leader of the services' queues is killed, and started 20 s later", cluster=True)
async def leader_killed(stage: Stage) -> None:
    await _lose(stage, await _leader(stage))


async def _leader(stage: Stage) -> RabbitNode:
    """The leader of a queue, of the first kind that has one."""
    cluster = stage.broker.cluster
    assert cluster is not None
    company = next(company for company in stage.companies.values() if company.kind.handles)
    return await thread(cluster.leader, company.kind.queue, stage.vhost)


async def _lose(stage: Stage, node: RabbitNode) -> None:
    with stage.fault():
        await thread(node.kill)
    await asyncio.sleep(20)
    await thread(node.start)
    await stage.again(60)


@scenario("cluster: the node that services are connected to is frozen for 40 s", cluster=True)
async def node_frozen(stage: Stage) -> None:
    with stage.fault():
        stage.node.pause()
    try:
        await asyncio.sleep(40)
    finally:
        stage.node.resume()
    await stage.again(90)


@scenario("cluster: the same, with HEARTBEAT = 5", cluster=True, attributes={"HEARTBEAT": 5})
async def node_frozen_5(stage: Stage) -> None:
    await node_frozen(stage)


@scenario("cluster: each node is stopped and started in turn", cluster=True, limit=600)
async def rolling_restart(stage: Stage) -> None:
    cluster = stage.broker.cluster
    assert cluster is not None
    for node in cluster.nodes:
        with stage.fault():
            pass
        await thread(node.shut_down)
        await thread(node.start)
        await thread(_all_see_all, stage.broker)
        await stage.again(60)


def _all_see_all(broker: Broker) -> None:
    cluster = broker.cluster
    assert cluster is not None

    def complete() -> bool:
        try:
            return all(cluster.members(node) == len(cluster.nodes) for node in cluster.nodes)
        except RabbitNodeError:
            return False

    wait_until(complete, "the cluster is complete again", 120)


@scenario("cluster: the node that services are connected to is cut off from the others for 30 s", cluster=True)
async def partition(stage: Stage) -> None:
    await _cut_off(stage, 30)


@scenario(
    "cluster: the same for 90 s, with services that publish nothing",
    cluster=True,
    handlers_only=True,
    publishes=False,
)
async def listener_cut_off(stage: Stage) -> None:
    await _cut_off(stage, 90)


async def _cut_off(stage: Stage, seconds: float) -> None:
    cluster = stage.broker.cluster
    assert cluster is not None
    with stage.fault():
        await thread(cluster.isolate, stage.node)
    await asyncio.sleep(seconds)
    await thread(cluster.join, stage.node)
    await thread(_all_see_all, stage.broker)
    await stage.again(60)


# --- All together ---


@scenario("chaos: every few seconds one of all this, for 10 minutes", workers=2, limit=1200)
async def chaos(stage: Stage) -> None:
    choice = random.Random(20)
    over = time.monotonic() + 600
    while time.monotonic() < over:
        await choice.choice(CHAOS)(stage)
        await stage.again(20, jobs=choice.randrange(1, 60))


async def _chaos_kill(stage: Stage) -> None:
    await thread(stage.node.sync)
    with stage.fault():
        await thread(stage.node.kill)
        await thread(stage.node.start)


async def _chaos_alarm(stage: Stage) -> None:
    with stage.fault(links=0):
        await thread(stage.node.set_memory_alarm, True)
        await asyncio.sleep(3)
        await thread(stage.node.set_memory_alarm, False)


async def _chaos_cut(stage: Stage) -> None:
    with stage.fault():
        for proxy in stage.proxies():
            proxy.cut()


async def _chaos_one(stage: Stage) -> None:
    with stage.fault():
        for proxy in stage.proxies():
            if proxy.links:
                random.choice(proxy.links).reset()


async def _chaos_freeze(stage: Stage) -> None:
    with stage.fault(links=0):
        stage.node.pause()
        await asyncio.sleep(5)
        stage.node.resume()


async def _chaos_worker(stage: Stage) -> None:
    await asyncio.gather(*(_replace(stage, company, _kill) for company in stage.companies.values()))


CHAOS = (_chaos_kill, _chaos_alarm, _chaos_cut, _chaos_cut, _chaos_one, _chaos_one, _chaos_freeze, _chaos_worker)
