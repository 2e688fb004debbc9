"""The archive's store and workflow: whatever comes twice or late, each conversation ends archived, unchanged."""

import multiprocessing
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.conversations.anonymize import anonymize
from examples.conversations.store import ANONYMIZED, ARCHIVED, FAILED, RECEIVED, Conversation, Store
from examples.conversations.tagging import tag
from examples.conversations.workflow import ANONYMIZE, TAG, Next, NextCommand, NextEvent, Nothing, Workflow

TOPICS = [{"name": "billing", "score": 1.0}]
RECEIVED_MESSAGE = {"name": "call.txt", "text": "Ann Lee: the bill, and the invoice"}
ANONYMIZED_MESSAGE = {"text": "[PERSON_1]: the bill, and the invoice", "counts": {"PERSON": 1}}
TAGGED_MESSAGE = {"language": "en", "topics": TOPICS}
FINAL = Conversation("c", "call.txt", ANONYMIZED_MESSAGE["text"], {"PERSON": 1}, "en", TOPICS)  # type: ignore[arg-type]

TO_ANONYMIZE = NextCommand("anonymizer", ANONYMIZE, {"text": RECEIVED_MESSAGE["text"]})
TO_TAG = NextCommand("tagger", TAG, {"text": ANONYMIZED_MESSAGE["text"]})
DONE = NextEvent(
    "ConversationArchived", {"name": "call.txt", "language": "en", "topics": TOPICS, "counts": {"PERSON": 1}}
)
ORDER = [RECEIVED, ANONYMIZED, FAILED, ARCHIVED]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store(":memory:") as opened:
        yield opened


def step(workflow: Workflow, kind: str) -> Next:
    if kind == "received":
        return workflow.received("c", RECEIVED_MESSAGE)
    if kind == "anonymized":
        return workflow.anonymized("c", ANONYMIZED_MESSAGE)
    if kind == "tagged":
        return workflow.tagged("c", TAGGED_MESSAGE)
    return workflow.failed("c", kind, {"reason": "out of ink"})


def test_in_order(store: Store) -> None:
    workflow = Workflow(store)
    assert store.get("c") is None
    states = []
    for kind, expected in (("received", TO_ANONYMIZE), ("anonymized", TO_TAG), ("tagged", DONE)):
        assert step(workflow, kind) == expected
        known = store.get("c")
        assert known is not None
        states.append(known.state)
    assert states == [RECEIVED, ANONYMIZED, ARCHIVED]
    assert store.get("c") == FINAL


@given(st.permutations(["received", "anonymized", "tagged"] * 3), st.integers(3, 9))
def test_any_interleaving_with_duplicates_ends_in_the_same_state(kinds: list[str], length: int) -> None:
    # The first messages in any order, cut anywhere, then those that have not come at all.
    some = kinds[:length]
    some += [kind for kind in ("received", "anonymized", "tagged") if kind not in some]
    with Store(":memory:") as store:
        workflow, reached = Workflow(store), 0
        for kind in some:
            step(workflow, kind)
            known = store.get("c")
            assert known is not None
            assert ORDER.index(known.state) >= reached, "it never goes back"
            reached = ORDER.index(known.state)
        assert store.get("c") == FINAL


@given(st.lists(st.sampled_from(["received", "anonymized", "tagged", ANONYMIZE, TAG])))
def test_once_archived_every_message_asks_for_the_same_again(kinds: list[str]) -> None:
    with Store(":memory:") as store:
        workflow = Workflow(store)
        expected = {kind: step(workflow, kind) for kind in ("received", "anonymized", "tagged")}
        for kind in kinds:
            again = step(workflow, kind)
            if kind in expected:
                assert again == expected[kind]
            else:
                assert isinstance(again, Nothing), "an error that comes after success changes nothing"
            assert store.get("c") == FINAL


@given(st.data())
def test_over_a_bus_that_repeats_loses_and_reorders(data: st.DataObject) -> None:
    """Handlers that fail lose what they sent; messages come again, also long after; services answer each command they
    get.

    A message is gone from the bus only once a handler has succeeded on it, and then its successors are on the bus.
    """
    with Store(":memory:") as store:
        workflow = Workflow(store)
        bus: list[tuple[str, dict[str, Any]]] = [("received", RECEIVED_MESSAGE)]
        handled: list[tuple[str, dict[str, Any]]] = []
        archived = 0
        faults = 30
        while bus:
            index = data.draw(st.integers(0, len(bus) - 1)) if len(bus) > 1 else 0
            kind, payload = bus[index]
            outcome = _answer(workflow, kind, payload)
            fault = data.draw(st.sampled_from(["none", "lost", "repeated", "late"])) if faults else "none"
            faults -= bool(faults)
            if fault == "lost":
                continue  # the worker died after its transaction: what it sent is lost, the message comes again
            if fault != "repeated":
                del bus[index]
            if fault == "late" and handled:
                bus.append(handled[-1])
            handled.append((kind, payload))
            if isinstance(outcome, NextEvent):
                assert outcome == DONE
                archived += 1
            elif isinstance(outcome, NextCommand):
                bus.append((outcome.command, outcome.payload))
            elif isinstance(outcome, tuple):
                bus.append(outcome)
        assert archived >= 1
        assert store.get("c") == FINAL


