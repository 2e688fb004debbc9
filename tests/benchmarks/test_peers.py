"""The comparison with other clients: its own programs work, and its page says what was measured."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.peers import page
from benchmarks.peers.__main__ import available
from benchmarks.peers.cases import CLAIMS, TOPICS, Claim, cases
from benchmarks.peers.environments import CLIENTS, c_client
from benchmarks.peers.measuring import ANSWERS, Bench, MeasuringError, programs
from benchmarks.peers.results import Results
from eda_core.testing.live import EmbeddedBrokerThread

#: A compiler that finds no librabbitmq.
FAILING = "#!/bin/sh\necho 'client.c:8: fatal error: amqp.h' >&2\necho 'compilation terminated.' >&2\nexit 1\n"
NATIVE, PIKA = ("relay", "native", ""), ("relay", "pika", "")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with EmbeddedBrokerThread() as broker, Bench(broker.url) as bench:
        yield bench


def recorded() -> Results:
    """Three rounds of two relays, and a start."""
    return Results(
        {"Date": "2026-11-30", "Python": "CPython 3.11.7"},
        {
            PIKA: [{"rate": 1000.0, "cpu": 40.0}, {"rate": 2000.0, "cpu": 60.0}, {"rate": 1500.0, "cpu": 50.0}],
            NATIVE: [{"rate": 3000.0, "cpu": 20.0}, {"rate": 2500.0, "cpu": 45.0}, {"rate": 3500.0, "cpu": 30.0}],
            ("start", "native", ""): [{"ms": 123.4}],
        },
        {"C": "there is no C compiler"},
    )


@pytest.mark.parametrize("client", ["eda_pika", "native", "eda_aio"])
def test_our_programs_relay(bench: Bench, client: str) -> None:
    task = bench.task("relay", subscriptions=3)
    queue = f"{task.service}.events"
    bench.fill(task, 20)
    assert (bench.ready(queue), bench.ready(ANSWERS)) == (20, 0)
    with programs(client, task) as running:
        bench.until(ANSWERS, lambda there: there == 20, running)
        assert running[0].cpu() > 0
        assert running[0].resident() > 1
        assert bench.ready(queue) == 0


@pytest.mark.parametrize("client", ["eda_pika", "native", "eda_aio", "kombu many", "kombu one"])
def test_our_programs_publish(bench: Bench, client: str) -> None:
    assert bench.publish(client, count=30)["rate"] > 0
    assert bench.ready(ANSWERS) == 30


def test_our_programs_call(bench: Bench) -> None:
    numbers = bench.call("native", count=30, flight=5)
    assert 0 < numbers["p50"] <= numbers["p99"]
    assert numbers["rate"] > 0


def test_a_start_is_measured(bench: Bench) -> None:
    assert bench.start("native")["ms"] > 1


def test_memory_is_measured_while_messages_wait(bench: Bench) -> None:
    assert bench.memory("native", count=10, backlog=300)["MB"] > 1
    assert bench.ready(ANSWERS) == 0


def test_a_program_that_ends_is_told_with_what_it_wrote(bench: Bench) -> None:
    task = dataclasses.replace(bench.task("consume"), url="http://nowhere")
    with (
        pytest.raises(MeasuringError, match=r"native ended with status 1: (?s:.*)http"),
        programs("native", task) as all,
    ):
        bench.until(ANSWERS, lambda there: there < 0, all)


@pytest.mark.parametrize("compiler", ["", FAILING])
def test_a_client_that_cannot_be_compiled_is_left_out_with_a_line(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if compiler:
        (tmp_path / "cc").write_text(compiler, "utf-8")
        (tmp_path / "cc").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    c_client.cache_clear()
    left, left_out = available([case for case in cases() if case.topic == "relay" and case.client in ("C", "native")])
    assert [case.client for case in left] == ["native"]
    why = "cc failed: client.c:8: fatal error: amqp.h (" if compiler else "there is no C compiler: "
    assert left_out["C"].startswith(why)
    assert "librabbitmq-dev" in left_out["C"]
    assert capsys.readouterr().out == f"C is left out: {left_out['C']}\n"


def test_results_are_read_as_they_were_written() -> None:
    assert Results.load(recorded().dump()) == recorded()
    assert json.loads(recorded().dump())["left_out"] == {"C": "there is no C compiler"}


def test_a_ratio_is_that_of_the_medians_with_those_of_the_rounds() -> None:
    assert recorded().ratio(Claim("cpu", NATIVE, PIKA)) == (0.6, 0.5, 0.75)
    assert recorded().ratio(Claim("cpu", NATIVE, ("relay", "C", ""))) is None


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    page.write(recorded(), tmp_path / "performance.rst")
    text = (tmp_path / "performance.rst").read_text("utf-8")
    cells = [line[4:].strip("- ") for line in text.splitlines() if line.startswith(("   * -", "     -"))]
    assert cells[3:6] == ["relay, processor time: eda_aio, native / pika by hand", "0.60 (0.50 to 0.75)", "≤ 0.8"]
    row = cells.index("pika by hand")
    assert cells[row : row + 3] == ["pika by hand", "1,500 (1,000 to 2,000)", "50.0 (40.0 to 60.0)"]
    assert cells[-2:] == ["eda_aio, native", "123"]
    assert ":Left out: C on librabbitmq. there is no C compiler" in text
    assert ":Python: CPython 3.11.7" in text
    assert "\nRelay\n=====\n" in text
    assert "\nPublish\n" not in text, "it was not measured"
    (image,) = re.findall(r"^\.\. image:: (.+)$", text, re.MULTILINE)
    picture = ElementTree.fromstring((tmp_path / image).read_text("utf-8"))
    drawn = [each.text for each in picture if each.tag.endswith("text")]
    assert drawn[1:] == ["pika by hand", "50", "eda_aio, native", "30"]
    widths = [float(each.attrib["width"]) for each in picture if each.tag.endswith("rect")][1:]
    assert widths[1] / widths[0] == pytest.approx(0.6, abs=0.001)


def test_the_page_of_the_documents_is_what_the_recorded_results_say() -> None:
    """If this fails: python -m benchmarks.peers --load benchmarks/peers/results.json --page."""
    results = Results.load(page.RECORD.read_text("utf-8"))
    assert page.PAGE.read_text("utf-8") == page.render(results)
    assert page.PAGE.with_name(page.CHART).read_text("utf-8") == page.chart(results)
    assert {topic for topic, _, _ in results.samples} == {topic.name for topic in TOPICS}


def test_what_is_claimed_is_measured() -> None:
    measured = {case.key for case in cases()}
    assert {key for claim in CLAIMS for key in (claim.one, claim.other)} <= measured
    assert {client for _, client, _ in measured} == set(CLIENTS)
    assert {topic for topic, _, _ in measured} == {topic.name for topic in TOPICS}
