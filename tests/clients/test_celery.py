"""Celery: a worker, and a caller that gets results by rpc. Chords need another backend, so there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eda_core.testing.live import EmbeddedBrokerThread
from tests.support.services import TEST_TIMEOUT, environment

pytestmark = pytest.mark.clients

WORKER = "-m", "celery", "-A", "tests.clients.programs.tasks", "worker", "--pool", "threads", "--concurrency", "2"
#: One task at a time: the broker decides which one is next.
SINGLE = "-m", "celery", "-A", "tests.clients.programs.urgent", "worker", "--pool", "solo", "--prefetch-multiplier", "1"
CALLER = "-m", "tests.clients.programs.calls"


def test_celery(eda_broker: EmbeddedBrokerThread, tmp_path: Path) -> None:
    env = environment(eda_broker.url)
    log = tmp_path / "worker.log"
    with (
        log.open("w") as file,
        subprocess.Popen([sys.executable, *WORKER], env=env, stdout=file, stderr=file) as worker,
    ):
        try:
            with subprocess.Popen(
                [sys.executable, *CALLER], env=env, stdin=-1, stdout=-1, stderr=-1, text=True
            ) as caller:
                assert caller.stdout is not None
                if caller.stdout.readline() == "cut\n":
                    eda_broker.cut()
                told = caller.communicate("it is\n", timeout=TEST_TIMEOUT)
            assert (told, caller.returncode) == (("done\n", ""), 0), told[1] + log.read_text()
            worker.terminate()
            assert worker.wait(TEST_TIMEOUT) == 0, log.read_text()
        finally:
            worker.kill()


def test_tasks_with_a_higher_priority_are_first(eda_broker: EmbeddedBrokerThread, tmp_path: Path) -> None:
    """The tasks are there before the worker is."""
    env = environment(eda_broker.url)
    caller = [sys.executable, "-m", "tests.clients.programs.urgent"]
    with subprocess.Popen(caller, env=env, stdout=-1, stderr=-1, text=True) as calling:
        assert calling.stdout is not None
        assert calling.stdout.readline() == "sent\n"
        log = tmp_path / "worker.log"
        with (
            log.open("w") as file,
            subprocess.Popen([sys.executable, *SINGLE], env=env, stdout=file, stderr=file) as worker,
        ):
            try:
                told = calling.communicate(timeout=TEST_TIMEOUT)
                assert (told, calling.returncode) == (("9 9 5 5 0 0\n", ""), 0), told[1] + log.read_text()
                worker.terminate()
                assert worker.wait(TEST_TIMEOUT) == 0, log.read_text()
            finally:
                worker.kill()
