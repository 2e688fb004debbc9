"""``publish_configuration.py amqp_url event payload``: publish a configuration, and say whether anybody gets it."""

import sys
from typing import Final

from eda_core.messages.values import Configuration
from eda_tools.bus.publish import publishing

TOOL = publishing(
    "publish_configuration",
    Configuration,
    (
        """eda publish_configuration TaggerSettings --data '{"threshold": 3}'""",
        "jq '.threshold = 3' settings.json | eda publish_configuration TaggerSettings -",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
