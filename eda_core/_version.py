"""The version of the distribution, written here and nowhere else: the build reads it from this file."""

__version__ = "0.1.0"
