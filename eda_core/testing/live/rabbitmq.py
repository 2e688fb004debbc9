"""A private RabbitMQ node for tests, that can be killed and started again on the same data.

Nothing of the machine's own RabbitMQ is used but its program files: the node has its own directory, ports, cookie, epmd
and configuration, listens on the loopback only, and leaves no process and no file behind, even when the test run is
killed. Several nodes are several brokers, side by side, or members of one cluster.

The environment variable EDA_RABBITMQ may name the directory of the programs. By default it is what is installed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from eda_core.testing.broker.dead_letters import EXCHANGE

SERVER_DIRECTORIES = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/opt/homebrew/sbin", "/usr/local/sbin")
DLX_PATTERN = r".*\.events|.*\.commands"
DLX_DEFINITION = f'{{"dead-letter-exchange":"{EXCHANGE}"}}'
AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
CONNECTION_START = b"\x00\x0a\x00\x0a"  # class 10, method 10
TAIL_LINES = 120

_used_ports: set[int] = set()


def find_server() -> Path | None:
    """The ``rabbitmq-server`` script to run, or None where RabbitMQ is not installed.

    It is the one in the directory that the environment variable EDA_RABBITMQ names, or else what is installed. The
    wrapper in /usr/sbin is no candidate: it changes to the user ``rabbitmq``, who has no access to our directory.
    """
    chosen = os.environ.get("EDA_RABBITMQ")
    for directory in (chosen,) if chosen else SERVER_DIRECTORIES:
        script = Path(directory, "rabbitmq-server")
        if os.access(script, os.X_OK):
            return script
    return None


@functools.cache
def version_of(server: Path) -> tuple[int, ...]:
    """The version of a ``rabbitmq-server`` script, as numbers."""
    command = [str(server.with_name("rabbitmqctl")), "version"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = re.search(r"^(\d+)\.(\d+)\.(\d+)", done.stdout, re.MULTILINE)
    if found is None:
        raise RabbitNodeError(f"{' '.join(command)} tells no version: {done.stdout}{done.stderr}")
    return tuple(map(int, found.groups()))


def _listens(port: int) -> bool:
    """Whether somebody takes connections at a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on.

    It lies below the range from which Linux takes the source ports of clients. Inside that range, a client reconnecting
    to a dead node could be given the node's port as its own, connect to itself, and keep the node from coming back.
    """
    for _ in range(200):
        port = random.randrange(12_000, 32_000)
        if port in _used_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _used_ports.add(port)
            return port
    raise RuntimeError("no free port on 127.0.0.1 between 12000 and 32000")


class RabbitNodeError(Exception):
    """The node did not start, or a rabbitmqctl command failed. The text holds the end of the log."""


class _Group:
    """A process that leads a process group of its own, and a guard that kills the group should this interpreter die."""

    def __init__(self, command: list[str], env: dict[str, str], output: IO[bytes], directory: Path) -> None:
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True
        )
        # atexit does not run on SIGTERM or SIGKILL. The guard reads a pipe of which only we hold the other end: it sees
        # the end of us.
        script = 'read -r _; kill -KILL "-$1"; rm -rf -- "$2"'
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", script, "guard", str(self.process.pid), str(directory)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._ended = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self, grace: float = 0.0) -> None:
        """Ask the leader to end and wait for ``grace`` seconds (0: do not ask), then kill the group. Idempotent."""
        if self._ended:
            return
        self._ended = True
        # The guard goes first: once our process is reaped, its number may become another's.
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        if grace > 0 and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        self.signal(signal.SIGKILL)
        self.process.wait()


class RabbitNode:
    """One RabbitMQ node. ``start`` and ``kill`` may alternate; ``stop`` ends it and removes its data.

    Attributes:
        server: the ``rabbitmq-server`` script that it runs.
        port: where it listens for AMQP, on 127.0.0.1.
        name: of the node.
        directory: its data, its configuration and its log.
        alarmed: the memory alarm may be in force: it was raised, and not cleared for certain.
        limited: the size of messages may be limited to less than the default.
    """

    def __init__(self, server: Path | None = None, *, management: bool = False, peer: RabbitNode | None = None) -> None:
        """Choose ports, a name and a directory; nothing runs before ``start``.

        Args:
            server: the ``rabbitmq-server`` script; by default that of ``find_server``.
            management: the node has the management plugin, at ``management_url``; it takes 2 s longer to start.
            peer: a node with which this one can form a cluster: it has the same cookie, and uses the other's epmd. The
                peer is started first and stopped last.

        Raises RabbitNodeError where RabbitMQ is not installed.
        """
        found = server or find_server()
        if found is None:
            raise RabbitNodeError("RabbitMQ is not installed")
        own = found.with_name("epmd")  # with a release from Debian
        epmd = str(own) if own.exists() else shutil.which("epmd")
        if epmd is None:
            raise RabbitNodeError("RabbitMQ is not installed: there is no epmd")
        self.server: Path = found
        self._epmd_program = epmd
        self._peer = peer
        self.port: int = free_port()
        self.management_port: int | None = free_port() if management else None
        self.name: str = f"eda{os.getpid()}x{secrets.token_hex(3)}@localhost"
        self.directory: Path = Path(tempfile.mkdtemp(prefix="eda-rabbit-"))
        self.log_file: Path = self.directory / "node.log"
        self.alarmed: bool = False
        self.limited: bool = False
        self._group: _Group | None = None
        self._epmd: _Group | None = None
        self._epmd_port: int = free_port() if peer is None else peer._epmd_port
        self._cookie: str = secrets.token_hex(16) if peer is None else peer._cookie
        self._env = self._environment()
        self._owner = os.getpid()
        atexit.register(self._at_exit)

    def _environment(self) -> dict[str, str]:
        """The environment of all our processes; writes the files that it names."""
        base = self.directory
        for name in ("data", "log", "conf.d"):
            (base / name).mkdir()
        plugins, settings = "[].\n", f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
        if self.management_port is not None:
            plugins = "[rabbitmq_management].\n"
            settings += f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
        (base / "plugins").write_text(plugins)
        (base / "rabbitmq.conf").write_text(settings)
        cookie = base / ".erlang.cookie"  # made here: server and rabbitmqctl must agree from the first moment
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(base),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(base / "data"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_LOGS": "-",  # standard output, so that one file tells everything
            "RABBITMQ_PID_FILE": str(base / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
            # Without these three the machine's own files in /etc/rabbitmq would be read as well.
            "RABBITMQ_CONFIG_FILES": str(base / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "none.config"),
            "RABBITMQ_CONF_ENV_FILE": str(base / "none.conf"),
            # The script then becomes the Erlang machine instead of waiting for it, so that what we signal is the broker
            # and what we reap is all there was.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-noinput {loopback}",
            "RABBITMQ_CTL_ERL_ARGS": loopback,
        }

    @property
    def version(self) -> tuple[int, ...]:
        """The version of the server, as numbers: ``(4, 3, 6)``."""
        return version_of(self.server)

    def configure(self, lines: str) -> None:
        """Add lines to ``rabbitmq.conf``; the node reads it at its next start."""
        with (self.directory / "rabbitmq.conf").open("a") as file:
            file.write(f"{lines}\n")

    @property
    def url(self) -> str:
        """The address of the default vhost."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def management_url(self) -> str:
        """The address of the management API. Raises RabbitNodeError for a node that was made without it."""
        if self.management_port is None:
            raise RabbitNodeError(f"{self.name} has no management plugin")
        return f"http://127.0.0.1:{self.management_port}"

    def vhost_url(self, vhost: str) -> str:
        """The address of a vhost."""
        return self.url + quote(vhost, safe="")

    @property
    def running(self) -> bool:
        """Whether the node's process lives (it may be paused, or still starting)."""
        return self._group is not None and self._group.process.poll() is None

    def start(self, timeout: float = 180.0) -> None:
        """Start the node and wait until it answers an AMQP handshake, ``timeout`` seconds at most. No-op if it runs.

        Raises RabbitNodeError, with the end of the log, if the node dies or does not answer in time.
        """
        if self.running:
            return
        if self._peer is None:
            self.start_epmd(timeout)
        with self.log_file.open("ab") as log:
            if self._group is not None:
                self._group.end()
            self._group = _Group([str(self.server)], self._env, log, self.directory)
        self._await(self._group, self.answers, timeout)
        self._await(self._group, self._manageable, timeout)

    def start_epmd(self, timeout: float = 180.0) -> None:
        """Start the node's epmd, if it does not run. Else RabbitMQ would start one as a daemon that outlives it."""
        if self._epmd is None or self._epmd.process.poll() is not None:
            command = [self._epmd_program, "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            with self.log_file.open("ab") as log:
                self._epmd = _Group(command, self._env, log, self.directory)
            self._await(self._epmd, self._epmd_listens, timeout)

    def _await(self, group: _Group, ready: Callable[[], bool], timeout: float) -> None:
        give_up = time.monotonic() + timeout
        while not ready():
            status = group.process.poll()
            if status is not None or time.monotonic() > give_up:
                reason = f"did not answer in {timeout:g} s" if status is None else f"ended with status {status}"
                group.end()
                raise RabbitNodeError(f"{self.name}: {group.process.args!r} {reason}; log:\n{self.log_tail()}")
            time.sleep(0.05)

    def _epmd_listens(self) -> bool:
        return _listens(self._epmd_port)

    def answers(self) -> bool:
        """Whether a protocol header is answered by Connection.Start; a paused node is given 5 s."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
                link.sendall(AMQP_HEADER)
                answer = b""
                while len(answer) < 11 and (data := link.recv(4096)):  # frame header of 7 octets, class, method
                    answer += data
        except OSError:
            return False
        return answer[7:11] == CONNECTION_START

    def _manageable(self) -> bool:
        """Whether the management plugin listens, where it is wanted; it starts after the AMQP listener."""
        return self.management_port is None or _listens(self.management_port)

    def sync(self) -> None:
        """Have everything that was declared on the disk (0.6 s).

        RabbitMQ with Mnesia answers DeclareOk and BindOk before: killed within the next second it may come back without
        the queue, or with the queue and without its binding, and drop messages that it confirms. To be called before
        ``kill`` where that is not what the test is about. RabbitMQ without Mnesia writes first and answers then.
        """
        self.eval(
            "case lists:keymember(mnesia, 1, application:which_applications()) of "
            "true -> ok = mnesia:sync_log(); false -> ok end."
        )

    def kill(self) -> None:
        """SIGKILL the node, as a power cut would. Its data stay; ``start`` takes them up again on the same port."""
        if self._group is not None:
            self._group.end()
            self._group = None
            self.alarmed = self.limited = False  # the watermark is not among what a node keeps, nor is the limit

    def shut_down(self, grace: float = 60.0) -> None:
        """Stop the node in good order, or kill it after ``grace`` seconds. Its data stay; ``start`` takes them up."""
        if self._group is not None:
            self._group.end(grace)
            self._group = None

    def pause(self) -> None:
        """Freeze the node: its connections stay open and nothing is answered. It is frozen when this returns.

        Raises RabbitNodeError if the node does not run; so does ``resume``.
        """
        group = self._running_group()
        group.signal(signal.SIGSTOP)
        # On a busy machine a thread may go on for a while, and confirm a message that should never be confirmed.
        stopping = [pid for pid in self.process_ids() if _group_of(pid) == group.process.pid]
        while any(map(_runs, stopping)):
            time.sleep(0.001)

    def resume(self) -> None:
        """Let a frozen node go on."""
        self._running_group().signal(signal.SIGCONT)

    def _running_group(self) -> _Group:
        if self._group is None:
            raise RabbitNodeError(f"{self.name} is not running")
        return self._group

    def stop(self, grace: float = 20.0) -> None:
        """Stop the node (SIGTERM, SIGKILL after ``grace`` seconds) and its epmd, and remove its data. Idempotent."""
        if self._group is not None:
            self._group.signal(signal.SIGCONT)  # a frozen node could not obey
            self._group.end(grace)
            self._group = None
        if self._epmd is not None:
            self._epmd.end()
            self._epmd = None
        self._sweep()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self._at_exit)

    def _sweep(self, timeout: float = 5.0) -> None:
        """See to the end of the Erlang machine's helpers; kill those that are still there after 2 s.

        They follow it on their own, but lead process groups of their own, so ending the broker's does not reach them.
        """
        begin = time.monotonic()
        while (left := self.process_ids()) and (spent := time.monotonic() - begin) < timeout:
            for pid in left if spent > 2 else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a child that a test forked
            self.stop(grace=0.0)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop(grace=0.0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the node's log."""
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def ctl(self, *args: str, timeout: float = 180.0) -> str:
        """Run rabbitmqctl on this node and return what it prints. About a second each; ``timeout`` in seconds.

        Raises RabbitNodeError with the output if the command fails.
        """
        command = [str(self.server.with_name("rabbitmqctl")), "-q", "-n", self.name, *args]
        return self._run(command, f"rabbitmqctl {' '.join(args)}", timeout)

    def write_ctl(self, path: Path) -> None:
        """Write a program that is rabbitmqctl for this node, for those who know its name only."""
        settings = [f"{name}={value}" for name, value in self._env.items()]
        command = ["env", "-i", *settings, str(self.server.with_name("rabbitmqctl")), "-q", "-n", self.name]
        path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', "utf-8")
        path.chmod(0o755)

    def _run(self, command: list[str], what: str, timeout: float) -> str:
        try:
            done = subprocess.run(
                command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RabbitNodeError(f"{what}: no answer in {timeout:g} s") from error
        if done.returncode != 0:
            raise RabbitNodeError(f"{what}: status {done.returncode}\n{done.stdout}")
        return done.stdout.strip()

    def shell(self, line: str, timeout: float = 180.0) -> str:
        """Run a line in a shell on this node's host, where ``rabbitmqctl`` is for this node. Returns what it prints.

        Raises RabbitNodeError with the output if the line fails.
        """
        ctl = f'rabbitmqctl() {{ {self.server.with_name("rabbitmqctl")} -q -n {self.name} "$@"; }}'
        command = ["bash", "-o", "pipefail", "-c", f"{ctl}; {line}"]
        return self._run(command, line, timeout)

    def eval(self, expression: str) -> str:
        """Evaluate an Erlang expression on the node; raises RabbitNodeError if it fails there."""
        return self.ctl("eval", expression)

    def change_vhosts(self, add: Sequence[str] = (), delete: Sequence[str] = (), *, dead_letters: bool = False) -> None:
        """Create vhosts in which ``guest`` has all rights, and delete others, in one rabbitmqctl (about 0.6 s).

        Connections to a deleted vhost are closed by the broker.
        With ``dead_letters`` the new ones have the policy of ``set_dlx_policy``.
        RabbitMQ 3.10 can fail with ``no_such_vhost`` on the vhost it is just deleting: what counts is that it is gone.
        """
        policies = (
            f', [ok = rabbit_policy:parse_set(V, <<"DLX">>, {_binary(DLX_PATTERN)}, {_binary(DLX_DEFINITION)}, '
            f'<<"0">>, <<"queues">>, <<"eda">>) || V <- {_binaries(add)}]'
        )
        self.eval(
            '[begin catch rabbit_vhost:delete(V, <<"eda">>), false = rabbit_vhost:exists(V) end '
            f"|| V <- {_binaries(delete)}], "
            '[begin ok = rabbit_vhost:add(V, <<"eda">>), ok = rabbit_auth_backend_internal:set_permissions('
            f'<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"eda">>) end || V <- {_binaries(add)}]'
            f"{policies if dead_letters else ''}."
        )

    def set_dlx_policy(self, vhost: str = "/") -> None:
        """Set the dead-letter policy that an operator of the real bus sets.

        The exchange ``am-dlx`` and a queue bound to it are the caller's to declare, as they are the operator's.
        """
        self.ctl("set_policy", "-p", vhost, "DLX", DLX_PATTERN, DLX_DEFINITION, "--apply-to", "queues")

    def set_memory_alarm(self, on: bool) -> None:
        """Raise or clear the memory alarm, on which the broker stops to read from connections that publish.

        When this returns, the alarm is in force or is over: what a client publishes from then on waits, or does not.
        RabbitMQ's ``vm_memory_monitor`` tells the process ``rabbit_alarm`` of the change and does not wait for it. So
        this asks ``rabbit_alarm`` afterwards, which answers when it has told all connections. ``rabbitmqctl
        set_vm_memory_high_watermark`` does not ask, and may return earlier.
        """
        self.alarmed = True
        watermark, wanted = ("0", "[{{resource_limit, memory, _}, _}]") if on else ("0.6", "[]")
        self.eval(
            f"ok = vm_memory_monitor:set_vm_memory_high_watermark({watermark}), {wanted} = rabbit_alarm:get_alarms()."
        )
        self.alarmed = on

    def limit_messages(self, size: int | None) -> None:
        """Set the size, in bytes, of the largest message that new channels take; ``None`` for the default.

        RabbitMQ 4 reads it from a persistent term, earlier ones from the environment of the application.
        """
        self.limited = True
        most = 134_217_728 if size is None else size
        self.eval(
            f"application:set_env(rabbit, max_message_size, {most}), persistent_term:put(max_message_size, {most})."
        )
        self.limited = size is not None

    def process_ids(self) -> list[int]:
        """All processes of this node, whatever their group: those that live in its HOME (Linux; elsewhere nothing)."""
        mark = f"HOME={self.directory}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found


def _group_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _runs(pid: int) -> bool:
    """Whether a thread of the process is not stopped."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            if thread.read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return True
    return False


def _binary(text: str) -> str:
    """An Erlang binary."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}">>'


def _binaries(names: Sequence[str]) -> str:
    """An Erlang list of binaries."""
    return f"[{', '.join(map(_binary, names))}]"
