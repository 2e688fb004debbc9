"""Releases of RabbitMQ are prepared as a whole or not at all, and what is missing is said."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import rabbitmq, rabbitmq_releases
from tests.support.rabbitmq import RabbitNodeError, find_server
from tests.support.rabbitmq_releases import ReleaseError, prepare, programs, tree

#: Makes what the real one makes, as far as it is looked at; the version is in its own environment.
DEBOOTSTRAP = """\
#!/bin/sh
echo "$@" > "$XDG_CACHE_HOME/arguments"
mkdir -p "$4/etc" "$4/usr/lib/rabbitmq/lib/rabbitmq_server-$MADE"
[ "$MADE" != broken ] || { echo "E: no such mirror"; exit 3; }
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine that is able to prepare releases of version 4.3.6."""
    for name, text in (("debootstrap", DEBOOTSTRAP), ("unshare", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MADE", "4.3.6")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def test_a_release_is_prepared_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = prepare("4.3")
    assert directory == programs("4.3") == cache / "eda-core" / "rabbitmq-4.3" / "programs"
    asked = (cache / "arguments").read_text().split()
    assert asked[:3] == ["--variant=minbase", "--include=rabbitmq-server", "forky"]
    for name in ("rabbitmq-server", "rabbitmqctl", "epmd"):
        assert os.access(directory / name, os.X_OK)
        assert subprocess.run(["/bin/sh", "-n", directory / name], check=False).returncode == 0
    assert "/usr/lib/rabbitmq/bin/rabbitmqctl" in (directory / "rabbitmqctl").read_text()
    monkeypatch.setenv("MADE", "broken")
    assert prepare("4.3") == directory
    monkeypatch.setenv("EDA_RABBITMQ", "4.3")
    assert find_server() == directory / "rabbitmq-server"


def test_a_failure_is_told_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE", "broken")
    with pytest.raises(ReleaseError, match=r"forky .* ended with status 3:\nE: no such mirror"):
        prepare("4.3")
    monkeypatch.setenv("MADE", "4.4.1")
    with pytest.raises(ReleaseError, match=r"Debian forky has RabbitMQ 4\.4\.1, and not 4\.3"):
        prepare("4.3")
    assert not tree("4.3").exists()
    with pytest.raises(ReleaseError, match=r"not prepared: run, as root, .* -m tests\.support\.rabbitmq_releases 4\.3"):
        programs("4.3")
    monkeypatch.setenv("EDA_RABBITMQ", "4.3")
    with pytest.raises(ReleaseError, match="not prepared"):
        find_server()
    monkeypatch.setenv("MADE", "4.3.6")
    prepare("4.3")


def test_what_is_missing_is_said_in_one_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ReleaseError, match=r"needs root's rights \(use sudo\); debootstrap \(apt-get .*; unshare"):
        prepare("4.0")
    with pytest.raises(ReleaseError, match=r"'5\.1' is unknown here: choose one of 4\.3, 4\.0"):
        prepare("5.1")
    with pytest.raises(SystemExit, match="cannot be prepared"):
        rabbitmq_releases.main(["4.0"])


def test_another_release_than_the_installed_one_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("rabbitmq-server", ""), ("rabbitmqctl", "#!/bin/sh\necho 3.10.8\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(rabbitmq, "SERVER_DIRECTORIES", (str(tmp_path),))
    monkeypatch.delenv("EDA_RABBITMQ", raising=False)
    assert find_server() == find_server("3.10") == tmp_path / "rabbitmq-server"
    assert rabbitmq.version_of(tmp_path / "rabbitmq-server") == (3, 10, 8)
    with pytest.raises(RabbitNodeError, match=r"RabbitMQ 3\.9 is asked for, and 3\.10\.8 is installed"):
        find_server("3.9")
