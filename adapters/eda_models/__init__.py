"""Typed payloads: a module for each library that reads and writes models, as :class:`eda_core.messages.models.Library`.

The core imports such a module when it meets the first model of its library, and nobody else needs to.
"""

__all__: list[str] = []
