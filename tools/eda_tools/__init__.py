"""Command line tools around a bus of events and commands, each run as ``python -m eda_tools.<tool>`` or ``eda <tool>``.

``eda_tools.cli`` says how a tool is made. ``eda_tools.broker`` is the embedded broker: for trying out, demos and tests.
"""
