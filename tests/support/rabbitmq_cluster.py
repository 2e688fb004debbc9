"""A cluster of private RabbitMQ nodes for tests, whose members can be killed, frozen and cut off from the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.rabbitmq import RabbitNode, RabbitNodeError


class RabbitCluster:
    """Nodes that find each other at their first start.

    Attributes:
        nodes: they.
    """

    def __init__(self, size: int = 3, server: Path | None = None) -> None:
        """Choose ports, names and directories; nothing runs before ``start``.

        Raises RabbitNodeError where RabbitMQ is not installed.
        """
        first = RabbitNode(server)
        self.nodes = [first, *(RabbitNode(server, peer=first) for _ in range(size - 1))]
        members = [
            f"cluster_formation.classic_config.nodes.{number} = {node.name}"
            for number, node in enumerate(self.nodes, 1)
        ]
        for node in self.nodes:
            node.configure("\n".join(["cluster_formation.peer_discovery_backend = classic_config", *members]))
            # What an operator sets where Mnesia holds the definitions; without Mnesia nothing else is possible.
            node.configure("cluster_partition_handling = pause_minority")

    def start(self, timeout: float = 240.0) -> None:
        """Start the nodes that do not run, and wait until all are one cluster, ``timeout`` seconds at most.

        Raises RabbitNodeError if that fails.
        """
        give_up = time.monotonic() + timeout
        first = self.nodes[0]
        first.start_epmd()
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            for done in [threads.submit(node.start, timeout) for node in self.nodes]:
                done.result()
        while not all(self.members(node) == len(self.nodes) for node in self.nodes):
            if time.monotonic() > give_up:
                status = first.ctl("cluster_status")
                raise RabbitNodeError(f"the nodes are no cluster after {timeout:g} s:\n{status}\n{first.log_tail()}")
            time.sleep(0.2)

    @staticmethod
    def members(node: RabbitNode) -> int:
        """How many running nodes of the cluster a node sees, itself included."""
        return int(node.eval("length([N || N <- [node() | nodes()], rabbit:is_running(N)])."))

    def stop(self) -> None:
        """Kill all nodes and remove their data. Idempotent."""
        for node in reversed(self.nodes):
            node.stop(grace=0.0)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def running(self) -> RabbitNode:
        """A node that runs. Raises RabbitNodeError if there is none."""
        for node in self.nodes:
            if node.running:
                return node
        raise RabbitNodeError("no node of the cluster runs")

    def leader(self, queue: str, vhost: str = "/") -> RabbitNode:
        """The node that leads a quorum queue. Raises RabbitNodeError if the queue has no leader that runs."""
        answer = self.running().ctl("list_queues", "-p", vhost, "name", "leader", "--formatter", "csv")
        for line in answer.splitlines():
            name, _, leader = line.replace('"', "").partition(",")
            if name == queue:
                return self._named(leader)
        raise RabbitNodeError(f"the queue {queue} is not there:\n{answer}")

    def _named(self, name: str) -> RabbitNode:
        for node in self.nodes:
            if node.name == name:
                return node
        raise RabbitNodeError(f"{name!r} is no node of the cluster")

    def isolate(self, node: RabbitNode) -> None:
        """Cut a node off from the others; clients reach them all. The others refuse it as well."""
        self._expect(node, "'nobody'")
        names = self._names_beside(node)
        node.eval(f"[erlang:disconnect_node(N) || N <- [{names}]], ok.")

    def join(self, node: RabbitNode) -> None:
        """Let a node that was cut off back in."""
        self._expect(node, "erlang:get_cookie()")

    def _expect(self, node: RabbitNode, cookie: str) -> None:
        """Have a node expect this cookie from the others, instead of the one that they have."""
        node.eval(f"[erlang:set_cookie(N, {cookie}) || N <- [{self._names_beside(node)}]], ok.")

    def _names_beside(self, node: RabbitNode) -> str:
        return ", ".join(f"'{other.name}'" for other in self.nodes if other is not node)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait until a condition holds that only asking can tell. Raises RabbitNodeError if it does not."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise RabbitNodeError(f"{what}: not within {seconds:g} s")
        time.sleep(0.2)
