"""The public surface: ``__all__``, the runtime and the documentation in the code say the same."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NewType, get_args

import pytest

import eda_core


def family(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then the rest, each in alphabetical order, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_all_is_sorted_and_names_nothing_twice() -> None:
    assert eda_core.__all__ == sorted(set(eda_core.__all__), key=family)


def test_all_is_what_is_public_at_runtime() -> None:
    public = {
        name
        for name, value in vars(eda_core).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)  # submodules become attributes when imported
    }
    assert public | {"__version__", "criticality"} == set(eda_core.__all__)


def test_a_star_import_gives_exactly_these_names() -> None:
    namespace: dict[str, Any] = {}
    exec("from eda_core import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(eda_core.__all__)


def documented() -> list[str]:
    """The names that can have a docstring; constants and unions of types cannot."""
    return [
        name
        for name in eda_core.__all__
        if inspect.isclass(value := getattr(eda_core, name)) or inspect.isfunction(value) or inspect.ismodule(value)
    ]


def own_docstring(owner: Any) -> str:
    """What is written in the source: not inherited, nor the signature that ``dataclass`` makes up."""
    text = vars(owner).get("__doc__") or "" if inspect.isclass(owner) else owner.__doc__ or ""
    return "" if inspect.isclass(owner) and text.startswith(f"{owner.__name__}(") else text


@pytest.mark.parametrize("name", documented())
def test_each_has_a_docstring(name: str) -> None:
    assert own_docstring(getattr(eda_core, name)).strip()


def public_methods() -> Iterator[Any]:
    for name in documented():
        owner = getattr(eda_core, name)
        if inspect.isclass(owner):
            for attribute, value in vars(owner).items():
                if not attribute.startswith("_") and (
                    inspect.isfunction(value) or isinstance(value, (property, classmethod))
                ):
                    yield pytest.param(value, id=f"{name}.{attribute}")


@pytest.mark.parametrize("method", list(public_methods()))
def test_each_public_method_has_a_docstring(method: Any) -> None:
    assert (method.__doc__ or "").strip()


@pytest.mark.parametrize("name", sorted(set(eda_core.__all__) - set(documented()) - {"__version__"}))
def test_what_has_no_docstring_is_a_constant_a_union_or_a_new_type(name: str) -> None:
    value = getattr(eda_core, name)
    kinds = (str, eda_core.Done, eda_core.Deferred, eda_core.Configured, NewType)
    assert isinstance(value, kinds) or len(get_args(value)) > 1


@pytest.mark.parametrize("name", [name for name in documented() if inspect.isclass(getattr(eda_core, name))])
def test_a_class_is_exported_from_where_it_is_defined(name: str) -> None:
    """So that pickles and tracebacks name a module where it can be found."""
    exported = getattr(eda_core, name)
    assert exported.__module__.startswith("eda_core.")
    assert getattr(importlib.import_module(exported.__module__), exported.__qualname__) is exported


def test_every_exception_is_one_of_ours() -> None:
    exceptions = [
        value
        for name in eda_core.__all__
        if inspect.isclass(value := getattr(eda_core, name)) and issubclass(value, BaseException)
    ]
    assert len(exceptions) > 5
    assert all(issubclass(exception, eda_core.EdaError) for exception in exceptions)
