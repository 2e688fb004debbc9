"""Fills in the files of a project. It does not know where they are written."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

from eda_core._version import __version__
from eda_tools.creating.names import Names

#: The user of the broker that the project starts for trials, and the password.
USER = PASSWORD = "dev"


def files(names: Names) -> dict[str, str]:
    """The text of each file of a project, by its path."""
    values = {
        "project": names.project,
        "package": names.package,
        "service": names.service,
        "line": "=" * len(names.project),
        "version": __version__,
        "user": USER,
        "password": PASSWORD,
        "password_hash": password_hash(PASSWORD, secrets.token_bytes(4)),
    }

    def filled(text: str) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)

    root = resources.files("eda_tools.creating") / "templates"
    return {filled(path): filled(file.read_text("utf-8")) for path, file in sorted(_below(root, ""))}


def _below(directory: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    """The templates: files whose names end with ``.txt``, so that nothing takes them for Python."""
    for each in directory.iterdir():
        if each.is_dir():
            yield from _below(each, f"{path}{each.name}/")
        elif each.name.endswith(".txt"):
            name = each.name.removesuffix(".txt")
            yield f"{path}{'.' + name[4:] if name.startswith('dot-') else name}", each


def password_hash(password: str, salt: bytes) -> str:
    """Return a password as RabbitMQ keeps it: salted, with SHA-256."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
