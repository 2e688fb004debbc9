"""Loads what an argument such as ``module:Class`` names. It loads nothing that takes time to load."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

from eda_tools.cli.status import FAILED, USAGE, ToolError


def split_path(path: str) -> tuple[str, str]:
    """Split ``module:name`` into its two parts.

    Raises:
        ToolError: it has another form. The text says what is meant.
    """
    module, _, name = path.partition(":")
    a_file = bool(re.search(r"[/\\]|\.py$", module))
    if not a_file and all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        return module, name
    hint = ""
    if a_file:
        dotted = ".".join(re.findall(r"\w+", re.sub(r"\.py$", "", module)))
        hint = f"; name the module, not its file: {dotted or 'module'}:{name or 'Name'}"
    raise ToolError(f"{path!r} is not MODULE:NAME, such as shop.orders:Orders{hint}", USAGE)


def load_object(path: str) -> Any:
    """Import ``module:name`` and return what it names. The current directory is searched first, as ``python -m`` does.

    Raises:
        ToolError: there is no such module (status 2) or name (2), or the module raises while it is imported (1). Then
            its cause is the exception of the module.
    """
    module, name = split_path(path)
    try:
        found: Any = _import(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != module and not module.startswith(f"{missing}."):
            raise ToolError(f"{module} needs the module {missing}, which is not installed", USAGE) from error
        raise ToolError(
            f"there is no module {missing}; begin in the directory that holds it, or install its package", USAGE
        ) from None
    except (Exception, SystemExit) as error:  # the module may do anything, and end the program
        raise ToolError(f"{module} cannot be imported: {type(error).__name__}: {error}", FAILED) from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ToolError(f"{module} has no {name}{_others(found)}", USAGE) from None
    return found


def _import(module: str) -> Any:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove("")


def _others(found: Any) -> str:
    """What else the module or class defines that may be meant."""
    here = getattr(found, "__name__", "")
    names = [name for name, value in vars(found).items() if getattr(value, "__module__", None) == here]
    return f"; it defines {', '.join(names[:10])}" if names else ""
