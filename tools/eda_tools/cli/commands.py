"""The commands that an installation makes: ``eda``, and each tool under its own name (``pyproject.toml``)."""

import importlib
import sys
from collections.abc import Callable

import eda_tools.cli.early  # noqa: F401 - before all that takes time to load


def _command(name: str) -> Callable[[], int]:
    def command() -> int:
        try:
            module = importlib.import_module(f"eda_tools.{name}")
        except ModuleNotFoundError as error:  # pip makes the commands without the extra, too
            sys.stderr.write(f"{name}: {error.name} is not installed; pip install 'eda-core[tools]' brings it along\n")
            return 1
        status: int = module.main()
        return status

    return command


eda = _command("eda")
logger = _command("logger")
monitor = _command("monitor")
publish_event = _command("publish_event")
publish_configuration = _command("publish_configuration")
send_command = _command("send_command")
inspect_queue = _command("inspect_queue")
resurrect = _command("resurrect")
trace = _command("trace")
doctor = _command("doctor")
topology = _command("topology")
