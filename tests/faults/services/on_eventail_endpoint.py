"""A program that publishes with eventail, for the harness, which is run where eventail is installed."""

from __future__ import annotations

from eventail.sync_publisher import Endpoint

from tests.faults.services import common

if __name__ == "__main__":
    asked = common.settings()
    endpoint = type("Publisher", (Endpoint,), asked.attributes)(asked.urls, asked.service)
    common.publish_until_told(asked, endpoint.publish_event)
