"""Runs one of the programs, and counts the bytecodes that it executes. Arguments: the program's module, and its task.

SIGUSR1 begins to count, SIGUSR2 ends it and prints the numbers by group, as JSON. It needs nothing but Python, because
the environments of the other clients have nothing of ours. What runs in other threads is not counted.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections import Counter
from functools import cache
from typing import Any

#: What frames, methods, properties and payloads go through, by the beginnings of the names of modules.
WIRE = ("eda_core.amqp", "eda_core.messages", "pamqp", "pika", "aiormq", "aio_pika", "kombu", "amqp", "cbor2")
MACHINE = "eda_core.machine"

_found: Counter[str] = Counter()


@cache
def group(module: str) -> str:
    """What a module counts as."""
    if module.startswith(MACHINE):
        return "machine"
    if module.startswith(tuple(f"{name}." for name in WIRE)) or module in WIRE:
        return "wire"
    return "python" if module.partition(".")[0] in sys.stdlib_module_names - {"__main__"} else "service"


def _count(frame: Any, event: str, _argument: Any) -> Any:
    if event == "call":
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
    elif event == "opcode":
        _found[group(frame.f_globals.get("__name__", ""))] += 1
    return _count


def _begin(*_signal: Any) -> None:
    sys.settrace(_count)


def _end(*_signal: Any) -> None:
    sys.settrace(None)
    os.write(1, f"{json.dumps(_found)}\n".encode())


def main() -> None:
    signal.signal(signal.SIGUSR1, _begin)
    signal.signal(signal.SIGUSR2, _end)
    program = sys.argv.pop(1)
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
