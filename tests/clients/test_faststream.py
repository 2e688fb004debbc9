"""FastStream, with its requests by direct reply-to."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eda_core.testing.live import EmbeddedBrokerThread
from tests.support.services import TEST_TIMEOUT, environment

pytestmark = pytest.mark.clients

DONE = """\
by hand
by hand again
dead letter 0 of jobs
dead letter 3 of jobs
result 1
result 2
result 4
result 5
well!
so!
"""


def test_faststream(eda_broker: EmbeddedBrokerThread) -> None:
    command = [sys.executable, "-m", "tests.clients.programs.jobs", eda_broker.url]
    done = subprocess.run(command, env=environment(), timeout=TEST_TIMEOUT, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == (DONE, "", 0), done.stderr
