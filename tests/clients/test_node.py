"""amqplib and rabbitmq-client, the two clients of Node: their programs check what they get."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eda_core.testing.live import EmbeddedBrokerThread
from tests.support.services import TEST_TIMEOUT

PROGRAMS = Path(__file__).parent / "programs"
pytestmark = pytest.mark.clients


@contextmanager
def running(name: str, directory: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of Node, and kill it in the end if it has not ended."""
    program = shutil.copy(PROGRAMS / name, directory)  # it looks for its packages beside it
    command = ["node", str(program), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_amqplib(eda_broker: EmbeddedBrokerThread, node_modules: Path) -> None:
    with running("amqplib.mjs", node_modules, eda_broker.url) as process:
        told, error = process.communicate(timeout=TEST_TIMEOUT)
    assert (told, error) == ("done\n", ""), error


def test_rabbitmq_client(eda_broker: EmbeddedBrokerThread, node_modules: Path) -> None:
    with running("rabbitmq-client.mjs", node_modules, eda_broker.url) as process:
        assert process.stdout is not None
        if process.stdout.readline() == "cut\n":
            eda_broker.cut()
        told, error = process.communicate(timeout=TEST_TIMEOUT)
    assert (told, error) == ("done\n", ""), error
