"""What the testing tools make public: ``__all__``, the runtime and the docstrings agree."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import pytest

PACKAGES = [
    importlib.import_module(name)
    for name in (
        "eda_core.testing",
        "eda_core.testing.broker",
        "eda_core.testing.wire",
        "eda_core.testing.explorer",
        "eda_core.testing.conformance",
    )
]
STRATEGIES = importlib.import_module("eda_core.testing.strategies")
EXPORTS = [
    pytest.param(getattr(package, name), id=f"{package.__name__}.{name}")
    for package in (*PACKAGES, STRATEGIES)
    for name in package.__all__
]


def family(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then the rest, each in alphabetical order, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_all_is_sorted_and_is_what_is_public_at_runtime(package: ModuleType) -> None:
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "Final"
    }
    assert package.__all__ == sorted(public, key=family)


def test_all_strategies_are_exported() -> None:
    functions = {
        name
        for name, value in vars(STRATEGIES).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == STRATEGIES.__name__
    }
    assert set(STRATEGIES.__all__) == functions | {"RESERVED"}


@pytest.mark.parametrize("value", EXPORTS)
def test_each_class_and_function_has_a_docstring(value: Any) -> None:
    if inspect.isclass(value) or inspect.isfunction(value):
        text = vars(value).get("__doc__") or "" if inspect.isclass(value) else value.__doc__ or ""
        assert text.strip()
        assert not text.startswith(f"{value.__name__}("), "dataclass has made it up"


@pytest.mark.parametrize("value", EXPORTS)
def test_each_public_method_has_a_docstring(value: Any) -> None:
    if inspect.isclass(value):
        missing = [
            name
            for name, method in vars(value).items()
            if not name.startswith("_")
            and (inspect.isfunction(method) or isinstance(method, (property, classmethod)))
            and not (method.__doc__ or "").strip()
        ]
        assert missing == []


@pytest.mark.parametrize("value", EXPORTS)
def test_a_class_is_found_where_it_says_that_it_is_defined(value: Any) -> None:
    """So pickles and tracebacks name a module that has it."""
    if inspect.isclass(value):
        assert getattr(importlib.import_module(value.__module__), value.__qualname__) is value
