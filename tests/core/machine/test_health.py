"""What a service does at one moment, as a value."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from typing import Any

import pytest

from eda_core.machine.health import Health, LastError, LinkHealth
from eda_core.machine.machine import unused
from tests.core.kit import config


@pytest.mark.parametrize("kind", [Health, LinkHealth, LastError])
def test_every_attribute_is_described(kind: Any) -> None:
    described = re.findall(r"^    (\w+): ", inspect.cleandoc(kind.__doc__), re.MULTILINE)
    assert described == [each.name for each in fields(kind)]


def test_json_can_express_it() -> None:
    health = unused(config(urls="amqps://me:secret@box/")).health(0.0)
    shown = json.loads(json.dumps(health.as_dict()))
    assert shown == {
        "service": "svc",
        "worker": "box:7",
        "state": "idle",
        "ready": False,
        "configured": False,
        "stopping": False,
        "queues": [],
        "in_flight": 0,
        "running": 0,
        "paused": 0,
        "oldest_seconds": None,
        "oldest_name": "",
        "waiting": 0,
        "held": 0,
        "calls": 0,
        "callers": 0,
        "last_error": None,
        "link": {
            "url": "amqps://me:***@box/",
            "broker": "",
            "open": False,
            "seconds": None,
            "number": 1,
            "opened": 0,
            "lost": 0,
            "blocked": None,
        },
    }