def _answer(workflow: Workflow, kind: str, payload: dict[str, Any]) -> Next | tuple[str, dict[str, Any]]:
    if kind == ANONYMIZE:
        anonymized = anonymize(payload["text"])
        return "anonymized", {"text": anonymized.text, "counts": anonymized.counts}
    if kind == TAG:
        assert tag(payload["text"]).topics, "the text is the anonymized one"
        return "tagged", TAGGED_MESSAGE
    take = {"received": workflow.received, "anonymized": workflow.anonymized, "tagged": workflow.tagged}[kind]
    return take("c", payload)


def test_what_is_archived_stays(store: Store) -> None:
    workflow = Workflow(store)
    for kind in ("received", "anonymized", "tagged"):
        step(workflow, kind)
    workflow.received("c", {"name": "other.txt", "text": "other"})
    assert workflow.anonymized("c", {"text": "other", "counts": {}}) == TO_TAG
    assert workflow.tagged("c", {"language": "fr", "topics": []}) == DONE
    assert store.get("c") == FINAL


def test_an_error_ends_the_conversation_and_says_so_again(store: Store) -> None:
    workflow = Workflow(store)
    step(workflow, "received")
    expected = NextEvent("ConversationFailed", {"name": "call.txt", "step": ANONYMIZE, "reason": "out of ink"})
    assert step(workflow, ANONYMIZE) == expected
    assert workflow.failed("c", ANONYMIZE, {"reason": "another one"}) == expected
    assert workflow.received("c", RECEIVED_MESSAGE) == TO_ANONYMIZE
    known = store.get("c")
    assert known is not None
    assert known.state == FAILED


@pytest.mark.parametrize("payload", [None, {}, [], {"reason": None}, "text"])
def test_an_error_without_reason(store: Store, payload: object) -> None:
    outcome = Workflow(store).failed("c", TAG, payload)
    assert isinstance(outcome, NextEvent)
    assert outcome.payload["reason"] == "no reason given"


def test_topics_before_the_text_are_no_archive(store: Store) -> None:
    workflow = Workflow(store)
    step(workflow, "received")
    assert isinstance(step(workflow, "tagged"), Nothing)
    assert step(workflow, "anonymized") == TO_TAG
    assert step(workflow, "tagged") == DONE


@pytest.mark.parametrize("payload", [None, 1, "text", [], {}, {"name": "x"}, {"name": 1, "text": "x"}, {"text": None}])
def test_wrong_payloads_are_refused_and_leave_no_trace(store: Store, payload: object) -> None:
    workflow = Workflow(store)
    for method in (workflow.received, workflow.anonymized, workflow.tagged):
        with pytest.raises(ValueError, match="the payload has no field"):
            method("c", payload)
    assert store.get("c") is None


def test_the_original_text_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with Store(path) as store:
        for kind in ("received", "anonymized", "tagged"):
            step(Workflow(store), kind)
    assert b"Ann Lee" not in path.read_bytes()
    assert b"[PERSON_1]" in path.read_bytes()


def test_correlation_is_the_same_each_time() -> None:
    assert TO_TAG.correlation_id("c") == TO_TAG.correlation_id("c") != TO_ANONYMIZE.correlation_id("c")


def test_state_survives(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with Store(path) as store:
        step(Workflow(store), "received")
        step(Workflow(store), "anonymized")
    with Store(path) as store:
        assert step(Workflow(store), "tagged") == DONE


def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Store(path)


def _work(path: str, worker: int, count: int) -> None:
    with Store(path) as store:
        for number in range(count):
            conversation_id = str((number * 7 + worker) % count)
            store.record_topics(conversation_id, str(worker), [{"name": str(worker), "score": 1.0}])
            store.record_received(conversation_id, f"file {worker}")
            store.record_anonymized(conversation_id, f"text {worker}", {"PERSON": worker})


def test_several_workers_share_the_file(tmp_path: Path) -> None:
    path, count = str(tmp_path / "state"), 30
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(path, worker, count)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * len(workers)
    with Store(path) as store:
        states: Counter[str] = Counter()
        for number in range(count):
            known = store.get(str(number))
            assert known is not None
            states[known.state] += 1
            assert known.topics is not None
            assert known.counts is not None
            assert known.topics[0]["name"] == known.language, "one worker's fact, not parts of two"
            assert known.anonymized == f"text {known.counts['PERSON']}"
    assert states == {ARCHIVED: count}
