"""The pipeline of the demo in simulations: it survives every fault, and ends as on a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eda_aio import Service
from eda_core.testing.simulation import Deployed, Simulation, SimulationFailed, simulate
from eda_tools.broker import EmbeddedBroker
from examples.conversations.anonymizer import Anonymizer
from examples.conversations.archive import Archive
from examples.conversations.store import ARCHIVED, FAILED, Conversation, Store
from examples.conversations.store import RECEIVED as RECEIVED_ONLY
from examples.conversations.tagger import Tagger
from examples.conversations.transcripts import read_transcripts

TRANSCRIPTS = Path(__file__).parents[2] / "examples" / "conversations" / "transcripts"
PIPELINE = (Deployed(Archive, store=lambda: Store(":memory:")), Anonymizer, Tagger)
RECEIVED = {
    f"c{number}": {"name": each.name, "text": each.text} for number, each in enumerate(read_transcripts(TRANSCRIPTS))
}
#: The conversation of the demo that no anonymizer can handle.
(STAYS,) = [name for name, payload in RECEIVED.items() if "13/27" in payload["text"]]
#: What no archive can make sense of.
POISON = {"name": "poison.txt", "text": None}


def publish(sim: Simulation, *conversations: str) -> None:
    for conversation in conversations:
        sim.publish_event("ConversationReceived", RECEIVED[conversation], conversation)


def outcome(store: Store) -> list[Conversation | None]:
    return [store.get(conversation) for conversation in RECEIVED]


def test_every_conversation_ends_in_the_archive_whatever_fails() -> None:
    @simulate(*PIPELINE, workers=2, runs=150, seed=7)
    def archived(sim: Simulation) -> None:
        publish(sim, "c0", "c1")
        sim.run()
        for conversation in ("c0", "c1"):
            assert sim.stored(Archive, conversation).state == ARCHIVED
            name = RECEIVED[conversation]["name"]
            sim.expect_event("ConversationArchived", {"name": name})

    archived()


def test_a_message_that_comes_again_changes_nothing() -> None:
    class Rows(Store):
        def snapshot(self) -> list[Any]:
            return outcome(self)

    with Simulation([Deployed(Archive, store=lambda: Rows(":memory:")), Anonymizer, Tagger]) as sim:
        publish(sim, "c0", "c1")
        for name in ("ConversationReceived", "anonymizer.AnonymizeText", "tagger.TagTopics", "archive.TagTopicsReturn"):
            sim.check_idempotent(name)
        sim.finish()


def test_a_conversation_that_cannot_be_handled_is_a_dead_letter() -> None:
    with Simulation(PIPELINE) as sim:
        sim.publish_event("ConversationReceived", POISON, "c9")
        sim.send_command("anonymizer.AnonymizeText", {"text": 7}, "c9")
        sim.run()
        sim.expect_dead_letter("ConversationReceived", {"name": "poison.txt"})
        sim.expect_result("test.AnonymizeTextReturn", lambda result: "reason" in result.payload)
        sim.finish()
        assert sim.stored(Archive, "c9") is None
        assert FAILED not in sim.story


async def run_on_a_broker(store: Store, url: str) -> None:
    """Run one worker of each service, and archive every conversation."""
    archived: asyncio.Queue[str] = asyncio.Queue()

    class Witness(Service):
        async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
            archived.put_nowait(conversation_id)

    async with EmbeddedBroker() as broker, asyncio.TaskGroup() as group:
        witness = Witness([broker.url], ["ConversationArchived"], [], "witness")
        services: list[Service] = [
            Archive([broker.url], store),
            Anonymizer([broker.url]),
            Tagger([broker.url]),
            witness,
        ]
        await asyncio.gather(*(started(service, group) for service in services))
        for conversation, payload in RECEIVED.items():
            await witness.publish_event("ConversationReceived", payload, conversation)
        left = set(RECEIVED) - {STAYS}
        async with asyncio.timeout(120):
            while left:
                left.discard(await archived.get())
        for service in services:
            await service.stop()


async def started(service: Service, group: asyncio.TaskGroup) -> None:
    ready = asyncio.Event()
    before: Callable[[], Any] = service.on_ready

    async def on_ready() -> None:
        if (awaited := before()) is not None:
            await awaited
        ready.set()

    service.on_ready = on_ready  # type: ignore[method-assign]
    group.create_task(service.run(signals=False))
    await ready.wait()


async def run_on_the_embedded_broker(store: Store) -> None:
    async with EmbeddedBroker() as broker:
        await run_on_a_broker(store, broker.url)


@pytest.mark.rabbitmq
def test_simulated_runs_and_those_on_rabbitmq_end_in_the_same_state(rabbit_url: str) -> None:
    with Store(":memory:") as store:
        asyncio.run(run_on_a_broker(store, rabbit_url))
        real = outcome(store)
    assert simulated() == real


def simulated() -> list[Conversation | None]:
    with Simulation(PIPELINE) as sim:
        publish(sim, *RECEIVED)
        sim.run()
        sim.expect_dead_letter("anonymizer.AnonymizeText")
        sim.finish()
        return outcome(sim.stored(Archive))


def test_simulated_and_real_runs_end_in_the_same_state() -> None:
    with Store(":memory:") as store:
        asyncio.run(run_on_the_embedded_broker(store))
        real = outcome(store)
    assert simulated() == real
    assert len(real) > 3
    states = {each.conversation_id: each.state for each in real if each is not None}
    assert states == {name: RECEIVED_ONLY if name == STAYS else ARCHIVED for name in RECEIVED}


class CountingStore(Store):
    """A store with a planted fault: it counts the topics of a conversation each time when they come."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.counted: dict[str, int] = {}

    def record_topics(self, conversation_id: str, language: str, topics: list[dict[str, Any]]) -> Conversation:
        self.counted[conversation_id] = self.counted.get(conversation_id, 0) + len(topics)
        return super().record_topics(conversation_id, language, topics)


def test_a_planted_fault_of_the_archive_is_found_within_the_default_runs() -> None:
    expected = []

    @simulate(Deployed(Archive, store=lambda: CountingStore(":memory:")), Anonymizer, Tagger, workers=2, seed=11)
    def counted_once(sim: Simulation) -> None:
        publish(sim, "c0")
        sim.run()
        counted = sim.stored(Archive).counted
        expected.append(len(sim.stored(Archive, "c0").topics))
        if counted != {"c0": expected[0]}:
            raise SimulationFailed(f"topics are counted twice: {counted}")

    with pytest.raises(SimulationFailed, match="topics are counted twice") as caught:
        counted_once()
    (note,) = [note for note in caught.value.__notes__ if note.startswith("The story")]
    assert 5 <= len(note.splitlines()) - 1 <= 15
    assert "!!" in note


def test_a_run_without_faults_takes_the_usual_way() -> None:
    with Simulation(PIPELINE) as sim:
        publish(sim, "c0")
        sim.finish()
        steps = [line.split()[1:3] for line in sim.story.splitlines()]
    assert steps[0][0] == "test"
    assert [who for who, _ in steps[1:]] == ["archive", "anonymizer", "archive", "tagger", "archive"]
