"""The other clients: environments with their libraries, and the C client. All are made once, and kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from benchmarks.peers.programs.work import Task

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
C_CLIENT = "C"

#: What pip installs for the environments of the other clients.
REQUIREMENTS = {
    "pika": ("pika", "cbor2"),
    "aio-pika": ("aio-pika", "cbor2"),
    "FastStream": ("faststream[rabbit]", "cbor2"),
    "eventail": ("eventail[synchronous]==2.3.6", "cbor2"),
}
#: The libraries whose versions are told.
LIBRARIES = ("pika", "aio-pika", "aiormq", "kombu", "faststream", "eventail", "cbor2")


class NotAvailable(Exception):
    """A client cannot be measured here. The text says why."""


@dataclass(frozen=True)
class Client:
    """One that is measured.

    Attributes:
        title: what tables call it.
        module: its program.
        environment: whose libraries it needs; "" for those that this process has.
        variant: see ``Task``.
    """

    title: str
    module: str
    environment: str = ""
    variant: str = ""

    def command(self, task: Task, *, counting: bool = False) -> list[str]:
        """The command line of its program for the task. Raises NotAvailable.

        Args:
            counting: whether the program is to be one that counts its bytecodes. That of C has none.
        """
        if self.environment == C_CLIENT:
            queue = f"{task.service}.events"
            return [str(c_client()), task.work, task.url, str(task.count), str(task.size), queue]
        task.variant = self.variant
        modules = [f"benchmarks.peers.programs.{name}" for name in (["bytecodes"] if counting else []) + [self.module]]
        return [python(self.environment), "-m", *modules, json.dumps(asdict(task))]


CLIENTS = {
    "C": Client("C on librabbitmq", "client", C_CLIENT),
    "pika": Client("pika by hand", "on_pika", "pika"),
    "eda_pika": Client("eda_pika", "in_callbacks", "", "eda_pika"),
    "native": Client("eda_aio, native", "on_eda_aio", "", "native"),
    "eda_aio": Client("eda_aio on aiormq", "on_eda_aio", "", "aio-pika"),
    "aio-pika": Client("aio-pika by hand", "on_aio_pika", "aio-pika"),
    "FastStream": Client("FastStream", "on_faststream", "FastStream"),
    "eventail": Client("eventail", "in_callbacks", "eventail", "eventail"),
    "kombu many": Client("eda_kombu, publish_many", "on_eda_kombu", "", "many"),
    "kombu one": Client("eda_kombu, one by one", "on_eda_kombu", "", "one"),
}


def directory() -> Path:
    """Where everything is made."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "eda-core" / "peers"


def environ() -> dict[str, str]:
    """The environment of the programs: they find this checkout, and may keep compiled modules, as users do."""
    base = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return base | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "adapters")))}


@cache
def python(name: str) -> str:
    """The interpreter of an environment, which is made if it is not there. Raises NotAvailable if pip fails."""
    if not name:
        return sys.executable
    there = directory() / name
    interpreter, made = there / "bin" / "python", there / "made.txt"
    recipe = f"{sys.version} {' '.join(REQUIREMENTS[name])}"
    if not made.exists() or made.read_text("utf-8") != recipe:
        shutil.rmtree(there, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(there)])
        run([str(interpreter), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]])
        made.write_text(recipe, "utf-8")
    return str(interpreter)


@cache
def c_client() -> Path:
    """The compiled C client. Raises NotAvailable where a compiler or librabbitmq is missing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotAvailable("there is no C compiler: apt-get install -y gcc libc6-dev librabbitmq-dev")
    source, made = PROGRAMS / "client.c", directory() / "client"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        directory().mkdir(parents=True, exist_ok=True)
        try:
            run([compiler, "-O2", str(source), "-o", str(made), "-lrabbitmq"])
        except NotAvailable as error:
            raise NotAvailable(f"{error} (apt-get install -y libc6-dev librabbitmq-dev)") from None
    return made


def run(command: list[str]) -> str:
    """Its output. Raises NotAvailable, with the line of its output that tells of an error, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        why = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise NotAvailable(f"{Path(command[0]).name} failed: {why}")
    return done.stdout


def versions(name: str) -> dict[str, str]:
    """The versions of the libraries that an environment has."""
    script = (
        "import json, sys\nfrom importlib.metadata import PackageNotFoundError, version\nfound = {}\n"
        "for name in sys.argv[1:]:\n    try: found[name] = version(name)\n    except PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    found: dict[str, str] = json.loads(run([python(name), "-c", script, *LIBRARIES]))
    return found
