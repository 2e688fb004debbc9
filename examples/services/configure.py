"""Configures all workers of the service ``greeter`` that run, of either kind.

python -m examples.services.configure "Good morning"
"""

import sys

from eda_kombu import Endpoint
from examples.services.common import broker_url

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: python -m examples.services.configure "Good morning"')
    with Endpoint(broker_url(), "operator", confirm_timeout=10) as endpoint:
        endpoint.publish_configuration("GreetingChosen", {"greeting": sys.argv[1]})
