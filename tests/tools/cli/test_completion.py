"""Completion in the shell, with a real bash, and with zsh if it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from eda_tools import eda
from eda_tools.cli import status as cli
from eda_tools.cli.catalogue import PROGRAMS, TOOLS

#: Bash, where somebody has written $2 … and pressed TAB; what it offers.
TAB = """
eval "$(cat "$1")"; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
function=$(complete -p "$1" | sed 's/.* -F \\([^ ]*\\).*/\\1/')
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
echo "${COMPREPLY[*]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("eda ", " ".join([*TOOLS, *PROGRAMS])),
        ("eda mon", "monitor"),
        ("eda monitor --idle", "--idle-timeout"),
        ("eda resurrect - --to ", "exchange queue"),
        ("eda send_command - a.B pay", "payload.json"),
        ("eda send_command a.B pay", "payload.json"),
        ("eda broker --no", "--no-dead-letters"),
        ("eda trace --from rec", "record.cbor"),
        ("eda topology --html pa", "payload.json"),
        ("monitor.py --filter", "--filter_fields"),
        ("monitor.py - --record rec", "record.cbor"),
        ("inspect_queue.py --group-by ", "key reason error age"),
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


#: Zsh on a terminal, where somebody has written $2 and pressed TAB; what the line is then, in brackets.
ZSH = r"""
zmodload zsh/zpty; zpty z zsh -f -i
say() { zpty -w z "$1"; zpty -r z seen "*$2*" }
say "autoload -Uz compinit; compinit -u -D; bindkey '^I' complete-word; setopt no_auto_list; print rea''dy" ready
say "tell() { print -r -- \"[\$BUFFER]\" }; zle -N tell; bindkey '^X' tell; print bou''nd" bound
say "eval \"\$(cat $1)\"; print do''ne" done
zpty -w -n z "$2"$'\t\x18'; zpty -r z seen "*[[]*]*"
print -r -- "$seen"
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("eda mon", "eda monitor"),
        ("eda monitor - --idle", "eda monitor - --idle-timeout"),
        ("eda resurrect - q --to ex", "eda resurrect - q --to exchange"),
    ],
)
def test_zsh_completes_words(words: str, completed: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert eda.main(["--print-completion", "zsh"]) == cli.DONE
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ran = subprocess.run(
        ["zsh", "-f", "-c", ZSH, "zsh", tmp_path / "script", words],
        env={**os.environ, "TERM": "xterm"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert f"[{completed} ]" in ran.stdout, ran


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_too(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert eda.main(["--print-completion", shell]) == cli.DONE
    script = capsys.readouterr().out
    assert all(name in script for name in TOOLS)


def test_a_tool_of_eda_has_no_script_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Such a script would complete the words of eda, and those of a command with the tool's name."""
    assert eda.main(["monitor", "--print-completion", "zsh"]) == cli.USAGE
    written = capsys.readouterr()
    told = "eda monitor: eda's script completes all of its tools: eda --print-completion zsh (see eda monitor --help)\n"
    assert (written.out, written.err) == ("", told)
