"""Our ping, answered by a pong on eventail, and by the same file with other import lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.services import asynchronous, environment, program

PONG = Path(__file__).parent / "programs" / "pong.py"


@pytest.mark.interop
@pytest.mark.parametrize("kind", ["pika", "aio"])
@pytest.mark.parametrize("moved", [False, True], ids=["eventail", "moved"])
def test_our_ping_is_answered(rabbit_url: str, tmp_path: Path, kind: str, moved: bool) -> None:
    python = sys.executable if moved else os.environ["EDA_EVENTAIL_PYTHON"]
    source = PONG.read_text(encoding="utf-8")
    file = tmp_path / "pong.py"
    file.write_text(source.replace("eventail.async_service.pika", "eda_pika") if moved else source, encoding="utf-8")
    env = environment() if moved else {"PATH": os.environ["PATH"]}

    async def scenario() -> None:
        async with program("-m", f"examples.services.{kind}.ping", url=rabbit_url) as ping:
            await ping.lines.until(lambda lines: any("by worker theirs" in line for line in lines), "an answer")

    with subprocess.Popen([python, str(file), rabbit_url], env=env, stdout=subprocess.PIPE, text=True) as pong:
        try:
            assert pong.stdout is not None
            assert pong.stdout.readline() == "pong: ready\n"
            asynchronous(scenario)()
        finally:
            pong.kill()
