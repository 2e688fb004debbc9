"""The names in a new project: which are allowed, and what follows from them."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from typing import Final

from eda_tools.cli.status import USAGE, ToolError

#: Names that the tests of a project, or eda-core, have already.
_TAKEN: Final = frozenset({"tests", "test", "eda", "pytest", "hypothesis", "pika", "aiormq", "nox"})

#: The longest name, characters: the lines of the project have room for it.
LONGEST: Final = 40


@dataclass(frozen=True, slots=True)
class Names:
    """The names in a project.

    Attributes:
        project: of the distribution and its directory, such as ``shop-orders``.
        package: of the Python package and of the logical service, such as ``shop_orders``.
        service: of the service's class, such as ``ShopOrders``.
    """

    project: str
    package: str
    service: str

    @classmethod
    def of(cls, name: str) -> Names:
        """Make all names of one.

        Raises:
            ToolError: no package or service can have that name. The text says why.
        """
        package = name.replace("-", "_")
        if not re.fullmatch("[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*", name) or len(name) > LONGEST:
            raise ToolError(
                f"{name!r} is no name; take up to {LONGEST} lower-case letters and digits, such as shop-orders", USAGE
            )
        if keyword.iskeyword(package) or keyword.issoftkeyword(package):
            raise ToolError(f"{name!r} is a word of Python; take another name", USAGE)
        if package in sys.stdlib_module_names or package in _TAKEN or package.startswith("eda_"):
            raise ToolError(f"a package {package} exists already, and would be hidden; take another name", USAGE)
        return cls(name, package, "".join(word.capitalize() for word in package.split("_")))
