"""A journal of every input of a machine, which can be replayed: ``python -m eda_core.journal replay FILE``.

What a machine does depends only on its inputs, the time and the random numbers that it is given. So a record of these
is a record of everything it did. A journal has one JSON object per line: first the configuration of the machine,
without passwords, then each input with its arguments, the random numbers that it drew, the differences to the wall
clock that it read, and the effects that came out. The messages themselves are in the journal.
"""

from eda_core.journal.recording import RecordingMachine
from eda_core.journal.replaying import replay
from eda_core.journal.values import JournalError

__all__ = ["JournalError", "RecordingMachine", "replay"]
