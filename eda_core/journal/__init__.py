"""A journal of every input, to replay after the fact: ``python -m eda_core.journal replay FILE``.

The machine is deterministic but for the time and the random numbers that it is given, so a record of its inputs with
both is a record of everything it did. One JSON object per line: first the machine's configuration (without passwords),
then each input with its arguments, the random numbers drawn and the effects that came out. A journal holds the messages
themselves.
"""

from eda_core.journal.recording import RecordingMachine
from eda_core.journal.replaying import replay
from eda_core.journal.values import JournalError

__all__ = ["JournalError", "RecordingMachine", "replay"]
