"""Explore one scenario in a fresh interpreter: the core under test is the one in the current directory.

It ends with status 0 if everything holds, else with status 1. Then it has printed the rule that is broken, and how.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import eda_core
from eda_core.testing.explorer import Counterexample, explore
from eda_core.testing.explorer.scenarios import SCENARIOS


def main(name: str) -> int:
    if Path(eda_core.__file__).parent.parent != Path.cwd():
        raise SystemExit(f"{eda_core.__file__} is not the core in {Path.cwd()}")
    gc.disable()
    scenario = next(each for each in SCENARIOS if each.name == name)
    try:
        print(explore(scenario))
    except Counterexample as found:
        print(found.rule)
        print(found)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
