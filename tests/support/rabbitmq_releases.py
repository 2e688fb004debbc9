"""RabbitMQ releases that this machine does not have installed: ``python -m tests.support.rabbitmq_releases 4.3 4.0``.

A release comes from the release of Debian that has it, as a directory tree of its own under the cache directory
(``$XDG_CACHE_HOME/eda-core``, by default ``~/.cache/eda-core``). The tree's programs see its ``/usr`` and ``/etc``
and everything else of the machine. Nothing is installed on the machine, and no mount outlives the program that needs
it.
Preparing a release and running it needs root. Preparing needs the network and takes a minute.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Which release of Debian has which release of RabbitMQ.
SUITES = {"4.3": "forky", "4.0": "trixie"}
MIRROR = "http://deb.debian.org/debian"
SCRIPTS = Path("/usr/share/debootstrap/scripts")
PROGRAMS = ("rabbitmq-server", "rabbitmqctl", "rabbitmq-plugins", "rabbitmq-queues")
WRAPPER = """\
#!/bin/sh
# The mounts are in a namespace of this process, and vanish with it.
tree=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
exec unshare --mount /bin/sh -c \\
    'mount --bind "$0/etc" /etc && mount --bind "$0/usr" /usr && exec "$@"' "$tree" {program} "$@"
"""


class ReleaseError(Exception):
    """A release of RabbitMQ cannot be had. The text says why, and what to do."""


def cache_directory() -> Path:
    """The directory that holds the trees."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "eda-core")


def tree(release: str) -> Path:
    """The directory of a release, whether it is prepared or not. Raises ReleaseError for a release without a suite."""
    if release not in SUITES:
        raise ReleaseError(f"RabbitMQ {release!r} is unknown here: choose one of {', '.join(SUITES)}")
    return cache_directory() / f"rabbitmq-{release}"


def programs(release: str) -> Path:
    """The directory with ``rabbitmq-server`` and the others. Raises ReleaseError if the release is not prepared."""
    directory = tree(release) / "programs"
    if not directory.is_dir():
        command = f"{sys.executable} -m tests.support.rabbitmq_releases {release}"
        raise ReleaseError(f"RabbitMQ {release} is not prepared: run, as root, {command}")
    return directory


def prepare(release: str) -> Path:
    """Prepare a release if it is not, and return the directory of its programs.

    Raises ReleaseError if this user or this machine cannot, or if Debian has another release now.
    """
    final = tree(release)
    with _locked(release):
        if not final.exists():
            _require(release)
            partial = final.with_name(f"{final.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            _bootstrap(SUITES[release], partial)
            _check_version(release, partial)
            _write_programs(partial)
            partial.rename(final)
    return programs(release)


@contextmanager
def _locked(release: str) -> Iterator[None]:
    """Let one process at a time prepare a release."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / f"rabbitmq-{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _require(release: str) -> None:
    """Raise ReleaseError, with all that is missing, if a release cannot be prepared here."""
    missing = []
    if os.geteuid() != 0:
        missing.append("root's rights (use sudo)")
    if shutil.which("debootstrap") is None:
        missing.append("debootstrap (apt-get install debootstrap)")
    if shutil.which("unshare") is None:
        missing.append("unshare (apt-get install util-linux)")
    if not Path("/bin").is_symlink():
        missing.append("a system whose /bin is a link to /usr/bin")
    if missing:
        raise ReleaseError(f"RabbitMQ {release} cannot be prepared: this needs {'; '.join(missing)}")


def _bootstrap(suite: str, directory: Path) -> None:
    script = SCRIPTS / suite
    if not script.exists():  # a suite that is younger than debootstrap; the scripts of all suites are the same
        script = SCRIPTS / "sid"
    command = [
        "debootstrap",
        "--variant=minbase",
        "--include=rabbitmq-server",
        suite,
        str(directory),
        MIRROR,
        str(script),
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise ReleaseError(f"{' '.join(command)} ended with status {done.returncode}:\n{end}")


def _check_version(release: str, directory: Path) -> None:
    found = [path.name.partition("-")[2] for path in directory.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*")]
    if len(found) != 1 or not found[0].startswith(f"{release}."):
        raise ReleaseError(f"Debian {SUITES[release]} has RabbitMQ {', '.join(found) or 'nowhere'}, and not {release}")


def _write_programs(directory: Path) -> None:
    (directory / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (directory / "programs").mkdir()
    for name, program in [(name, f"/usr/lib/rabbitmq/bin/{name}") for name in PROGRAMS] + [("epmd", "/usr/bin/epmd")]:
        wrapper = directory / "programs" / name
        wrapper.write_text(WRAPPER.format(program=program))
        wrapper.chmod(0o755)


def main(releases: Iterable[str]) -> None:
    """Prepare releases, and print where their programs are."""
    for release in releases:
        try:
            print(release, prepare(release))
        except ReleaseError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
