"""What the programs that are not on eventail have in common."""

from __future__ import annotations

from typing import Any

from eda_core import ReconnectPolicy
from tests.faults.services.common import Settings


def attributes(asked: Settings) -> dict[str, Any]:
    """The attributes of the class, with what JSON cannot hold."""
    given = dict(asked.attributes)
    if "RECONNECT_POLICY" in given:
        given["RECONNECT_POLICY"] = ReconnectPolicy(**given["RECONNECT_POLICY"])
    return given
