"""What a planted bug is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one line of ``eda_core/<module>.py``, which holds ``before`` exactly once."""

    name: str
    module: str
    before: str
    after: str
    scenario: str
    rule: str
