"""The private cluster does what the harness on top of it relies on."""

from __future__ import annotations

import pika
import pytest

from tests.support.rabbitmq import RabbitNodeError
from tests.support.rabbitmq_cluster import RabbitCluster, wait_until


def test_a_queue_of_the_cluster_outlives_its_leader(rabbit_cluster: RabbitCluster) -> None:
    cluster = rabbit_cluster
    parameters = pika.URLParameters(cluster.nodes[0].url)
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", "kept", b"still here", mandatory=True)
    connection.close()
    with pytest.raises(RabbitNodeError, match="none is not there"):
        cluster.leader("none")

    first = cluster.leader("kept")
    first.kill()

    def another_leads() -> bool:
        try:
            return cluster.leader("kept") is not first
        except RabbitNodeError:
            return False

    wait_until(another_leads, "another node leads")
    connection = pika.BlockingConnection(pika.URLParameters(cluster.running().url))
    assert connection.channel().basic_get("kept", auto_ack=True)[2] == b"still here"
    connection.close()
    cluster.start()
    assert first.running


def test_a_node_is_cut_off_and_joins_again(rabbit_cluster: RabbitCluster) -> None:
    cluster = rabbit_cluster
    apart = cluster.nodes[1]
    cluster.isolate(apart)
    others = [node for node in cluster.nodes if node is not apart]
    wait_until(lambda: all(cluster.members(node) == 2 for node in others), "the others are two")
    for node in others:
        assert node.eval(f"net_kernel:connect_node('{apart.name}').") == "false"
    assert apart.running
    cluster.join(apart)
    cluster.start()
    assert [cluster.members(node) for node in cluster.nodes] == [3, 3, 3]
    assert apart.answers()


def test_a_condition_that_never_holds_is_told() -> None:
    with pytest.raises(RabbitNodeError, match=r"the impossible: not within 0\.3 s"):
        wait_until(lambda: False, "the impossible", 0.3)
