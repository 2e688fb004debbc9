"""Loading what an argument names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eda_tools.cli.loading import load_object, split_path
from eda_tools.cli.status import FAILED, USAGE, ToolError

MODULE = """
from collections import OrderedDict

class Shop:
    class Inner: ...

def make(): ...

NUMBER = 7
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with some modules."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    (tmp_path / "loaded_shop.py").write_text(MODULE)
    (tmp_path / "loaded_wrong.py").write_text("1 / 0\n")
    (tmp_path / "loaded_needing.py").write_text("import not_installed_anywhere.deeper\n")
    (tmp_path / "loaded_package").mkdir()
    (tmp_path / "loaded_package" / "__init__.py").write_text("")
    for name in set(sys.modules) - before:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_what_is_named_is_loaded_from_the_current_directory() -> None:
    before = list(sys.path)
    try:
        assert load_object("loaded_shop:NUMBER") == 7
        assert load_object("loaded_shop:Shop.Inner").__qualname__ == "Shop.Inner"
        assert sys.path == before
    finally:
        sys.modules.pop("loaded_shop", None)


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("loaded_nowhere:X", USAGE, "there is no module loaded_nowhere; begin in the directory that holds it"),
        ("loaded_nowhere.inner:X", USAGE, "there is no module loaded_nowhere; "),
        ("loaded_package.inner:X", USAGE, "there is no module loaded_package.inner; "),
        ("loaded_needing:X", USAGE, "loaded_needing needs the module not_installed_anywhere, which is not installed"),
        ("loaded_wrong:X", FAILED, "loaded_wrong cannot be imported: ZeroDivisionError: division by zero"),
        ("loaded_shop:Shp", USAGE, "loaded_shop has no Shp; it defines Shop, make"),
        ("loaded_shop:Shop.Outer", USAGE, "loaded_shop has no Shop.Outer"),
        ("loaded_package:Shop", USAGE, "loaded_package has no Shop"),
    ],
)
def test_what_cannot_be_loaded_is_told(path: str, status: int, told: str) -> None:
    with pytest.raises(ToolError) as caught:
        load_object(path)
    assert str(caught.value).startswith(told)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("shop", ""),
        (":Shop", ""),
        ("shop:", ""),
        ("shop:Shop:x", ""),
        ("shop:Shop()", ""),
        ("shop-1:Shop", ""),
        ("shop.py:Shop", "; name the module, not its file: shop:Shop"),
        ("src/shop.py:Shop", "; name the module, not its file: src.shop:Shop"),
        ("./shop.py", "; name the module, not its file: shop:Name"),
        (r"src\shop:Shop", "; name the module, not its file: src.shop:Shop"),
    ],
)
def test_what_names_no_object_is_told(path: str, hint: str) -> None:
    with pytest.raises(ToolError) as caught:
        split_path(path)
    assert str(caught.value) == f"{path!r} is not MODULE:NAME, such as shop.orders:Orders{hint}"
    assert caught.value.status == USAGE
