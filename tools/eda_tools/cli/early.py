"""Ctrl-C before a tool begins, while its modules are loaded, and after it has ended: no traceback, and a true status.

Importing this module does it; a program that only uses parts of this package never imports it.
"""

import atexit
import os
import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
    # Nothing has been written yet. The number is eda_tools.cli.status.INTERRUPTED; a handler must not import anything.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # While a tool works, asyncio's handler takes this one's place. At the end the status is decided.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
