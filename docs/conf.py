"""How Sphinx reads the documents: ``nox -s docs``."""

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "eda-core"
html_theme = "alabaster"
exclude_patterns = ["_build"]


def setup(app: Sphinx) -> None:
    """Pygments knows no Mermaid: it is shown as it is."""
    app.add_lexer("mermaid", TextLexer)
