"""Command line tools around a bus of events and commands, each run as ``python -m eda_tools.<tool>`` or ``eda <tool>``.

``eda_tools.cli`` says how a tool is made. ``eda_tools.broker`` is the embedded broker: for trying out, demos and tests.
"""

import sys

# While ``python -m MODULE`` looks for its module, argv begins with "-m", and the rest is what stands behind the module.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].partition(".")[0] == __name__:
    from eda_tools.cli import start

    start.begin()
