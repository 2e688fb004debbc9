"""Written for eventail: publishes the event ``Happened``, in CBOR and in JSON. Arguments: the broker's URL."""

import sys

from eventail.sync_publisher import Endpoint

endpoint = Endpoint([sys.argv[1]], "theirs")
endpoint.publish_event("Happened", {"text": "en été"}, "cbor")
endpoint.force_json()
endpoint.publish_event("Happened", {"text": "en été"}, "json")
