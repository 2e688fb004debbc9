"""A program that publishes with eda_kombu, for the harness."""

from __future__ import annotations

from eda_kombu import Endpoint
from tests.faults.services import common, ours

if __name__ == "__main__":
    asked = common.settings()
    with type("Publisher", (Endpoint,), ours.attributes(asked))(asked.urls, asked.service) as endpoint:
        common.publish_until_told(asked, endpoint.publish_event)
