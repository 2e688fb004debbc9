"""Command line tools for a bus of events and commands. Each runs as ``eda <tool>`` or ``python -m eda_tools.<tool>``.

``eda_tools.cli.tool`` says how a tool is made. ``eda_tools.broker`` is the embedded broker for demos and tests.
"""

import sys

# While ``python -m MODULE`` looks for its module, argv is "-m" and what follows the module on the command line.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].partition(".")[0] == __name__:
    from eda_tools.cli import start

    start.begin()
