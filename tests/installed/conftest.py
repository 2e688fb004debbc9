"""The tests in ``project`` are a user's: they are run where the wheel is installed, by ``nox -s packages``."""

collect_ignore = ["project"]
