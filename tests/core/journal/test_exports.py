"""What ``eda_core.journal`` exports is there, and has a docstring."""

from __future__ import annotations

from eda_core import journal


def test_the_exports_are_sorted_and_described() -> None:
    assert journal.__all__ == sorted(journal.__all__)
    assert all(getattr(journal, name).__doc__ for name in journal.__all__)
