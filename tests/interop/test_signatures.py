"""The names of eventail's public classes, and what each of them takes, in order."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import eda_aio
import eda_kombu
import eda_pika

pytestmark = pytest.mark.interop

PROGRAM = Path(__file__).parent / "programs" / "signatures.py"
#: Not ``stop``: what docs/from-eventail.rst says of it is tested in tests/adapters/pika/test_eventail.py.
ASKED = {
    "Service": """__init__ publish_event publish_configuration send_command return_success return_error log call_later
        cancel_timer manual_ack manual_nack use_json use_exclusive_queues run handle_event handle_command handle_result
        handle_config on_ready on_unconfigured handle_returned_message""".split(),
    "Endpoint": ["__init__", "publish_event", "publish_configuration", "log", "force_json"],
    "Batch": ["__init__", "push", "expire"],
    "RawEvent": ["__init__"],
    "ReconnectingSupervisor": ["__init__", "run"],
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    command, env = [os.environ["EDA_EVENTAIL_PYTHON"], str(PROGRAM)], {"PATH": os.environ["PATH"]}
    asked = json.dumps(ASKED)
    ran = subprocess.run(command, input=asked, env=env, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(ran.stdout)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Service", eda_pika.Service),
        ("Service", eda_aio.Service),
        ("Endpoint", eda_kombu.Endpoint),
        ("Batch", eda_pika.Batch),
        ("Batch", eda_aio.Batch),
        ("RawEvent", eda_pika.RawEvent),
        ("ReconnectingSupervisor", eda_pika.ReconnectingSupervisor),
    ],
    ids=lambda value: getattr(value, "__module__", ""),
)
def test_whatever_was_passed_to_eventail_can_be_passed(theirs: Any, name: str, ours: type) -> None:
    """By position or by name; what is new is optional."""
    for method, parameters in theirs[name].items():
        mine = list(inspect.signature(getattr(ours, method)).parameters.values())
        old, new = mine[: len(parameters)], mine[len(parameters) :]
        assert [each.name for each in old] == [each for each, _ in parameters], method
        for each, (_, default) in zip(old, parameters, strict=True):
            if default == "something":  # a list or a dict; here nothing that could be changed by accident
                assert each.default is not each.empty, (method, each)
            elif default != "required":
                assert each.default == default, (method, each)
        assert all(each.default is not each.empty and each.kind is each.KEYWORD_ONLY for each in new), (method, new)
