"""The kit as the author of a transport uses it: ``conformance.cases`` in pytest, and ``conformance.check``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eda_core import LocalError
from eda_core.testing import conformance
from eda_core.testing.conformance import CHECKS
from eda_core.testing.conformance.running.coroutines import subjects_of
from examples.custom_service import Service
from examples.custom_transport import CustomLink
from tests.support.rabbitmq import RabbitNode
from tests.support.services import environment
from tests.support.vhosts import Victim

#: A basic check, and one that kills the broker. (All of them, for each adapter: test_conformance.py.)
FEW = {"events_reach_their_subscribers", "a_killed_broker_loses_nothing"}
OTHERS = {check.name for check in CHECKS} - FEW


def test_a_case_has_the_name_of_its_check() -> None:
    assert [case.__name__ for case in conformance.cases(Service)] == [check.name for check in CHECKS]


def test_checks_that_are_left_out_have_to_exist() -> None:
    assert {case.__name__ for case in conformance.cases(Service, without=OTHERS)} == FEW
    with pytest.raises(LocalError, match="there is no check 'flying'"):
        conformance.cases(Service, without=["flying"])


def test_all_checks_are_run_and_all_failures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    conformance.check(Service, without=OTHERS)
    monkeypatch.setattr("eda_core.testing.conformance.running.runner.TIMEOUT", 1.0)
    monkeypatch.setattr(CustomLink, "ack", lambda *_: None)
    rest = OTHERS - {"prefetch_bounds_what_is_handled_at_once"}
    with pytest.raises(ExceptionGroup, match=r"\d of 3 checks have failed") as caught:
        conformance.check(Service, without=rest)
    notes = [error.__notes__ for error in caught.value.exceptions]
    assert any("prefetch_bounds_what_is_handled_at_once" in note for (note,) in notes)


def test_the_author_may_make_the_subjects() -> None:
    conformance.check(subjects_of(Service), without=OTHERS)


def test_checks_run_on_a_node_of_rabbitmq(rabbit_victim: Victim) -> None:
    conformance.check(Service, broker=rabbit_victim.node, without=OTHERS)


#: What docs/embedding.rst shows.
AUTHORS_TEST = """
import pytest

from eda_core.testing import conformance
from eda_core.testing.live import RabbitVhost
from examples.custom_service import Service


@pytest.mark.parametrize("case", conformance.cases(Service))
def test_the_transport_conforms(case: conformance.Case) -> None:
    case.run()


@pytest.mark.parametrize("case", conformance.cases(Service))
def test_the_transport_conforms_on_rabbitmq(case: conformance.Case, eda_rabbitmq: RabbitVhost) -> None:
    case.run(eda_rabbitmq)
"""


def test_the_page_on_embedding_shows_a_test_that_works(
    tmp_path: Path, rabbitmq: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``rabbitmq`` marks the test, and skips it where there is none."""
    monkeypatch.setenv("EDA_RABBITMQ", str(rabbitmq.server.parent))
    (tmp_path / "test_transport.py").write_text(AUTHORS_TEST, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "eda_pytest", "-k", " or ".join(FEW), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=tmp_path)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
