"""The public names: ``__all__`` of each public package, the runtime, the reference and the docstrings agree."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NewType, get_args

import pytest

import eda_core

ROOT = Path(__file__).parents[2]
GENERATE: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "generate.py"))
#: Packages with ``__all__``, and single modules without it, such as the strategies, which export what they define.
PUBLIC: tuple[str, ...] = GENERATE["PUBLIC"]
PACKAGES = [name for name in PUBLIC if hasattr(importlib.import_module(name), "__all__")]


def exported(package: str) -> list[str]:
    names: list[str] = GENERATE["exported"](package)
    return names


def value_of(package: str, name: str) -> Any:
    return getattr(importlib.import_module(package), name)


#: Every public name once, in the package where it is described.
NAMES = [
    (package, name)
    for package in PUBLIC
    for name in exported(package)
    if GENERATE["documented_in"](package, name) == package
]
CLASSES = [(package, name) for package, name in NAMES if inspect.isclass(value_of(package, name))]


def in_words(case: object) -> str | None:
    return ".".join(case) if isinstance(case, tuple) else None


def family(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then the rest, each in alphabetical order, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_every_package_that_users_import_is_public() -> None:
    ours = {"messages", "amqp", "drivers", "services", "journal", "testing"}
    assert set(PUBLIC) >= {"eda_core", "eda_aio", "eda_kombu", "eda_pika", *(f"eda_core.{name}" for name in ours)}
    parts = [path.parent.name for path in (ROOT / "eda_core" / "testing").glob("*/__init__.py")]
    assert set(PUBLIC) >= {f"eda_core.testing.{part}" for part in parts}


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_names_nothing_twice(package: str) -> None:
    assert exported(package) == sorted(set(exported(package)), key=family)


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_what_is_public_at_runtime(package: str) -> None:
    """What a package imports of ours without exporting it, it needs itself."""
    module = importlib.import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    foreign = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("eda_")
        for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)  # submodules become attributes when imported
    }
    whole = {name for name in exported(package) if name == "__version__" or isinstance(vars(module)[name], ModuleType)}
    assert (public - foreign - used) | whole | (used & set(exported(package))) == set(exported(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_star_import_gives_exactly_these_names(package: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"from {package} import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(exported(package))


# The reference


def described(package: str) -> list[tuple[str, str]]:
    """What the page of a package has: the kind of each entry, and its full name."""
    page = (ROOT / "docs" / "reference" / f"{package}.rst").read_text("utf-8")
    entries = re.findall(r"^\.\. auto(class|exception|function|data|module):: (\S+)\n(?!   :no-index:)", page, re.M)
    return [entry for entry in entries if entry != ("module", package)]


@pytest.mark.parametrize("package", PUBLIC)
def test_the_page_of_a_package_has_each_of_its_names_once(package: str) -> None:
    """Its own in full, others by a link to where they are described. If not, run ``python docs/generate.py``."""
    page = (ROOT / "docs" / "reference" / f"{package}.rst").read_text("utf-8")
    links = re.findall(r"^- :py:obj:`(\w+) <([\w.]+)\.(\w+)>`$", page, re.M)
    assert all((there, name) in NAMES for _, there, name in links)
    assert all(
        getattr(importlib.import_module(there), its) is getattr(importlib.import_module(package), own)
        for own, there, its in links
    )
    found = [*(name.rpartition(".")[2] for _, name in described(package)), *(name for name, *_ in links)]
    assert sorted(found) == sorted(exported(package))


def test_every_name_is_described_on_one_page() -> None:
    entries = [name for package in PUBLIC for _, name in described(package)]
    assert sorted(entries) == sorted(f"{package}.{name}" for package, name in NAMES)


def test_the_reference_lists_every_page_and_no_other() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "reference").glob("*.rst")} - {"index"}
    index = (ROOT / "docs" / "reference" / "index.rst").read_text("utf-8")
    assert pages == set(PUBLIC) == set(re.findall(r"^   (eda_[\w.]+)$", index, re.M))


@pytest.mark.parametrize("package", PUBLIC)
def test_an_entry_is_of_the_right_kind(package: str) -> None:
    for kind, name in described(package):
        owner, _, inner = name.rpartition(".")
        value = importlib.import_module(name) if kind == "module" else value_of(owner, inner)
        assert (kind == "module") == inspect.ismodule(value)
        assert (kind == "function") == inspect.isroutine(value)
        assert (kind in ("class", "exception")) == inspect.isclass(value)
        assert (kind == "exception") == (inspect.isclass(value) and issubclass(value, BaseException))


def test_an_import_through_another_package_leads_to_the_definition() -> None:
    home = GENERATE["home"]
    assert home("eda_core", "Machine") == ("eda_core.machine.machine", "Machine")
    assert home("eda_core", "criticality") == ("eda_core.criticality", "")
    assert home("eda_aio", "RawEvent") == home("eda_core", "RawEvent")
    assert home("eda_core.testing.conformance", "CHECKS") == ("eda_core.testing.conformance.case", "CHECKS")


# Docstrings


def has_docstring(value: Any) -> bool:
    """Constants, unions of types and new types cannot have one."""
    return inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)


def own_docstring(owner: Any) -> str:
    """What is written in the source: not inherited, nor the signature that ``dataclass`` makes up."""
    text = vars(owner).get("__doc__") or "" if inspect.isclass(owner) else owner.__doc__ or ""
    return "" if inspect.isclass(owner) and text.startswith(f"{owner.__name__}(") else text


@pytest.mark.parametrize("name", [case for case in NAMES if has_docstring(value_of(*case))], ids=in_words)
def test_each_has_a_docstring(name: tuple[str, str]) -> None:
    assert own_docstring(value_of(*name)).strip()


def public_methods() -> Iterator[tuple[str, Any]]:
    """Those that a public class defines itself, by their full names."""
    for package, name in CLASSES:
        owner = value_of(package, name)
        for attribute, value in vars(owner).items():
            if not attribute.startswith("_") and (
                inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod))
            ):
                yield f"{package}.{name}.{attribute}", getattr(owner, attribute)


METHODS = dict(public_methods())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_each_public_method_has_a_docstring(name: str) -> None:
    """Its own, or that of the method that it overrides."""
    assert (inspect.getdoc(METHODS[name]) or "").strip()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {("eda_core", "__version__")}), ids=in_words)
def test_what_has_no_docstring_is_a_constant_a_union_or_a_new_type(name: tuple[str, str]) -> None:
    value = value_of(*name)
    outcomes = (eda_core.Done, eda_core.Deferred, eda_core.Configured)
    constants = (str, int, float, bytes, tuple, frozenset, Mapping, NewType, *outcomes)
    assert has_docstring(value) or isinstance(value, constants) or len(get_args(value)) > 1


@pytest.mark.parametrize("name", [case for case in NAMES if not has_docstring(value_of(*case))], ids=in_words)
def test_what_has_no_docstring_has_a_comment_for_the_reference(name: tuple[str, str]) -> None:
    """``#:`` in the lines before it. A version needs none."""
    module, own = GENERATE["home"](*name)
    source = inspect.getsource(importlib.import_module(module))
    assert own == "__version__" or re.search(rf"^#: .+\n{own}\b", source, re.MULTILINE)


@pytest.mark.parametrize("name", CLASSES, ids=in_words)
def test_a_class_is_exported_from_where_it_is_defined(name: tuple[str, str]) -> None:
    """So that pickles and tracebacks name a module where it can be found."""
    exported_class = value_of(*name)
    assert exported_class.__module__.startswith(("eda_core.", f"{name[0].partition('.')[0]}."))
    assert getattr(importlib.import_module(exported_class.__module__), exported_class.__qualname__) is exported_class


def test_every_exception_of_the_core_is_one_of_ours() -> None:
    exceptions = [
        value
        for name in eda_core.__all__
        if inspect.isclass(value := getattr(eda_core, name)) and issubclass(value, BaseException)
    ]
    assert len(exceptions) > 5
    assert all(issubclass(exception, eda_core.EdaError) for exception in exceptions)
