"""Tests that mistreat a node get a sound one each, whatever those before have done to it; without RabbitMQ."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support import vhosts
from tests.support.vhosts import VhostPool, Victims


class Node:
    """Does what the pools ask of a RabbitNode."""

    made: list[Node]

    def __init__(self) -> None:
        self.made.append(self)
        self.sound, self.alarmed, self.stopped = False, False, False
        self.vhosts: list[str] = []

    def start(self) -> None:
        self.sound = True

    def answers(self) -> bool:
        return self.sound

    def stop(self, grace: float) -> None:
        self.stopped = True

    def change_vhosts(self, add: Sequence[str], delete: Sequence[str], *, dead_letters: bool) -> None:
        if not self.sound:
            raise ConnectionError("the node is down")
        self.vhosts = [name for name in (*self.vhosts, *add) if name not in delete]


@pytest.fixture(autouse=True)
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """Those that were made."""
    monkeypatch.setattr(Node, "made", [], raising=False)
    monkeypatch.setattr(vhosts, "RabbitNode", Node)
    return Node.made


def test_a_sound_node_is_shared_and_used_vhosts_go(nodes: list[Node]) -> None:
    victims, names = Victims(), set[str]()
    for _ in range(100):
        victim = victims.take()
        names.add(victim.vhost)
        victims.give_back(victim)
    (node,) = nodes
    assert len(names) == 100, "each is used once"
    assert len(node.vhosts) <= VhostPool.BATCH, "a killed node would take up all that there are"
    victims.end()
    assert node.stopped


@pytest.mark.parametrize("what", ["sound", "alarmed"])
def test_a_node_that_is_past_help_is_replaced(nodes: list[Node], what: str) -> None:
    victims = Victims()
    victim = victims.take()
    setattr(nodes[0], what, what == "alarmed")  # it is down, or keeps its alarm
    victims.give_back(victim)
    assert victims.take().node is not victim.node
    assert [node.stopped for node in nodes] == [True, False]


def test_vhosts_that_could_not_be_made_are_asked_for_again(nodes: list[Node]) -> None:
    node = Node()
    pool = VhostPool(node)  # type: ignore[arg-type]  # it is asked for no more than that
    with pytest.raises(ConnectionError):
        pool.take()
    node.start()
    assert pool.take() in node.vhosts
