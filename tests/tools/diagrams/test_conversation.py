"""What caused what in a conversation, known or inferred, for any messages; and that no name changes a drawing."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eda_tools.diagrams import mermaid
from eda_tools.diagrams.conversation import Step, build, walk
from eda_tools.messages.delivery import Delivery, fields
from eda_tools.trace import as_json, tree
from tests.tools.samples import command, event, message, result

# A conversation of services that write causation ids …
KNOWN = (
    event("Received", 0.0, {"n": 1}, app_id="inbox", message_id="i-1"),
    command("worker.Do", 0.1, reply_to="desk.DoReturn", app_id="desk", message_id="d-1", cause="i-1"),
    result("desk.DoReturn", 0.2, app_id="worker", message_id="w-1", cause="d-1"),
    event("Done", 0.3, app_id="desk", message_id="d-2", cause="w-1"),
    event("Counted", 0.4, app_id="counter", message_id="c-1", cause="i-1"),
)
# … and the same one of services that do not.
INFERRED = (
    event("Received", 0.0, {"n": 1}),
    command("worker.Do", 0.1, reply_to="desk.DoReturn"),
    result("desk.DoReturn", 0.2),
    event("Done", 0.3),
)


def built(*messages: Delivery) -> list[Step]:
    return build(map(fields, messages))


def edges(steps: list[Step]) -> list[tuple[str, str, str]]:
    return [(step.cause.name if step.cause else "", step.name, step.edge) for step in steps]


def told(steps: list[Step]) -> str:
    """The tree as plain text."""
    from rich.console import Console

    console = Console(width=1000, color_system=None, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(tree(steps, console.width))
    return capture.get()


# What caused what


@given(st.randoms(use_true_random=False))
def test_known_causes_make_the_same_tree_in_any_order(source: random.Random) -> None:
    shuffled = list(KNOWN)
    source.shuffle(shuffled)
    steps = built(*shuffled)
    assert edges(steps) == [
        ("", "Received", ""),
        ("Received", "worker.Do", "causation"),
        ("worker.Do", "desk.DoReturn", "causation"),
        ("desk.DoReturn", "Done", "causation"),
        ("Received", "Counted", "causation"),
    ]
    assert [step.name for step in walk(steps)] == ["Received", "worker.Do", "desk.DoReturn", "Done", "Counted"]
    assert [step.level for step in steps] == [0, 1, 2, 3, 1]
    assert [step.elapsed for step in steps] == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_causes_are_known_even_if_they_were_seen_later() -> None:
    late = message("events", "Received", 0.5, message_id="i-1")
    assert edges(built(KNOWN[1], late)) == [("Received", "worker.Do", "causation"), ("", "Received", "")]


def test_without_causation_ids_they_are_inferred_and_services_too() -> None:
    steps = built(*INFERRED)
    assert edges(steps) == [
        ("", "Received", ""),
        ("Received", "worker.Do", "time"),
        ("worker.Do", "desk.DoReturn", "correlation"),
        ("desk.DoReturn", "Done", "time"),
    ]
    assert [(step.service, step.service_inferred) for step in steps] == [
        ("", False),
        ("desk", True),
        ("worker", True),
        ("desk", True),
    ]
    assert [step.inferred for step in steps] == [False, True, True, True]


def test_results_find_their_own_command_among_several() -> None:
    steps = built(
        command("a.Do", 0, reply_to="desk.R", correlation="1"),
        command("b.Do", 1, reply_to="desk.R", correlation="2"),
        result("desk.R", 2, correlation="1"),
        result("desk.R", 3, correlation="2"),
        result("other.R", 4, correlation="1"),
    )
    assert edges(steps)[2:4] == [("a.Do", "desk.R", "correlation"), ("b.Do", "desk.R", "correlation")]
    assert steps[4].edge == "time"  # of another's command, which was not seen


def test_a_constant_correlation_id_means_the_latest_command_before() -> None:
    steps = built(
        *(command("a.Do", at, reply_to="desk.R", correlation="same") for at in (0, 2)),
        *(result("desk.R", at, correlation="same") for at in (1, 3)),
    )
    assert [(step.number, step.cause.number) for step in steps if step.cause and step.kind == "result"] == [
        (2, 1),
        (4, 3),
    ]


def test_by_time_a_service_acts_on_what_it_was_given_not_on_its_own_events_nor_on_others_commands() -> None:
    steps = built(
        event("Received", 0, app_id="inbox"),
        command("other.Do", 1, reply_to="third.R", app_id="third"),
        event("Stored", 2, app_id="desk"),
        event("Filed", 3, app_id="desk"),
    )
    assert edges(steps)[3] == ("Received", "Filed", "time")


def test_a_cause_that_was_not_seen_is_told() -> None:
    (step,) = built(event("Done", 0, cause="elsewhere-1"))
    assert (step.cause, step.unseen, step.edge) == (None, "elsewhere-1", "")
    assert "its cause elsewhere-1 was not seen" in told([step])
    assert as_json(step)["unseen_cause"] == "elsewhere-1"
    assert "(cause not seen)" in "\n".join(mermaid.sequence([step])).replace("#", "")


def test_a_message_seen_twice_is_told() -> None:
    steps = built(KNOWN[0], event("Received", 1, message_id="i-1"))
    assert steps[1].repeats is steps[0]
    assert "(again: same id as 1)" in told(steps)


ids = st.sampled_from(["", "1", "2", "3", "4", "5", "6"])
any_messages = st.lists(
    st.builds(
        lambda make, name, at, message_id, cause, app: make(name, at, message_id=message_id, cause=cause, app_id=app),
        st.sampled_from(
            [
                event,
                lambda *args, **keys: command(*args, reply_to="b.R", **keys),
                lambda *args, **keys: result(*args, **keys),
            ]
        ),
        st.sampled_from(["a.X", "b.R", "c", "[red]x[/]", "\x1b[2Jend;%%"]),
        st.integers(0, 5),
        ids,
        ids,
        st.sampled_from(["a", "b", "", "<b>"]),
    ),
    min_size=1,
    max_size=12,
)


@given(any_messages)
def test_whatever_they_say_each_message_stands_once_in_a_forest(messages: list[Delivery]) -> None:
    steps = built(*messages)
    assert sorted(step.number for step in walk(steps)) == list(range(1, len(messages) + 1))
    for step in steps:
        assert step.level == (0 if step.cause is None else step.cause.level + 1)
        assert (step.cause is None) == (not step.edge)
        assert not step.inferred or step.cause is None or not step.fields["headers"].get("causation_id")
    assert told(steps).count("\n") == len(messages) + 1
    assert all(json.dumps(as_json(step), default=str) for step in steps)
    assert len(list(mermaid.sequence(steps))) > len(messages)


def test_long_chains_are_drawn_in_time_and_their_depth_is_told() -> None:
    chain = [event(f"E{n}", n, message_id=str(n), cause=str(n - 1), app_id="a") for n in range(3000)]
    steps = built(*reversed(chain))
    assert steps[-1].level == 2999
    assert "(level 2999) event E2999" in told(steps)
    circle = [event(f"E{n}", n, message_id=str(n), cause=str((n - 1) % 3000)) for n in range(3000)]
    (first,) = (step for step in built(*circle) if step.cause is None)
    assert first.unseen == "", "its cause is there, only not above it"


# Names from the network

HOSTILE = "end;\n%%{init: {}}%%<img src=x onerror=alert(1)>#35;\x1b[31m[bold]x[/bold]"


def test_the_mark_of_what_is_inferred_outlives_any_name() -> None:
    first, *more = (event("\x1b[" * 40 + "end" * 20 + str(n), n) for n in range(3))
    *_, last = mermaid.sequence(built(first, *more))
    assert last.endswith("#8230; (after 2, inferred)")


def test_names_cannot_steer_mermaid_a_terminal_or_markup() -> None:
    steps = built(
        event(HOSTILE, 0, {"x": HOSTILE}, app_id=HOSTILE, conversation=HOSTILE), event("Next", 1, app_id="end")
    )
    text = told(steps)
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text
    lines = list(mermaid.sequence(steps))
    assert len(lines) == 6
    for line in lines[1:]:
        label = re.sub(r"#\d+;", "", line.partition(" as " if " as " in line else ": ")[2])
        assert not re.search(r"[;%<>{}\[\]#:\"\n\x1b]|\bend\b", label), label
    assert "participant p3 as #101;nd" in lines[3] or "participant p2 as #101;nd" in lines[2]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
headers = st.dictionaries(st.sampled_from(["status", "causation_id", "origin_exchange", "x-death", "x"]), anything)


@given(st.lists(st.tuples(st.sampled_from(["events", "commands", "", "x"]), headers, st.binary()), min_size=1))
def test_headers_may_hold_anything(messages: list[tuple[str, dict[str, Any], bytes]]) -> None:
    deliveries = [event("a.X", at) for at in range(len(messages))]
    for delivery, (exchange, more, body) in zip(deliveries, messages, strict=True):
        delivery.exchange, delivery.body = exchange, body
        delivery.headers.update(more)
    steps = built(*deliveries)
    assert told(steps).count("\n") == len(messages) + 1
    assert len(list(mermaid.sequence(steps))) > len(messages)
