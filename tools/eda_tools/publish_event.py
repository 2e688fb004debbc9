"""``publish_event.py amqp_url event payload``: publish an event, and say whether anybody gets it."""

import sys
from typing import Final

from eda_core.messages.values import Event
from eda_tools.bus.publish import publishing

TOOL = publishing(
    "publish_event",
    Event,
    (
        """eda publish_event CallEnded --data '{"call": 7}'""",
        "eda publish_event CallEnded call.json",
        "eda publish_event CallEnded call.cbor --count 1000 --rate 50",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
