"""Completion in the shell: tried out in bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from eda_tools import cli, eda

#: Bash, where somebody has written $2 … and pressed TAB; what it offers.
TAB = """
source "$1"; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
function=$(complete -p "$1" | sed 's/.* -F \\([^ ]*\\).*/\\1/')
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
echo "${COMPREPLY[*]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("eda ", " ".join(eda.TOOLS)),
        ("eda mon", "monitor"),
        ("eda monitor --idle", "--idle-timeout"),
        ("eda resurrect - --to ", "exchange queue"),
        ("eda send_command - a.B pay", "payload.json"),
        ("eda trace --from rec", "record.cbor"),
        ("eda topology --html pa", "payload.json"),
        ("monitor.py --filter", "--filter_fields"),
        ("monitor.py - --record rec", "record.cbor"),
        ("inspect_queue.py --group-by ", "key reason age"),
    ],
)
def test_bash_completes_words(words: str, offered: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command, script = words.partition(" ")[0], tmp_path / "completion.bash"
    name = command.removesuffix(".py")
    if name == "eda":
        assert eda.main(["--print-completion", "bash"]) == cli.DONE
    else:
        assert eda.load(name).main(["--print-completion", "bash"], prog=command) == cli.DONE
    script.write_text(capsys.readouterr().out)
    for file in ("payload.json", "record.cbor"):
        (tmp_path / file).touch()
    ran = subprocess.run(
        ["bash", "-c", TAB, "bash", script, *words.split(" ")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert (ran.stdout.strip(), ran.stderr) == (offered, "")


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_too(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert eda.main(["--print-completion", shell]) == cli.DONE
    script = capsys.readouterr().out
    assert all(name in script for name in eda.TOOLS)
