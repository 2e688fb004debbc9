"""The conformance kit: what every adapter and every transport has to do, as checks that any of them can be put to.

Each check is a script of what happens to some services (see :mod:`eda_core.testing.conformance.script` for the words):
they are started, peers send them messages, the network fails, they are stopped. What runs it makes real services of the
``Worker`` values, has a real broker, and does as the script asks; ``tests/conformance/runner.py`` is such a runner, and
``docs/embedding.rst`` tells how to put a transport of one's own to it.
"""

from __future__ import annotations

from typing import Final

from eda_core.testing.conformance.faults import FAULTS
from eda_core.testing.conformance.messages import MESSAGES
from eda_core.testing.conformance.script import Check, MakeSubject, NotConforming, Request, Script, Subject, Worker
from eda_core.testing.conformance.settling import SETTLING

__all__ = ["CHECKS", "Check", "MakeSubject", "NotConforming", "Request", "Script", "Subject", "Worker"]

#: All checks, the most basic ones first.
CHECKS: Final[tuple[Check, ...]] = (*MESSAGES, *SETTLING, *FAULTS)
