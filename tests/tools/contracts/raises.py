"""A module that raises while it is imported, for the tests of contracts."""

raise LookupError("not here")
