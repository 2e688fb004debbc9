"""The command ``eda broker``."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pika
import pika.exceptions
import pytest

from eda_tools import broker as tool
from eda_tools import eda

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def command(
    *arguments: str, module: str = "eda_tools.broker", before: Sequence[str] = (), shell: str = ""
) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")])}
    with (
        subprocess.Popen(
            ["sh", "-c", f'{shell} exec "$@"', "sh", sys.executable, "-m", module, *before, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command(number: signal.Signals) -> None:
    with command("--port", "0", "--user", "me:a:b") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on amqp://127.0.0.1:")
        assert line.endswith("/\n")
        url = line.split()[-1]
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            pika.BlockingConnection(pika.URLParameters(url))
        connection = pika.BlockingConnection(pika.URLParameters(url.replace("//", "//me:a%3Ab@")))
        process.send_signal(number)
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="CONNECTION_FORCED - broker shutdown"):
            connection.process_data_events(time_limit=10)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_port_in_use_is_status_1_and_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with command("--port", str(port)) as process:
            out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--port", "x"], ["--port", "65536"], ["--user", "nobody"], ["more"]])
def test_usage_errors_are_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_eda_broker_is_the_same_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        eda.main(["broker", "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: eda broker [-h] [--host HOST] ")
    with command("--port", "0", module="eda_tools", before=("broker",)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on amqp://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_help_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.main(["--help"])
    assert caught.value.code == 0
    assert "In production use RabbitMQ" in " ".join(capsys.readouterr().out.split())


def test_the_command_has_as_many_connections_as_the_system_allows() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 200:
        pytest.skip("this system allows fewer than 200 open files (ulimit -Hn)")
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(command("--port", "0", shell="ulimit -Sn 40;"))
        assert process.stdout is not None
        port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
        for _ in range(60):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            client.sendall(b"AMQP\x00\x00\x09\x01")
            assert client.recv(1) == b"\x01"


def test_the_command_has_virtual_hosts_and_releases() -> None:
    with command("--port", "0", "--vhost", "shop", "--rabbitmq", "3.10") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1].replace("//", "//guest:guest@")
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="vhost / not found"):
            pika.BlockingConnection(pika.URLParameters(url))
        pika.BlockingConnection(pika.URLParameters(f"{url}shop")).close()
