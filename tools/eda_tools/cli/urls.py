"""Several URLs of brokers in one text, as in the environment variable EDA_AMQP_URL."""

from __future__ import annotations

import re
from typing import Final

#: The environment variable for the URLs, which no list of processes shows.
URL_VARIABLE: Final = "EDA_AMQP_URL"


def split_urls(text: str) -> list[str]:
    """Split URLs that are separated by commas. They are not checked."""
    return [url.strip() for url in re.split(r",\s*(?=amqps?://)", text, flags=re.IGNORECASE) if url.strip()]
