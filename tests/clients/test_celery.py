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
