"""How Sphinx reads the documents: ``nox -s docs``. The packages must be importable."""

import importlib
import posixpath
import sys
from pathlib import Path
from typing import Any, get_args

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))

import generate

LOGGER = logging.getLogger(__name__)

project = "eda-core"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid", "sphinx_argparse_cli"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
# The browser draws the diagrams. It loads Mermaid from cdn.jsdelivr.net; without a network it shows their text.
# By default a diagram is named by the time: two of one millisecond would be drawn into one another.
mermaid_init_config = {"startOnLoad": False, "deterministicIds": True}
exclude_patterns = ["_build"]

napoleon_use_ivar = True  # the attributes of a class are a list, not entries of their own
autodoc_default_options = {"show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
# A union of types has a name, which says more than its members.
autodoc_type_aliases = {
    name: f"{package}.{name}"
    for package in generate.PUBLIC
    for name in generate.exported(package)
    if generate.documented_in(package, name) == package
    and len(get_args(getattr(importlib.import_module(package), name))) > 1
}


def describe_data(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Take what is said of a constant from where it is defined. Sphinx looks only at the package that exports it."""
    package, _, inner = name.rpartition(".")
    if what == "data" and package in generate.PUBLIC:
        module, own = generate.home(package, inner)
        lines[:] = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", own), [])


def resolve_pages(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Lead links to the source of a page to the page. So the same links work where only the sources are shown.

    A link to a page or an anchor that is not there is an error.
    """
    for link in doctree.findall(nodes.reference):
        page, _, anchor = link.get("refuri", "").partition("#")
        if not page.endswith(".rst") or "://" in page:
            continue
        target = posixpath.normpath(posixpath.join(posixpath.dirname(docname), page.removesuffix(".rst")))
        if target not in app.env.found_docs:
            LOGGER.warning("there is no page %s", page, location=link)
        elif anchor and anchor not in app.env.get_doctree(target).ids:
            LOGGER.warning("%s has no anchor %s", page, anchor, location=link)
        else:
            uri = app.builder.get_relative_uri(docname, target)
            link["refuri"] = f"{uri}#{anchor}" if anchor else uri


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", describe_data)
    app.connect("doctree-resolved", resolve_pages)
